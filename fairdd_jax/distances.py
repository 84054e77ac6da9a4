"""Distances between two signals of equal structure, by name and by kind of signal."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

PyTree = Any
Distance = Callable[[PyTree, PyTree], jax.Array]

# What the official code adds to a product of norms before it divides by it.
_EPSILON = 1e-6


def _norm(squared: jax.Array) -> jax.Array:
    """Square root with gradient 0 at 0."""
    positive = squared > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, squared, 1.0)), 0.0)


def _one_minus_cosine(dot: jax.Array, squared_a: jax.Array, squared_b: jax.Array) -> jax.Array:
    return 1.0 - dot / (_norm(squared_a) * _norm(squared_b) + _EPSILON)


def _total(
    of_tensors: Callable[[jax.Array, jax.Array], jax.Array], a: PyTree, b: PyTree
) -> jax.Array:
    """Sum over the tensors of two equal trees."""
    return jax.tree.reduce(jnp.add, jax.tree.map(of_tensors, a, b))


def _sum_of_squares(a: PyTree, b: PyTree) -> jax.Array:
    return _total(lambda x, y: jnp.sum((x - y) ** 2), a, b)


def _sum_of_absolutes(a: PyTree, b: PyTree) -> jax.Array:
    return _total(lambda x, y: jnp.sum(jnp.abs(x - y)), a, b)


def _cosine(a: PyTree, b: PyTree) -> jax.Array:
    def dot(x: PyTree, y: PyTree) -> jax.Array:
        return _total(lambda p, q: jnp.sum(p * q), x, y)

    return _one_minus_cosine(dot(a, b), dot(a, a), dot(b, b))


def _cosine_of_rows(a: PyTree, b: PyTree) -> jax.Array:
    def rows(x: jax.Array, y: jax.Array) -> jax.Array:
        if x.ndim < 2:
            return jnp.zeros((), x.dtype)
        axes = tuple(range(x.ndim - 1))
        dot, xx, yy = ((p * q).sum(axes) for p, q in ((x, y), (x, x), (y, y)))
        return _one_minus_cosine(dot, xx, yy).sum()

    return _total(rows, a, b)


def is_kernel(parameter: Any) -> bool:
    """Whether an array, or its shape and type, is the kernel of a convolution."""
    return bool(parameter.ndim > 2)


def _of_kernels(of_pair: Distance) -> Distance:
    """A distance of the convolution kernels alone, which IDC matches."""

    def distance(a: PyTree, b: PyTree) -> jax.Array:
        pairs = zip(*map(jax.tree.leaves, (a, b)), strict=True)
        kernels = [pair for pair in pairs if is_kernel(pair[0])]
        return of_pair(*zip(*kernels, strict=True)) if kernels else jnp.zeros(())

    return distance


def _layers(*, shallow: float, deep: float) -> Distance:
    def distance(a: PyTree, b: PyTree) -> jax.Array:
        (features, layers), (own_features, own_layers) = a, b
        total = _sum_of_squares(features, own_features)
        for place, pair in enumerate(zip(layers, own_layers, strict=True)):
            is_last = place == len(layers) - 1  # the final feature map, of a single block too
            weight = shallow if place < 2 and not is_last else deep
            total += weight * _sum_of_squares(*pair)
        return total

    return distance


FEATURE_DISTANCES: dict[str, Distance] = {
    "squared_l2": _sum_of_squares,
    "l1": _sum_of_absolutes,
    "cos": _cosine,
}
KERNEL_DISTANCES: dict[str, Distance] = {
    "kernel_mse": _of_kernels(_sum_of_squares),
    "kernel_l1": _of_kernels(_sum_of_absolutes),
}
GRADIENT_DISTANCES: dict[str, Distance] = {
    "ours": _cosine_of_rows,
    "mse": _sum_of_squares,
    "cos": _cosine,
    **KERNEL_DISTANCES,
}
LAYER_DISTANCES: dict[str, Distance] = {
    "layers_equal": _layers(shallow=1.0, deep=1.0),
    "layers": _layers(shallow=0.1, deep=1.0),
    "layers_shallow": _layers(shallow=1.0, deep=0.1),
}
