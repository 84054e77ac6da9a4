"""Distil a data set and score the result.

python experiments/run.py --config cmnist_fg_dm --data_dir DATA [--ipc 10] [--any.field VALUE ...]
"""

import argparse
import dataclasses
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console

from fairdd_jax import comparison, data, presets, report, sharding, workdir
from fairdd_jax import config as configuration
from fairdd_jax import console as terminal
from fairdd_jax.api import Run
from fairdd_jax.config import Config
from fairdd_jax.data import Dataset
from fairdd_jax.errors import ConfigError, FairDDError, NonFiniteLossError
from fairdd_jax.loop import Progress
from fairdd_jax.presets import flat

INTERRUPTED = 128 + signal.SIGINT
TERMINATED = 128 + signal.SIGTERM

_WIDTH = 160  # columns where there is no terminal to ask, as in a log


class Terminated(BaseException):
    """SIGTERM, raised where the program stands so that it can save."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """What decides about this run of the program, not about its result."""
    group = parser.add_argument_group("program")
    group.add_argument("--config", metavar="NAME", help="a preset; --list prints them")
    group.add_argument("--list", action="store_true", help="print the presets and stop")
    group.add_argument("--recipe", help="official or cobra: every value of that program")
    group.add_argument("--quick", action="store_true", help="the same code path in seconds")
    group.add_argument("--workdir", metavar="DIR", help="output folder; by default below runs/")
    group.add_argument("--data_dir", metavar="DIR", help="where the data files are")
    group.add_argument("--download", action="store_true", help="allow downloads")


def main(arguments: list[str]) -> int:
    """Parse, load, call; returns the exit code."""
    console = Console(width=None if sys.stdout.isatty() else _WIDTH)
    signal.signal(signal.SIGTERM, _terminate)
    sharding.use_all_cores()
    try:
        return run(arguments, console)
    except FairDDError as error:
        Console(stderr=True, soft_wrap=True, highlight=False).print(f"error: {error}", markup=False)
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except Terminated:
        return TERMINATED


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated


def run(arguments: list[str], console: Console) -> int:
    """Everything between the command line and the exit code."""
    program = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    add_options(program)
    try:
        options, rest = program.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise ConfigError(str(error)) from None
    if options.list:
        for name, line in presets.names().items():
            print(f"{name:16} {line}")
        return 0
    wants_help = any(argument in ("-h", "--help") for argument in rest)
    if options.config is None and not wants_help:
        raise ConfigError("--config NAME is missing; --list prints the names")
    settings = (
        presets.compose(options.config, recipe=options.recipe, quick=options.quick)
        if options.config
        else {}
    )
    if wants_help:
        resolved = flat(dataclasses.asdict(configuration.make(settings))) if settings else {}
        print_help(resolved)
        return 0
    fields = configuration.parser(settings)
    add_options(fields)
    config = configuration.from_arguments(fields, rest)
    for field, value in (("method", config.method), ("data.name", config.data.name)):
        if value != settings[field]:
            raise ConfigError(
                f"--{field} {value} contradicts --config {options.config}; --list prints the names"
            )

    name = options.config if options.config == "demo" else _name(config)
    folder = workdir.prepare(Path(options.workdir or f"runs/{name}"))
    data_dir = Path(options.data_dir) if options.data_dir else None
    dataset = data.load(config.data, data_dir=data_dir, download=options.download)
    runs: dict[str, Run] = {}
    if options.config == "demo":
        baselines: dict[str, dict[str, Any]] = {}
        for mode in dict.fromkeys(["vanilla", config.fairness]):
            # What a mode decides, such as its distance, is decided for each.
            chosen = configuration.from_arguments(fields, [*rest, f"--fairness={mode}"])
            runs[mode] = distil_and_score(chosen, dataset, folder / mode, console, baselines)
            baselines = runs[mode].baselines
        rows = comparison.score_rows(runs)
        workdir.write_json(folder / "comparison.json", rows)
        picture = report.png_bytes(comparison.picture(runs))
        workdir.write_atomically(folder / "comparison.png", picture)
    else:
        runs[config.fairness] = distil_and_score(config, dataset, folder, console, {})
        rows = comparison.score_rows(runs)
    console.print(terminal.score_table(rows))
    console.print(f"written to {folder}", highlight=False, markup=False, soft_wrap=True)
    return 0


def _name(config: Config) -> str:
    """Folder of a run unless the user names one: what is most often varied."""
    return f"{config.data.name}_{config.method}_{config.fairness}_ipc{config.ipc}_seed{config.seed}"


def print_help(settings: dict[str, Any]) -> None:
    """Every field with its type and its value in the chosen preset."""
    fields = configuration.parser(settings)
    fields.description = __doc__
    add_options(fields)
    fields.print_help()


def distil_and_score(
    config: Config,
    dataset: Dataset,
    folder: Path,
    console: Console,
    baselines: dict[str, dict[str, Any]],
) -> Run:
    """One run with all its files; interrupted or failed, it saves what it has.

    Baselines that another run has scored already are taken over.
    """
    this = Run(config, dataset)
    workdir.prepare(folder)
    workdir.remove(folder / "metrics.jsonl")
    this.save_config(folder)
    title = f"{config.data.name} {config.method} {config.fairness}"
    try:
        with terminal.progress_bar(
            console, f"distil {title}", config.updates, "updates"
        ) as advance:
            done = 0

            def on_progress(line: Progress) -> None:
                nonlocal done
                workdir.append_line(folder / "metrics.jsonl", line.line())
                advance(line.update - done, terminal.detail(line))
                done = line.update

            this.distill(on_progress)
        this.save(folder)
        this.baselines |= baselines
        names = [n for n in configuration.baselines(config.evaluate) if n not in this.baselines]
        total = this.scoring_steps(names)
        with terminal.progress_bar(console, f"score {title}", total, "steps") as advance:
            this.evaluate(on_steps=advance)
            for name in names:
                this.save(folder)
                this.score_baseline(name, on_steps=advance)
    except (KeyboardInterrupt, Terminated, NonFiniteLossError):
        this.save(folder)
        raise
    this.save(folder)
    return this


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
