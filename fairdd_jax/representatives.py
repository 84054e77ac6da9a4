"""Representative real images: those next to the cluster centres of their features.

What is drawn from becomes smaller, nothing else changes: a `GroupIndex` that lists the chosen
images alone takes the place of the whole one.

Reference: Liu et al., DREAM: Efficient Dataset Distillation by Representative Matching (ICCV 2023).
Deviations from the authors' code: with the stratified sampler the images of every (class, group)
cell are clustered on their own; the network is the one before its training between two updates.
"""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fairdd_jax.clusters import kmeans
from fairdd_jax.data import Dataset
from fairdd_jax.data.sampling import GroupIndex
from fairdd_jax.embedding import Embedding
from fairdd_jax.errors import ConfigError, NonFiniteLossError
from fairdd_jax.sharding import place
from fairdd_jax.step import State, Step
from fairdd_jax.training_set import TrainingSet

PyTree = Any


class Representatives:
    """Chooses the images that a step draws from.

    Args:
      step: the step.
      dataset: its data set.

    Raises:
      ConfigError: the training set is streamed.
    """

    def __init__(self, step: Step, dataset: Dataset):
        if step.draws.streamed:
            raise ConfigError(
                "representative images are chosen from a training set on the device; choose "
                "--stream never or --representatives 0"
            )
        self.step = step
        self.dataset = dataset
        self._embedding = Embedding(
            step.network, dataset, chunk=step.config.chunk, dtype=step.config.compute_dtype
        )
        self._upcoming = jax.jit(step.upcoming)

    def none(self) -> GroupIndex:
        """No images yet: what `__call__` returns has the same shapes, on the same devices."""
        C, G = self.dataset.num_classes, self.dataset.num_groups
        order = np.zeros((C, self.step.draws.sampler.batch_size), np.int32)
        return self._placed(order, np.zeros((C, G), int), np.zeros((C, G), int), np.zeros((C, G)))

    def _placed(
        self, order: np.ndarray, start: np.ndarray, counts: np.ndarray, shares: np.ndarray
    ) -> GroupIndex:
        index = GroupIndex(
            jnp.asarray(order.reshape(-1), jnp.int32),
            jnp.asarray(start, jnp.int32),
            jnp.asarray(counts, jnp.int32),
            jnp.asarray(shares, jnp.float32),
        )
        return place(index, self.step.mesh)

    def __call__(self, state: State, key: jax.Array, data: TrainingSet) -> GroupIndex:
        """Images of every cell (stratified) or class that stand for the others of it."""
        variables = self._upcoming(state, key)
        update = int(state.update)
        seed = np.asarray(jax.random.key_data(jax.random.fold_in(key, update)))
        rng = np.random.default_rng([*seed.tolist(), update])
        wanted = self._wanted()
        C, G = self.dataset.num_classes, self.dataset.num_groups
        counts = np.zeros((C, G), np.int64)
        start = np.zeros((C, G), np.int64)
        order = np.zeros((C, self.step.draws.sampler.batch_size), np.int32)
        for label in range(C):
            pools = list(self._pools(label, rng))
            # All pools of a class in one go: a call computes hundreds of images, however few it is
            # asked for.
            pixels = self.dataset.train.images[np.concatenate(pools)]
            ends = np.cumsum([len(members) for members in pools])[:-1]
            embedded = self._embedding(variables, pixels)
            if not np.isfinite(embedded).all():
                raise NonFiniteLossError(
                    "the network that is matched with gives infinite or NaN features; try a "
                    f"smaller --lr_net than {self.step.config.lr_net}"
                )
            features = np.split(embedded, ends)
            images = np.concatenate(
                [_nearest(*pool, wanted, rng) for pool in zip(pools, features, strict=True)]
            )
            groups = self.dataset.train.groups[images]
            images = images[np.argsort(groups, kind="stable")]
            order[label, : len(images)] = images
            counts[label] = np.bincount(groups, minlength=G)
            start[label] = label * order.shape[1] + np.cumsum(counts[label]) - counts[label]
        return self._placed(order, start, counts, np.asarray(data.cells.shares))

    def _wanted(self) -> int:
        """Images of each pool."""
        config = self.step.config
        return config.per_cell if config.sampling == "stratified" else config.batch_real

    def _pools(self, label: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """Positions of the images of a class that are clustered together."""
        config, train = self.step.config, self.dataset.train
        members = np.flatnonzero(train.labels == label)
        pools = [members]
        if config.sampling == "stratified":
            groups = train.groups[members]
            pools = [members[groups == group] for group in range(self.dataset.num_groups)]
        for pool in pools:
            if 0 < config.pool < len(pool):
                pool = np.sort(rng.choice(pool, config.pool, replace=False))
            yield pool


def _nearest(
    members: np.ndarray, features: np.ndarray, wanted: int, rng: np.random.Generator
) -> np.ndarray:
    """The members next to the centres of that many clusters."""
    from sklearn.metrics import pairwise_distances_argmin  # takes a second to import

    if len(members) <= wanted:
        return members
    centres = kmeans(features, wanted, seed=int(rng.integers(2**31))).cluster_centers_
    return members[np.unique(pairwise_distances_argmin(centres, features))]
