"""The tables and pictures of `reproduce.py`, from the JSON files of its runs alone."""

import io
import json
import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairdd_jax import published, workdir
from fairdd_jax.comparison import percent
from fairdd_jax.report import plots
from fairdd_jax.report.command import command_of

SCORES = {"accuracy": "accuracy", "deo_max": "DEO_M", "deo_mean": "DEO_A"}
FLOORS = {"deo_max": "deo_max_floor", "deo_mean": "deo_mean_floor"}
BASELINES = ("random", "full")


@dataclass(frozen=True, eq=False)
class Row:
    """Runs that differ in their seed alone, or a baseline.

    Attributes:
      dataset: name of the data set.
      name: of the row in tables.toml, or of the baseline.
      ipc: images per class.
      runs: results.json of each seed.
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
        """What the paper prints for it, by score; none for baselines and other settings."""
        if self.name in BASELINES:
            return {}
        rows = list(published.rows(self.runs[0]["config"]).values())
        return {name: rows[0][name]["mean"] for name in SCORES if rows and rows[0][name]["mean"]}

    def reaches(self, name: str, wanted: float) -> bool:
        """Whether a score is as good as that of the paper, or as good as chance lets one see."""
        own = self.score(name)
        if name == "accuracy":
            return bool(own["mean"] >= wanted)
        return bool(own["mean"] <= max(wanted, self.floor(name) + own["std"]))


def read(table: str, results: Path) -> list[Row]:
    """The rows that there are runs of, by data set and IPC."""
    runs: dict[tuple[str, int, str], list[dict[str, Any]]] = defaultdict(list)
    for path in sorted((results / table).glob("*.json")):
        content = json.loads(path.read_text())
        preset, ipc = content["config"]["data"]["name"], content["config"]["ipc"]
        method = content["config"]["method"]
        name = path.stem.removeprefix(f"{preset}_{method}_").rpartition(f"_ipc{ipc}_")[0]
        runs[preset, ipc, f"{name} {method}"].append(content)
    rows = [
        Row(dataset, name, ipc, found, [run["evaluations"][-1] for run in found])
        for (dataset, ipc, name), found in runs.items()
    ]
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
    # Runs of no step are there for the baselines.
    rows = [row for row in rows if row.name in BASELINES or row.runs[0]["config"]["steps"]]
    return sorted(rows, key=lambda row: (row.dataset, row.ipc))


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
    yield "Each row on one seed is"
    yield ""
    for row in rows:
        command = command_of(row.runs[0]["config"])
        if row.name not in BASELINES:
            yield f"- {row.dataset}, IPC {row.ipc}, {row.name}: `{command}`"


def _cells(row: Row) -> Iterator[str]:
    yield from (row.dataset, str(row.ipc), row.name)
    if row.name in BASELINES:
        yield from ("", "", "")
    else:
        config = row.runs[0]["config"]
        minutes = statistics.mean(run["timing"]["distill_s"] for run in row.runs) / 60
        device = row.runs[0]["environment"]["device"].removeprefix("cpu ").removeprefix("gpu ")
        yield str(config["steps"] * config["outer_loops"])
        yield f"{minutes:.1f} ({device})"
        yield f"{max(run['peak_memory_bytes'] for run in row.runs) / 2**30:.1f}"
    yield f"{len(row.scores)} x {row.scores[0]['num_networks']}"
    paper = row.paper()
    for name in SCORES:
        text = percent(row.score(name))
        if name in paper and row.reaches(name, paper[name]):
            text = f"**{text}**"
        yield f"{text} ({100 * row.floor(name):.1f})" if name in FLOORS else text
    yield " / ".join(f"{100 * value:.1f}" for value in paper.values())


def picture(rows: Iterable[Row]) -> bytes:
    """Accuracy over DEO_M, a panel for each data set and IPC, with the paper's rows as crosses."""
    from matplotlib.figure import Figure

    panels: dict[tuple[str, int], list[Row]] = defaultdict(list)
    for row in rows:
        panels[row.dataset, row.ipc].append(row)
    figure = Figure(figsize=(3.4 * len(panels), 3.4), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    names = sorted({row.name for each in panels.values() for row in each})
    for axis, ((dataset, ipc), each) in zip(axes, panels.items(), strict=True):
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
    axes[0].set_ylabel("accuracy in %")
    labels = {h.get_label(): h for axis in axes for h in axis.get_legend_handles_labels()[0]}
    figure.legend(labels.values(), labels.keys(), loc="outside lower center", ncols=3)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()


def write(table: str, results: Path) -> None:
    """Write TABLE.md and TABLE.png beside the folder of its runs."""
    rows = read(table, results)
    workdir.write_atomically(results / f"{table}.md", ("\n".join(lines(rows)) + "\n").encode())
    if rows:
        workdir.write_atomically(results / f"{table}.png", picture(rows))
