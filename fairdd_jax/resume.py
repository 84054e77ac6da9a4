"""What a run needs to go on after it was stopped, however: when it is kept, and when it fits.

And what keeps another run, stopped or finished, from being lost to one in the same folder.
"""

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fairdd_jax import environment, hosts, workdir
from fairdd_jax.checkpoint import Checkpoints, Record, steps_in
from fairdd_jax.config import Config
from fairdd_jax.data import Dataset
from fairdd_jax.errors import ConfigError, DataError, WorkdirError
from fairdd_jax.hosts import fetch
from fairdd_jax.loop import LoopState, Progress
from fairdd_jax.schema import SURROUNDINGS, completed, differences, flat

if TYPE_CHECKING:
    from fairdd_jax.run import Run

FOLDER = "checkpoints"
# Updates between two checkpoints, and how many of the last stay.
EVERY = 100
KEEP = 3
# A run goes on with other devices. But a line of the log is begun with its own length.
_MAY_DIFFER = SURROUNDINGS - {"log_every"}
_INSTEAD = "choose another --workdir, or --resume never to start over"
_GO_ON = "add --resume auto to go on, --resume never to start over, or choose another --workdir"


class Keeper:
    """Keeps the state of a run in checkpoints, and gives it back.

    A run that goes on from a checkpoint equals one that was never stopped, bit for bit on the same
    devices and versions; on other ones up to the rounding of sums.

    Args:
      folder: the output folder of the run.
      config: its configuration.
      resume: whether to go on from the newest checkpoint; else those that are there are removed
        once the run begins.
      every: updates between two checkpoints, which are made at the next line of the log.
      keep: checkpoints that stay: the last ones, and the one whose evaluation on the way showed
        the first architecture's highest accuracy in the worst (class, group) cell.
      on_note: told what a person should know, in one line.
    """

    def __init__(
        self,
        folder: str | Path,
        config: Config,
        *,
        resume: bool = True,
        every: int = EVERY,
        keep: int = KEEP,
        on_note: Callable[[str], None] = warnings.warn,
    ):
        self.folder = Path(folder) / FOLDER
        self.config = config
        self.every = every
        self._resume = resume
        self._keep = keep
        self._on_note = on_note
        self._checkpoints: Checkpoints | None = None  # the folder is left alone until `restore`
        self._last = 0
        self._best: dict[str, Any] = {}

    def restore(self, start: LoopState, run: "Run") -> LoopState | None:
        """The state to go on from, None to begin with the first; the run is as it was then.

        Called before anything is saved, when all that a run may be refused for has been looked at.

        Args:
          start: the state before the first update, for its shapes and devices.
          run: before its first update.

        Raises:
          ConfigError: the checkpoints are of another configuration, or of other data.
          WorkdirError: the folder cannot be written.
        """
        if not self._resume:
            _remove(self.folder)
        self._checkpoints = Checkpoints(self.folder, keep=self._keep)

        def check(record: Record) -> None:
            self._check(record, run)

        found = self._checkpoints.restore(
            start,
            check=check,
            on_damaged=self._note_damage,
            on_set_aside=lambda place: self._on_note(
                f"none of the checkpoints can be read: they are in {place} now, and the run begins "
                "anew"
            ),
        )
        if found is None:
            return None
        state, record = found
        self._last = int(state.state.update)
        self._best = record["best"]
        run.images = np.array(fetch(state.state.result)[: run.dataset.num_classes])
        run.step = self._last // run.config.outer_loops
        run.log = record["log"]
        run.evaluations = record["evaluations"]
        run.evaluations_uint8 = record["evaluations_uint8"]
        run.timing = record["timing"]
        run.peak_before = record.get("peak_memory_bytes", 0)  # older ones lack it
        return state

    def save(self, progress: Progress, run: "Run", *, now: bool = False) -> None:
        """Begin to write a checkpoint if one is due.

        Args:
          progress: with the state.
          run: as it is then. Of the scores of its evaluations on the way, the highest is kept.
          now: write it though none is due.

        Raises:
          WorkdirError: it, or the one before, cannot be written.
        """
        assert progress.state is not None
        assert self._checkpoints is not None
        update = progress.update
        # The first architecture's scores, as a report has them.
        scores = next((scores for scores in run.evaluations if scores["step"] == run.step), None)
        score = scores and scores["worst_group_accuracy"]["mean"]
        is_best = score is not None and score > self._best.get("score", -1.0)
        due = now or is_best or update // self.every > self._last // self.every
        if update == self._last or not (due or update == self.config.updates):
            return
        if is_best:
            self._best = {"update": update, "score": score}
        record = {
            "config": self.config.as_json(),
            "versions": environment.versions(),
            "best": self._best,
            "cells": _cells(run),
            "images": run.dataset.fingerprint,
            "log": run.log,
            "evaluations": run.evaluations,
            "evaluations_uint8": run.evaluations_uint8,
            "timing": run.timing,
            "peak_memory_bytes": run.peak_memory(),
        }
        self._checkpoints.save(update, progress.state, record, best=self._best.get("update"))
        self._last = update

    def close(self) -> None:
        """Wait until everything is written.

        Raises:
          WorkdirError: it cannot be.
        """
        if self._checkpoints is not None:
            self._checkpoints.close()

    def __enter__(self) -> "Keeper":
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self.close()

    def _check(self, record: Record, run: "Run") -> None:
        may_differ = _MAY_DIFFER | grown(record["config"], self.config)
        found = differences(record["config"], self.config, may_differ)
        if not found and record["cells"] != _cells(run):
            found = "other numbers of training images"
        images = run.dataset.fingerprint
        if not found and record.get("images", images) != images:  # older ones do not tell
            found = "other images"
        if found:
            raise ConfigError(
                f"the checkpoints in {self.folder} are of another run: {found}; {_INSTEAD}"
            )
        versions = environment.versions()
        if record["versions"] != versions:
            changed = [name for name in versions if record["versions"].get(name) != versions[name]]
            self._on_note(
                f"the checkpoints in {self.folder} are of other versions of {', '.join(changed)}: "
                "what follows may differ in rounding"
            )

    def _note_damage(self, update: int, reason: str) -> None:
        self._on_note(
            f"the checkpoint of update {update} in {self.folder} is damaged ({reason}); trying the "
            "one before"
        )


def grown(there: dict[str, Any], here: Config) -> frozenset[str]:
    """Fields in which a run may differ from another and still go on where that ends.

    Args:
      there: the configuration of the other, as a file has it.
      here: that of the run.

    Returns:
      ``steps`` if it has more of them, and a learning rate that does not follow from their number.
    """
    has_more = there.get("steps", here.steps) < here.steps
    return frozenset({"steps"} if has_more and not here.lr_img_halved else ())


def _cells(run: "Run") -> list[Any]:
    cells: list[Any] = run.matched.cell_counts(run.matched.train).tolist()
    return cells


def _remove(checkpoints: Path) -> None:
    if hosts.is_first() and checkpoints.exists():
        with workdir.explained(checkpoints):
            shutil.rmtree(checkpoints)
    hosts.any_of(False)  # none goes on before they are gone


def refuse_overwriting(folder: Path, config: Config, *, resume: bool = False) -> None:
    """See that a run loses nothing of one that is in its folder.

    Args:
      folder: the output folder.
      config: of the run that is to write to it.
      resume: whether it goes on from the checkpoints, of which `Keeper` sees that they are its own.

    Raises:
      WorkdirError: the folder has the results of a finished run with other settings, or checkpoints
        of one that is not to be gone on with, because it was stopped or had fewer steps.
    """
    with workdir.explained(folder):
        results, updates = saved_results(folder), steps_in(folder / FOLDER)
    if results.get("complete"):
        longer = grown(results["config"], config) if updates else frozenset()
        others = differences(results["config"], config, SURROUNDINGS | longer)
        if others or (longer and not resume):
            there = flat(results["config"])
            name = " ".join(str(there.get(part)) for part in ("data.name", "method", "fairness"))
            all_of_them = differences(results["config"], config, SURROUNDINGS)
            raise WorkdirError(
                f"{folder} holds a finished run, {name}, of other settings: {all_of_them}; "
                f"{_INSTEAD if others else _GO_ON}"
            )
    elif updates and not resume:
        raise WorkdirError(
            f"{folder} holds a run that was stopped after {max(updates)} updates; {_GO_ON}"
        )


def refuse_other_images(folder: Path, dataset: Dataset) -> None:
    """See that the results of a finished run in the folder are not of other images.

    Args:
      folder: the output folder, of which `refuse_overwriting` has seen the settings.
      dataset: that the run is to be of.

    Raises:
      WorkdirError: they are.
    """
    results = saved_results(folder)
    if results.get("complete") and not _same_images(results, dataset):
        raise WorkdirError(
            f"{folder} holds a finished run on other images than those of this {dataset.name}; "
            f"{_INSTEAD}"
        )


def _same_images(results: dict[str, Any], dataset: Dataset) -> bool:
    """Whether results are of these images, or, as older ones, do not say of which."""
    there = results.get("dataset", {}).get("fingerprint")
    return there is None or there == dataset.fingerprint


def saved_results(folder: Path) -> dict[str, Any]:
    """The content of results.json, empty if there is none or it is damaged."""
    try:
        results = workdir.read_json(folder / "results.json")
    except DataError:
        return {}
    return results if isinstance(results.get("config"), dict) else {}


def take_scores(run: "Run", results: dict[str, Any]) -> None:
    """Take over what results.json has of the scores of this very run, or of its first steps.

    Those of real images always, those of the synthetic ones if both are after the last step of what
    it tells of.

    Args:
      run: as it is before what is left of it.
      results: its content; of another run it is left aside.

    Raises:
      WorkdirError: they are of a finished run that was to go on, and of its checkpoints none can be
        read.
    """
    there = completed(results.get("config", {}))
    here = run.config.as_json()
    longer = grown(there, run.config)
    here |= {name: there[name] for name in longer}
    if there != here or not _same_images(results, run.dataset):
        return
    if results.get("complete") and longer and 0 == run.step < here["steps"]:
        raise WorkdirError(
            f"there is a finished run of {here['steps']} steps that cannot go on: it has no "
            f"checkpoint that can be read; {_INSTEAD}"
        )
    run.baselines = results["baselines"]
    if (results.get("step"), run.step) == (here["steps"],) * 2:
        run.evaluations = results["evaluations"]
        run.evaluations_uint8 = results["evaluations_uint8"]
        run.scoring.seconds += results["timing"]["evaluate_s"]
