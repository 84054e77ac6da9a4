"""The networks of the official programs as functional Flax modules.

Every module maps normalised images ``[N, H, W, C]`` to `Outputs` in one forward pass. With batch
norm, ``train=True`` uses batch statistics and updates the collection ``batch_stats`` (pass
``mutable=["batch_stats"]`` to ``apply``); ``mask`` (``[N]``) keeps padded images out of them.
The features are flattened in (row, column, channel) order; the official ones in (channel, row,
column) order. A single input channel widens the padding of the first convolution, as officially.
"""

from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax

from fairdd_jax.models.layers import ACTIVATIONS, POOLINGS, Conv, Dense, Norm, avg_pool, max_pool


class Outputs(NamedTuple):
    """What a network gives for a batch."""

    logits: jax.Array
    """``[N, classes]``, before the softmax."""
    features: jax.Array
    """``[N, D]``, the input of the last linear layer."""
    layers: tuple[jax.Array, ...] = ()
    """The activations of every block, and the last feature map, ``[N, H', W', C']`` each."""


def _classify(features: jax.Array, num_classes: int, layers: tuple[jax.Array, ...] = ()) -> Outputs:
    features = features.reshape(features.shape[0], -1)
    return Outputs(Dense(num_classes, name="classifier")(features), features, layers)


class MLP(nn.Module):
    """Two hidden layers of 128 units."""

    num_classes: int

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool = False, mask: jax.Array | None = None
    ) -> Outputs:
        """Classify a batch of images."""
        x = x.reshape(x.shape[0], -1)
        for _ in range(2):
            x = jax.nn.relu(Dense(128)(x))
        return _classify(x, self.num_classes)


class ConvNet(nn.Module):
    """``depth`` times [3x3 convolution, norm, activation, 2x2 pooling], then a linear layer."""

    num_classes: int
    width: int = 128
    depth: int = 3
    activation: str = "relu"
    norm: str = "instancenorm"
    pooling: str = "avgpooling"

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool = False, mask: jax.Array | None = None
    ) -> Outputs:
        """Classify a batch of images."""
        layers = []
        for block in range(self.depth):
            padding = 3 if block == 0 and x.shape[-1] == 1 else 1
            x = Conv(self.width, padding=padding, before=self.norm)(x)
            x = ACTIVATIONS[self.activation](Norm(self.norm)(x, train=train, mask=mask))
            layers.append(x)
            x = POOLINGS[self.pooling](x)
        return _classify(x, self.num_classes, (*layers, x))


class LeNet(nn.Module):
    """LeNet-5 with relu and max pooling."""

    num_classes: int

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool = False, mask: jax.Array | None = None
    ) -> Outputs:
        """Classify a batch of images."""
        x = Conv(6, kernel_size=5, padding=2 if x.shape[-1] == 1 else 0)(x)
        x = max_pool(jax.nn.relu(x))
        x = max_pool(jax.nn.relu(Conv(16, kernel_size=5, padding=0)(x)))
        x = x.reshape(x.shape[0], -1)
        for units in (120, 84):
            x = jax.nn.relu(Dense(units)(x))
        return _classify(x, self.num_classes)


class AlexNet(nn.Module):
    """The five convolutions of AlexNet, narrowed for small images."""

    num_classes: int
    norm: str = "none"

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool = False, mask: jax.Array | None = None
    ) -> Outputs:
        """Classify a batch of images."""
        padding = 4 if x.shape[-1] == 1 else 2
        for width, size, pad, pool in (
            (128, 5, padding, True),
            (192, 5, 2, True),
            (256, 3, 1, False),
            (192, 3, 1, False),
            (192, 3, 1, True),
        ):
            x = Conv(width, size, padding=pad, before=self.norm)(x)
            x = jax.nn.relu(Norm(self.norm)(x, train=train, mask=mask))
            x = max_pool(x) if pool else x
        return _classify(x, self.num_classes)


class VGG(nn.Module):
    """VGG with one linear layer; ``stages`` are the widths between poolings."""

    num_classes: int
    norm: str = "instancenorm"
    stages: Sequence[Sequence[int]] = ((64,), (128,), (256, 256), (512, 512), (512, 512))

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool = False, mask: jax.Array | None = None
    ) -> Outputs:
        """Classify a batch of images."""
        padding = 3 if x.shape[-1] == 1 else 1
        for stage in self.stages:
            for width in stage:
                x = Conv(width, padding=padding, before=self.norm)(x)
                x = jax.nn.relu(Norm(self.norm)(x, train=train, mask=mask))
                padding = 1
            x = max_pool(x)
        return _classify(x, self.num_classes)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut.

    ``average_pool`` replaces the strided convolutions by plain ones followed by average pooling.
    """

    width: int
    stride: int
    norm: str
    average_pool: bool

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool, mask: jax.Array | None) -> jax.Array:
        """Apply the block to ``[N, H, W, C]``."""
        pool = self.average_pool and self.stride > 1
        stride = 1 if pool else self.stride

        def norm(y: jax.Array) -> jax.Array:
            return Norm(self.norm)(y, train=train, mask=mask)

        y = jax.nn.relu(norm(Conv(self.width, stride=stride, use_bias=False)(x)))
        y = avg_pool(y) if pool else y
        y = norm(Conv(self.width, use_bias=False)(y))
        if self.stride > 1 or x.shape[-1] != self.width:
            x = Conv(self.width, 1, stride=stride, padding=0, use_bias=False)(x)
            x = norm(avg_pool(x) if pool else x)
        return jax.nn.relu(x + y)


class ResNet18(nn.Module):
    """Residual network of 18 layers for small images.

    The official linear layers fit one image size each; here the last feature map is flattened
    after the same 4x4 average pooling (none with ``average_pool``) whatever its size.
    """

    num_classes: int
    norm: str = "instancenorm"
    average_pool: bool = False

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool = False, mask: jax.Array | None = None
    ) -> Outputs:
        """Classify a batch of images."""
        x = Norm(self.norm)(Conv(64, use_bias=False)(x), train=train, mask=mask)
        x = jax.nn.relu(x)
        for width in (64, 128, 256, 512):
            for stride in (1 if width == 64 else 2, 1):
                block = ResidualBlock(width, stride, self.norm, self.average_pool)
                x = block(x, train=train, mask=mask)
        if not self.average_pool:
            x = avg_pool(x, 4)
        return _classify(x, self.num_classes)
