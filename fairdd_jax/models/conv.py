r"""The convolution that every network uses, with gradients that stay fast inside loops on CPU.

A convolution, its input gradient and its kernel gradient are the three faces of one trilinear
form :math:`T(x, k, y) = \langle y, x * k \rangle`. Each of them is therefore written once as an
NHWC/HWIO convolution, and the derivative of any of them is given by the other two. Automatic
differentiation would instead emit convolutions in permuted layouts, which XLA's CPU backend runs
10 to 100 times slower inside ``scan``, ``map`` and ``while`` bodies
(https://github.com/jax-ml/jax/issues/12868). Closed under differentiation, the three also serve
the second derivatives that gradient matching needs.

On CPU a first layer, with its few input channels, is a matrix product with the window of every
pixel instead: its input and kernel gradients are then matrix products too, twice as fast as
convolutions whose inner dimension is 3. On TPU the windows would take more than the convolution.
The other layers, with windows of 3 x 3, take fewer multiplications there than a matrix product
would (`fairdd_jax.models.winograd`).
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from fairdd_jax.environment import on_cpu
from fairdd_jax.models import winograd

_LAYOUT = ("NHWC", "HWIO", "NHWC")
# As many input channels as images have.
_FEW_CHANNELS = 4
# With fewer, of the input or the output, tiles are not worth their transforms.
_MANY_CHANNELS = 32


class _Geometry(NamedTuple):
    """What a convolution needs to know besides its operands; static under ``jit``."""

    input: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: int
    padding: int

    def dilated_output(self, axis: int) -> int:
        """Length of the output with ``stride - 1`` zeros between its elements."""
        reach = self.input[axis] + 2 * self.padding - self.kernel[axis]
        return reach // self.stride * self.stride + 1

    def takes_tiles(self, dtype: jnp.dtype) -> bool:
        """Whether it is computed tile by tile, which is less exact in 16 bits."""
        fits = self.kernel[:2] == (winograd.SIDE,) * 2 and self.stride == 1 and self.padding < 3
        pays = min(self.kernel[2:]) >= _MANY_CHANNELS and on_cpu()
        return fits and pays and jnp.finfo(dtype).bits >= 32


def conv2d(images: jax.Array, kernel: jax.Array, *, stride: int = 1, padding: int = 0) -> jax.Array:
    """Cross-correlate images with a kernel, as PyTorch's ``conv2d`` without bias.

    Args:
      images: ``[N, H, W, I]``.
      kernel: ``[kh, kw, I, O]``.
      stride: step of the window along both axes, at least 1.
      padding: zeros on each side of both axes, at least 0.

    Returns:
      ``[N, (H + 2 padding - kh) // stride + 1, (W + 2 padding - kw) // stride + 1, O]``.

    Reverse-mode differentiable to any order; forward mode is not defined.

    >>> conv2d(jnp.ones((1, 4, 4, 3)), jnp.ones((3, 3, 3, 2)), padding=1)[0, :, :, 0]
    Array([[12., 18., 18., 12.],
           [18., 27., 27., 18.],
           [18., 27., 27., 18.],
           [12., 18., 18., 12.]], dtype=float32)
    """
    if images.shape[-1] <= _FEW_CHANNELS and stride == 1 and on_cpu():
        return _product_with_windows(images, kernel, padding)
    geometry = _Geometry(images.shape[1:3], kernel.shape, stride, padding)
    return _output(geometry, images, kernel)


def _product_with_windows(x: jax.Array, kernel: jax.Array, padding: int) -> jax.Array:
    kh, kw, channels, features = kernel.shape
    x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    # Of an image smaller than the window nothing is left.
    height, width = max(x.shape[1] - kh + 1, 0), max(x.shape[2] - kw + 1, 0)
    # One axis after the other copies longer runs than all places of a window at once.
    rows = jnp.concatenate([x[:, :, j : j + width] for j in range(kw)], -1)
    windows = jnp.concatenate([rows[:, i : i + height] for i in range(kh)], -1)
    windows = windows.reshape(len(x) * height * width, kh * kw * channels)
    product = windows @ kernel.reshape(-1, features)
    return product.reshape(len(x), height, width, features)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _output(geometry: _Geometry, x: jax.Array, kernel: jax.Array) -> jax.Array:
    if geometry.takes_tiles(x.dtype):
        return winograd.correlate(x, kernel, padding=geometry.padding)
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(geometry.stride,) * 2,
        padding=[(geometry.padding,) * 2] * 2,
        dimension_numbers=_LAYOUT,
    )


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _input_gradient(geometry: _Geometry, y: jax.Array, kernel: jax.Array) -> jax.Array:
    kernel = jnp.swapaxes(kernel[::-1, ::-1], 2, 3)
    if geometry.takes_tiles(y.dtype):
        return winograd.correlate(y, kernel, padding=winograd.SIDE - 1 - geometry.padding)
    padding = []
    for axis in (0, 1):
        before = geometry.kernel[axis] - 1 - geometry.padding
        total = geometry.input[axis] + geometry.kernel[axis] - 1 - geometry.dilated_output(axis)
        padding.append((before, total - before))
    return lax.conv_general_dilated(
        y,
        kernel,
        window_strides=(1, 1),
        padding=padding,
        lhs_dilation=(geometry.stride,) * 2,
        dimension_numbers=_LAYOUT,
    )


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _kernel_gradient(geometry: _Geometry, x: jax.Array, y: jax.Array) -> jax.Array:
    if geometry.takes_tiles(x.dtype):
        return winograd.kernel_gradient(x, y, padding=geometry.padding)
    padding = []
    for axis in (0, 1):
        total = geometry.kernel[axis] - 1 + geometry.dilated_output(axis) - geometry.input[axis]
        padding.append((geometry.padding, total - geometry.padding))
    gradient = lax.conv_general_dilated(
        x.transpose(3, 1, 2, 0),
        y.transpose(1, 2, 0, 3),
        window_strides=(1, 1),
        padding=padding,
        rhs_dilation=(geometry.stride,) * 2,
        dimension_numbers=_LAYOUT,
    )
    return gradient.transpose(1, 2, 0, 3)


def _keep_operands(function, geometry, first, second):  # type: ignore[no-untyped-def]
    return function(geometry, first, second), (first, second)


_output.defvjp(
    partial(_keep_operands, _output),
    lambda geometry, operands, y: (
        _input_gradient(geometry, y, operands[1]),
        _kernel_gradient(geometry, operands[0], y),
    ),
)
_input_gradient.defvjp(
    partial(_keep_operands, _input_gradient),
    lambda geometry, operands, x: (
        _output(geometry, x, operands[1]),
        _kernel_gradient(geometry, x, operands[0]),
    ),
)
_kernel_gradient.defvjp(
    partial(_keep_operands, _kernel_gradient),
    lambda geometry, operands, kernel: (
        _input_gradient(geometry, operands[1], kernel),
        _output(geometry, operands[0], kernel),
    ),
)
