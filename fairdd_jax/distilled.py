"""A distilled set as a file: ready to train on, readable by numpy alone, equal for equal runs."""

import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fairdd_jax.data.normalise import normalise, to_pixels
from fairdd_jax.errors import DataError
from fairdd_jax.workdir import write_atomically

_ARRAYS = ("images", "images_float", "labels", "mean", "std", "class_names", "meta")


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
    """

    images: np.ndarray
    images_float: np.ndarray
    labels: np.ndarray
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...]
    meta: dict[str, Any]

    @classmethod
    def of_classes(
        cls,
        images: np.ndarray,
        *,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        class_names: tuple[str, ...],
        meta: dict[str, Any],
    ) -> "DistilledSet":
        """From normalised images ``[classes, ipc, H, W, C]``."""
        flat = np.asarray(images, np.float32).reshape(-1, *images.shape[2:])
        labels = np.repeat(np.arange(images.shape[0], dtype=np.int32), images.shape[1])
        pixels = to_pixels(flat, mean=mean, std=std)
        return cls(pixels, flat, labels, mean, std, class_names, meta)

    def transform(self, images: np.ndarray) -> np.ndarray:
        """Bring uint8 images ``[..., C]``, test images say, into the space of ``images_float``."""
        return np.asarray(normalise(images, mean=self.mean, std=self.std))

    def save(self, path: str | Path) -> None:
        """Write the set to a ``.npz`` file.

        Raises:
          WorkdirError: the file cannot be written.
        """
        buffer = io.BytesIO()
        np.savez(
            buffer,
            images=self.images,
            images_float=self.images_float,
            labels=self.labels,
            mean=np.asarray(self.mean, np.float32),
            std=np.asarray(self.std, np.float32),
            class_names=np.asarray(self.class_names),
            meta=np.asarray(json.dumps(self.meta, sort_keys=True)),
        )
        write_atomically(Path(path), buffer.getvalue())


def load_distilled(path: str | Path) -> DistilledSet:
    """Read a distilled set.

    Args:
      path: a ``distilled.npz``, or the folder of a run that holds one.

    Raises:
      DataError: there is none, or it is damaged.
    """
    path = Path(path)
    path = path / "distilled.npz" if path.is_dir() else path
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in _ARRAYS}
        meta = json.loads(str(arrays["meta"]))
    except FileNotFoundError:
        raise DataError(f"no distilled set at {path}; pass a distilled.npz or its folder") from None
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{path} is not a readable distilled set ({error}); distil again or copy it again"
        ) from None
    images, floats, labels = (arrays[name] for name in ("images", "images_float", "labels"))
    if images.shape != floats.shape or images.ndim != 4 or labels.shape != images.shape[:1]:
        raise DataError(f"{path}: images {images.shape} and labels {labels.shape} do not belong")
    return DistilledSet(
        images,
        floats,
        labels,
        tuple(float(value) for value in arrays["mean"]),
        tuple(float(value) for value in arrays["std"]),
        tuple(str(name) for name in arrays["class_names"]),
        meta,
    )
