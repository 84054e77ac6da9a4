"""The operations of differentiable siamese augmentation, with explicit parameters.

Every operation takes floating images [..., H, W, C], normalised ones as a rule, and scalar
parameters that all images of the call share; `jax.vmap` over images and parameters gives every
image its own. Names and ranges are the official ones: `_x` counts rows in crop and cutout, while
`sx` scales along the columns, the horizontal direction.
"""

import jax
import jax.numpy as jnp

Scalar = jax.Array | float

# The official strengths.
BRIGHTNESS = 1.0  # width of the range of the offset
SATURATION = 2.0  # largest factor
CONTRAST = 0.5  # smallest factor; the largest is one more
CROP_PAD = 0.125  # largest shift as a fraction of the side
CUTOUT = 0.5  # side of the hole as a fraction of the side of the image
FLIP_PROBABILITY = 0.5
SCALE = 1.2  # largest factor; the smallest is its inverse
ROTATE = 15.0  # largest angle in degrees


# Colour


def brightness(images: jax.Array, *, randb: Scalar, ratio: float = BRIGHTNESS) -> jax.Array:
    """Add one number to every pixel, x + (randb - 1/2) ratio.

    Args:
      images: ``[..., H, W, C]``.
      randb: scalar in [0, 1).
      ratio: width of the range of the offset, in units of the normalised pixels.

    Returns:
      Array like ``images``.

    >>> float(brightness(jnp.zeros((1, 1, 3)), randb=0.75)[0, 0, 0])
    0.25
    """
    return images + jnp.asarray((randb - 0.5) * ratio, images.dtype)


def saturation(images: jax.Array, *, rands: Scalar, ratio: float = SATURATION) -> jax.Array:
    """Scale each pixel's difference from its own grey m (mean over channels).

    (x - m) ratio rands + m: 0 gives a grey image, 1 / ratio the image itself.

    Args:
      images: ``[..., H, W, C]``.
      rands: scalar in [0, 1).
      ratio: factor at rands = 1.

    Returns:
      Array like ``images``.

    >>> saturation(jnp.array([[[0.0, 3.0, 6.0]]]), rands=0.0)[0, 0].tolist()
    [3.0, 3.0, 3.0]
    """
    # A sum of slices: XLA's reduction of so short an axis is ten times slower on CPU.
    first, *rest = jnp.split(images, images.shape[-1], -1)
    return _spread(images, sum(rest, first) / images.shape[-1], rands * ratio)


def contrast(images: jax.Array, *, randc: Scalar, ratio: float = CONTRAST) -> jax.Array:
    """Scale every value's difference from the mean m of its image.

    (x - m) (randc + ratio) + m.

    Args:
      images: ``[..., H, W, C]``.
      randc: scalar in [0, 1).
      ratio: factor at randc = 0.

    Returns:
      Array like ``images``.

    >>> contrast(jnp.array([[[0.0], [2.0]]]), randc=0.0).ravel().tolist()
    [0.5, 1.5]
    """
    return _spread(images, jnp.mean(images, (-3, -2, -1), keepdims=True), randc + ratio)


def _spread(images: jax.Array, centre: jax.Array, factor: Scalar) -> jax.Array:
    """Scale the difference from a centre."""
    return (images - centre) * jnp.asarray(factor, images.dtype) + centre


def color(images: jax.Array, *, randb: Scalar, rands: Scalar, randc: Scalar) -> jax.Array:
    """Brightness, then saturation, then contrast.

    Args:
      images: ``[..., H, W, C]``.
      randb: see `brightness`.
      rands: see `saturation`.
      randc: see `contrast`.

    Returns:
      Array like ``images``.

    >>> color(jnp.array([[[0.0], [2.0]]]), randb=1.0, rands=0.5, randc=0.0).ravel().tolist()
    [1.0, 2.0]
    """
    images = brightness(images, randb=randb)
    images = saturation(images, rands=rands)
    return contrast(images, randc=randc)


# Pixels moved or removed


def crop(images: jax.Array, *, translation_x: Scalar, translation_y: Scalar) -> jax.Array:
    """Shift by whole pixels: out[i, j] = x[i + translation_x, j + translation_y], 0 outside.

    Args:
      images: ``[..., H, W, C]``.
      translation_x: integer scalar, rows.
      translation_y: integer scalar, columns.

    Returns:
      Array like ``images``.

    >>> crop(jnp.array([[[1.0], [2.0], [3.0]]]), translation_x=0, translation_y=1).ravel().tolist()
    [2.0, 3.0, 0.0]
    """
    return _shift(_shift(images, translation_x, -3), translation_y, -2)


def _shift(images: jax.Array, by: Scalar, axis: int) -> jax.Array:
    """One axis of `crop`: a slice of the image with its whole length of zeros on either side."""
    length = images.shape[axis]
    zeros = jnp.zeros_like(images)
    padded = jnp.concatenate((zeros, images, zeros), axis)
    start = jnp.clip(length + by, 0, 2 * length)  # negative would count from the end
    return jax.lax.dynamic_slice_in_dim(padded, start, length, images.ndim + axis)


def cutout(
    images: jax.Array, *, offset_x: Scalar, offset_y: Scalar, ratio: float = CUTOUT
) -> jax.Array:
    """Set a rectangle to zero, which is the mean colour of normalised images.

    Of L rows it covers offset_x - k // 2 and the k - 1 after it, k = int(ratio L + 1/2), each
    clamped into the image; columns likewise with offset_y.

    Args:
      images: ``[..., H, W, C]``.
      offset_x: integer scalar, the row of the centre.
      offset_y: integer scalar, the column of the centre.
      ratio: side of the rectangle as a fraction of the side of the image.

    Returns:
      Array like ``images``.

    >>> cutout(jnp.ones((1, 4, 1)), offset_x=0, offset_y=1).ravel().tolist()
    [0.0, 0.0, 1.0, 1.0]
    """

    def covered(length: int, offset: Scalar) -> jax.Array:
        size = whole_pixels(length, ratio)
        first = jnp.clip(offset - size // 2, 0, length - 1)
        last = jnp.clip(offset - size // 2 + size - 1, 0, length - 1)
        position = jnp.arange(length)
        return (first <= position) & (position <= last)

    H, W, _ = images.shape[-3:]
    hole = covered(H, offset_x)[:, None, None] & covered(W, offset_y)[None, :, None]
    keep = jnp.where(hole, 0, 1).astype(images.dtype)
    return images * keep.reshape((1,) * (images.ndim - 3) + keep.shape)


def flip(images: jax.Array, *, randf: Scalar, probability: float = FLIP_PROBABILITY) -> jax.Array:
    """Mirror left and right if randf < probability.

    Args:
      images: ``[..., H, W, C]``.
      randf: scalar in [0, 1).
      probability: of a flip.

    Returns:
      Array like ``images``.

    >>> flip(jnp.array([[[1.0], [2.0], [3.0]]]), randf=0.2).ravel().tolist()
    [3.0, 2.0, 1.0]
    """
    return jnp.where(randf < probability, jnp.flip(images, -2), images)


def whole_pixels(length: int, ratio: float) -> int:
    """A fraction of a side in whole pixels, halves rounded up.

    >>> whole_pixels(28, 0.125), whole_pixels(32, 0.125)
    (4, 4)
    """
    return int(length * ratio + 0.5)


# Resampling: bilinear, zero outside the image, corners not aligned


def scale(images: jax.Array, *, sx: Scalar, sy: Scalar) -> jax.Array:
    """Sample the image at (sx u, sy v), u and v from -1 to 1 across the image: 2 halves its size.

    Bilinear interpolation is separable here, so this is one small matrix per axis.

    Args:
      images: ``[..., H, W, C]``.
      sx: positive scalar, columns.
      sy: positive scalar, rows.

    Returns:
      Array like ``images``.

    >>> scale(jnp.ones((1, 4, 1)), sx=2.0, sy=1.0).ravel().tolist()
    [0.0, 1.0, 1.0, 0.0]
    """

    def interpolation(length: int, factor: Scalar) -> jax.Array:
        """Matrix [length, length] whose row i holds the weights of the sample at i."""
        source = _to_pixels(_centres(length) * factor, length)
        pixels = jnp.arange(length, dtype=source.dtype)
        distance = jnp.abs(source[:, None] - pixels[None, :])
        return jnp.maximum(1 - distance, 0).astype(images.dtype)

    H, W, _ = images.shape[-3:]
    return jnp.einsum(
        "ih,jw,...hwc->...ijc",
        interpolation(H, sy),
        interpolation(W, sx),
        images,
        precision="highest",  # accelerators would round the pixels otherwise
    )


def rotate(images: jax.Array, *, theta: Scalar) -> jax.Array:
    """Sample the image at (u cos t - v sin t, u sin t + v cos t), u and v from -1 to 1.

    In these units an image that is not square is sheared, as in the official code. All images
    of the call share the positions, so each of the four neighbours is one copy of whole rows of
    a [pixels, images] table, and the gradient one addition of whole rows.

    Args:
      images: ``[..., H, W, C]``.
      theta: scalar, radians.

    Returns:
      Array like ``images``.

    >>> quarter = rotate(jnp.array([[[1.0], [2.0]], [[3.0], [4.0]]]), theta=jnp.pi / 2)
    >>> (quarter[..., 0] + 0.5).astype(int).tolist()
    [[2, 4], [1, 3]]
    """
    H, W, C = images.shape[-3:]
    u, v = jnp.meshgrid(_centres(W), _centres(H))
    cos, sin = jnp.cos(theta), jnp.sin(theta)
    column = _to_pixels(u * cos - v * sin, W).ravel()
    row = _to_pixels(u * sin + v * cos, H).ravel()

    pixels = jnp.moveaxis(images.reshape(-1, H, W, C), 0, 2).reshape(H * W, -1)
    out = jnp.zeros_like(pixels)
    for down, right in ((0, 0), (0, 1), (1, 0), (1, 1)):
        i, j = jnp.floor(row) + down, jnp.floor(column) + right
        inside = (i >= 0) & (i < H) & (j >= 0) & (j < W)
        weight = jnp.where(inside, (1 - jnp.abs(row - i)) * (1 - jnp.abs(column - j)), 0)
        index = (jnp.clip(i, 0, H - 1) * W + jnp.clip(j, 0, W - 1)).astype(jnp.int32)
        out += weight[:, None].astype(images.dtype) * jnp.take(pixels, index, 0, mode="clip")
    return jnp.moveaxis(out.reshape(H, W, -1, C), 2, 0).reshape(images.shape)


def _centres(length: int) -> jax.Array:
    """Centres of the pixels on an axis from -1 to 1."""
    return (2 * jnp.arange(length, dtype=jnp.float32) + 1) / length - 1


def _to_pixels(position: jax.Array, length: int) -> jax.Array:
    """From the axis -1 to 1 to pixel indices, 0 at the centre of the first."""
    return ((position + 1) * length - 1) / 2
