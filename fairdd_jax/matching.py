"""The matching loss of every class and its gradient with respect to the synthetic images."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fairdd_jax import augment, formation, models
from fairdd_jax.config import Config
from fairdd_jax.data import Dataset
from fairdd_jax.data.normalise import normalise
from fairdd_jax.data.sampling import RealBatch, Sampler
from fairdd_jax.distances import KERNEL_DISTANCES, is_kernel
from fairdd_jax.errors import ConfigError
from fairdd_jax.methods import method_named
from fairdd_jax.methods.method import Forward, Pull, Real
from fairdd_jax.sharding import AXES, CLASS, DATA, own_part

PyTree = Any


class OfClass(NamedTuple):
    """What belongs to one class in an update, or to each of several."""

    drawn: RealBatch
    label: jax.Array
    key: jax.Array
    images: jax.Array | None = None
    """``[N, H * W * channels]`` uint8: this device's part of the drawn images."""
    exists: jax.Array | None = None
    """False of what fills a device up; None if everything exists."""

    def kept(self, tree: PyTree) -> PyTree:
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
        if self.method.layers and not self._has_layers():
            raise ConfigError(
                f"{config.method} matches the layers of a network and {config.model} names none; "
                "choose --model ConvNet or one of its variants"
            )
        if config.distance in KERNEL_DISTANCES and not self._has_kernels():
            raise ConfigError(
                f"--distance {config.distance} matches convolutions and {config.model} has none; "
                "choose --distance ours, or --model ConvNet"
            )

    def _made(self) -> tuple[models.Outputs, PyTree]:
        """Shapes of what the network gives, and of its variables."""
        image = jnp.zeros((1, *self.dataset.image_shape))
        made: tuple[models.Outputs, PyTree] = jax.eval_shape(
            lambda key: self.network.init_with_output(key, image), jax.random.key(0)
        )
        return made

    def _has_layers(self) -> bool:
        return bool(self._made()[0].layers)

    def _has_kernels(self) -> bool:
        return any(map(is_kernel, jax.tree.leaves(self._made()[1]["params"])))

    def normalise(self, images: jax.Array) -> jax.Array:
        """What networks see of real images."""
        return normalise(images, mean=self.dataset.mean, std=self.dataset.std)

    def decode(self, images: jax.Array) -> jax.Array:
        """What networks see of the synthetic images of a class, ``[factor**2 I, H, W, C]``."""
        return decoded(self.config, self.dataset, images)

    def __call__(
        self, synthetic: jax.Array, variables: PyTree, classes: OfClass
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

        def of_class(images: jax.Array, of: OfClass, pull: Pull) -> tuple[jax.Array, jax.Array]:
            real = self._real(of, chunk)
            signals = self.method.group_signals(forward, params, real, of.label)
            if self.num_parts > 1:
                signals = jax.lax.psum(signals, DATA)

            def loss(x: jax.Array) -> jax.Array:
                signal = self._synthetic_signal(forward, params, x, of, chunk)
                value = scale * self.method.loss(
                    signals,
                    signal,
                    shares=of.drawn.shares,
                    present=of.drawn.weights.any(1),
                    fairness=self.config.fairness,
                    distance=self.config.distance,
                )
                if coupled:
                    moved = pull.gradient @ signal[0]
                    value += pull.value + moved - jax.lax.stop_gradient(moved)
                return value

            kept: tuple[jax.Array, jax.Array] = of.kept(jax.value_and_grad(loss)(images))
            return kept

        return self._map(of_class, synthetic, classes, pulls)

    def _map(self, function: Callable[..., PyTree], *of_classes: PyTree) -> PyTree:
        # One class after the other keeps every branch a branch: under vmap all augmentations
        # would be computed and all but one thrown away. Gradients of several classes side by side
        # are grouped convolutions, which on TPU move ten times the bytes.
        num_classes = jax.tree.leaves(of_classes)[0].shape[0]
        together = min(num_classes, self.config.chunk // self.sampler.batch_size)
        if self.method.of_gradients or together <= 1:
            return jax.lax.map(lambda xs: function(*xs), of_classes)
        return jax.lax.map(lambda xs: function(*xs), of_classes, batch_size=together)

    def _augmented(self, of: OfClass) -> Callable[[jax.Array], jax.Array]:
        """The augmentation that real and synthetic images of a class share."""
        strategy = self.config.dsa_strategy
        parameters = augment.sample(of.key, self.dataset.image_shape, strategy=strategy)
        return lambda x: augment.apply(parameters, x, strategy=strategy)

    def _real(self, of: OfClass, chunk: int) -> Real:
        assert of.images is not None
        num_images = self.sampler.batch_size
        # No larger than the average group, since every group's last block is padded.
        block = min(self.config.chunk, -(-num_images // self.dataset.num_groups))
        augmented = self._augmented(of)
        return Real(
            of.images.reshape(-1, *self.dataset.image_shape),
            own_part(of.drawn.weights, self.num_parts, DATA, axis=-1),
            lambda x: augmented(self.normalise(x)),
            chunk,
            block,
            self.sampler.num_blocks(block),
        )

    def _chunk(self, variables: PyTree) -> int:
        if "batch_stats" in variables and not self.method.frozen_statistics:
            # Batch statistics need the whole batch.
            synthetic = self.config.ipc * self.config.factor**2
            return max(self.sampler.batch_size, synthetic)
        return self.config.chunk

    def _synthetic_signal(
        self, forward: Forward, params: PyTree, images: jax.Array, of: OfClass, chunk: int
    ) -> PyTree:
        x = self.decode(images)
        most = self.config.batch_syn
        if 0 < most < x.shape[0]:
            chosen = jax.random.permutation(jax.random.fold_in(of.key, most), x.shape[0])[:most]
            x = x[chosen]
        return self.method.synthetic_signal(
            forward, params, self._augmented(of)(x), of.label, chunk
        )

    def _pulls(
        self,
        forward: Forward,
        params: PyTree,
        synthetic: jax.Array,
        classes: OfClass,
        chunk: int,
    ) -> Pull:
        """What the real images of all classes do to the synthetic mean of each of these."""
        assert self.method.coupling is not None
        coupling = self.method.coupling

        def mean(images: jax.Array, of: OfClass) -> jax.Array:
            return self._synthetic_signal(forward, params, images, of, chunk)[0]

        num_classes = self.dataset.num_classes
        everywhere = jax.lax.all_gather(self._map(mean, synthetic, classes), CLASS, tiled=True)
        slots, means = everywhere.shape[0], everywhere[:num_classes]

        def of_class(of: OfClass) -> Pull:
            # As if `batch_real` images had been drawn uniformly from the class, however many were.
            weights = (of.drawn.shares @ of.drawn.weights) * self.config.batch_real
            real = self._real(of, chunk)
            own = own_part(weights, self.num_parts, DATA, axis=-1)
            pull: Pull = of.kept(coupling(forward, params, real, of.label, own, means))
            return pull

        axes = AXES if self.num_parts > 1 else CLASS
        total = jax.tree.map(lambda x: jax.lax.psum(x.sum(0), axes), self._map(of_class, classes))
        filled = jnp.pad(total.gradient, ((0, slots - num_classes), (0, 0)))
        own = own_part(filled, slots // synthetic.shape[0], CLASS)
        return Pull(jnp.full(synthetic.shape[0], total.value / num_classes), own)

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


def decoded(config: Config, dataset: Dataset, images: jax.Array) -> jax.Array:
    """The images ``[factor**2 I, H, W, C]`` that synthetic ones ``[I, H, W, C]`` stand for."""
    grey = (0.5 - jnp.asarray(dataset.mean)) / jnp.asarray(dataset.std)
    return formation.decode(
        images, factor=config.factor, interpolation=config.interpolation, fill=grey
    )
