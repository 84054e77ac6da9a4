"""What a person sees in the terminal: a progress bar and a table of scores, in percent."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich import box
from rich import progress as bars
from rich.console import Console
from rich.table import Table

from fairdd_jax.loop import Progress

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
    """Scores by name of row, in percent.

    Args:
      rows: entries of results.json: evaluations and baselines.
    """
    empty = sum(len(row["empty_cells"]) > 0 for row in rows.values())
    note = "; empty (class, group) cells are left out" if empty else ""
    table = Table(
        title="Scores on the test set in %, ± over networks",
        caption=f"in brackets: what chance alone would show on this test set{note}",
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
    )
    table.add_column("trained on", overflow="fold")
    for name in ("accuracy", "DEO_M", "DEO_A", "worst cell", "nets", "steps"):
        table.add_column(name, justify="right", no_wrap=True)
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
    '91.4±0.4'
    """
    if score["mean"] is None:
        return "unknown"
    spread = f"±{100 * score['std']:.1f}" if len(score["values"]) > 1 else ""
    return f"{100 * score['mean']:.1f}{spread}"


def _beside_chance(score: dict[str, Any], floor: float | None) -> str:
    return percent(score) if floor is None else f"{percent(score)} ({100 * floor:.1f})"
