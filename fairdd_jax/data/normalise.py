"""Between pixels (uint8) and the normalised space that networks see."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np


def normalise(
    images: jax.Array | np.ndarray, *, mean: Sequence[float], std: Sequence[float]
) -> jax.Array:
    """Map pixels v to (v / 255 - mean) / std, channel by channel.

    Args:
      images: ``[..., C]`` uint8; floating-point images are taken to be normalised already.
      mean: C fractions of the pixel range.
      std: C fractions of the pixel range.

    Returns:
      ``[..., C]`` float32.

    >>> normalise(np.array([[0, 255, 0]], np.uint8), mean=(0.5, 0.5, 0.25), std=(0.5, 0.5, 0.5))
    Array([[-1. ,  1. , -0.5]], dtype=float32)
    """
    if jnp.issubdtype(images.dtype, jnp.floating):
        return jnp.asarray(images)
    shape = (1,) * (images.ndim - 1) + (-1,)
    pixels = jnp.asarray(images, jnp.float32) / 255.0
    return (pixels - jnp.array(mean, jnp.float32).reshape(shape)) / jnp.array(
        std, jnp.float32
    ).reshape(shape)


def to_pixels(images: np.ndarray, *, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """Inverse of `normalise`, clipped to the pixel range and rounded.

    >>> to_pixels(np.array([[-1.0, 0.0, 7.0]]), mean=(0.5,) * 3, std=(0.5,) * 3)
    array([[  0, 128, 255]], dtype=uint8)
    """
    pixels = (images * np.asarray(std) + np.asarray(mean)) * 255.0
    return np.rint(np.clip(pixels, 0.0, 255.0)).astype(np.uint8)
