"""Greyscale, grey assignment and balanced splits against the official code."""

import numpy as np
import pytest
from conftest import golden
from PIL import Image

from fairdd_jax.data.balance import assign_grey, balanced_split, balanced_subset, to_grey


def rules():
    return golden("bias_assignment.json")


def labelled(cells):
    """Labels and groups, shuffled, with that many images of each (label, group)."""
    table = np.asarray(cells)
    label, group = np.indices(table.shape)
    labels, groups = np.repeat(label, table.ravel()), np.repeat(group, table.ravel())
    order = np.random.default_rng(0).permutation(len(labels))
    return labels[order], groups[order]


def count(labels, groups, positions, shape):
    table = np.zeros(shape, int)
    np.add.at(table, (labels[positions], groups[positions]), 1)
    return table


def test_grey_images():
    arrays = golden("grayscale.npz")
    kinds = [key.removesuffix("/rgb") for key in arrays if key.endswith("/rgb")]
    assert kinds
    for kind in kinds:
        rgb = arrays[f"{kind}/rgb"]
        grey = to_grey(rgb)
        np.testing.assert_array_equal(grey, arrays[f"{kind}/gray"])
        first = rgb.reshape(-1, *rgb.shape[-3:])[0]
        pillow = np.asarray(Image.fromarray(first).convert("L"))
        np.testing.assert_array_equal(grey.reshape(-1, *rgb.shape[-3:])[0][..., 0], pillow)


def test_grey_images_are_the_first_of_their_class():
    for case in rules()["cifar10_s"]["train"]:
        expected = np.asarray(case["train_count_group_by_class"])
        num_classes = expected.shape[1]
        labels = np.random.default_rng(0).permutation(
            np.repeat(np.arange(num_classes), expected.sum(0))
        )
        groups = assign_grey(labels, ratio=case["ratio"], num_classes=num_classes)
        np.testing.assert_array_equal(count(groups, labels, slice(None), expected.shape), expected)
        first = [(np.diff(groups[labels == label]) >= 0).all() for label in range(num_classes)]
        assert all(first) == case["grey_are_first_of_class"]


def test_celeba_keeps_as_many_of_every_cell():
    for case in rules()["celeba_test"]:
        expected = np.asarray(case["cells_kept_label_by_group"])
        labels, groups = labelled(case["cells_in_label_by_group"])
        kept = balanced_subset(labels, groups, rng=np.random.RandomState(0))
        assert len(np.unique(kept)) == len(kept)
        np.testing.assert_array_equal(count(labels, groups, kept, expected.shape), expected)


def test_utkface_tests_on_as_many_of_every_cell():
    official_limit = max(np.max(case["test_cells"]) for case in rules()["utkface"])
    for case in rules()["utkface"]:
        labels, groups = labelled(case["cells_in_label_by_group"])
        shape = np.shape(case["test_cells"])
        train, test = balanced_split(
            labels, groups, per_cell=official_limit, rng=np.random.RandomState(0)
        )
        assert sorted(np.concatenate([train, test])) == list(range(len(labels)))
        np.testing.assert_array_equal(count(labels, groups, train, shape), case["train_cells"])
        np.testing.assert_array_equal(count(labels, groups, test, shape), case["test_cells"])


@pytest.mark.parametrize(
    "split", [balanced_subset, lambda *a, rng: balanced_split(*a, per_cell=3, rng=rng)[1]]
)
def test_the_choice_is_random_and_follows_the_seed(split):
    labels, groups = labelled([[30, 9], [12, 20]])
    first, again, other = (
        split(labels, groups, rng=np.random.RandomState(seed)) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
