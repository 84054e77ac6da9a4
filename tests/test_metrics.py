"""Fairness metrics against scikit-learn, fairlearn and permutations."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from fairlearn.metrics import MetricFrame, true_positive_rate, true_positive_rate_difference
from sklearn.metrics import accuracy_score, confusion_matrix, precision_score, recall_score

from fairdd_jax.errors import ConfigError
from fairdd_jax.metrics import deo_floor, fairness_report

C, G, N = 3, 4, 900
SIZES = {"num_classes": C, "num_groups": G}


@pytest.fixture
def data():
    """Predictions, labels, groups; accuracy falls with the group, and every cell has images."""
    generator = np.random.default_rng(0)
    labels, groups = generator.integers(C, size=N), generator.integers(G, size=N)
    wrong = generator.random(N) < 0.1 + 0.1 * groups
    predictions = np.where(wrong, generator.integers(C, size=N), labels)
    return predictions, labels, groups


def without(data, cells):
    """The data without the images of some (class, group) cells."""
    predictions, labels, groups = data
    keep = np.array([(y, g) not in cells for y, g in zip(labels, groups, strict=True)])
    return predictions[keep], labels[keep], groups[keep]


def assert_same(actual, expected):
    for field in dataclasses.fields(expected):
        np.testing.assert_array_equal(getattr(actual, field.name), getattr(expected, field.name))


# Oracles


def test_tables_equal_scikit_learn(data):
    report = fairness_report(*data, **SIZES)
    assert report.accuracy == accuracy_score(data[1], data[0])
    for g in range(G):
        predictions, labels = data[0][data[2] == g], data[1][data[2] == g]
        matrix = confusion_matrix(labels, predictions, labels=range(C))
        np.testing.assert_array_equal(report.cell_counts[:, g], matrix.sum(1))
        np.testing.assert_array_equal(report.predicted_counts[:, g], matrix.sum(0))
        recall = recall_score(labels, predictions, labels=range(C), average=None)
        np.testing.assert_allclose(report.cell_accuracy[:, g], recall)
        precision = precision_score(labels, predictions, labels=range(C), average=None)
        np.testing.assert_allclose(report.cell_precision[:, g], precision)


def test_gaps_equal_fairlearn(data):
    predictions, labels, groups = data
    recall, precision = [], []
    report = fairness_report(*data, **SIZES)
    for y in range(C):
        one = {"y_true": labels == y, "y_pred": predictions == y, "sensitive_features": groups}
        recall.append(true_positive_rate_difference(**one))
        frame = MetricFrame(metrics=true_positive_rate, **one)
        np.testing.assert_allclose(report.cell_accuracy[y], frame.by_group)
        precision.append(MetricFrame(metrics=precision_score, **one).difference())
    np.testing.assert_allclose(report.gap_per_class, recall)
    assert report.deo_max == pytest.approx(max(recall))
    assert report.deo_mean == pytest.approx(np.mean(recall))
    assert report.sufficiency_max == pytest.approx(max(precision))
    assert report.sufficiency_mean == pytest.approx(np.mean(precision))
    assert report.worst_group_accuracy == pytest.approx(np.min(report.cell_accuracy))


@pytest.mark.parametrize("empty", ["skip", "official"])
def test_perfect_predictions(data, empty):
    report = fairness_report(data[1], data[1], data[2], **SIZES, empty=empty)
    assert (report.accuracy, report.worst_group_accuracy) == (1.0, 1.0)
    assert (report.deo_max, report.deo_mean) == (0.0, 0.0)
    assert (report.sufficiency_max, report.sufficiency_mean) == (0.0, 0.0)
    assert report.empty_cells == ()


# Invariances


def test_order_of_the_images_does_not_matter(data):
    order = np.random.default_rng(1).permutation(N)
    actual = fairness_report(*(values[order] for values in data), **SIZES)
    assert_same(actual, fairness_report(*data, **SIZES))


def test_names_of_the_groups_do_not_matter(data):
    new = np.array([2, 0, 3, 1])
    actual = fairness_report(data[0], data[1], new[data[2]], **SIZES)
    expected = fairness_report(*data, **SIZES)
    np.testing.assert_array_equal(actual.cell_accuracy[:, new], expected.cell_accuracy)
    np.testing.assert_array_equal(actual.cell_precision[:, new], expected.cell_precision)
    for name in ("accuracy", "deo_max", "deo_mean", "worst_group_accuracy"):
        assert getattr(actual, name) == getattr(expected, name)


def test_jax_arrays_and_booleans(data):
    expected = fairness_report(data[0], data[1], data[2] % 2, num_classes=C, num_groups=2)
    in_jax = [jnp.asarray(values) for values in (data[0], data[1], data[2] % 2 == 1)]
    assert_same(fairness_report(*in_jax, num_classes=C, num_groups=2), expected)
    assert type(expected.accuracy) is type(expected.deo_max) is float


# Empty cells


def test_a_group_without_images_is_left_out(data):
    full = fairness_report(*without(data, {(y, 3) for y in range(C)}), **SIZES)
    smaller = fairness_report(
        *without(data, {(y, 3) for y in range(C)}), num_classes=C, num_groups=3
    )
    assert full.empty_cells == tuple((y, 3) for y in range(C))
    assert np.isnan(full.cell_accuracy[:, 3]).all()
    assert np.isnan(full.cell_precision[:, 3]).all()
    for name in ("deo_max", "deo_mean", "sufficiency_max", "sufficiency_mean"):
        assert getattr(full, name) == getattr(smaller, name)
    assert full.worst_group_accuracy == smaller.worst_group_accuracy > 0


def test_a_class_with_one_group_left_has_no_gap(data):
    report = fairness_report(*without(data, {(1, 0), (1, 1), (1, 2)}), **SIZES)
    assert np.isnan(report.gap_per_class).tolist() == [False, True, False]
    assert report.deo_max == max(report.gap_per_class[[0, 2]])
    assert report.deo_mean == pytest.approx(np.mean(report.gap_per_class[[0, 2]]))


def test_the_official_rate_of_an_empty_cell_is_zero(data):
    data = without(data, {(1, 0)})
    report = fairness_report(*data, **SIZES, empty="official")
    assert report.cell_accuracy[1, 0] == 0
    assert report.gap_per_class[1] == report.cell_accuracy[1].max()
    assert report.worst_group_accuracy > 0
    skipped = fairness_report(*data, **SIZES)
    assert skipped.gap_per_class[1] < report.gap_per_class[1]
    assert skipped.worst_group_accuracy == report.worst_group_accuracy


def test_a_class_that_is_never_predicted(data):
    predictions = np.where(data[0] == 2, 0, data[0])
    report = fairness_report(predictions, *data[1:], **SIZES)
    assert np.isnan(report.cell_precision[2]).all()
    gaps = np.ptp(report.cell_precision[:2], axis=1)
    assert report.sufficiency_mean == pytest.approx(gaps.mean())
    official = fairness_report(predictions, *data[1:], **SIZES, empty="official")
    assert official.sufficiency_mean == pytest.approx(gaps.sum() / 3)


def test_nothing_to_compare():
    """Label and group are the same, so no class has two groups."""
    same = np.array([0, 0, 1, 1])
    report = fairness_report(same, same, same, num_classes=2, num_groups=2)
    assert np.isnan([report.deo_max, report.deo_mean]).all()
    assert np.isnan(deo_floor(report, seed=0)).all()
    alone = fairness_report(same, same, np.zeros(4, int), num_classes=2, num_groups=1)
    assert (alone.deo_max, alone.deo_mean, *deo_floor(alone, seed=0)) == (0, 0, 0, 0)


# The floor


def test_floor_of_the_even_test_set():
    """100 images a cell and 95 % right."""
    labels, groups = (grid.repeat(100) for grid in np.indices((10, 10)).reshape(2, -1))
    wrong = np.random.default_rng(0).random(10000) < 0.05
    report = fairness_report(
        np.where(wrong, (labels + 1) % 10, labels), labels, groups, num_classes=10, num_groups=10
    )
    largest, mean = deo_floor(report, seed=0)
    assert largest == pytest.approx(0.096, abs=0.005)
    assert mean == pytest.approx(0.067, abs=0.003)


@pytest.mark.parametrize("empty", ["skip", "official"])
@pytest.mark.parametrize("cells", [set(), {(0, 1), (2, 0), (2, 1), (2, 2)}])
def test_floor_equals_permuted_groups(data, cells, empty):
    predictions, labels, groups = without(data, cells)
    generator = np.random.default_rng(0)
    deos = []
    for _ in range(600):
        shuffled = groups.copy()
        for y in range(C):
            shuffled[labels == y] = generator.permutation(groups[labels == y])
        report = fairness_report(predictions, labels, shuffled, **SIZES, empty=empty)
        deos.append((report.deo_max, report.deo_mean))
    report = fairness_report(predictions, labels, groups, **SIZES, empty=empty)
    error = 4 * np.std(deos, axis=0) * np.sqrt(1 / 600 + 1 / 2000)
    floors = deo_floor(report, permutations=2000, seed=1)
    np.testing.assert_array_less(np.abs(floors - np.mean(deos, axis=0)), error)


def test_floor_repeats(data):
    report = fairness_report(*data, **SIZES)
    assert deo_floor(report, seed=1) == deo_floor(report, seed=1) != deo_floor(report, seed=2)


# Mistakes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"predictions": [0, 1]}, "got 2 predictions, 3 labels and 3 groups"),
        ({"labels": [0, 1, 3]}, "labels run from 0 to 3; valid are 0 to 2"),
        ({"groups": [-1, 0, 1]}, "groups run from -1 to 1; valid are 0 to 1"),
        ({"predictions": [0.0, 1.0, 2.0]}, "predictions are float64; pass integers"),
        ({"predictions": np.zeros((3, 3))}, r"predictions have shape \(3, 3\)"),
        ({"predictions": [], "labels": [], "groups": []}, r"predictions have shape \(0,\)"),
        ({"empty": "skipp"}, "did you mean 'skip'"),
    ],
)
def test_mistakes(change, message):
    valid = {"predictions": [0, 1, 2], "labels": [0, 1, 2], "groups": [0, 1, 1], "empty": "skip"}
    arguments = valid | change
    with pytest.raises(ConfigError, match=message) as error:
        fairness_report(**arguments, num_classes=3, num_groups=2)
    assert "\n" not in str(error.value)


def test_no_permutations(data):
    with pytest.raises(ConfigError, match="got 0 permutations"):
        deo_floor(fairness_report(*data, **SIZES), permutations=0, seed=0)
