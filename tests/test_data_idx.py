"""IDX files as people have them, whole and damaged."""

import gzip
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest

from fairdd_jax.data import idx
from fairdd_jax.errors import DataError

HEAD = Path(__file__).parent / "fixtures" / "mnist_head"
IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


def idx_bytes(array):
    header = struct.pack(f">I{array.ndim}I", 0x0800 | array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


def write_data_set(folder, *, n=20, separator="-", suffix="", seed=0):
    """A random data set under the usual file names."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {}
    for split, prefix in (("train", "train"), ("test", "t10k")):
        images, labels = rng.integers(0, 256, (n, 28, 28)), rng.permutation(n) % 10
        for name, array in (("images", images), ("labels", labels)):
            path = folder / f"{prefix}-{name}{separator}idx{array.ndim}-ubyte{suffix}"
            data = idx_bytes(array)
            path.write_bytes(gzip.compress(data) if suffix else data)
        arrays[split] = images, labels
    return arrays


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("separator", ["-", "."])
@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("mnist", "."),
        ("mnist", "mnist"),
        ("mnist", "MNIST/raw"),
        ("fashion_mnist", "."),
        ("fashion_mnist", "fashion_mnist"),
        ("fashion_mnist", "fashion-mnist"),
        ("fashion_mnist", "FashionMNIST/raw"),
    ],
)
def test_every_layout_is_found_and_read(tmp_path, name, layout, separator, suffix):
    arrays = write_data_set(tmp_path / layout, separator=separator, suffix=suffix)
    folder = idx.find_folder(tmp_path, name)
    assert folder == tmp_path / layout
    for split, (images, labels) in arrays.items():
        actual_images, actual_labels = idx.load(folder, name, split)
        assert actual_images.dtype == actual_labels.dtype == np.uint8
        np.testing.assert_array_equal(actual_images, images)
        np.testing.assert_array_equal(actual_labels, labels)


def test_nothing_is_found_in_an_empty_or_absent_folder(tmp_path):
    assert idx.find_folder(tmp_path, "mnist") is None
    assert idx.find_folder(tmp_path / "absent", "mnist") is None


def test_the_folder_that_names_the_data_set_comes_first(tmp_path):
    write_data_set(tmp_path)
    write_data_set(tmp_path / "mnist")
    write_data_set(tmp_path / "fashion-mnist")
    assert idx.find_folder(tmp_path, "mnist") == tmp_path / "mnist"
    assert idx.find_folder(tmp_path, "fashion_mnist") == tmp_path / "fashion-mnist"


def test_unpacked_files_come_before_packed_ones(tmp_path):
    write_data_set(tmp_path, suffix=".gz", seed=1)
    plain = write_data_set(tmp_path, seed=2)
    images, _ = idx.load(tmp_path, "mnist", "train")
    np.testing.assert_array_equal(images, plain["train"][0])


@pytest.fixture
def head(tmp_path):
    """A writable copy of the first real images."""
    return Path(shutil.copytree(HEAD, tmp_path / "mnist"))


def packed(name):
    return (HEAD / f"{name}.gz").read_bytes()


def plain(name):
    return gzip.decompress(packed(name))


def labels_file(n):
    return idx_bytes(np.zeros(n))


def test_real_digits_are_read(head):
    images, labels = idx.load(head, "mnist", "train")
    assert images.shape == (40, 28, 28)
    assert labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert 20 < images.mean() < 50


DAMAGED = {
    "truncated gzip": (f"{IMAGES}.gz", packed(IMAGES)[:-200], "truncated or no gzip"),
    "gzip cut in its header": (f"{IMAGES}.gz", packed(IMAGES)[:5], "truncated or no gzip"),
    "gzip of nonsense": (
        f"{IMAGES}.gz",
        packed(IMAGES)[:10] + b"\xff" * 50,
        "truncated or no gzip",
    ),
    "damaged gzip": (
        f"{IMAGES}.gz",
        packed(IMAGES)[:3000] + b"\0" * 9 + packed(IMAGES)[3009:],
        "truncated or no gzip",
    ),
    "a web page": (f"{IMAGES}.gz", b"<!DOCTYPE html><html>404</html>", "starts with b'<!DOCTYP'"),
    "empty gzip": (f"{IMAGES}.gz", b"", "has 0 bytes"),
    "empty": (IMAGES, b"", "has 0 bytes"),
    "header only in part": (IMAGES, plain(IMAGES)[:10], "has 10 bytes"),
    "truncated": (IMAGES, plain(IMAGES)[:-1], r"header says shape \(40, 28, 28\)"),
    "trailing bytes": (IMAGES, plain(IMAGES) + b"\0", "takes 31376 bytes, and it has 31377"),
    "labels for images": (IMAGES, plain(LABELS), "no IDX file of images"),
    "images for labels": (LABELS, plain(IMAGES), "no IDX file of labels"),
    "packed under the plain name": (IMAGES, packed(IMAGES), r"starts with b'\\x1f\\x8b"),
    "other type": (LABELS, b"\0\0\x0d\1" + plain(LABELS)[4:], "no IDX file of labels"),
    "no image": (IMAGES, idx_bytes(np.zeros((0, 28, 28))), r"shape \(0, 28, 28\)"),
    "a lying header": (
        IMAGES,
        struct.pack(">4I", 0x0803, *[2**32 - 1] * 3) + b"\0" * 100,
        "damaged",
    ),
    "too few labels": (LABELS, labels_file(39), "39 labels for the 40 images"),
    "too many labels": (LABELS, labels_file(41), "41 labels for the 40 images"),
}


@pytest.mark.parametrize(("name", "content", "message"), DAMAGED.values(), ids=DAMAGED.keys())
def test_damaged_files_are_refused_in_one_line(head, name, content, message):
    (head / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        idx.load(head, "mnist", "train")
    assert "\n" not in str(error.value)
    assert str(head) in str(error.value)


def test_a_missing_file_is_named(head):
    (head / f"{LABELS}.gz").unlink()
    assert idx.find_folder(head.parent, "mnist") == head
    with pytest.raises(DataError, match=f"lacks {LABELS}") as error:
        idx.load(head, "mnist", "train")
    assert "\n" not in str(error.value)


def test_a_folder_in_place_of_a_file_is_refused_unless_the_file_is_there_too(head):
    (head / IMAGES).mkdir()
    assert len(idx.load(head, "mnist", "train")[0]) == 40
    (head / f"{IMAGES}.gz").unlink()
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        idx.load(head, "mnist", "train")


def test_a_file_without_permission_is_refused(head, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(DataError, match=f"{IMAGES}.gz cannot be read: Permission denied"):
        idx.load(head, "mnist", "train")


def test_the_files_of_the_other_data_set_are_refused(head):
    """Both data sets use the same file names; the labels of the head are those of MNIST."""
    with pytest.raises(DataError, match="labels of mnist, not of fashion_mnist"):
        idx.load(head, "fashion_mnist", "train")
    with pytest.raises(DataError, match="labels of mnist, not of fashion_mnist"):
        idx.load(head, "fashion_mnist", "test")


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_the_first_labels_that_tell_the_data_sets_apart(name):
    folder = HEAD.parent / name
    for split, prefix in (("train", "train"), ("test", "t10k")):
        labels = idx.read_idx(folder / f"{prefix}-labels-idx1-ubyte.gz", dimensions=1)
        assert len(labels) == {"train": 60000, "test": 10000}[split]
        assert "".join(map(str, labels[:16])) in idx._FIRST_LABELS[name]
