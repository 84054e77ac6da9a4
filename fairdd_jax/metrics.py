"""How accurate and how fair predictions are, on the host with numpy.

Rates are fractions in [0, 1]; tables have a row per class and a column per group.
"""

import dataclasses
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fairdd_jax.errors import ConfigError, unknown_name

Empty = Literal["skip", "official"]
Rates = NDArray[np.float64]
Counts = NDArray[np.int64]


@dataclasses.dataclass(frozen=True, eq=False)
class FairnessReport:
    """Accuracy of a classifier and its differences between protected groups.

    A cell is a (class, group) pair. The gap of a class is the largest difference between the
    rates of its groups, max_g - min_g. None of the numbers says that a classifier is fair.

    Attributes:
      accuracy: share of the images that are right.
      deo_max: DEO_M, the largest gap of `cell_accuracy` over the classes.
      deo_mean: DEO_A, the mean of that gap over the classes.
      worst_group_accuracy: smallest `cell_accuracy` among the cells that have images.
      sufficiency_max: largest gap of `cell_precision` over the classes.
      sufficiency_mean: mean of that gap over the classes.
      gap_per_class: ``[C]`` gap of `cell_accuracy`.
      cell_accuracy: ``[C, G]`` share of the images of a class and group that are predicted as that
        class: the group's true-positive rate.
      cell_counts: ``[C, G]`` number of those images.
      predicted_counts: ``[C, G]`` number of images of a group that are predicted as a class.
      cell_precision: ``[C, G]`` share of those that are of that class.
      empty_cells: the (class, group) pairs without an image.
      empty: how a cell without images or predictions counts, see `fairness_report`.
    """

    accuracy: float
    deo_max: float
    deo_mean: float
    worst_group_accuracy: float
    sufficiency_max: float
    sufficiency_mean: float
    gap_per_class: Rates
    cell_accuracy: Rates
    cell_counts: Counts
    predicted_counts: Counts
    cell_precision: Rates
    empty_cells: tuple[tuple[int, int], ...]
    empty: Empty


def fairness_report(
    predictions: ArrayLike,
    labels: ArrayLike,
    groups: ArrayLike,
    *,
    num_classes: int,
    num_groups: int,
    empty: Empty = "skip",
) -> FairnessReport:
    """Compare the predictions on the groups of each class.

    DEO_M = max_y (max_g TPR_yg - min_g TPR_yg) and DEO_A, the mean over the classes y of the same
    gap, with TPR_yg the accuracy on the images of class y and group g. Sufficiency is the same
    with the precision on the images of group g that are predicted as y.

    Args:
      predictions: ``[N]`` predicted classes, integers; numpy or jax arrays.
      labels: ``[N]`` true classes.
      groups: ``[N]`` protected groups.
      num_classes: C; classes are 0 to C - 1.
      num_groups: G; groups are 0 to G - 1.
      empty: "skip" leaves a cell without images (for precision: without predictions) out: its
        rate is NaN, and a class that this leaves with fewer than two groups has the gap NaN
        and does not enter the maximum and the mean, which are NaN if no class does.
        "official" is the arithmetic of the published tables, where the rate of such a cell
        is 0 and widens the gap.

    Returns:
      The report.

    Raises:
      ConfigError: Arrays are empty, not integer, of unequal length, or have values out of range.

    Reference: FairDD (NeurIPS 2025), eq. of DEO_M and DEO_A; sufficiency as in COBRA (ICML 2026).
    The official code adds 1e-8 to the counts, which changes nothing that can be measured.

    >>> labels, groups = [0, 0, 1, 1], [0, 1, 0, 1]
    >>> report = fairness_report([0, 0, 1, 0], labels, groups, num_classes=2, num_groups=2)
    >>> report.accuracy, report.deo_max, report.deo_mean, report.worst_group_accuracy
    (0.75, 1.0, 0.5, 0.0)
    >>> report.cell_accuracy.tolist()
    [[1.0, 1.0], [1.0, 0.0]]
    """
    if empty not in get_args(Empty):
        raise unknown_name("rule for empty cells", empty, get_args(Empty))
    predictions = _indices("predictions", predictions, num_classes)
    labels = _indices("labels", labels, num_classes)
    groups = _indices("groups", groups, num_groups)
    if not len(predictions) == len(labels) == len(groups):
        raise ConfigError(
            f"got {len(predictions)} predictions, {len(labels)} labels and {len(groups)} groups; "
            "pass one of each per image"
        )

    def count(classes: Counts, groups: Counts) -> Counts:
        cells = np.bincount(classes * num_groups + groups, minlength=num_classes * num_groups)
        return cells.reshape(num_classes, num_groups)

    right = predictions == labels
    correct = count(labels[right], groups[right])
    cell_counts, predicted_counts = count(labels, groups), count(predictions, groups)
    cell_accuracy = _rates(correct, cell_counts, empty)
    cell_precision = _rates(correct, predicted_counts, empty)
    gap_per_class = gaps(cell_accuracy)
    deo_max, deo_mean = _max_and_mean(gap_per_class)
    sufficiency_max, sufficiency_mean = _max_and_mean(gaps(cell_precision))
    return FairnessReport(
        accuracy=float(right.mean()),
        deo_max=float(deo_max),
        deo_mean=float(deo_mean),
        worst_group_accuracy=float(cell_accuracy[cell_counts > 0].min()),
        sufficiency_max=float(sufficiency_max),
        sufficiency_mean=float(sufficiency_mean),
        gap_per_class=gap_per_class,
        cell_accuracy=cell_accuracy,
        cell_counts=cell_counts,
        predicted_counts=predicted_counts,
        cell_precision=cell_precision,
        empty_cells=tuple((int(y), int(g)) for y, g in np.argwhere(cell_counts == 0)),
        empty=empty,
    )


def gaps(rates: Rates) -> Rates:
    """Largest difference between the rates of the groups, max_g - min_g.

    Args:
      rates: ``[..., G]`` fractions in [0, 1], NaN where there is none.

    Returns:
      [...]; NaN where NaNs leave fewer than two rates.

    >>> gaps(np.array([[0.75, 0.25, np.nan], [0.5, np.nan, np.nan]])).tolist()
    [0.5, nan]
    """
    known = ~np.isnan(rates)
    highest = np.max(rates, -1, where=known, initial=0.0)
    lowest = np.min(rates, -1, where=known, initial=1.0)
    return np.where(known.all(-1) | (known.sum(-1) > 1), highest - lowest, np.nan)


def deo_floor(
    report: FairnessReport, *, permutations: int = 1000, seed: int
) -> tuple[float, float]:
    """DEO_M and DEO_A that a perfectly fair classifier of equal class accuracies has by chance.

    They are the means when the group labels are permuted within each class. Under permutation
    the right answers of a class fall on its groups as a multivariate hypergeometric draw, so
    nothing is permuted.

    Args:
      report: of the classifier.
      permutations: number of draws.
      seed: of the draws.

    Returns:
      Expected DEO_M and expected DEO_A; empty cells count as in the report.

    Raises:
      ConfigError: Fewer than one permutation.

    >>> wrong, labels, groups = [0, 1] * 50, [0] * 100, [0, 1] * 50  # wrong on all of group 1
    >>> report = fairness_report(wrong, labels, groups, num_classes=2, num_groups=2)
    >>> report.deo_max, [round(floor, 2) for floor in deo_floor(report, seed=0)]
    (1.0, [0.08, 0.08])
    """
    if permutations < 1:
        raise ConfigError(f"got {permutations} permutations; pass at least 1")
    generator = np.random.default_rng(seed)
    right = np.rint(np.nansum(report.cell_accuracy * report.cell_counts, 1)).astype(int)
    by_chance = np.empty((permutations, len(right)))
    for y, counts in enumerate(report.cell_counts):
        draws = generator.multivariate_hypergeometric(counts, right[y], permutations)
        by_chance[:, y] = gaps(_rates(draws, counts, report.empty))
    deo_max, deo_mean = _max_and_mean(by_chance)
    return float(deo_max.mean()), float(deo_mean.mean())


def _indices(name: str, values: ArrayLike, number: int) -> Counts:
    """The values as a vector of integers from 0 to number - 1."""
    array = np.asarray(values)
    if array.ndim != 1 or array.size == 0:
        raise ConfigError(f"{name} have shape {array.shape}; pass one integer per image, [N]")
    if array.dtype.kind not in "iub":
        raise ConfigError(f"{name} are {array.dtype}; pass integers from 0 to {number - 1}")
    if array.min() < 0 or array.max() >= number:
        raise ConfigError(
            f"{name} run from {array.min()} to {array.max()}; valid are 0 to {number - 1}"
        )
    return array.astype(np.int64)


def _rates(correct: Counts, counts: Counts, empty: Empty) -> Rates:
    """[..., G] correct / counts, and NaN or 0 where there is nothing to count."""
    rates = correct / np.maximum(counts, 1)
    return rates if empty == "official" else np.where(counts > 0, rates, np.nan)


def _max_and_mean(gaps: Rates) -> tuple[Rates, Rates]:
    """Over the last axis, NaNs left out; NaN if all are."""
    known = ~np.isnan(gaps)
    number = known.sum(-1)
    largest = np.max(gaps, -1, where=known, initial=0.0)
    total = np.sum(gaps, -1, where=known)
    return (
        np.where(number > 0, largest, np.nan),
        np.where(number > 0, total / np.maximum(number, 1), np.nan),
    )
