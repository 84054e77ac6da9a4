"""Layers with PyTorch's default initial distributions and statistics, which results depend on."""

from collections.abc import Callable
from functools import partial, reduce

import flax.linen as nn
import jax
import jax.numpy as jnp

from fairdd_jax.environment import on_cpu
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
    """Square convolution ``[N, H, W, I] -> [N, H', W', features]``.

    ``before`` names the norm that follows. An instance norm subtracts the bias again, so that it is
    kept as a parameter, which official networks have, but not added: 6 % of DM's time on CPU.
    """

    features: int
    kernel_size: int = 3
    stride: int = 1
    padding: int = 1
    use_bias: bool = True
    before: str = "none"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply the convolution."""
        shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
        init = _uniform(self.kernel_size**2 * x.shape[-1])
        y = conv2d(x, self.param("kernel", init, shape), stride=self.stride, padding=self.padding)
        if self.use_bias:
            bias = self.param("bias", init, (self.features,))
            if self.before != "instancenorm":
                y = y + bias.reshape(1, 1, 1, -1)
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
        x32 = x.astype(jnp.float32)
        if train:
            where = None if mask is None else mask.astype(bool).reshape(-1, 1, 1, 1)
            mean, var = x32.mean((0, 1, 2), where=where), x32.var((0, 1, 2), where=where)
            if not self.is_initializing():
                images = x.shape[0] if mask is None else mask.astype(bool).sum()
                count = jnp.asarray(images * x.shape[1] * x.shape[2], x32.dtype)
                others = jnp.maximum(count - 1, 1)  # of a single value the variance is 0
                update = partial(_running, momentum=self.momentum)
                running_mean.value = update(running_mean.value, mean)
                running_var.value = update(running_var.value, var * count / others)
        else:
            mean, var = running_mean.value, running_var.value
        scale = self.param("scale", nn.initializers.ones, channels)
        bias = self.param("bias", nn.initializers.zeros, channels)
        factor = _per_channel(scale) * _per_channel(jax.lax.rsqrt(var + self.epsilon))
        return ((x32 - _per_channel(mean)) * factor + _per_channel(bias)).astype(x.dtype)


def _running(old: jax.Array, new: jax.Array, *, momentum: float) -> jax.Array:
    return momentum * old + (1 - momentum) * new


class InstanceNorm(nn.Module):
    """Every channel of every image normalised on its own, then scaled and shifted."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalise ``[N, H, W, C]``."""
        channels = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, channels)
        bias = self.param("bias", nn.initializers.zeros, channels)
        return instance_norm(x, scale, bias)


@jax.custom_vjp
def instance_norm(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    r"""Normalise every channel of every image: :math:`y = \gamma (x-m) / \sqrt{v+10^{-5}} + \beta`.

    The derivative is the textbook one, written out: what automatic differentiation makes of the
    statistics takes more passes over the images, which costs gradient matching a fifth of its time.
    Statistics and sums are float32 whatever the type of ``x``.

    Args:
      x: ``[N, H, W, C]``; m and v are its mean and population variance over H and W.
      scale: gamma, ``[C]``.
      bias: beta, ``[C]``.

    Returns:
      Array like ``x``. Reverse-mode differentiable to any order.

    >>> x = jnp.array([1.0, 3.0]).reshape(1, 2, 1, 1)
    >>> instance_norm(x, jnp.ones(1), jnp.ones(1)).round(3).ravel().tolist()
    [0.0, 2.0]
    """
    return _instance_norm(x, scale, bias)[0]


def _instance_norm(x, scale, bias):  # type: ignore[no-untyped-def]
    x32 = x.astype(jnp.float32)
    mean = x32.mean((1, 2), keepdims=True)
    # The difference of means, which reads x once, may fall below zero by rounding.
    variance = jnp.maximum(jnp.square(x32).mean((1, 2), keepdims=True) - jnp.square(mean), 0)
    inverse = jax.lax.rsqrt(variance + 1e-5)
    factor = inverse * _per_channel(scale)
    y = x32 * factor + (_per_channel(bias) - mean * factor)
    return y.astype(x.dtype), (x, scale, bias, mean, inverse)


def _instance_norm_gradients(saved, gradient):  # type: ignore[no-untyped-def]
    x, scale, bias, mean, inverse = saved
    g = gradient.astype(jnp.float32)
    normalised = (x.astype(jnp.float32) - mean) * inverse
    area = x.shape[1] * x.shape[2]
    sum_g = g.sum((1, 2), keepdims=True)
    sum_gn = (g * normalised).sum((1, 2), keepdims=True)
    of_x = inverse * _per_channel(scale) * (g - sum_g / area - normalised * (sum_gn / area))
    of_scale, of_bias = sum_gn.sum((0, 1, 2)), sum_g.sum((0, 1, 2))
    return of_x.astype(x.dtype), of_scale.astype(scale.dtype), of_bias.astype(bias.dtype)


def _per_channel(x: jax.Array) -> jax.Array:
    return x.astype(jnp.float32).reshape(1, 1, 1, -1)


instance_norm.defvjp(_instance_norm, _instance_norm_gradients)


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
                return InstanceNorm(name="instance")(x)


NORMS = ("instancenorm", "batchnorm", "layernorm", "groupnorm", "none")


def max_pool(x: jax.Array) -> jax.Array:
    """Largest of every 2x2 window, a remainder dropped.

    A windowed reduction, because the gradient of ``reshape`` and ``max`` was seen to lose the
    winner when compiled for CPU.
    """
    return nn.max_pool(x, (2, 2), (2, 2))


def avg_pool(x: jax.Array, size: int = 2) -> jax.Array:
    """Mean of every window of ``size`` x ``size``, a remainder dropped."""
    if not on_cpu():
        window = (size, size)
        return nn.pooling.pool(x, 0.0, jax.lax.add, window, window, "VALID") * (1.0 / size**2)
    height, width = x.shape[1:3]
    x = x[:, : height // size * size, : width // size * size]
    return _pool_pairs(x) if size == 2 else _pool_rows(x, size)


# Two ways to the same sum, each faster on CPU than the windowed reduction that accelerators take,
# and that their compiler fuses. Without a gradient XLA fuses slices with what comes before, and the
# pass over the real images takes 8 % less time; with one it would compute all of that again for
# every reader of the result.
@jax.custom_vjp
def _pool_pairs(x: jax.Array) -> jax.Array:
    top, bottom = x[:, ::2], x[:, 1::2]
    return (top[:, :, ::2] + bottom[:, :, ::2] + top[:, :, 1::2] + bottom[:, :, 1::2]) * 0.25


def _pool_rows(x: jax.Array, size: int) -> jax.Array:
    n, height, width, channels = x.shape
    rows = reduce(jnp.add, (x[:, i::size] for i in range(size)))
    columns = rows.reshape(n, height // size, width // size, size, channels).sum(3)
    return columns * (1.0 / size**2)


_pool_pairs.defvjp(
    lambda x: jax.vjp(partial(_pool_rows, size=2), x),
    lambda transposed, gradient: transposed(gradient),
)


POOLINGS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "avgpooling": avg_pool,
    "maxpooling": max_pool,
    "none": lambda x: x,
}
