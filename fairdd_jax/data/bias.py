"""Bias that is put into a data set on purpose: colours tied to classes, and noise in groups.

Biased MNIST (Bahng et al., "Learning De-biased Representations with Biased Representations",
ICML 2020) as FairDD uses it: colour k is the own colour of class k, and the colour index is the
protected group. All rules and random draws follow the official FairDD code, so that a seed gives
the official data set, image for image.
"""

from typing import Literal, get_args

import numpy as np

from fairdd_jax.errors import ConfigError, DataError

COLOURS = np.array(
    [
        [255, 0, 0],
        [255, 128, 0],
        [255, 255, 0],
        [255, 255, 128],
        [0, 255, 0],
        [0, 255, 255],
        [0, 0, 255],
        [128, 0, 255],
        [255, 0, 255],
        [255, 255, 255],
    ],
    np.uint8,
)
COLOUR_NAMES = (
    "red",
    "orange",
    "yellow",
    "pale yellow",
    "green",
    "cyan",
    "blue",
    "purple",
    "magenta",
    "white",
)

Minority = Literal["equal", "unequal"]
Kind = Literal["mnist", "fashion"]
Ground = Literal["fg", "bg"]

_BORDER = 4  # pixels, above and to the left
_THRESHOLD = 128  # grey level from which a pixel of a digit counts as foreground
_CHUNK = 1024  # images coloured at a time; bounds the temporary memory


def assign_colours(
    labels: np.ndarray,
    *,
    ratio: float,
    rng: np.random.RandomState,
    minority: Minority = "equal",
    colours: int = len(COLOURS),
    n_confusing_labels: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Give each image a colour, most of a class its own one, and shuffle.

    With N colours, of the n images of class c, int(n * ratio) get colour c modulo N. The others are
    cut into pieces, one for each of the colours c+1, ..., c+n_confusing_labels (modulo N) in random
    order:

    - "equal" (official): pieces of ceil(rest / n_confusing_labels) images, the last one shorter;
      when the rest is small, some colours get no image at all.
    - "unequal" (ours): pieces in proportion 1 : 2 : ... : n_confusing_labels, rounded by the
      largest remainder (the earlier piece first where remainders are equal).

    Both draw the same random numbers: per class a shuffle of its images and of its other
    colours, and one shuffle of everything, colour by colour, at the end.

    Args:
      labels: integers ``[N]``, 0..9.
      ratio: share of a class in its own colour, in [0, 1].
      rng: source of the random numbers; the official data sets draw the training split and
        then the test split from ``RandomState(30)``.
      minority: how the other colours share the rest.
      colours: N, how many of the ten colours there are, 2..10. Fewer than all of them are ours: the
        FairDD paper has 2 to 10 groups (Table 13) and does not print how it made them. Then some
        classes have the same own colour.
      n_confusing_labels: number of other colours of a class, 1..N - 1; by default N - 1.

    Returns:
      ``source`` and ``colours``, int ``[N]`` both: the index into ``labels`` of each image in the
      final order, and its colour.

    Raises:
      ConfigError: on a ratio, minority, colours or n_confusing_labels that is not allowed.
      DataError: on a label outside 0..9.

    >>> labels = np.repeat(np.arange(10), 10)
    >>> source, colours = assign_colours(labels, ratio=0.8, rng=np.random.RandomState(0))
    >>> int(np.sum(labels[source] == colours))
    80
    """
    if not 0 <= ratio <= 1:
        raise ConfigError(f"ratio must be a fraction in [0, 1], got {ratio}")
    if minority not in get_args(Minority):
        raise ConfigError(f"minority must be one of {get_args(Minority)}, got {minority!r}")
    if not 2 <= colours <= len(COLOURS):
        raise ConfigError(f"colours must be in 2..{len(COLOURS)}, got {colours}")
    confusing = colours - 1 if n_confusing_labels is None else n_confusing_labels
    if not 1 <= confusing < colours:
        raise ConfigError(f"n_confusing_labels must be in 1..{colours - 1}, got {confusing}")
    if labels.min() < 0 or labels.max() >= len(COLOURS):
        raise DataError(
            f"there are ten colours for the labels 0..9, got {labels.min()}..{labels.max()}"
        )
    by_colour: list[list[np.ndarray]] = [[] for _ in range(colours)]
    for label in range(len(COLOURS)):
        members = np.flatnonzero(labels == label)
        rng.shuffle(members)
        own = int(len(members) * ratio)
        by_colour[label % colours].append(members[:own])
        others = [(label + step) % colours for step in range(1, confusing + 1)]
        rng.shuffle(others)
        ends = np.cumsum(_pieces(len(members) - own, confusing, minority))
        for other, piece in zip(others, np.split(members[own:], ends[:-1]), strict=True):
            by_colour[other].append(piece)
    groups = [np.concatenate(pieces) for pieces in by_colour]
    order = np.arange(len(labels))
    rng.shuffle(order)
    assigned = np.repeat(np.arange(colours), [len(group) for group in groups])
    return np.concatenate(groups)[order], assigned[order]


def _pieces(rest: int, count: int, minority: Minority) -> np.ndarray:
    """How many of the `rest` images each of `count` other colours gets."""
    if minority == "equal":
        size = -(-rest // count)
        return np.clip(rest - size * np.arange(count), 0, size)
    weights = np.arange(1, count + 1)
    sizes, remainders = np.divmod(rest * weights, weights.sum())
    sizes[np.argsort(-remainders, kind="stable")[: rest - sizes.sum()]] += 1
    return sizes


def flip_groups(
    groups: np.ndarray, *, fraction: float, num_groups: int, rng: np.random.Generator
) -> np.ndarray:
    """Put noise into group labels.

    Exactly round(fraction * N) images, drawn without replacement, get the label of another
    group, drawn uniformly from the others.

    Args:
      groups: integers ``[N]``, 0..num_groups - 1.
      fraction: share of the images whose group becomes wrong, in [0, 1].
      num_groups: number of groups, at least 2.
      rng: source of the random numbers.

    Returns:
      The noisy groups ``[N]``; the input is left as it is.

    Raises:
      ConfigError: on a fraction outside [0, 1] or fewer than two groups.

    >>> groups = np.zeros(8, np.int32)
    >>> noisy = flip_groups(groups, fraction=0.25, num_groups=2, rng=np.random.default_rng(0))
    >>> int(noisy.sum())
    2
    """
    if not 0 <= fraction <= 1:
        raise ConfigError(f"group noise must be a fraction in [0, 1], got {fraction}")
    if num_groups < 2:
        raise ConfigError(f"group noise needs at least two groups, got {num_groups}")
    noisy = groups.copy()
    flipped = rng.choice(len(groups), size=round(fraction * len(groups)), replace=False)
    noisy[flipped] += rng.integers(1, num_groups, size=len(flipped), dtype=groups.dtype)
    return noisy % num_groups


def colour_table(kind: Kind, ground: Ground, *, clean: bool = False) -> np.ndarray:
    """What becomes of a grey level v under each colour c.

    - mnist, fg: c where v >= 128, else black. mnist, bg: c where v < 128, else black.
    - fashion, fg: floor(v c / 255), a ramp from black (v = 0) to the colour (v = 255).
    - fashion, bg, official: with all steps in float32,
      w = (255 + (255 - v)/255 (c/255 - 255)) 255, truncated and taken modulo 256. The start
      colour 255 stands where 1 (or 0) in the range [0, 1] was meant, so w leaves 0..255 and
      mid-tones get false colours: from v = 0 (the colour) the value falls about twice as fast
      as v rises, wraps once, and ends at 1 for v = 255.
    - fashion, bg, clean (ours): floor((255 - v) c / 255), a ramp from the colour (v = 0) to
      black (v = 255). This is the mirror image of fg and agrees with the official table at both
      ends; a ramp to white would hide the garment in front of white, the tenth colour.

    Args:
      kind: "mnist" (two-valued) or "fashion" (ramps).
      ground: "fg" colours the object, "bg" what is behind it.
      clean: use the ramp without wrap-around; the other three tables are clean already.

    Returns:
      uint8 [10, 256, 3], by colour index, grey level and RGB.

    >>> colour_table("fashion", "fg")[1, [0, 128, 255]].tolist()
    [[0, 0, 0], [128, 64, 0], [255, 128, 0]]
    """
    level = np.arange(256)[None, :, None]
    colour = COLOURS[:, None, :].astype(np.int64)
    if kind == "mnist":
        coloured = level >= _THRESHOLD if ground == "fg" else level < _THRESHOLD
        table = coloured * colour
    elif ground == "fg":
        table = level * colour // 255
    elif clean:
        table = (255 - level) * colour // 255
    else:
        scale = np.float32(255)
        away = (scale - level.astype(np.float32)) / scale
        blend = scale + away * (colour.astype(np.float32) / scale - scale)
        table = (blend * scale).astype(np.int64) % 256
    return table.astype(np.uint8)


def frame(images: np.ndarray) -> np.ndarray:
    """Put four rows of zeros above and four columns left of each image (28 to 32).

    The official frame, which is not centred; it is put on before colouring, so a coloured
    background covers it too.

    Args:
      images: ``[..., H, W]`` grey levels.

    Returns:
      [..., H + 4, W + 4].

    >>> frame(np.ones((1, 28, 28), np.uint8))[0, 3:5, 3:5].tolist()
    [[0, 0], [0, 1]]
    """
    return np.pad(images, [(0, 0)] * (images.ndim - 2) + [(_BORDER, 0), (_BORDER, 0)])


def colour_images(
    images: np.ndarray, source: np.ndarray, colours: np.ndarray, *, table: np.ndarray
) -> np.ndarray:
    """Frame grey images and colour them by looking up each pixel.

    Args:
      images: uint8 [M, H, W] grey levels.
      source: int ``[N]``, which image to show.
      colours: int ``[N]``, in which colour.
      table: uint8 [10, 256, 3] of `colour_table`.

    Returns:
      uint8 [N, H + 4, W + 4, 3].

    >>> grey = np.full((1, 28, 28), 255, np.uint8)
    >>> table = colour_table("mnist", "fg")
    >>> colour_images(grey, np.array([0, 0]), np.array([0, 4]), table=table)[:, -1, -1].tolist()
    [[255, 0, 0], [0, 255, 0]]
    """
    height, width = images.shape[1:]
    out = np.empty((len(source), height + _BORDER, width + _BORDER, 3), np.uint8)
    flat = table.reshape(-1, 3)
    for start in range(0, len(source), _CHUNK):
        rows = slice(start, start + _CHUNK)
        levels = frame(images[source[rows]]) + np.intp(256) * colours[rows, None, None]
        np.take(flat, levels, axis=0, out=out[rows])
    return out
