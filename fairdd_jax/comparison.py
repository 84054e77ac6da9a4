"""Several runs, or a run and its baselines, side by side."""

from collections.abc import Mapping
from typing import Any

from PIL import Image

from fairdd_jax import report
from fairdd_jax.console import percent
from fairdd_jax.data.normalise import to_pixels
from fairdd_jax.run import Run

Rows = dict[str, dict[str, Any]]


def score_rows(runs: Mapping[str, Run]) -> Rows:
    """Rows of a table: the baseline random, every evaluation of every run, the baseline full.

    Args:
      runs: by the name of their rows; the baselines are those of any of them.

    Returns:
      Entries of results.json by name of row.
    """
    baselines = {name: row for run in runs.values() for name, row in run.baselines.items()}
    rows: Rows = {"random": baselines["random"]} if "random" in baselines else {}
    for name, run in runs.items():
        several = len(run.evaluations) > 1
        for scores in run.evaluations:
            rows[f"{name}, {_where(scores)}" if several else name] = scores
        for scores in run.evaluations_uint8:
            rows[f"{name} in 8 bits, {_where(scores)}" if several else f"{name} in 8 bits"] = scores
    return rows | ({"full": baselines["full"]} if "full" in baselines else {})


def _where(scores: dict[str, Any]) -> str:
    return f"{scores['arch']}, step {scores['step']}"


def picture(runs: Mapping[str, Run]) -> Image.Image:
    """The synthetic images of every run beside each other, under its name and last scores."""
    panels = {}
    for name, run in runs.items():
        scores = run.evaluations[-1]
        accuracy, gap = (percent(scores[score]) for score in ("accuracy", "deo_max"))
        pixels = to_pixels(run.images, mean=run.dataset.mean, std=run.dataset.std)
        panels[f"{name}\naccuracy {accuracy} %, DEO_M {gap} %"] = report.grid(pixels)
    return report.side_by_side(panels)
