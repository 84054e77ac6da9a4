"""Data sets by name: what a name means, where its files are looked for, and how it is biased."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from fairdd_jax.data import bias, digits, idx, tfds_source
from fairdd_jax.data.dataset import Dataset, Split
from fairdd_jax.errors import ConfigError, DataError, unknown_name

Labelled = tuple[np.ndarray, np.ndarray]  # images and their labels

_TEST_RATIO = 0.1  # ten colours, all equally frequent
_NOISE_STREAM = 1  # keeps the draws of the group noise apart from those of the colours

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


@dataclass(frozen=True)
class DataConfig:
    """Which data set to load and how strongly it is biased.

    Attributes:
      name: data set; `fairdd_jax.data.names()` lists them.
      bias_ratio: share of each training class that has the colour of the class, a fraction
          in [0, 1]; 0.1 is no bias. The test split has no bias, whatever this says.
      minority: how the other nine colours share the rest of a class: "equal" parts, or
          "unequal" ones in proportion 1:2:...:9, dealt to the colours at random.
      group_noise: share of the training images whose group label is replaced by another one,
          a fraction in [0, 1].
      clean_colours: for cfmnist_bg, colours that fade evenly to black instead of the official
          ones, which wrap around modulo 256; the colours of the others are clean already.
      seed: integer in [0, 2**32 - 1] that decides which image gets which colour; 30 is the
          official one.

    Raises:
      ConfigError: on a value outside its range.

    >>> DataConfig("cmnist_fg").bias_ratio
    0.9
    """

    name: str
    bias_ratio: float = 0.9
    minority: Literal["equal", "unequal"] = "equal"
    group_noise: float = 0.0
    clean_colours: bool = False
    seed: int = 30

    def __post_init__(self) -> None:
        for field in ("bias_ratio", "group_noise"):
            value = getattr(self, field)
            if not isinstance(value, int | float) or not 0 <= value <= 1:
                raise ConfigError(f"{field} must be a fraction in [0, 1], got {value!r}")
        if self.minority not in get_args(bias.Minority):
            raise ConfigError(f"minority must be 'equal' or 'unequal', got {self.minority!r}")
        if not isinstance(self.seed, int) or not 0 <= self.seed < 2**32:
            raise ConfigError(f"seed must be an integer in [0, 2**32 - 1], got {self.seed!r}")


def names() -> tuple[str, ...]:
    """The names that `DataConfig` takes.

    >>> names()
    ('cfmnist_bg', 'cfmnist_fg', 'cmnist_bg', 'cmnist_fg', 'demo')
    """
    return tuple(sorted(SOURCES))


def load(
    config: DataConfig, *, data_dir: str | Path | None = None, download: bool = False
) -> Dataset:
    """Load a data set.

    Files are looked for in `data_dir`, then in the system's folder (/usr/share/datasets), then
    as a copy prepared by tensorflow-datasets (below `data_dir` and in its default folder), and
    are downloaded only if `download` is set. `demo` needs no files.

    Args:
      config: what to load.
      data_dir: folder of the user's files; `idx.FOLDERS` lists the layouts it may have.
      download: allow a download, which needs TensorFlow.

    Returns:
      The data set. Equal arguments and files give equal arrays.

    Raises:
      ConfigError: on an unknown name.
      DataError: when the data are missing or damaged; the message says what to do.
    """
    if config.name not in SOURCES:
        raise unknown_name("data set", config.name, SOURCES)
    folder = None if data_dir is None else Path(data_dir).expanduser()
    return SOURCES[config.name](config, folder, download)


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
    train, test = _grey_images(files, data_dir, download)
    table = bias.colour_table(kind, ground, clean=config.clean_colours)
    rng = np.random.RandomState(config.seed)
    return _dataset(
        config,
        _biased(train, config.bias_ratio, config.minority, table, rng),
        _biased(test, _TEST_RATIO, "equal", table, rng),
        classes,
    )


def _load_demo(config: DataConfig, data_dir: Path | None, download: bool) -> Dataset:
    """Biased training digits, and every test digit in every colour: a small but even test set."""
    train, (test_images, test_labels) = digits.load()
    table = bias.colour_table("mnist", "fg")
    rng = np.random.RandomState(config.seed)
    source = np.repeat(np.arange(len(test_labels)), len(bias.COLOURS))
    colours = np.tile(np.arange(len(bias.COLOURS)), len(test_labels))
    return _dataset(
        config,
        _biased(train, config.bias_ratio, config.minority, table, rng),
        _shown(test_images, test_labels, source, colours, table),
        _DIGITS,
    )


def _biased(
    data: Labelled,
    ratio: float,
    minority: bias.Minority,
    table: np.ndarray,
    rng: np.random.RandomState,
) -> Split:
    images, labels = data
    source, colours = bias.assign_colours(labels, ratio=ratio, rng=rng, minority=minority)
    return _shown(images, labels, source, colours, table)


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
    noise = np.random.default_rng([config.seed, _NOISE_STREAM])
    groups = bias.flip_groups(
        train.groups, fraction=config.group_noise, num_groups=len(bias.COLOURS), rng=noise
    )
    half = (0.5,) * 3
    train = Split(train.images, train.labels, groups)
    return Dataset(config.name, train, test, classes, bias.COLOUR_NAMES, mean=half, std=half)


def _grey_images(name: str, data_dir: Path | None, download: bool) -> tuple[Labelled, Labelled]:
    """The training and the test split of "mnist" or "fashion_mnist" from where they are found."""
    try:
        for root in (data_dir, idx.SYSTEM_DIR):
            if root is not None and (folder := idx.find_folder(root, name)):
                return idx.load(folder, name, "train"), idx.load(folder, name, "test")
        copy = tfds_source.find_copy(data_dir, name)
        if copy is None and download:
            copy = tfds_source.prepare(data_dir, name)
        if copy is not None:
            return tfds_source.load(copy, "train"), tfds_source.load(copy, "test")
    except OSError as error:
        raise DataError(f"looking for {name}: {error}") from error
    where = data_dir or Path("DATA_DIR")
    absent = f" ({data_dir} does not exist)" if data_dir and not data_dir.exists() else ""
    raise DataError(
        f"{name} not found{absent}: put train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, "
        f"t10k-images-idx3-ubyte.gz and t10k-labels-idx1-ubyte.gz into {where / name} and pass "
        f"--data_dir {where}, or prepare a tfds copy of {name} (file_format array_record), or "
        "allow a download with --download"
    )


_MNIST = partial(_load_coloured, files="mnist", kind="mnist", classes=_DIGITS)
_FASHION = partial(_load_coloured, files="fashion_mnist", kind="fashion", classes=_GARMENTS)

# What makes each data set from (config, data_dir, download); a new source is one more entry.
SOURCES: dict[str, Callable[[DataConfig, Path | None, bool], Dataset]] = {
    "demo": _load_demo,
    "cmnist_fg": partial(_MNIST, ground="fg"),
    "cmnist_bg": partial(_MNIST, ground="bg"),
    "cfmnist_fg": partial(_FASHION, ground="fg"),
    "cfmnist_bg": partial(_FASHION, ground="bg"),
}
