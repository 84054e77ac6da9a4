"""Small data sets in the layouts of the original files, with their quirks, made from a seed.

Every function writes into a folder below the data folder, as people unpack it there, and returns
that folder. `per_cell` is the least number of training images of every (class, group) cell. What
an image shows depends on its class and group a little, so that a network can learn something.
"""

import csv
import hashlib
import os
import pickle
import struct
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fairdd_jax.errors import FairDDError

_CELEBA_HEADER = """
    5_o_Clock_Shadow Arched_Eyebrows Attractive Bags_Under_Eyes Bald Bangs Big_Lips Big_Nose
    Black_Hair Blond_Hair Blurry Brown_Hair Bushy_Eyebrows Chubby Double_Chin Eyeglasses Goatee
    Gray_Hair Heavy_Makeup High_Cheekbones Male Mouth_Slightly_Open Mustache Narrow_Eyes No_Beard
    Oval_Face Pale_Skin Pointy_Nose Receding_Hairline Rosy_Cheeks Sideburns Smiling Straight_Hair
    Wavy_Hair Wearing_Earrings Wearing_Hat Wearing_Lipstick Wearing_Necklace Wearing_Necktie Young
"""
CELEBA_ATTRIBUTES = _CELEBA_HEADER.split()

# Names that UTKFace really has: without race or gender, or with a gender that does not exist.
UTKFACE_BROKEN = (
    "39_1_20170116174525125.jpg.chip.jpg",
    "61_1_20170109142408075.jpg.chip.jpg",
    "61_3_20170109150557335.jpg",
    "53__0_20170116184028385.jpg",
)
# And names that only look broken: of class 1, group 1; class 2, group 0; and of the others.
UTKFACE_ODD = (
    "24_0_1_20170116220224657 .jpg.chip.jpg",
    "55_0_0_20170116232725357jpg.chip.jpg",
    "44_1_4_20170116235150272.pg.chip.jpg",
)

CIFAR_BATCHES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
CIFAR_CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
)


@contextmanager
def refused(
    kind: type[FairDDError] | tuple[type[FairDDError], ...], message: str
) -> Iterator[pytest.ExceptionInfo[FairDDError]]:
    """Assert that a mistake ends in one line of that kind, in which the pattern occurs."""
    with pytest.raises(kind, match=message) as error:
        yield error
    assert "\n" not in str(error.value)


def picture(
    rng: np.random.Generator, width: int, height: int, *, label: int = 0, group: int = 0
) -> Image.Image:
    """Coloured noise in blocks; the label brightens a column of them, the group tints a row."""
    blocks = rng.integers(0, 128, (8, 8, 3), np.uint8)
    blocks[:, label % 8] += 64
    blocks[group % 8, :, group % 3] += 64
    return Image.fromarray(blocks).resize((width, height), Image.Resampling.BILINEAR)


def encoded(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    """The bytes of an image file."""
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def write_files(folder: Path, files: Iterable[tuple[str, bytes]]) -> None:
    """Files below a folder, by their names relative to it."""
    for name, data in files:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def write_celeba(
    data_dir: Path,
    *,
    per_cell: int = 2,
    seed: int = 0,
    images: str = "folder",
    lists: str = "txt",
    places: Sequence[str] = ("", "", ""),
) -> Path:
    """CelebA: 178x218 JPEGs, 40 attributes, three parts.

    A cell is (attractive, male, wearing a necktie); the last ones have more images than the first.

    Args:
      data_dir: where to make the folder celeba.
      per_cell: images of the smallest cell of every part.
      seed: decides everything.
      images: "folder" img_align_celeba, "nested" (in another one of that name) or "zip".
      lists: "txt" as published, or "csv" as its copies have them.
      places: folders of the images, the attributes and the parts.
    """
    rng = np.random.default_rng(seed)
    folder = data_dir / "celeba"
    cells = [
        (part, attractive, male, tie)
        for part in (0, 1, 2)
        for attractive in (0, 1)
        for male in (0, 1)
        for tie in (0, 1)
        for _ in range(per_cell + attractive + 2 * male + tie)
    ]
    rng.shuffle(cells)
    cells.sort(key=lambda cell: cell[0])  # the parts follow one another, as published
    rows, files = [], []
    for number, (_, attractive, male, tie) in enumerate(cells, 1):
        values = dict(zip(CELEBA_ATTRIBUTES, rng.choice([-1, 1], 40).tolist(), strict=True))
        values |= {"Attractive": attractive, "Male": male, "Wearing_Necktie": tie}
        name = f"{number:06d}.jpg"
        rows.append((name, [1 if value > 0 else -1 for value in values.values()]))
        files.append((name, encoded(picture(rng, 178, 218, label=attractive, group=male))))
    parts = [(name, cell[0]) for (name, _), cell in zip(rows, cells, strict=True)]
    image_place, attribute_place, part_place = (folder / place for place in places)
    for place in (image_place, attribute_place, part_place):
        place.mkdir(parents=True, exist_ok=True)
    if images == "zip":
        with zipfile.ZipFile(image_place / "img_align_celeba.zip", "w") as archive:
            archive.mkdir("img_align_celeba")
            for name, data in files:
                archive.writestr(f"img_align_celeba/{name}", data)
    else:
        nested = "img_align_celeba" if images == "nested" else "."
        write_files(image_place / "img_align_celeba" / nested, files)
    attributes = attribute_place / f"list_attr_celeba.{lists}"
    partition = part_place / f"list_eval_partition.{lists}"
    if lists == "csv":
        table = [["image_id", *CELEBA_ATTRIBUTES], *([name, *values] for name, values in rows)]
        _write_csv(attributes, table)
        _write_csv(partition, [["image_id", "partition"], *parts])
    else:
        lines = [str(len(rows)), " ".join(CELEBA_ATTRIBUTES) + " "]
        lines += [f"{name} {' '.join(f'{value:2d}' for value in values)}" for name, values in rows]
        attributes.write_text("\n".join(lines) + "\n")
        partition.write_text("".join(f"{name} {part}\n" for name, part in parts))
    return folder


def write_utkface(
    data_dir: Path, *, per_cell: int = 2, per_test_cell: int = 100, seed: int = 0, side: int = 200
) -> Path:
    """UTKFace: faces of three ages and four races, some of the others, names good and bad."""
    rng = np.random.default_rng(seed)
    ages = ((1, 20), (20, 40), (40, 117))
    faces = [
        (int(rng.integers(*ages[label])), int(rng.integers(2)), race, label)
        for label in range(3)
        for race in range(5)
        for _ in range(per_cell + per_test_cell)
    ]
    files = [
        (
            f"{age}_{gender}_{race}_{20170109142408075 + number}.jpg.chip.jpg",
            encoded(picture(rng, side, side, label=label, group=race)),
        )
        for number, (age, gender, race, label) in enumerate(faces)
    ]
    files += [(n, encoded(picture(rng, side, side))) for n in UTKFACE_BROKEN + UTKFACE_ODD]
    folder = data_dir / "UTKFace"
    write_files(folder, files)
    return folder


def write_bffhq(data_dir: Path, *, per_cell: int = 2, seed: int = 0, side: int = 128) -> Path:
    """BFFHQ: five times as many faces whose age and gender agree, a folder per age."""
    rng = np.random.default_rng(seed)
    numbers = iter(rng.permutation(100_000).tolist())

    def faces(place: str, age: int, gender: int, count: int) -> Iterator[tuple[str, bytes]]:
        for _ in range(count):
            name = f"{place}/{next(numbers):05d}_{age}_{gender}.png"
            image = picture(rng, side, side, label=age, group=gender)
            yield name, encoded(image, "PNG", compress_level=1)

    folder = data_dir / "bffhq"
    for age in (0, 1):
        write_files(folder, faces(f"0.5pct/align/{age}", age, age, 5 * per_cell))
        write_files(folder, faces(f"0.5pct/conflict/{age}", age, 1 - age, per_cell))
        for gender in (0, 1):
            for split in ("valid", "test"):
                write_files(folder, faces(split, age, gender, per_cell))
    return folder


def write_tiny_imagenet(
    data_dir: Path, *, per_cell: int = 1, num_classes: int = 200, seed: int = 0
) -> Path:
    """Tiny-ImageNet-200: ten times `per_cell` images of a class, some of them grey."""
    rng = np.random.default_rng(seed)
    folder = data_dir / "tiny-imagenet-200"
    wnids = [f"n{number:08d}" for number in rng.choice(10**8, num_classes, replace=False)]
    for label, wnid in enumerate(sorted(wnids)):
        count = 10 * per_cell
        names = [f"{wnid}_{i}.JPEG" for i in range(count)]
        shown = [picture(rng, 64, 64, label=label, group=label // 8) for _ in range(count)]
        shown[0] = shown[0].convert("L")
        files = zip(names, map(encoded, shown), strict=True)
        write_files(folder / "train" / wnid / "images", files)
        boxes = "".join(f"{name}\t0\t0\t63\t63\n" for name in names)
        (folder / "train" / wnid / f"{wnid}_boxes.txt").write_text(boxes)
    labels = rng.permutation(np.repeat(np.arange(num_classes), per_cell))
    names = [f"val_{i}.JPEG" for i in range(len(labels))]
    order = sorted(wnids)
    write_files(
        folder / "val" / "images",
        (
            (name, encoded(picture(rng, 64, 64, label=label, group=label // 8)))
            for name, label in zip(names, labels, strict=True)
        ),
    )
    lines = (f"{n}\t{order[k]}\t0\t32\t44\t62\n" for n, k in zip(names, labels, strict=True))
    (folder / "val" / "val_annotations.txt").write_text("".join(lines))
    (folder / "wnids.txt").write_text("".join(f"{wnid}\n" for wnid in wnids))  # in no order
    words = [f"{wnid}\tthing {i}, a thing\n" for i, wnid in enumerate(order)]
    (folder / "words.txt").write_text("n00001740\tentity\n" + "".join(words))
    write_files(folder / "test" / "images", [("test_0.JPEG", encoded(picture(rng, 64, 64)))])
    return folder


def write_imagenet(
    data_dir: Path, wnids: Sequence[str], *, per_cell: int = 1, seed: int = 0, side: int = 160
) -> Path:
    """ImageNet's folders of some classes and of one more, the classes of unequal sizes.

    Its quirks are there: images of all shapes, grey and CMYK ones, a PNG that is called JPEG.
    """
    rng = np.random.default_rng(seed)
    folder = data_dir / "imagenet"
    for label, wnid in enumerate([*wnids, "n09999999"]):
        for split, count in (("train", 10 * per_cell + label), ("val", per_cell)):
            shown = [
                picture(rng, *rng.integers(side, 2 * side, 2).tolist(), label=label)
                for _ in range(count)
            ]
            if split == "train":
                shown[0], shown[1] = shown[0].convert("L"), shown[1].convert("CMYK")
            kinds = ["JPEG"] * (count - 1) + ["PNG" if label == 0 else "JPEG"]
            files = (
                (f"{split}/{wnid}/{wnid}_{i}.JPEG", encoded(image, kind))
                for i, (image, kind) in enumerate(zip(shown, kinds, strict=True))
            )
            write_files(folder, files)
    return folder


def write_cifar10(
    data_dir: Path, *, per_cell: int = 1, seed: int = 0, version: str = "binary"
) -> tuple[Path, dict[str, str]]:
    """CIFAR-10 in six batches, ten times `per_cell` images of a class in each of the splits.

    Args:
      data_dir: where to make the folder of the batches.
      per_cell: training images of the smallest cell at a bias of 0.9.
      seed: decides everything.
      version: "binary" or "python", the latter pickled as Python 2 did it.

    Returns:
      The folder, and the MD5 checksum of every batch.
    """
    rng = np.random.default_rng(seed)
    folder = data_dir / f"cifar-10-batches-{'bin' if version == 'binary' else 'py'}"
    folder.mkdir(parents=True)
    train = np.array_split(rng.permutation(np.repeat(np.arange(10), 10 * per_cell)), 5)
    test = rng.permutation(np.repeat(np.arange(10), 10 * per_cell))
    checksums = {}
    for name, labels in zip(CIFAR_BATCHES, [*train, test], strict=True):
        images = [np.asarray(picture(rng, 32, 32, label=int(label))) for label in labels]
        planes = np.stack(images).transpose(0, 3, 1, 2).reshape(len(labels), -1)
        if version == "binary":
            data = np.concatenate([labels[:, None], planes], axis=1).astype(np.uint8).tobytes()
        else:
            data = python_2_pickle(planes, labels.tolist(), name)
        checksums[name] = hashlib.md5(data, usedforsecurity=False).hexdigest()
        (folder / (name + ".bin" * (version == "binary"))).write_bytes(data)
    (folder / "batches.meta.txt").write_text("".join(f"{name}\n" for name in CIFAR_CLASSES) + "\n")
    return folder, checksums


def python_2_pickle(planes: np.ndarray, labels: list[int], name: str) -> bytes:
    """A batch as cPickle of Python 2 wrote it: texts are bytes, an array is made of its parts."""

    def text(value: bytes) -> bytes:
        if len(value) < 256:
            return b"U" + bytes([len(value)]) + value
        return b"T" + struct.pack("<i", len(value)) + value

    def integer(value: int) -> bytes:
        return b"J" + struct.pack("<i", value)

    def numbers(*values: int) -> bytes:
        return b"(" + b"".join(map(integer, values)) + b"t"

    array = b"".join(
        [
            b"cnumpy.core.multiarray\n_reconstruct\n",
            *(b"(cnumpy\nndarray\n", numbers(0), text(b"b"), b"tR"),
            *(b"(", integer(1), numbers(*planes.shape)),
            *(b"cnumpy\ndtype\n(", text(b"u1"), integer(0), integer(1), b"tR"),
            *(b"(", integer(3), text(b"|"), b"NNN", integer(-1), integer(-1), integer(0), b"tb"),
            *(b"\x89", text(planes.astype(np.uint8).tobytes()), b"tb"),
        ]
    )
    items = [
        text(b"batch_label") + text(f"batch for {name}".encode()),
        text(b"labels") + b"](" + b"".join(map(integer, labels)) + b"e",
        text(b"data") + array,
        text(b"filenames") + b"](" + b"".join(text(b"x_s_000001.png") for _ in labels) + b"e",
    ]
    return b"\x80\x02}(" + b"".join(items) + b"u."


class Creates:
    """Pickled, a call that makes a folder: what a pickle from the web could do."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


def hostile_pickle(path: Path) -> bytes:
    """A batch that makes a folder when it is loaded."""
    return pickle.dumps({b"data": Creates(path), b"labels": [0]}, protocol=3)


def write_images(
    data_dir: Path, *, per_cell: int = 4, seed: int = 0, side: int = 48, table: str = "faces.csv"
) -> Path:
    """Own images of three classes and two groups, with a table of them."""
    rng = np.random.default_rng(seed)
    rows: list[Sequence[object]] = [("path", "target", "protected", "photographer")]
    for label, kind in enumerate(("cat", "dog", "fox")):
        for group, place in enumerate(("inside", "outside")):
            for i in range(per_cell):
                name = f"pictures/{kind}_{place}_{i}.png"
                image = picture(rng, side, side + 8 * label, label=label, group=group)
                write_files(data_dir, [(name, encoded(image, "PNG"))])
                rows.append((name, kind, place, f"nobody {i}"))
    _write_csv(data_dir / table, rows)
    return data_dir


def write_tree(
    data_dir: Path,
    counts: dict[str, int],
    *,
    seed: int = 0,
    side: int = 12,
) -> Path:
    """Own images in folders: so many in each."""
    rng = np.random.default_rng(seed)
    for number, (place, count) in enumerate(counts.items()):
        images = (picture(rng, side, side, label=number) for _ in range(count))
        files = ((f"{place}/{i}.png", encoded(image, "PNG")) for i, image in enumerate(images))
        write_files(data_dir, files)
    return data_dir


def _write_csv(path: Path, rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
