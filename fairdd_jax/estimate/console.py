"""What a person types and sees of a dry run: what would be done, and what it would take."""

import argparse
import dataclasses
import math
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from fairdd_jax import config as configuration
from fairdd_jax import stream
from fairdd_jax.config import Config
from fairdd_jax.data import Dataset
from fairdd_jax.environment import describe
from fairdd_jax.errors import ConfigError
from fairdd_jax.estimate import Alternative, Estimate
from fairdd_jax.estimate.alternatives import changed
from fairdd_jax.schedule import passes
from fairdd_jax.step import Step

# What seconds are spent on.
_PARTS = {
    "load": "start the program, load the data set",
    "prepare": "choose the first images, cluster groups",
    "compile": "compile",
    "distil": "distil",
    "synthetic": "score the synthetic images",
    "uint8": "score the 8-bit images",
    "random": "score the baseline random",
    "full": "score the baseline full",
    "files": "write the report and the other files",
}


def add_options(parser: argparse._ActionsContainer, *, shown: bool = True) -> None:
    """Add what asks for a dry run, and to the help unless it is not shown."""
    parser.add_argument(
        "--dry_run",
        nargs="?",
        const="",
        metavar="FILE",
        help="only say what would be done and estimate minutes and memory; a file keeps it as JSON"
        if shown
        else argparse.SUPPRESS,
    )
    parser.add_argument(
        "--minutes",
        type=float,
        metavar="M",
        help="with --dry_run: look for settings that fit if it takes more"
        if shown
        else argparse.SUPPRESS,
    )


def check_options(options: argparse.Namespace, *, is_run: bool) -> None:
    """See that what asks for a dry run makes sense.

    Args:
      options: what was typed.
      is_run: whether the program is the one that runs.

    Raises:
      ConfigError: it does not.
    """
    if options.dry_run is not None and (options.distributed or not is_run):
        raise ConfigError("--dry_run is for experiments/run.py, in one process")
    if options.minutes is not None and options.dry_run is None:
        raise ConfigError("--minutes says what a --dry_run may take; add --dry_run")
    if options.minutes is not None and not 0 < options.minutes < math.inf:
        raise ConfigError(f"--minutes {options.minutes:g} is out of range; choose more than 0")


def without_options(arguments: list[str]) -> list[str]:
    """A command line without what asks for a dry run.

    >>> without_options(["--config", "demo", "--dry_run", "--minutes", "5", "--ipc", "1"])
    ['--config', 'demo', '--ipc', '1']
    """
    parser = _silent_parser()
    add_options(parser)
    return parser.parse_known_args(arguments)[1]


def _silent_parser() -> argparse.ArgumentParser:
    return argparse.ArgumentParser(add_help=False, allow_abbrev=False)


def as_dict(estimate: Estimate) -> dict[str, Any]:
    """The content of the file."""
    return {
        **dataclasses.asdict(estimate),
        "total_seconds": estimate.total_seconds,
        "fits": estimate.fits,
        "environment": describe(),
    }


def plan(configs: Sequence[Config], dataset: Dataset, folder: Path) -> Iterator[str]:
    """Lines that say what would be done.

    Args:
      configs: of the runs, which differ in their fairness mode.
      dataset: the data set.
      folder: where the files would go.
    """
    config = configs[0]
    cells = dataset.cell_counts(dataset.train)
    shape = " x ".join(map(str, dataset.image_shape))
    yield (
        f"data set    {dataset.name}: {len(dataset.train):,} training and {len(dataset.test):,} "
        f"test images of {shape}; {dataset.num_classes} classes, {dataset.num_groups} groups, "
        f"{cells.min():,} to {cells.max():,} training images per cell"
    )
    modes = " and ".join(c.fairness for c in configs)
    loops = f" (one network for {config.outer_loops})" if config.outer_loops > 1 else ""
    drawn = (
        f"{config.per_cell} of every cell"
        if config.sampling == "stratified"
        else f"{config.batch_real} of every class"
    )
    yield (
        f"distil      {config.method}, {modes}: {config.updates:,} updates{loops} of {config.ipc} "
        f"images per class, {config.model}; real images {config.sampling}, {drawn}"
    )
    names = configuration.baselines(config.evaluate)
    every = config.evaluate.every
    yield f"score       {f'every {every:,} steps and ' if every else ''}at the end, on networks:"
    for each in passes(config, dataset, names):
        yield (
            f"            {each.name}: {each.networks} x {each.arch}, {each.schedule.total:,} "
            f"optimiser steps on {each.num_images:,} images"
        )
    streamed = stream.is_streamed(config, dataset)
    mesh = Step(config, dataset, streamed=streamed).mesh
    axes = ",".join(f"{axis}={size}" for axis, size in mesh.shape.items())
    place = "streamed from where it lies" if streamed else "on the device"
    about = describe()
    yield (
        f"devices     {about['num_devices']} x {about['device']}, mesh {axes}; training set {place}"
    )
    yield f"files       {folder}"


def table(estimate: Estimate) -> Table:
    """Minutes by what they are spent on."""
    result = Table(box=box.SIMPLE_HEAD)
    result.add_column("estimated for this machine")
    result.add_column("minutes", justify="right")
    for name, seconds in estimate.seconds.items():
        result.add_row(_PARTS[name], _minutes(seconds))
    result.add_row("all", _minutes(estimate.total_seconds), style="bold")
    return result


def verdict(estimate: Estimate, config: Config, arguments: Sequence[str]) -> Iterator[str]:
    """Lines about memory and time, and the command lines that fit.

    Args:
      estimate: the estimate.
      config: the configuration that it is of.
      arguments: the command line that it is of, without what asks for the estimate.
    """
    there = "does not fit in" if not estimate.fits_memory else "of"
    yield f"memory      {_gib(estimate.peak_bytes)} {there} {_gib(estimate.limit_bytes)} GiB"
    if estimate.fits:
        if estimate.minutes is not None:
            yield f"time        fits in {estimate.minutes:g} minutes"
        return
    if estimate.fits_memory:
        yield f"time        does not fit in {estimate.minutes:g} minutes"
    elif not estimate.seconds:
        yield "time        not measured: that would take the memory"
    if not estimate.alternatives:
        yield "            no number of steps, and no setting that is tried here, makes it fit"
        return
    yield "            each of these fits:"
    for each in estimate.alternatives:
        yield f"{_cost(each)}  {_command(config, arguments, each)}"


def _cost(alternative: Alternative) -> str:
    if alternative.total_seconds is None:
        return f"{_gib(alternative.peak_bytes)} GiB"
    return f"{_minutes(alternative.total_seconds)} min"


def _command(config: Config, arguments: Sequence[str], alternative: Alternative) -> str:
    """The command line with other settings; what it repeats wins over what was there before.

    What these settings leave unread would be refused, and is left out.
    """
    parser = _silent_parser()
    for name in configuration.unread(changed(config, alternative.settings)):
        parser.add_argument(f"--{name}")
    arguments = parser.parse_known_args(arguments)[1]
    settings = (
        part for name, value in alternative.settings.items() for part in (f"--{name}", value)
    )
    return shlex.join(["python", "experiments/run.py", *arguments, *map(str, settings)])


def _minutes(seconds: float | None) -> str:
    return f"{(seconds or 0.0) / 60:.1f}"


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f}"
