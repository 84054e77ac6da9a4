"""Scoring a set of images: train fresh networks on it, test them on the whole test set."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fairdd_jax import models
from fairdd_jax.config import EvaluateConfig
from fairdd_jax.data import Dataset, Split
from fairdd_jax.data.normalise import normalise
from fairdd_jax.metrics import FairnessReport, deo_floor, fairness_report
from fairdd_jax.train import Trainer

PyTree = Any

MOMENTUM = 0.9
WEIGHT_DECAY = 5e-4
_DROP = 0.1
# Optimiser steps per compiled call: short enough for a progress bar and an interrupt.
_STEPS_PER_CALL = 10


@dataclass(frozen=True)
class Schedule:
    """Optimiser steps at the full learning rate, and then, momentum at zero, at a tenth of it."""

    before: int
    after: int

    @classmethod
    def of_synthetic(cls, epochs: int, steps_per_epoch: int) -> "Schedule":
        """Epochs 0 to ``epochs`` inclusive, dropping after epoch ``epochs // 2 + 1``: official."""
        before = min(epochs // 2 + 2, epochs + 1)
        return cls(before * steps_per_epoch, (epochs + 1 - before) * steps_per_epoch)

    @classmethod
    def of_full(cls, steps: int) -> "Schedule":
        """Dropping after half of the steps."""
        return cls(steps - steps // 2, steps // 2)

    @property
    def total(self) -> int:
        """All optimiser steps."""
        return self.before + self.after


@dataclass(frozen=True)
class Evaluation:
    """Scores of several networks of one architecture, each trained afresh on the same images.

    Attributes:
      arch: name of the architecture.
      optimiser_steps: that each network took.
      reports: one per network.
    """

    arch: str
    optimiser_steps: int
    reports: tuple[FairnessReport, ...]

    def summary(self) -> dict[str, Any]:
        """Mean, population standard deviation and value per network of every score: results.json.

        Fractions in [0, 1]; None where the test set has nothing to measure (no image in a cell, no
        class with two groups). The floors are what perfectly fair classifiers with the networks'
        accuracies would show by chance on this test set.
        """
        floors = [deo_floor(report, seed=0) for report in self.reports]
        floor_max, floor_mean = map(_known, np.mean(floors, axis=0))
        cells = np.stack([report.cell_accuracy for report in self.reports])
        return {
            "arch": self.arch,
            "num_networks": len(self.reports),
            "optimiser_steps": self.optimiser_steps,
            "accuracy": self._spread("accuracy"),
            "deo_max": self._spread("deo_max"),
            "deo_mean": self._spread("deo_mean"),
            "deo_max_floor": floor_max,
            "deo_mean_floor": floor_mean,
            "worst_group_accuracy": self._spread("worst_group_accuracy"),
            "sufficiency_max": self._spread("sufficiency_max"),
            "sufficiency_mean": self._spread("sufficiency_mean"),
            "cell_accuracy": [[_known(rate) for rate in row] for row in cells.mean(0)],
            "empty_cells": [list(cell) for cell in self.reports[0].empty_cells],
        }

    def _spread(self, score: str) -> dict[str, Any]:
        values = [float(getattr(report, score)) for report in self.reports]
        return {
            "mean": _known(np.mean(values)),
            "std": _known(np.std(values)),
            "values": [_known(value) for value in values],
        }


def _known(score: float | np.floating) -> float | None:
    """None in place of NaN, which JSON has not."""
    return None if np.isnan(score) else float(score)


class Evaluator:
    """Trains and tests networks of one architecture; compiled once for all sets of one size.

    Args:
      dataset: the test set, and the normalisation.
      arch: name of the architecture.
      config: schedule and optimiser.
      chunk: images that pass through the network at once.
    """

    def __init__(self, dataset: Dataset, arch: str, config: EvaluateConfig, *, chunk: int):
        self.dataset = dataset
        self.arch = arch
        self.config = config
        network = models.create(
            arch, num_classes=dataset.num_classes, image_shape=dataset.image_shape
        )
        self.trainer = Trainer(
            network, dataset.mean, dataset.std, config.batch_size, config.augment, chunk
        )
        self._run = jax.jit(self.trainer.run, donate_argnums=0)
        self._init = jax.jit(self.trainer.init, static_argnums=1)
        self._predict = jax.jit(partial(_predict, network, chunk, dataset.mean, dataset.std))

    def evaluate(
        self,
        images: jax.Array | np.ndarray,
        labels: jax.Array | np.ndarray,
        *,
        schedule: Schedule,
        networks: int,
        key: jax.Array,
        on_steps: Callable[[int], None] = lambda steps: None,
    ) -> Evaluation:
        """Train networks on images and test them.

        Args:
          images: ``[N, H, W, C]``, uint8 or normalised floats.
          labels: ``[N]`` integers.
          schedule: optimiser steps.
          networks: how many, one after the other.
          key: random key; network i depends on it and on i alone.
          on_steps: told how many optimiser steps were just taken.
        """
        x, y = jnp.asarray(images), jnp.asarray(labels, jnp.int32)
        reports = []
        for network_key in (jax.random.fold_in(key, i) for i in range(networks)):
            variables = self.train(x, y, schedule=schedule, key=network_key, on_steps=on_steps)
            reports.append(self.test(variables))
        return Evaluation(self.arch, schedule.total, tuple(reports))

    def train(
        self,
        images: jax.Array,
        labels: jax.Array,
        *,
        schedule: Schedule,
        key: jax.Array,
        on_steps: Callable[[int], None] = lambda steps: None,
    ) -> PyTree:
        """Variables of a fresh network trained on images."""
        init_key, train_key = jax.random.split(key)
        variables = self._init(init_key, self.dataset.image_shape)
        for first, last, lr in (
            (0, schedule.before, self.config.lr),
            (schedule.before, schedule.total, self.config.lr * _DROP),
        ):
            state = self.trainer.start(
                variables, lr=lr, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
            )
            for begin in range(first, last, _STEPS_PER_CALL):
                end = min(begin + _STEPS_PER_CALL, last)
                state = self._run(state, images, labels, train_key, begin, end)
                jax.block_until_ready(state)
                on_steps(end - begin)
            variables = state.variables
        return variables

    def predict(self, variables: PyTree, images: np.ndarray) -> np.ndarray:
        """Most likely class of every image, ``[N]``."""
        return np.asarray(self._predict(variables, jnp.asarray(images)))

    def test(self, variables: PyTree) -> FairnessReport:
        """Scores of a network on the test set."""
        test: Split = self.dataset.test
        return fairness_report(
            self.predict(variables, test.images),
            test.labels,
            test.groups,
            num_classes=self.dataset.num_classes,
            num_groups=self.dataset.num_groups,
            empty=self.config.empty,
        )


def _predict(
    network: Any,
    chunk: int,
    mean: Sequence[float],
    std: Sequence[float],
    variables: PyTree,
    images: jax.Array,
) -> jax.Array:
    def of_chunk(pixels: jax.Array) -> jax.Array:
        outputs = network.apply(variables, normalise(pixels, mean=mean, std=std), train=False)
        return outputs.logits.argmax(-1)

    padded = jnp.pad(images, ((0, -images.shape[0] % chunk), (0, 0), (0, 0), (0, 0)))
    chunks = padded.reshape(-1, chunk, *images.shape[1:])
    return jax.lax.map(of_chunk, chunks).reshape(-1)[: images.shape[0]]
