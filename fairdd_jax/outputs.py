"""What runs leave behind: results.json, the distilled set, pictures and pages."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from fairdd_jax import comparison, environment, hosts, report, workdir
from fairdd_jax.config import without_paths
from fairdd_jax.data import Dataset
from fairdd_jax.distilled import DistilledSet
from fairdd_jax.report import Analysis, Record

if TYPE_CHECKING:
    from fairdd_jax.run import Run

# What tells of a run as a whole, and is made anew with it.
OF_THE_WHOLE = ("metrics.jsonl", "results.json", report.PAGE, report.ANALYSIS)


def distilled(run: "Run") -> DistilledSet:
    """The synthetic images as a set that needs nothing else."""
    return DistilledSet.of_classes(
        run.decoded(),
        mean=run.dataset.mean,
        std=run.dataset.std,
        class_names=run.dataset.classes,
        coded=run.images if run.config.factor > 1 else None,
        meta={
            "config": without_paths(run.config),
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
        "peak_memory_bytes": run.peak_memory(),
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
        "fingerprint": dataset.fingerprint,
        "notes": list(dataset.notes),
    }


def record(run: "Run") -> Record:
    """The run as its files would tell it, called by its fairness mode."""
    content = json.loads(json.dumps(results(run)))
    return Record(run.config.fairness, content, run.log, distilled(run), run.analysis)


def save_config(run: "Run", folder: Path) -> None:
    """Write config.json alone, before anything is computed.

    Raises:
      WorkdirError: it cannot be written.
    """
    workdir.write_json(folder / "config.json", dataclasses.asdict(run.config))


def save_state(run: "Run", folder: Path) -> None:
    """Write what is known now: config.json, metrics.jsonl, distilled.npz, results.json, a picture.

    Raises:
      WorkdirError: it cannot be written.
    """
    workdir.prepare(folder)
    save_config(run, folder)
    workdir.write_lines(folder / "metrics.jsonl", run.log)
    run.distilled().save(folder / "distilled.npz")
    workdir.write_json(folder / "results.json", run.results())
    # Last, for of many classes it takes seconds, which a run that is terminated may not have.
    picture = report.png_bytes(report.grid(run.dataset.to_pixels(run.images)))
    workdir.write_atomically(folder / "images" / f"step_{run.step:06d}.png", picture)


def save(run: "Run", folder: Path) -> None:
    """Write what `save_state` does, then analysis.npz and report.html, which take seconds.

    Raises:
      WorkdirError: it cannot be written.
    """
    save_state(run, folder)
    if not hosts.is_first():
        return
    if run.analysis is None:
        # Scores of an earlier process were taken over, and with them its networks' features.
        known = (
            Analysis.read(folder, step=run.step) if run.evaluations and not run.trained else None
        )
        run.analysis = known or report.analyse(run)
    run.analysis.save(folder)
    save_page([report.read(folder, name=run.config.fairness)], folder)


def save_page(records: Sequence[Record], folder: Path) -> None:
    """Write report.html about runs.

    Raises:
      WorkdirError: it cannot be written.
    """
    workdir.write_atomically(folder / report.PAGE, report.page(records).encode())


def save_comparison(records: Sequence[Record], folder: Path) -> comparison.Rows:
    """Write how runs compare: comparison.json, comparison.png and report.html.

    Returns:
      The table of scores.

    Raises:
      WorkdirError: they cannot be written.
    """
    rows = comparison.score_rows({record.name: record.results for record in records})
    workdir.write_json(folder / "comparison.json", rows)
    workdir.write_atomically(folder / "comparison.png", report.png_bytes(_picture(records)))
    save_page(records, folder)
    return rows


def _picture(records: Sequence[Record]) -> Image.Image:
    """The images of every run beside each other, under its name and last scores."""
    panels = {}
    for record in records:
        title = record.name
        if record.scores:
            accuracy, gap = (
                comparison.percent(record.scores[score]) for score in ("accuracy", "deo_max")
            )
            title += f"\naccuracy {accuracy} %, DEO_M {gap} %"
        panels[title] = report.grid(report.images_by_class(record))
    return report.side_by_side(panels)
