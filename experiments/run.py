"""Distil a data set and score the result.

python experiments/run.py --config cmnist_fg_dm --data_dir DATA [--ipc 10] [--any.field VALUE ...]
"""

import inspect
import logging
import signal
import sys
import time
import warnings
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from fairdd_jax import (
    command_line,
    comparison,
    hosts,
    interrupts,
    outputs,
    report,
    sharding,
    workdir,
)
from fairdd_jax import config as configuration
from fairdd_jax import console as terminal
from fairdd_jax.config import Config
from fairdd_jax.data import Dataset
from fairdd_jax.estimate import console as estimate_console
from fairdd_jax.estimate import estimate
from fairdd_jax.resume import refuse_other_images, refuse_overwriting
from fairdd_jax.run import Run
from fairdd_jax.session import distil_and_score


def main(arguments: list[str]) -> int:
    """Parse, load, call; returns the exit code."""
    signal.signal(signal.SIGTERM, interrupts.raise_terminated)
    sharding.use_all_cores()
    return terminal.exit_code(run, arguments)


def run(arguments: list[str], console: Console) -> int:
    """Everything between the command line and the exit code."""
    hosts.join(command_line.read_options(arguments)[0].distributed)
    console.quiet = not hosts.is_first()
    command = command_line.read_command(arguments, description=__doc__)
    if command is None:
        return 0
    config, options = command.config, command.options
    is_demo = options.config == "demo"
    folder = command_line.output_folder(command, _name(command))
    configs = _side_by_side(command, folder) if is_demo else {folder: config}
    if options.dry_run is not None:
        return _dry_run(command, configs, arguments, folder, console)
    workdir.prepare(folder)
    with workdir.locked(folder):
        _refuse_overwriting(configs, options.resume)
        dataset = terminal.load(command, console)
        _refuse_other_images(configs, dataset, options.resume)
        runs: dict[str, Run] = {}
        if is_demo:
            runs = _compare(configs, dataset, folder, console, options)
        else:
            runs[config.fairness] = distil_and_score(
                config, dataset, folder, console=console, options=options
            )
    results = {name: this.results() for name, this in runs.items()}
    console.print(terminal.score_table(comparison.score_rows(results)))
    terminal.say(console, f"written to {folder}")
    return 0


def _dry_run(
    command: command_line.Command,
    runs: dict[Path, Config],
    arguments: list[str],
    folder: Path,
    console: Console,
) -> int:
    """Say what would be done and what it would take; writes the file that is asked for, if any."""
    options, configs = command.options, list(runs.values())
    _refuse_overwriting(runs, options.resume)
    started, began = time.process_time(), time.perf_counter()  # importing kept one core busy
    dataset = terminal.load(command, console)
    if isinstance(dataset.train.images, np.memmap):  # by now decoded, which the run will not do
        began = time.perf_counter()
        terminal.load(command, Console(quiet=True))
    _refuse_other_images(runs, dataset, options.resume)
    load_seconds = started + time.perf_counter() - began

    for line in estimate_console.plan(configs, dataset, folder):
        terminal.say(console, line)
    found = estimate(configs, dataset, load_seconds=load_seconds, minutes=options.minutes)
    if found.seconds:
        console.print(estimate_console.table(found))
    for line in estimate_console.verdict(
        found, command.config, estimate_console.without_options(arguments)
    ):
        terminal.say(console, line)
    if options.dry_run:
        workdir.write_json(command_line.path(options.dry_run), estimate_console.as_dict(found))
    return 0


def _side_by_side(command: command_line.Command, folder: Path) -> dict[Path, Config]:
    """Vanilla and the chosen fairness mode, each in a folder of its own."""
    return {
        # What a mode decides, such as its distance, is decided for each.
        folder / mode: configuration.from_arguments(
            command.fields, [*command.rest, f"--fairness={mode}"]
        )
        for mode in dict.fromkeys(["vanilla", command.config.fairness])
    }


def _compare(
    configs: dict[Path, Config],
    dataset: Dataset,
    folder: Path,
    console: Console,
    options: Namespace,
) -> dict[str, Run]:
    """All modes, and how they compare."""
    runs: dict[str, Run] = {}
    baselines: dict[str, dict[str, Any]] = {}
    for place, config in configs.items():
        this = distil_and_score(
            config, dataset, place, baselines=baselines, console=console, options=options
        )
        runs[config.fairness], baselines = this, this.baselines
    if hosts.is_first():
        outputs.save_comparison([report.read(folder / mode, name=mode) for mode in runs], folder)
    return runs


def _name(command: command_line.Command) -> str:
    """Folder of a run unless the user names one: what is most often varied."""
    config, options = command.config, command.options
    name = f"{config.data.name}_{config.method}_{config.fairness}_ipc{config.ipc}_seed{config.seed}"
    parts = ["demo" if options.config == "demo" else name, options.recipe]
    return "_".join(filter(None, [*parts, "quick" if options.quick else None]))


def _refuse_overwriting(configs: dict[Path, Config], resume: str | None) -> None:
    """Of several runs, before the first."""
    if resume == "never":
        return
    for folder, config in configs.items():
        refuse_overwriting(folder, config, resume=resume == "auto")


def _refuse_other_images(configs: dict[Path, Config], dataset: Dataset, resume: str | None) -> None:
    """Once the images are at hand."""
    if resume == "never":
        return
    for folder in configs:
        refuse_other_images(folder, dataset)


def _mute_orbax() -> None:
    """Of what fails in orbax's coroutines, the error comes in one line here; it adds tracebacks."""
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)

    def show(unraisable: "sys.UnraisableHookArgs") -> None:
        if not inspect.iscoroutine(unraisable.object):
            sys.__unraisablehook__(unraisable)

    sys.unraisablehook = show


if __name__ == "__main__":
    _mute_orbax()
    sys.exit(main(sys.argv[1:]))
