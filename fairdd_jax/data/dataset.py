"""What every data source returns: uint8 images with a label and a group each, checked once."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Self, get_args

import jax
import numpy as np
from numpy.typing import ArrayLike

from fairdd_jax.data.normalise import normalise, to_pixels
from fairdd_jax.errors import DataError

SplitName = Literal["train", "test"]
SPLITS: tuple[SplitName, ...] = get_args(SplitName)
_CHUNK = 1024  # images; bounds the temporary memory of the statistics
_FINGERPRINTED = 256  # images of a split


@dataclass(frozen=True, eq=False)
class Split:
    """Images with the target label and the protected group of each.

    Labels and groups may be given as any integers (a list, int64, ...); they are kept as int32.

    Attributes:
      images: uint8 ``[N, H, W, C]``, values 0..255.
      labels: int32 ``[N]``, the target attribute.
      groups: int32 ``[N]``, the protected attribute.

    Raises:
      DataError: on a wrong dtype or shape, a negative or non-integer index, lengths that
        differ, or no image at all.
    """

    images: np.ndarray
    labels: np.ndarray
    groups: np.ndarray

    def __post_init__(self) -> None:
        images = np.asanyarray(self.images)  # a memory map stays one
        if images.dtype != np.uint8:
            raise DataError(
                f"images must be uint8 in 0..255, got {images.dtype}; "
                "for floats in [0, 1] pass np.round(255 * images).astype(np.uint8)"
            )
        if images.ndim != 4 or 0 in images.shape:
            raise DataError(
                f"images must be a non-empty [N, H, W, C] array, got shape {images.shape}; "
                "for grey images pass images[..., None]"
            )
        object.__setattr__(self, "images", images)
        for name in ("labels", "groups"):
            object.__setattr__(self, name, _indices(getattr(self, name), name, len(images)))

    def __len__(self) -> int:
        return len(self.images)

    def subset(self, positions: np.ndarray) -> Self:
        """The images at some positions."""
        return type(self)(self.images[positions], self.labels[positions], self.groups[positions])


def _indices(values: ArrayLike, name: str, length: int) -> np.ndarray:
    """The values as int32 [length], or the error that says what is wrong with them."""
    array = np.asarray(values)
    if array.shape != (length,):
        raise DataError(
            f"{name} must be one integer per image, shape ({length},), got shape {array.shape}"
        )
    if array.dtype.kind not in "iu":
        raise DataError(f"{name} must be integers, got {array.dtype}")
    if array.min() < 0 or array.max() > np.iinfo(np.int32).max:
        raise DataError(f"{name} must be in 0..2**31 - 1, got {array.min()}..{array.max()}")
    return array.astype(np.int32, copy=False)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A training and a test split with the names and the normalisation that go with them.

    Attributes:
      name: name of the data set, for reports.
      train: the images to distil.
      test: the images that score a distilled set.
      classes: name of each target class.
      groups: name of each protected group.
      mean: mean per channel, in units of the image range [0, 1].
      std: standard deviation per channel, in the same units.
      notes: what was found while reading that a person should know.

    Raises:
      DataError: on a label or group without a name, splits of different image shapes, or a
        mean or std that does not fit the channels.
    """

    name: str
    train: Split
    test: Split
    classes: tuple[str, ...]
    groups: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for where, split in (("train", self.train), ("test", self.test)):
            for what, values, names in (
                ("label", split.labels, self.classes),
                ("group", split.groups, self.groups),
            ):
                if values.max() >= len(names):
                    raise DataError(
                        f"{self.name}: the {where} split has the {what} {values.max()}, "
                        f"but {len(names)} names mean 0..{len(names) - 1}"
                    )
        missing = np.setdiff1d(np.arange(self.num_classes), self.train.labels)
        if missing.size:
            raise DataError(
                f"{self.name}: class '{self.classes[missing[0]]}' has no training image; "
                "leave it out, or number the classes 0, 1, ... without gaps"
            )
        if self.train.images.shape[1:] != self.test.images.shape[1:]:
            raise DataError(
                f"{self.name}: train images are {self.train.images.shape[1:]} and test images "
                f"{self.test.images.shape[1:]}; both must have one shape [H, W, C]"
            )
        channels = self.image_shape[-1]
        if channels not in (1, 3):
            raise DataError(f"{self.name}: images have {channels} channels; convert them to 1 or 3")
        lengths = {len(self.mean), len(self.std)}
        if lengths != {channels} or not all(value > 0 for value in self.std):
            raise DataError(
                f"{self.name}: mean and std need one value per channel ({channels}) and std must "
                f"be positive, got mean {self.mean} and std {self.std}"
            )

    @classmethod
    def from_arrays(
        cls,
        train: tuple[ArrayLike, ArrayLike, ArrayLike],
        test: tuple[ArrayLike, ArrayLike, ArrayLike],
        *,
        name: str = "arrays",
        classes: Sequence[str] | None = None,
        groups: Sequence[str] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> Self:
        """A data set from plain arrays; what is not given is read off the training images.

        Args:
          train: images uint8 ``[N, H, W, C]``, labels ``[N]``, groups ``[N]``.
          test: the same for the test split.
          name: name of the data set, for reports.
          classes: name of each class; by default "0", "1", ... up to the largest label.
          groups: name of each group; by default "0", "1", ...
          mean: mean per channel in [0, 1]; by default that of the training images.
          std: standard deviation per channel; by default that of the training images (1 for a
            channel that is constant).

        Returns:
          The checked data set.

        Raises:
          DataError: as `Split` and `Dataset` do.

        >>> images = np.zeros((4, 8, 8, 1), np.uint8)
        >>> images[2:] = 255
        >>> split = (images, [0, 0, 1, 1], [0, 1, 0, 1])
        >>> data = Dataset.from_arrays(split, split)
        >>> data.classes, data.mean, data.std
        (('0', '1'), (0.5,), (0.5,))
        """
        train_split, test_split = Split(*map(np.asarray, train)), Split(*map(np.asarray, test))
        train_mean, train_std = channel_statistics(train_split.images)
        return cls(
            name,
            train_split,
            test_split,
            _names(classes, train_split.labels, test_split.labels),
            _names(groups, train_split.groups, test_split.groups),
            tuple(map(float, train_mean if mean is None else mean)),
            tuple(map(float, train_std if std is None else std)),
        )

    @property
    def num_classes(self) -> int:
        """Number of target classes."""
        return len(self.classes)

    @property
    def num_groups(self) -> int:
        """Number of protected groups."""
        return len(self.groups)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of an image."""
        height, width, channels = self.train.images.shape[1:]
        return height, width, channels

    def normalise(self, images: jax.Array | np.ndarray) -> jax.Array:
        """What networks see of pixels v: (v / 255 - mean) / std, channel by channel."""
        return normalise(images, mean=self.mean, std=self.std)

    def to_pixels(self, images: np.ndarray) -> np.ndarray:
        """Its inverse, clipped to the pixel range and rounded."""
        return to_pixels(images, mean=self.mean, std=self.std)

    @cached_property
    def fingerprint(self) -> str:
        """A hash that tells this data set from others, of its names and normalisation, of all
        labels and groups, and of some of the images."""
        normalisation = np.round([self.mean, self.std], 5).tolist()
        about = [self.name, self.classes, self.groups, self.image_shape, normalisation]
        digest = hashlib.sha256(json.dumps(about).encode())
        for split in (self.train, self.test):
            some = np.unique(np.linspace(0, len(split) - 1, _FINGERPRINTED).astype(int))
            for array in (split.labels, split.groups, split.images[some]):
                digest.update(array.tobytes())
        return digest.hexdigest()

    def cell_counts(self, split: Split) -> np.ndarray:
        """Number of images of each (class, group) cell.

        Args:
          split: ``self.train`` or ``self.test``.

        Returns:
          int64 [classes, groups].

        >>> images = np.zeros((3, 8, 8, 3), np.uint8)
        >>> split = (images, [0, 1, 1], [0, 1, 1])
        >>> data = Dataset.from_arrays(split, split)
        >>> data.cell_counts(data.train).tolist()
        [[1, 0], [0, 2]]
        """
        cells = split.labels * self.num_groups + split.groups
        counts = np.bincount(cells, minlength=self.num_classes * self.num_groups)
        return counts.reshape(self.num_classes, self.num_groups)


def _names(given: Sequence[str] | None, *indices: np.ndarray) -> tuple[str, ...]:
    if given is not None:
        return tuple(given)
    largest = max(int(values.max()) for values in indices)
    if largest >= sum(len(values) for values in indices):
        raise DataError(
            f"labels and groups must be numbered 0, 1, ..., got {largest} with fewer images"
        )
    return tuple(str(index) for index in range(largest + 1))


def channel_statistics(images: np.ndarray) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per channel in [0, 1], exact, from counts of grey levels.

    A constant channel has the deviation 1.

    Args:
      images: uint8 ``[N, H, W, C]``.

    >>> images = np.zeros((2, 4, 4, 3), np.uint8)
    >>> images[1, ..., 0] = 255
    >>> channel_statistics(images)
    ([0.5, 0.0, 0.0], [0.5, 1.0, 1.0])
    """
    mean, std = [], []
    levels = np.arange(256) / 255
    for channel in np.moveaxis(images, -1, 0):
        counts = np.zeros(256, np.int64)
        for start in range(0, len(channel), _CHUNK):
            counts += np.bincount(channel[start : start + _CHUNK].ravel(), minlength=256)
        share = counts / counts.sum()
        mean.append(float(share @ levels))
        std.append(float(np.sqrt(share @ (levels - mean[-1]) ** 2)) or 1.0)
    return mean, std
