"""From an encoded image to uint8 pixels of one size, by Pillow."""

import dataclasses
import io
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import ExifTags, Image

from fairdd_jax.data.balance import to_grey
from fairdd_jax.errors import one_line

Fit = Literal["crop", "stretch"]

# Pixels that an image may be long after scaling, before it is cut.
_LONGEST = 2**16

# First band of Pillow's modes that have no colour.
_GREY_BANDS = ("1", "L", "I")

# What turns an image upright, by the orientation that its EXIF says.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class DamagedImageError(Exception):
    """These bytes are no image, or not a whole one."""


@dataclass(frozen=True)
class Transform:
    """What is done to an image of any size.

    Attributes:
      size: side of the result in pixels.
      crop: first a square of at most that many pixels is cut out of the middle; 0 leaves it out.
      fit: an image that is no square is scaled by its shorter side and cut ("crop"), or squeezed
        ("stretch").
    """

    size: int
    crop: int = 0
    fit: Fit = "stretch"

    def describe(self) -> dict[str, int | str]:
        """As JSON has it."""
        return dataclasses.asdict(self)


def decode(data: bytes, transform: Transform, *, grey: bool = False) -> np.ndarray:
    """Decode an image: turn it upright as its EXIF says, convert to RGB, cut and scale.

    Scaling is Pillow's bilinear filter with antialiasing, as the official programs have it. CMYK,
    grey and palette images are converted; 16-bit greys are scaled to 8 bits, where Pillow would
    clip them; transparency is dropped. EXIF that cannot be read turns nothing.

    Args:
      data: the file's bytes.
      transform: what to do to it.
      grey: take the colour out afterwards, keeping three channels.

    Returns:
      uint8 ``[size, size, 3]``.

    Raises:
      DamagedImageError: truncated, empty or no image; the message says what it is instead.
    """
    image, _ = _opened(data)
    if transform.crop:
        side = min(transform.crop, *image.size)
        image = _centre(image, side)
    if transform.fit == "crop":
        short = min(image.size)
        sides = [int(transform.size * side / short) for side in image.size]
        if max(sides) > _LONGEST:
            raise DamagedImageError(f"it is {image.width} x {image.height} pixels, too thin to cut")
        image = _centre(
            image.resize((sides[0], sides[1]), Image.Resampling.BILINEAR), transform.size
        )
    else:
        image = image.resize((transform.size,) * 2, Image.Resampling.BILINEAR)
    pixels = np.asarray(image)
    return to_grey(pixels) if grey else pixels


def decode_as_it_is(data: bytes) -> np.ndarray:
    """Decode an image as `decode` does, but leave its size, and one channel to grey ones.

    Returns:
      uint8 ``[H, W, 1]`` if it is grey, else ``[H, W, 3]``.

    Raises:
      DamagedImageError: truncated, empty or no image.
    """
    image, is_grey = _opened(data)
    return np.asarray(image)[..., :1] if is_grey else np.asarray(image)


def _opened(data: bytes) -> tuple[Image.Image, bool]:
    """The image upright and in RGB, and whether it was grey."""
    try:
        with Image.open(io.BytesIO(data)) as opened:
            opened.load()
            return _upright(_rgb(opened), opened), opened.getbands()[0] in _GREY_BANDS
    except MemoryError:
        raise
    except Exception as error:  # Pillow's decoders raise anything from OSError to struct.error
        raise DamagedImageError(_reason(data, error)) from None


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers; convert it to 8 bits")
    if image.mode.startswith("I"):
        levels = np.asarray(image).astype(np.float64)
        deep = image.mode.startswith("I;16") or levels.max(initial=0) > 255
        top = 65535.0 if deep else 255.0
        image = Image.fromarray(np.rint(np.clip(levels / top, 0, 1) * 255).astype(np.uint8))
    if image.mode == "P":  # directly to RGB, Pillow warns about transparency
        image = image.convert("RGBA")
    return image.convert("RGB")


def _upright(image: Image.Image, opened: Image.Image) -> Image.Image:
    """The image as the EXIF of the opened one says."""
    try:
        turn = _TURNS.get(opened.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged EXIF says nothing about the pixels
        return image
    return image if turn is None else image.transpose(turn)


def _centre(image: Image.Image, side: int) -> Image.Image:
    """The square in the middle, rounded as torchvision does."""
    left, top = (round((length - side) / 2) for length in image.size)
    return image.crop((left, top, left + side, top + side))


def _reason(data: bytes, error: Exception) -> str:
    if not data:
        return "it is empty"
    start = data[:256].lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "it is a web page"
    text = one_line(error)
    return "it is no image" if text.startswith("cannot identify") else text
