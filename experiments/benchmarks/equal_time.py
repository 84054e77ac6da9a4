"""What a fixed time on the clock gives: every method under every fairness mode.

python experiments/benchmarks/equal_time.py --data_dir DATA [--only methods] [--seeds 3]

Each trial distils 10 images per class for so many seconds, compiling included, and scores one
network of 300 epochs. What the JSON has already is not run again; the table beside it is drawn
from it. Seconds per update are those of the trial, which needs the machine for itself.
"""

import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from trials import SCORES, Trial, collect, percent, read_options, write_tables

from fairdd_jax.methods import METHODS

FAIRNESS = ("vanilla", "fairdd", "cobra")


@dataclass(frozen=True)
class Comparison:
    """Trials that get the same time."""

    title: str
    seconds: float
    rows: dict[str, tuple[str, dict[str, Any]]]

    def trial(self, name: str, seed: int) -> Trial:
        """The trial of a row."""
        preset, settings = self.rows[name]
        return Trial(preset, {"seed": seed, "steps": 10_000, **settings}, self.seconds)


COMPARISONS = {
    "methods": Comparison(
        "Methods and fairness modes, full C-MNIST (FG)",
        120,
        {
            f"{method}, {fairness}": (f"cmnist_fg_{method}", {"fairness": fairness})
            for method in METHODS
            for fairness in FAIRNESS
        },
    ),
}


def lines(comparison: Comparison, results: dict[str, dict[str, Any]], seeds: int) -> Iterator[str]:
    """The comparison as Markdown; rows without a score yet are left out."""
    names = " | ".join(SCORES.values())
    yield f"## {comparison.title}, {comparison.seconds / 60:g} minutes each\n"
    yield f"| | updates | s per update | GiB | {names} | seeds |"
    yield f"| --- |{' --- |' * (len(SCORES) + 4)}"
    for name in comparison.rows:
        keys = [comparison.trial(name, seed).key for seed in range(seeds)]
        found = [results[key]["result"] for key in keys if key in results]
        if not found:
            continue
        scores = [next(iter(result["scores"].values())) for result in found]
        cells = " | ".join(percent([each[score] for each in scores]) for score in SCORES)
        updates = statistics.median(result["updates"] for result in found)
        step = statistics.median(result["step_s"] for result in found)
        memory = max(result["peak_memory_bytes"] for result in found) / 2**30
        yield f"| {name} | {updates:.0f} | {step:.2f} | {memory:.1f} | {cells} | {len(found)} |"
    yield ""


def main() -> int:
    """Run what is missing, and write the tables."""
    options = read_options(__doc__, COMPARISONS, "equal_time")
    chosen = [COMPARISONS[name] for name in options.only]
    # All rows with one seed first: what is cut short is still a whole table.
    trials = [
        comparison.trial(name, seed)
        for seed in range(options.seeds)
        for comparison in chosen
        for name in comparison.rows
    ]
    results = collect(trials, options.out, options.data_dir)
    parts = ["# Equal time\n\nIPC 10; percent, ± over seeds; `equal_time.py`.\n"]
    for comparison in COMPARISONS.values():
        parts.extend(lines(comparison, results, options.seeds))
    write_tables(parts, options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
