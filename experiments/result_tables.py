"""The tables and pictures of `reproduce.py`, from the JSON files of its runs alone."""

import dataclasses
import functools
import io
import json
import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairdd_jax import config as configuration
from fairdd_jax import presets, published, workdir
from fairdd_jax.comparison import percent
from fairdd_jax.report import plots
from fairdd_jax.report.command import command_of
from fairdd_jax.report.record import read_results
from fairdd_jax.schema import SURROUNDINGS, completed

SCORES = {"accuracy": "accuracy", "deo_max": "DEO_M", "deo_mean": "DEO_A"}
FLOORS = {"deo_max": "deo_max_floor", "deo_mean": "deo_mean_floor"}
BASELINES = ("random", "full")
_COLUMNS = 4  # of panels
# Where the pace of updates on CPU was measured.
PACES = Path(__file__).parent / "results" / "benchmarks" / "equal_time.json"


@dataclass(frozen=True, eq=False)
class Row:
    """Runs that differ in their seed alone, or a baseline.

    Attributes:
      dataset: name of the data set.
      name: of the row in tables.toml, or of the baseline; a run of no update is random.
      ipc: images per class.
      runs: results.json of each seed; their settings differ in nothing else.
      scores: the entry of each seed.
    """

    dataset: str
    name: str
    ipc: int
    runs: list[dict[str, Any]]
    scores: list[dict[str, Any]]

    def score(self, name: str) -> dict[str, Any]:
        """Mean over the seeds, and the spread over all networks of all seeds."""
        values = [value for scores in self.scores for value in scores[name]["values"]]
        mean = statistics.mean(scores[name]["mean"] for scores in self.scores)
        return {"mean": mean, "std": statistics.pstdev(values), "values": values}

    def floor(self, name: str) -> float:
        """What chance alone would show."""
        return statistics.mean(scores[FLOORS[name]] for scores in self.scores)

    def paper(self) -> dict[str, float]:
        """What the papers print for the data set, method, fairness mode and IPC, by score; for our
        own method that is FairDD."""
        config = self.runs[0]["config"]
        if self.name in BASELINES:
            return _means(published.baseline(config, self.name))
        return _means(*published.rows(config).values())

    def goal(self) -> dict[str, float]:
        """What the papers print for FairDD on that data set, with that method and IPC."""
        config = self.runs[0]["config"] | {"fairness": "fairdd"}
        return _means(*published.rows(config).values())

    def reaches(self, name: str, wanted: float) -> bool:
        """Whether a score is as good as that of the paper, or as good as chance lets one see."""
        own = self.score(name)
        if name == "accuracy":
            return bool(own["mean"] >= wanted)
        return bool(own["mean"] <= max(wanted, self.floor(name) + own["std"]))


def _means(printed: dict[str, Any] | None = None, *_: dict[str, Any]) -> dict[str, float]:
    """The scores that the first row of the papers has, if there is one."""
    if printed is None:
        return {}
    return {name: printed[name]["mean"] for name in SCORES if printed[name]["mean"]}


def read(table: str, results: Path) -> list[Row]:
    """The rows that there are runs of, by data set and IPC, real images first."""
    runs: dict[tuple[str, int, str, str], list[dict[str, Any]]] = defaultdict(list)
    for path in sorted((results / table).glob("*.json")):
        content = read_results(path)
        preset, ipc = content["config"]["data"]["name"], content["config"]["ipc"]
        method = content["config"]["method"]
        name = path.stem.removeprefix(f"{preset}_{method}_").rpartition(f"_ipc{ipc}_")[0]
        settings = completed(content["config"])
        same = {k: v for k, v in settings.items() if k not in SURROUNDINGS | {"seed"}}
        runs[preset, ipc, f"{name} {method}", json.dumps(same)].append(content)
    rows = []
    for (dataset, ipc, name, _), found in runs.items():
        # Images before the first update are real ones.
        name = name if found[0]["config"]["steps"] else "random"
        rows.append(Row(dataset, name, ipc, found, [run["evaluations"][-1] for run in found]))
    for baseline in BASELINES:
        scored = {
            (row.dataset, row.ipc): run
            for row in rows
            for run in row.runs
            if baseline in run["baselines"]
        }
        rows += [
            Row(dataset, baseline, ipc, [run], [run["baselines"][baseline]])
            for (dataset, ipc), run in scored.items()
        ]
    return sorted(rows, key=lambda row: (row.dataset, row.ipc, row.name not in BASELINES))


def lines(rows: Iterable[Row]) -> Iterator[str]:
    """A table in Markdown, and the command of every row."""
    rows = list(rows)
    names = list(SCORES.values())
    yield (
        f"| data set | IPC | row | updates | minutes | GiB | seeds x networks | "
        f"{' | '.join(names)} | paper |"
    )
    yield f"| --- |{' --- |' * (len(names) + 7)}"
    for row in rows:
        yield f"| {' | '.join(_cells(row))} |"
    yield ""
    yield (
        "Minutes of distillation on 2 CPU cores, or on one where that is said. Of a run on another "
        "device, its own minutes stand in brackets, before them what as many updates take on cores "
        "(equal_time.json) that were about half as fast as those of the other rows, and GiB is the "
        "memory of that device. Percent; ± over the networks of all seeds; in brackets what chance "
        "alone would show. Paper: the same data set, method, fairness mode "
        "and IPC in the papers, FairDD for our own method; COBRA's numbers are second-hand, from "
        "figures and notes. Bold: as good as FairDD there, or a gap at most one deviation (±) "
        "above what chance would show."
    )
    yield ""
    yield "A row on its first seed is"
    yield ""
    for row in rows:
        config = row.runs[0]["config"]
        command = command_of({k: v for k, v in config.items() if k not in SURROUNDINGS})
        yield f"- {row.dataset}, IPC {row.ipc}, {row.name}: `{command}`"


def summary(rows: Iterable[Row]) -> Iterator[str]:
    """The scores alone, as the README has them."""
    names = " | ".join(SCORES.values())
    yield f"| data set | IPC | row | updates | seeds x networks | {names} | paper |"
    yield f"| --- |{' --- |' * (len(SCORES) + 5)}"
    for row in rows:
        about = (row.dataset, str(row.ipc), row.name, _updates(row))
        yield f"| {' | '.join((*about, *_scores(row)))} |"


def _cells(row: Row) -> Iterator[str]:
    yield from (row.dataset, str(row.ipc), row.name, _updates(row))
    if row.name in BASELINES:
        yield from ("", "")
    else:
        yield _minutes(row)
        yield f"{max(run['peak_memory_bytes'] for run in _measured(row)) / 2**30:.1f}"
    yield from _scores(row)


def _updates(row: Row) -> str:
    config = row.runs[0]["config"]
    return "" if row.name in BASELINES else str(config["steps"] * config["outer_loops"])


def _scores(row: Row) -> Iterator[str]:
    yield f"{len(row.scores)} x {row.scores[0]['num_networks']}"
    goal = {} if row.name in BASELINES else row.goal()
    for name in SCORES:
        text = percent(row.score(name))
        if name in goal and row.reaches(name, goal[name]):
            text = f"**{text}**"
        yield f"{text} ({100 * row.floor(name):.1f})" if name in FLOORS else text
    yield " / ".join(f"{100 * value:.1f}" for value in row.paper().values())


def picture(rows: Iterable[Row]) -> bytes:
    """Accuracy over DEO_M, a panel for each data set and IPC. A cross is what the papers print for
    the row of its colour."""
    from matplotlib.figure import Figure

    panels: dict[tuple[str, int], list[Row]] = defaultdict(list)
    for row in rows:
        panels[row.dataset, row.ipc].append(row)
    columns = min(len(panels), _COLUMNS)
    high = -(-len(panels) // columns)
    figure = Figure(figsize=(3.4 * columns, 3.0 * high + 0.6), layout="constrained")
    axes = figure.subplots(high, columns, squeeze=False, sharey=True)
    names = sorted({row.name for each in panels.values() for row in each})
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    for axis, ((dataset, ipc), each) in zip(axes.flat, panels.items(), strict=False):
        for row in each:
            colour, marker = plots.style(names.index(row.name))
            gap, right = row.score("deo_max"), row.score("accuracy")
            axis.errorbar(
                100 * gap["mean"],
                100 * right["mean"],
                100 * right["std"],
                100 * gap["std"],
                marker=marker,
                color=colour,
                label=row.name,
            )
            paper = row.paper()
            if {"deo_max", "accuracy"} <= paper.keys():
                axis.plot(100 * paper["deo_max"], 100 * paper["accuracy"], "x", color=colour)
        axis.set(title=f"{dataset}, IPC {ipc}", xlabel="DEO_M in %", xlim=(0, 103))
    for axis in axes[:, 0]:
        axis.set_ylabel("accuracy in %")
    labels = {h.get_label(): h for axis in axes.flat for h in axis.get_legend_handles_labels()[0]}
    figure.legend(labels.values(), labels.keys(), loc="outside lower center", ncols=4)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()


def _is_on_cpu(run: dict[str, Any]) -> bool:
    return bool(run["environment"]["device"].startswith("cpu"))


def _measured(row: Row) -> list[dict[str, Any]]:
    """The runs whose minutes and memory are told: those on CPU, if there are any."""
    return list(filter(_is_on_cpu, row.runs)) or row.runs


def _minutes(row: Row) -> str:
    """Of distillation: those it took; of another device, and what as many updates take on CPU."""
    runs = _measured(row)
    run = runs[0]
    took = f"{statistics.mean(run['timing']['distill_s'] for run in runs) / 60:.1f}"
    if _is_on_cpu(run):
        on_one = all(run["environment"].get("cores") == 1 for run in runs)
        return f"{took} (one core)" if on_one else took
    updates = run["config"]["steps"] * run["config"]["outer_loops"]
    wanted = _what_is_computed(run["config"], run["dataset"])
    minutes = [
        (first + later * (updates - 1)) / 60 for first, later, paced in _paces() if paced == wanted
    ]
    there = f"({took} on {run['environment']['device']})"
    return f"about {statistics.mean(minutes):.0f} {there}" if minutes else there


@functools.cache
def _paces() -> list[tuple[float, float, dict[str, Any]]]:
    """Seconds of the first and of a later update on CPU, and what they compute."""
    found = []
    for entry in workdir.read_json(PACES)["trials"]:
        trial, result = entry["trial"], entry["result"]
        if trial["settings"].get("evaluate.epochs") == 0:
            chosen = presets.compose(trial["preset"]) | trial["settings"]
            config = dataclasses.asdict(configuration.make(chosen))
            seconds = [spent / result["cores"] for spent in result["cpu_s"]]
            computed = _what_is_computed(config, result)
            found.append((seconds[0], statistics.mean(seconds[1:]), computed))
    return found


def _what_is_computed(config: dict[str, Any], dataset: dict[str, Any]) -> dict[str, Any]:
    """The settings that decide about the time of an update: of the data their shapes alone."""
    other = SURROUNDINGS | {"data", "evaluate", "lr_img", "seed", "steps"}
    computed = {name: value for name, value in completed(config).items() if name not in other}
    cells = dataset["test_cell_counts"]
    return computed | {"size": config["data"]["size"], "cells": (len(cells), len(cells[0]))}


def write(table: str, results: Path) -> None:
    """Write TABLE.md and TABLE.png beside the folder of its runs."""
    rows = read(table, results)
    workdir.write_atomically(results / f"{table}.md", ("\n".join(lines(rows)) + "\n").encode())
    if rows:
        workdir.write_atomically(results / f"{table}.png", picture(rows))
