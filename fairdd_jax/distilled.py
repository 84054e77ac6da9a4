"""A distilled set as a file: ready to train on, readable by numpy alone, equal for equal runs.

As a folder of PNG files it is in `fairdd_jax.folder`.
"""

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fairdd_jax import folder as folders
from fairdd_jax.data.normalise import normalise, to_pixels
from fairdd_jax.errors import DataError, one_line
from fairdd_jax.workdir import write_atomically

_ARRAYS = ("images", "images_float", "labels", "mean", "std", "class_names", "meta")
_CODED = "images_coded"
_FILE = "distilled.npz"  # of a run


@dataclass(frozen=True, eq=False)
class DistilledSet:
    """Synthetic images with their labels and the transform that real images need beside them.

    Attributes:
      images: ``[N, H, W, C]`` uint8, for looking at and for training after `transform`.
      images_float: ``[N, H, W, C]`` float32, normalised: exactly what the scores belong to.
      labels: ``[N]`` int32, ordered by class.
      mean: per channel, fractions of the pixel range.
      std: per channel, fractions of the pixel range.
      class_names: name of each class.
      meta: configuration, versions and scores; no path, host, date or timing.
      images_coded: ``[M, H, W, C]`` float32, what was optimised if that is not `images_float` but
        decodes to it (a factor above 1, see `fairdd_jax.formation`); else None.
    """

    images: np.ndarray
    images_float: np.ndarray
    labels: np.ndarray
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...]
    meta: dict[str, Any]
    images_coded: np.ndarray | None = None

    @classmethod
    def of_classes(
        cls,
        images: np.ndarray,
        *,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        class_names: tuple[str, ...],
        meta: dict[str, Any],
        coded: np.ndarray | None = None,
    ) -> "DistilledSet":
        """From normalised images ``[classes, ipc, H, W, C]``, and those that they were coded in."""
        flat = np.asarray(images, np.float32).reshape(-1, *images.shape[2:])
        labels = np.repeat(np.arange(images.shape[0], dtype=np.int32), images.shape[1])
        pixels = to_pixels(flat, mean=mean, std=std)
        if coded is not None:
            coded = np.asarray(coded, np.float32).reshape(-1, *coded.shape[2:])
        return cls(pixels, flat, labels, mean, std, class_names, meta, coded)

    @classmethod
    def of_pixels(
        cls,
        *,
        images: np.ndarray,
        labels: np.ndarray,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        class_names: tuple[str, ...],
        meta: dict[str, Any],
    ) -> "DistilledSet":
        """From uint8 images ``[N, H, W, C]``."""
        inputs = np.asarray(normalise(images, mean=mean, std=std))
        return cls(images, inputs, labels, mean, std, class_names, meta)

    def transform(self, images: np.ndarray) -> np.ndarray:
        """Bring uint8 images ``[..., C]``, test images say, into the space of ``images_float``."""
        return np.asarray(normalise(images, mean=self.mean, std=self.std))

    def save(self, path: str | Path) -> None:
        """Write the set to a ``.npz`` file.

        Raises:
          WorkdirError: the file cannot be written.
        """
        buffer = io.BytesIO()
        arrays: dict[str, Any] = {
            "images": self.images,
            "images_float": self.images_float,
            "labels": self.labels,
            "mean": np.asarray(self.mean, np.float32),
            "std": np.asarray(self.std, np.float32),
            "class_names": np.asarray(self.class_names),
            "meta": np.asarray(json.dumps(self.meta, sort_keys=True)),
        }
        if self.images_coded is not None:
            arrays[_CODED] = self.images_coded
        np.savez(buffer, **arrays)
        write_atomically(Path(path), buffer.getvalue())

    def export(self, folder: str | Path) -> None:
        """Write the 8-bit images to a new folder, as PNG files in a folder per class.

        Hugging Face's ``load_dataset("imagefolder", data_dir=FOLDER)``,
        ``tensorflow_datasets.ImageFolder(FOLDER)`` and `fairdd_jax.load_distilled` read it.
        `images_float` is then that of the 8-bit images, and `images_coded` is left out.

        Raises:
          DataError: the images have neither one channel nor three.
          WorkdirError: the folder is not empty, or cannot be written.
        """
        content = folders.Content(
            self.images, self.labels, self.mean, self.std, self.class_names, self.meta
        )
        folders.write(Path(folder), content)


def load_distilled(path: str | Path) -> DistilledSet:
    """Read a distilled set.

    Args:
      path: a ``distilled.npz``; the folder of a run that holds one; a folder that
        `fairdd_jax.distilled.DistilledSet.export` wrote; or any folder of images ``CLASS/file``.
        The last says nothing of a normalisation: its mean is 0 and its standard deviation 1, so
        that ``images_float`` and what its transform gives are in [0, 1].

    Raises:
      DataError: there is none, or it is damaged.

    >>> import tempfile
    >>> space = {"mean": (0.5,) * 3, "std": (0.25,) * 3}
    >>> black = np.full((2, 1, 4, 4, 3), -2.0)
    >>> made = DistilledSet.of_classes(black, class_names=("cat", "dog"), meta={}, **space)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     made.save(f"{folder}/distilled.npz")
    ...     read = load_distilled(folder)
    >>> read.images.shape, int(read.images.max()), read.labels.tolist(), read.class_names
    ((2, 4, 4, 3), 0, [0, 1], ('cat', 'dog'))
    """
    path = Path(path)
    if path.is_dir():
        if not (path / _FILE).exists():
            runs = sorted(file.parent.name for file in path.glob(f"*/{_FILE}"))
            if runs:
                raise DataError(
                    f"{path} has no {_FILE}, but folders of runs that have one: "
                    f"{', '.join(runs)}; pass one of them"
                )
            return DistilledSet.of_pixels(**folders.read(path)._asdict())
        path = path / _FILE
    if path.suffix in (".pt", ".pth"):
        raise DataError(f"{path} is a file of PyTorch; experiments/convert_pt.py makes it a set")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as content:
            size = sum(member.file_size for member in content.zip.infolist())
            if size > folders.LARGEST:
                raise ValueError(f"it unpacks to {size} bytes, more than {folders.LARGEST}")
            arrays = {name: content[name] for name in _ARRAYS}
            coded = content.get(_CODED)
        meta = json.loads(str(arrays["meta"]))
    except FileNotFoundError:
        raise folders.nothing_at(path) from None
    except Exception as error:  # damaged bytes make zipfile and numpy raise nearly anything
        raise DataError(
            f"{path} is not a readable distilled set ({one_line(error)}); distil again or copy it "
            "again"
        ) from None
    if not _fit(**arrays, coded=coded) or not isinstance(meta, dict):
        got = ", ".join(f"{name} {a.dtype}{list(a.shape)}" for name, a in arrays.items())
        raise DataError(
            f"{path}: arrays that do not fit each other, or numbers that are not finite ({got}); "
            "distil again"
        )
    return DistilledSet(
        arrays["images"],
        arrays["images_float"],
        arrays["labels"],
        tuple(float(value) for value in arrays["mean"]),
        tuple(float(value) for value in arrays["std"]),
        tuple(str(name) for name in arrays["class_names"]),
        meta,
        coded,
    )


def _fit(
    images: np.ndarray,
    images_float: np.ndarray,
    labels: np.ndarray,
    mean: np.ndarray,
    std: np.ndarray,
    class_names: np.ndarray,
    meta: np.ndarray,
    coded: np.ndarray | None,
) -> bool:
    """Whether arrays have the types, shapes and values of a distilled set."""
    coded = images_float if coded is None else coded
    return bool(
        images.dtype == np.uint8
        and images.ndim == 4
        and images.size > 0
        and images_float.dtype == np.float32
        and images_float.shape == images.shape
        and coded.dtype == np.float32
        and coded.shape[1:] == images.shape[1:]
        and labels.dtype.kind in "iu"
        and labels.shape == images.shape[:1]
        and mean.dtype == std.dtype == np.float32
        and mean.shape == std.shape == images.shape[-1:]
        and all(np.isfinite(values).all() for values in (images_float, coded, mean, std))
        and std.min() > 0
        and class_names.dtype.kind == "U"
        and class_names.ndim == 1
        and 0 <= labels.min() <= labels.max() < class_names.size
        and meta.dtype.kind == "U"
    )
