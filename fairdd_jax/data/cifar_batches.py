"""The original batches of CIFAR-10: the binary version, and the Python version read with care.

The Python version is a pickle, which can run any program when it is loaded. It is therefore read
only after its published checksum has matched, and then by an unpickler that knows nothing but the
parts of an array.
"""

import hashlib
import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from fairdd_jax.data.dataset import SplitName
from fairdd_jax.errors import DataError, one_line

_NAMES: dict[str, tuple[str, ...]] = {
    "train": tuple(f"data_batch_{i}" for i in range(1, 6)),
    "test": ("test_batch",),
}
# Published by the data set's site with the archive and by torchvision for each file.
MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
# All that an unpickler may load.
_PARTS = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
}
_ROW = 1 + 3 * 32 * 32  # a label and the planes of an image


def is_there(folder: Path) -> bool:
    """Whether the folder has a batch of either version."""
    return any((folder / f"{name}{end}").is_file() for name in MD5 for end in (".bin", ""))


def load(folder: Path, split: SplitName) -> tuple[np.ndarray, np.ndarray]:
    """Read a split.

    Args:
      folder: where the batches are.
      split: "train" or "test".

    Returns:
      uint8 ``[N, 32, 32, 3]`` and labels ``[N]``, in the order of the batches.

    Raises:
      DataError: a batch is missing or damaged, or a pickled one is not the published file.
    """
    images, labels = [], []
    for name in _NAMES[split]:
        binary, pickled = folder / f"{name}.bin", folder / name
        if not binary.is_file() and not pickled.is_file():
            raise DataError(f"{folder} lacks {name}.bin; put all six batches of CIFAR-10 there")
        path, read = (binary, _binary) if binary.is_file() else (pickled, _pickled)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
        planes, batch_labels = read(path, data)
        if not batch_labels.size or batch_labels.max() > 9:
            raise DataError(f"{path} has labels beyond 9; it is no batch of CIFAR-10, get it again")
        images.append(planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
        labels.append(batch_labels)
    return np.ascontiguousarray(np.concatenate(images)), np.concatenate(labels).astype(np.int32)


def _binary(path: Path, data: bytes) -> tuple[np.ndarray, np.ndarray]:
    if not data or len(data) % _ROW:
        raise DataError(
            f"{path} has {len(data)} bytes, not a multiple of {_ROW}; it is damaged, get it again"
        )
    rows = np.frombuffer(data, np.uint8).reshape(-1, _ROW)
    return rows[:, 1:], rows[:, 0]


def _pickled(path: Path, data: bytes) -> tuple[np.ndarray, np.ndarray]:
    md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
    if md5 != MD5[path.name]:
        raise DataError(
            f"{path} is not the published file (md5 {md5} instead of {MD5[path.name]}) and is not "
            "read, since a pickle can run programs; get it again, or the binary version"
        )
    try:
        batch = _ArraysOnly(io.BytesIO(data), encoding="bytes").load()
        labels = np.asarray(batch[b"labels"], np.uint8)
        return np.asarray(batch[b"data"], np.uint8).reshape(len(labels), _ROW - 1), labels
    except Exception as error:  # a pickle that is none of these raises anything
        what = f"{path} is no batch of CIFAR-10 ({one_line(error)})"
        raise DataError(f"{what}; get it again") from None


class _ArraysOnly(pickle.Unpickler):
    """Knows the parts of a NumPy array and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """The part of that name."""
        if (module, name) not in _PARTS:
            raise pickle.UnpicklingError(f"{module}.{name} is no part of an array")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)
