"""Distil a data set and score the result.

python experiments/run.py --config cmnist_fg_dm --data_dir DATA [--ipc 10] [--any.field VALUE ...]
"""

import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console

from fairdd_jax import comparison, report, sharding, workdir
from fairdd_jax import config as configuration
from fairdd_jax import console as terminal
from fairdd_jax.api import Run
from fairdd_jax.config import Config
from fairdd_jax.data import Dataset
from fairdd_jax.errors import NonFiniteLossError
from fairdd_jax.loop import Progress

TERMINATED = 128 + signal.SIGTERM


class Terminated(BaseException):
    """SIGTERM, raised where the program stands so that it can save."""


def main(arguments: list[str]) -> int:
    """Parse, load, call; returns the exit code."""
    signal.signal(signal.SIGTERM, _terminate)
    sharding.use_all_cores()
    try:
        return terminal.exit_code(run, arguments)
    except Terminated:
        return TERMINATED


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated


def run(arguments: list[str], console: Console) -> int:
    """Everything between the command line and the exit code."""
    command = terminal.read_command(arguments, description=__doc__)
    if command is None:
        return 0
    config, options = command.config, command.options
    name = options.config if options.config == "demo" else _name(config)
    folder = workdir.prepare(Path(options.workdir or f"runs/{name}"))
    dataset = terminal.load(command, console)
    runs: dict[str, Run] = {}
    if options.config == "demo":
        baselines: dict[str, dict[str, Any]] = {}
        for mode in dict.fromkeys(["vanilla", config.fairness]):
            # What a mode decides, such as its distance, is decided for each.
            chosen = configuration.from_arguments(
                command.fields, [*command.rest, f"--fairness={mode}"]
            )
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
