"""MNIST and Fashion-MNIST in up to ten colours, and the demo's digits: bias put in on purpose."""

from functools import partial
from pathlib import Path

import numpy as np

from fairdd_jax.data import bias, digits, idx, tfds_source
from fairdd_jax.data.config import DataConfig
from fairdd_jax.data.dataset import Dataset, Split
from fairdd_jax.data.listing import Find, Labelled, Source, unbiased_splits

_DIGITS = tuple("0123456789")
_GARMENTS = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


def _load_coloured(
    config: DataConfig,
    data_dir: Path | None,
    download: bool,
    *,
    files: str,
    kind: bias.Kind,
    ground: bias.Ground,
    classes: tuple[str, ...],
) -> Dataset:
    """A biased data set as the official code makes it: one random stream, train and then test."""
    train, test = unbiased_splits(*_grey_images(files, data_dir, download), config)
    table = bias.colour_table(kind, ground, clean=config.clean_colours)
    rng = np.random.RandomState(config.seed)
    return _dataset(
        config,
        _biased(train, config.bias_ratio, config.minority, config.colours, table, rng),
        _biased(test, 1 / config.colours, "equal", config.colours, table, rng),
        classes,
    )


def _load_demo(config: DataConfig, data_dir: Path | None, download: bool) -> Dataset:
    """Biased training digits, and every test digit in every colour: a small but even test set."""
    train, (test_images, test_labels) = unbiased_splits(*digits.load(), config)
    table = bias.colour_table("mnist", "fg")
    rng = np.random.RandomState(config.seed)
    source = np.repeat(np.arange(len(test_labels)), config.colours)
    colours = np.tile(np.arange(config.colours), len(test_labels))
    return _dataset(
        config,
        _biased(train, config.bias_ratio, config.minority, config.colours, table, rng),
        _shown(test_images, test_labels, source, colours, table),
        _DIGITS,
    )


def _biased(
    data: Labelled,
    ratio: float,
    minority: bias.Minority,
    colours: int,
    table: np.ndarray,
    rng: np.random.RandomState,
) -> Split:
    images, labels = data
    source, assigned = bias.assign_colours(
        labels, ratio=ratio, rng=rng, minority=minority, colours=colours
    )
    return _shown(images, labels, source, assigned, table)


def _shown(
    images: np.ndarray,
    labels: np.ndarray,
    source: np.ndarray,
    colours: np.ndarray,
    table: np.ndarray,
) -> Split:
    coloured = bias.colour_images(images, source, colours, table=table)
    return Split(coloured, labels[source], colours)


def _dataset(config: DataConfig, train: Split, test: Split, classes: tuple[str, ...]) -> Dataset:
    half = (0.5,) * 3
    groups = bias.COLOUR_NAMES[: config.colours]
    return Dataset(config.name, train, test, classes, groups, mean=half, std=half)


def _grey_images(name: str, data_dir: Path | None, download: bool) -> tuple[Labelled, Labelled]:
    """The training and the test split of "mnist" or "fashion_mnist" from where they are found."""
    for root in (data_dir, idx.SYSTEM_DIR):
        if root is not None and (folder := idx.find_folder(root, name)):
            return idx.load(folder, name, "train"), idx.load(folder, name, "test")
    copy = tfds_source.copy_of(
        name,
        data_dir,
        download,
        copies=[name],
        files="train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz "
        "and t10k-labels-idx1-ubyte.gz",
        folder=name,
    )
    return tfds_source.load(copy, "train"), tfds_source.load(copy, "test")


_MNIST = partial(_load_coloured, files="mnist", kind="mnist", classes=_DIGITS)
_FASHION = partial(_load_coloured, files="fashion_mnist", kind="fashion", classes=_GARMENTS)
_SETTINGS = frozenset({"bias_ratio", "minority", "colours", "seed"})


def _source(find: Find, *more: str) -> Source:
    return Source(find, _SETTINGS | {*more}, holds_out=True)


SOURCES = {
    "demo": _source(_load_demo),
    "cmnist_fg": _source(partial(_MNIST, ground="fg")),
    "cmnist_bg": _source(partial(_MNIST, ground="bg")),
    "cfmnist_fg": _source(partial(_FASHION, ground="fg")),
    # The only one whose official colours are not clean.
    "cfmnist_bg": _source(partial(_FASHION, ground="bg"), "clean_colours"),
}
