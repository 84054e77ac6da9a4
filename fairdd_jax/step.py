"""The step: everything between two states of the synthetic images, as one compiled function."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fairdd_jax import augment, models
from fairdd_jax.config import Config
from fairdd_jax.data import Dataset
from fairdd_jax.data.normalise import normalise
from fairdd_jax.data.sampling import (
    GroupIndex,
    Proportional,
    RealBatch,
    Sampler,
    Stratified,
    group_index,
    proportional_batch,
)
from fairdd_jax.methods import method_named
from fairdd_jax.methods.method import Forward, Real
from fairdd_jax.train import Trainer, labelled

PyTree = Any

# Real images per class that set the batch statistics of a batch-norm network in gradient matching.
_STATISTICS_BATCH = 16


class State(NamedTuple):
    """What one update hands to the next."""

    images: jax.Array
    """``[C, I, H, W, channels]`` float32, normalised."""
    opt_state: optax.OptState
    variables: PyTree
    """The network of the current iteration."""
    update: jax.Array
    """Updates done so far."""


class TrainingSet(NamedTuple):
    """The real images on the device."""

    images: jax.Array
    """``[N, H, W, channels]`` uint8."""
    cells: GroupIndex


def training_set(dataset: Dataset) -> TrainingSet:
    """Put the real images on the device and sort them by (class, group)."""
    index = group_index(
        dataset.train.labels,
        dataset.train.groups,
        num_classes=dataset.num_classes,
        num_groups=dataset.num_groups,
    )
    return TrainingSet(jnp.asarray(dataset.train.images), index)


class Step:
    """The update of one configuration: batch, signals, centres, loss, gradient, optimiser.

    Args:
      config: a resolved configuration.
      dataset: its data set.
    """

    def __init__(self, config: Config, dataset: Dataset):
        self.config = config
        self.method = method_named(config.method)
        self.network = models.create(
            config.model, num_classes=dataset.num_classes, image_shape=dataset.image_shape
        )
        self.trainer = Trainer(
            self.network,
            dataset.mean,
            dataset.std,
            batch_size=config.batch_train,
            strategy=config.dsa_strategy,
            chunk=config.chunk,
        )
        self.sampler: Sampler = (
            Stratified(config.per_cell, dataset.num_groups)
            if config.sampling == "stratified"
            else Proportional(config.batch_real, dataset.num_groups)
        )
        self.optimizer = optax.sgd(config.lr_img, config.momentum_img)
        self.dataset = dataset
        self.run_block = jax.jit(self._run_block, donate_argnums=0)

    def init(self, key: jax.Array, images: np.ndarray) -> State:
        """The state before the first update."""
        variables = self.trainer.init(key, self.dataset.image_shape)
        start = jnp.array(images)  # a copy: the state is donated
        return State(start, self.optimizer.init(start), variables, jnp.zeros((), jnp.int32))

    def update(self, state: State, data: TrainingSet, key: jax.Array) -> tuple[State, jax.Array]:
        """One matching update of all synthetic images, and its loss summed over the classes.

        Everything random follows from the key and the number of the update.
        """
        keys = jax.random.split(jax.random.fold_in(key, state.update), 5)
        variables = self._network(state, keys[0], keys[1])
        if self.method.frozen_statistics and "batch_stats" in variables:
            variables = self._with_statistics(variables, data, keys[2])
        batch = self.sampler.draw(keys[3], data.cells)
        losses, gradient = self._match(state.images, variables, data, batch, keys[4])
        updates, opt_state = self.optimizer.update(gradient, state.opt_state)
        images = optax.apply_updates(state.images, updates)
        return State(images, opt_state, variables, state.update + 1), losses.sum()

    def _run_block(
        self, state: State, data: TrainingSet, key: jax.Array, num_updates: jax.Array
    ) -> tuple[State, jax.Array]:
        """Any number of updates in one call, and the sum of their losses."""

        def body(_: jax.Array, carry: tuple[State, jax.Array]) -> tuple[State, jax.Array]:
            state, total = carry
            state, loss = self.update(state, data, key)
            return state, total + loss

        return jax.lax.fori_loop(0, num_updates, body, (state, jnp.zeros(())))

    def _network(self, state: State, init_key: jax.Array, train_key: jax.Array) -> PyTree:
        """A fresh network at the start of an iteration, else the last one; then trained."""
        config = self.config
        variables = self.trainer.init(init_key, self.dataset.image_shape)
        epochs: jax.Array | int = config.warmup_epochs
        if config.outer_loops > 1:
            first = state.update % config.outer_loops == 0
            variables = jax.tree.map(partial(jnp.where, first), variables, state.variables)
            epochs = jnp.where(first, config.warmup_epochs, config.inner_epochs)
        elif config.warmup_epochs == 0:
            return variables
        images, labels = labelled(state.images)
        steps = epochs * self.trainer.steps_per_epoch(images.shape[0])
        start = self.trainer.start(variables, lr=config.lr_net)
        return self.trainer.run(start, images, labels, train_key, 0, steps).variables

    def _with_statistics(self, variables: PyTree, data: TrainingSet, key: jax.Array) -> PyTree:
        batch = proportional_batch(key, data.cells, batch_real=_STATISTICS_BATCH)
        images = self._normalise(data.images[batch.indices.reshape(-1)])
        mask = batch.weights.any(1).reshape(-1)
        _, changed = self.network.apply(
            variables, images, train=True, mask=mask, mutable=["batch_stats"]
        )
        return {**variables, **changed}

    def _normalise(self, images: jax.Array) -> jax.Array:
        return normalise(images, mean=self.dataset.mean, std=self.dataset.std)

    def _forward(self, variables: PyTree) -> Forward:
        def forward(
            params: PyTree, images: jax.Array, mask: jax.Array | None = None
        ) -> models.Outputs:
            outputs, _ = self.network.apply(
                {**variables, "params": params},
                images,
                train=not self.method.frozen_statistics,
                mask=mask,
                mutable=["batch_stats"],
            )
            return outputs

        return forward

    def _match(
        self,
        synthetic: jax.Array,
        variables: PyTree,
        data: TrainingSet,
        batch: RealBatch,
        key: jax.Array,
    ) -> tuple[jax.Array, jax.Array]:
        """Loss of every class ``[C]`` and its gradient with respect to the synthetic images."""
        config, method = self.config, self.method
        forward = self._forward(variables)
        params = variables["params"]
        num_images = self.sampler.batch_size
        chunk = config.chunk
        if "batch_stats" in variables and not method.frozen_statistics:
            chunk = num_images  # batch statistics need the whole batch
        # No larger than the average group, since every group's last block is padded.
        block = min(config.chunk, -(-num_images // self.dataset.num_groups))
        num_blocks = self.sampler.num_blocks(block)

        def of_class(
            images: jax.Array, drawn: RealBatch, label: jax.Array, class_key: jax.Array
        ) -> tuple[jax.Array, jax.Array]:
            parameters = augment.sample(
                class_key, self.dataset.image_shape, strategy=config.dsa_strategy
            )

            def augmented(x: jax.Array) -> jax.Array:
                return augment.apply(parameters, x, strategy=config.dsa_strategy)

            real = Real(
                data.images[drawn.indices],
                drawn.weights,
                lambda x: augmented(self._normalise(x)),
                chunk,
                block,
                num_blocks,
            )
            signals = method.group_signals(forward, params, real, label)

            def loss(x: jax.Array) -> jax.Array:
                return method.loss(
                    signals,
                    method.synthetic_signal(forward, params, augmented(x), label),
                    shares=drawn.shares,
                    present=drawn.weights.any(1),
                    fairness=config.fairness,
                    distance=config.distance,
                )

            return jax.value_and_grad(loss)(images)

        C = synthetic.shape[0]
        classes = (synthetic, batch, jnp.arange(C), jax.random.split(key, C))
        # One class after the other keeps every branch a branch: under vmap all augmentations
        # would be computed and all but one thrown away.
        together = min(C, config.chunk // num_images)
        if together <= 1:
            return jax.lax.map(lambda xs: of_class(*xs), classes)
        return jax.lax.map(lambda xs: of_class(*xs), classes, batch_size=together)
