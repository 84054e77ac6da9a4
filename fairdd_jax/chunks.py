"""Images that pass through a network a few at a time, so that memory stays bounded."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

PyTree = Any


def sum_over_chunks(
    function: Callable[..., PyTree],
    *arrays: jax.Array,
    chunk: int,
    skip_weightless: bool = False,
) -> PyTree:
    """Sum of a function's values over chunks of arrays along their first axis.

    Differentiable without keeping what the function computes inside: of more than one chunk, each
    is computed again for its gradient (rematerialisation), so memory never grows with their number.

    Args:
      function: takes as many chunks ``[k, ...]`` as there are arrays, gives a pytree of arrays.
        Where k times the number of chunks exceeds N, the rest is zeros, which must not count:
        give every row a weight.
      *arrays: each ``[N, ...]``.
      chunk: k is at most this; the chunks are made equally large.
      skip_weightless: where there are several chunks, compute nothing of those where the last
        array, of weights, is all zeros. What the function gives for them must be zero.

    >>> weighted_sum = lambda x, weight: weight @ x
    >>> float(sum_over_chunks(weighted_sum, jnp.arange(5.0), jnp.ones(5), chunk=2))
    10.0
    """
    if arrays[0].shape[0] <= chunk:
        return function(*arrays)
    parts = _chunks(arrays, chunk)

    @partial(jax.checkpoint, prevent_cse=False)  # a scan keeps the two apart anyway
    def add(total: PyTree, part: list[jax.Array]) -> tuple[PyTree, None]:
        def more() -> PyTree:
            return jax.tree.map(jnp.add, total, function(*part))

        if skip_weightless:
            return jax.lax.cond(part[-1].any(), more, lambda: total), None
        return more(), None

    value = jax.eval_shape(function, *(part[0] for part in parts))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), value)
    return jax.lax.scan(add, zeros, parts)[0]


def map_over_chunks(
    function: Callable[..., jax.Array], *arrays: jax.Array, chunk: int
) -> jax.Array:
    """Values ``[N, ...]`` of a function of arrays, chunk after chunk along their first axis.

    Args:
      function: takes as many chunks ``[k, ...]`` as there are arrays, gives ``[k, ...]``.
      *arrays: each ``[N, ...]``.
      chunk: k is at most this; the chunks are made equally large, the last one filled with zeros.

    >>> map_over_chunks(lambda x: 10.0 * x, jnp.arange(5.0), chunk=2).tolist()
    [0.0, 10.0, 20.0, 30.0, 40.0]
    """
    if arrays[0].shape[0] <= chunk:
        return function(*arrays)
    parts = _chunks(arrays, chunk)
    values = jax.lax.map(lambda part: function(*part), parts)
    return values.reshape(-1, *values.shape[2:])[: arrays[0].shape[0]]


def _chunks(arrays: tuple[jax.Array, ...], chunk: int) -> list[jax.Array]:
    """Arrays ``[N, ...]`` in equally large chunks, the last one filled with zeros."""
    num_images = arrays[0].shape[0]
    num_chunks = -(-num_images // chunk)
    size = -(-num_images // num_chunks)
    return [_split(array, num_chunks, size) for array in arrays]


def _split(array: jax.Array, num_chunks: int, size: int) -> jax.Array:
    padding = [(0, num_chunks * size - array.shape[0])] + [(0, 0)] * (array.ndim - 1)
    return jnp.pad(array, padding).reshape(num_chunks, size, *array.shape[1:])
