"""TensorBoard and the profiler, by flag."""

import json
import sys

import jax
import numpy as np
import pytest
from jax.errors import JaxRuntimeError
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.record_writer import masked_crc32c
from test_run import HEAD_RUN, load_script, own_surroundings, refused

from fairdd_jax import watch
from fairdd_jax.errors import WorkdirError
from fairdd_jax.loop import Progress

__all__ = ["own_surroundings"]  # a fixture of every test here
script = load_script()


def events(folder):
    """What the event files of a folder say: (update, name, value)."""
    for path in sorted(folder.glob("events.*")):
        content, position = path.read_bytes(), 0
        while position < len(content):
            length = int.from_bytes(content[position : position + 8], "little")
            record = content[position + 12 : position + 12 + length]
            checksum = int.from_bytes(content[position + 12 + length :][:4], "little")
            assert checksum == masked_crc32c(record)
            event = Event.FromString(record)
            for value in event.summary.value:
                yield event.step, value.tag, value.simple_value
            position += 16 + length


@pytest.mark.slow
def test_both_write_what_they_promise(tmp_path):
    folder = tmp_path / "run"
    arguments = [*HEAD_RUN, "--steps", "3", "--workdir", str(folder)]
    assert script.main([*arguments, "--tensorboard", "--profile"]) == 0
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    expected = {
        (line["update"], name): line[name]
        for line in lines
        for name in ("loss", "seconds", "step_s", "images_per_s")
    }
    found = {(step, name): value for step, name, value in events(folder / "tensorboard")}
    assert found == pytest.approx(expected, rel=1e-6)
    assert len(lines) == 3
    traces = [path for path in (folder / "profile").rglob("*") if path.is_file()]
    assert any(path.name.endswith(".xplane.pb") and path.stat().st_size for path in traces)


@pytest.mark.slow
def test_without_the_flags_there_is_neither(tmp_path):
    assert script.main([*HEAD_RUN, "--steps", "1", "--workdir", str(tmp_path / "run")]) == 0
    assert not {"tensorboard", "profile"} & {path.name for path in (tmp_path / "run").iterdir()}


def test_a_missing_package_is_named(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    message = 'pip install "fairdd-jax[tensorboard]"'
    refused(capsys, 2, message, *HEAD_RUN, "--tensorboard")


def watched(watcher, folder):
    """Two lines of a log."""
    with watcher(folder) as on_progress:
        for update in (1, 2):
            on_progress(Progress(update, update, 1.0, 1.0, 1.0, 1.0, 1.0, np.zeros(1), None, True))


@pytest.mark.parametrize("watcher", [watch.tensorboard, watch.profile])
def test_a_place_that_cannot_be_written_is_one_line(tmp_path, watcher):
    (tmp_path / watcher.__name__).write_text("mine")
    message = f"cannot write {tmp_path / watcher.__name__}: .*; choose another place"
    with pytest.raises(WorkdirError, match=message) as error:
        watched(watcher, tmp_path)
    assert "\n" not in str(error.value)
    assert (tmp_path / watcher.__name__).read_text() == "mine"


def test_a_disk_that_is_full_is_no_want_of_memory(tmp_path, monkeypatch):
    def refuse(*args):
        raise JaxRuntimeError("RESOURCE_EXHAUSTED: No space left on device")

    monkeypatch.setattr(jax.profiler, "stop_trace", refuse)
    monkeypatch.setattr(jax.profiler, "start_trace", lambda place: None)
    with pytest.raises(WorkdirError, match="free some space"):
        watched(watch.profile, tmp_path)
