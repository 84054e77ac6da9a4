"""Metrics against the official implementations (FairDD, and COBRA for sufficiency)."""

import numpy as np
import optax
import pytest
from conftest import METRIC, assert_close, golden

from fairdd_jax import metrics

METRICS = golden("metrics.npz")
CASES = sorted(key.removesuffix("/logits") for key in METRICS if key.endswith("/logits"))


@pytest.fixture(params=CASES)
def case(request):
    prefix = f"{request.param}/"
    return {key.removeprefix(prefix): METRICS[key] for key in METRICS if key.startswith(prefix)}


def official_report(predictions, labels, groups, num_classes, num_groups):
    return metrics.fairness_report(
        predictions,
        labels,
        groups,
        num_classes=int(num_classes),
        num_groups=int(num_groups),
        empty="official",
    )


@pytest.fixture
def report(case):
    names = ("labels", "groups", "num_classes", "num_groups")
    return official_report(case["logits"].argmax(1), *(case[name] for name in names))


def percent(fraction):
    return round(100 * fraction, 2)


def test_scalars(case, report):
    assert_close(report.accuracy, case["accuracy"], **METRIC)
    assert_close(report.deo_max, case["max_eo"], **METRIC)
    assert_close(report.deo_mean, case["mean_eo"], **METRIC)
    assert_close(report.sufficiency_max, case["max_suff"], **METRIC)
    assert_close(report.sufficiency_mean, case["mean_suff"], **METRIC)


def test_percentages(case, report):
    """Rounded numbers: one unit of the last digit where the sixth decimal decides the rounding."""
    tolerance = {"atol": 0.0101, "rtol": 0.0}
    assert_close(percent(report.accuracy), case["accuracy_pct"], **tolerance)
    assert_close(percent(report.deo_max), case["max_eo_pct"], **tolerance)
    assert_close(percent(report.deo_mean), case["mean_eo_pct"], **tolerance)


def test_tables(case, report):
    assert_close(report.cell_accuracy.T, case["acc_table"], **METRIC)
    assert_close(report.cell_precision.T, case["precision_table"], **METRIC)
    assert_close(report.gap_per_class, case["gap_per_class"], **METRIC)


def test_counts_but_for_the_official_epsilon(case, report):
    """The official code adds 1e-8 to every count, to those of images once per batch."""
    batches = -(-len(case["labels"]) // case["batch_size"])
    for counts, table, epsilon in (
        (report.cell_counts, case["count_table"], 1e-8 * batches),
        (report.predicted_counts, case["pred_count_table"], 1e-8),
    ):
        official = counts.T.astype(np.float32)
        assert_close(official + np.float32(epsilon), table, **METRIC)
        np.testing.assert_array_equal(np.rint(table), counts.T)
    empty = {(int(y), int(g)) for g, y in np.argwhere(case["count_table"] < 0.5)}
    assert set(report.empty_cells) == empty


def test_predictions_and_loss(case):
    np.testing.assert_array_equal(case["logits"].argmax(1), case["preds"])
    losses = optax.softmax_cross_entropy_with_integer_labels(case["logits"], case["labels"])
    assert_close(losses.mean(), case["loss"], atol=1e-6, rtol=2e-5)


def test_a_case_with_empty_cells_differs_when_they_are_skipped(case, report):
    options = {"num_classes": int(case["num_classes"]), "num_groups": int(case["num_groups"])}
    skipped = metrics.fairness_report(case["preds"], case["labels"], case["groups"], **options)
    present = report.cell_counts > 0
    np.testing.assert_array_equal(skipped.cell_accuracy[present], report.cell_accuracy[present])
    assert np.isnan(skipped.cell_accuracy[~present]).all()
    assert np.all(np.nan_to_num(skipped.gap_per_class) <= report.gap_per_class + METRIC["atol"])


def test_trained_network():
    run = golden("trajectory.npz")
    logits, labels, groups = (run[f"eval/probe{name}"] for name in ("_logits", "_label", "_group"))
    report = official_report(logits.argmax(1), labels, groups, logits.shape[1], groups.max() + 1)
    assert_close(percent(report.accuracy), run["eval/test_acc_pct"], atol=0.0101, rtol=0.0)
    assert_close(percent(report.deo_max), run["eval/max_eo_pct"], atol=0.0101, rtol=0.0)
    assert_close(percent(report.deo_mean), run["eval/mean_eo_pct"], atol=0.0101, rtol=0.0)
