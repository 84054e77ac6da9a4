"""Scoring a set of images: train fresh networks on it, test them on the whole test set."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec
from jax.stages import Compiled, Wrapped

from fairdd_jax import models
from fairdd_jax.config import EvaluateConfig
from fairdd_jax.data import Dataset, Split
from fairdd_jax.environment import on_cpu
from fairdd_jax.errors import NonFiniteLossError
from fairdd_jax.hosts import fetch
from fairdd_jax.metrics import FairnessReport, deo_floor, fairness_report
from fairdd_jax.schedule import Schedule
from fairdd_jax.sharding import DATA, NETWORK, REPLICATED, network_mesh, own_part, place, shard_map
from fairdd_jax.train import Trainer, TrainState

PyTree = Any

MOMENTUM = 0.9
WEIGHT_DECAY = 5e-4
_DROP = 0.1
# Optimiser steps of all networks per compiled call: short enough for a progress bar and an
# interrupt.
_STEPS_PER_CALL = {"cpu": 10, "accelerator": 1000}
_BLOCK_BYTES = 64 * 2**20  # of test images per compiled call


@dataclass(frozen=True)
class Evaluation:
    """Scores of several networks of one architecture, each trained afresh on the same images.

    Attributes:
      arch: name of the architecture.
      optimiser_steps: that each network took.
      reports: one per network.
      variables: of the first network.
    """

    arch: str
    optimiser_steps: int
    reports: tuple[FairnessReport, ...]
    variables: PyTree = None

    def summary(self) -> dict[str, Any]:
        """Mean, population standard deviation and value per network of every score: results.json.

        Fractions in [0, 1]; None where the test set has nothing to measure (no image in a cell, no
        class with two groups; of a data set with a single group, gaps are 0). The floors are what
        perfectly fair classifiers with the networks' accuracies would show by chance on this test
        set.
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
      config: optimiser, augmentation, and how empty cells count.
      chunk: images that pass through a network at once.
      compute_dtype: type of the arithmetic inside the networks.
    """

    def __init__(
        self,
        dataset: Dataset,
        arch: str,
        config: EvaluateConfig,
        *,
        chunk: int,
        compute_dtype: str = "float32",
    ):
        self.dataset = dataset
        self.arch = arch
        self.config = config
        self.mesh = network_mesh()
        self.network = models.create(
            arch, num_classes=dataset.num_classes, image_shape=dataset.image_shape
        )
        self.trainer = Trainer(
            self.network,
            dataset.mean,
            dataset.std,
            batch_size=config.batch_size,
            strategy=config.augment,
            cutmix=config.cutmix,
            chunk=chunk,
            dtype=compute_dtype,
            num_devices=self.mesh.shape[DATA],
            axes=DATA,
        )
        per_network = PartitionSpec(NETWORK)

        def of_networks(function: Callable[..., PyTree], *others: Any, **options: Any) -> Wrapped:
            specs = (per_network, *others)
            return jax.jit(shard_map(function, self.mesh, specs, per_network), **options)

        self._init = of_networks(
            jax.vmap(lambda key: self.trainer.init(key, self.dataset.image_shape))
        )
        self._start = of_networks(self._start_networks, REPLICATED)
        of_run = (REPLICATED, REPLICATED, per_network, REPLICATED, REPLICATED, REPLICATED)
        self._run = of_networks(self._run_networks, *of_run, donate_argnums=0)
        of_test, tested = (per_network, REPLICATED), PartitionSpec(NETWORK, DATA)
        self._predict = jax.jit(shard_map(self._predict_networks, self.mesh, of_test, tested))

    def evaluate(
        self,
        images: jax.Array | np.ndarray,
        labels: jax.Array | np.ndarray,
        *,
        schedule: Schedule,
        networks: int,
        key: jax.Array,
        importance: np.ndarray | None = None,
        on_steps: Callable[[int], None] = lambda steps: None,
        on_compiled: Callable[[Compiled], None] | None = None,
    ) -> Evaluation:
        """Train networks on images and test them.

        Args:
          images: ``[N, H, W, C]``, uint8 or normalised floats.
          labels: ``[N]`` integers.
          schedule: optimiser steps.
          networks: how many, all in one program.
          key: random key; network i depends on it and on i alone.
          importance: ``[N]``, what the loss of every image is multiplied by.
          on_steps: told how many optimiser steps were just taken, those of all networks added.
          on_compiled: told of the program that trains before it runs.

        Raises:
          NonFiniteLossError: a network diverged.
        """
        arrays = (jnp.asarray(images), jnp.asarray(labels, jnp.int32), importance)
        x, y, placed = place(arrays, self.mesh)
        # As many along the axis of networks as fit; those too many are left out of the scores.
        padded = networks + -networks % self.mesh.shape[NETWORK]
        keys = jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(padded))
        variables = self.train(
            x,
            y,
            schedule=schedule,
            keys=keys,
            importance=placed,
            on_steps=on_steps,
            on_compiled=on_compiled,
        )
        first = jax.tree.map(lambda stacked: fetch(stacked)[0], variables)
        return Evaluation(self.arch, schedule.total, self.test(variables, networks), first)

    def train(
        self,
        images: jax.Array,
        labels: jax.Array,
        *,
        schedule: Schedule,
        keys: jax.Array,
        importance: jax.Array | None = None,
        on_steps: Callable[[int], None] = lambda steps: None,
        on_compiled: Callable[[Compiled], None] | None = None,
    ) -> PyTree:
        """Variables of fresh networks, one per key, trained on images; leaves ``[K, ...]``.

        K must be a multiple of the devices along the mesh's axis of networks.
        """
        networks = keys.shape[0]
        init_keys, train_keys = place(
            tuple(jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)),
            self.mesh,
            PartitionSpec(NETWORK),
        )
        variables = self._init(init_keys)
        stride = self.steps_per_call(networks)
        if on_compiled is not None:
            state = self._start(variables, self.config.lr)
            arguments = (state, images, labels, train_keys, 0, stride, importance)
            on_compiled(self._run.lower(*arguments).compile())  # which is kept for the calls below
        for first, last, lr in (
            (0, schedule.before, self.config.lr),
            (schedule.before, schedule.total, self.config.lr * _DROP),
        ):
            state = self._start(variables, lr)
            for begin in range(first, last, stride):
                end = min(begin + stride, last)
                state = self._run(state, images, labels, train_keys, begin, end, importance)
                jax.block_until_ready(state)
                on_steps((end - begin) * networks)
            variables = state.variables
        return variables

    def steps_per_call(self, networks: int) -> int:
        """Optimiser steps that so many networks take in a compiled call."""
        of_device = -(-networks // self.mesh.shape[NETWORK])
        return max(1, _STEPS_PER_CALL["cpu" if on_cpu() else "accelerator"] // of_device)

    def _start_networks(self, variables: PyTree, lr: float) -> TrainState:
        start = partial(self.trainer.start, lr=lr, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
        return jax.vmap(start)(variables)

    def _run_networks(
        self,
        states: TrainState,
        images: jax.Array,
        labels: jax.Array,
        keys: jax.Array,
        first: jax.Array,
        last: jax.Array,
        importance: jax.Array | None,
    ) -> TrainState:
        def run(state: TrainState, key: jax.Array) -> TrainState:
            return self.trainer.run(state, images, labels, key, first, last, importance)

        return _each_network(run, states, keys)

    def predict(self, variables: PyTree, images: np.ndarray) -> np.ndarray:
        """Most likely class of every image for every network, ``[K, N]``.

        It is -1 where the logits are not finite, and no class is the likeliest.
        """
        devices = self.mesh.shape[DATA]
        chunk = min(self.trainer.chunk, -(-len(images) // devices))
        # A block at a time, since a memory map may be larger than the memory.
        stride = chunk * devices
        most = max(1, _BLOCK_BYTES // (stride * images[0].nbytes))
        size = stride * min(most, -(-len(images) // stride))
        parts = []
        for start in range(0, len(images), size):
            block = images[start : start + size]
            padded = np.pad(block, [(0, size - len(block))] + [(0, 0)] * 3)
            chunks = place(padded.reshape(-1, chunk, *images.shape[1:]), self.mesh)
            parts.append(fetch(self._predict(variables, chunks))[:, : len(block)])
        return np.concatenate(parts, axis=1)

    def _predict_networks(self, variables: PyTree, chunks: jax.Array) -> jax.Array:
        chunks = own_part(chunks, self.mesh.shape[DATA], DATA)

        def of_network(variables: PyTree) -> jax.Array:
            def of_chunk(pixels: jax.Array) -> jax.Array:
                x = self.dataset.normalise(pixels)
                outputs, _ = models.apply(
                    self.network, variables, x, train=False, dtype=self.trainer.dtype
                )
                is_known = jnp.isfinite(outputs.logits).all(-1)
                return jnp.where(is_known, outputs.logits.argmax(-1), -1)

            return jax.lax.map(of_chunk, chunks).reshape(-1)

        return _each_network(of_network, variables)

    def test(self, variables: PyTree, networks: int) -> tuple[FairnessReport, ...]:
        """Scores of the first networks on the test set.

        Raises:
          NonFiniteLossError: a network diverged. As it takes every image for the first class, it
            would look perfectly fair.
        """
        test: Split = self.dataset.test
        predicted = self.predict(variables, test.images)[:networks]
        if diverged := int((predicted < 0).any(-1).sum()):
            raise NonFiniteLossError(
                f"{diverged} of {len(predicted)} networks {self.arch} diverged while they were "
                "trained for their scores; let evaluate.py score the saved images with a smaller "
                f"--evaluate.lr than {self.config.lr}"
            )
        return tuple(
            fairness_report(
                predictions,
                test.labels,
                test.groups,
                num_classes=self.dataset.num_classes,
                num_groups=self.dataset.num_groups,
                empty=self.config.empty,
            )
            for predictions in predicted
        )


def _each_network(function: Callable[..., PyTree], *stacked: PyTree) -> PyTree:
    """The function of every network: all at once on accelerators.

    On CPU one after the other, because networks side by side make grouped convolutions, which are
    several times slower there.
    """
    if on_cpu():
        return jax.lax.map(lambda each: function(*each), stacked)
    return jax.vmap(function)(*stacked)
