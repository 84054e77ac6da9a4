"""The matching loss of every class and its gradient with respect to the synthetic images."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fairdd_jax import augment, formation, models
from fairdd_jax.config import Config
from fairdd_jax.data import Dataset
from fairdd_jax.data.sampling import RealBatch, Sampler
from fairdd_jax.distances import KERNEL_DISTANCES, is_kernel
from fairdd_jax.errors import ConfigError
from fairdd_jax.methods import method_named
from fairdd_jax.methods.method import Forward, Pull, Real
from fairdd_jax.sharding import AXES, CLASS, DATA, own_part

PyTree = Any


class ClassBatch(NamedTuple):
    """What one class, or each of several, brings to an update."""

    drawn: RealBatch
    label: jax.Array
    key: jax.Array
    images: jax.Array | None = None
    """``[N, H * W * channels]`` uint8: this device's part of the drawn images."""
    exists: jax.Array | None = None
    """False of what fills a device up; None if everything exists."""

    def masked(self, tree: PyTree) -> PyTree:
        """What the class adds to a sum over classes."""
        if self.exists is None:
            return tree
        exists = self.exists
        return jax.tree.map(lambda x: jnp.where(exists, x, jnp.zeros_like(x)), tree)


class Matching:
    """The loss of one configuration.

    Args:
      config: a resolved configuration.
      dataset: its data set.
      network: the module that matches.
      sampler: how the real images are drawn.
      num_parts: devices that share the real images of a class.

    Raises:
      ConfigError: the network lacks the layers that the method matches, or the convolutions that
        the distance does.
    """

    def __init__(
        self,
        config: Config,
        dataset: Dataset,
        network: Any,
        sampler: Sampler,
        *,
        num_parts: int = 1,
    ):
        self.num_parts = num_parts
        self.config = config
        self.dataset = dataset
        self.network = network
        self.method = method_named(config.method)
        self.sampler = sampler
        outputs, variables = models.shapes(network, dataset.image_shape)
        if self.method.layers and not outputs.layers:
            raise ConfigError(
                f"{config.method} matches the layers of a network and {config.model} names none; "
                "choose --model ConvNet or one of its variants"
            )
        has_kernels = any(map(is_kernel, jax.tree.leaves(variables["params"])))
        if config.distance in KERNEL_DISTANCES and not has_kernels:
            raise ConfigError(
                f"--distance {config.distance} matches convolutions and {config.model} has none; "
                "choose --distance ours, or --model ConvNet"
            )

    def decode(self, images: jax.Array) -> jax.Array:
        """What networks see of the synthetic images of a class, ``[factor**2 I, H, W, C]``."""
        return decoded(self.config, self.dataset, images)

    def __call__(
        self, synthetic: jax.Array, variables: PyTree, classes: ClassBatch
    ) -> tuple[jax.Array, jax.Array]:
        """Loss of every class ``[C]``, and its gradient with respect to the synthetic images."""
        forward = self._forward(variables)
        params = variables["params"]
        chunk = self._chunk(variables)
        pulls = Pull(jnp.zeros(synthetic.shape[0]), jnp.zeros((synthetic.shape[0], 0)))
        coupled = self.method.coupling is not None and self.config.fairness == "vanilla"
        if coupled:
            pulls = self._pulls(forward, params, synthetic, classes, chunk)
        scale = 1.0
        if self.method.cobra_class_mean and self.config.fairness == "cobra":
            scale = 1.0 / self.dataset.num_classes

        def class_loss(
            images: jax.Array, batch: ClassBatch, pull: Pull
        ) -> tuple[jax.Array, jax.Array]:
            real = self._real(batch, chunk)
            signals = self.method.group_signals(forward, params, real, batch.label)
            if self.num_parts > 1:
                signals = jax.lax.psum(signals, DATA)

            def loss(x: jax.Array) -> jax.Array:
                signal = self._synthetic_signal(forward, params, x, batch, chunk)
                value = scale * self.method.loss(
                    signals,
                    signal,
                    shares=batch.drawn.shares,
                    present=batch.drawn.weights.any(1),
                    fairness=self.config.fairness,
                    distance=self.config.distance,
                )
                if coupled:
                    moved = pull.gradient @ signal[0]
                    value += pull.value + moved - jax.lax.stop_gradient(moved)
                return value

            masked: tuple[jax.Array, jax.Array] = batch.masked(jax.value_and_grad(loss)(images))
            return masked

        return self._map(class_loss, synthetic, classes, pulls)

    def _map(self, function: Callable[..., PyTree], *of_classes: PyTree) -> PyTree:
        # One class after the other keeps every branch a branch: under vmap all augmentations
        # would be computed and all but one thrown away. Gradients of several classes side by side
        # are grouped convolutions, which on TPU move ten times the bytes.
        num_classes = jax.tree.leaves(of_classes)[0].shape[0]
        together = min(num_classes, self.config.chunk // self.sampler.batch_size)
        if self.method.of_gradients or together <= 1:
            return jax.lax.map(lambda xs: function(*xs), of_classes)
        return jax.lax.map(lambda xs: function(*xs), of_classes, batch_size=together)

    def _augmented(self, batch: ClassBatch) -> Callable[[jax.Array], jax.Array]:
        """The augmentation that real and synthetic images of a class share."""
        strategy = self.config.dsa_strategy
        parameters = augment.sample(batch.key, self.dataset.image_shape, strategy=strategy)
        return lambda x: augment.apply(parameters, x, strategy=strategy)

    def _real(self, batch: ClassBatch, chunk: int) -> Real:
        assert batch.images is not None
        num_images = self.sampler.batch_size
        # No larger than the average group, since every group's last block is padded.
        block = min(self.config.chunk, -(-num_images // self.dataset.num_groups))
        augmented = self._augmented(batch)
        return Real(
            images=batch.images.reshape(-1, *self.dataset.image_shape),
            weights=own_part(batch.drawn.weights, self.num_parts, DATA, axis=-1),
            prepare=lambda x: augmented(self.dataset.normalise(x)),
            chunk=chunk,
            block=block,
            num_blocks=self.sampler.num_blocks(block),
        )

    def _chunk(self, variables: PyTree) -> int:
        if "batch_stats" in variables and not self.method.frozen_statistics:
            # Batch statistics need the whole batch.
            synthetic = self.config.decoded_ipc
            return max(self.sampler.batch_size, synthetic)
        return self.config.chunk

    def _synthetic_signal(
        self, forward: Forward, params: PyTree, images: jax.Array, batch: ClassBatch, chunk: int
    ) -> PyTree:
        x = self.decode(images)
        most = self.config.batch_syn
        if 0 < most < x.shape[0]:
            chosen = jax.random.permutation(jax.random.fold_in(batch.key, most), x.shape[0])[:most]
            x = x[chosen]
        return self.method.synthetic_signal(
            forward, params, self._augmented(batch)(x), batch.label, chunk
        )

    def _pulls(
        self,
        forward: Forward,
        params: PyTree,
        synthetic: jax.Array,
        classes: ClassBatch,
        chunk: int,
    ) -> Pull:
        """What the real images of all classes do to the synthetic mean of each of these."""
        assert self.method.coupling is not None
        coupling = self.method.coupling

        def mean(images: jax.Array, batch: ClassBatch) -> jax.Array:
            return self._synthetic_signal(forward, params, images, batch, chunk)[0]

        num_classes = self.dataset.num_classes
        everywhere = jax.lax.all_gather(self._map(mean, synthetic, classes), CLASS, tiled=True)
        slots, means = everywhere.shape[0], everywhere[:num_classes]

        def class_pull(batch: ClassBatch) -> Pull:
            # As if `batch_real` images had been drawn uniformly from the class, however many were.
            weights = (batch.drawn.shares @ batch.drawn.weights) * self.config.batch_real
            real = self._real(batch, chunk)
            own = own_part(weights, self.num_parts, DATA, axis=-1)
            pull: Pull = batch.masked(coupling(forward, params, real, batch.label, own, means))
            return pull

        axes = AXES if self.num_parts > 1 else CLASS
        total = jax.tree.map(lambda x: jax.lax.psum(x.sum(0), axes), self._map(class_pull, classes))
        filled = jnp.pad(total.gradient, ((0, slots - num_classes), (0, 0)))
        own = own_part(filled, slots // synthetic.shape[0], CLASS)
        return Pull(jnp.full(synthetic.shape[0], total.value / num_classes), own)

    def _forward(self, variables: PyTree) -> Forward:
        def forward(
            params: PyTree, images: jax.Array, mask: jax.Array | None = None
        ) -> models.Outputs:
            outputs, _ = models.apply(
                self.network,
                {**variables, "params": params},
                images,
                train=not self.method.frozen_statistics,
                mask=mask,
                dtype=self.config.compute_dtype,
            )
            return outputs

        return forward


def decoded(config: Config, dataset: Dataset, images: jax.Array) -> jax.Array:
    """The images ``[factor**2 I, H, W, C]`` that synthetic ones ``[I, H, W, C]`` stand for."""
    grey = (0.5 - jnp.asarray(dataset.mean)) / jnp.asarray(dataset.std)
    return formation.decode(
        images, factor=config.factor, interpolation=config.interpolation, fill=grey
    )
