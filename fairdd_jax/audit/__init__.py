"""What a data set holds: images per cell, bias, exact duplicates, and what follows for a run.

A cell is a (class, group) pair. Nothing here trains or draws anything.
"""

import hashlib
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fairdd_jax.audit.findings import Finding, of_duplicates, of_test, of_train
from fairdd_jax.data import Dataset, Split
from fairdd_jax.metrics import Empty

_CHUNK_BYTES = 1 << 24  # of images looked at at once
_SHOWN = 5  # leaks that are kept


@dataclass(frozen=True, eq=False)
class SplitAudit:
    """What a split holds.

    Attributes:
      counts: int64 ``[C, G]``, images per cell.
      repeats: images with exactly the pixels of an earlier image of the split.
      conflicts: those of them that have another label or group than the first such image.
    """

    counts: np.ndarray
    repeats: int
    conflicts: int

    @property
    def bias_ratio(self) -> np.ndarray:
        """Share of the largest group in each class, float64 ``[C]``; NaN if it has no image.

        The bias ratio of the FairDD paper's table of data sets.

        >>> SplitAudit(np.array([[9, 1], [2, 2]]), repeats=0, conflicts=0).bias_ratio.tolist()
        [0.9, 0.5]
        """
        images = self.counts.sum(1)
        return np.where(images > 0, self.counts.max(1) / np.maximum(images, 1), np.nan)

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it; the bias ratio of a class without images is None."""
        ratios = [None if np.isnan(ratio) else float(ratio) for ratio in self.bias_ratio]
        return {
            "images": int(self.counts.sum()),
            "counts": self.counts.tolist(),
            "bias_ratio": ratios,
            "repeats": self.repeats,
            "conflicts": self.conflicts,
        }


@dataclass(frozen=True, eq=False)
class Audit:
    """What a data set holds.

    Attributes:
      name: name of the data set.
      classes, groups: a name for every row and column of the counts.
      train, test: the splits.
      leaked: test images with exactly the pixels of a training image.
      leaks: the first of them, as positions (in train, in test).
      findings: what a person should know before a run.
      notes: what was found while the data set was read.
    """

    name: str
    classes: tuple[str, ...]
    groups: tuple[str, ...]
    train: SplitAudit
    test: SplitAudit
    leaked: int
    leaks: tuple[tuple[int, int], ...]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "name": self.name,
            "classes": list(self.classes),
            "groups": list(self.groups),
            "train": self.train.as_dict(),
            "test": self.test.as_dict(),
            "leaked": self.leaked,
            "leaks": [list(pair) for pair in self.leaks],
            "findings": [asdict(finding) for finding in self.findings],
            "notes": list(self.notes),
        }


def audit(
    dataset: Dataset,
    *,
    per_cell: int | None = None,
    batch_real: int | None = None,
    ipc: int | None = None,
    parts: int = 1,
    empty: Empty = "skip",
) -> Audit:
    """Count the images of every cell, find exact duplicates, and say what follows for a run.

    Duplicates are found by a 128-bit hash of the decoded pixels. The images are read once, some
    megabytes at a time, so that they may be a memory map larger than the memory.

    Args:
      dataset: what to look at.
      per_cell: of the stratified sampler, if that one draws the real images.
      batch_real: of the proportional sampler, if that one does.
      ipc: synthetic images per class; not looked at if None.
      parts: real images that each of them starts from, none if from noise, see
        ``fairdd_jax.start.parts_of``.
      empty: what the scores do with an empty test cell, see `fairdd_jax.metrics.fairness_report`.

    Returns:
      The audit.

    >>> images = np.arange(6, dtype=np.uint8).repeat(3).reshape(6, 1, 1, 3)
    >>> train = images, [0, 0, 0, 1, 1, 1], [0, 0, 1, 0, 1, 1]
    >>> found = audit(Dataset.from_arrays(train, train), per_cell=2)
    >>> found.train.counts.tolist(), found.leaked
    ([[2, 1], [1, 2]], 6)
    >>> found.findings[0].kind
    'small_train_cell'
    """
    digests = [_digests(split.images) for split in (dataset.train, dataset.test)]
    train, test = (
        _split_audit(dataset, split, of_split)
        for split, of_split in zip((dataset.train, dataset.test), digests, strict=True)
    )
    num_train = len(dataset.train)
    first = _first_alike(np.concatenate(digests))[num_train:]
    leaking = np.flatnonzero(first < num_train)
    leaks = tuple((int(first[i]), int(i)) for i in leaking[:_SHOWN])
    findings = (
        *of_train(
            dataset, train.counts, per_cell=per_cell, batch_real=batch_real, ipc=ipc, parts=parts
        ),
        *of_test(dataset, test.counts, empty=empty),
        *of_duplicates("train", train.repeats, train.conflicts),
        *of_duplicates("test", test.repeats, test.conflicts, leaked=len(leaking), leaks=leaks),
    )
    return Audit(
        dataset.name,
        dataset.classes,
        dataset.groups,
        train,
        test,
        len(leaking),
        leaks,
        findings,
        dataset.notes,
    )


def _split_audit(dataset: Dataset, split: Split, digests: np.ndarray) -> SplitAudit:
    first = _first_alike(digests)
    repeats = np.flatnonzero(first != np.arange(len(split)))
    other = (split.labels[repeats] != split.labels[first[repeats]]) | (
        split.groups[repeats] != split.groups[first[repeats]]
    )
    return SplitAudit(dataset.cell_counts(split), len(repeats), int(other.sum()))


def _digests(images: np.ndarray) -> np.ndarray:
    """A hash of the pixels of every image, ``[N]`` of 16 bytes each."""
    step = max(1, _CHUNK_BYTES // images[:1].nbytes)
    digests: list[bytes] = []
    for start in range(0, len(images), step):
        chunk = np.ascontiguousarray(images[start : start + step])
        rows = chunk.reshape(len(chunk), -1)
        digests += [hashlib.blake2b(row.data, digest_size=16).digest() for row in rows]
    return np.frombuffer(b"".join(digests), "V16")


def _first_alike(digests: np.ndarray) -> np.ndarray:
    """Position of the first image that equals each image, ``[N]``; its own if none is earlier."""
    _, first, inverse = np.unique(digests, return_index=True, return_inverse=True)
    return first[inverse]
