"""The step: everything between two states of the synthetic images, as one compiled function."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

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
from fairdd_jax.sharding import AXIS, REPLICATED, SPLIT, mesh_for, own_part, place, spread
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

    images: jax.Array | np.ndarray
    """``[N, H * W * channels]`` uint8. Flat, because a TPU pads the last axes of an array.

    Of a streamed training set those that a block of updates needs, ``[length, M, ...]``.
    """
    cells: GroupIndex


def training_set(dataset: Dataset, mesh: Mesh) -> TrainingSet:
    """Put the real images on every device and sort them by (class, group)."""
    images = dataset.train.images
    return place(TrainingSet(images.reshape(len(images), -1), cells(dataset)), mesh)


def cells(dataset: Dataset) -> GroupIndex:
    """The training images by (class, group)."""
    return group_index(
        dataset.train.labels,
        dataset.train.groups,
        num_classes=dataset.num_classes,
        num_groups=dataset.num_groups,
    )


class Step:
    """The update of one configuration: batch, signals, centres, loss, gradient, optimiser.

    Args:
      config: a resolved configuration.
      dataset: its data set.
      streamed: the real images come with every call, as `positions` says which, and are not all
        on the device.
    """

    def __init__(self, config: Config, dataset: Dataset, *, streamed: bool = False):
        self.config = config
        self.streamed = streamed
        self.method = method_named(config.method)
        self.mesh = mesh_for(dataset.num_classes)
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
            dtype=config.compute_dtype,
            num_devices=self.mesh.size,
        )
        self.sampler: Sampler = (
            Stratified(config.per_cell, dataset.num_groups)
            if config.sampling == "stratified"
            else Proportional(config.batch_real, dataset.num_groups)
        )
        self.optimizer = optax.sgd(config.lr_img, config.momentum_img)
        self.dataset = dataset
        shapes = jax.eval_shape(lambda: self.trainer.init(jax.random.key(0), dataset.image_shape))
        self._needs_statistics = self.method.frozen_statistics and "batch_stats" in shapes
        self.run_block = jax.jit(self._run_block, static_argnames="length", donate_argnums=0)

    def init(self, key: jax.Array, images: np.ndarray | jax.Array) -> State:
        """The state before the first update."""
        variables = self.trainer.init(key, self.dataset.image_shape)
        start = jnp.array(images)  # a copy: the state is donated
        state = State(start, self.optimizer.init(start), variables, jnp.zeros((), jnp.int32))
        return place(state, self.mesh, self._specs(state))

    def _specs(self, state: State) -> PyTree:
        """Classes are split over the devices, the network is on all of them."""
        of_optimizer = jax.tree.map(lambda x: SPLIT if x.ndim else REPLICATED, state.opt_state)
        of_network = jax.tree.map(lambda x: REPLICATED, state.variables)
        specs: tuple[Any, ...] = (SPLIT, of_optimizer, of_network, REPLICATED)
        return State(*specs)

    def update(self, state: State, data: TrainingSet, key: jax.Array) -> tuple[State, jax.Array]:
        """One matching update of all synthetic images, and its loss summed over the classes.

        Runs on every device of the mesh, for the classes that it has. Everything random follows
        from the key and the number of the update.
        """
        keys = self._keys(key, state.update)
        variables = self._network(state, keys[0], keys[1])
        batch, *others = self._draw(data.cells, keys)
        if self._needs_statistics:
            variables = self._with_statistics(variables, data, others[0])
        classes = jnp.arange(self.dataset.num_classes)
        class_keys = jax.random.split(keys[4], self.dataset.num_classes)
        own = jax.tree.map(
            lambda x: own_part(x, self.mesh.size),
            (batch, classes, class_keys),
        )
        losses, gradient = self._match(state.images, variables, data, *own)
        updates, opt_state = self.optimizer.update(gradient, state.opt_state)
        images = optax.apply_updates(state.images, updates)
        state = State(images, opt_state, variables, state.update + 1)
        return state, jax.lax.psum(losses.sum(), AXIS)

    def positions(self, cells: GroupIndex, key: jax.Array, update: jax.Array) -> jax.Array:
        """The training images that an update draws, ``[M]``: what it needs of a streamed set."""
        batches = self._drawn(cells, self._keys(key, update))
        return jnp.concatenate([batch.indices.reshape(-1) for batch in batches])

    def _keys(self, key: jax.Array, update: jax.Array) -> jax.Array:
        return jax.random.split(jax.random.fold_in(key, update), 5)

    def _drawn(self, cells: GroupIndex, keys: jax.Array) -> list[RealBatch]:
        """The real images to match, and those that set the batch statistics if there are any."""
        batches = [self.sampler.draw(keys[3], cells)]
        if self._needs_statistics:
            batches.append(proportional_batch(keys[2], cells, batch_real=_STATISTICS_BATCH))
        return batches

    def _draw(self, cells: GroupIndex, keys: jax.Array) -> list[RealBatch]:
        """The same, numbered as the images of `TrainingSet` are."""
        batches = self._drawn(cells, keys)
        if not self.streamed:
            return batches
        numbered, start = [], 0
        for batch in batches:
            stop = start + batch.indices.size
            numbers = jnp.arange(start, stop, dtype=jnp.int32).reshape(batch.indices.shape)
            numbered.append(batch._replace(indices=numbers))
            start = stop
        return numbered

    def _run_block(
        self, state: State, data: TrainingSet, key: jax.Array, *, length: int
    ) -> tuple[State, jax.Array]:
        """That many updates in one call, and the sum of their losses."""

        def on_device(state: State, data: TrainingSet, key: jax.Array) -> tuple[State, jax.Array]:
            def update(state: State, images: Any) -> tuple[State, jax.Array]:
                now = data if images is None else data._replace(images=images)
                return self.update(state, now, key)

            streamed = data.images if self.streamed else None
            state, losses = jax.lax.scan(update, state, streamed, length=length)
            return state, losses.sum()

        specs = self._specs(state)
        return spread(on_device, self.mesh, (specs, REPLICATED, REPLICATED), (specs, REPLICATED))(
            state, data, key
        )

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
        images, labels = labelled(jax.lax.all_gather(state.images, AXIS, tiled=True))
        steps = epochs * self.trainer.steps_per_epoch(images.shape[0])
        start = self.trainer.start(variables, lr=config.lr_net)
        return self.trainer.run(start, images, labels, train_key, 0, steps).variables

    def _with_statistics(self, variables: PyTree, data: TrainingSet, batch: RealBatch) -> PyTree:
        images = self._normalise(self._pixels(data, batch.indices.reshape(-1)))
        mask = batch.weights.any(1).reshape(-1)
        _, changed = models.run(
            self.network, variables, images, train=True, mask=mask, dtype=self.config.compute_dtype
        )
        return {**variables, **changed}

    def _pixels(self, data: TrainingSet, indices: jax.Array) -> jax.Array:
        return data.images[indices].reshape(-1, *self.dataset.image_shape)

    def _normalise(self, images: jax.Array) -> jax.Array:
        return normalise(images, mean=self.dataset.mean, std=self.dataset.std)

    def _forward(self, variables: PyTree) -> Forward:
        def forward(
            params: PyTree, images: jax.Array, mask: jax.Array | None = None
        ) -> models.Outputs:
            outputs, _ = models.run(
                self.network,
                {**variables, "params": params},
                images,
                train=not self.method.frozen_statistics,
                mask=mask,
                dtype=self.config.compute_dtype,
            )
            return outputs

        return forward

    def _match(
        self,
        synthetic: jax.Array,
        variables: PyTree,
        data: TrainingSet,
        batch: RealBatch,
        labels: jax.Array,
        keys: jax.Array,
    ) -> tuple[jax.Array, jax.Array]:
        """Loss of every class ``[C]`` and its gradient with respect to the synthetic images."""
        config, method = self.config, self.method
        forward = self._forward(variables)
        params = variables["params"]
        num_images = self.sampler.batch_size
        chunk = config.chunk
        if "batch_stats" in variables and not method.frozen_statistics:
            chunk = max(num_images, config.ipc)  # batch statistics need the whole batch
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
                self._pixels(data, drawn.indices),
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
                    method.synthetic_signal(forward, params, augmented(x), label, chunk),
                    shares=drawn.shares,
                    present=drawn.weights.any(1),
                    fairness=config.fairness,
                    distance=config.distance,
                )

            return jax.value_and_grad(loss)(images)

        C = synthetic.shape[0]
        classes = (synthetic, batch, labels, keys)
        # One class after the other keeps every branch a branch: under vmap all augmentations
        # would be computed and all but one thrown away.
        together = min(C, config.chunk // num_images)
        if together <= 1:
            return jax.lax.map(lambda xs: of_class(*xs), classes)
        return jax.lax.map(lambda xs: of_class(*xs), classes, batch_size=together)
