"""Drawing operations of differentiable siamese augmentation, and running them.

Randomness is apart from the operations: `sample` draws which to run with their parameters and
`apply` runs them, so calling `apply` twice with the same parameters augments real and synthetic
images alike ("siamese").

A strategy names the operations: of ``color_crop_flip`` one is drawn, as in DSA; in
``color+crop_scale+cutout``, as in IDC, one of each part, and they run in that order.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from fairdd_jax.augment import ops
from fairdd_jax.errors import unknown_name

ALL = "color_crop_cutout_flip_scale_rotate"
NONE = "none"


class Parameters(NamedTuple):
    """What was drawn, ``op`` its place in `operations`, and the numbers of all operations."""

    op: jax.Array
    randb: jax.Array
    rands: jax.Array
    randc: jax.Array
    translation_x: jax.Array
    translation_y: jax.Array
    offset_x: jax.Array
    offset_y: jax.Array
    randf: jax.Array
    sx: jax.Array
    sy: jax.Array
    theta: jax.Array


_OPERATIONS: dict[str, tuple[Callable[..., jax.Array], tuple[str, ...]]] = {
    "color": (ops.color, ("randb", "rands", "randc")),
    "crop": (ops.crop, ("translation_x", "translation_y")),
    "cutout": (ops.cutout, ("offset_x", "offset_y")),
    "flip": (ops.flip, ("randf",)),
    "scale": (ops.scale, ("sx", "sy")),
    "rotate": (ops.rotate, ("theta",)),
}


def operations(strategy: str) -> list[tuple[str, ...]]:
    """What a strategy may draw: names of operations that run one after the other.

    Args:
      strategy: parts joined by "+", each of them names joined by "_"; or "none".

    Raises:
      ConfigError: The strategy has an unknown name.

    >>> operations("flip_rotate"), operations("color+flip_rotate")
    ([('flip',), ('rotate',)], [('color', 'flip'), ('color', 'rotate')])
    """
    parts = [] if strategy == NONE else [part.split("_") for part in strategy.split("+")]
    for name in itertools.chain(*parts):
        if name not in _OPERATIONS:
            raise unknown_name("augmentation", name, [*_OPERATIONS, NONE])
    return list(itertools.product(*parts)) if parts else []


def sample(key: jax.Array, image_shape: Sequence[int], *, strategy: str = ALL) -> Parameters:
    """Draw from the `operations` of a strategy, all equally likely, and the numbers they take.

    Uniform everywhere: shifts up to 1/8 of the side, the hole anywhere in the image, factors in
    [1 / 1.2, 1.2] for each axis, angles up to 15 degrees, [0, 1) for the rest.

    Args:
      key: random key.
      image_shape: ``[..., H, W, C]``.
      strategy: as in `operations`.

    Returns:
      Scalars, int32 for ``op``, translations and offsets, float32 for the rest.

    Raises:
      ConfigError: The strategy has an unknown name.

    >>> sample(jax.random.key(0), (32, 32, 3), strategy="rotate").op.tolist()
    0
    """
    H, W, _ = image_shape[-3:]
    # One call for all numbers compiles much faster than a call for each.
    u = Parameters(*jax.random.uniform(key, (len(Parameters._fields),), jnp.float32))

    def integer(u: jax.Array, low: int, high: int) -> jax.Array:
        """From [0, 1) to the integers low to high - 1."""
        return low + jnp.floor(u * (high - low)).astype(jnp.int32)

    def between(u: jax.Array, low: float, high: float) -> jax.Array:
        return low + u * (high - low)

    def shift(u: jax.Array, length: int) -> jax.Array:
        most = ops.whole_pixels(length, ops.CROP_PAD)
        return integer(u, -most, most + 1)

    def offset(u: jax.Array, length: int) -> jax.Array:
        return integer(u, 0, length + 1 - ops.whole_pixels(length, ops.CUTOUT) % 2)

    angle = math.radians(ops.ROTATE)
    return u._replace(
        op=integer(u.op, 0, max(1, len(operations(strategy)))),
        translation_x=shift(u.translation_x, H),
        translation_y=shift(u.translation_y, W),
        offset_x=offset(u.offset_x, H),
        offset_y=offset(u.offset_y, W),
        sx=between(u.sx, 1 / ops.SCALE, ops.SCALE),
        sy=between(u.sy, 1 / ops.SCALE, ops.SCALE),
        theta=between(u.theta, -angle, angle),
    )


def apply(parameters: Parameters, images: jax.Array, *, strategy: str = ALL) -> jax.Array:
    """Run what was drawn, the same on all images.

    Args:
      parameters: from `sample` with the same strategy and image shape.
      images: ``[..., H, W, C]``, floating.
      strategy: as in `sample`; "none" returns the images unchanged.

    Returns:
      Array like ``images``.

    Raises:
      ConfigError: The strategy has an unknown name.

    >>> images = jnp.arange(3.0).reshape(1, 1, 3, 1)
    >>> parameters = sample(jax.random.key(0), images.shape, strategy="flip")
    >>> apply(parameters._replace(randf=0.0), images, strategy="flip").ravel().tolist()
    [2.0, 1.0, 0.0]
    """
    chex.assert_type(images, float)

    def branch(names: tuple[str, ...], parameters: Parameters, images: jax.Array) -> jax.Array:
        for name in names:
            operation, needed = _OPERATIONS[name]
            images = operation(images, **{field: getattr(parameters, field) for field in needed})
        return images

    branches = [partial(branch, names) for names in operations(strategy)]
    return jax.lax.switch(parameters.op, branches, parameters, images) if branches else images


def augment_batch(
    key: jax.Array, images: jax.Array, *, strategy: str = ALL, rows: jax.Array | None = None
) -> jax.Array:
    """One draw for the batch, every image its own numbers: augmentation for training.

    Args:
      key: random key.
      images: ``[N, H, W, C]``, floating.
      strategy: as in `sample`; "none" returns the images unchanged.
      rows: ``[N]``, the places of the images in their batch, 0 to N - 1 by default. A part of a
        batch is augmented as in the whole.

    Returns:
      Array like ``images``.

    Raises:
      ConfigError: The strategy has an unknown name.

    >>> augment_batch(jax.random.key(0), jnp.ones((2, 8, 8, 3))).shape
    (2, 8, 8, 3)
    """
    draw = partial(sample, image_shape=images.shape[1:], strategy=strategy)
    rows = jnp.arange(images.shape[0]) if rows is None else rows
    parameters = jax.vmap(lambda row: draw(jax.random.fold_in(key, row)))(rows)
    op = draw(key).op  # not batched, so that the switch runs one branch and not all

    def augment_one(parameters: Parameters, image: jax.Array) -> jax.Array:
        return apply(parameters._replace(op=op), image, strategy=strategy)

    return jax.vmap(augment_one)(parameters, images)
