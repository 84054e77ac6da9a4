"""Which real images a step sees: uniform draws without replacement, per cell or per class.

A cell is a (class, group) pair. Both samplers give the same `RealBatch`, so that nothing after
them knows which one drew it; every function here is traceable and takes its randomness by key.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from fairdd_jax.centres import group_weights, normalised


class GroupIndex(NamedTuple):
    """The images of a training set, sorted by cell."""

    order: jax.Array
    """``[N]``: positions of the images, class by class and group by group."""
    start: jax.Array
    """``[C, G]``: where each cell begins in ``order``."""
    counts: jax.Array
    """``[C, G]``: how many images each cell has."""
    shares: jax.Array
    """``[C, G]``: fraction of the class in each group, whatever part of a cell is listed."""


class RealBatch(NamedTuple):
    """The real images of one step, N per class."""

    indices: jax.Array
    """``[C, N]``: positions in the training set."""
    weights: jax.Array
    """``[C, G, N]``: row g averages the images of group g; all zero if it has none."""
    shares: jax.Array
    """``[C, G]``: fraction of the class in each group."""


def group_index(
    labels: np.ndarray, groups: np.ndarray, *, num_classes: int, num_groups: int
) -> GroupIndex:
    """Sort a training set by cell.

    Args:
      labels: ``[N]`` integers in ``[0, num_classes)``.
      groups: ``[N]`` integers in ``[0, num_groups)``.
      num_classes: number of classes C.
      num_groups: number of groups G.

    >>> index = group_index(np.array([1, 0, 1]), np.array([0, 1, 0]), num_classes=2, num_groups=2)
    >>> index.order.tolist(), index.counts.tolist()
    ([1, 0, 2], [[0, 1], [2, 0]])
    """
    cell = labels.astype(np.int64) * num_groups + groups
    count = np.bincount(cell, minlength=num_classes * num_groups)
    start = np.concatenate([[0], np.cumsum(count)[:-1]])
    shape = (num_classes, num_groups)
    return GroupIndex(
        jnp.asarray(np.argsort(cell, kind="stable"), jnp.int32),
        jnp.asarray(start.reshape(shape), jnp.int32),
        jnp.asarray(count.reshape(shape), jnp.int32),
        normalised(jnp.asarray(count.reshape(shape))),
    )


def draw(key: jax.Array, count: jax.Array, size: int) -> tuple[jax.Array, jax.Array]:
    """Draw positions below ``count`` uniformly without replacement (Floyd's algorithm).

    Args:
      key: random key.
      count: scalar, how many there are to draw from.
      size: how many to draw.

    Returns:
      ``[size]`` positions and ``[size]`` booleans; if ``count < size`` every position is drawn
      once and the rest is marked False.

    Reference: Bentley and Floyd, A sample of brilliance (CACM 1987). The draws of one call cost
    ``size**2`` comparisons, whatever the count.

    >>> positions, valid = draw(jax.random.key(0), jnp.int32(3), 4)
    >>> sorted(positions[valid].tolist()), int(valid.sum())
    ([0, 1, 2], 3)
    """
    last = count - size + jnp.arange(size, dtype=count.dtype)
    candidate = jax.random.randint(key, (size,), 0, jnp.maximum(last, 0) + 1, dtype=count.dtype)

    def pick(i: jax.Array, chosen: jax.Array) -> jax.Array:
        position = jnp.where((chosen == candidate[i]).any(), last[i], candidate[i])
        return chosen.at[i].set(jnp.where(last[i] < 0, -1, position))

    chosen = jax.lax.fori_loop(0, size, pick, jnp.full(size, -1, count.dtype))
    return jnp.maximum(chosen, 0), chosen >= 0


def stratified_batch(key: jax.Array, index: GroupIndex, *, per_cell: int) -> RealBatch:
    """Draw ``per_cell`` images of every (class, group) cell, or all of a smaller cell.

    Every group centre is then estimated equally well. The shares are those of the training set,
    so that the vanilla target, their weighted mean, stays unbiased (but for batch norm in training
    mode, whose statistics are those of the balanced batch).

    Args:
      key: random key.
      index: the training set by cell.
      per_cell: images per cell.

    Returns:
      A batch of N = G ``per_cell`` images per class, group g's from ``g per_cell`` on.

    >>> labels, groups = np.zeros(4, int), np.array([0, 1, 0, 0])
    >>> index = group_index(labels, groups, num_classes=1, num_groups=2)
    >>> batch = stratified_batch(jax.random.key(0), index, per_cell=1)
    >>> int(batch.indices[0, 1]), batch.weights.tolist(), batch.shares.tolist()
    (1, [[[1.0, 0.0], [0.0, 1.0]]], [[0.75, 0.25]])
    """
    C, G = index.counts.shape
    keys = jax.random.split(key, (C, G))
    cell_draw = jax.vmap(jax.vmap(lambda k, count: draw(k, count, per_cell)))
    positions, valid = cell_draw(keys, index.counts)
    indices = index.order[jnp.where(valid, positions + index.start[..., None], 0)]
    average = normalised(valid)
    weights = jnp.eye(G)[None, :, :, None] * average[:, None]
    indices, weights = indices.reshape(C, -1), weights.reshape(C, G, -1)
    return RealBatch(indices, weights, index.shares)


def proportional_batch(key: jax.Array, index: GroupIndex, *, batch_real: int) -> RealBatch:
    """Draw ``batch_real`` images of every class whatever their group, as the official code does.

    The shares are those of the batch.

    Args:
      key: random key.
      index: the training set by cell.
      batch_real: images per class.

    Returns:
      A batch of N = ``batch_real`` images per class; a smaller class gives all its images.

    >>> labels, groups = np.zeros(4, int), np.array([0, 1, 0, 0])
    >>> index = group_index(labels, groups, num_classes=1, num_groups=2)
    >>> batch = proportional_batch(jax.random.key(0), index, batch_real=4)
    >>> sorted(batch.indices[0].tolist()), batch.shares.tolist()
    ([0, 1, 2, 3], [[0.75, 0.25]])
    """
    C, G = index.counts.shape

    def of_class(k: jax.Array, start: jax.Array, count: jax.Array) -> RealBatch:
        positions, valid = draw(k, count.sum(), batch_real)
        ends = jnp.cumsum(count)
        groups = jnp.searchsorted(ends, positions, side="right").astype(jnp.int32)
        weights = group_weights(groups, num_groups=G, valid=valid)
        indices = index.order[jnp.where(valid, positions + start[0], 0)]
        return RealBatch(indices, weights, normalised((weights > 0).sum(1)))

    return jax.vmap(of_class)(jax.random.split(key, C), index.start, index.counts)


class Sampler(Protocol):
    """How the real images of an update are drawn."""

    @property
    def batch_size(self) -> int:
        """Images per class N."""
        ...

    def num_blocks(self, block: int) -> int:
        """Blocks of ``block`` images of one group each that hold any draw from a class."""
        ...

    def draw(self, key: jax.Array, cells: GroupIndex) -> RealBatch:
        """Draw the images of all classes."""
        ...


@dataclass(frozen=True)
class Stratified:
    """`stratified_batch` as a sampler."""

    per_cell: int
    num_groups: int

    @property
    def batch_size(self) -> int:
        """Images per class N."""
        return self.num_groups * self.per_cell

    def num_blocks(self, block: int) -> int:
        """Every group fills blocks of its own."""
        return self.num_groups * -(-self.per_cell // block)

    def draw(self, key: jax.Array, cells: GroupIndex) -> RealBatch:
        """Draw the images of all classes."""
        return stratified_batch(key, cells, per_cell=self.per_cell)


@dataclass(frozen=True)
class Proportional:
    """`proportional_batch` as a sampler."""

    batch_real: int
    num_groups: int

    @property
    def batch_size(self) -> int:
        """Images per class N."""
        return self.batch_real

    def num_blocks(self, block: int) -> int:
        """At worst every group leaves all but one place of its last block empty."""
        return (self.batch_real + self.num_groups * (block - 1)) // block

    def draw(self, key: jax.Array, cells: GroupIndex) -> RealBatch:
        """Draw the images of all classes."""
        return proportional_batch(key, cells, batch_real=self.batch_real)
