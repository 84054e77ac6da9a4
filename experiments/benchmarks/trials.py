"""Trials: distil with some settings and score one network on the images.

python experiments/benchmarks/trials.py '{"preset": "cmnist_fg_dm"}' --data_dir DATA

prints a line of JSON. Every trial runs in a process of its own, so that its peak memory is its own.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import measure
import numpy as np

from fairdd_jax import config as configuration
from fairdd_jax import data, environment, presets, sharding, workdir
from fairdd_jax.config import Config
from fairdd_jax.errors import FairDDError
from fairdd_jax.loop import Progress
from fairdd_jax.run import Run

SCORES = {"accuracy": "accuracy", "deo_max": "DEO_M", "deo_mean": "DEO_A"}
# One network of 300 epochs, whatever the preset asks for.
_SCORING = {
    "evaluate.networks": 1,
    "evaluate.epochs": 300,
    "evaluate.uint8_networks": 0,
    "evaluate.baselines": "none",
}

Result = dict[str, Any]


@dataclass(frozen=True)
class Trial:
    """What is tried.

    Attributes:
      preset: name of a preset.
      settings: fields that differ from it, seed included.
      updates: of the images, after which it stops; None takes the steps of the settings.
    """

    preset: str
    settings: dict[str, Any] = field(default_factory=dict)
    updates: int | None = None

    @property
    def key(self) -> str:
        """Equal for equal trials."""
        return json.dumps(asdict(self), sort_keys=True)

    def config(self) -> Config:
        """The resolved configuration."""
        chosen = presets.compose(self.preset) | {"log_every": 1} | _SCORING | self.settings
        return configuration.make(chosen)


class EnoughError(Exception):
    """The updates of a trial are done."""


def run(trial: Trial, data_dir: Path | None) -> Result:
    """Distil and score in this process."""
    sharding.use_all_cores()
    config = trial.config()
    began = time.perf_counter()
    this = Run(config, data.load(config.data, data_dir=data_dir))
    prepared = time.perf_counter()
    work = [time.process_time()]

    def on_progress(line: Progress) -> None:
        work.append(time.process_time())
        if line.update == trial.updates:
            raise EnoughError

    with contextlib.suppress(EnoughError):
        this.distill(on_progress)
    evaluations = this.evaluate()
    return {
        "prepare_s": prepared - began,
        "updates": len(this.log),
        "cpu_s": np.diff(work).tolist(),
        # Of the machine: CPU seconds over them are its pace, though a trial has a part of it.
        "cores": os.cpu_count(),
        **this.timing,
        "evaluate_s": this.scoring.seconds,
        "peak_memory_bytes": environment.peak_memory(),
        "test_cell_counts": this.dataset.cell_counts(this.dataset.test).tolist(),
        "scores": {
            scores["arch"]: {name: scores[name]["mean"] for name in SCORES}
            | {"cell_accuracy": scores["cell_accuracy"]}
            for scores in evaluations
        },
    }


def collect(trials: Iterable[Trial], out: Path, data_dir: Path | None) -> dict[str, Result]:
    """Run the trials that the JSON lacks, add each to it, and return all of it by key."""
    results: dict[str, Result] = {}
    if out.exists():
        results = {
            Trial(**entry["trial"]).key: entry for entry in json.loads(out.read_text())["trials"]
        }
    for trial in trials:
        if trial.key in results:
            continue
        command = [sys.executable, __file__, trial.key]
        if data_dir is not None:
            command += ["--data_dir", str(data_dir)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            sys.exit(done.returncode)  # it has said why
        line = json.loads(done.stdout.splitlines()[-1])
        results[trial.key] = {"trial": asdict(trial), **line}
        workdir.write_json(out, {"trials": list(results.values())})
        scores = next(iter(line["result"]["scores"].values()))
        text = ", ".join(f"{name} {100 * scores[score]:.1f}" for score, name in SCORES.items())
        print(f"{trial.key}: {text}", flush=True)
    return results


def spread(values: list[float]) -> float:
    """Standard deviation over seeds; 0 of a single one."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


def percent(values: list[float]) -> str:
    """Mean and standard deviation over seeds, in percent.

    >>> percent([0.5, 0.52])
    '51.0 ± 1.4'
    """
    mean = f"{100 * statistics.mean(values):.1f}"
    return f"{mean} ± {100 * spread(values):.1f}" if len(values) > 1 else mean


def read_options(description: str | None, tables: Iterable[str], name: str) -> argparse.Namespace:
    """The command line of a program that tabulates trials; its JSON has that name by default."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", type=Path, help="folder with the IDX files")
    parser.add_argument("--only", nargs="+", choices=list(tables), default=list(tables))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=measure.RESULTS / f"{name}.json")
    return parser.parse_args()


def write_tables(lines: Iterable[str], out: Path) -> None:
    """Write Markdown beside the JSON, and print it."""
    text = "\n".join(lines)
    workdir.write_atomically(out.with_suffix(".md"), text.encode())
    print(text)


def main() -> int:
    """Run a trial and print what it found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("trial", help="as JSON")
    parser.add_argument("--data_dir", type=Path, help="folder with the data files")
    options = parser.parse_args()
    try:
        result = run(Trial(**json.loads(options.trial)), options.data_dir)
    except FairDDError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(json.dumps({"environment": environment.describe(), "result": result}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
