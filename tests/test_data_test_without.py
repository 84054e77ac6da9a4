"""Groups whose test images are left out: what stays, what the scores are then, what is refused."""

import numpy as np
import pytest
from originals import refused
from test_data_own import write_tree

from fairdd_jax.data import DataConfig, load, names, resolved
from fairdd_jax.errors import ConfigError
from fairdd_jax.metrics import fairness_report

pytest.importorskip("mlxtend")


def fields(split):
    return split.images, split.labels, split.groups


@pytest.mark.parametrize("validation", [0.0, 0.1])
def test_only_test_images_of_the_last_groups_are_left_out(validation):
    whole = load(DataConfig("demo", validation=validation))
    data = load(DataConfig("demo", validation=validation, test_without=3))
    for expected, actual in zip(fields(whole.train), fields(data.train), strict=True):
        np.testing.assert_array_equal(actual, expected)
    kept = [i for i, group in enumerate(whole.test.groups) if group not in (7, 8, 9)]
    assert len(kept) == 0.7 * len(whole.test)
    for expected, actual in zip(fields(whole.test), fields(data.test), strict=True):
        np.testing.assert_array_equal(actual, expected[kept])
    assert data.groups == whole.groups
    (*before, note) = data.notes
    assert tuple(before) == whole.notes
    assert f"scores are of {len(kept)} of {len(whole.test)} images: those of" in note
    assert "purple, magenta, white are left out (--data.test_without 3)" in note


@pytest.mark.parametrize("without", [0, 1, 2, 3])
def test_scores_are_those_of_the_groups_that_are_left(without):
    data = load(DataConfig("demo", test_without=without))
    labels, groups = data.test.labels, data.test.groups
    rng = np.random.default_rng(without)
    predictions = np.where(rng.random(len(labels)) < 0.4 + 0.05 * groups, labels, 0)
    report = fairness_report(predictions, labels, groups, num_classes=10, num_groups=10)
    right = gaps = 0
    largest = []
    for label in range(10):
        rates = []
        for group in range(10 - without):
            cell = [
                p == label
                for p, y, g in zip(predictions, labels, groups, strict=True)
                if (y, g) == (label, group)
            ]
            rates.append(sum(cell) / len(cell))
            right += sum(cell)
        largest.append(max(rates) - min(rates))
        gaps += largest[-1]
    assert report.accuracy == pytest.approx(right / (500 * (10 - without)))
    assert report.deo_max == pytest.approx(max(largest))
    assert report.deo_mean == pytest.approx(gaps / 10)
    assert len(report.empty_cells) == 10 * without


def test_files_are_left_out_before_they_are_decoded(tmp_path):
    groups = ("a", "b", "c")
    sizes = {
        f"{part}/{label}/{g}": 4 for part in ("train", "test") for label in "xy" for g in groups
    }
    write_tree(tmp_path, sizes, side=4)
    decoded = []

    def find(**options):
        return load(
            DataConfig("images", size=4, **options),
            data_dir=tmp_path,
            cache_dir=tmp_path / "cache",
            on_decoded=decoded.append,
        )

    data = find(test_without=1)
    assert sum(decoded) == 24 + 16
    assert data.cell_counts(data.test).tolist() == [[4, 4, 0]] * 2
    assert data.cell_counts(data.train).tolist() == [[4, 4, 4]] * 2
    whole = find()
    np.testing.assert_array_equal(data.test.images, whole.test.images[whole.test.groups < 2])


@pytest.mark.parametrize(("without", "left"), [(9, 1), (10, 0), (99, 0)])
def test_fewer_than_two_groups_are_refused(without, left):
    message = (
        rf"--data\.test_without {without} leaves test images of {left} of the 10 groups of demo"
    )
    with refused(ConfigError, message):
        load(DataConfig("demo", test_without=without))


def test_every_data_set_takes_it():
    for name in names():
        assert resolved(DataConfig(name, test_without=1)).test_without == 1
