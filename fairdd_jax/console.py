"""What a person sees in the terminal: errors in one line, progress bars and a table of scores."""

import errno
import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from jax.errors import JaxRuntimeError
from rich import box
from rich import progress as bars
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fairdd_jax import comparison, data, interrupts
from fairdd_jax.command_line import Command
from fairdd_jax.data import Dataset
from fairdd_jax.errors import DataError, FairDDError, WorkdirError, one_line
from fairdd_jax.loop import Progress

Advance = Callable[..., None]

_NO_MEMORY = 6  # beside those of `fairdd_jax.errors`
_BROKEN_PIPE = 141  # what a shell says of a program that SIGPIPE has ended
_WIDTH = 160  # columns where there is no terminal to ask, as in a log


def exit_code(program: Callable[[list[str], Console], int], arguments: list[str]) -> int:
    """Run a program; a user's mistake becomes one line, and its kind the exit code."""
    if sys.stdout is None:  # it was closed
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):  # names may have letters that it cannot show
        sys.stdout.reconfigure(errors="replace")
    try:
        code = program(arguments, Console(width=None if sys.stdout.isatty() else _WIDTH))
        sys.stdout.flush()
        return code
    except FairDDError as error:
        say(Console(stderr=True), f"error: {error}")
        return error.exit_code
    except BrokenPipeError:  # whoever read it has seen enough, as head does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE
    except OSError as error:
        is_full = error.errno == errno.ENOSPC
        if error.filename is None and not is_full:
            raise
        advice = "free some space" if is_full else "choose another place, or give access to it"
        what = error.filename or "the output"
        say(Console(stderr=True), f"error: cannot use {what}: {one_line(error)}; {advice}")
        return (WorkdirError if is_full else DataError).exit_code
    except (MemoryError, JaxRuntimeError) as error:
        if isinstance(error, JaxRuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        say(
            Console(stderr=True),
            f"error: not enough memory ({one_line(error)}); --dry_run of run.py says what a run "
            "takes, and which settings fit",
        )
        return _NO_MEMORY
    except KeyboardInterrupt:
        return interrupts.INTERRUPTED
    except interrupts.Terminated:
        return interrupts.TERMINATED


def say(console: Console, text: str) -> None:
    """Print a line as it is: names in it are no markup, and none is broken in two."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def load(command: Command, console: Console) -> Dataset:
    """The data set, with a bar while images are decoded and what a person should know of it."""
    with counter(console, "decode images") as advance:
        dataset = data.load(
            command.config.data,
            data_dir=command.options.data_dir,
            download=command.options.download,
            cache_dir=command.options.cache_dir,
            on_decoded=advance,
        )
    for note in dataset.notes:
        say(console, f"note: {note}")
    return dataset


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


@contextmanager
def counter(console: Console, title: str) -> Iterator[Callable[[int], None]]:
    """A count of work of unknown length, drawn on a terminal alone and from its start.

    Yields a function ``(steps)`` that advances it.
    """
    columns = (
        bars.TextColumn("{task.description}"),
        bars.SpinnerColumn(),
        bars.TextColumn("{task.completed:,.0f}"),
        bars.TimeElapsedColumn(),
    )
    with bars.Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=None, visible=False)

        def advance(steps: int) -> None:
            bar.update(task, advance=steps, visible=True)

        yield advance


def detail(line: Progress) -> str:
    """What a progress bar says of a line of the log."""
    return f"loss {line.loss:.4g}  {line.images_per_second:,.0f} images/s"


def score_table(rows: dict[str, dict[str, Any]]) -> Table:
    """Scores by name of row, in percent.

    Args:
      rows: entries of results.json: evaluations and baselines.
    """
    table = Table(
        title=comparison.TITLE,
        caption=comparison.caption(rows),
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
    )
    table.add_column("trained on", overflow="fold")
    for name in comparison.COLUMNS:
        table.add_column(name, justify="right", no_wrap=True)
    for name, row in rows.items():
        table.add_row(Text(name), *comparison.cells(row))
    return table
