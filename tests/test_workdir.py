"""Files are whole or not there, and what the system refuses is said in one line.

Errors are injected, because the superuser is never refused.
"""

import errno
import json
import os
from pathlib import Path

import pytest

from fairdd_jax import workdir
from fairdd_jax.errors import WorkdirError

REFUSALS = [
    (errno.ENOSPC, "No space left on device; free some space"),
    (errno.EACCES, "Permission denied; choose another place"),
    (errno.EROFS, "Read-only file system; choose another place"),
]


def refuse(monkeypatch, module, name, number):
    def refusing(*args, **options):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(module, name, refusing)


def assert_one_line(error, message):
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_is_written_with_its_folders(tmp_path):
    path = tmp_path / "a" / "b" / "file"
    workdir.write_atomically(path, b"first")
    workdir.write_atomically(path, b"second")
    assert path.read_bytes() == b"second"
    assert list(path.parent.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_long_text_may_say_at_its_end_that_the_disk_is_full(tmp_path):
    with pytest.raises(WorkdirError, match="free some space"), workdir.explained(tmp_path):
        raise OSError("a write of a library failed; " * 30 + os.strerror(errno.ENOSPC))


class Stop(BaseException):
    """Like an interrupt."""


@pytest.mark.parametrize("where", ["fsync", "chmod", "replace"])
@pytest.mark.parametrize("error", [Stop(), OSError(errno.ENOSPC, "full")])
def test_a_failure_in_the_middle_leaves_the_old_file_and_no_other(
    tmp_path, monkeypatch, where, error
):
    path = tmp_path / "file"
    workdir.write_atomically(path, b"old")

    def fail(*args):
        raise error

    monkeypatch.setattr(workdir.os, where, fail)
    with pytest.raises(Stop if isinstance(error, Stop) else WorkdirError):
        workdir.write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("number", "message"), REFUSALS)
def test_what_the_system_refuses_is_explained(tmp_path, monkeypatch, number, message):
    path = tmp_path / "file"
    with monkeypatch.context() as patch:
        refuse(patch, workdir.tempfile, "mkstemp", number)
        with pytest.raises(WorkdirError) as error:
            workdir.write_atomically(path, b"")
        assert_one_line(error, f"cannot write {path}: {message}")
    with monkeypatch.context() as patch:
        refuse(patch, workdir.tempfile, "TemporaryFile", number)
        with pytest.raises(WorkdirError) as error:
            workdir.prepare(tmp_path)
        assert_one_line(error, f"cannot write {tmp_path}: {message}")
    for name in ("open", "unlink"):
        with monkeypatch.context() as patch:
            refuse(patch, Path, name, number)
            with pytest.raises(WorkdirError) as error:
                workdir.append_line(path, {}) if name == "open" else workdir.remove(path)
            assert_one_line(error, f"cannot write {path}: {message}")


def test_a_file_in_place_of_the_folder(tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    for folder in (file, file / "below"):
        with pytest.raises(WorkdirError) as error:
            workdir.prepare(folder)
        assert_one_line(error, f"cannot write {folder}: ")
        with pytest.raises(WorkdirError):
            workdir.write_atomically(folder / "new", b"")
    assert file.read_text() == "mine"


def test_a_folder_in_place_of_the_file(tmp_path):
    for action in (
        lambda: workdir.write_atomically(tmp_path, b""),
        lambda: workdir.append_line(tmp_path, {}),
        lambda: workdir.remove(tmp_path),
    ):
        with pytest.raises(WorkdirError) as error:
            action()
        assert_one_line(error, f"cannot write {tmp_path}: ")
    assert list(tmp_path.iterdir()) == []


def test_prepare_makes_the_folder_and_leaves_nothing_in_it(tmp_path):
    folder = tmp_path / "a" / "b"
    for _ in range(2):
        assert workdir.prepare(folder) == folder
        assert list(folder.iterdir()) == []


def test_json_is_sorted_complete_and_has_no_nan(tmp_path):
    path = tmp_path / "file.json"
    content = {"b": [1, None, 0.1], "a": {"c": "é"}}
    workdir.write_json(path, content)
    assert json.loads(path.read_text()) == content
    assert path.read_text().endswith("}\n")
    with pytest.raises(ValueError, match="not JSON compliant"):
        workdir.write_json(path, {"b": float("nan")})
    assert json.loads(path.read_text()) == content


def test_lines_are_appended(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = [{"step": step, "loss": step / 3} for step in range(3)]
    for line in lines:
        workdir.append_line(path, line)
        # On disk at once, so that an interrupted run keeps it.
        assert json.loads(path.read_text().splitlines()[-1]) == line
    assert [json.loads(line) for line in path.read_text().splitlines()] == lines


def test_removing_what_is_not_there_is_fine(tmp_path):
    path = tmp_path / "file"
    path.write_text("")
    workdir.remove(path)
    workdir.remove(path)
    assert not path.exists()
