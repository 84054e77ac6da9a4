"""The real images of a run: where they are, and which of them an update draws."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from fairdd_jax.config import Config
from fairdd_jax.data import Dataset
from fairdd_jax.data.sampling import (
    GroupIndex,
    Proportional,
    RealBatch,
    Sampler,
    Stratified,
    group_index,
    proportional_batch,
)
from fairdd_jax.sharding import CLASS, DATA, REPLICATED, own_part, place

# Real images per class that set the batch statistics of a batch-norm network in gradient matching.
_STATISTICS_BATCH = 16


class TrainingSet(NamedTuple):
    """The real images on the device.

    Images are flat, ``H * W * channels`` uint8, because a TPU pads the last axes of an array.
    """

    images: jax.Array | np.ndarray
    """``[N, ...]``. Of a streamed training set those that a block of updates matches, ``[length, C,
    M, ...]``: every device has the part that it reads."""
    labels: jax.Array | np.ndarray
    """``[N]`` int32; empty of a streamed training set."""
    cells: GroupIndex
    statistics: jax.Array | np.ndarray | None = None
    """``[length, S, ...]``: those that set its batch statistics, if it is streamed."""


def training_set(dataset: Dataset, mesh: Mesh) -> TrainingSet:
    """Put the real images on every device and sort them by (class, group)."""
    train = dataset.train
    flat = train.images.reshape(len(train), -1)
    return place(TrainingSet(flat, train.labels.astype(np.int32), cells(dataset)), mesh)


def cells(dataset: Dataset) -> GroupIndex:
    """The training images by (class, group)."""
    return group_index(
        dataset.train.labels,
        dataset.train.groups,
        num_classes=dataset.num_classes,
        num_groups=dataset.num_groups,
    )


class Positions(NamedTuple):
    """Training images that an update needs."""

    matched: jax.Array
    """``[C, M]``, filled up so that the devices have equally many."""
    statistics: jax.Array | None
    """``[S]``"""


class Draws:
    """Which real images the updates of a step draw.

    Args:
      config: a resolved configuration.
      num_groups: of the data set.
      statistics: whether others than those that are matched set the batch statistics.
      streamed: whether the images come with the update that draws them, in its order.
      num_slots: classes, with what fills up the devices that have fewer.
      num_parts: devices that share the images of a class.
    """

    def __init__(
        self,
        config: Config,
        num_groups: int,
        *,
        statistics: bool,
        streamed: bool,
        num_slots: int,
        num_parts: int,
    ):
        self.sampler: Sampler = (
            Stratified(config.per_cell, num_groups)
            if config.sampling == "stratified"
            else Proportional(config.batch_real, num_groups)
        )
        self.streamed = streamed
        self.num_slots = num_slots
        self.num_parts = num_parts
        self._statistics = statistics

    def matched(self, key: jax.Array, cells: GroupIndex) -> RealBatch:
        """The images to match, of every class."""
        return self.sampler.draw(key, cells)

    def statistics(self, key: jax.Array, cells: GroupIndex) -> RealBatch | None:
        """The images that set the batch statistics, if others do."""
        if not self._statistics:
            return None
        return proportional_batch(key, cells, batch_real=_STATISTICS_BATCH)

    def images(self, data: TrainingSet, batch: RealBatch) -> jax.Array:
        """This device's part ``[C, N, ...]`` of the images to match of its classes."""
        images = jnp.asarray(data.images)
        if self.streamed:
            return images
        return images[own_part(batch.indices, self.num_parts, DATA, axis=1)]

    def positions(
        self, matched_key: jax.Array, statistics_key: jax.Array, cells: GroupIndex
    ) -> Positions:
        """What an update needs of a streamed training set.

        Args:
          matched_key: what `matched` is called with.
          statistics_key: what `statistics` is called with.
          cells: the training images by cell.
        """
        indices = self.matched(matched_key, cells).indices
        more = self.num_slots - indices.shape[0], -indices.shape[1] % self.num_parts
        padded = jnp.pad(indices, ((0, more[0]), (0, more[1])))
        others = self.statistics(statistics_key, cells)
        return Positions(padded, others and others.indices.reshape(-1))

    def specs(self) -> tuple[PartitionSpec, PartitionSpec | None]:
        """How the images that come with the updates lie on the mesh, those of `positions`."""
        matched = PartitionSpec(None, CLASS, DATA if self.num_parts > 1 else None)
        return matched, REPLICATED if self._statistics else None
