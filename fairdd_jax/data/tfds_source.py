"""Data sets from a copy prepared by tensorflow-datasets, mostly without TensorFlow.

tensorflow-datasets is imported only when a copy is read. Copies in the format array_record are read
by random access without TensorFlow; tfrecord copies need it.
"""

import hashlib
import io
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fairdd_jax.data import tfds_prepare
from fairdd_jax.data.dataset import SplitName
from fairdd_jax.data.files import Folder, ImageFiles, Records, images_below, not_found
from fairdd_jax.errors import DataError, one_line

# What a message says besides where to put files.
_ADVICE = (
    "prepare a tfds copy of {name} (file_format array_record), or allow a download with --download"
)
_OWN_ADVICE = (
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
      name: its name in tensorflow-datasets, such as "mnist" or "imagenette/160px-v2".

    Returns:
      The folder of the highest version found, or None.
    """
    default = Path(os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")).expanduser()
    found = copy_below(data_dir, name) if data_dir else None
    return found or copy_below(default, name)


def copy_below(folder: Path, name: str) -> Path | None:
    """The folder of the highest version of a prepared copy below a folder, or None."""
    copies = (folder / name).glob("[0-9]*/dataset_info.json")
    return max((path.parent for path in copies), key=_version, default=None)


def _version(folder: Path) -> list[int]:
    """The number after which a copy is called, "3.0.10" after "3.0.2"."""
    return [int(part) for part in re.findall(r"\d+", folder.name)]


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
    with _opened(folder) as builder:
        formats = _formats(builder)
        if "array_record" in formats:
            numbers = [str(i) for i in range(split_sizes(folder)[split])]
            found = encoded(folder, split, names=numbers)
            images, labels = _decoded(found.files), found.features["label"]
        elif tfds_prepare.has_tensorflow():
            images, labels = _read_with_tensorflow(builder, split)
        else:
            raise DataError(
                f"{folder} is prepared as {', '.join(sorted(formats))}, which only TensorFlow "
                'reads: pip install "fairdd-jax[tfds]", or prepare it with file_format array_record'
            )
    return images, labels.astype(np.uint8)


def copy_of(
    name: str,
    data_dir: Path | None,
    download: bool,
    *,
    copies: Sequence[str],
    files: str,
    folder: str,
) -> Path:
    """The folder of a prepared copy, which is made if there is none and a download is allowed.

    Args:
      name: the data set.
      data_dir: as of `find_copy`.
      download: allow a download.
      copies: its names in tensorflow-datasets; the first one that is there is taken.
      files: what belongs into the data folder instead.
      folder: in which folder below it.

    Raises:
      DataError: there is no copy, or it cannot be made.
    """
    for copy in copies:
        found = find_copy(data_dir, copy)
        if found is not None:
            return found
    if download:
        return tfds_prepare.prepare(data_dir, copies[0])
    advice = _ADVICE.format(name=copies[0])
    raise not_found(name, data_dir, files=files, folder=folder, copy=advice)


def split_sizes(folder: Path) -> dict[str, int]:
    """How many images every split of a copy has.

    Raises:
      DataError: it cannot be read.
    """
    with _opened(folder) as builder:
        return {name: split.num_examples for name, split in builder.info.splits.items()}


def encoded(folder: Path, split: str, *, names: Sequence[str] | None = None) -> Encoded:
    """A split of a copy in the format array_record.

    Args:
      folder: the copy.
      split: its name there.
      names: what the builder of tensorflow-datasets called the images, whose hash has decided where
        each is stored.

    Returns:
      The images in the order of those names; else sorted by name if the records have one, or in
      the order in which they are stored.

    Raises:
      DataError: it cannot be read, or has another format.
    """
    import tensorflow_datasets as tfds

    with _opened(folder) as builder:
        formats = _formats(builder)
        if "array_record" not in formats:
            raise DataError(
                f"{folder} is prepared as {', '.join(sorted(formats))}; prepare it with "
                "file_format array_record"
            )
        source = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
        stored = [_without_image(source[i]) for i in range(len(source))]
    order = list(range(len(stored)))
    if names is not None:
        order = _places(split, names).tolist()
    elif stored and "name" in stored[0]:
        order.sort(key=lambda i: stored[i]["name"])
        names = [stored[i]["name"].decode() for i in order]
    else:
        names = [f"{split}_{i:06d}" for i in order]
    return Encoded(Records(source, names, order, folder), _columns([stored[i] for i in order]))


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
        advice = _OWN_ADVICE.format(name=name)
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
    return _decoded(found.files)[order], found.features["label"][order].astype(np.int32)


def _decoded(files: Records) -> np.ndarray:
    """All images, which are of one shape."""
    images = (Image.open(io.BytesIO(files.read(i))) for i in range(len(files.names)))
    return np.stack([np.asarray(image) for image in images])


@contextmanager
def _opened(folder: Path) -> Iterator[Any]:
    """The builder of a copy; what goes wrong while it is read is one line."""
    import tensorflow_datasets as tfds

    try:
        yield tfds.builder_from_directory(folder)
    except DataError:
        raise
    except Exception as error:  # tfds raises anything from KeyError to its own classes
        text = one_line(error)
        raise DataError(f"the tfds copy {folder} cannot be read: {text}") from error


def _formats(builder: Any) -> set[str]:
    return {file_format.value for file_format in builder.info.available_file_formats()}


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


def _read_with_tensorflow(builder: Any, split: SplitName) -> tuple[np.ndarray, np.ndarray]:
    import tensorflow_datasets as tfds

    in_order = tfds.ReadConfig(interleave_cycle_length=1)  # by default shards are mixed
    arrays = tfds.as_numpy(builder.as_dataset(split=split, batch_size=-1, read_config=in_order))
    original = _places(split, range(len(arrays["label"])))
    return arrays["image"][original, ..., 0], arrays["label"][original]


def _places(split: str, keys: Sequence[object]) -> np.ndarray:
    """Which stored record belongs to each key: they ascend by the md5 of split name and key."""
    digests = [
        hashlib.md5(f"{split}{key}".encode(), usedforsecurity=False).hexdigest() for key in keys
    ]
    return np.argsort(np.argsort(digests))
