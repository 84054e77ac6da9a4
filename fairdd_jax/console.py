"""What a person sees in the terminal: a progress bar and a table of scores, in percent."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich import progress as bars
from rich.console import Console
from rich.table import Table

from fairdd_jax.distill import Progress

Advance = Callable[..., None]


@contextmanager
def progress_bar(console: Console, title: str, total: int, unit: str) -> Iterator[Advance]:
    """A bar that is drawn on a terminal alone.

    Yields a function ``(steps, detail="")`` that advances it.
    """
    columns = (
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TextColumn(unit),
        bars.TextColumn("{task.fields[detail]}"),
        bars.TimeElapsedColumn(),
        bars.TextColumn("left"),
        bars.TimeRemainingColumn(),
    )
    with bars.Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=total, detail="")

        def advance(steps: int, detail: str = "") -> None:
            bar.update(task, advance=steps, detail=detail)

        yield advance


def detail(line: Progress) -> str:
    """What a progress bar says of a line of the log."""
    return f"loss {line.loss:.4g}  {line.images_per_second:,.0f} images/s"


def score_table(rows: dict[str, dict[str, Any]]) -> Table:
    """Scores by name of row, in percent; the floors are what chance alone would show."""
    table = Table(title="Scores on the test set, % (± over networks)", title_justify="left")
    table.add_column("training images")
    for name in ("accuracy", "DEO_M", "DEO_A", "worst cell", "networks", "steps"):
        table.add_column(name, justify="right")
    for name, row in rows.items():
        table.add_row(
            name,
            percent(row["accuracy"]),
            _beside_chance(row["deo_max"], row["deo_max_floor"]),
            _beside_chance(row["deo_mean"], row["deo_mean_floor"]),
            percent(row["worst_group_accuracy"]),
            str(row["num_networks"]),
            str(row["optimiser_steps"]),
        )
    return table


def percent(score: dict[str, Any]) -> str:
    """A score in percent, with its spread if several networks have one.

    >>> percent({"mean": 0.914, "std": 0.004, "values": [0.91, 0.918]})
    '91.4 ± 0.4'
    """
    if score["mean"] is None:
        return "unknown"
    spread = f" ± {100 * score['std']:.1f}" if len(score["values"]) > 1 else ""
    return f"{100 * score['mean']:.1f}{spread}"


def _beside_chance(score: dict[str, Any], floor: float | None) -> str:
    return percent(score) if floor is None else f"{percent(score)}  (chance {100 * floor:.1f})"
