"""Scores of a run: which images, which networks, which schedule."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from fairdd_jax import config as configuration
from fairdd_jax import models, schedule, seeds, stream
from fairdd_jax.config import Config
from fairdd_jax.data import Dataset
from fairdd_jax.errors import ConfigError, unknown_name
from fairdd_jax.evaluate import Evaluation, Evaluator
from fairdd_jax.fairness import inverse_shares
from fairdd_jax.schedule import Schedule
from fairdd_jax.start import initial_images
from fairdd_jax.train import labelled

OnSteps = Callable[[int], None]


def _ignore(steps: int) -> None:
    """Nobody watches."""


class Scoring:
    """Trains fresh networks on images and tests them, as ``evaluate`` of a configuration says.

    Args:
      config: a resolved configuration.
      dataset: the data set that it speaks of.

    Attributes:
      seconds: time that scoring has taken.

    Raises:
      ConfigError: a network that cannot take the images, or too many images for a baseline.
    """

    def __init__(self, config: Config, dataset: Dataset):
        self.config = config
        self.dataset = dataset
        self.seconds = 0.0
        if "full" in configuration.baselines(config.evaluate) and stream.is_large(dataset):
            raise ConfigError(
                f"the {len(dataset.train)} training images are too many to train the baseline full "
                "on; leave it out with --evaluate.baselines random"
            )
        self._evaluators: dict[str, Evaluator] = {}
        for arch in self.archs():
            self._evaluator(arch)  # a network that cannot take the images is an error now

    def archs(self, archs: str | None = None) -> tuple[str, ...]:
        """The architectures to score with."""
        return models.resolve_archs(archs or self.config.evaluate.archs, model=self.config.model)

    def synthetic(
        self,
        arch: str,
        images: np.ndarray,
        groups: np.ndarray | None,
        *,
        networks: int,
        epochs: int,
        on_steps: OnSteps = _ignore,
    ) -> Evaluation:
        """Score images ``[C, I, H, W, channels]`` whose groups ``[C, I]`` are known, or None.

        Raises:
          NonFiniteLossError: a network diverged.
        """
        x, labels = labelled(images)
        return self.score(
            arch,
            x,
            labels,
            None if groups is None else groups.reshape(-1),
            networks=networks,
            epochs=epochs,
            on_steps=on_steps,
        )

    def score(
        self,
        arch: str,
        images: jax.Array | np.ndarray,
        labels: jax.Array | np.ndarray,
        groups: np.ndarray | None = None,
        *,
        networks: int,
        epochs: int,
        on_steps: OnSteps = _ignore,
    ) -> Evaluation:
        """Score normalised images ``[N, H, W, channels]`` with labels ``[N]``, groups if known.

        Raises:
          NonFiniteLossError: a network diverged.
        """
        of_set = schedule.synthetic_schedule(self.config, len(images), epochs)
        return self._score(arch, images, labels, groups, of_set, networks, on_steps)

    def baseline(self, name: str, on_steps: OnSteps = _ignore) -> dict[str, Any]:
        """Score real images with the first architecture.

        Args:
          name: ``random``: real images of every class, as many as synthetic ones (or as the
            smallest class has), same schedule; ``full``: the whole training set, one network.
          on_steps: told how many optimiser steps were just taken.

        Raises:
          ConfigError: an unknown name.
          NonFiniteLossError: a network diverged.
        """
        config = self.config.evaluate
        arch = self.archs()[0]
        if name == "random":
            ipc = schedule.random_ipc(self.config, self.dataset)
            key = seeds.key(self.config.seed, seeds.RANDOM)
            images, groups = initial_images(key, self.dataset, ipc=ipc, init="real")
            return self.synthetic(
                arch,
                images,
                groups,
                networks=config.networks,
                epochs=config.epochs,
                on_steps=on_steps,
            ).summary()
        if name == "full":
            train = self.dataset.train
            of_set = schedule.full_schedule(self.config, self.dataset)
            return self._score(
                arch, train.images, train.labels, train.groups, of_set, 1, on_steps
            ).summary()
        raise unknown_name("baseline", name, configuration.BASELINES)

    def steps(self, baselines: Sequence[str] = ()) -> int:
        """Optimiser steps that the synthetic images of a run and those baselines take."""
        todo = schedule.passes(self.config, self.dataset, baselines)
        return sum(each.networks * each.schedule.total for each in todo)

    def rounded(self, images: np.ndarray) -> np.ndarray:
        """The images as they are once they have been stored with 8 bits."""
        return np.asarray(self.dataset.normalise(self.dataset.to_pixels(images)))

    def _score(
        self,
        arch: str,
        images: jax.Array | np.ndarray,
        labels: jax.Array | np.ndarray,
        groups: np.ndarray | None,
        of_set: Schedule,
        networks: int,
        on_steps: OnSteps,
    ) -> Evaluation:
        importance = None
        if self.config.evaluate.weighting == "inverse_share":
            if groups is None:
                raise ConfigError(
                    "--evaluate.weighting inverse_share needs the groups of the synthetic images, "
                    "which a set read from a file has not; choose --evaluate.weighting none"
                )
            importance = inverse_shares(np.asarray(labels), groups)
        began = time.perf_counter()
        evaluation = self._evaluator(arch).evaluate(
            images,
            labels,
            schedule=of_set,
            networks=networks,
            key=seeds.key(self.config.seed, seeds.EVALUATE),
            importance=importance,
            on_steps=on_steps,
        )
        self.seconds += time.perf_counter() - began
        return evaluation

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
