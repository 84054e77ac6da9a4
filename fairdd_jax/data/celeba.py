"""CelebA: 202,599 faces with 40 binary attributes, from the original files or a tfds copy.

The original files are `img_align_celeba/` (or its zip), `list_attr_celeba.txt` and
`list_eval_partition.txt`, perhaps in the folders `Img`, `Anno` and `Eval`; the CSV files and the
nested folder of its copies on the web are taken too. A tfds copy gives the same data set. As
officially, training is on partition 0 and testing on a part of partition 2 with as many images of
every (class, group) cell. Officially the names of the two classes are swapped; here class 1 has the
attribute.

Reference: Liu et al., Deep Learning Face Attributes in the Wild (ICCV 2015).
"""

import csv
from pathlib import Path

import numpy as np

from fairdd_jax.data import tfds_source
from fairdd_jax.data.attributes import Attribute, smallest_cell, target_and_protected
from fairdd_jax.data.balance import balanced_subset
from fairdd_jax.data.config import DataConfig
from fairdd_jax.data.decode import Transform
from fairdd_jax.data.files import (
    Folder,
    ImageFiles,
    Joined,
    Zip,
    find_folder,
    is_image,
    open_zip,
)
from fairdd_jax.data.listing import Listed, Listing, Source
from fairdd_jax.errors import DataError

MEAN, STD = (0.5063, 0.4258, 0.3832), (0.2676, 0.2453, 0.2410)
_CROP = 178
_FOLDERS = ("celeba", "CelebA", "celeb_a", ".")
_TRAIN, _TEST = 0, 2
_SHOWN = 40  # letters of a cell that a message shows
Table = dict[str, list[str]]


def find(config: DataConfig, data_dir: Path | None, download: bool) -> Listing:
    """List CelebA; see the module and `fairdd_jax.data.listing.Source`."""
    folder = find_folder(
        data_dir, _FOLDERS, lambda f: _table_file(f, "list_attr_celeba") is not None
    )
    if folder is None:
        folder = find_folder(data_dir, _FOLDERS, lambda f: _image_place(f) is not None)
        if folder is not None:
            raise DataError(
                f"{folder} has the images of CelebA but lacks list_attr_celeba.txt; put it there"
            )
    if folder is not None:
        names, partition, attributes = _read_original(folder)
        files = _files(folder, names)
    else:
        copy = tfds_source.copy_of(
            "celeba",
            data_dir,
            download,
            copies=["celeb_a"],
            files="img_align_celeba/ (or img_align_celeba.zip), list_attr_celeba.txt and "
            "list_eval_partition.txt",
            folder=_FOLDERS[0],
        )
        files, partition, attributes = _read_copy(copy)
    target, protected = target_and_protected(attributes, config.target, config.protected)
    train, test = np.flatnonzero(partition == _TRAIN), np.flatnonzero(partition == _TEST)
    for split, positions in (("train", train), ("test", test)):
        if not positions.size:
            raise DataError(f"{files.place}: no image is in the {split} part; get the lists again")
    smallest_cell(target.take(test), protected.take(test), where=f"{files.place} (test part)")
    rng = np.random.RandomState(config.seed)
    test = test[balanced_subset(target.values[test], protected.values[test], rng=rng)]
    return Listing(
        "celeba",
        Listed(files, train, target.values[train], protected.values[train]),
        Listed(files, test, target.values[test], protected.values[test]),
        target.names,
        protected.names,
        Transform(config.size, crop=_CROP),
        MEAN,
        STD,
    )


SOURCE = Source(
    find,
    frozenset({"seed", "balanced", "damaged"}),
    {"target": "attractive", "protected": "male", "size": 64},
)


def _table_file(folder: Path, name: str) -> Path | None:
    paths = (
        folder / place / f"{name}{suffix}"
        for place in (".", "Anno", "Eval")
        for suffix in (".txt", ".csv")
    )
    return next((path for path in paths if path.is_file()), None)


def _read_original(folder: Path) -> tuple[list[str], np.ndarray, dict[str, Attribute]]:
    """File names, the partition of each, and the attributes."""
    table = _read(folder, "list_attr_celeba")
    partitions = _read(folder, "list_eval_partition")
    names, *columns = table
    rows = table[names]
    partition_name, *rest = partitions
    if not rest:
        raise DataError(f"{folder}: list_eval_partition has no second column; get it again")
    part_of = dict(zip(partitions[partition_name], partitions[rest[0]], strict=True))
    without = [name for name in rows if part_of.get(name) not in ("0", "1", "2")]
    if without:
        raise DataError(
            f"{folder}: list_eval_partition has no part 0, 1 or 2 for {without[0]} and "
            f"{len(without) - 1} other images of list_attr_celeba; get both files again"
        )
    attributes = {}
    for column in columns:
        values = np.array(table[column])
        if not np.isin(values, ("-1", "1", "0")).all():
            odd = values[~np.isin(values, ("-1", "1", "0"))][0]
            raise DataError(
                f"{folder}: the attribute {column} has the value '{odd}', not 1 or -1; get "
                "list_attr_celeba again"
            )
        attributes[column] = _binary(column, values == "1")
    return rows, np.array([int(part_of[name]) for name in rows]), attributes


def _binary(name: str, has: np.ndarray) -> Attribute:
    name = name.lower()
    return Attribute(has.astype(np.int32), (f"not {name}", name))


def _read(folder: Path, name: str) -> Table:
    """A list as columns, the file name first; in the text format only attributes have a header."""
    path = _table_file(folder, name)
    if path is None:
        raise DataError(f"{folder} lacks {name}.txt; put it beside the other files of CelebA")
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise DataError(f"{path} is no text; get it again") from None
    if text.startswith("<"):
        raise DataError(f"{path} is a web page; get it again")
    if path.suffix == ".csv":
        try:
            rows = [row for row in csv.reader(text.splitlines()) if row]
        except csv.Error as error:
            raise DataError(f"{path} is damaged: {error}; get it again") from None
        header, rows = rows[0] if rows else [], rows[1:]
    else:
        rows = [line.split() for line in text.splitlines() if line.strip()]
        if rows and len(rows[0]) == 1:  # the number of images, then the header
            header, rows = ["image", *rows[1]] if len(rows) > 1 else [], rows[2:]
        else:
            header = ["image", "partition"]
    if not rows or not header or any(len(row) != len(header) for row in rows):
        bad = next((row for row in rows if len(row) != len(header)), [])
        raise DataError(
            f"{path} is damaged: {len(header)} columns in its header, "
            f"{len(bad) if bad else 'no rows'} in {bad[0][:_SHOWN] if bad else 'it'}; get it again"
        )
    return dict(zip(header, map(list, zip(*rows, strict=True)), strict=True))


def _image_place(folder: Path) -> Path | None:
    """The folder or archive of the aligned images."""
    nested = folder / "img_align_celeba" / "img_align_celeba"
    for place in (nested, folder / "img_align_celeba", folder / "Img" / "img_align_celeba"):
        if place.is_dir():
            return place
    archives = (folder / "img_align_celeba.zip", folder / "Img" / "img_align_celeba.zip")
    return next((archive for archive in archives if archive.is_file()), None)


def _files(folder: Path, names: list[str]) -> ImageFiles:
    place = _image_place(folder)
    if place is None:
        raise DataError(
            f"{folder} lacks img_align_celeba/ and img_align_celeba.zip; put one of them there"
        )
    if place.is_dir():
        return Folder(place, names)
    members = {m.rpartition("/")[2]: m for m in open_zip(place).namelist() if is_image(m)}
    missing = [name for name in names if name not in members]
    if missing:
        raise DataError(
            f"{place} lacks {missing[0]} and {len(missing) - 1} other images of list_attr_celeba; "
            "get it again"
        )
    return Zip(place, [members[name] for name in names])


def _read_copy(copy: Path) -> tuple[ImageFiles, np.ndarray, dict[str, Attribute]]:
    """The training and the test split of a tfds copy, as if they were the original files.

    Its records have no names, but those of the files are their numbers, through all three parts.
    """
    sizes = tfds_source.split_sizes(copy)
    train, valid, test = (sizes.get(part, 0) for part in ("train", "validation", "test"))
    numbers = {"train": range(train), "test": range(train + valid, train + valid + test)}
    parts = [
        tfds_source.encoded(copy, split, names=[f"{i + 1:06d}.jpg" for i in numbers[split]])
        for split in numbers
    ]
    partition = np.repeat([_TRAIN, _TEST], [len(part.files.names) for part in parts])
    attributes = {
        name: _binary(name, np.concatenate([part.features["attributes"][name] for part in parts]))
        for name in parts[0].features["attributes"]
    }
    return Joined([part.files for part in parts]), partition, attributes
