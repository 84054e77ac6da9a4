"""The ablations of the FairDD paper at a reduced budget, judged against the spread over seeds.

python experiments/benchmarks/ablations.py --data_dir DATA [--only bias noise] [--seeds 3]

Full C-MNIST, DM, 10 images per class, 100 steps where the paper takes 20,000, one network of 300
epochs per score where it takes 20. A direction holds if it exceeds twice the spread: the standard
deviation over seeds, the larger of the two sides. What the JSON has already is not run again; the
table beside it is drawn from it.
"""

import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from trials import SCORES, Result, Trial, collect, percent, read_options, spread, write_tables

from fairdd_jax import metrics

STEPS = 100
FG, BG = "cmnist_fg_dm", "cmnist_bg_dm"
ARCHS = ("ConvNet", "AlexNet", "VGG11", "ResNet18")


@dataclass(frozen=True)
class Row:
    """A row of a table: a preset with some settings, scored with some network."""

    preset: str = FG
    settings: tuple[tuple[str, Any], ...] = ()
    arch: str = "ConvNet"
    archs: str = "ConvNet"  # all that the same images are scored with
    without: int = 0  # groups that the test set lacks, the last ones

    def trial(self, seed: int) -> Trial:
        """The trial that gives its scores."""
        chosen = {"steps": STEPS, "seed": seed, **dict(self.settings)}
        if self.archs != "ConvNet":
            chosen["evaluate.archs"] = self.archs
        return Trial(self.preset, chosen)


@dataclass(frozen=True)
class Claim:
    """That a score of one row is better than that of another: higher accuracy, lower DEO."""

    better: str
    worse: str
    scores: tuple[str, ...] = tuple(SCORES)


@dataclass(frozen=True)
class Study:
    """A table of the paper, and the directions that it shows."""

    title: str
    rows: dict[str, Row]
    claims: tuple[Claim, ...]


def row(preset: str = FG, *, without: int = 0, **settings: Any) -> Row:
    """A row whose settings have two underscores where a dot belongs."""
    dotted = {name.replace("__", "."): value for name, value in settings.items()}
    return Row(preset, tuple(sorted(dotted.items())), without=without)


def _architectures() -> dict[str, Row]:
    archs = ",".join(ARCHS)
    return {
        f"{fairness}, {arch}": Row(FG, (("fairness", fairness),), arch, archs)
        for arch in ARCHS
        for fairness in ("vanilla", "fairdd")
    }


_BIAS = (0.85, 0.9, 0.95)
_MODES = ("inverse_size", "ldam", "groupdro", "df", "cobra")
_NOISE = (0.1, 0.2, 0.5)
_VANILLA = row(fairness="vanilla")
_ACCURACY = ("accuracy",)

STUDIES = {
    "bias": Study(
        "Share of the majority (Table 16)",
        {
            f"{fairness}, {ratio}": row(fairness=fairness)
            if ratio == 0.9
            else row(fairness=fairness, data__bias_ratio=ratio)
            for ratio in _BIAS
            for fairness in ("vanilla", "fairdd")
        },
        (
            *(Claim(f"fairdd, {ratio}", f"vanilla, {ratio}") for ratio in _BIAS),
            *(Claim(f"vanilla, {a}", f"vanilla, {b}", _ACCURACY) for a, b in pairwise(_BIAS)),
            Claim("fairdd, 0.95", "vanilla, 0.85"),
        ),
    ),
    "init": Study(
        "Start of the images (Table 6)",
        {
            "vanilla, real": _VANILLA,
            "vanilla, balanced": row(fairness="vanilla", init="balanced"),
            "vanilla, noise": row(fairness="vanilla", init="noise"),
            "fairdd, real": row(fairness="fairdd"),
            "fairdd, balanced": row(fairness="fairdd", init="balanced"),
            "fairdd, noise": row(fairness="fairdd", init="noise"),
        },
        (
            Claim("fairdd, real", "vanilla, real"),
            Claim("fairdd, balanced", "vanilla, balanced"),
            Claim("fairdd, noise", "vanilla, noise"),
            Claim("fairdd, real", "fairdd, noise", _ACCURACY),
        ),
    ),
    "weighting": Study(
        "Weights of the groups, and fairness in the training (Tables 7 and 10)",
        {
            "vanilla": _VANILLA,
            "fairdd": row(fairness="fairdd"),
            **{mode: row(fairness=mode) for mode in _MODES},
            "model fairness": row(fairness="vanilla", evaluate__weighting="inverse_share"),
        },
        (
            *(Claim("fairdd", mode, ("accuracy", "deo_mean")) for mode in _MODES[:-1]),
            Claim("fairdd", "model fairness"),
            *(Claim(mode, "vanilla") for mode in _MODES),
        ),
    ),
    "noise": Study(
        "Wrong group labels, C-MNIST (BG) (Table 17)",
        {
            "vanilla": row(BG, fairness="vanilla"),
            "fairdd": row(BG, fairness="fairdd"),
            **{
                f"fairdd, noise {noise}": row(BG, fairness="fairdd", groups__noise=noise)
                for noise in _NOISE
            },
        },
        (
            Claim("fairdd", "fairdd, noise 0.5"),
            Claim("fairdd, noise 0.1", "fairdd, noise 0.5"),
            *(Claim(f"fairdd, noise {noise}", "vanilla") for noise in _NOISE),
        ),
    ),
    "pseudo": Study(
        "Clusters in place of group labels, C-MNIST (BG) (Table 18)",
        {
            "vanilla": row(BG, fairness="vanilla"),
            "fairdd": row(BG, fairness="fairdd"),
            "fairdd, dbscan": row(BG, fairness="fairdd", groups__source="dbscan"),
            "fairdd, kmeans": row(BG, fairness="fairdd", groups__source="kmeans"),
        },
        (Claim("fairdd, dbscan", "vanilla"), Claim("fairdd, kmeans", "vanilla")),
    ),
    "minority": Study(
        "Minorities in proportion 1:2:...:9 (Table 21)",
        {
            "vanilla": _VANILLA,
            "fairdd": row(fairness="fairdd"),
            "vanilla, unequal": row(fairness="vanilla", data__minority="unequal"),
            "fairdd, unequal": row(fairness="fairdd", data__minority="unequal"),
        },
        (Claim("fairdd, unequal", "vanilla, unequal"), Claim("fairdd, unequal", "vanilla")),
    ),
    "missing": Study(
        "Groups that the test set lacks, the last ones (Table 15)",
        {
            f"{fairness}, {missing} missing": row(fairness=fairness, without=missing)
            for missing in range(4)
            for fairness in ("vanilla", "fairdd")
        },
        tuple(Claim(f"fairdd, {k} missing", f"vanilla, {k} missing") for k in range(4)),
    ),
    "architecture": Study(
        "Networks that did not distil (Table 3)",
        _architectures(),
        tuple(Claim(f"fairdd, {arch}", f"vanilla, {arch}") for arch in ARCHS),
    ),
}


def scores_of(row: Row, result: Result) -> dict[str, float]:
    """The scores of a row in what its trial found.

    >>> cells = {"ConvNet": {"cell_accuracy": [[1.0, 0.5, 0.0]]}}
    >>> scores_of(Row(without=1), {"scores": cells, "test_cell_counts": [[2, 2, 2]]})
    {'accuracy': 0.75, 'deo_max': 0.5, 'deo_mean': 0.5}
    """
    scores = result["scores"][row.arch]
    if not row.without:
        return {name: scores[name] for name in SCORES}
    rates, counts = (
        np.asarray(table)[:, : -row.without]
        for table in (scores["cell_accuracy"], result["test_cell_counts"])
    )
    gaps = metrics.gaps(rates)
    accuracy = (rates * counts).sum() / counts.sum()
    return dict(zip(SCORES, map(float, (accuracy, gaps.max(), gaps.mean())), strict=True))


def verdict(better: list[float], worse: list[float], score: str) -> str:
    """Whether a direction exceeds twice the larger spread of its two sides, of two seeds or more.

    >>> verdict([0.90, 0.92], [0.5, 0.5], "accuracy")
    'holds'
    >>> verdict([0.90, 0.92], [0.5, 0.5], "deo_max")
    'the opposite'
    """
    if min(len(better), len(worse)) < 2:
        return "one seed"
    sign = 1 if score == "accuracy" else -1
    gain = sign * (statistics.mean(better) - statistics.mean(worse))
    threshold = 2 * max(spread(better), spread(worse))
    if abs(gain) <= threshold:
        return "within the spread"
    return "holds" if gain > 0 else "the opposite"


def lines(study: Study, results: dict[str, dict[str, Any]], seeds: int) -> Iterator[str]:
    """The study as Markdown; rows without a score yet are left out."""
    found: dict[str, dict[str, list[float]]] = {}
    for name, of in study.rows.items():
        keys = [of.trial(seed).key for seed in range(seeds)]
        scores = [scores_of(of, results[key]["result"]) for key in keys if key in results]
        if scores:
            found[name] = {score: [each[score] for each in scores] for score in SCORES}
    yield f"## {study.title}\n"
    yield f"| | {' | '.join(SCORES.values())} | seeds |"
    yield f"| --- |{' --- |' * (len(SCORES) + 1)}"
    for name, by_score in found.items():
        cells = " | ".join(percent(values) for values in by_score.values())
        yield f"| {name} | {cells} | {len(by_score['accuracy'])} |"
    yield "\n| direction | score | |\n| --- | --- | --- |"
    for claim in study.claims:
        for score in claim.scores:
            if claim.better in found and claim.worse in found:
                judged = verdict(found[claim.better][score], found[claim.worse][score], score)
                yield f"| {claim.better} better than {claim.worse} | {SCORES[score]} | {judged} |"
    yield ""


def main() -> int:
    """Run what is missing, and write the tables."""
    options = read_options(__doc__, STUDIES, "ablations")
    rows = [row for name in options.only for row in STUDIES[name].rows.values()]
    # All rows with one seed first: what is cut short is still a whole table.
    trials = [row.trial(seed) for seed in range(options.seeds) for row in rows]
    results = collect(trials, options.out, options.data_dir)
    parts = [f"# Ablations\n\nDM, {STEPS} steps, IPC 10; percent, ± over seeds; `ablations.py`.\n"]
    for study in STUDIES.values():
        parts.extend(lines(study, results, options.seeds))
    write_tables(parts, options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
