"""CIFAR10-S from the original batches, binary and pickled."""

import hashlib
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import golden
from originals import CIFAR_BATCHES, hostile_pickle, python_2_pickle, refused, write_cifar10
from PIL import Image, ImageDraw

from fairdd_jax.data import DataConfig, cifar, cifar_batches, load
from fairdd_jax.data.balance import assign_grey
from fairdd_jax.errors import DataError


@pytest.fixture(autouse=True)
def no_copies(tmp_path_factory, monkeypatch):
    """Copies that this machine may have must not be found."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path_factory.mktemp("empty")))


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A data folder that no test changes."""
    data_dir = tmp_path_factory.mktemp("binary")
    write_cifar10(data_dir)
    return data_dir


@pytest.fixture
def folder(original, tmp_path):
    """A copy of the batches to damage."""
    return Path(shutil.copytree(original, tmp_path / "data")) / "cifar-10-batches-bin"


@pytest.fixture
def pickled(tmp_path, monkeypatch):
    """The batches of the Python version, whose checksums are made the published ones."""
    folder, checksums = write_cifar10(tmp_path, version="python")
    monkeypatch.setattr(cifar_batches, "MD5", checksums)
    return folder


def find(data_dir, **options):
    return cifar.find(DataConfig("cifar10s", **options), data_dir, False)


def rows(folder, names):
    """Images and labels of binary batches, in a plain loop: a label, then the planes R, G, B."""
    images, labels = [], []
    for name in names:
        data = (folder / f"{name}.bin").read_bytes()
        for start in range(0, len(data), 3073):
            labels.append(data[start])
            planes = np.frombuffer(data[start + 1 : start + 3073], np.uint8).reshape(3, 32, 32)
            images.append(np.stack(list(planes), axis=-1))
    return images, labels


def grey(image):
    return np.asarray(Image.fromarray(image).convert("L").convert("RGB"))


def test_training_images_come_in_the_order_of_the_batches_and_some_are_grey(original):
    data = find(original)
    images, labels = rows(original / "cifar-10-batches-bin", CIFAR_BATCHES[:-1])
    assert data.train.labels.tolist() == labels
    assert len(set(labels[:20])) > 1
    seen = dict.fromkeys(range(10), 0)
    for image, label, group, actual in zip(
        images, labels, data.train.groups, data.train.images, strict=True
    ):
        seen[label] += 1
        assert group == int(seen[label] > (9 if label < 5 else 1))
        np.testing.assert_array_equal(actual, image if group else grey(image))


def test_every_test_image_is_there_grey_and_in_colour(original):
    test = find(original, bias_ratio=0.5).test
    images, labels = rows(original / "cifar-10-batches-bin", CIFAR_BATCHES[-1:])
    assert test.labels.tolist() == labels * 2
    assert test.groups.tolist() == [0] * len(labels) + [1] * len(labels)
    expected = [grey(image) for image in images] + images
    np.testing.assert_array_equal(test.images, expected)


def changed(image, severity, rng):
    """A grade of COBRA's code, one change after the other."""
    out = np.empty_like(image)
    for row in range(32):
        for column in range(32):
            red, green, blue = image[row, column]
            out[row, column] = (green, blue, red) if severity else (red, green, blue)
    if severity >= 2:
        out = drawn(out, (0, 0, 32, 32), (255, 0, 0), 2)
    if severity >= 3:
        for row in range(2, 7):
            for column in range(2, 7):
                out[row, column] = (255, 0, 0)
    if severity >= 4:
        noise = np.trunc(rng.standard_normal((32, 32, 3)) * 50 + 2.5)
        out = np.minimum(np.maximum(out + noise, 0), 255).astype(np.uint8)
        out = drawn(out, (0, 32, 32, 0), (0, 255, 0), 3)
    return out


def drawn(image, ends, colour, width):
    picture = Image.fromarray(image)
    ImageDraw.Draw(picture).line(ends, fill=colour, width=width)
    return np.array(picture)


@pytest.mark.parametrize("severity", [0, 1, 2, 3, 4])
def test_the_first_group_is_changed_by_a_grade(original, severity):
    """In the order of a shuffle from the seed 0, then image by image with noise of that stream."""
    data = find(original, severity=severity, bias_ratio=0.8)
    folder = original / "cifar-10-batches-bin"
    for split, names in ((data.train, CIFAR_BATCHES[:-1]), (data.test, CIFAR_BATCHES[-1:])):
        images, labels = rows(folder, names)
        rng, order = np.random.RandomState(0), np.arange(len(labels))
        rng.shuffle(order)
        if split is data.train:
            expected, seen = [], dict.fromkeys(range(10), 0)
            for i in order:
                seen[labels[i]] += 1
                group = int(seen[labels[i]] > (8 if labels[i] < 5 else 2))
                expected.append((images[i] if group else changed(images[i], severity, rng), group))
        else:
            expected = [(changed(images[i], severity, rng), 0) for i in order]
            expected += [(images[i], 1) for i in order]
            order = [*order, *order]
        assert split.labels.tolist() == [labels[i] for i in order]
        assert split.groups.tolist() == [group for _, group in expected]
        np.testing.assert_array_equal(split.images, [image for image, _ in expected])
    assert data.groups == ("changed", "original")


def test_the_red_line_and_square_lie_where_they_should(original):
    """Without Pillow: on the diagonal; and a square of 25 pixels."""
    test = find(original, severity=2).test
    first = test.images[test.groups == 0]
    assert (first[:, range(1, 32), range(1, 32)] == (255, 0, 0)).all()
    corner = np.s_[:, 12:, :10]
    np.testing.assert_array_equal(
        first[corner], test.images[test.groups == 1][corner][..., [1, 2, 0]]
    )
    third = find(original, severity=3).test.images[: len(first)]
    added = (third != first).any(axis=(0, -1))
    assert (third[:, 2:7, 2:7] == (255, 0, 0)).all()
    added[2:7, 2:7] = False
    assert not added.any()


def test_names_and_normalisation(original):
    data = load(DataConfig("cifar10s"), data_dir=original)
    assert (data.num_classes, data.groups) == (10, ("grey", "colour"))
    assert data.classes[3] == "cat"
    assert data.mean == (0.48905, 0.48451, 0.46715)
    assert data.std == (0.24278, 0.24082, 0.25098)


@pytest.mark.parametrize("case", golden("bias_assignment.json")["cifar10_s"]["train"])
def test_counts_are_the_official_ones(tmp_path, monkeypatch, case):
    """At the official size, of images with one pixel."""
    counts = {
        "train": np.asarray(case["train_count_group_by_class"]),
        "test": np.asarray(
            golden("bias_assignment.json")["cifar10_s"]["test_count_group_by_class"]
        ),
    }

    def batches(folder, split):
        per_class = counts[split].sum(0) // (2 if split == "test" else 1)
        labels = np.random.default_rng(0).permutation(np.repeat(np.arange(10), per_class))
        return np.zeros((len(labels), 1, 1, 3), np.uint8), labels

    (tmp_path / "data_batch_1.bin").touch()
    monkeypatch.setattr(cifar_batches, "load", batches)
    data = find(tmp_path, bias_ratio=case["ratio"])
    np.testing.assert_array_equal(data.cell_counts(data.train).T, counts["train"])
    np.testing.assert_array_equal(data.cell_counts(data.test).T, counts["test"])


@pytest.mark.parametrize("ratio", [0.29, 0.58])
def test_the_share_is_that_of_all_images_as_officially(ratio):
    """A class's own share would be rounded otherwise."""
    labels = np.repeat(np.arange(10), 5000)
    majority = int(50_000 * ratio) // 10
    assert majority != int(5000 * ratio)
    colours = np.bincount(labels, assign_grey(labels, ratio=ratio, num_classes=10))
    assert colours.tolist() == [5000 - majority] * 5 + [majority] * 5


def test_the_balanced_variant(original):
    data = load(DataConfig("cifar10s", balanced=True), data_dir=original)
    assert (data.cell_counts(data.train) == 1).all()


@pytest.mark.parametrize(
    "place", [".", "cifar-10-batches-bin", "cifar10", "CIFAR10/cifar-10-batches-bin"]
)
def test_every_place_of_the_batches_is_found(original, tmp_path, place):
    source = original / "cifar-10-batches-bin"
    shutil.copytree(source, tmp_path / place, dirs_exist_ok=True)
    np.testing.assert_array_equal(find(tmp_path).train.images, find(original).train.images)


def test_the_python_version_is_the_same_data_set(original, pickled):
    binary, python = find(original), find(pickled.parent)
    for split in ("train", "test"):
        for field in ("images", "labels", "groups"):
            expected = getattr(getattr(binary, split), field)
            np.testing.assert_array_equal(getattr(getattr(python, split), field), expected)


def test_the_published_checksums_are_those_of_six_different_files():
    assert cifar_batches.MD5.keys() == set(CIFAR_BATCHES)
    assert len(set(cifar_batches.MD5.values())) == 6
    assert all(len(bytes.fromhex(md5)) == 16 for md5 in cifar_batches.MD5.values())


def test_the_hostile_pickle_does_what_it_says(tmp_path):
    pickle.loads(hostile_pickle(tmp_path / "made"))
    assert (tmp_path / "made").exists()


def test_a_pickle_of_another_checksum_is_not_read(pickled, tmp_path):
    (pickled / "data_batch_2").write_bytes(hostile_pickle(tmp_path / "made"))
    with refused(DataError, r"data_batch_2 is not the published file \(md5 \w{32} instead of"):
        find(pickled.parent)
    assert not (tmp_path / "made").exists()


def publish(monkeypatch, folder, name, data):
    """Make a batch the published one."""
    (folder / name).write_bytes(data)
    md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
    monkeypatch.setitem(cifar_batches.MD5, name, md5)


def test_a_pickle_that_would_run_something_is_refused_even_if_its_checksum_matches(
    pickled, tmp_path, monkeypatch
):
    publish(monkeypatch, pickled, "data_batch_2", hostile_pickle(tmp_path / "made"))
    with refused(DataError, r"data_batch_2 is no batch of CIFAR-10 \(posix\.mkdir is no part"):
        find(pickled.parent)
    assert not (tmp_path / "made").exists()


PLANES = np.zeros((2, 3072), np.uint8)
NO_BATCH = {
    "empty": b"",
    "cut off": python_2_pickle(PLANES, [1, 2], "x")[:-40],
    "text": b"<html>\n",
    "a number": pickle.dumps(3),
    "a list": pickle.dumps([1, 2]),
    "other keys": pickle.dumps({b"images": 1}),
    "fewer labels": python_2_pickle(PLANES, [1], "x"),
    "no labels": python_2_pickle(PLANES, [], "x"),
    "other planes": python_2_pickle(PLANES[:, :100], [1, 2], "x"),
    "labels beyond 9": python_2_pickle(PLANES, [1, 10], "x"),
    "labels beyond 255": python_2_pickle(PLANES, [1, 1000], "x"),
    "negative labels": python_2_pickle(PLANES, [1, -1], "x"),
}


@pytest.mark.parametrize("data", NO_BATCH.values(), ids=NO_BATCH.keys())
def test_a_pickle_that_is_no_batch_is_refused_in_one_line(pickled, monkeypatch, data):
    publish(monkeypatch, pickled, "test_batch", data)
    with refused(DataError, r"test_batch .*get it again"):
        find(pickled.parent)


DAMAGE = {
    "a batch lacks": (Path.unlink, r"lacks data_batch_3\.bin; put all six batches"),
    "empty": (lambda path: path.write_bytes(b""), "has 0 bytes, not a multiple of 3073"),
    "cut off": (
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        r"has \d+ bytes, not a multiple of 3073; it is damaged",
    ),
    "labels beyond 9": (
        lambda path: path.write_bytes(b"\x0a" + path.read_bytes()[1:]),
        "has labels beyond 9",
    ),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), r"lacks data_batch_3\.bin"),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_batch_is_refused_in_one_line(folder, damage, message):
    damage(folder / "data_batch_3.bin")
    with refused(DataError, message):
        find(folder.parent)


def test_a_batch_that_may_not_be_read_is_a_data_error(original, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with refused(DataError, r"data_batch_1\.bin cannot be read: Permission denied"):
        find(original)


@pytest.mark.parametrize("data_dir", [None, "empty", "absent"])
def test_no_batches_at_all_say_what_to_put_where(tmp_path, data_dir):
    (tmp_path / "empty").mkdir()
    with refused(DataError, r"cifar10s not found.*data_batch_1\.bin.*test_batch\.bin.*tfds"):
        find(data_dir and tmp_path / data_dir)
