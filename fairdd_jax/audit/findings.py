"""What a person should know of a data set before a run, in words that say what happens then."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fairdd_jax.data import Dataset
from fairdd_jax.errors import first_few
from fairdd_jax.metrics import Empty

TINY_TEST_CELL = 20  # with fewer images, one more or less moves a rate by over 5 %

_SHOWN = 5  # cells, classes or groups that a message names


@dataclass(frozen=True)
class Finding:
    """Something that a person should know before a run.

    Attributes:
      kind: short and fixed name of what was found.
      message: what was found, and what happens then.
    """

    kind: str
    message: str


def of_train(
    dataset: Dataset,
    counts: np.ndarray,
    *,
    per_cell: int | None = None,
    batch_real: int | None = None,
    ipc: int | None = None,
    parts: int = 1,
) -> list[Finding]:
    """Findings in the training split.

    Args:
      dataset: for the names of its classes and groups.
      counts: ``[C, G]``, training images per cell.
      per_cell: of the stratified sampler, if that one draws the real images.
      batch_real: of the proportional sampler, if that one does.
      ipc: synthetic images per class; not looked at if None.
      parts: real images that each of them starts from, none if from noise, see
        ``fairdd_jax.start.parts_of``.

    Returns:
      One finding of a kind at most, for all cells, classes or groups where it is so.

    >>> images = np.zeros((4, 8, 8, 3), np.uint8)
    >>> split = images, [0, 0, 1, 1], [0, 1, 0, 0]
    >>> dataset = Dataset.from_arrays(split, split)
    >>> print(of_train(dataset, dataset.cell_counts(dataset.train))[0].message)
    1 cell: 1 / 1 (0) has no training image: the group is not matched in that class at all
    """
    images, present = counts.sum(1), counts.sum(0) > 0
    table = _Table(dataset, counts)
    found = table.groups(
        "absent_train_group",
        ~present,
        "has no training image: nothing is matched to it",
    )
    found += table.cells(
        "empty_train_cell",
        (counts == 0) & present,
        "has no training image: the group is not matched in that class at all",
    )
    if per_cell is not None:
        found += table.cells(
            "small_train_cell",
            (counts > 0) & (counts < per_cell),
            f"has fewer training images than the {per_cell} that the stratified sampler draws "
            "(--per_cell): every step gets all of them, and the rest of its places has weight zero",
        )
    if batch_real is not None:
        found += table.cells(
            "rare_train_cell",
            (counts > 0) & (counts * batch_real < images[:, None]),
            "is drawn less than once per step by the proportional sampler (--batch_real "
            f"{batch_real}): in a step without it the group is not matched in that class",
        )
    found += table.classes(
        "one_train_group",
        (counts > 0).sum(1) == 1,
        "has training images of one group only: the centre of that group is the mean of the class, "
        "and no fairness mode can differ from another there",
    )
    if ipc is not None:
        count = ipc * max(parts, 1)
        several = f" ({ipc} with {parts} images in each)" if parts > 1 else ""
        then = (
            "a run is refused; choose a smaller --ipc, or --init noise"
            if parts
            else "the baseline random takes only as many images of every class as the smallest has"
        )
        found += table.classes(
            "ipc_above_class",
            images < count,
            f"has fewer training images than the {count} synthetic ones of a class{several}: "
            f"{then}",
        )
    return found


def of_test(dataset: Dataset, counts: np.ndarray, *, empty: Empty = "skip") -> list[Finding]:
    """Findings in the test split.

    Args:
      dataset: for the names of its classes and groups.
      counts: ``[C, G]``, test images per cell.
      empty: what the scores do with an empty cell, see `fairdd_jax.metrics.fairness_report`.

    Returns:
      As `of_train`.

    >>> images = np.zeros((60, 8, 8, 3), np.uint8)
    >>> split = images, [0, 1] * 30, [0, 0, 1] * 20
    >>> dataset = Dataset.from_arrays(split, split)
    >>> print(of_test(dataset, dataset.cell_counts(dataset.test))[0].message[:48])
    2 cells: 0 / 1 (10), 1 / 1 (10), each of which h
    """
    images, present = counts.sum(1), counts.sum(0) > 0
    skip = empty == "skip"
    counted = (
        "it is left out of DEO_M and DEO_A"
        if skip
        else "it counts as accuracy 0, as officially, which widens DEO_M and DEO_A"
    )
    table = _Table(dataset, counts)
    found = table.classes(
        "absent_test_class", images == 0, "has no test image: no score says anything of it"
    )
    found += table.groups("absent_test_group", ~present, f"has no test image: {counted}")
    found += table.cells(
        "empty_test_cell",
        (counts == 0) & present & (images > 0)[:, None],
        f"has no test image: {counted}",
    )
    if skip:
        found += table.classes(
            "one_test_group",
            (counts > 0).sum(1) == 1,
            "has test images of one group only: it has no gap and is left out of DEO_M and DEO_A",
        )
    found += table.cells(
        "tiny_test_cell",
        (counts > 0) & (counts < TINY_TEST_CELL),
        f"has fewer than {TINY_TEST_CELL} test images: one more or less of them right moves its "
        "rate by over 5 %; compare a gap with what chance alone would show, beside every score",
    )
    return found


def of_duplicates(
    split: str,
    repeats: int,
    conflicts: int,
    *,
    leaked: int = 0,
    leaks: Sequence[tuple[int, int]] = (),
) -> list[Finding]:
    """Findings about images with exactly the pixels of another one.

    Args:
      split: "train" or "test".
      repeats: images that equal an earlier one of the split.
      conflicts: those of them with another class or group.
      leaked: images of the test split that equal a training image.
      leaks: some of them, as positions in the training and in the test split.

    >>> print(of_duplicates("train", 3, 0)[0].message)
    3 train images with the pixels of an earlier one: such images weigh more in every mean
    """
    alike = "the pixels of an earlier one"
    found = []
    if leaked:
        pairs = first_few([f"{j} is {i}" for i, j in leaks], _SHOWN, number=leaked)
        found.append(
            Finding(
                "leaked_test_images",
                f"{_count(leaked, 'test image')} with the pixels of a training image (number in "
                f"test is number in train: {pairs}): the scores are too good by them; remove them "
                "from one of the splits",
            )
        )
    if repeats:
        weigh = "weigh more in every mean" if split == "train" else "count again in the scores"
        found.append(
            Finding(
                f"repeated_{split}_images",
                f"{_count(repeats, f'{split} image')} with {alike}: such images {weigh}",
            )
        )
    if conflicts:
        found.append(
            Finding(
                f"conflicting_{split}_images",
                f"{_count(conflicts, f'{split} image')} with {alike}, but another class or group: "
                "a label is wrong, or the pixels do not show the difference",
            )
        )
    return found


@dataclass(frozen=True, eq=False)
class _Table:
    """Findings in a table of counts by the names of its rows and columns, one of a kind if any."""

    dataset: Dataset
    counts: np.ndarray

    def cells(self, kind: str, where: np.ndarray, message: str) -> list[Finding]:
        names = [
            f"{self.dataset.classes[label]} / {self.dataset.groups[group]} "
            f"({self.counts[label, group]})"
            for label, group in np.argwhere(where)[:_SHOWN]
        ]
        return _found(kind, "cell", names, int(where.sum()), message)

    def classes(self, kind: str, where: np.ndarray, message: str) -> list[Finding]:
        names = [
            f"{self.dataset.classes[label]} ({self.counts[label].sum()})"
            for label in np.flatnonzero(where)[:_SHOWN]
        ]
        return _found(kind, "class", names, int(where.sum()), message)

    def groups(self, kind: str, where: np.ndarray, message: str) -> list[Finding]:
        names = [self.dataset.groups[group] for group in np.flatnonzero(where)[:_SHOWN]]
        return _found(kind, "group", names, int(where.sum()), message)


def _found(kind: str, what: str, names: list[str], number: int, message: str) -> list[Finding]:
    if not number:
        return []
    each = ", each of which" if number > 1 else ""
    listed = first_few(names, _SHOWN, number=number)
    return [Finding(kind, f"{_count(number, what)}: {listed}{each} {message}")]


def _count(number: int, what: str) -> str:
    plural = f"{what}es" if what == "class" else f"{what}s"
    return f"{number:,} {what if number == 1 else plural}"
