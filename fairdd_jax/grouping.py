"""What the matching is told of the protected groups of the training images.

The truth by default. Or labels that are partly wrong or missing; or none at all, and clusters of
the signal inside every class stand in for the groups. Scores always use the true groups of the
test images.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp
import numpy as np

from fairdd_jax import models
from fairdd_jax.clusters import kmeans
from fairdd_jax.data import Dataset, flip_groups
from fairdd_jax.embedding import Embedding
from fairdd_jax.errors import ConfigError, unknown_name

Features: TypeAlias = Callable[[np.ndarray], np.ndarray]
GroupSource = Literal["given", "kmeans", "dbscan"]

# Settings of clusters, and the sources that read them.
_OF_CLUSTERS = {
    "clusters": ("kmeans", "dbscan"),
    "min_samples": ("dbscan",),
    "core": ("dbscan",),
}
_UNKNOWN = -1
# Images of a class that its components and clusters are fitted to; the others follow the nearest.
_SAMPLE = 5000
_COMPONENTS = 50
_BLOCK = 500  # images whose features are held at once
_NOTHING = 1e-6  # what is below this, as a fraction of the whole, is rounding
_CENTRES = 5  # of k-means for each cluster that is left of them


@dataclass(frozen=True)
class GroupsConfig:
    """What the matching is told of the groups of the training images; scores use the true ones.

    Attributes:
      source: the groups of the data set (given), or clusters of the signal inside every class
        (kmeans, dbscan), for which no group label is read.
      clusters: clusters per class (kmeans), or at most so many, the largest (dbscan).
      min_samples: images within reach, itself included, that make an image a core of its cluster
        (dbscan).
      core: share of the images of a class that are cores, which decides the reach, eps (dbscan).
      missing: share of the training images of each class whose group is unknown; they get that of
        the nearest image of their class with a known one.
      noise: share of the training images whose group is replaced by another one.

    Raises:
      ConfigError: on a value outside its range, or one that the source has no use for.
    """

    source: GroupSource = "given"
    clusters: int = 10
    min_samples: int = 5
    core: float = 0.75
    missing: float = 0.0
    noise: float = 0.0

    def __post_init__(self) -> None:
        if self.source not in get_args(GroupSource):
            raise unknown_name("groups.source", self.source, get_args(GroupSource))
        for field in ("clusters", "min_samples"):
            if getattr(self, field) < 1:
                raise ConfigError(f"groups.{field} must be 1 or more, got {getattr(self, field)}")
        for field in ("core", "missing", "noise"):
            value = getattr(self, field)
            if not 0 <= value <= 1:
                raise ConfigError(f"groups.{field} must be a fraction in [0, 1], got {value}")
            if field != "core" and value and self.source != "given":
                raise ConfigError(
                    f"groups.{field} {value} means nothing to groups.source {self.source}, which "
                    "reads no group label; leave it out, or take the source given"
                )
        for field, sources in _OF_CLUSTERS.items():
            value = getattr(self, field)
            if value != getattr(GroupsConfig, field) and self.source not in sources:
                raise ConfigError(
                    f"groups.{field} {value} means nothing to groups.source {self.source}; leave "
                    f"it out, or take the source {' or '.join(sources)}"
                )


def regroup(dataset: Dataset, config: GroupsConfig, *, features: Features, seed: int) -> Dataset:
    """The data set as the matching sees it: the same images, other groups.

    Noise comes first; then everything happens inside a class. Its features are reduced to their
    first 50 principal components, each divided by the root of its standard deviation: halfway to
    whitening, since rare groups add little variance. There its images are clustered, and one
    without a group (unknown, noise of DBSCAN, or not in the sample of 5000 that is clustered) gets
    that of the nearest image with one. The clusters of a class are numbered from the largest on (in
    the sample); equal numbers in two classes have nothing to do with each other, and a class with
    fewer clusters has empty cells.

    Args:
      dataset: the data set with its true groups.
      config: what to tell.
      features: maps uint8 images ``[n, H, W, C]`` to float features ``[n, D]``, each image by
        itself; see `random_features`. Called with at most 5000 images at once, and not at all if
        the groups are given and none is missing.
      seed: decides which labels are wrong or unknown, the sample and the first centres.

    Returns:
      The very same data set if nothing is changed. With clusters, the groups of the test split
      are all 0, since the matching does not read them.

    Raises:
      ConfigError: noise in a data set with one group.

    Reference: FairDD, Appendix M: noise (Table 17), DBSCAN (Table 18); neither says how its eps
    was chosen, and the official code has nothing of it. Ours is a quantile of the distances to the
    ``min_samples``-th nearest image, the "sorted k-dist graph" of Ester et al., A density-based
    algorithm for discovering clusters in large spatial databases with noise (KDD 1996).

    >>> images = np.repeat(np.array([0, 9, 200, 209], np.uint8), 12).reshape(4, 2, 2, 3)
    >>> split = (images, [0, 0, 0, 0], [0, 0, 0, 0])
    >>> told = regroup(
    ...     Dataset.from_arrays(split, split),
    ...     GroupsConfig("kmeans", clusters=2),
    ...     features=lambda images: images.reshape(len(images), -1) / np.float32(255),
    ...     seed=0,
    ... )
    >>> told.groups, told.cell_counts(told.train).tolist()
    (('cluster 0', 'cluster 1'), [[2, 2]])
    """
    train = dataset.train
    groups = train.groups
    if config.noise:
        rng = np.random.default_rng(seed)
        groups = flip_groups(groups, fraction=config.noise, num_groups=dataset.num_groups, rng=rng)
    if config.missing or config.source != "given":
        groups = groups.copy()
        for label in range(dataset.num_classes):
            members = np.flatnonzero(train.labels == label)
            rng = np.random.default_rng([seed, label])
            signals, sample = _signals(train.images, members, features, rng)
            if config.source == "given":
                known = _partly_unknown(groups[members], config.missing, rng)
            else:
                known = np.full(len(members), _UNKNOWN)
                known[sample] = _clusters(signals[sample], config, rng)
            groups[members] = _completed(known, signals)
    if groups is train.groups:
        return dataset
    names, of_test = dataset.groups, dataset.test.groups
    if config.source != "given":
        names = tuple(f"cluster {number}" for number in range(groups.max() + 1))
        of_test = np.zeros_like(of_test)
    return replace(
        dataset,
        train=replace(train, groups=groups),
        test=replace(dataset.test, groups=of_test),
        groups=names,
    )


def _signals(
    images: np.ndarray, members: np.ndarray, features: Features, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Scaled principal components of a class, ``[n, d]``, and which images they were fitted to."""
    from sklearn.utils.extmath import randomized_svd  # takes a second to import

    chosen = np.zeros(len(members), bool)
    chosen[rng.choice(len(members), min(_SAMPLE, len(members)), replace=False)] = True
    sample, others = np.flatnonzero(chosen), np.flatnonzero(~chosen)
    fitted = features(images[members[sample]])
    nothing = _NOTHING * np.linalg.norm(fitted)
    mean = fitted.mean(0)
    fitted = fitted - mean
    size = min(_COMPONENTS, *fitted.shape)
    _, deviation, axes = randomized_svd(fitted, size, random_state=_random_state(rng))
    # Scaling would make much of a component that is all rounding: equal images would differ.
    scale = np.divide(
        1, np.sqrt(deviation), where=deviation > nothing, out=np.zeros_like(deviation)
    )
    axes = axes.T * scale
    signals = np.empty((len(members), size), np.float32)
    signals[sample] = fitted @ axes
    for start in range(0, len(others), _BLOCK):
        block = others[start : start + _BLOCK]
        signals[block] = (features(images[members[block]]) - mean) @ axes
    return signals, sample


def _partly_unknown(groups: np.ndarray, missing: float, rng: np.random.Generator) -> np.ndarray:
    """The groups of a class without that share of them; one at least stays known."""
    count = min(round(missing * len(groups)), len(groups) - 1)
    known = groups.copy()
    known[rng.choice(len(groups), count, replace=False)] = _UNKNOWN
    return known


def _clusters(signals: np.ndarray, config: GroupsConfig, rng: np.random.Generator) -> np.ndarray:
    """Clusters numbered from the largest on; what is noise, or one too many, is unknown."""
    find = _kmeans if config.source == "kmeans" else _dbscan
    found, members = np.unique(find(signals, config, rng), return_inverse=True)
    sizes = np.where(found == _UNKNOWN, 0, np.bincount(members))
    rank = np.empty(len(found), int)
    rank[np.argsort(-sizes, kind="stable")] = np.arange(len(found))
    rank[(rank >= config.clusters) | (found == _UNKNOWN)] = _UNKNOWN
    return rank[members]


def _kmeans(signals: np.ndarray, config: GroupsConfig, rng: np.random.Generator) -> np.ndarray:
    """Many centres of k-means, joined until ``clusters`` are left.

    By itself k-means cuts up the majority, where the squared error is; but all centres count the
    same when the nearest of them are joined (average linkage), however many images they have.
    """
    from sklearn.cluster import AgglomerativeClustering

    centres = min(_CENTRES * config.clusters, len(signals))
    method = kmeans(signals, centres, seed=_random_state(rng))
    if centres <= config.clusters:
        return method.labels_
    joined = AgglomerativeClustering(config.clusters, linkage="average")
    return joined.fit_predict(method.cluster_centers_)[method.labels_]


def _dbscan(signals: np.ndarray, config: GroupsConfig, rng: np.random.Generator) -> np.ndarray:
    from sklearn.cluster import DBSCAN
    from sklearn.neighbors import NearestNeighbors

    del rng
    count = min(config.min_samples, len(signals))
    nearest = NearestNeighbors(n_neighbors=count).fit(signals)
    reach = np.quantile(nearest.kneighbors(signals)[0][:, -1], config.core)
    # Equal images have a reach of 0, and the signals of equal images are equal up to rounding.
    above = float(np.nextafter(reach + _NOTHING * np.abs(signals).max(), np.inf))
    clusters = DBSCAN(eps=above, min_samples=count).fit_predict(signals)
    return clusters if clusters.max() > _UNKNOWN else np.zeros_like(clusters)


def _completed(groups: np.ndarray, signals: np.ndarray) -> np.ndarray:
    """The groups of a class, every unknown one that of the nearest image with a known one."""
    from sklearn.metrics import pairwise_distances_argmin

    unknown = groups == _UNKNOWN
    if not unknown.any():
        return groups
    nearest = pairwise_distances_argmin(signals[unknown], signals[~unknown])
    completed = groups.copy()
    completed[unknown] = groups[~unknown][nearest]
    return completed


def _random_state(rng: np.random.Generator) -> int:
    """What scikit-learn takes for a seed."""
    return int(rng.integers(2**32))


def random_features(dataset: Dataset, model: str, *, seed: int, chunk: int) -> Features:
    """The features of a freshly initialised network, the signal of distribution matching.

    Args:
      dataset: its classes, image shape and normalisation.
      model: network by its official name.
      seed: decides the parameters.
      chunk: images that pass through the network at once.

    Returns:
      A function of uint8 images ``[n, H, W, C]``, memory-mapped or not, that gives ``[n, D]``
      float32. Batch norm keeps the statistics it starts with, so that every image is by itself.

    Raises:
      ConfigError: an unknown network, or one too deep for the images.

    >>> images = np.zeros((3, 8, 8, 3), np.uint8)
    >>> split = (images, [0, 0, 1], [0, 1, 0])
    >>> dataset = Dataset.from_arrays(split, split)
    >>> random_features(dataset, "ConvNetD1W8", seed=0, chunk=2)(images).shape
    (3, 128)
    """
    network = models.create(model, num_classes=dataset.num_classes, image_shape=dataset.image_shape)
    variables = network.init(jax.random.key(seed), jnp.zeros((1, *dataset.image_shape)))
    return partial(Embedding(network, dataset, chunk=chunk), variables)
