"""How much the first group of CIFAR10-S differs from the second: the grades of the COBRA paper.

The paper has the grades 0 to 4 of a representation difference (ICML 2026, Table 2); what they are
is in its published code alone, where they are called severity and end at 5.
"""

import numpy as np
from PIL import Image, ImageDraw

_CHANNELS = [1, 2, 0]  # green, blue and red where red, green and blue were
_SQUARE = slice(2, 7)  # its rows and its columns
_NOISE = (2.5, 50)  # mean and standard deviation, in grey levels
_RED, _GREEN = (255, 0, 0), (0, 255, 0)


def changed(images: np.ndarray, *, severity: int, rng: np.random.RandomState) -> np.ndarray:
    """Images as the first group shows them, in colour.

    Each grade has the changes of those before: 0 none; 1 the channels in another order; 2 a red
    line of two pixels from the top left to the bottom right; 3 a red square of five pixels near the
    top left; 4 Gaussian noise, whose fractions are cut off, and then a green line of three pixels
    from the bottom left to the top right.

    Args:
      images: uint8 ``[N, H, W, 3]``.
      severity: the grade, 0..4.
      rng: source of the noise, drawn image by image.

    Returns:
      uint8 ``[N, H, W, 3]``; the input is left as it is.

    Lines are drawn by Pillow, as officially.

    >>> image = np.full((1, 8, 8, 3), [10, 20, 30], np.uint8)
    >>> one, two = (
    ...     changed(image, severity=s, rng=np.random.RandomState(0))[0] for s in (1, 2)
    ... )
    >>> one[3, 3].tolist(), two[3, 3].tolist(), two[0, 7].tolist()
    ([20, 30, 10], [255, 0, 0], [20, 30, 10])
    """
    if not severity:
        return images.copy()
    result = np.ascontiguousarray(images[..., _CHANNELS])
    height, width = images.shape[1:3]
    if severity >= 2:
        result[:, _line((0, 0, width, height), (width, height), thickness=2)] = _RED
    if severity >= 3:
        result[:, _SQUARE, _SQUARE] = _RED
    if severity >= 4:
        for image in result:  # the noise of all at once would be many times as large as they
            noise = rng.normal(*_NOISE, image.shape).astype(np.int16)
            image[:] = np.clip(image + noise, 0, 255)
        result[:, _line((0, height, width, 0), (width, height), thickness=3)] = _GREEN
    return result


def _line(ends: tuple[int, int, int, int], size: tuple[int, int], *, thickness: int) -> np.ndarray:
    """Booleans ``[H, W]``, where a line is."""
    mask = Image.new("1", size)
    ImageDraw.Draw(mask).line(ends, fill=1, width=thickness)
    return np.asarray(mask)
