"""Data sets from a copy prepared by tensorflow-datasets, mostly without TensorFlow.

tensorflow-datasets is imported only when a copy is read or prepared. Copies in the format
array_record are read by random access without TensorFlow; tfrecord copies and preparing need it.
"""

import hashlib
import importlib.util
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fairdd_jax.data.files import Folder, ImageFiles, Records, images_below, not_found
from fairdd_jax.data.idx import SplitName
from fairdd_jax.errors import DataError

_CHUNK = 1024  # records decoded at a time

# What a message says besides where to put files.
ADVICE = (
    "prepare a tfds copy of {name} (file_format array_record), or allow a download with --download"
)
OWN_ADVICE = (
    "point --data_dir at a tfds copy that experiments/prepare.py made; {name} cannot be downloaded "
    "automatically"
)
WHOLE = "whole"  # the one split of the copies that `fairdd_jax.data.builders` makes


@dataclass(frozen=True, eq=False)
class Encoded:
    """A split of a copy, its images not decoded.

    Attributes:
      files: the images.
      features: everything else, a column (or a dict of them) by name.
    """

    files: Records
    features: dict[str, Any]


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
      name: its name in tensorflow-datasets.

    Returns:
      The folder of the copy.

    Raises:
      DataError: without TensorFlow, or when the download fails.
    """
    _need_tensorflow(f"downloading {name}")
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name, data_dir=data_dir, file_format="array_record")
        builder.download_and_prepare()
    except Exception as error:  # network, disk, checksum: each has its own class
        raise DataError(
            f"downloading {name} failed: {_one_line(error)}; or put its files into the data folder"
        ) from error
    return Path(builder.data_dir)


def prepare_files(
    name: str,
    folder: Path,
    *,
    to: Path | None = None,
    columns: Mapping[str, Sequence[str]] | None = None,
) -> Path:
    """Prepare a folder of images as array_record.

    Args:
      name: "utkface", "bffhq" or "images".
      folder: the images.
      to: where to put the copy; None is the default folder of tensorflow-datasets.
      columns: for "images" texts by the name of the column, a row per image; "path" says which.

    Returns:
      The folder of the copy.

    Raises:
      DataError: without TensorFlow, or when the images cannot be copied.
    """
    _need_tensorflow("preparing images")
    import tensorflow_datasets as tfds

    from fairdd_jax.data import builders

    options = {} if columns is None else {"columns": columns}
    try:
        builder = builders.BUILDERS[name](data_dir=to, file_format="array_record", **options)
        manual = tfds.download.DownloadConfig(manual_dir=folder)
        builder.download_and_prepare(download_config=manual)
    except Exception as error:  # tfds raises anything from KeyError to its own classes
        raise DataError(f"{folder} cannot be prepared: {_one_line(error)}") from error
    return Path(builder.data_dir)


def _need_tensorflow(doing: str) -> None:
    if not _has_tensorflow():
        raise DataError(f'{doing} needs TensorFlow: pip install "fairdd-jax[tfds]"')


def find_or_prepare(data_dir: Path | None, name: str, download: bool) -> Path | None:
    """The folder of a prepared copy; `prepare` makes it if a download is allowed."""
    copy = find_copy(data_dir, name)
    return prepare(data_dir, name) if copy is None and download else copy


def encoded(folder: Path, split: str) -> Encoded:
    """A split of a copy in the format array_record.

    Args:
      folder: the copy.
      split: its name there.

    Returns:
      The images sorted by name if they have one, else in the order in which they are stored.

    Raises:
      DataError: it cannot be read, or has another format.
    """
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder_from_directory(folder)
        formats = {file_format.value for file_format in builder.info.available_file_formats()}
        if "array_record" not in formats:
            raise DataError(
                f"{folder} is prepared as {', '.join(sorted(formats))}; prepare it with "
                "file_format array_record"
            )
        source = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
        columns = [_without_image(source[i]) for i in range(len(source))]
    except DataError:
        raise
    except Exception as error:  # tfds raises anything from KeyError to its own classes
        raise DataError(f"the tfds copy {folder} cannot be read: {_one_line(error)}") from error
    features = _columns(columns)
    order = np.arange(len(columns))
    names = [f"{split}_{i:06d}" for i in order]
    if "name" in features:  # ours, stored in the order of a hash: back into that of a folder
        order = np.argsort(features["name"], kind="stable")
        features = {name: column[order] for name, column in features.items()}
        names = features["name"].tolist()
    return Encoded(Records(source, names, order.tolist(), folder), features)


def files_or_copy(
    name: str, folder: Path | None, data_dir: Path | None, *, wanted: str, where: str
) -> ImageFiles:
    """The images of a folder, or of a copy that `prepare_files` made.

    Args:
      name: the data set.
      folder: where its images were found, if they were.
      data_dir: where to look for a copy otherwise.
      wanted: what belongs into the data folder.
      where: in which folder below it.

    Raises:
      DataError: neither is there.
    """
    if folder is not None:
        return Folder(folder, images_below(folder))
    copy = find_copy(data_dir, name)
    if copy is None:
        advice = OWN_ADVICE.format(name=name)
        raise not_found(name, data_dir, files=wanted, folder=where, copy=advice)
    return encoded(copy, WHOLE).files


def load_by_id(folder: Path, split: SplitName) -> tuple[np.ndarray, np.ndarray]:
    """Colour images and labels of a copy whose records have the number of the image as `id`.

    Args:
      folder: the copy.
      split: "train" or "test".

    Returns:
      uint8 ``[N, H, W, 3]`` and labels ``[N]``, in the order of the numbers.

    Raises:
      DataError: as `encoded`.
    """
    found = encoded(folder, split)
    order = np.argsort(found.features["id"])
    images = [_decoded_png(found.files.read(int(i))) for i in order]
    return np.stack(images), np.asarray(found.features["label"])[order].astype(np.int32)


def _decoded_png(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def _without_image(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name != "image"}


def _columns(records: list[dict[str, Any]]) -> dict[str, Any]:
    """A list of records as columns."""
    columns: dict[str, Any] = {}
    for name, first in (records[0] if records else {}).items():
        values = [record[name] for record in records]
        if isinstance(first, dict):
            columns[name] = _columns(values)
        elif isinstance(first, bytes):
            columns[name] = np.array([value.decode() for value in values])
        else:
            columns[name] = np.array(values)
    return columns


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
