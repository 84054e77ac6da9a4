"""What a source is: a name for images with labels and groups, of which some may be held out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self, TypeAlias

import numpy as np

from fairdd_jax.data.balance import stratified_split
from fairdd_jax.data.config import DataConfig
from fairdd_jax.data.dataset import Dataset
from fairdd_jax.data.decode import Transform
from fairdd_jax.data.files import ImageFiles
from fairdd_jax.errors import DataError


@dataclass(frozen=True, eq=False)
class Listed:
    """A split by its files.

    Attributes:
      files: encoded images.
      chosen: integers ``[N]``, which of the files the split has, in its order; one may come twice.
      labels: integers ``[N]``.
      groups: integers ``[N]``.
      grey: booleans ``[N]``, which are shown without colour; none by default.
    """

    files: ImageFiles
    chosen: np.ndarray
    labels: np.ndarray
    groups: np.ndarray
    grey: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.chosen)

    def subset(self, positions: np.ndarray) -> Self:
        """The images at some positions."""
        grey = None if self.grey is None else self.grey[positions]
        chosen, labels, groups = (a[positions] for a in (self.chosen, self.labels, self.groups))
        return replace(self, chosen=chosen, labels=labels, groups=groups, grey=grey)


@dataclass(frozen=True, eq=False)
class Listing:
    """A data set before its images are decoded.

    Attributes:
      name: name of the data set.
      train, test: its splits.
      classes, groups: a name for every label and group.
      transform: how the images are brought to one size.
      mean, std: normalisation per channel; measured on the training images if None.
      notes: what was found on the way that a person should know.
    """

    name: str
    train: Listed
    test: Listed
    classes: tuple[str, ...]
    groups: tuple[str, ...]
    transform: Transform
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    notes: tuple[str, ...] = ()


Labelled: TypeAlias = tuple[np.ndarray, np.ndarray]
"""Images and their labels."""
Find: TypeAlias = Callable[[DataConfig, Path | None, bool], Dataset | Listing]


@dataclass(frozen=True)
class Source:
    """A data set that has a name: the protocol that a new one implements.

    Attributes:
      find: ``(config, data_dir, download)`` to the data set: a `Dataset` of arrays, or a `Listing`
        of files, which are then decoded and cached. It raises DataError for what is missing or
        damaged.
      settings: fields of `DataConfig` that it has, besides the name and those with defaults; others
        are refused.
      defaults: its own values of fields that are None unless the user says otherwise.
      holds_out: whether ``find`` itself sees to ``validation``, since it makes the bias afterwards.

    >>> from fairdd_jax.data import Dataset
    >>> def noise(config, data_dir, download):
    ...     rng = np.random.default_rng(config.seed)
    ...     images = rng.integers(0, 256, (8, 8, 8, 3), np.uint8)
    ...     split = images, np.arange(8) % 2, np.arange(8) // 4
    ...     return Dataset.from_arrays(split, split, name="noise")
    >>> source = Source(noise, frozenset({"seed"}))
    >>> len(source.find(DataConfig("noise"), None, False).train)
    8
    """

    find: Find
    settings: frozenset[str] = frozenset()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    holds_out: bool = False


def hold_out(
    labels: np.ndarray, groups: np.ndarray, *, config: DataConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the training images that stay, and of those that ``validation`` holds out.

    Raises:
      DataError: it holds out none.

    >>> config = DataConfig("demo", validation=0.25)
    >>> kept, held = hold_out(np.repeat([0, 1], 4), np.zeros(8, int), config=config)
    >>> len(kept), len(held)
    (6, 2)
    """
    rng = np.random.RandomState(config.seed)
    kept, held = stratified_split(labels, groups, fraction=config.validation, rng=rng)
    if not held.size:
        raise DataError(
            f"--data.validation {config.validation} holds out no image of {config.name}; take a "
            "larger share"
        )
    return kept, held


def unbiased_splits(
    train: Labelled, test: Labelled, config: DataConfig
) -> tuple[Labelled, Labelled]:
    """Both splits before a bias is made, or what is left of the first and what is held out of it.

    Raises:
      DataError: nothing is held out though something should be.
    """
    if not config.validation:
        return train, test
    images, labels = train
    kept, held = hold_out(labels, np.zeros_like(labels), config=config)
    return (images[kept], labels[kept]), (images[held], labels[held])
