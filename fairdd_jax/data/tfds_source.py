"""MNIST and Fashion-MNIST from a copy prepared by tensorflow-datasets, mostly without TensorFlow.

tensorflow-datasets is imported only when a copy is read or prepared. Copies in the format
array_record are read by random access without TensorFlow; tfrecord copies and preparing need it.
"""

import hashlib
import importlib.util
import os
from pathlib import Path
from typing import Any

import numpy as np

from fairdd_jax.data.idx import SplitName
from fairdd_jax.errors import DataError

_CHUNK = 1024  # records decoded at a time


def find_copy(data_dir: Path | None, name: str) -> Path | None:
    """The folder of a prepared copy.

    Args:
      data_dir: where to look first, if given; then in the default folder of
          tensorflow-datasets (the environment variable TFDS_DATA_DIR, else
          ~/tensorflow_datasets).
      name: "mnist" or "fashion_mnist".

    Returns:
      The folder of the highest version found, or None.
    """
    default = Path(os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")).expanduser()
    for root in (data_dir, default):
        copies = sorted((root / name).glob("[0-9]*/dataset_info.json")) if root else []
        if copies:
            return copies[-1].parent
    return None


def load(folder: Path, split: SplitName) -> tuple[np.ndarray, np.ndarray]:
    """Read one split of a prepared copy in the order of the original files.

    tensorflow-datasets stores images in the order of a hash of their index. Undoing it makes a
    copy equal to the IDX files, so that a seed gives the same biased data set from either.

    Args:
      folder: the copy, as found by `find_copy`.
      split: "train" or "test".

    Returns:
      Grey images uint8 [N, H, W] and labels uint8 [N].

    Raises:
      DataError: when the copy cannot be read, or only with TensorFlow, which is not installed.
    """
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder_from_directory(folder)
        formats = {file_format.value for file_format in builder.info.available_file_formats()}
        if "array_record" in formats:
            images, labels = _read_array_record(builder.as_data_source(split))
        elif _has_tensorflow():
            images, labels = _read_with_tensorflow(builder, split)
        else:
            raise DataError(
                f"{folder} is prepared as {', '.join(sorted(formats))}, which only TensorFlow "
                'reads: pip install "fairdd-jax[tfds]", or prepare it with file_format array_record'
            )
    except DataError:
        raise
    except Exception as error:  # tfds raises anything from KeyError to its own classes
        raise DataError(f"the tfds copy {folder} cannot be read: {_one_line(error)}") from error
    original = np.argsort(_stored_order(split, len(labels)))
    return images[original, ..., 0], labels[original].astype(np.uint8)


def prepare(data_dir: Path | None, name: str) -> Path:
    """Download a data set and prepare it as array_record.

    Args:
      data_dir: where to put it; None is the default folder of tensorflow-datasets.
      name: "mnist" or "fashion_mnist".

    Returns:
      The folder of the copy.

    Raises:
      DataError: without TensorFlow, or when the download fails.
    """
    if not _has_tensorflow():
        raise DataError(
            f'downloading {name} needs TensorFlow to prepare it: pip install "fairdd-jax[tfds]"; '
            "or put the four IDX files into the data folder"
        )
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name, data_dir=data_dir, file_format="array_record")
        builder.download_and_prepare()
    except Exception as error:  # network, disk, checksum: each has its own class
        raise DataError(
            f"downloading {name} failed: {_one_line(error)}; "
            "or put the four IDX files into the data folder"
        ) from error
    return Path(builder.data_dir)


def _read_array_record(source: Any) -> tuple[np.ndarray, np.ndarray]:
    chunks = [
        source.__getitems__(range(start, min(start + _CHUNK, len(source))))
        for start in range(0, len(source), _CHUNK)
    ]
    records = [record for chunk in chunks for record in chunk]
    return (
        np.stack([record["image"] for record in records]),
        np.array([record["label"] for record in records]),
    )


def _read_with_tensorflow(builder: Any, split: SplitName) -> tuple[np.ndarray, np.ndarray]:
    import tensorflow_datasets as tfds

    in_order = tfds.ReadConfig(interleave_cycle_length=1)  # by default shards are mixed
    arrays = tfds.as_numpy(builder.as_dataset(split=split, batch_size=-1, read_config=in_order))
    return arrays["image"], arrays["label"]


def _stored_order(split: SplitName, length: int) -> list[int]:
    """The original index of each stored image: ascending md5 of split name and index."""
    return sorted(
        range(length),
        key=lambda index: hashlib.md5(f"{split}{index}".encode(), usedforsecurity=False).digest(),
    )


def _has_tensorflow() -> bool:
    return importlib.util.find_spec("tensorflow") is not None


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."
