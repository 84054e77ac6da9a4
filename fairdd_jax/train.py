"""Training a network on a set of images that is in memory: synthetic, real, warm-up or test bed.

Everything is a function of the step number, so that any stretch of steps is one compiled call
and a training that is cut in pieces equals one that is not.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from fairdd_jax import augment, models
from fairdd_jax.chunks import map_over_chunks, sum_over_chunks
from fairdd_jax.data.normalise import normalise
from fairdd_jax.environment import on_cpu
from fairdd_jax.sharding import AXES, own_part

PyTree = Any


class TrainState(NamedTuple):
    """A network in training."""

    variables: PyTree
    """Collections ``params`` and, with batch norm, ``batch_stats``."""
    opt_state: optax.OptState


class StepMetrics(NamedTuple):
    """Means over one batch, before its update."""

    loss: jax.Array
    accuracy: jax.Array


class Targets(NamedTuple):
    """What the images of a batch are trained towards."""

    labels: jax.Array
    others: jax.Array
    """Labels of the images that CutMix shows in them."""
    own: jax.Array
    """Share of the area that is not mixed."""
    weights: jax.Array
    """Of every image in the loss."""


class Batch(NamedTuple):
    """The images of one step."""

    rows: jax.Array
    """``[B]``, places in the batch."""
    indices: jax.Array
    """``[B]``, positions in the set."""
    weights: jax.Array
    """``[B]``, which average the batch; 0 where it is filled up."""


def labelled(images: jax.Array | np.ndarray) -> tuple[jax.Array, jax.Array]:
    """Images ``[C, I, ...]``, I of each class, as a training set: ``[C I, ...]`` and their labels.

    >>> labelled(jnp.zeros((2, 3, 8, 8, 1)))[1]
    Array([0, 0, 0, 1, 1, 1], dtype=int32)
    """
    C, ipc = images.shape[:2]
    return jnp.asarray(images).reshape(-1, *images.shape[2:]), jnp.repeat(jnp.arange(C), ipc)


@optax.inject_hyperparams
def sgd(learning_rate: float, momentum: float, weight_decay: float) -> optax.GradientTransformation:
    """PyTorch's SGD: decay added to the gradient, m = momentum m + g, p -= rate m.

    The numbers live in the state, so that another rate or a fresh momentum compiles nothing.
    """
    return optax.chain(
        optax.add_decayed_weights(weight_decay),
        optax.sgd(learning_rate, momentum),
    )


@dataclass(frozen=True)
class Trainer:
    """How a network is trained.

    Attributes:
      network: a module of `fairdd_jax.models`, or one with the same call.
      mean: normalisation of uint8 images.
      std: normalisation of uint8 images.
      batch_size: images per step; every epoch shuffles, and its last batch may be smaller.
      strategy: augmentation, one draw per batch with parameters for every image; or "none".
      cutmix: probability that a batch is mixed by CutMix.
      chunk: images that pass through the network at once.
      dtype: type of the arithmetic in the network, see `fairdd_jax.models.apply`.
      num_devices: devices of the mesh that share every batch.
      axes: of the mesh, along which they lie.
      image_shape: of images that are given flat, ``[N, H * W * C]``.
    """

    network: nn.Module
    mean: Sequence[float]
    std: Sequence[float]
    batch_size: int = 256
    strategy: str = augment.NONE
    cutmix: float = 0.0
    chunk: int = 1024
    dtype: str = "float32"
    num_devices: int = 1
    axes: str | tuple[str, ...] = AXES
    image_shape: tuple[int, ...] | None = None

    def init(self, key: jax.Array, image_shape: tuple[int, ...]) -> PyTree:
        """Fresh variables of the network."""
        return self.network.init(key, jnp.zeros((1, *image_shape)))

    def start(
        self, variables: PyTree, *, lr: float, momentum: float = 0.0, weight_decay: float = 0.0
    ) -> TrainState:
        """Begin (or begin again, momentum at zero) with a learning rate."""
        optimizer = sgd(learning_rate=lr, momentum=momentum, weight_decay=weight_decay)
        return TrainState(variables, optimizer.init(variables["params"]))

    def steps_per_epoch(self, num_images: int) -> int:
        """Optimiser steps that see every image once."""
        return -(-num_images // self.batch_size)

    def run(
        self,
        state: TrainState,
        images: jax.Array,
        labels: jax.Array,
        key: jax.Array,
        first: jax.Array | int,
        last: jax.Array | int,
        importance: jax.Array | None = None,
    ) -> TrainState:
        """Take the steps ``first`` to ``last - 1``; both may be traced."""
        body = lambda step, s: self.step(s, images, labels, key, step, importance)[0]  # noqa: E731
        return jax.lax.fori_loop(first, last, body, state)

    def step(
        self,
        state: TrainState,
        images: jax.Array,
        labels: jax.Array,
        key: jax.Array,
        step: jax.Array | int,
        importance: jax.Array | None = None,
    ) -> tuple[TrainState, StepMetrics]:
        """Take one step on the batch that belongs to its number.

        Args:
          state: network and optimiser.
          images: ``[N, H, W, C]``, uint8 or normalised; or flat, see `image_shape`.
          labels: ``[N]`` integers.
          key: random key of the whole training.
          step: number of the step, from 0.
          importance: ``[N]``, what the loss of every image is multiplied by; 1 if None.
        """
        num_devices = self._sharing(state.variables)
        shuffle_key, augment_key = jax.random.split(key)
        whole = self._batch(images.shape[0], shuffle_key, step, num_devices)
        step_key = jax.random.fold_in(augment_key, step)
        rows, indices, weights = (own_part(x, num_devices, self.axes) for x in whole)
        if importance is not None:
            weights = weights * importance[indices]

        inputs = partial(self._inputs, images, step_key)
        x, own, partner = inputs(rows, indices), jnp.ones(()), indices
        if self.cutmix > 0:
            box_key, partner_key = jax.random.split(jax.random.fold_in(step_key, self.batch_size))
            box = augment.sample_box(box_key, x.shape, probability=self.cutmix)
            # The images of the batch in another order, padding last.
            padding = (whole.weights == 0).astype(jnp.float32)
            order = jnp.argsort(jax.random.uniform(partner_key, padding.shape) + padding)
            place = order[rows]
            partner = whole.indices[place]
            x, own = augment.cutmix(box, x, inputs(whole.rows[place], partner))
        targets = Targets(labels[indices], labels[partner], own, weights)

        params = state.variables["params"]
        gradient, metrics, changed = self._gradient(state.variables, x, targets)
        if num_devices > 1:
            gradient, metrics = jax.lax.psum((gradient, metrics), self.axes)
        optimizer = sgd(learning_rate=0.0, momentum=0.0, weight_decay=0.0)  # numbers: in the state
        updates, opt_state = optimizer.update(gradient, state.opt_state, params)
        variables = {**state.variables, **changed, "params": optax.apply_updates(params, updates)}
        return TrainState(variables, opt_state), metrics

    def losses(
        self,
        variables: PyTree,
        images: jax.Array,
        labels: jax.Array,
        key: jax.Array,
        step: jax.Array | int,
    ) -> tuple[jax.Array, jax.Array]:
        """Cross-entropy of every image that `step` would train a network on, without CutMix.

        Args:
          variables: of the network, which normalises with the statistics of the batch.
          images: as in `step`, and so are the others.
          labels: ``[N]``
          key: of the whole training.
          step: its number.

        Returns:
          Positions in the set ``[B]``, N where the batch is filled up, and the losses ``[B]``; on
          every device those of the whole batch.
        """
        num_devices = self._sharing(variables)
        shuffle_key, augment_key = jax.random.split(key)
        whole = self._batch(images.shape[0], shuffle_key, step, num_devices)
        rows, indices, weights = (own_part(x, num_devices, self.axes) for x in whole)
        x = self._inputs(images, jax.random.fold_in(augment_key, step), rows, indices)

        def of_chunk(x: jax.Array, y: jax.Array, mask: jax.Array) -> jax.Array:
            outputs, _ = models.apply(
                self.network, variables, x, train=True, mask=mask, dtype=self.dtype
            )
            return optax.softmax_cross_entropy_with_integer_labels(outputs.logits, y)

        chunk = x.shape[0] if "batch_stats" in variables else self.chunk
        losses = map_over_chunks(of_chunk, x, labels[indices], weights, chunk=chunk)
        if num_devices > 1:
            losses = jax.lax.all_gather(losses, self.axes, tiled=True)
        return jnp.where(whole.weights > 0, whole.indices, images.shape[0]), losses

    def _sharing(self, variables: PyTree) -> int:
        """Devices that share a batch: batch statistics need the whole of it."""
        return 1 if "batch_stats" in variables else self.num_devices

    def _inputs(
        self, images: jax.Array, key: jax.Array, rows: jax.Array, indices: jax.Array
    ) -> jax.Array:
        """Some images, normalised and augmented as their places in the batch say."""
        pixels = images[indices].reshape(-1, *(self.image_shape or images.shape[1:]))
        x = normalise(pixels, mean=self.mean, std=self.std)
        return augment.augment_batch(key, x, strategy=self.strategy, rows=rows)

    def _gradient(
        self, variables: PyTree, images: jax.Array, targets: Targets
    ) -> tuple[PyTree, StepMetrics, PyTree]:
        """Gradient of the weighted loss, its metrics, and the collections that changed.

        Without batch statistics, the only thing that changes, the images are independent and pass
        in chunks that add up.
        """

        params = variables["params"]

        def loss_of(
            params: PyTree, x: jax.Array, y: jax.Array, other: jax.Array, w: jax.Array
        ) -> tuple[jax.Array, tuple[StepMetrics, PyTree]]:
            outputs, changed = models.apply(
                self.network,
                {**variables, "params": params},
                x,
                train=True,
                mask=w,
                dtype=self.dtype,
            )
            cross_entropy = optax.softmax_cross_entropy_with_integer_labels
            losses = cross_entropy(outputs.logits, y)
            if self.cutmix > 0:
                mixed = cross_entropy(outputs.logits, other)
                losses = targets.own * losses + (1.0 - targets.own) * mixed
            correct = (outputs.logits.argmax(-1) == y).astype(losses.dtype)
            loss = w @ losses
            return loss, (StepMetrics(loss, w @ correct), changed)

        def of_chunk(*chunk: jax.Array) -> tuple[PyTree, ...]:
            gradient, (metrics, changed) = jax.grad(loss_of, has_aux=True)(params, *chunk)
            return gradient, metrics, changed

        chunk = images.shape[0] if "batch_stats" in variables else self.chunk
        arrays = (images, targets.labels, targets.others, targets.weights)
        # What fills the last batch of an epoch up is left out. On accelerators, where chunks are
        # large, a condition would cost more than it saves.
        return sum_over_chunks(of_chunk, *arrays, chunk=chunk, skip_weightless=on_cpu())

    def _batch(
        self, num_images: int, key: jax.Array, step: jax.Array | int, num_devices: int
    ) -> Batch:
        """The batch of a step, filled up to a multiple of the devices."""
        size = min(self.batch_size, num_images)
        rows = jnp.arange(size + -size % num_devices)
        if num_images <= self.batch_size:
            position, order = rows, jnp.arange(num_images)
        else:
            epoch, batch = jnp.divmod(step, self.steps_per_epoch(num_images))
            position = batch * self.batch_size + rows
            order = jax.random.permutation(jax.random.fold_in(key, epoch), num_images)
        valid = (position < num_images) & (rows < size)
        share = valid.astype(jnp.float32)
        return Batch(rows, order[jnp.where(valid, position, 0)], share / share.sum())
