"""A run as the program does it: bars, log and checkpoints, and what is saved when it is stopped."""

import contextlib
from argparse import Namespace
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from fairdd_jax import config as configuration
from fairdd_jax import console as terminal
from fairdd_jax import hosts, outputs, watch, workdir
from fairdd_jax.config import Config
from fairdd_jax.data import Dataset
from fairdd_jax.errors import NonFiniteLossError
from fairdd_jax.interrupts import Terminated
from fairdd_jax.loop import Progress
from fairdd_jax.resume import Keeper, saved_results, take_scores
from fairdd_jax.run import Run


def distil_and_score(
    config: Config,
    dataset: Dataset,
    folder: Path,
    *,
    baselines: Mapping[str, dict[str, Any]] | None = None,
    console: Console,
    options: Namespace,
) -> Run:
    """One run with all its files; interrupted or failed, it saves what it has.

    Args:
      config: a resolved configuration.
      dataset: its data set.
      folder: the output folder, which `fairdd_jax.resume.refuse_overwriting` has looked at.
      baselines: scores that another run has already, which are taken over.
      console: where bars and notes are shown.
      options: of the command line, see `fairdd_jax.command_line`.

    Raises:
      FairDDError: see `fairdd_jax.run.Run`. KeyboardInterrupt, Terminated: after saving.
    """
    this = Run(config, dataset)
    workdir.prepare(folder)
    title = f"{config.data.name} {config.method} {config.fairness}"
    try:
        _distil(this, folder, console, options, f"distil {title}")
        outputs.save_state(this, folder)
        this.baselines |= baselines or {}
        names = [n for n in configuration.baselines(config.evaluate) if n not in this.baselines]
        total = this.scoring.steps(names)
        with terminal.progress_bar(console, f"score {title}", total, "steps") as advance:
            # Each is saved before the next, which may not fit in the memory.
            this.evaluate_rest(advance, on_scored=partial(outputs.save_state, this, folder))
            for name in names:
                this.score_baseline(name, on_steps=advance)
                outputs.save_state(this, folder)
    except (KeyboardInterrupt, Terminated, NonFiniteLossError):
        if this.begun:
            outputs.save_state(this, folder)
        raise
    this.save(folder)
    return this


def _distil(this: Run, folder: Path, console: Console, options: Namespace, title: str) -> None:
    """Distil with a bar, a log and checkpoints."""
    log = folder / "metrics.jsonl"
    saved = saved_results(folder) if options.resume == "auto" else {}
    hosts.any_of(False)  # all have read before the first writes

    def on_note(note: str) -> None:
        terminal.say(console, f"note: {note}")

    with (
        contextlib.ExitStack() as stack,
        terminal.progress_bar(console, title, this.config.updates, "updates") as advance,
        Keeper(
            folder,
            this.config,
            resume=options.resume == "auto",
            every=options.checkpoint_every,
            keep=options.checkpoints,
            on_note=on_note,
        ) as keeper,
    ):
        watchers = [
            stack.enter_context(watcher(folder))
            for watcher, wanted in (
                (watch.tensorboard, options.tensorboard),
                (watch.profile, options.profile),
            )
            if wanted
        ]
        done = 0

        def on_start(lines: list[dict[str, Any]]) -> None:
            nonlocal done
            take_scores(this, saved)
            # Not before: until here a wrong option leaves what an earlier run has written.
            if options.resume != "auto":
                for name in outputs.OF_THE_WHOLE:
                    workdir.remove(folder / name)
            outputs.save_config(this, folder)
            workdir.write_lines(log, lines)
            if lines:
                done = lines[-1]["update"]
                advance(done)

        def on_progress(line: Progress) -> None:
            nonlocal done
            workdir.append_line(log, line.line())
            advance(line.update - done, terminal.detail(line))
            done = line.update
            for watcher in watchers:
                watcher(line)

        this.distill(on_progress, keeper=keeper, on_start=on_start)
