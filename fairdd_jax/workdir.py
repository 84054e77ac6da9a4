"""Writing files so that none is ever half written, with one clear error when that fails."""

import contextlib
import errno
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fairdd_jax.errors import WorkdirError


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn the operating system's complaint into one line."""
    try:
        yield
    except OSError as error:
        hint = "free some space" if error.errno == errno.ENOSPC else "choose another --workdir"
        raise WorkdirError(f"cannot write {path}: {error.strerror or error}; {hint}") from None


def prepare(folder: Path) -> Path:
    """Make a folder and see that files can be written there.

    Raises:
      WorkdirError: they cannot.
    """
    with _explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    return folder


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file that is there whole or not at all.

    Raises:
      WorkdirError: it cannot be written.
    """
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file atomically; NaN is not JSON and is refused."""
    text = json.dumps(content, indent=2, sort_keys=True, allow_nan=False)
    write_atomically(path, text.encode() + b"\n")


def remove(path: Path) -> None:
    """Remove a file if it is there.

    Raises:
      WorkdirError: it cannot be removed.
    """
    with _explained(path):
        path.unlink(missing_ok=True)


def append_line(path: Path, content: dict[str, Any]) -> None:
    """Append a JSON line; readers ignore a torn last line.

    Raises:
      WorkdirError: it cannot be written.
    """
    with _explained(path), path.open("a") as file:
        file.write(json.dumps(content) + "\n")
