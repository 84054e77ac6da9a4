"""Several runs, or a run, its baselines and the paper, side by side: one table for every medium."""

from collections.abc import Mapping
from typing import Any

from fairdd_jax import published

Results = Mapping[str, Any]
"""The content of results.json."""
Rows = dict[str, dict[str, Any]]
"""Entries of results.json by the name of their row."""

TITLE = "Scores in %, ± over networks"
COLUMNS = ("accuracy", "DEO_M", "DEO_A", "worst cell", "nets", "steps")


def score_rows(runs: Mapping[str, Results]) -> Rows:
    """Rows of a table: the baseline random, every evaluation of every run, the baseline full, and
    what the papers print for them. Baselines that differ between runs are told apart.

    Args:
      runs: results by the name of their rows; the baselines are those of any of them.

    Returns:
      Entries of results.json by name of row.
    """
    rows = _baseline(runs, "random")
    reserved = {name for run in runs.values() for name in run["baselines"]}
    for name, run in runs.items():
        name = f"{name} (run)" if name in reserved else name
        several = len(run["evaluations"]) > 1
        for scores in run["evaluations"]:
            rows[f"{name}, {_where(scores)}" if several else name] = scores
        for scores in run["evaluations_uint8"]:
            rows[f"{name} in 8 bits, {_where(scores)}" if several else f"{name} in 8 bits"] = scores
    rows |= _baseline(runs, "full")
    sets = {
        name: f"{run['config']['data']['name']}, IPC {run['config']['ipc']}"
        for name, run in runs.items()
    }
    several = len(set(sets.values())) > 1
    for name, run in runs.items():
        for title, row in published.rows(run["config"]).items():
            rows[f"{title}, {sets[name]}" if several else title] = row
    return rows


def _baseline(runs: Mapping[str, Results], baseline: str) -> Rows:
    """A baseline of all runs, or of each if they are not the same."""
    found = {
        name: run["baselines"][baseline]
        for name, run in runs.items()
        if baseline in run["baselines"]
    }
    rows = list(found.values())
    if all(row == rows[0] for row in rows):
        return {baseline: rows[0]} if rows else {}
    return {f"{baseline}, {name}": row for name, row in found.items()}


def _where(scores: Mapping[str, Any]) -> str:
    step = f", step {scores['step']}" if "step" in scores else ""  # not of any set from a file
    return f"{scores['arch']}{step}"


def scored_images(config: Mapping[str, Any]) -> str:
    """Which images the scores of a run are of."""
    data = config["data"]
    images = "training images that were held out" if data.get("validation") else "test images"
    without = data.get("test_without")
    return f"{images} of all groups but the last {without}" if without else images


def caption(rows: Rows) -> str:
    """What has to be said below the table."""
    parts = ["in brackets: what chance alone would show on as many images"]
    empty = [row["cell_accuracy"][y][g] for row in rows.values() for y, g in row["empty_cells"]]
    if None in empty:
        parts.append("empty (class, group) cells are left out")
    elif empty:
        parts.append("empty (class, group) cells count as accuracy 0, as officially")
    sources = dict.fromkeys(row["source"] for row in rows.values() if "source" in row)
    if sources:
        parts.append(f"paper: {', '.join(sources)}")
    return "; ".join(parts)


def cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    """What a row says in `COLUMNS`, scores in percent."""
    return (
        percent(row["accuracy"]),
        _beside_chance(row["deo_max"], row["deo_max_floor"]),
        _beside_chance(row["deo_mean"], row["deo_mean_floor"]),
        percent(row["worst_group_accuracy"]),
        _count(row["num_networks"]),
        _count(row["optimiser_steps"]),
    )


def percent(score: Mapping[str, Any]) -> str:
    """A score in percent, with its spread if several networks have one.

    >>> percent({"mean": 0.914, "std": 0.004, "values": [0.91, 0.918]})
    '91.4±0.4'
    """
    if score["mean"] is None:
        return "unknown"
    spread = f"±{100 * score['std']:.1f}" if len(score["values"]) > 1 else ""
    return f"{100 * score['mean']:.1f}{spread}"


def _beside_chance(score: Mapping[str, Any], floor: float | None) -> str:
    return percent(score) if floor is None else f"{percent(score)} ({100 * floor:.1f})"


def _count(number: int | None) -> str:
    return "" if number is None else str(number)
