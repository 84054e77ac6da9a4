"""The short way in: distil a data set, score the result, save it. The runner is a shell on this."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fairdd_jax import config as configuration
from fairdd_jax import data, environment, models, presets, report, stream, workdir
from fairdd_jax.config import Config
from fairdd_jax.data import Dataset
from fairdd_jax.data.normalise import normalise, to_pixels
from fairdd_jax.distilled import DistilledSet
from fairdd_jax.errors import ConfigError, unknown_name
from fairdd_jax.evaluate import Evaluator, Schedule
from fairdd_jax.loop import Progress, initial_images, run_updates
from fairdd_jax.train import labelled

# Independent streams of randomness of one seed.
_INIT, _DISTILL, _EVALUATE, _RANDOM = range(4)


def distill(
    dataset: str | Dataset,
    *,
    ipc: int = 10,
    method: str = "dm",
    fairness: str = "fairdd",
    recipe: str | None = None,
    data_dir: str | Path | None = None,
    download: bool = False,
    cache_dir: str | Path | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    **settings: Any,
) -> "Run":
    """Condense a data set into a few synthetic images per class.

    Args:
      dataset: a name of `fairdd_jax.data.names`, or a `fairdd_jax.data.Dataset` of your own.
      ipc: synthetic images per class.
      method: ``dm``, ``dc`` or ``dsa``.
      fairness: ``vanilla``, ``fairdd``, ``fairdd_mean`` or ``cobra``.
      recipe: ``official`` or ``cobra`` takes every value of that program, sampling included.
      data_dir: where the files of a named data set are.
      download: whether they may be downloaded.
      cache_dir: where decoded images are kept, by default in the user's cache folder.
      on_progress: called at every line of the log.
      **settings: any other field of `fairdd_jax.config.Config`; nested ones with a dot, as in
        ``**{"evaluate.epochs": 300}``.

    Returns:
      The finished run, which evaluates and saves itself.

    Raises:
      ConfigError: a wrong name or value. DataError: missing or damaged data.
      NonFiniteLossError: the loss became NaN or infinite.

    >>> import numpy as np
    >>> from fairdd_jax.data import Dataset
    >>> rng = np.random.default_rng(0)
    >>> images = rng.integers(0, 256, (40, 8, 8, 3), np.uint8)
    >>> split = images, np.arange(40) % 2, np.arange(40) // 20
    >>> run = distill(Dataset.from_arrays(split, split), ipc=1, steps=1, model="ConvNetD1W8")
    >>> run.distilled().images.shape
    (2, 8, 8, 3)
    """
    name = dataset if isinstance(dataset, str) else dataset.name
    chosen = presets.compose_parts(method, recipe=recipe) | {
        "data.name": name,
        "ipc": ipc,
        "fairness": fairness,
        **settings,
    }
    config = configuration.make(chosen)
    if isinstance(dataset, str):
        dataset = data.load(config.data, data_dir=data_dir, download=download, cache_dir=cache_dir)
    run = Run(config, dataset)
    run.distill(on_progress)
    return run


class Run:
    """One distillation: its images, its scores and its files.

    Args:
      config: a resolved configuration.
      dataset: the data set that it speaks of.

    Attributes:
      images: ``[C, I, H, W, channels]``, the synthetic images now, normalised.
      step: iterations done.
      log: a line (a dict) per logged step.
      evaluations: scores of the synthetic images, as in results.json.
      evaluations_uint8: the same of the 8-bit images.
      baselines: scores of real images by name.
    """

    def __init__(self, config: Config, dataset: Dataset):
        self.config = config
        self.dataset = dataset
        self.step = 0
        self.log: list[dict[str, Any]] = []
        self.evaluations: list[dict[str, Any]] = []
        self.evaluations_uint8: list[dict[str, Any]] = []
        self.baselines: dict[str, dict[str, Any]] = {}
        self.timing = {"compile_s": 0.0, "step_s": 0.0, "distill_s": 0.0, "evaluate_s": 0.0}
        if "full" in configuration.baselines(config.evaluate) and stream.is_large(dataset):
            raise ConfigError(
                f"the {len(dataset.train)} training images are too many to train the baseline full "
                "on; leave it out with --evaluate.baselines random"
            )
        self.images = initial_images(self._key(_INIT), dataset, ipc=config.ipc, init=config.init)
        self._evaluators: dict[str, Evaluator] = {}
        for arch in self._archs():
            self._evaluator(arch)  # a network that cannot take the images is an error now

    def _key(self, stream: int) -> jax.Array:
        return jax.random.fold_in(jax.random.key(self.config.seed), stream)

    def distill(self, on_progress: Callable[[Progress], None] = lambda progress: None) -> None:
        """Update the images ``steps`` times; after an error they are the last good ones.

        Raises:
          ConfigError: it has been done already.
          NonFiniteLossError: the loss or the images became NaN or infinite.
        """
        if self.log:
            raise ConfigError("this run has been distilled; make another Run to distil again")
        every = self.config.evaluate.every
        began = time.perf_counter() - self.timing["evaluate_s"]  # of scoring before
        lines = run_updates(self.config, self.dataset, key=self._key(_DISTILL), images=self.images)
        try:
            for progress in lines:
                self.images, self.step = progress.images, progress.step
                self.timing["compile_s"] = progress.compile_seconds
                self.log.append(progress.line())
                on_progress(progress)
                on_the_way = every and progress.update % (every * self.config.outer_loops) == 0
                if on_the_way and self.step < self.config.steps:
                    self.evaluate()
        finally:
            self.timing["distill_s"] = time.perf_counter() - began - self.timing["evaluate_s"]
            if self.log:
                self.timing["step_s"] = statistics.median(line["step_s"] for line in self.log)

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
        """
        config = self.config.evaluate
        networks = config.networks if networks is None else networks
        epochs = config.epochs if epochs is None else epochs
        if networks < 1 or epochs < 0:
            raise ConfigError(
                f"got {networks} networks and {epochs} epochs; choose 1 or more, 0 or more"
            )
        pixels = to_pixels(self.images, mean=self.dataset.mean, std=self.dataset.std)
        rounded = np.asarray(normalise(pixels, mean=self.dataset.mean, std=self.dataset.std))
        new = []
        for arch in self._archs(archs):
            for images, count, scores in (
                (self.images, networks, self.evaluations),
                (rounded, min(config.uint8_networks, networks), self.evaluations_uint8),
            ):
                if count:
                    schedule = self._schedule(images, epochs)
                    summary = self._score(arch, *labelled(images), schedule, count, on_steps)
                    scores.append({"step": self.step, **summary})
            new.append(self.evaluations[-1])
        return new

    def score_baseline(
        self, name: str, on_steps: Callable[[int], None] = lambda steps: None
    ) -> dict[str, Any]:
        """Score real images with the first evaluation network; `baselines` keeps it.

        Args:
          name: ``random``: real images of every class, as many as synthetic ones (or as the
            smallest class has), same schedule; ``full``: the whole training set, one network.
          on_steps: told how many optimiser steps were just taken.

        Raises:
          ConfigError: an unknown name.
        """
        config = self.config.evaluate
        arch = self._archs()[0]
        if name == "random":
            available = self.dataset.cell_counts(self.dataset.train).sum(1).min()
            ipc = min(self.config.ipc, int(available))  # less than asked only with init noise
            images = initial_images(self._key(_RANDOM), self.dataset, ipc=ipc, init="real")
            schedule = self._schedule(images, config.epochs)
            summary = self._score(arch, *labelled(images), schedule, config.networks, on_steps)
        elif name == "full":
            train = self.dataset.train
            schedule = self._full_schedule()
            summary = self._score(arch, train.images, train.labels, schedule, 1, on_steps)
        else:
            raise unknown_name("baseline", name, configuration.BASELINES)
        self.baselines[name] = summary
        return summary

    def scoring_steps(self, baselines: Sequence[str] = ()) -> int:
        """Optimiser steps that `evaluate` and those baselines will take, for a progress bar."""
        config = self.config.evaluate
        each = config.networks + min(config.uint8_networks, config.networks)
        networks = len(self._archs()) * each + config.networks * ("random" in baselines)
        steps = networks * self._schedule(self.images, config.epochs).total
        return steps + self._full_schedule().total * ("full" in baselines)

    def _archs(self, archs: str | None = None) -> tuple[str, ...]:
        return models.resolve_archs(archs or self.config.evaluate.archs, model=self.config.model)

    def _schedule(self, images: np.ndarray, epochs: int) -> Schedule:
        """That of a synthetic set ``[C, I, ...]``."""
        num_images = images.shape[0] * images.shape[1]
        return Schedule.of_synthetic(epochs, -(-num_images // self.config.evaluate.batch_size))

    def _full_schedule(self) -> Schedule:
        config = self.config.evaluate
        if config.full_steps == 0:
            return Schedule.of_full(self._schedule(self.images, config.epochs).total)
        per_epoch = -(-len(self.dataset.train) // config.batch_size)
        return Schedule.of_full(config.full_steps or config.full_epochs * per_epoch)

    def _score(
        self,
        arch: str,
        images: jax.Array | np.ndarray,
        labels: jax.Array | np.ndarray,
        schedule: Schedule,
        networks: int,
        on_steps: Callable[[int], None],
    ) -> dict[str, Any]:
        began = time.perf_counter()
        evaluation = self._evaluator(arch).evaluate(
            images,
            labels,
            schedule=schedule,
            networks=networks,
            key=self._key(_EVALUATE),
            on_steps=on_steps,
        )
        self.timing["evaluate_s"] += time.perf_counter() - began
        return evaluation.summary()

    def _evaluator(self, arch: str) -> Evaluator:
        if arch not in self._evaluators:
            self._evaluators[arch] = Evaluator(
                self.dataset,
                arch,
                self.config.evaluate,
                chunk=self.config.chunk,
                compute_dtype=self.config.compute_dtype,
            )
        return self._evaluators[arch]

    def distilled(self) -> DistilledSet:
        """The synthetic images as a set that needs nothing else."""
        return DistilledSet.of_classes(
            self.images,
            mean=self.dataset.mean,
            std=self.dataset.std,
            class_names=self.dataset.classes,
            meta={
                "config": dataclasses.asdict(self.config),
                "dataset": self.dataset.name,
                "step": self.step,
                "versions": environment.versions(),
                "evaluations": self.evaluations,
            },
        )

    def results(self) -> dict[str, Any]:
        """The content of results.json."""
        dataset = self.dataset
        return {
            "config": dataclasses.asdict(self.config),
            "dataset": {
                "name": dataset.name,
                "num_train": len(dataset.train),
                "num_test": len(dataset.test),
                "classes": list(dataset.classes),
                "groups": list(dataset.groups),
                "train_cell_counts": dataset.cell_counts(dataset.train).tolist(),
                "test_cell_counts": dataset.cell_counts(dataset.test).tolist(),
                "notes": list(dataset.notes),
            },
            "evaluations": self.evaluations,
            "evaluations_uint8": self.evaluations_uint8,
            "baselines": self.baselines,
            "timing": self.timing,
            "peak_memory_bytes": environment.peak_memory(),
            "environment": environment.describe(),
            "seed": self.config.seed,
        }

    def picture(self) -> bytes:
        """The synthetic images as a PNG, a class per row."""
        pixels = to_pixels(self.images, mean=self.dataset.mean, std=self.dataset.std)
        return report.png_bytes(report.grid(pixels))

    def save_config(self, folder: str | Path) -> None:
        """Write config.json alone, before anything is computed.

        Raises:
          WorkdirError: it cannot be written.
        """
        workdir.write_json(Path(folder) / "config.json", dataclasses.asdict(self.config))

    def save(self, folder: str | Path) -> None:
        """Write config.json, results.json, distilled.npz and images/ to a folder.

        Raises:
          WorkdirError: it cannot be written.
        """
        folder = workdir.prepare(Path(folder))
        self.save_config(folder)
        self.distilled().save(folder / "distilled.npz")
        workdir.write_atomically(folder / "images" / f"step_{self.step:06d}.png", self.picture())
        workdir.write_json(folder / "results.json", self.results())
