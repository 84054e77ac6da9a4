"""Where the synthetic images start."""

from typing import NamedTuple, get_args

import jax
import numpy as np

from fairdd_jax import formation
from fairdd_jax.config import Init
from fairdd_jax.data import Dataset
from fairdd_jax.errors import ConfigError, unknown_name


class Start(NamedTuple):
    """Synthetic images before the first update."""

    images: np.ndarray
    """``[C, I, H, W, channels]``, normalised."""
    groups: np.ndarray | None
    """``[C, factor**2 I]``: group of the real image that each decoded one shows; None for noise."""


def initial_images(
    key: jax.Array, dataset: Dataset, *, ipc: int, init: str, factor: int = 1
) -> Start:
    """Choose where the synthetic images start.

    Args:
      key: random key.
      dataset: the real images.
      ipc: images per class I.
      init: ``real``, random images of the class; ``mix``, ``factor**2`` small ones in each;
        ``balanced``, the same, and from its groups in turn; ``noise``, standard normal.
      factor: crops along each side of an image, see `fairdd_jax.formation`.

    Raises:
      ConfigError: a class has too few images, an unknown ``init``, or a factor larger than an
        image's side where several images are put into one.

    >>> images = np.zeros((8, 4, 4, 3), np.uint8)
    >>> split = images, [0, 0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 1, 0, 1, 1, 1]
    >>> dataset = Dataset.from_arrays(split, split)
    >>> start = initial_images(jax.random.key(0), dataset, ipc=2, init="balanced")
    >>> start.images.shape, np.sort(start.groups).tolist()
    ((2, 2, 4, 4, 3), [[0, 1], [0, 1]])
    """
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    if init == "noise":
        shape = (dataset.num_classes, ipc, *dataset.image_shape)
        return Start(rng.standard_normal(shape, dtype=np.float32), None)
    if init not in get_args(Init):
        raise unknown_name("init", init, get_args(Init))
    parts = parts_of(init, factor=factor)
    chosen = np.stack(
        [
            _members(rng, dataset, label, init == "balanced", ipc=ipc, parts=parts)
            for label in range(dataset.num_classes)
        ]
    ).reshape(dataset.num_classes, parts, ipc)
    pixels = dataset.train.images[chosen]
    if parts > 1:
        pixels = np.stack([formation.mix(images, factor=factor) for images in pixels])
    else:
        pixels = pixels[:, 0]
    images = dataset.normalise(pixels)
    groups = dataset.train.groups[chosen].reshape(dataset.num_classes, -1)
    return Start(np.asarray(images), np.tile(groups, (1, factor**2 // parts)))


def parts_of(init: str, *, factor: int) -> int:
    """Real images that each synthetic one starts from.

    >>> [parts_of(init, factor=2) for init in ("real", "mix", "balanced", "noise")]
    [1, 4, 4, 0]
    """
    if init == "noise":
        return 0
    return factor**2 if init in ("mix", "balanced") else 1


def _members(
    rng: np.random.Generator, dataset: Dataset, label: int, balanced: bool, *, ipc: int, parts: int
) -> np.ndarray:
    """As many images of a class, chosen at random."""
    count = parts * ipc
    members = rng.permutation(np.flatnonzero(dataset.train.labels == label))
    if len(members) < count:
        wanted = f"ipc {ipc}" if parts == 1 else f"ipc {ipc} with {parts} images in each"
        raise ConfigError(
            f"{wanted} is more than the {len(members)} real images of class "
            f"'{dataset.classes[label]}'; choose a smaller --ipc, or --init noise"
        )
    if balanced:
        groups = dataset.train.groups[members]
        turn = np.zeros(len(members), int)
        for group in np.unique(groups):
            turn[groups == group] = np.arange((groups == group).sum())
        members = members[np.argsort(turn, kind="stable")]
    return members[:count]
