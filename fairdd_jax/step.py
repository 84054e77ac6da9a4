"""The step: everything between two states of the synthetic images, as one compiled function."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fairdd_jax import models
from fairdd_jax.config import Config, halvings
from fairdd_jax.data import Dataset
from fairdd_jax.data.sampling import GroupIndex, RealBatch
from fairdd_jax.matched_network import MatchedNetwork, Network
from fairdd_jax.matching import ClassBatch, Matching
from fairdd_jax.methods import method_named
from fairdd_jax.sharding import (
    CLASS,
    DATA,
    REPLICATED,
    SPLIT,
    mesh_for,
    num_slots,
    own_part,
    place,
    shard_map,
)
from fairdd_jax.train import Trainer, labelled
from fairdd_jax.training_set import Draws, Positions, TrainingSet

PyTree = Any


class State(NamedTuple):
    """What one update hands to the next."""

    images: jax.Array
    """``[C, I, H, W, channels]`` float32, normalised."""
    opt_state: optax.OptState
    network: Network
    """The network of the current iteration."""
    update: jax.Array
    """Updates done so far."""
    average: jax.Array | None
    """Running mean of the images, if the configuration asks for one."""

    @property
    def result(self) -> jax.Array:
        """The images to show and to score."""
        return self.images if self.average is None else self.average


class UpdateKeys(NamedTuple):
    """Where the randomness of one update comes from."""

    init: jax.Array
    """Of a fresh network."""
    train: jax.Array
    """Of its training."""
    statistics: jax.Array
    """Of the real images that set its batch statistics."""
    real: jax.Array
    """Of the real images to match."""
    classes: jax.Array
    """Of what each class draws for itself."""


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
        self.method = method_named(config.method)
        self.network = models.create(
            config.model, num_classes=dataset.num_classes, image_shape=dataset.image_shape
        )
        has_statistics = "batch_stats" in models.shapes(self.network, dataset.image_shape)[1]
        # Statistics of the batch in hand need the whole of it.
        separable = self.method.frozen_statistics or not has_statistics
        self.mesh = mesh_for(dataset.num_classes, config.mesh, data=separable)
        self._slots = num_slots(dataset.num_classes, self.mesh)
        self.trainer = Trainer(
            self.network,
            dataset.mean,
            dataset.std,
            batch_size=config.batch_train,
            strategy=config.augment_net,
            cutmix=config.cutmix,
            chunk=config.chunk,
            dtype=config.compute_dtype,
            num_devices=self.mesh.size,
            image_shape=dataset.image_shape,
        )
        self.matched_network = MatchedNetwork(config, dataset, self.trainer, streamed=streamed)
        self.dataset = dataset
        self.draws = Draws(
            config,
            dataset.num_groups,
            statistics=self.method.frozen_statistics and has_statistics,
            streamed=streamed,
            num_slots=self._slots,
            num_parts=self.mesh.shape[DATA] if separable else 1,
        )
        self.matching = Matching(
            config,
            dataset,
            self.network,
            self.draws.sampler,
            num_parts=self.draws.num_parts,
        )
        self.optimizer = self._optimizer()
        self.run_block = jax.jit(self._run_block, static_argnames="length", donate_argnums=0)

    def init(self, key: jax.Array, images: np.ndarray | jax.Array) -> State:
        """The state before the first update."""
        network = self.matched_network.fresh(key)
        # A copy: the state is donated. What fills the devices up is zero and stays so.
        more = [(0, self._slots - images.shape[0])] + [(0, 0)] * (images.ndim - 1)
        start = jnp.array(jnp.pad(jnp.asarray(images), more))
        average = jnp.array(start) if self.config.average_img else None
        opt_state = self.optimizer.init(start)
        state = State(start, opt_state, network, jnp.zeros((), jnp.int32), average)
        return place(state, self.mesh, self._specs(state))

    def _specs(self, state: State) -> PyTree:
        """Classes are split over the devices, the network is on all of them."""
        of_optimizer = jax.tree.map(lambda x: SPLIT if x.ndim else REPLICATED, state.opt_state)
        of_network = jax.tree.map(lambda x: REPLICATED, state.network)
        of_average = jax.tree.map(lambda _: SPLIT, state.average)
        specs: tuple[Any, ...] = (SPLIT, of_optimizer, of_network, REPLICATED, of_average)
        return State(*specs)

    def update(self, state: State, data: TrainingSet, key: jax.Array) -> tuple[State, jax.Array]:
        """One matching update of all synthetic images, and its loss summed over the classes.

        Runs on every device of the mesh, for the classes that it has. Everything random follows
        from the key and the number of the update.
        """
        keys = self._keys(key, state.update)
        if self.config.space == "pixel":
            state = state._replace(images=self._clipped(state))
        network = self._network(state, data, keys)
        variables = network.variables
        others = self.draws.statistics(keys.statistics, data.cells)
        if others is not None:
            variables = self._with_statistics(variables, data, others)
        drawn = self.draws.matched(keys.real, data.cells)
        labels = jnp.arange(self.dataset.num_classes)
        class_keys = jax.random.split(keys.classes, self.dataset.num_classes)
        own = self._own_classes(ClassBatch(drawn, labels, class_keys))
        # All classes' at once: on TPU rows are picked out of copies of the whole training set.
        own = own._replace(images=self.draws.images(data, own.drawn))
        losses, gradient = self.matching(state.images, variables, own)
        updates, opt_state = self.optimizer.update(gradient, state.opt_state)
        images = optax.apply_updates(state.images, updates)
        average = state.average
        if average is not None:
            average = optax.incremental_update(images, average, 1.0 - self.config.average_img)
        state = State(images, opt_state, network, state.update + 1, average)
        return state, jax.lax.psum(losses.sum(), CLASS)

    def _own_classes(self, classes: ClassBatch) -> ClassBatch:
        """This device's part, filled up with the last class if that is less than another's."""
        slots, num_classes = jnp.arange(self._slots), self.dataset.num_classes
        if self._slots > num_classes:
            classes = jax.tree.map(lambda x: x[jnp.minimum(slots, num_classes - 1)], classes)
            classes = classes._replace(exists=slots < num_classes)
        own: ClassBatch = jax.tree.map(
            lambda x: own_part(x, self.mesh.shape[CLASS], CLASS), classes
        )
        return own

    def positions(self, cells: GroupIndex, key: jax.Array, update: jax.Array) -> Positions:
        """The training images that an update draws: what it needs of a streamed set."""
        keys = self._keys(key, update)
        return self.draws.positions(keys.real, keys.statistics, cells)

    def _keys(self, key: jax.Array, update: jax.Array) -> UpdateKeys:
        of_update = jax.random.fold_in(key, update)
        return UpdateKeys(*jax.random.split(of_update, len(UpdateKeys._fields)))

    def _run_block(
        self, state: State, data: TrainingSet, key: jax.Array, *, length: int
    ) -> tuple[State, jax.Array]:
        """That many updates in one call, and the sum of their losses."""

        def on_device(state: State, data: TrainingSet, key: jax.Array) -> tuple[State, jax.Array]:
            def update(state: State, images: Any) -> tuple[State, jax.Array]:
                return self.update(state, data._replace(**images), key)

            streamed = {"images": data.images, "statistics": data.statistics}
            of_updates = streamed if self.draws.streamed else {}
            state, losses = jax.lax.scan(update, state, of_updates, length=length)
            return state, losses.sum()

        specs = self._specs(state)
        of_data: Any = REPLICATED
        if self.draws.streamed:
            matched, statistics = self.draws.specs()
            parts: tuple[Any, ...] = (matched, REPLICATED, REPLICATED, statistics)
            of_data = TrainingSet(*parts)
        return shard_map(on_device, self.mesh, (specs, of_data, REPLICATED), (specs, REPLICATED))(
            state, data, key
        )

    def _network(self, state: State, data: TrainingSet, keys: UpdateKeys) -> Network:
        """A fresh network at the start of an iteration, else the last one; then trained."""
        network, first = self.matched_network.fresh(keys.init), None
        if self.config.outer_loops > 1:
            first = self._is_first(state)
            network = jax.tree.map(partial(jnp.where, first), network, state.network)

        def images(real: bool) -> tuple[jax.Array, jax.Array]:
            if real:
                return jnp.asarray(data.images), jnp.asarray(data.labels)
            everywhere = jax.lax.all_gather(state.images, CLASS, tiled=True)
            classes = everywhere[: self.dataset.num_classes]
            return labelled(jax.vmap(self.matching.decode)(classes))

        return self.matched_network.trained(network, images, keys.train, first=first)

    def upcoming(self, state: State, key: jax.Array) -> PyTree:
        """Variables of the network of the next update, before it is trained."""
        fresh = self.matched_network.fresh(self._keys(key, state.update).init)
        chosen = jax.tree.map(partial(jnp.where, self._is_first(state)), fresh, state.network)
        variables: PyTree = chosen.variables
        return variables

    def _is_first(self, state: State) -> jax.Array:
        """Whether an update is the first of an iteration."""
        return state.update % self.config.outer_loops == 0

    def _optimizer(self) -> optax.GradientTransformation:
        """SGD with momentum, its rate in units of the space of the images."""
        config = self.config
        ends = np.array([int(f * config.updates) for f in halvings(config)])

        def rate(update: jax.Array) -> jax.Array:
            return config.lr_img * 0.5 ** (update >= ends).sum().astype(jnp.float32)

        sgd = optax.sgd(rate if len(ends) else config.lr_img, config.momentum_img)
        if config.space == "normalised":
            return sgd
        # The gradient with respect to a pixel value is that of the normalised one divided by the
        # deviation; so is, in normalised units, a step.
        scale = 1.0 / jnp.square(jnp.asarray(self.dataset.std)).reshape(1, 1, 1, 1, -1)
        return optax.chain(optax.stateless(lambda g, _: g * scale), sgd)

    def _clipped(self, state: State) -> jax.Array:
        """Images that are pixels, at the start of an iteration."""
        channels = (1, 1, 1, 1, self.dataset.image_shape[-1])
        black, white = (
            self.dataset.normalise(jnp.full(channels, level, jnp.uint8)) for level in (0, 255)
        )
        clipped = jnp.clip(state.images, black, white)
        return jnp.where(self._is_first(state), clipped, state.images)

    def _with_statistics(self, variables: PyTree, data: TrainingSet, batch: RealBatch) -> PyTree:
        images = data.statistics
        if images is None:
            images = jnp.asarray(data.images)[batch.indices.reshape(-1)]
        pixels = jnp.asarray(images).reshape(-1, *self.dataset.image_shape)
        images = self.dataset.normalise(pixels)
        mask = batch.weights.any(1).reshape(-1)
        _, changed = models.apply(
            self.network, variables, images, train=True, mask=mask, dtype=self.config.compute_dtype
        )
        return {**variables, **changed}
