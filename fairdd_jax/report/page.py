"""A page about a run, or about several side by side: one HTML file that needs no other."""

import base64
import functools
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from fairdd_jax import comparison
from fairdd_jax.report import plots
from fairdd_jax.report.command import command_of
from fairdd_jax.report.grids import grid, png_bytes
from fairdd_jax.report.record import Record
from fairdd_jax.report.verdict import verdict
from fairdd_jax.schema import SURROUNDINGS, flat

FILE = "report.html"
_MOST_CLASSES = 20  # in grids
_MOST_IMAGES = 50  # of a class


@functools.cache
def environment() -> Environment:
    """Templates, which escape all that is put into them."""
    return Environment(
        loader=PackageLoader("fairdd_jax.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def page(records: Sequence[Record]) -> str:
    """All that is known of one run, or of several side by side.

    Args:
      records: the runs, each with a name of its own.

    Returns:
      HTML with style and pictures inside, for any width, light and dark, and for paper.
    """
    return (
        environment()
        .get_template("report.html")
        .render(
            title=_title(records),
            single=len(records) == 1,
            runs=[_run(record) for record in records],
            table=_table(records),
            plots=_plots(records),
            differences=_differences(records),
        )
    )


def _title(records: Sequence[Record]) -> str:
    configs = [record.results["config"] for record in records]
    what = ", ".join(dict.fromkeys(f"{c['data']['name']} {c['method']}" for c in configs))
    return (
        f"{what} {configs[0]['fairness']}" if len(configs) == 1 else f"{what}: {len(configs)} runs"
    )


def fragment(record: Record) -> str:
    """What a notebook shows of a run: the verdict, the table of scores and the images."""
    template = environment().get_template("fragment.html")
    return template.render(run=_run(record, grids_only=True), table=_table([record]))


def _table(records: Sequence[Record]) -> dict[str, Any]:
    rows = comparison.score_rows({record.name: record.results for record in records})
    return {
        "title": comparison.TITLE,
        "columns": comparison.COLUMNS,
        "rows": {name: comparison.cells(row) for name, row in rows.items()},
        "caption": comparison.caption(rows),
    }


def _run(record: Record, *, grids_only: bool = False) -> dict[str, Any]:
    """What the template says of a run."""
    results, analysis = record.results, record.analysis
    shown = {
        "name": record.name,
        "results": results,
        "verdict": verdict(record),
        "grids": _grids(record),
        "more_classes": max(0, len(record.distilled.class_names) - _MOST_CLASSES),
        "more_images": max(0, plots.images_by_class(record).shape[1] - _MOST_IMAGES),
    }
    if grids_only:
        return shown
    classes, groups = results["dataset"]["classes"], results["dataset"]["groups"]
    maps = {}
    if analysis is not None and len(analysis.points):
        for what, values, names in (
            ("class", analysis.labels, classes),
            ("group", analysis.groups, groups),
        ):
            figure = plots.scatter(analysis.points, values, names)
            maps[what] = plots.svg(figure, name=f"{record.name}: test features by {what}")
    return shown | {
        "classes": classes,
        "groups": groups,
        "scores": record.scores,
        "gaps": None if record.scores is None else plots.gap_per_class(record),
        "composition": None if analysis is None else analysis.composition(len(groups)),
        "maps": maps,
        "command": command_of(results["config"]),
        "times": _times(results),
        "notes": results["dataset"].get("notes", []),
        "train_shares": _shares(results["dataset"]["train_cell_counts"]),
        "config_json": json.dumps(results["config"], indent=2, sort_keys=True),
    }


def _times(results: dict[str, Any]) -> dict[str, str]:
    """Time, memory and surroundings."""
    timing = results["timing"]
    minutes = {
        "distillation": timing["distill_s"],
        "of it compiling": timing["compile_s"],
        "evaluation and baselines": timing["evaluate_s"],
    }
    return (
        {name: f"{seconds / 60:.1f} minutes" for name, seconds in minutes.items()}
        | {"update": f"{timing['step_s']:.3f} s", "seed": str(results["seed"])}
        | {"peak memory": f"{results['peak_memory_bytes'] / 2**30:.2f} GiB"}
        | {name: str(value) for name, value in sorted(results["environment"].items())}
    )


def _shares(counts: list[list[int]]) -> np.ndarray:
    table = np.array(counts)
    return table / np.maximum(table.sum(1, keepdims=True), 1)


def _grids(record: Record) -> list[dict[str, Any]]:
    """A row per class: its name, its images at the end and, where known, at the start."""
    end = plots.images_by_class(record)
    start = None if record.analysis is None else record.analysis.start
    return [
        {
            "name": name,
            "end": _picture(end[label]),
            "start": None if start is None else _picture(start[label]),
        }
        for label, name in enumerate(record.distilled.class_names[:_MOST_CLASSES])
    ]


def _picture(images: np.ndarray) -> dict[str, Any]:
    """Images ``[I, H, W, channels]`` of a class as a PNG of their own size."""
    picture = grid(images[None, :_MOST_IMAGES], scale=1, gap=1)
    data = base64.b64encode(png_bytes(picture)).decode()
    return {"data": data, "width": picture.width, "height": picture.height}


def _plots(records: Sequence[Record]) -> dict[str, str]:
    """Plots of all runs by their titles."""
    figures = {}
    axes = {"step": "over steps", "seconds": "over minutes"}
    if any(record.log for record in records):
        for over, how in axes.items():
            figures[f"Loss {how}"] = plots.loss(records, over=over)
    if any(len(record.scored_on_the_way) > 1 for record in records):
        for score, name in (("accuracy", "Accuracy"), ("deo_max", "DEO_M"), ("deo_mean", "DEO_A")):
            for over, how in axes.items():
                figures[f"{name} in % {how}"] = plots.scores(records, score, over=over)
    classes = {tuple(record.results["dataset"]["classes"]) for record in records if record.scores}
    if len(classes) == 1:
        scored = [record for record in records if record.scores]
        number = len(next(iter(classes)))
        which = "every class" if number <= plots.MOST_BARS else "the classes where it is largest"
        figures[f"Gap between the groups of {which}, in %"] = plots.gaps(scored)
    return {name: plots.svg(figure, name=name) for name, figure in figures.items()}


def _differences(records: Sequence[Record]) -> dict[str, list[Any]]:
    """Settings in which runs differ, with the value of each."""
    configs = [flat(record.results["config"]) for record in records]
    names = sorted(set().union(*configs) - SURROUNDINGS)
    values = {name: [config.get(name) for config in configs] for name in names}
    return {name: each for name, each in values.items() if any(v != each[0] for v in each)}
