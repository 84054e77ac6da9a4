"""Greyscale bias, and splits that are balanced over (class, group) cells, by the official rules.

What CIFAR10-S, CelebA and UTKFace are made with.
"""

import numpy as np

# ITU-R 601-2 luma in 16-bit fixed point, as Pillow converts to mode L.
_LUMA = np.array([19595, 38470, 7471], np.uint32)
_HALF = 1 << 15
# Groups 0 and 1 of `assign_grey`.
GREY = ("grey", "colour")


def to_grey(images: np.ndarray) -> np.ndarray:
    """Grey version of RGB images, in all three channels: (19595 R + 38470 G + 7471 B + 2^15) >> 16.

    Args:
      images: uint8 ``[..., 3]``.

    Returns:
      uint8 ``[..., 3]``, what Pillow's ``convert("L")`` gives.

    >>> to_grey(np.array([[255, 0, 0], [10, 10, 10]], np.uint8)).tolist()
    [[76, 76, 76], [10, 10, 10]]
    """
    grey = (images.astype(np.uint32) @ _LUMA + _HALF) >> 16
    return np.repeat(grey[..., None], 3, axis=-1).astype(np.uint8)


def assign_grey(labels: np.ndarray, *, ratio: float, num_classes: int) -> np.ndarray:
    """Which images of CIFAR10-S become grey: the first ones of each class, in the order given.

    Of n images a class of the first half loses the colour of ``int(n C ratio) // C``, one of the
    second half that of the rest. Officially, where all C classes are of one size, n C is the number
    of all images.

    Args:
      labels: integers ``[N]``.
      ratio: share of grey images in a class of the first half, a fraction in [0, 1].
      num_classes: number of classes.

    Returns:
      groups ``[N]``: 0 grey, 1 colour.

    >>> assign_grey(np.array([0, 0, 0, 0, 1, 1, 1, 1]), ratio=0.75, num_classes=2).tolist()
    [0, 0, 0, 1, 0, 1, 1, 1]
    """
    groups = np.ones(len(labels), np.int32)
    for label in range(num_classes):
        members = np.flatnonzero(labels == label)
        majority = int(len(members) * num_classes * ratio) // num_classes
        grey = majority if label < num_classes / 2 else len(members) - majority
        groups[members[:grey]] = 0
    return groups


def balanced_subset(
    labels: np.ndarray, groups: np.ndarray, *, rng: np.random.RandomState
) -> np.ndarray:
    """Positions of a random subset with as many images of every cell as the smallest one has.

    Every (label, group) pair of the labels and groups that occur is a cell.

    >>> labels, groups = np.array([0, 0, 0, 1, 1]), np.array([0, 0, 1, 0, 1])
    >>> len(balanced_subset(labels, groups, rng=np.random.RandomState(0)))
    4
    """
    cells = _shuffled_cells(labels, groups, rng)
    smallest = min(len(cell) for cell in cells)
    return np.sort(np.concatenate([cell[:smallest] for cell in cells]))


def balanced_split(
    labels: np.ndarray, groups: np.ndarray, *, per_cell: int, rng: np.random.RandomState
) -> tuple[np.ndarray, np.ndarray]:
    """Positions of a training and a test split, the latter with equally many of every cell.

    The test split takes ``per_cell`` random images of every cell, or as many as the smallest cell
    has; everything else is for training.

    >>> labels, groups = np.array([0, 0, 0, 1, 1]), np.array([0, 0, 1, 0, 1])
    >>> train, test = balanced_split(labels, groups, per_cell=1, rng=np.random.RandomState(0))
    >>> len(train), len(test)
    (1, 4)
    """
    cells = _shuffled_cells(labels, groups, rng)
    count = min(per_cell, *(len(cell) for cell in cells))
    test = np.sort(np.concatenate([cell[:count] for cell in cells]))
    train = np.sort(np.concatenate([cell[count:] for cell in cells]))
    return train, test


def stratified_split(
    labels: np.ndarray, groups: np.ndarray, *, fraction: float, rng: np.random.RandomState
) -> tuple[np.ndarray, np.ndarray]:
    """Positions of a training and a test split that have the same cells in the same proportions.

    Of the n images of a cell ``round(n fraction)`` random ones are for testing, but never all of
    them.

    >>> labels, groups = np.zeros(10, int), np.repeat([0, 1], [8, 2])
    >>> rng = np.random.RandomState(0)
    >>> [len(split) for split in stratified_split(labels, groups, fraction=0.25, rng=rng)]
    [8, 2]
    """
    cells = [cell for cell in _shuffled_cells(labels, groups, rng) if cell.size]
    counts = [min(round(len(cell) * fraction), len(cell) - 1) for cell in cells]
    pairs = list(zip(cells, counts, strict=True))
    test = np.sort(np.concatenate([cell[:count] for cell, count in pairs]))
    train = np.sort(np.concatenate([cell[count:] for cell, count in pairs]))
    return train, test


def _shuffled_cells(
    labels: np.ndarray, groups: np.ndarray, rng: np.random.RandomState
) -> list[np.ndarray]:
    """Positions of every cell in random order."""
    return [
        rng.permutation(np.flatnonzero((labels == label) & (groups == group)))
        for label in np.unique(labels)
        for group in np.unique(groups)
    ]
