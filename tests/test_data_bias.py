"""Colour bias and group noise against plain loops that follow the rules in words."""

from fractions import Fraction

import numpy as np
import pytest

from fairdd_jax.data import (
    COLOUR_NAMES,
    COLOURS,
    assign_colours,
    colour_images,
    colour_table,
    flip_groups,
    frame,
)
from fairdd_jax.errors import ConfigError, DataError

UNEVEN = np.repeat(np.arange(10), [17, 29, 1, 0, 100, 46, 10, 5, 45, 20])


def counts(labels, source, colours):
    table = np.zeros((10, 10), int)
    np.add.at(table, (labels[source], colours), 1)
    return table


def random_stream(seed=3):
    return np.random.RandomState(seed)


@pytest.mark.parametrize("minority", ["equal", "unequal"])
@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.9, 1.0])
@pytest.mark.parametrize("confusing", [1, 4, 9])
def test_every_image_gets_one_colour_and_the_own_one_its_share(minority, ratio, confusing):
    source, colours = assign_colours(
        UNEVEN, ratio=ratio, rng=random_stream(), minority=minority, n_confusing_labels=confusing
    )
    np.testing.assert_array_equal(np.sort(source), np.arange(len(UNEVEN)))
    table = counts(UNEVEN, source, colours)
    for label in range(10):
        n = int(np.sum(label == UNEVEN))
        assert table[label, label] == int(n * ratio)
        allowed = {(label + step) % 10 for step in range(confusing + 1)}
        assert set(np.flatnonzero(table[label])) <= allowed


@pytest.mark.parametrize("confusing", [2, 9])
def test_equal_minority_is_consecutive_chunks_of_the_ceiling(confusing):
    source, colours = assign_colours(
        UNEVEN, ratio=0.3, rng=random_stream(), n_confusing_labels=confusing
    )
    table = counts(UNEVEN, source, colours)
    for label in range(10):
        rest = int(np.sum(label == UNEVEN)) - table[label, label]
        chunks, size = [], -(-rest // confusing)
        while rest > 0:
            chunks.append(min(size, rest))
            rest -= size
        others = np.delete(table[label], label)
        assert sorted(others[others > 0]) == sorted(chunks)


@pytest.mark.parametrize("number", [2, 3, 6, 10])
@pytest.mark.parametrize("ratio", [0.1, 0.9])
def test_fewer_colours_are_shared_by_classes(number, ratio):
    """Class c has the colour c modulo N, the other N - 1 share what is left of it."""
    source, colours = assign_colours(UNEVEN, ratio=ratio, rng=random_stream(), colours=number)
    np.testing.assert_array_equal(np.sort(source), np.arange(len(UNEVEN)))
    for label, n in enumerate([17, 29, 1, 0, 100, 46, 10, 5, 45, 20]):
        found = [0] * number
        for image, colour in zip(source, colours, strict=True):
            found[colour] += int(UNEVEN[image] == label)
        own = found.pop(label % number)
        assert own == int(n * ratio)
        rest, size = n - own, -(-(n - own) // (number - 1))
        pieces = []
        for _ in range(number - 1):
            pieces.append(min(size, rest))
            rest -= pieces[-1]
        assert sorted(found) == sorted(pieces)


def test_unequal_minority_is_one_to_nine_by_largest_remainder():
    source, colours = assign_colours(UNEVEN, ratio=0.3, rng=random_stream(), minority="unequal")
    table = counts(UNEVEN, source, colours)
    for label in range(10):
        rest = int(np.sum(label == UNEVEN)) - table[label, label]
        quotas = [Fraction(rest * weight, 45) for weight in range(1, 10)]
        sizes = [int(quota) for quota in quotas]
        by_remainder = sorted(range(9), key=lambda i: (sizes[i] - quotas[i], i))
        for i in by_remainder[: rest - sum(sizes)]:
            sizes[i] += 1
        assert sorted(np.delete(table[label], label)) == sorted(sizes)


def test_unequal_minority_of_a_multiple_of_45_is_exact_and_dealt_at_random():
    labels = np.repeat(np.arange(10), 100)
    source, colours = assign_colours(labels, ratio=0.1, rng=random_stream(), minority="unequal")
    table = counts(labels, source, colours)
    largest = []
    for label in range(10):
        assert sorted(np.delete(table[label], label)) == [2 * i for i in range(1, 10)]
        largest.append((np.argmax(np.where(np.arange(10) == label, 0, table[label])) - label) % 10)
    assert len(set(largest)) > 2


def test_the_minority_rule_does_not_move_the_random_stream():
    streams = [random_stream(), random_stream()]
    equal, unequal = (
        assign_colours(UNEVEN, ratio=0.5, rng=rng, minority=minority)
        for rng, minority in zip(streams, ["equal", "unequal"], strict=True)
    )
    assert streams[0].randint(2**31) == streams[1].randint(2**31)
    own = [set(source[UNEVEN[source] == colours]) for source, colours in (equal, unequal)]
    assert own[0] == own[1]
    assert not np.array_equal(equal[1], unequal[1])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"ratio": 1.5}, ConfigError, "got 1.5"),
        ({"ratio": float("nan")}, ConfigError, "got nan"),
        ({"minority": "some"}, ConfigError, "'equal', 'unequal'"),
        ({"n_confusing_labels": 0}, ConfigError, "1..9, got 0"),
        ({"n_confusing_labels": 10}, ConfigError, "1..9, got 10"),
        ({"n_confusing_labels": 4, "colours": 4}, ConfigError, "1..3, got 4"),
        ({"colours": 1}, ConfigError, "colours must be in 2..10, got 1"),
        ({"colours": 11}, ConfigError, "colours must be in 2..10, got 11"),
        ({"labels": np.array([0, 10])}, DataError, "got 0..10"),
        ({"labels": np.array([-1, 1])}, DataError, "got -1..1"),
    ],
)
def test_impossible_assignments_are_refused(options, error, message):
    options = {"labels": UNEVEN, "ratio": 0.9, **options}
    with pytest.raises(error, match=message):
        assign_colours(options.pop("labels"), rng=random_stream(), **options)


@pytest.mark.parametrize("fraction", [0.0, 0.123, 1.0])
def test_group_noise_flips_exactly_the_fraction(fraction):
    groups = np.arange(1000, dtype=np.int32) % 4
    kept = groups.copy()
    noisy = flip_groups(groups, fraction=fraction, num_groups=4, rng=np.random.default_rng(1))
    assert np.sum(noisy != groups) == round(fraction * 1000)
    np.testing.assert_array_equal(groups, kept)
    assert noisy.dtype == groups.dtype
    assert set(noisy) <= {0, 1, 2, 3}


def test_group_noise_is_uniform_over_the_other_groups():
    groups = np.full(30000, 2, np.int32)
    noisy = flip_groups(groups, fraction=1.0, num_groups=4, rng=np.random.default_rng(1))
    share = np.bincount(noisy, minlength=4) / 30000
    # The standard error of a share is sqrt(2/9 / 30000) = 0.0027.
    np.testing.assert_allclose(share, [1 / 3, 1 / 3, 0, 1 / 3], atol=0.014)


@pytest.mark.parametrize("options", [{"fraction": -0.1}, {"fraction": 1.1}, {"num_groups": 1}])
def test_impossible_group_noise_is_refused(options):
    options = {"fraction": 0.5, "num_groups": 2, **options}
    with pytest.raises(ConfigError, match="group noise"):
        flip_groups(np.zeros(3, np.int32), rng=np.random.default_rng(0), **options)


def test_digit_colours_are_two_valued():
    fg, bg = colour_table("mnist", "fg"), colour_table("mnist", "bg")
    assert not fg[:, :128].any()
    assert not bg[:, 128:].any()
    np.testing.assert_array_equal(fg[:, 128:], np.broadcast_to(COLOURS[:, None], (10, 128, 3)))
    np.testing.assert_array_equal(bg[:, :128], np.broadcast_to(COLOURS[:, None], (10, 128, 3)))


def test_clean_background_fades_from_the_colour_to_black():
    clean, wrapped = colour_table("fashion", "bg", clean=True), colour_table("fashion", "bg")
    for colour in range(10):
        for level in (0, 1, 77, 128, 254, 255):
            expected = [int(Fraction((255 - level) * int(c), 255)) for c in COLOURS[colour]]
            assert clean[colour, level].tolist() == expected
    steps = np.diff(clean.astype(int), axis=1)
    assert (steps <= 0).all()
    assert (np.diff(wrapped.astype(int), axis=1) > 0).any()
    # Every garment is visible in front of every colour, and the ends are the official ones.
    assert (clean[:, 0].max(axis=1) - clean[:, 255].max(axis=1) == 255).all()
    assert np.abs(clean[:, [0, 255]].astype(int) - wrapped[:, [0, 255]]).max() <= 1


@pytest.mark.parametrize("table", [("mnist", "fg"), ("mnist", "bg"), ("fashion", "fg")])
def test_clean_changes_only_the_fashion_background(table):
    np.testing.assert_array_equal(colour_table(*table), colour_table(*table, clean=True))


def test_images_are_framed_and_coloured_pixel_by_pixel():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 5, 6), dtype=np.uint8)
    source, colours = rng.integers(0, 3, 1500), rng.integers(0, 10, 1500)
    table = rng.integers(0, 256, (10, 256, 3), dtype=np.uint8)
    out = colour_images(images, source, colours, table=table)
    assert out.shape == (1500, 9, 10, 3)
    assert out.dtype == np.uint8
    for n in (0, 1, 700, 1023, 1024, 1499):
        for i in range(9):
            for j in range(10):
                level = images[source[n], i - 4, j - 4] if min(i, j) >= 4 else 0
                assert out[n, i, j].tolist() == table[colours[n], level].tolist()


def test_the_frame_is_above_and_left():
    framed = frame(np.ones((2, 28, 28), np.uint8))
    assert framed.shape == (2, 32, 32)
    assert framed[:, 4:, 4:].all()
    assert framed.sum() == 2 * 28 * 28


def test_each_colour_has_a_name():
    assert len(COLOUR_NAMES) == len(COLOURS) == len(set(COLOUR_NAMES))
