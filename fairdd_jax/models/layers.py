"""Layers with PyTorch's default initial distributions and statistics, which results depend on."""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from fairdd_jax.models.conv import conv2d

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": jax.nn.relu,
    "sigmoid": jax.nn.sigmoid,
    "leakyrelu": jax.nn.leaky_relu,
    "swish": jax.nn.swish,
}


def _uniform(fan_in: int) -> Callable[..., jax.Array]:
    """PyTorch's default for kernels and biases: uniform in +-1/sqrt(fan_in)."""

    def init(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> jax.Array:
        bound = max(fan_in, 1) ** -0.5  # no input is for the registry to report
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


class Conv(nn.Module):
    """Square convolution ``[N, H, W, I] -> [N, H', W', features]``."""

    features: int
    kernel_size: int = 3
    stride: int = 1
    padding: int = 1
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply the convolution."""
        shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
        init = _uniform(self.kernel_size**2 * x.shape[-1])
        y = conv2d(x, self.param("kernel", init, shape), stride=self.stride, padding=self.padding)
        if self.use_bias:
            y = y + self.param("bias", init, (self.features,)).reshape(1, 1, 1, -1)
        return y


class Dense(nn.Module):
    """Linear layer ``[N, I] -> [N, features]``."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply the linear map."""
        init = _uniform(x.shape[-1])
        y = x @ self.param("kernel", init, (x.shape[-1], self.features))
        return y + self.param("bias", init, (self.features,)).reshape(1, -1)


class BatchNorm(nn.Module):
    """Batch normalisation with PyTorch's conventions.

    Flax's own layer differs in one number: PyTorch keeps the *unbiased* variance, n / (n - 1)
    times the one it normalises with, in the running statistics. ``mask`` (``[N]``, 0 or 1) leaves
    padded images out of the statistics.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool, mask: jax.Array | None = None) -> jax.Array:
        """Normalise ``[N, H, W, C]`` by batch statistics (train) or by the running ones."""
        channels = (x.shape[-1],)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, channels)
        running_var = self.variable("batch_stats", "var", jnp.ones, channels)
        if train:
            where = None if mask is None else mask.astype(bool).reshape(-1, 1, 1, 1)
            mean, var = x.mean((0, 1, 2), where=where), x.var((0, 1, 2), where=where)
            if not self.is_initializing():
                images = x.shape[0] if mask is None else mask.astype(bool).sum()
                count = jnp.asarray(images * x.shape[1] * x.shape[2], x.dtype)
                update = partial(_running, momentum=self.momentum)
                running_mean.value = update(running_mean.value, mean)
                running_var.value = update(running_var.value, var * count / (count - 1))
        else:
            mean, var = running_mean.value, running_var.value
        scale = self.param("scale", nn.initializers.ones, channels)
        bias = self.param("bias", nn.initializers.zeros, channels)
        factor = scale * jax.lax.rsqrt(var + self.epsilon)
        shape = (1, 1, 1, -1)
        return (x - mean.reshape(shape)) * factor.reshape(shape) + bias.reshape(shape)


def _running(old: jax.Array, new: jax.Array, *, momentum: float) -> jax.Array:
    return momentum * old + (1 - momentum) * new


class Norm(nn.Module):
    """One of the official normalisations by name; see `NORMS`."""

    kind: str

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool, mask: jax.Array | None = None) -> jax.Array:
        """Normalise ``[N, H, W, C]``."""
        match self.kind:
            case "none":
                return x
            case "batchnorm":
                return BatchNorm(name="batch")(x, train=train, mask=mask)
            case "layernorm":
                axes = (-3, -2, -1)
                return nn.LayerNorm(1e-5, reduction_axes=axes, feature_axes=axes, name="layer")(x)
            case "groupnorm":
                return nn.GroupNorm(4, epsilon=1e-5, name="group")(x)
            case _:
                return nn.GroupNorm(None, group_size=1, epsilon=1e-5, name="instance")(x)


NORMS = ("instancenorm", "batchnorm", "layernorm", "groupnorm", "none")


def max_pool(x: jax.Array) -> jax.Array:
    """Largest of every 2x2 window, a remainder dropped.

    A windowed reduction, because the gradient of ``reshape`` and ``max`` was seen to lose the
    winner when compiled for CPU.
    """
    return nn.max_pool(x, (2, 2), (2, 2))


def avg_pool(x: jax.Array, size: int = 2) -> jax.Array:
    """Mean of every window of ``size`` x ``size``, a remainder dropped."""
    n, height, width, channels = x.shape
    rows, columns = height // size, width // size
    x = x[:, : rows * size, : columns * size]
    return x.reshape(n, rows, size, columns, size, channels).mean((2, 4))


POOLINGS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "avgpooling": avg_pool,
    "maxpooling": max_pool,
    "none": lambda x: x,
}
