"""k-means, the same for the same seed."""

import warnings
from typing import Any

import numpy as np


def kmeans(signals: np.ndarray, count: int, *, seed: int) -> Any:
    """scikit-learn's `KMeans`, fitted on one thread: several add up in any order.

    Args:
      signals: ``[N, D]``.
      count: clusters, at most N; fewer distinct signals leave some unused.
      seed: decides the first centres.

    >>> near, beside, far = kmeans(np.array([[0.0], [0.2], [9.0]]), 2, seed=0).labels_
    >>> bool(near == beside), bool(near == far)
    (True, False)
    """
    from sklearn.cluster import KMeans  # takes a second to import
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return KMeans(count, n_init=1, random_state=seed).fit(signals)
