"""Runs that are killed at random moments and go on: whether they end as one that was not.

python experiments/benchmarks/survival.py [--kill 20] [--terminate 10]

A short run of a narrow network on the 40 digits of the tests, with the compilation cache on. Half a
second after its start or later, at a random moment until its end, it gets SIGKILL or SIGTERM; then
the same command goes on with --resume auto. Its synthetic images, its log and its scores must be
those of a run that nobody stopped. Two of three runs evaluate on the way.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import measure

from fairdd_jax import environment, load_distilled, workdir

ROOT = Path(__file__).parents[2]
SETTINGS = (
    "--config cmnist_fg_dm --quick --ipc 1 --seed 5 --model ConvNetD1W8 --steps 400 --log_every 4 "
    "--checkpoint_every 8 --average_img 0.9 --evaluate.networks 2"
)
DATA = ROOT / "tests/fixtures/mnist_head"
COMMAND = [
    sys.executable,
    str(ROOT / "experiments/run.py"),
    *SETTINGS.split(),
    f"--data_dir={DATA}",
]
# Seconds that saving and leaving may take.
SECONDS_TO_LEAVE = 30.0


def run(
    folder: Path, cache: Path, *options: str, after: float | None = None, number: int = 0
) -> int:
    """Run to the end, or until a signal some seconds after the start; returns the exit code."""
    variables = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    command = [*COMMAND, "--workdir", str(folder), *options]
    with subprocess.Popen(
        command, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        try:
            process.wait(after)
        except subprocess.TimeoutExpired:
            process.send_signal(number)
            process.wait(SECONDS_TO_LEAVE)
        assert process.stderr is not None
        errors = process.stderr.read().decode()
    # -SIGTERM: while Python was starting, before there was anything to save.
    if process.returncode not in (0, -signal.SIGKILL, -signal.SIGTERM, 128 + signal.SIGTERM):
        sys.exit(f"exit code {process.returncode}: {errors}")
    return process.returncode


def outcome(folder: Path) -> dict[str, Any]:
    """All of a finished run that must not depend on when it was stopped."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    results = json.loads((folder / "results.json").read_text())
    return {
        "images": load_distilled(folder).images_float.tobytes(),
        "log": [{name: line[name] for name in ("step", "update", "loss")} for line in lines],
        "scores": {name: results[name] for name in ("complete", "evaluations", "baselines")},
    }


def logged(folder: Path) -> int:
    """Updates that the log of a run that was stopped has."""
    try:
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        return int(json.loads(lines[-1])["update"])
    except (OSError, IndexError, ValueError):
        return 0


def main() -> int:
    """Stop, go on, compare; returns how many ended otherwise."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kill", type=int, default=20, help="runs that get SIGKILL")
    parser.add_argument("--terminate", type=int, default=10, help="runs that get SIGTERM")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--out", type=Path, default=measure.RESULTS / "survival.json")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    stops = [signal.SIGKILL] * options.kill + [signal.SIGTERM] * options.terminate
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        cache = Path(temporary) / "cache"
        expected, durations = {}, {}
        for every in (0, 100):
            folder = Path(temporary) / f"whole_{every}"
            for _ in range(2):  # the second time with everything compiled
                began = time.perf_counter()
                run(folder, cache, "--resume", "never", "--evaluate.every", str(every))
                durations[every] = time.perf_counter() - began
            expected[every] = outcome(folder)
            print(f"evaluated every {every}: {durations[every]:.1f} s", flush=True)
        for number, stop in enumerate(stops):
            every = 100 if number % 3 else 0
            folder = Path(temporary) / f"stopped_{number}"
            after = rng.uniform(0.5, durations[every])
            settings = "--evaluate.every", str(every)
            began = time.perf_counter()
            code = run(folder, cache, *settings, after=after, number=stop)
            left = time.perf_counter() - began - after
            updates = logged(folder)
            run(folder, cache, *settings, "--resume", "auto")
            same = outcome(folder) == expected[every]
            rows.append(
                {
                    "signal": stop.name,
                    "after_s": after,
                    "exit_code": code,
                    "seconds_to_leave": max(0.0, left),
                    "updates_logged": updates,
                    "evaluate_every": every,
                    "same": same,
                }
            )
            print(json.dumps(rows[-1]), flush=True)
    same_count = sum(row["same"] for row in rows)
    workdir.write_json(options.out, {"environment": environment.describe(), "runs": rows})
    slowest = max((row["seconds_to_leave"] for row in rows if row["exit_code"] == 143), default=0.0)
    stopped_after = [row["updates_logged"] for row in rows]
    print(
        f"{same_count} of {len(rows)} equal the run that nobody stopped; stopped after "
        f"{min(stopped_after)} to {max(stopped_after)} updates; SIGTERM took at most "
        f"{slowest:.1f} s"
    )
    return len(rows) - same_count


if __name__ == "__main__":
    sys.exit(main())
