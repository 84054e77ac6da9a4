"""A distilled set as a folder of PNG files, which other programs read as it is.

| file | content |
| --- | --- |
| ``distilled.json`` | names of the classes in their order, their folders, normalisation, meta |
| ``train/3_Dress/0031.png`` | image 31 of the set, of class 3 |
| ``train/metadata.parquet`` | file name, label and class name of every image |

Hugging Face datasets takes the labels from the table, which carries their names in its schema (a
CSV file would turn the class "10" into a number and "NA" into nothing). tensorflow-datasets takes
them from the folders; their numbers keep the order of the classes, in which "10" need not come
before "2". Their words have capitals, because a folder called ``test`` would be a split of its own.
"""

import io
import json
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from PIL import Image

from fairdd_jax import workdir
from fairdd_jax.data.decode import DamagedImageError, decode_as_it_is
from fairdd_jax.data.files import Folder, images_below
from fairdd_jax.errors import DataError, WorkdirError, one_line

DESCRIPTION = "distilled.json"
_TRAIN = "train"
_TABLE = "metadata.parquet"
_LONGEST_NAME = 40  # letters of a class name that its folder shows
# Bytes that a set may unpack to: small hostile files may say that they become huge ones.
LARGEST = 64 * 2**30


class Content(NamedTuple):
    """What a folder says of a distilled set."""

    images: np.ndarray
    """``[N, H, W, C]`` uint8."""
    labels: np.ndarray
    """``[N]`` int32."""
    mean: tuple[float, ...]
    """Per channel; 0 if the folder does not say."""
    std: tuple[float, ...]
    """Per channel; 1 if the folder does not say."""
    class_names: tuple[str, ...]
    meta: dict[str, Any]


class _Description(NamedTuple):
    """The content of the JSON file."""

    class_names: list[str]
    folders: list[str]
    mean: list[float]
    std: list[float]
    meta: dict[str, Any]


def write(folder: Path, content: Content) -> None:
    """Write a set; the description comes last and makes it whole.

    Raises:
      DataError: the images have neither one channel nor three.
      WorkdirError: there is something in the folder already, or it cannot be written.
    """
    images, labels, mean, std, class_names, meta = content
    if images.shape[-1] not in (1, 3):
        raise DataError(f"images of {images.shape[-1]} channels cannot be exported; 1 or 3 can")
    workdir.prepare(folder)
    with workdir.explained(folder):
        if any(folder.iterdir()):
            raise WorkdirError(
                f"{folder} is not empty, and what is in there would get into the set; choose "
                "another folder"
            )
    folders = [_folder_name(i, name, len(class_names)) for i, name in enumerate(class_names)]
    digits = len(str(len(images) - 1))
    names = [f"{folders[label]}/{i:0{digits}d}.png" for i, label in enumerate(labels)]
    for name, pixels in zip(names, images, strict=True):
        workdir.write_atomically(folder / _TRAIN / name, _png(pixels))
    table = _table(names, labels, class_names)
    workdir.write_atomically(folder / _TRAIN / _TABLE, table)
    description = _Description(list(class_names), folders, list(mean), list(std), meta)
    workdir.write_json(folder / DESCRIPTION, description._asdict())


def _folder_name(index: int, name: str, count: int) -> str:
    """Letters and digits that every file system takes, in the order of the classes when sorted.

    >>> _folder_name(7, "T-shirt/top", 10), _folder_name(7, "犬", 11)
    ('7_TShirtTop', '07')
    """
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    words = re.findall("[A-Za-z0-9]+", plain)
    shown = "".join(word[0].upper() + word[1:] for word in words)[:_LONGEST_NAME]
    number = f"{index:0{len(str(count - 1))}d}"
    return f"{number}_{shown}" if shown else number


def _png(pixels: np.ndarray) -> bytes:
    """An image ``[H, W, 1]`` or ``[H, W, 3]`` as a file."""
    buffer = io.BytesIO()
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    picture.save(buffer, format="PNG", compress_level=4)  # see `fairdd_jax.report.png_bytes`
    return buffer.getvalue()


def _table(names: Sequence[str], labels: np.ndarray, class_names: Sequence[str]) -> bytes:
    """The Parquet file; its schema holds the types of Hugging Face datasets too."""
    text = {"_type": "Value", "dtype": "string"}
    features = {
        "file_name": text,
        "label": {"_type": "ClassLabel", "names": list(class_names)},
        "class_name": text,
    }
    columns = {
        "file_name": pa.array(names, pa.string()),
        "label": pa.array(labels, pa.int64()),
        "class_name": pa.array([class_names[label] for label in labels], pa.string()),
    }
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pa.table(columns, metadata=metadata), buffer)
    return buffer.getvalue()


def read(folder: Path) -> Content:
    """Read what `write` wrote, or any images in ``CLASS/file``, perhaps below ``train/``.

    The names of the classes are then those of the folders, sorted, the mean is 0 and the standard
    deviation 1. The images have the order of `write`, those of other folders that of their names.

    Raises:
      DataError: no image, one that is damaged or of another size, or a damaged description.
    """
    description = _description(folder / DESCRIPTION)
    root = folder / _TRAIN
    if not root.is_dir() or (description is None and _is_class(root)):
        root = folder
    names = [name for name in images_below(root) if not name.startswith(".")]
    if not names:
        raise nothing_at(folder)
    places = [name.rpartition("/")[0] for name in names]
    if description:
        names.sort(key=lambda name: name.rpartition("/")[2])
        places = [name.rpartition("/")[0] for name in names]
        folders = description.folders
    else:
        folders = sorted(set(places))
    for name, place in zip(names, places, strict=True):
        if place not in folders or place.count("/") or not place:
            where = f"a folder of {DESCRIPTION}" if description else "CLASS/file"
            raise DataError(f"{root}/{name} is not in {where}; move it there, or out of {folder}")
    if description is None and len(folders) < 2:
        raise DataError(f"{root} has one class alone, '{folders[0]}'; a set has two or more")
    images = _images(root, names)
    labels = np.array([folders.index(place) for place in places], np.int32)
    channels = images.shape[-1]
    if description is None:
        return Content(images, labels, (0.0,) * channels, (1.0,) * channels, tuple(folders), {})
    if not len(description.mean) == len(description.std) == channels:
        raise DataError(
            f"{folder / DESCRIPTION}: mean {description.mean} and std {description.std} do not fit "
            f"images of {channels} channels"
        )
    return Content(
        images,
        labels,
        tuple(description.mean),
        tuple(description.std),
        tuple(description.class_names),
        description.meta,
    )


def _is_class(folder: Path) -> bool:
    """Whether images lie in a folder itself: classes may be called train too."""
    return any("/" not in name for name in images_below(folder))


def nothing_at(path: Path) -> DataError:
    """The error of a set that is nowhere."""
    return DataError(
        f"no distilled set at {path}; pass a distilled.npz, the folder of a run that holds one, or "
        "a folder of images CLASS/file"
    )


def _images(root: Path, names: Sequence[str]) -> np.ndarray:
    """All images; grey ones among those in colour get three channels."""
    files = Folder(root, names)
    decoded: list[np.ndarray] = []
    for i, name in enumerate(names):
        try:
            decoded.append(decode_as_it_is(files.read(i)))
        except (DamagedImageError, OSError) as error:
            reason = one_line(error)
            raise DataError(f"{root}/{name} cannot be read ({reason}); export it again") from None
        size, first = decoded[-1].shape[:2], decoded[0].shape[:2]
        if size != first:
            raise DataError(
                f"{root}/{name} is {_shape(size)}, {names[0]} {_shape(first)}; all images of a set "
                "have one size"
            )
        if len(names) * decoded[0].nbytes > LARGEST:
            raise DataError(
                f"{root} unpacks to {len(names)} images of {_shape(first)}, more than {LARGEST} "
                "bytes"
            )
    channels = max(image.shape[-1] for image in decoded)
    shape = (*decoded[0].shape[:2], channels)
    return np.stack([np.broadcast_to(image, shape) for image in decoded])


def _shape(size: tuple[int, ...]) -> str:
    return "x".join(str(side) for side in size)


def _description(path: Path) -> _Description | None:
    """The description, checked; None if there is none."""
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text("utf-8"))
        found = _Description(**{field: content[field] for field in _Description._fields})
        numbers = np.array([found.mean, found.std], np.float64)
        sound = {
            "class_names": _are_texts(found.class_names),
            "folders": _are_texts(found.folders)
            and len(found.class_names) == len(found.folders) == len(set(found.folders)),
            "mean, std": numbers.ndim == 2 and np.isfinite(numbers).all() and numbers[1].min() > 0,
            "meta": isinstance(found.meta, dict),
        }
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise _damaged(path, one_line(error)) from None
    if not all(sound.values()):
        raise _damaged(path, ", ".join(name for name, is_sound in sound.items() if not is_sound))
    return found


def _are_texts(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


def _damaged(path: Path, why: str) -> DataError:
    return DataError(f"{path} is damaged ({why}); export the set again")
