"""TensorBoard and the profiler, by flag."""

import json
import sys

import pytest
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.record_writer import masked_crc32c
from test_run import HEAD_RUN, load_script, own_surroundings, refused

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
