"""Several processes on this machine compute the run of one."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from test_run import HEAD, SCRIPT, lines_of, own_surroundings, refused

from fairdd_jax import load_distilled
from fairdd_jax.hosts import join

assert own_surroundings  # a fixture, for these tests too

RUN = ["--data_dir", str(HEAD), "--quick", "--ipc", "2", "--model", "ConvNetD1W8"]
RUN += ["--dsa_strategy", "none", "--steps", "4", "--log_every", "2", "--init", "noise"]
CASES = {
    "dm fairdd": ["--config", "cmnist_fg_dm", *RUN],
    "dm vanilla": ["--config", "cmnist_fg_dm", "--fairness", "vanilla", *RUN],
    "dm along images": ["--config", "cmnist_fg_dm", *RUN],
    "dm resident": ["--config", "cmnist_fg_dm", *RUN, "--stream", "never"],
    "dc fairdd": ["--config", "cmnist_fg_dc", *RUN, "--outer_loops", "2", "--inner_epochs", "1"],
}


def environment(devices=1):
    """Of a process with that many devices."""
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
    return os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": os.pathsep.join(sys.path)}


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def started(arguments, folder, *, processes, devices=1):
    """Processes that compute one run, or one that computes it alone."""
    port = free_port()
    commands = [[sys.executable, SCRIPT, *arguments, "--workdir", folder]] * processes
    if processes > 1:
        commands = [
            [*command, "--distributed", f"127.0.0.1:{port},{processes},{number}"]
            for number, command in enumerate(commands)
        ]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return [subprocess.Popen(c, env=environment(devices), **pipes) for c in commands]


def finished(running):
    """Their exit codes and what they said, but for a line of the CPU's collectives."""
    try:
        said = [process.communicate(timeout=300) for process in running]
    finally:
        for process in running:
            process.kill()
    codes = [process.returncode for process in running]
    lines = [[x for x in out.splitlines() if not x.startswith("[Gloo]")] for out, _ in said]
    return codes, lines, [error for _, error in said]


def assert_like(folder, expected):
    """Equal images up to rounding, an eighth of a level of 8 bits; log and scores."""
    sets = [load_distilled(path / "distilled.npz") for path in (folder, expected)]
    found, wanted = (each.images_float for each in sets)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-3)
    logs = [lines_of(path / "metrics.jsonl") for path in (folder, expected)]
    for line, of_one in zip(*logs, strict=True):
        assert (line["step"], line["update"]) == (of_one["step"], of_one["update"])
        assert line["loss"] == pytest.approx(of_one["loss"], rel=1e-5)
    results, of_one = (json.loads((p / "results.json").read_text()) for p in (folder, expected))
    assert results["complete"]
    for name in ("accuracy", "worst_group_accuracy"):
        (scores,), (scores_of_one,) = results["evaluations"], of_one["evaluations"]
        assert scores[name]["mean"] == pytest.approx(scores_of_one[name]["mean"], abs=0.05)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "processes"),
    [("dm vanilla", 2), ("dc fairdd", 2), ("dm along images", 4), ("dm resident", 4)],
)
def test_processes_compute_what_one_does(case, processes, tmp_path):
    mesh = ["--mesh", f"class=1,data={processes}"] if "along images" in case else []
    one, several = tmp_path / "one", tmp_path / "several"
    assert finished(started(CASES[case], one, processes=1))[0] == [0]
    codes, lines, errors = finished(started([*CASES[case], *mesh], several, processes=processes))
    assert codes == [0] * processes, errors
    assert "written to" in lines[0][-1]
    assert not any(lines[1:])  # the others are silent
    assert_like(several, one)


@pytest.mark.slow
def test_processes_stop_together_and_one_goes_on_alone(tmp_path):
    """A signal to one of them stops both after the same update."""
    long = [*CASES["dm fairdd"], "--steps", "300", "--log_every", "5", "--evaluate.epochs", "0"]
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    running = started(long, stopped, processes=2)
    log = stopped / "metrics.jsonl"
    until = time.monotonic() + 300
    while not (log.exists() and log.read_text()) and time.monotonic() < until:
        time.sleep(0.1)
    assert log.read_text()  # both compute
    running[1].send_signal(signal.SIGTERM)
    codes, _, errors = finished(running)
    assert codes == [143, 143], errors
    kept = [int(path.name) for path in (stopped / "checkpoints").iterdir()]
    assert 0 < lines_of(log)[-1]["update"] <= max(kept) < 300
    assert finished(started([*long, "--resume", "auto"], stopped, processes=1))[0] == [0]
    assert finished(started(long, whole, processes=1))[0] == [0]
    assert_like(stopped, whole)


@pytest.mark.slow
def test_a_folder_that_is_in_use_is_refused_by_all(tmp_path):
    from fairdd_jax import workdir

    with workdir.locked(tmp_path):
        codes, lines, errors = finished(started(CASES["dm fairdd"], tmp_path, processes=2))
    assert codes == [4, 4]
    assert not any(lines)
    assert all("another process writes to" in error for error in errors)


@pytest.mark.parametrize(
    "value", ["", "x", "localhost,2,0", "localhost:1,2,2", "a:1,2", "a:1,0,0", "a:1,2,-1"]
)
def test_processes_that_cannot_be_are_refused(value, capsys):
    refused(capsys, 2, "--distributed must be auto, or HOST:PORT,N,I", "--distributed", value)


def test_no_others_is_one_process():
    assert join(None) is None
