"""What a run leaves behind: results.json and the distilled set."""

import dataclasses
from typing import TYPE_CHECKING, Any

from fairdd_jax import environment
from fairdd_jax.data import Dataset
from fairdd_jax.distilled import DistilledSet

if TYPE_CHECKING:
    from fairdd_jax.run import Run


def distilled(run: "Run") -> DistilledSet:
    """The synthetic images as a set that needs nothing else."""
    return DistilledSet.of_classes(
        run.decoded(),
        mean=run.dataset.mean,
        std=run.dataset.std,
        class_names=run.dataset.classes,
        coded=run.images if run.config.factor > 1 else None,
        meta={
            "config": dataclasses.asdict(run.config),
            "dataset": run.dataset.name,
            "step": run.step,
            "versions": environment.versions(),
            "evaluations": run.evaluations,
        },
    )


def results(run: "Run") -> dict[str, Any]:
    """The content of results.json."""
    matched = run.matched
    return {
        "complete": run.complete,
        "step": run.step,
        "config": dataclasses.asdict(run.config),
        "dataset": described(run.dataset),
        "matched": {
            "groups": list(matched.groups),
            "train_cell_counts": matched.cell_counts(matched.train).tolist(),
        },
        "evaluations": run.evaluations,
        "evaluations_uint8": run.evaluations_uint8,
        "baselines": run.baselines,
        "timing": {**run.timing, "evaluate_s": run.scoring.seconds},
        "peak_memory_bytes": environment.peak_memory(),
        "environment": environment.describe(),
        "seed": run.config.seed,
    }


def described(dataset: Dataset) -> dict[str, Any]:
    """What results.json says of a data set."""
    return {
        "name": dataset.name,
        "num_train": len(dataset.train),
        "num_test": len(dataset.test),
        "classes": list(dataset.classes),
        "groups": list(dataset.groups),
        "train_cell_counts": dataset.cell_counts(dataset.train).tolist(),
        "test_cell_counts": dataset.cell_counts(dataset.test).tolist(),
        "notes": list(dataset.notes),
    }
