"""CutMix: a box of every image shows another one, and the labels are mixed by area.

Reference: Yun et al., CutMix (ICCV 2019), as IDC's code trains its networks.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Box(NamedTuple):
    """Rows and columns that are replaced; empty if nothing is."""

    top: jax.Array
    bottom: jax.Array
    left: jax.Array
    right: jax.Array


def sample_box(key: jax.Array, image_shape: tuple[int, ...], *, probability: float) -> Box:
    """Draw the box of a batch.

    Its share of the area is uniform in [0, 1] before it is cut off at the border.

    Args:
      key: random key.
      image_shape: ``[..., H, W, C]``.
      probability: of mixing at all.

    >>> box = sample_box(jax.random.key(0), (8, 8, 3), probability=0.0)
    >>> int((box.bottom - box.top) * (box.right - box.left))
    0
    """
    height, width = image_shape[-3:-1]
    mixed, area, y, x = jax.random.uniform(key, (4,))
    side = jnp.where(mixed < probability, jnp.sqrt(area), 0.0)

    def interval(centre: jax.Array, length: int) -> tuple[jax.Array, jax.Array]:
        half = jnp.floor(side * length).astype(jnp.int32) // 2
        middle = jnp.floor(centre * length).astype(jnp.int32)
        return jnp.clip(middle - half, 0, length), jnp.clip(middle + half, 0, length)

    return Box(*interval(y, height), *interval(x, width))


def cutmix(box: Box, images: jax.Array, others: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Show the others inside the box.

    Args:
      box: from `sample_box`.
      images: ``[N, H, W, C]``.
      others: ``[N, H, W, C]``, one for each image.

    Returns:
      The images, and the share of their area that is still their own, which weighs their labels.

    >>> box = Box(*map(jnp.asarray, (0, 1, 0, 2)))
    >>> mixed, own = cutmix(box, jnp.zeros((1, 2, 2, 1)), jnp.ones((1, 2, 2, 1)))
    >>> mixed[0, ..., 0].tolist(), float(own)
    ([[1.0, 1.0], [0.0, 0.0]], 0.5)
    """
    height, width = images.shape[1:3]
    rows, columns = jnp.arange(height), jnp.arange(width)
    inside = ((rows >= box.top) & (rows < box.bottom))[:, None] & (
        (columns >= box.left) & (columns < box.right)
    )[None, :]
    own = 1.0 - (box.bottom - box.top) * (box.right - box.left) / (height * width)
    return jnp.where(inside[None, :, :, None], others, images), own
