"""Colours and their assignment against the official code."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from conftest import FIRST_ORDER, assert_close, golden

from fairdd_jax.data import COLOURS, assign_colours, colour_images, colour_table, frame, idx
from fairdd_jax.data.normalise import normalise

FIXTURES = Path(__file__).parent / "fixtures"
KINDS = ("mnist", "fashion")
GROUNDS = ("fg", "bg")
# The normalisation of CIFAR10-S in the official code.
CIFAR10S = {"mean": (0.48905, 0.48451, 0.46715), "std": (0.24278, 0.24082, 0.25098)}
HALF = {"mean": (0.5,) * 3, "std": (0.5,) * 3}


def counts(labels, colours):
    table = np.zeros((10, 10), int)
    np.add.at(table, (labels, colours), 1)
    return table


def test_colour_map():
    np.testing.assert_array_equal(COLOURS, golden("colour.npz")["colour_map"])
    np.testing.assert_array_equal(COLOURS, golden("bias_assignment.json")["colour_map_rgb"])


@pytest.mark.parametrize("kind", KINDS)
def test_frame(kind):
    arrays = golden("colour.npz")
    np.testing.assert_array_equal(frame(arrays[f"{kind}/raw"]), arrays[f"{kind}/padded"])


@pytest.mark.parametrize("ground", GROUNDS)
@pytest.mark.parametrize("kind", KINDS)
def test_colours_of_grey_levels_and_images(kind, ground):
    arrays = golden("colour.npz")
    table = colour_table(kind, ground)
    np.testing.assert_array_equal(table, arrays[f"{kind}/{ground}_lut"])
    raw = arrays[f"{kind}/raw"]
    for colour, expected in enumerate(arrays[f"{kind}/{ground}"]):
        every = np.arange(len(raw))
        actual = colour_images(raw, every, np.full(len(raw), colour), table=table)
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("ground", GROUNDS)
@pytest.mark.parametrize("kind", KINDS)
def test_images_as_a_data_set(kind, ground):
    arrays = golden("colour.npz")
    pipe = {key: arrays[f"{kind}/{ground}_pipe_{key}"] for key in ("source", "target", "colour")}
    labels = arrays[f"{kind}/label"]
    source, colours = assign_colours(
        labels,
        ratio=float(str(arrays["pipe_rho"])),  # stored as float32, drawn with the Python float
        rng=np.random.RandomState(int(arrays["pipe_np_seed"])),
    )
    np.testing.assert_array_equal(source, pipe["source"])
    np.testing.assert_array_equal(colours, pipe["colour"])
    np.testing.assert_array_equal(labels[source], pipe["target"])
    table = colour_table(kind, ground)
    images = colour_images(arrays[f"{kind}/raw"], source, colours, table=table)
    np.testing.assert_array_equal(images, arrays[f"{kind}/{ground}_pipe_image"])
    expected = arrays[f"{kind}/{ground}_pipe_norm"].transpose(0, 2, 3, 1)
    assert_close(normalise(images[: len(expected)], **HALF), expected, **FIRST_ORDER)


def test_normalised_grey_levels():
    arrays = golden("colour.npz")
    levels = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
    for channel in normalise(levels, **HALF).T:
        assert_close(channel, arrays["norm_lut"], **FIRST_ORDER)
    assert_close(normalise(levels, **CIFAR10S).T, arrays["norm_lut_cifar10s"], **FIRST_ORDER)


def test_sizes_of_the_own_and_the_other_colours():
    for case in golden("bias_assignment.json")["biased_mnist_counts"]:
        labels = np.zeros(case["n"], int)
        _, colours = assign_colours(labels, ratio=case["rho"], rng=np.random.RandomState(0))
        own, *others = np.bincount(colours, minlength=10)
        assert own == case["own_colour"], case
        assert sorted(others, reverse=True) == case["other_colours_sorted_desc"], case


def test_fewer_confusing_colours():
    """Which of the other colours gets the short piece is random, so sizes are compared sorted."""
    for case in golden("bias_assignment.json")["other_n_confusing"]:
        label, expected = case["label"], np.array(case["count_per_colour"])
        _, colours = assign_colours(
            np.full(case["n"], label),
            ratio=case["rho"],
            rng=np.random.RandomState(0),
            n_confusing_labels=case["n_confusing_labels"],
        )
        actual = np.bincount(colours, minlength=10)
        assert actual[label] == expected[label], case
        np.testing.assert_array_equal(actual > 0, expected > 0)
        np.testing.assert_array_equal(np.sort(actual), np.sort(expected))


def test_exact_small_example():
    example = golden("bias_assignment.json")["exact_small_example"]
    source, colours = assign_colours(
        np.array(example["labels"]),
        ratio=example["rho"],
        rng=np.random.RandomState(example["np_seed"]),
    )
    per_image = np.empty_like(colours)
    per_image[source] = colours
    np.testing.assert_array_equal(source, example["final_order"])
    np.testing.assert_array_equal(per_image, example["colour_per_image"])


def test_official_full_data():
    """All images of the data set: the training split first, the test split on the same stream."""
    official = golden("bias_assignment.json")["official_full_data"]
    name = {"mnist": "mnist", "fashionmnist": "fashion_mnist"}[
        official["data_set"].lower().replace("-", "").replace("_", "").replace(" ", "")
    ]
    rng = np.random.RandomState(official["np_seed"])
    for split, prefix in (("train", "train"), ("test", "t10k")):
        path = FIXTURES / name / f"{prefix}-labels-idx1-ubyte.gz"
        labels = idx.read_idx(path, dimensions=1)
        source, colours = assign_colours(labels, ratio=official[f"rho_{split}"], rng=rng)
        per_image = np.empty_like(colours)
        per_image[source] = colours
        first = official[f"{split}_colour_first_40"]
        assert per_image[: len(first)].tolist() == first
        first = official[f"{split}_final_order_first_20"]
        assert source[: len(first)].tolist() == first
        np.testing.assert_array_equal(
            counts(labels, per_image), official[f"{split}_count_class_by_colour"]
        )
        digest = hashlib.sha256(per_image.astype(np.uint8).tobytes()).hexdigest()
        assert digest == official[f"{split}_colour_sha256_uint8"]
        digest = hashlib.sha256(source.astype("<i4").tobytes()).hexdigest()
        assert digest == official[f"{split}_final_order_sha256_int32le"]
