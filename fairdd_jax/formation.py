r"""Multi-formation: every synthetic image holds several, which only show when it is decoded.

An image is cut into ``factor`` x ``factor`` crops, each of which is enlarged to the size of the
image by bilinear interpolation. So ``factor**2`` times as many images, of lower resolution, are
trained on at the same storage.

Reference: Kim et al., Dataset Condensation via Efficient Synthetic-Data Parameterization (ICML
2022), section 4.
"""

from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from fairdd_jax.errors import ConfigError, unknown_name

Interpolation = Literal["half_pixel", "corners"]

# Accelerators would round the pixels otherwise.
_PRECISION = "highest"


def decode(
    images: jax.Array,
    *,
    factor: int,
    interpolation: str = "half_pixel",
    fill: jax.Array | float = 0.0,
) -> jax.Array:
    r"""Images that multi-formation makes of coded ones.

    Args:
      images: ``[I, H, W, C]``.
      factor: f, crops along each side.
      interpolation: ``half_pixel`` as IDC's authors have it: pixel centres are mapped to each
        other, and a side that is no multiple of f is padded with ``fill`` at its end (the
        decoded image then shows the padding). ``corners`` as COBRA's code has it: corner pixels are
        mapped to corner pixels, and the remainder of a side is dropped.
      fill: value of the padding, scalar or ``[C]``. The authors pad with a grey of 0.5.

    Returns:
      ``[f**2 I, H, W, C]``: the crop (0, 0) of all images, then (0, 1), and so on by rows.

    Raises:
      ConfigError: an unknown interpolation, or a factor that leaves a crop without a pixel.

    >>> coded = jnp.arange(4.0).reshape(1, 2, 2, 1)
    >>> decode(coded, factor=2)[..., 0].tolist()[1]
    [[1.0, 1.0], [1.0, 1.0]]
    """
    if interpolation not in get_args(Interpolation):
        raise unknown_name("interpolation", interpolation, get_args(Interpolation))
    if factor == 1:
        return images
    count, *sides, channels = images.shape
    check_factor(factor, *sides, interpolation=interpolation)
    if interpolation == "half_pixel":
        padded = (count, *(side + -side % factor for side in sides), channels)
        grey = jnp.broadcast_to(jnp.asarray(fill, images.dtype), padded)
        images = grey.at[:, : sides[0], : sides[1]].set(images)
    height, width = (side // factor for side in images.shape[1:3])
    crops = images[:, : factor * height, : factor * width]
    crops = crops.reshape(count, factor, height, factor, width, channels)
    rows, columns = (
        jnp.asarray(interpolation_matrix(crop, side, interpolation=interpolation), images.dtype)
        for crop, side in ((height, sides[0]), (width, sides[1]))
    )
    decoded = jnp.einsum("ri,sj,npiqjc->pqnrsc", rows, columns, crops, precision=_PRECISION)
    return decoded.reshape(factor**2 * count, *sides, channels)


def check_factor(factor: int, *sides: int, interpolation: str = "corners") -> None:
    """See that every crop has a pixel of the image.

    Args:
      factor: crops along each side.
      sides: of an image, in pixels.
      interpolation: which may pad an image, see `decode`.

    Raises:
      ConfigError: there are more crops than pixels along a side, or so much padding that a crop has
        nothing else.

    >>> check_factor(2, 32, 2)
    """
    if factor > min(sides):
        raise ConfigError(
            f"--factor {factor} cuts images of {'x'.join(map(str, sides))} pixels into crops of "
            f"less than a pixel; choose 1 to {min(sides)}"
        )
    if interpolation == "half_pixel":
        for side in sides:
            if (factor - 1) * -(-side // factor) >= side:
                raise ConfigError(
                    f"--factor {factor} pads a side of {side} pixels until a crop has no other; "
                    "choose another, or --interpolation corners"
                )


def interpolation_matrix(source: int, target: int, *, interpolation: str) -> np.ndarray:
    """Weights ``[target, source]`` of linear interpolation along one axis.

    >>> interpolation_matrix(2, 4, interpolation="half_pixel").tolist()
    [[1.0, 0.0], [0.75, 0.25], [0.25, 0.75], [0.0, 1.0]]
    """
    index = np.arange(target)
    if interpolation == "corners":
        position = index * ((source - 1) / max(target - 1, 1))
    else:
        position = np.clip((index + 0.5) * source / target - 0.5, 0, source - 1)
    distance = np.abs(position[:, None] - np.arange(source))
    return np.maximum(1 - distance, 0)


def mix(images: np.ndarray, *, factor: int) -> np.ndarray:
    """Coded images that show real ones: ``factor**2`` of them, made smaller, in each.

    Args:
      images: ``[factor**2, I, H, W, C]``, those of crop (0, 0) first.
      factor: crops along each side.

    Returns:
      ``[I, H, W, C]``; the first crops of a side that is no multiple are a pixel larger.

    Raises:
      ConfigError: a factor larger than a side.

    Reference: the initialisation ``mix`` of IDC's code, which takes the nearest pixel. As there,
    `decode` cuts such a side elsewhere, so that what it makes of a crop begins or ends with a strip
    of the real image beside it.

    >>> mix(np.arange(4).reshape(4, 1, 1, 1, 1).repeat(2, 2).repeat(2, 3), factor=2)[0, ..., 0]
    array([[0, 1],
           [2, 3]])
    """
    check_factor(factor, *images.shape[2:4])
    result = np.empty(images.shape[1:], images.dtype)
    rows, columns = (np.array_split(np.arange(side), factor) for side in images.shape[2:4])
    crops = ((row, column) for row in rows for column in columns)
    for part, (row, column) in zip(images, crops, strict=True):
        nearest = [
            np.arange(len(place)) * side // len(place)
            for place, side in zip((row, column), part.shape[1:3], strict=True)
        ]
        result[:, row[0] : row[-1] + 1, column[0] : column[-1] + 1] = part[
            :, nearest[0][:, None], nearest[1]
        ]
    return result
