"""The short way in: distil a data set, score the result, save it. The runner is a shell on this."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fairdd_jax import config as configuration
from fairdd_jax import data, environment, presets, report, workdir
from fairdd_jax.config import Config
from fairdd_jax.data import Dataset
from fairdd_jax.data.normalise import to_pixels
from fairdd_jax.distilled import DistilledSet
from fairdd_jax.errors import ConfigError
from fairdd_jax.grouping import GroupsConfig, random_features, regroup
from fairdd_jax.loop import Progress, run_updates
from fairdd_jax.matching import decoded
from fairdd_jax.scoring import Scoring
from fairdd_jax.start import initial_images

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
      method: ``dm``, ``dc``, ``dsa``, ``idc``, ``dream`` or ``cafe``.
      fairness: a name of `fairdd_jax.losses.FAIRNESS`, as ``vanilla``, ``fairdd`` or ``cobra``.
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
    chosen = presets.compose_parts(method, data=name, recipe=recipe) | {
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
      matched: the same images with the groups that the matching is told, see `config.groups`.
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
        self.timing = {"compile_s": 0.0, "step_s": 0.0, "distill_s": 0.0}
        self.matched = dataset
        if config.groups != GroupsConfig():
            features = random_features(dataset, config.model, seed=config.seed, chunk=config.chunk)
            self.matched = regroup(dataset, config.groups, features=features, seed=config.seed)
        self.images, self._groups = initial_images(
            self._key(_INIT), self.matched, ipc=config.ipc, init=config.init, factor=config.factor
        )
        self.scoring = Scoring(
            config, dataset, key=self._key(_EVALUATE), random_key=self._key(_RANDOM)
        )

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
        began = time.perf_counter() - self.scoring.seconds  # before
        lines = run_updates(self.config, self.matched, key=self._key(_DISTILL), images=self.images)
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
            self.timing["distill_s"] = time.perf_counter() - began - self.scoring.seconds
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
        images = self.decoded()
        new = []
        for arch in self.scoring.archs(archs):
            for kind, count, scores in (
                (images, networks, self.evaluations),
                (self.scoring.rounded(images), config.uint8_networks, self.evaluations_uint8),
            ):
                if count:
                    summary = self.scoring.synthetic(
                        arch,
                        kind,
                        self._groups,
                        networks=min(count, networks),
                        epochs=epochs,
                        on_steps=on_steps,
                    )
                    scores.append({"step": self.step, **summary})
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
        """
        self.baselines[name] = self.scoring.baseline(name, on_steps)
        return self.baselines[name]

    def scoring_steps(self, baselines: Sequence[str] = ()) -> int:
        """Optimiser steps that `evaluate` and those baselines will take, for a progress bar."""
        return self.scoring.steps(baselines)

    def decoded(self) -> np.ndarray:
        """The images that networks are trained on, ``[C, factor**2 I, H, W, channels]``."""
        if self.config.factor == 1:
            return self.images
        decode = jax.jit(jax.vmap(partial(decoded, self.config, self.dataset)))
        return np.asarray(decode(self.images))

    def distilled(self) -> DistilledSet:
        """The synthetic images as a set that needs nothing else."""
        return DistilledSet.of_classes(
            self.decoded(),
            mean=self.dataset.mean,
            std=self.dataset.std,
            class_names=self.dataset.classes,
            coded=self.images if self.config.factor > 1 else None,
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
            "matched": {
                "groups": list(self.matched.groups),
                "train_cell_counts": self.matched.cell_counts(self.matched.train).tolist(),
            },
            "evaluations": self.evaluations,
            "evaluations_uint8": self.evaluations_uint8,
            "baselines": self.baselines,
            "timing": {**self.timing, "evaluate_s": self.scoring.seconds},
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
