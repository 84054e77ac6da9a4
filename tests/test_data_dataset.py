"""Checks of arrays on their way into a data set."""

import dataclasses

import numpy as np
import pytest

from fairdd_jax.data import Dataset, Split
from fairdd_jax.errors import DataError


def arrays(n=12, classes=3, groups=2, shape=(5, 7, 3), seed=0):
    rng = np.random.default_rng(seed)
    return (
        rng.integers(0, 256, (n, *shape), dtype=np.uint8),
        np.arange(n) % classes,
        rng.permutation(np.arange(n) % groups),
    )


def test_from_arrays_reads_everything_off_the_data():
    train, test = arrays(17, classes=4), arrays(29, classes=4, seed=1)
    data = Dataset.from_arrays(train, test)
    assert (data.num_classes, data.num_groups, data.image_shape) == (4, 2, (5, 7, 3))
    assert data.classes == ("0", "1", "2", "3")
    assert (len(data.train), len(data.test)) == (17, 29)
    np.testing.assert_array_equal(data.train.images, train[0])
    unit = train[0].astype(np.float64) / 255
    np.testing.assert_allclose(data.mean, unit.mean(axis=(0, 1, 2)), atol=1e-12)
    np.testing.assert_allclose(data.std, unit.std(axis=(0, 1, 2)), atol=1e-12)


def test_statistics_cover_more_images_than_one_chunk():
    images = np.zeros((2500, 1, 1, 1), np.uint8)
    images[1100:] = 255
    split = (images, np.zeros(2500, int), np.zeros(2500, int))
    data = Dataset.from_arrays(split, split)
    assert data.mean == pytest.approx((1400 / 2500,))


def test_given_names_and_statistics_are_kept():
    data = Dataset.from_arrays(
        arrays(),
        arrays(),
        name="mine",
        classes=["a", "b", "c"],
        groups=("g", "h", "unused"),
        mean=(0.1, 0.2, 0.3),
        std=(1, 2, 3),
    )
    assert (data.name, data.classes, data.groups) == (
        "mine",
        ("a", "b", "c"),
        ("g", "h", "unused"),
    )
    assert (data.mean, data.std) == ((0.1, 0.2, 0.3), (1, 2, 3))
    assert data.cell_counts(data.train)[:, 2].tolist() == [0, 0, 0]


def test_what_cannot_be_distilled_is_refused():
    train = arrays()
    with pytest.raises(DataError, match="class 'd' has no training image; leave it out"):
        Dataset.from_arrays(train, train, classes=["a", "b", "c", "d"])
    two_channels = (train[0][..., :2], *train[1:])
    with pytest.raises(DataError, match="2 channels; convert them to 1 or 3"):
        Dataset.from_arrays(two_channels, two_channels)
    identities = (train[0], np.arange(len(train[1])) * 10**8, train[2])
    with pytest.raises(DataError, match=r"numbered 0, 1, \.\.\., got \d+ with fewer images"):
        Dataset.from_arrays(identities, identities)


def test_the_normalisation_is_kept_as_plain_numbers():
    """JSON has no others."""
    images = np.zeros((2, 8, 8, 1), np.uint8)
    split = (images, [0, 1], [0, 1])
    half = np.array([0.5], np.float32)
    for data in (
        Dataset.from_arrays(split, split),
        Dataset.from_arrays(split, split, mean=half, std=half),
    ):
        assert {type(value) for value in data.mean + data.std} == {float}


@pytest.mark.parametrize("what", ["images", "labels", "groups"])
@pytest.mark.parametrize("where", ["train", "test"])
def test_a_fingerprint_is_of_all_labels_and_of_images(where, what):
    data = Dataset.from_arrays(arrays(31), arrays())
    split = getattr(data, where)
    array = getattr(split, what).copy()
    array[-1] = (array[-1] + 1) % 2
    other = dataclasses.replace(data, **{where: dataclasses.replace(split, **{what: array})})
    assert data.fingerprint == Dataset.from_arrays(arrays(31), arrays()).fingerprint
    assert other.fingerprint != data.fingerprint


def test_a_constant_channel_can_be_normalised():
    constant = (np.full((4, 2, 2, 1), 7, np.uint8), [0, 0, 1, 1], [0, 1, 0, 1])
    assert Dataset.from_arrays(constant, constant).std == (1.0,)


def test_cell_counts_equal_counting_one_by_one():
    data = Dataset.from_arrays(arrays(31, classes=3, groups=4), arrays())
    expected = np.zeros((3, 4), int)
    for label, group in zip(data.train.labels, data.train.groups, strict=True):
        expected[label, group] += 1
    np.testing.assert_array_equal(data.cell_counts(data.train), expected)
    assert data.cell_counts(data.test).sum() == 12


@pytest.mark.parametrize("indices", [[0, 2, 1], np.array([0, 2, 1], np.uint8), (0, 2, 1)])
def test_any_integers_become_int32(indices):
    split = Split(np.zeros((3, 4, 4, 1), np.uint8), indices, indices)
    assert split.labels.dtype == split.groups.dtype == np.int32
    assert split.labels.tolist() == [0, 2, 1]


IMAGES = np.zeros((3, 4, 4, 1), np.uint8)


@pytest.mark.parametrize(
    ("images", "labels", "groups", "message"),
    [
        (IMAGES / 255, [0, 1, 0], [0, 0, 0], r"uint8 in 0\.\.255, got float64"),
        (IMAGES[..., 0], [0, 1, 0], [0, 0, 0], r"got shape \(3, 4, 4\)"),
        (IMAGES[:0], [], [], r"non-empty .* got shape \(0, 4, 4, 1\)"),
        (IMAGES, [0, 1], [0, 0, 0], r"labels must be one integer per image, shape \(3,\)"),
        (IMAGES, [0, 1, 0], [[0, 0, 0]], r"groups .* got shape \(1, 3\)"),
        (IMAGES, [0.0, 1.0, 0.0], [0, 0, 0], "labels must be integers, got float64"),
        (IMAGES, [0, 1, 0], [0, -1, 0], r"groups must be in .* got -1\.\.0"),
        (IMAGES, [0, 2**32, 0], [0, 0, 0], r"labels must be in .* got 0\.\.4294967296"),
    ],
)
def test_bad_arrays_are_refused_in_one_line(images, labels, groups, message):
    with pytest.raises(DataError, match=message) as error:
        Split(images, labels, groups)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": ["a", "b"]}, r"train split has the label 2, but 2 names mean 0\.\.1"),
        ({"groups": ["g"]}, "train split has the group 1, but 1 names"),
        ({"mean": [0.5]}, r"one value per channel \(3\)"),
        ({"std": [0.5, 0.5, 0.0]}, "std must be positive"),
        ({"std": [0.5, 0.5, float("nan")]}, "std must be positive"),
        ({"test": arrays(shape=(5, 5, 3))}, r"\(5, 7, 3\) and test images \(5, 5, 3\)"),
        ({"test": arrays(classes=4), "classes": "abc"}, "test split has the label 3"),
    ],
)
def test_what_does_not_fit_together_is_refused(change, message):
    options = {"train": arrays(), "test": arrays(), **change}
    with pytest.raises(DataError, match=message) as error:
        Dataset.from_arrays(options.pop("train"), options.pop("test"), **options)
    assert "\n" not in str(error.value)
