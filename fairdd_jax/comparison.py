"""Several runs, or a run, its baselines and the paper, side by side: one table for every medium."""

from collections.abc import Mapping
from typing import Any

from fairdd_jax import published

Results = Mapping[str, Any]
"""The content of results.json."""
Rows = dict[str, dict[str, Any]]
"""Entries of results.json by the name of their row."""

TITLE = "Scores on the test set in %, ± over networks"
COLUMNS = ("accuracy", "DEO_M", "DEO_A", "worst cell", "nets", "steps")


def score_rows(runs: Mapping[str, Results]) -> Rows:
    """Rows of a table: the baseline random, every evaluation of every run, the baseline full, and
    what the papers print for them.

    Args:
      runs: results by the name of their rows; the baselines are those of any of them.

    Returns:
      Entries of results.json by name of row.
    """
    baselines = {name: row for run in runs.values() for name, row in run["baselines"].items()}
    rows: Rows = {"random": baselines["random"]} if "random" in baselines else {}
    for name, run in runs.items():
        several = len(run["evaluations"]) > 1
        for scores in run["evaluations"]:
            rows[f"{name}, {_where(scores)}" if several else name] = scores
        for scores in run["evaluations_uint8"]:
            rows[f"{name} in 8 bits, {_where(scores)}" if several else f"{name} in 8 bits"] = scores
    if "full" in baselines:
        rows["full"] = baselines["full"]
    for run in runs.values():
        rows |= published.rows(run["config"])
    return rows


def _where(scores: Mapping[str, Any]) -> str:
    step = f", step {scores['step']}" if "step" in scores else ""  # not of any set from a file
    return f"{scores['arch']}{step}"


def caption(rows: Rows) -> str:
    """What has to be said below the table."""
    parts = ["in brackets: what chance alone would show on this test set"]
    if any(row["empty_cells"] for row in rows.values()):
        parts.append("empty (class, group) cells are left out")
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
