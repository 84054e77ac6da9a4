"""Distil a data set and score the result.

python experiments/run.py --config cmnist_fg_dm --data_dir DATA [--ipc 10] [--any.field VALUE ...]
"""

import argparse
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console

from fairdd_jax import config as configuration
from fairdd_jax import console as terminal
from fairdd_jax import data, models, presets, report, workdir
from fairdd_jax.api import Run
from fairdd_jax.config import Config, Fairness
from fairdd_jax.data import Dataset
from fairdd_jax.data.normalise import to_pixels
from fairdd_jax.distill import Progress
from fairdd_jax.errors import ConfigError, FairDDError, NonFiniteLossError

INTERRUPTED = 128 + signal.SIGINT
TERMINATED = 128 + signal.SIGTERM


class Terminated(BaseException):
    """SIGTERM, raised where the program stands so that it can save."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """What decides about this run of the program, not about its result."""
    group = parser.add_argument_group("program")
    group.add_argument("--config", metavar="NAME", help="a preset; --list prints them")
    group.add_argument("--list", action="store_true", help="print the presets and stop")
    group.add_argument("--recipe", help="official or cobra: every value of that program")
    group.add_argument("--quick", action="store_true", help="the same code path in seconds")
    group.add_argument("--workdir", metavar="DIR", help="output folder (default: runs/NAME)")
    group.add_argument("--data_dir", metavar="DIR", help="where the data files are")
    group.add_argument("--download", action="store_true", help="allow downloads")


def main(arguments: list[str]) -> int:
    """Parse, load, call; returns the exit code."""
    console = Console()
    signal.signal(signal.SIGTERM, _terminate)
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
    fields = configuration.parser(settings)
    fields.description = __doc__
    add_options(fields)
    if wants_help:
        fields.print_help()
        return 0
    config = configuration.from_arguments(fields, rest)

    folder = workdir.prepare(Path(options.workdir or f"runs/{options.config}"))
    data_dir = Path(options.data_dir) if options.data_dir else None
    dataset = data.load(config.data, data_dir=data_dir, download=options.download)
    if options.config == "demo":
        modes = dict.fromkeys(["vanilla", config.fairness])
        # What a mode decides, such as its distance, is decided for each.
        configs = [
            configuration.from_arguments(fields, [*rest, f"--fairness={mode}"]) for mode in modes
        ]
        compare(configs, dataset, folder, console)
    else:
        finished = distil_and_score(config, dataset, folder, console)
        console.print(terminal.score_table(score_rows(finished)))
    console.print(f"written to {folder}", highlight=False, markup=False, soft_wrap=True)
    return 0


def distil_and_score(
    config: Config,
    dataset: Dataset,
    folder: Path,
    console: Console,
    baselines: dict[str, dict[str, Any]] | None = None,
) -> Run:
    """One run with all its files; interrupted or failed, it saves what it has."""
    workdir.prepare(folder)
    workdir.remove(folder / "metrics.jsonl")
    this = Run(config, dataset)
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
        with terminal.progress_bar(console, f"score {title}", _steps(this), "steps") as advance:
            this.evaluate(on_steps=advance)
            this.baselines |= baselines or {}
            for name in configuration.baselines(config.evaluate):
                if name not in this.baselines:
                    this.save(folder)
                    this.score_baseline(name, on_steps=advance)
    except (KeyboardInterrupt, Terminated, NonFiniteLossError):
        this.save(folder)
        raise
    this.save(folder)
    return this


def _steps(run: Run) -> int:
    """Optimiser steps that scoring will take, for the progress bar."""
    evaluation = run.config.evaluate
    archs = models.resolve_archs(evaluation.archs, model=run.config.model)
    networks = len(archs) * (evaluation.networks + evaluation.uint8_networks)
    networks += evaluation.networks if "random" in configuration.baselines(evaluation) else 0
    return networks * (evaluation.epochs + 1)


def compare(configs: list[Config], dataset: Dataset, folder: Path, console: Console) -> None:
    """Fairness modes side by side, each a run of its own, under the same budget."""
    runs: dict[Fairness, Run] = {}
    baselines: dict[str, dict[str, Any]] = {}
    for config in configs:
        mode = config.fairness
        runs[mode] = distil_and_score(config, dataset, folder / mode, console, baselines)
        baselines = runs[mode].baselines
    rows = {name: baselines[name] for name in ("random",) if name in baselines}
    rows |= {mode: this.evaluations[-1] for mode, this in runs.items()}
    rows |= {name: baselines[name] for name in ("full",) if name in baselines}
    workdir.write_json(folder / "comparison.json", rows)
    panels = {}
    for mode, this in runs.items():
        scores = this.evaluations[-1]
        accuracy, gap = (terminal.percent(scores[name]) for name in ("accuracy", "deo_max"))
        title = f"{mode}\naccuracy {accuracy} %, DEO_M {gap} %"
        pixels = to_pixels(this.images, mean=dataset.mean, std=dataset.std)
        panels[title] = report.grid(pixels)
    picture = report.png_bytes(report.side_by_side(panels))
    workdir.write_atomically(folder / "comparison.png", picture)
    console.print(terminal.score_table(rows))


def score_rows(run: Run) -> dict[str, dict[str, Any]]:
    """Rows of the final table: the baselines around every architecture."""
    rows = {"random": run.baselines["random"]} if "random" in run.baselines else {}
    for scores in run.evaluations:
        rows[f"{run.config.fairness}, {scores['arch']}, step {scores['step']}"] = scores
    for scores in run.evaluations_uint8:
        rows[f"the same in 8 bits, {scores['arch']}, step {scores['step']}"] = scores
    return rows | ({"full": run.baselines["full"]} if "full" in run.baselines else {})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
