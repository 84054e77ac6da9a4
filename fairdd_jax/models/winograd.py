r"""Convolutions with windows of 3 x 3 by fewer multiplications, for CPUs.

Two by two outputs Y come from a tile D of 4 x 4 inputs and the kernel K by 16 multiplications in
place of 36, Winograd's :math:`F(2 \times 2, 3 \times 3)`:

.. math:: Y = A^T [(G K G^T) \odot (B^T D B)] A,

and the gradient of K by as many:

.. math:: \partial K = G^T [(A \, \partial Y A^T) \odot (B^T D B)] G.

Summed over channels, or over tiles, each of the 16 products is one of matrices. The factors of
the transforms are 1 and 1/2, so that results round about as those of plain convolutions do. The
four rows of the tiles are arrays of their own, which a CPU multiplies side by side; the columns are
not, because that would take twice as long to compile.

Reference: A. Lavin and S. Gray, Fast Algorithms for Convolutional Neural Networks, CVPR 2016,
https://arxiv.org/abs/1509.09308. Not done as there: the tiles of a product are those of the whole
batch, which is a chunk of few images here.
"""

from collections.abc import Sequence
from functools import reduce

import jax
import jax.numpy as jnp

SIDE = 3  # of the window
_INPUT = ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1))  # B^T
_KERNEL = ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1))  # G
_OUTPUT = ((1, 1, 1, 0), (0, 1, -1, -1))  # A^T

Matrix = tuple[tuple[float, ...], ...]
Parts = Sequence[jax.Array] | jax.Array


def correlate(images: jax.Array, kernel: jax.Array, *, padding: int) -> jax.Array:
    """Cross-correlate images with a kernel, in steps of 1.

    Args:
      images: ``[N, H, W, I]``.
      kernel: ``[3, 3, I, O]``.
      padding: zeros on each side of both axes.

    Returns:
      ``[N, H + 2 padding - 2, W + 2 padding - 2, O]``.

    >>> correlate(jnp.ones((1, 3, 3, 1)), jnp.ones((3, 3, 1, 1)), padding=1)[0, :, :, 0]
    Array([[4., 6., 4.],
           [6., 9., 6.],
           [4., 6., 4.]], dtype=float32)
    """
    count, height, width = len(images), *_of_output(images, padding)
    kernels = [_stacked(_KERNEL, row) for row in _combined(_KERNEL, kernel)]
    shape = (4, count, -(-height // 2), -(-width // 2), kernel.shape[3])
    products = [
        (tile @ matrix).reshape(shape)
        for tile, matrix in zip(_tiles(images, padding), kernels, strict=True)
    ]
    pairs = [_stacked(_OUTPUT, row, axis=3) for row in _combined(_OUTPUT, products)]
    whole = jnp.stack(pairs, 2).reshape(count, 2 * shape[2], 2 * shape[3], shape[4])
    return whole[:, :height, :width]


def kernel_gradient(images: jax.Array, gradient: jax.Array, *, padding: int) -> jax.Array:
    """What the gradient of `correlate`'s output makes of its kernel.

    Args:
      images: ``[N, H, W, I]``.
      gradient: ``[N, H + 2 padding - 2, W + 2 padding - 2, O]``.
      padding: that of `correlate`.

    Returns:
      ``[3, 3, I, O]``.

    >>> kernel_gradient(jnp.ones((1, 3, 3, 1)), jnp.ones((1, 3, 3, 1)), padding=1)[:, :, 0, 0]
    Array([[4., 6., 4.],
           [6., 9., 6.],
           [4., 6., 4.]], dtype=float32)
    """
    height, width = gradient.shape[1:3]
    gradient = jnp.pad(gradient, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)))
    rows = _combined(_transposed(_OUTPUT), [gradient[:, i::2] for i in range(2)])
    pairs = [_stacked(_transposed(_OUTPUT), [row[:, :, j::2] for j in range(2)]) for row in rows]
    products = [
        tile.swapaxes(1, 2) @ pair.reshape(4, -1, pair.shape[-1])
        for tile, pair in zip(_tiles(images, padding), pairs, strict=True)
    ]
    back = _transposed(_KERNEL)
    return _stacked(back, [_stacked(back, product) for product in products])


def _of_output(images: jax.Array, padding: int) -> tuple[int, int]:
    height, width = (side + 2 * padding - (SIDE - 1) for side in images.shape[1:3])
    return height, width


def _tiles(images: jax.Array, padding: int) -> list[jax.Array]:
    """All tiles, transformed: for each of their rows ``[4, tiles, I]``, its columns one by one."""
    height, width = _of_output(images, padding)
    sides = [(0, 0), (padding, padding + height % 2), (padding, padding + width % 2), (0, 0)]
    images = jnp.pad(images, sides)
    height, width = height + height % 2, width + width % 2
    rows = _combined(_INPUT, [images[:, i : i + height : 2] for i in range(4)])
    columns = [_stacked(_INPUT, [row[:, :, j : j + width : 2] for j in range(4)]) for row in rows]
    return [each.reshape(4, -1, images.shape[-1]) for each in columns]


def _combined(matrix: Matrix, parts: Parts) -> list[jax.Array]:
    """A matrix times a vector of arrays, without multiplying by 0."""
    return [
        reduce(jnp.add, (f * part for f, part in zip(row, parts, strict=True) if f))
        for row in matrix
    ]


def _stacked(matrix: Matrix, parts: Parts, *, axis: int = 0) -> jax.Array:
    """The same as one array, whose new axis has the rows of the matrix."""
    columns = jnp.asarray(_transposed(matrix), parts[0].dtype)
    around = [i for i in range(parts[0].ndim + 1) if i != axis]
    factors = jnp.expand_dims(columns, [i + 1 for i in around])
    products = (f * jnp.expand_dims(part, axis) for f, part in zip(factors, parts, strict=True))
    return reduce(jnp.add, products)


def _transposed(matrix: Matrix) -> Matrix:
    return tuple(zip(*matrix, strict=True))
