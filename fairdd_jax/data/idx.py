"""The IDX files of MNIST and Fashion-MNIST, found in the layouts people have and read strictly."""

import gzip
import io
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from fairdd_jax.data.dataset import SplitName
from fairdd_jax.errors import DataError

# Folders below the data folder in which each data set is looked for, the most telling name
# first: the file names of both data sets are the same.
FOLDERS = {
    "mnist": ("mnist", "MNIST/raw", "MNIST", "."),
    "fashion_mnist": ("fashion_mnist", "fashion-mnist", "FashionMNIST/raw", "FashionMNIST", "."),
}
SYSTEM_DIR = Path("/usr/share/datasets")  # Debian's package dataset-fashion-mnist

# Which data set a file without a telling folder belongs to shows in its first labels.
_FIRST_LABELS = {
    "mnist": ("5041921314353617", "7210414959069015"),
    "fashion_mnist": ("9003027255095579", "9211614657457341"),
}

_PREFIX: dict[SplitName, str] = {"train": "train", "test": "t10k"}
LARGEST = 2**30  # bytes that a packed file may unpack to, ten times those of either data set
_UBYTE = 0x08  # the IDX type code of unsigned bytes


def find_folder(root: Path, name: str) -> Path | None:
    """The folder below `root` that holds IDX files of a data set.

    Args:
      root: where to look.
      name: "mnist" or "fashion_mnist".

    Returns:
      The first folder of `FOLDERS[name]` with at least one of the four files, or None.
    """
    for folder in FOLDERS[name]:
        if any(_find(root / folder, split, kind) for split in _PREFIX for kind in (1, 3)):
            return root / folder
    return None


def load(folder: Path, name: str, split: SplitName) -> tuple[np.ndarray, np.ndarray]:
    """Read one split.

    Args:
      folder: where the files are, as found by `find_folder`.
      name: "mnist" or "fashion_mnist".
      split: "train" or "test".

    Returns:
      Grey images uint8 [N, H, W] and labels uint8 [N], in the order of the files.

    Raises:
      DataError: when a file is missing or damaged, images and labels do not belong
        together, or the files are those of the other data set.
    """
    paths = []
    for dimensions in (3, 1):
        path = _find(folder, split, dimensions)
        if path is None:
            raise DataError(
                f"{folder} lacks {_file_name(split, dimensions)}[.gz]; put all four files of "
                f"{name} there"
            )
        paths.append(path)
    images, labels = read_idx(paths[0], dimensions=3), read_idx(paths[1], dimensions=1)
    if len(images) != len(labels):
        raise DataError(
            f"{paths[1]} has {len(labels)} labels for the {len(images)} images of {paths[0].name}; "
            "get both files from the same place again"
        )
    first = "".join(map(str, labels[:16]))
    for other, known in _FIRST_LABELS.items():
        if other != name and first in known:
            raise DataError(
                f"{paths[1]} holds the labels of {other}, not of {name}; put the files of {name} "
                f"into a folder {FOLDERS[name][0]}/"
            )
    return images, labels


def read_idx(path: Path, *, dimensions: int) -> np.ndarray:
    """Read an IDX file of unsigned bytes, unpacking it if its name ends in .gz.

    Args:
      path: the file.
      dimensions: number of axes it must have: 3 for images, 1 for labels.

    Returns:
      uint8 array of that many axes.

    Raises:
      DataError: when the file cannot be read or is not exactly such an array.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    if path.suffix == ".gz":
        try:
            with gzip.GzipFile(fileobj=io.BytesIO(data)) as packed:
                data, packed_size = packed.read(LARGEST + 1), len(data)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(
                f"{path} is truncated or no gzip file (it has {len(data)} bytes and starts with "
                f"{data[:8]!r}); get it again"
            ) from error
        if len(data) > LARGEST:
            raise DataError(
                f"{path} has {packed_size} bytes that unpack to more than {LARGEST}; get it again"
            )
    header = 4 * (1 + dimensions)
    magic = struct.pack(">I", _UBYTE << 8 | dimensions)
    if data[:4] != magic or len(data) < header:
        raise DataError(
            f"{path} is no IDX file of {'images' if dimensions == 3 else 'labels'}: it has "
            f"{len(data)} bytes and starts with {data[:4]!r} instead of {magic!r}; get it again"
        )
    shape = struct.unpack(f">{dimensions}I", data[4:header])
    expected = header + math.prod(shape)
    if len(data) != expected or 0 in shape:
        raise DataError(
            f"{path} is damaged: its header says shape {shape}, which takes {expected} bytes, "
            f"and it has {len(data)}; get it again"
        )
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)


def _file_name(split: SplitName, dimensions: int, *, separator: str = "-") -> str:
    kind = "images" if dimensions == 3 else "labels"
    return f"{_PREFIX[split]}-{kind}{separator}idx{dimensions}-ubyte"


def _find(folder: Path, split: SplitName, dimensions: int) -> Path | None:
    """The path of a file under the names it goes by; something that is no file comes last."""
    paths = [
        folder / (_file_name(split, dimensions, separator=separator) + suffix)
        for suffix in ("", ".gz")
        for separator in ("-", ".")
    ]
    found = sorted((path for path in paths if path.exists()), key=lambda path: not path.is_file())
    return found[0] if found else None
