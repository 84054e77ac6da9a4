"""One run: its images, its scores and its files."""

import contextlib
import dataclasses
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from fairdd_jax import config as configuration
from fairdd_jax import environment, outputs, report, seeds
from fairdd_jax.config import Config
from fairdd_jax.data import Dataset
from fairdd_jax.distilled import DistilledSet
from fairdd_jax.errors import ConfigError, NonFiniteLossError
from fairdd_jax.formation import check_factor
from fairdd_jax.grouping import GroupsConfig, random_features, regroup
from fairdd_jax.interrupts import Hold, Terminated
from fairdd_jax.loop import LoopState, Progress, run_updates
from fairdd_jax.matching import decoded
from fairdd_jax.resume import Keeper
from fairdd_jax.scoring import Scoring
from fairdd_jax.start import initial_images

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Run:
    """One distillation: its images, its scores and its files.

    Args:
      config: a resolved configuration.
      dataset: the data set that it speaks of.

    Raises:
      ConfigError: settings that do not fit the images.

    Attributes:
      matched: the same images with the groups that the matching is told, see ``config.groups``.
      images: ``[C, I, H, W, channels]``, the synthetic images now, normalised.
      step: iterations done.
      log: a line (a dict) per logged step.
      evaluations: scores of the synthetic images, as in results.json.
      evaluations_uint8: the same of the 8-bit images.
      baselines: scores of real images by name.
      start: the images before the first update, uint8.
      trained: variables of a network that was trained on the images, by architecture.
      analysis: what only the real images can tell of the synthetic ones; made by `save`.
      peak_before: bytes that it had held before it was stopped.
      begun: whether it has anything of its own to save; an earlier run in its folder may have more.
    """

    def __init__(self, config: Config, dataset: Dataset):
        sides = dataset.image_shape[:2]
        check_factor(config.factor, *sides, interpolation=config.interpolation)
        self.config = config
        self.dataset = dataset
        self.step = 0
        self.log: list[dict[str, Any]] = []
        self.evaluations: list[dict[str, Any]] = []
        self.evaluations_uint8: list[dict[str, Any]] = []
        self.baselines: dict[str, dict[str, Any]] = {}
        self.timing = {"compile_s": 0.0, "step_s": 0.0, "distill_s": 0.0}
        self.matched = dataset
        if config.groups != GroupsConfig():
            features = random_features(dataset, config.model, seed=config.seed, chunk=config.chunk)
            self.matched = regroup(dataset, config.groups, features=features, seed=config.seed)
        self.images, self._groups = initial_images(
            seeds.key(config.seed, seeds.INIT),
            self.matched,
            ipc=config.ipc,
            init=config.init,
            factor=config.factor,
        )
        self.start = dataset.to_pixels(self.images)
        self.trained: dict[str, Any] = {}
        self.analysis: report.Analysis | None = None
        self.scoring = Scoring(config, dataset)
        self.peak_before = 0
        self.begun = False

    def peak_memory(self) -> int:
        """Bytes that the run has held at most, before it was stopped too."""
        return max(self.peak_before, environment.peak_memory())

    def distill(
        self,
        on_progress: Callable[[Progress], None] = lambda progress: None,
        *,
        keeper: Keeper | None = None,
        on_start: Callable[[list[dict[str, Any]]], None] = lambda lines: None,
    ) -> None:
        """Update the images ``steps`` times; after an error they are the last good ones.

        Args:
          on_progress: called at every line of the log.
          keeper: keeps checkpoints, and gives one back to go on from.
          on_start: called with the lines of the log that there are before the first update, when
            the run is as a checkpoint has it and nothing is left that could be refused.

        Raises:
          ConfigError: it has been begun already, or the checkpoints are of another run.
          NonFiniteLossError: the loss or the images became NaN or infinite.
          WorkdirError: a checkpoint cannot be written.
          fairdd_jax.interrupts.Terminated: SIGTERM, or a signal that the program's own handler took
            note of.
        """
        if self.begun or self.log:
            raise ConfigError("this run has been distilled; make another Run to distil again")
        before: dict[str, float] = {}
        began = 0.0
        hold = Hold()

        def restore(start: LoopState) -> LoopState | None:
            nonlocal began
            state = keeper.restore(start, self) if keeper else None
            before.update(self.timing, seconds=self.log[-1]["seconds"] if self.log else 0.0)
            on_start(self.log)
            self.begun = True
            if state is not None:
                self._evaluate_on_the_way(int(state.state.update))
            began = time.perf_counter() - self.scoring.seconds
            return state

        lines = run_updates(
            self.config,
            self.matched,
            key=seeds.key(self.config.seed, seeds.DISTILL),
            images=self.images,
            restore=restore,
            stopped=hold.stopped,
        )
        progress = None
        try:
            while True:
                with hold:
                    progress = None  # its state is gone
                    progress = next(lines, None)
                    if progress is None:  # the end, or a signal
                        hold.stopped()  # of one that came after the last update all must know
                        break
                    elapsed = time.perf_counter() - began - self.scoring.seconds
                    self.timing["distill_s"] = before["distill_s"] + elapsed
                    self._note(progress, on_progress, before)
                    if keeper and hold.stopped():
                        keeper.save(progress, self, now=True)
                self._evaluate_on_the_way(progress.update)
                if keeper:
                    with hold:
                        keeper.save(progress, self)
            if self.step < self.config.steps and hold.stopped():
                raise Terminated  # the program has a handler of its own, which raised nothing
        except (KeyboardInterrupt, Terminated):
            # Of several processes the others may be elsewhere, and all must take part.
            if keeper and progress and jax.process_count() == 1:
                keeper.save(progress, self, now=True)
            raise

    def _note(
        self,
        progress: Progress,
        on_progress: Callable[[Progress], None],
        before: dict[str, float],
    ) -> None:
        self.images, self.step = progress.images, progress.step
        self.timing["compile_s"] = before["compile_s"] + progress.compile_seconds
        if progress.is_line:
            seconds = before["seconds"] + progress.seconds
            progress = dataclasses.replace(progress, seconds=seconds)
            self.log.append(progress.line())
            self.timing["step_s"] = statistics.median(line["step_s"] for line in self.log)
            on_progress(progress)

    def _evaluate_on_the_way(self, update: int) -> None:
        """Evaluate if it is time and has not been done; a network that diverges has no score."""
        stride = self.config.evaluate.every * self.config.outer_loops
        due = stride and update and update % stride == 0 and update < self.config.updates
        if due:
            with contextlib.suppress(NonFiniteLossError):
                self.evaluate_rest()

    @property
    def complete(self) -> bool:
        """Whether everything that the configuration asks for has been done."""
        baselines = configuration.baselines(self.config.evaluate)
        is_distilled = self.step == self.config.steps
        return is_distilled and not self.unscored() and set(baselines) <= self.baselines.keys()

    def unscored(self) -> list[str]:
        """Architectures that the images as they are now have not been scored with."""
        kinds = [self.evaluations]
        if self.config.evaluate.uint8_networks:
            kinds.append(self.evaluations_uint8)
        done = [{s["arch"] for s in kind if s["step"] == self.step} for kind in kinds]
        return [arch for arch in self.scoring.archs(None) if not all(arch in d for d in done)]

    def evaluate_rest(
        self,
        on_steps: Callable[[int], None] = lambda steps: None,
        *,
        on_scored: Callable[[], None] = lambda: None,
    ) -> None:
        """Do what is left of `evaluate`, which may have ended after some scores.

        Args:
          on_steps: told how many optimiser steps were just taken.
          on_scored: called after every architecture.

        Raises:
          NonFiniteLossError: a network diverged.
        """
        for arch in self.unscored():
            for kind in (self.evaluations, self.evaluations_uint8):
                kind[:] = [s for s in kind if s["step"] < self.step or s["arch"] != arch]
            self.evaluate(arch, on_steps=on_steps)
            on_scored()

    def evaluate(
        self,
        archs: str | None = None,
        *,
        networks: int | None = None,
        epochs: int | None = None,
        on_steps: Callable[[int], None] = lambda steps: None,
    ) -> list[dict[str, Any]]:
        """Train fresh networks on the synthetic images and test them on the whole test set.

        Args:
          archs: as ``evaluate.archs``, which it defaults to.
          networks: as ``evaluate.networks``.
          epochs: as ``evaluate.epochs``.
          on_steps: told how many optimiser steps were just taken.

        Returns:
          The scores of every architecture, which `evaluations` keeps too.

        Raises:
          ConfigError: an unknown architecture, or a number out of range.
          NonFiniteLossError: a network diverged.
        """
        config = self.config.evaluate
        networks = config.networks if networks is None else networks
        epochs = config.epochs if epochs is None else epochs
        if networks < 1 or epochs < 0:
            raise ConfigError(
                f"got {networks} networks and {epochs} epochs; choose 1 or more, 0 or more"
            )
        images = self.decoded()
        new = []
        self.analysis = None
        for arch in self.scoring.archs(archs):
            for kind, count, scores in (
                (images, networks, self.evaluations),
                (self.scoring.rounded(images), config.uint8_networks, self.evaluations_uint8),
            ):
                if count:
                    evaluation = self.scoring.synthetic(
                        arch,
                        kind,
                        self._groups,
                        networks=min(count, networks),
                        epochs=epochs,
                        on_steps=on_steps,
                    )
                    scores.append({"step": self.step, **evaluation.summary()})
                    if kind is images:
                        self.trained[arch] = evaluation.variables
            new.append(self.evaluations[-1])
        return new

    def score_baseline(
        self, name: str, on_steps: Callable[[int], None] = lambda steps: None
    ) -> dict[str, Any]:
        """Score real images with the first evaluation network; `baselines` keeps it.

        Args:
          name: ``random`` or ``full``, see `fairdd_jax.scoring.Scoring.baseline`.
          on_steps: told how many optimiser steps were just taken.

        Raises:
          ConfigError: an unknown name.
          NonFiniteLossError: a network diverged.
        """
        self.baselines[name] = self.scoring.baseline(name, on_steps)
        return self.baselines[name]

    def decoded(self) -> np.ndarray:
        """The images that networks are trained on, ``[C, factor**2 I, H, W, channels]``."""
        if self.config.factor == 1:
            return self.images
        decode = jax.jit(jax.vmap(partial(decoded, self.config, self.dataset)))
        return np.asarray(decode(self.images))

    def distilled(self) -> DistilledSet:
        """The synthetic images as a set that needs nothing else."""
        return outputs.distilled(self)

    def results(self) -> dict[str, Any]:
        """The content of results.json."""
        return outputs.results(self)

    def record(self) -> report.Record:
        """The run as a report sees it."""
        return outputs.record(self)

    def plot(self) -> "Figure":
        """The synthetic images and the curve of the loss, as a figure of matplotlib."""
        return report.overview(self.record())

    def _repr_html_(self) -> str:
        """What a notebook shows: the verdict, the scores and the images."""
        return report.fragment(self.record())

    def save(self, folder: str | Path) -> None:
        """Write all files to a folder, see `fairdd_jax.outputs.save`.

        Raises:
          WorkdirError: it cannot be written.
        """
        outputs.save(self, Path(folder))
