"""Data sets by name."""

import dataclasses
import os
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from fairdd_jax.data import bffhq, cache, celeba, cifar, coloured, imagenet, own, utkface
from fairdd_jax.data.balance import balanced_subset
from fairdd_jax.data.config import DataConfig
from fairdd_jax.data.dataset import Dataset, Split
from fairdd_jax.data.listing import Listed, Listing, Source, hold_out
from fairdd_jax.errors import ConfigError, DataError, unknown_name

Found = TypeVar("Found", Dataset, Listing)

# What each name means; a new data set is one more entry.
SOURCES: dict[str, Source] = {
    **coloured.SOURCES,
    "cifar10s": cifar.SOURCE,
    "celeba": celeba.SOURCE,
    "utkface": utkface.SOURCE,
    "bffhq": bffhq.SOURCE,
    **imagenet.SOURCES,
    "images": own.SOURCE,
}


def names() -> tuple[str, ...]:
    """The names that `DataConfig` takes.

    >>> "celeba" in names()
    True
    """
    return tuple(sorted(SOURCES))


def load(
    config: DataConfig,
    *,
    data_dir: str | Path | None = None,
    download: bool = False,
    cache_dir: str | Path | None = None,
    on_decoded: cache.OnDecoded = lambda images: None,
) -> Dataset:
    """Load a data set.

    Files are looked for in ``data_dir``, then in the system's folder (/usr/share/datasets), then
    as a copy prepared by tensorflow-datasets (below ``data_dir`` and in its default folder, that of
    ``images`` below ``data_dir`` alone), and are downloaded only if ``download`` is set. ``demo``
    needs no files. Encoded images are decoded once and kept in ``cache_dir``.

    Args:
      config: what to load.
      data_dir: folder of the user's files.
      download: allow a download, which needs TensorFlow.
      cache_dir: where decoded images are kept; by default in the user's cache folder.
      on_decoded: told how many images were just decoded.

    Returns:
      The data set. Equal arguments and files give equal arrays.

    Raises:
      ConfigError: on an unknown name, or a setting that the data set does not have.
      DataError: when the data are missing or damaged; the message says what to do.
      WorkdirError: the cache cannot be written.

    >>> demo = load(DataConfig("demo", colours=4))
    >>> demo.image_shape, demo.num_classes, demo.num_groups
    ((32, 32, 3), 10, 4)
    """
    if config.name not in SOURCES:
        raise unknown_name("data set", config.name, SOURCES)
    config, source = resolved(config), SOURCES[config.name]
    folder = None if data_dir is None else Path(os.path.expanduser(data_dir))
    try:
        found = source.find(config, folder, download)
    except OSError as error:
        raise DataError(f"looking for {config.name}: {error}") from error
    if isinstance(found, Dataset):
        return _chosen(found, source, config)
    return cache.load(
        _chosen(found, source, config),
        folder=Path(os.path.expanduser(cache_dir)) if cache_dir else cache.default_folder(),
        leave_out_damaged=config.damaged == "leave_out",
        on_decoded=on_decoded,
    )


def resolved(config: DataConfig) -> DataConfig:
    """The configuration with the data set's own values where it has None.

    One whose name is not in `SOURCES`, as that of arrays, stays as it is.

    Raises:
      ConfigError: a setting that the data set does not have.

    >>> resolved(DataConfig("celeba", protected="young")).target
    'attractive'
    """
    if config.name not in SOURCES:
        return config
    source = SOURCES[config.name]
    settings = source.settings | source.defaults.keys() | {"validation", "test_without"}
    settings |= {"seed"} if config.validation else set()
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name != "name" and value != field.default and field.name not in settings:
            raise ConfigError(
                f"--data.{field.name} {value} means nothing to {config.name}; it has "
                f"{', '.join(sorted(settings))}"
            )
    unset = (name for name in source.defaults if getattr(config, name) is None)
    return replace(config, **{name: source.defaults[name] for name in unset})


def _chosen(found: Found, source: Source, config: DataConfig) -> Found:
    """What is left of the training images, and what is scored."""
    if config.validation and not source.holds_out:
        kept, held = hold_out(found.train.labels, found.train.groups, config=config)
        found = replace(found, train=found.train.subset(kept), test=found.train.subset(held))
    if config.validation:
        note = (
            f"scores are of {len(found.test)} images made of training images that were held out "
            f"(--data.validation {config.validation}), not of the test images"
        )
        found = replace(found, notes=(*found.notes, note))
    if config.test_without:
        found = _without_last(found, config)
    if config.balanced:
        found = replace(found, train=found.train.subset(_even_positions(found.train, config)))
    return found


def _without_last(found: Found, config: DataConfig) -> Found:
    """The data set without the test images of its last groups."""
    count = len(found.groups) - config.test_without
    kept = np.flatnonzero(found.test.groups < count)
    left = np.unique(found.test.groups[kept]).size
    if left < 2:
        raise ConfigError(
            f"--data.test_without {config.test_without} leaves test images of {left} of the "
            f"{len(found.groups)} groups of {config.name}, and gaps are between two or more; take "
            "fewer"
        )
    note = (
        f"scores are of {kept.size} of {len(found.test)} images: those of the groups "
        f"{', '.join(found.groups[count:])} are left out (--data.test_without "
        f"{config.test_without})"
    )
    return replace(found, test=found.test.subset(kept), notes=(*found.notes, note))


def _even_positions(train: Split | Listed, config: DataConfig) -> np.ndarray:
    rng = np.random.RandomState(config.seed)
    kept = balanced_subset(train.labels, train.groups, rng=rng)
    if not kept.size:
        raise DataError(
            f"{config.name} cannot be balanced: a (class, group) cell has no training image; leave "
            "out --data.balanced"
        )
    return kept
