"""Writing files so that none is ever half written, with one clear error when that fails.

Of several processes that compute one run the first alone writes, but with `put`.
"""

import contextlib
import errno
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from fairdd_jax import hosts
from fairdd_jax.errors import DataError, WorkdirError, one_line

_FULL = os.strerror(errno.ENOSPC)


@contextlib.contextmanager
def explained(
    path: Path, errors: type[Exception] | tuple[type[Exception], ...] = OSError
) -> Iterator[None]:
    """Turn the operating system's complaint, or whatever a library makes of it, into one line."""
    try:
        yield
    except errors as error:
        text = one_line(error)
        # A library may say so at the end of a long text, of which one line has the beginning.
        full = getattr(error, "errno", None) == errno.ENOSPC or _FULL in str(error)
        hint = "free some space" if full else "choose another place"
        raise WorkdirError(f"cannot write {path}: {text}; {hint}") from None


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder; the system unlocks it when this one ends, however.

    Raises:
      WorkdirError: one is in there already.
    """
    lock = FileLock(folder / ".lock", timeout=0)
    is_taken = False
    if hosts.is_first():
        with explained(folder):
            try:
                lock.acquire()
            except Timeout:
                is_taken = True
    if hosts.any_of(is_taken):
        raise WorkdirError(
            f"another process writes to {folder}; wait for its end or choose another --workdir"
        )
    try:
        yield
    finally:
        lock.release()


def prepare(folder: Path) -> Path:
    """Make a folder and see that files can be written there.

    Raises:
      WorkdirError: they cannot.
    """
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    return folder


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file that is there whole or not at all.

    Raises:
      WorkdirError: it cannot be written.
    """
    if hosts.is_first():
        with explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            put(path, content)


def put(path: Path, content: bytes) -> None:
    """What `write_atomically` does, in every process, into a folder that is there.

    Raises:
      OSError: the file cannot be written.
    """
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


def read_json(path: Path) -> dict[str, Any]:
    """The object that a JSON file holds.

    Raises:
      DataError: it is damaged.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} is damaged ({one_line(error)}); remove it") from None
    if not isinstance(content, dict):
        raise DataError(f"{path} is damaged: it holds no JSON object; remove it")
    return content


def remove(path: Path) -> None:
    """Remove a file if it is there.

    Raises:
      WorkdirError: it cannot be removed.
    """
    if hosts.is_first():
        with explained(path):
            path.unlink(missing_ok=True)


def write_lines(path: Path, lines: Iterable[dict[str, Any]]) -> None:
    """Write a JSON line each, atomically.

    Raises:
      WorkdirError: the file cannot be written.
    """
    write_atomically(path, "".join(json.dumps(line) + "\n" for line in lines).encode())


def append_line(path: Path, content: dict[str, Any]) -> None:
    """Append a JSON line; readers ignore a torn last line.

    Raises:
      WorkdirError: it cannot be written.
    """
    if hosts.is_first():
        with explained(path), path.open("a") as file:
            file.write(json.dumps(content) + "\n")
