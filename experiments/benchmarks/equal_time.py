"""What equal time gives: every method under every fairness mode, our own method beside FairDD, and
what is officially otherwise.

python experiments/benchmarks/equal_time.py --data_dir DATA [--only methods] [--seeds 3]

The pace of every row is measured first: CPU seconds of an update, and of the first one with all
before it, compiling included, divided by the number of cores, which every row keeps busy. A row
then gets as many updates as fit into the time that all get, whichever machine computes them. Paces
of one program differ by up to a fifth, with what else the machine does: CPU seconds hide waiting,
not caches and cores that are shared. Each trial distils 10 images per class and scores one network
of 300 epochs. What the JSON has already is not run again; the table beside it is drawn from it.
"""

import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from trials import SCORES, Result, Trial, collect, percent, read_options, write_tables

from fairdd_jax import presets
from fairdd_jax.methods import METHODS
from fairdd_jax.schedule import synthetic_schedule

FAIRNESS = ("vanilla", "fairdd", "cobra")
Results = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Comparison:
    """Trials that get the same time.

    Attributes:
      title: of its table.
      seconds: of distillation that every row gets.
      pace_updates: that the pace is measured over, by method.
      rows: preset and settings by name.
    """

    title: str
    seconds: float
    pace_updates: dict[str, int]
    rows: dict[str, tuple[str, dict[str, Any]]]

    def pace(self, name: str) -> Trial:
        """The trial that measures the pace of a row; its scores say nothing."""
        preset, settings = self.rows[name]
        # Other pixels are no other program: measured at another hour, they would only get another
        # number of updates.
        of_program = {key: value for key, value in settings.items() if not key.startswith("data.")}
        chosen = {"seed": 0, "steps": 10_000, **of_program, "evaluate.epochs": 0}
        return Trial(preset, chosen, self.pace_updates[preset.rpartition("_")[2]])

    def trial(self, name: str, seed: int, pace: Result) -> Trial:
        """The trial of a row.

        Args:
          name: of the row.
          seed: of the trial.
          pace: what the trial `pace` found.
        """
        preset, settings = self.rows[name]
        later = self.seconds - pace["cpu_s"][0] / pace["cores"]
        updates = 1 + max(0, int(later / seconds_per_update(pace)))
        return Trial(preset, {"seed": seed, "steps": 10_000, **settings}, updates)


def seconds_per_update(pace: Result) -> float:
    """Those after the first, on average: some have more to do, networks to train or to cluster."""
    return float(statistics.mean(pace["cpu_s"][1:]) / pace["cores"])


def scoring_steps(trial: Trial, found: Result) -> int:
    """Optimiser steps of the network that scores: of cropped images there are more batches."""
    config = trial.config()
    images = len(found["test_cell_counts"]) * config.decoded_ipc
    return synthetic_schedule(config, images).total


def _own(*data: str) -> dict[str, tuple[str, dict[str, Any]]]:
    """Rows of our own method and of those that it has to beat."""
    plain = presets.compose_parts("dm")
    mosaic = presets.compose_parts("dm", recipe="mosaic")
    ways: dict[str, dict[str, Any]] = {
        "fairdd": {"fairness": "fairdd"},
        # The four-fold images of mosaic are two batches, and so its networks take twice the steps.
        "fairdd, networks of as many steps": {"fairness": "fairdd", "evaluate.epochs": 601},
        "cobra": {"fairness": "cobra"},
        # Its own settings alone: how it is scored is the same for all.
        "mosaic": {name: value for name, value in mosaic.items() if value != plain.get(name)},
    }
    return {f"{name}, {way}": (f"{name}_dm", ways[way]) for name in data for way in ways}


COMPARISONS = {
    "own": Comparison(
        "Our own method, full C-MNIST (FG) and C-FMNIST (BG)",
        300,
        {"dm": 11},
        _own("cmnist_fg", "cfmnist_bg"),
    ),
    "methods": Comparison(
        "Methods and fairness modes, full C-MNIST (FG)",
        300,
        {"dm": 11, "dc": 4, "dsa": 4, "idc": 4, "dream": 11, "cafe": 4},
        {
            f"{method}, {fairness}": (f"cmnist_fg_{method}", {"fairness": fairness})
            for method in METHODS
            for fairness in FAIRNESS
        },
    ),
    "official": Comparison(
        "FairDD as it is here, and with what the official program does, full C-FMNIST (BG)",
        300,
        {"dm": 11},
        {
            name: ("cfmnist_bg_dm", {"fairness": "fairdd", **settings})
            for name, settings in (
                ("stratified batches", {}),
                ("proportional batches, as officially", {"sampling": "proportional"}),
                ("colours that do not wrap around", {"data.clean_colours": True}),
            )
        },
    ),
}


def lines(comparison: Comparison, results: Results, seeds: int) -> Iterator[str]:
    """The comparison as Markdown; rows without a score yet are left out."""
    names = " | ".join(SCORES.values())
    shown: list[dict[str, Any]] = []
    cores = 0
    yield f"## {comparison.title}, {comparison.seconds / 60:g} minutes each\n"
    yield f"| | updates | s per update | GiB | steps of the network | {names} | seeds |"
    yield f"| --- |{' --- |' * (len(SCORES) + 5)}"
    for name in comparison.rows:
        if comparison.pace(name).key not in results:
            continue
        pace = results[comparison.pace(name).key]["result"]
        trials = [comparison.trial(name, seed, pace) for seed in range(seeds)]
        entries = [results[trial.key] for trial in trials if trial.key in results]
        if not entries:
            continue
        shown, cores = shown + entries, pace["cores"]
        found = [entry["result"] for entry in entries]
        scores = [next(iter(result["scores"].values())) for result in found]
        cells = " | ".join(percent([each[score] for each in scores]) for score in SCORES)
        updates = statistics.median(result["updates"] for result in found)
        step = seconds_per_update(pace)
        memory = pace["peak_memory_bytes"] / 2**30
        taken = scoring_steps(trials[0], found[0])
        yield (
            f"| {name} | {updates:.0f} | {step:.2f} | {memory:.1f} | {taken} | {cells} "
            f"| {len(found)} |"
        )
    if not shown:
        return
    devices = sorted({entry["environment"]["device"] for entry in shown})
    yield f"\nTime is that of {cores} CPU cores; updates and scores are of {', '.join(devices)}.\n"


def main() -> int:
    """Run what is missing, and write the tables."""
    options = read_options(__doc__, COMPARISONS, "equal_time")
    rows = [(COMPARISONS[key], name) for key in options.only for name in COMPARISONS[key].rows]
    collect([comparison.pace(name) for comparison, name in rows], options.out, options.data_dir)
    results: Results = {}
    # All rows with one seed first: what is cut short is still a whole table.
    for seed in range(options.seeds):
        for comparison, name in rows:
            results = collect([], options.out, None)
            pace = results[comparison.pace(name).key]["result"]
            trial = comparison.trial(name, seed, pace)
            results = collect([trial], options.out, options.data_dir)
    parts = ["# Equal time\n\nIPC 10; percent, ± over seeds; `equal_time.py`.\n"]
    for comparison in COMPARISONS.values():
        parts.extend(lines(comparison, results, options.seeds))
    write_tables(parts, options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
