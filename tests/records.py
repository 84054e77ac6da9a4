"""Records of runs that nobody ran, for tests of what is made of them."""

import numpy as np

from fairdd_jax.config import make
from fairdd_jax.distilled import DistilledSet
from fairdd_jax.report import Analysis, Record


def config(**settings):
    """A configuration as in results.json."""
    chosen = {name.replace("__", "."): value for name, value in settings.items()}
    return make({"data.name": "demo", "ipc": 2} | chosen).as_json()


def spread(*values):
    known = [value for value in values if value is not None]
    mean, std = (float(np.mean(known)), float(np.std(known))) if known else (None, None)
    return {"mean": mean, "std": std, "values": list(values)}


def scores(cells, *, step=4, arch="ConvNet", accuracy=(0.8, 0.9), floor=0.1, deo=(0.3, 0.4)):
    cells = [[None if rate is None else float(rate) for rate in row] for row in cells]
    empty = [[y, g] for y, row in enumerate(cells) for g, rate in enumerate(row) if rate is None]
    return {
        "step": step,
        "arch": arch,
        "num_networks": len(accuracy),
        "optimiser_steps": 301,
        "accuracy": spread(*accuracy),
        "deo_max": spread(*deo),
        "deo_mean": spread(*(None if d is None else d / 2 for d in deo)),
        "deo_max_floor": floor,
        "deo_mean_floor": None if floor is None else floor / 2,
        "worst_group_accuracy": spread(0.25),
        "cell_accuracy": cells,
        "empty_cells": empty,
    }


CELLS = [[0.9, 0.5, None], [0.75, 0.25, 1.0]]


def record(name="mine", *, classes=("cat", "dog"), groups=("a", "b", "c"), **changes):
    """A run of two classes with two images each and three groups."""
    rng = np.random.default_rng(len(name))
    images = rng.standard_normal((len(classes), 2, 4, 4, 3), dtype=np.float32)
    evaluations = changes.pop("evaluations", [scores(CELLS)])
    settings = changes.pop("config", {})
    log = changes.pop("log", [log_line(step) for step in (2, 4)])
    points = rng.standard_normal((6, 2), dtype=np.float32)
    analysis = Analysis(
        step=4,
        start=rng.integers(0, 256, images.shape, np.uint8),
        neighbours=np.array([[0, 0], [2, 1]]),
        points=points,
        labels=np.array([0, 0, 0, 1, 1, 1]),
        groups=np.array([0, 1, 2, 0, 1, 2]),
    )
    counts = [[30, 10, 0], [5, 5, 10]]
    results = {
        "complete": True,
        "step": 4,
        "config": config(**settings),
        "dataset": {
            "name": "demo",
            "num_train": 60,
            "num_test": 12,
            "classes": list(classes),
            "groups": list(groups),
            "train_cell_counts": counts,
            "test_cell_counts": counts,
            "notes": [],
        },
        "evaluations": evaluations,
        "evaluations_uint8": [],
        "baselines": {"random": scores(CELLS, accuracy=(0.4,), deo=(1.0,))},
        "timing": {"compile_s": 6.0, "step_s": 0.5, "distill_s": 90.0, "evaluate_s": 30.0},
        "peak_memory_bytes": 2**30,
        "environment": {"jax": "0.0", "git_commit": None},
        "seed": 0,
    }
    distilled = DistilledSet.of_classes(
        images, mean=(0.5,) * 3, std=(0.5,) * 3, class_names=tuple(classes), meta={}
    )
    analysis = changes.pop("analysis", analysis)
    return Record(name, results | changes, log, distilled, analysis)


def log_line(step):
    return {"step": step, "update": step, "loss": 1.0 / step, "seconds": 30.0 * step}
