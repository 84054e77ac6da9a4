"""A training set that is not on the device: the images of every update, read ahead of time.

They are the images that the update would draw from a resident set, so that nothing but the memory
depends on where the set is.
"""

import math
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from fairdd_jax.config import Config
from fairdd_jax.data import Dataset
from fairdd_jax.environment import memory_limit
from fairdd_jax.prefetch import prefetch
from fairdd_jax.sharding import aligned, aligned_empty, place, place_parts
from fairdd_jax.step import Step
from fairdd_jax.training_set import TrainingSet, cells

# Blocks of updates whose images are read before they are needed.
_AHEAD = 2
# Share of the memory that a resident training set may take.
_SHARE = 0.5


def is_streamed(config: Config, dataset: Dataset) -> bool:
    """Whether the training set stays where it is: as the configuration says; else if it is large.

    And with several processes, each of which reads its part of every batch then.
    """
    if config.stream != "auto":
        return config.stream == "always"
    return jax.process_count() > 1 or is_large(dataset)


def is_large(dataset: Dataset) -> bool:
    """Whether the training images take more than half of the memory of the device."""
    return dataset.train.images.nbytes > _SHARE * memory_limit()


def blocks(
    step: Step, dataset: Dataset, key: jax.Array, lengths: Sequence[int], *, first: int = 0
) -> Iterator[TrainingSet]:
    """What `Step.run_block` takes, block after block.

    Args:
      step: a streamed step.
      dataset: its data set.
      key: what the step is called with.
      lengths: updates of each block.
      first: number of the first of these updates.
    """
    # On one device of this process: which images to draw, every process knows by itself.
    index, local_key = jax.device_put((cells(dataset), key), jax.local_devices()[0])
    positions = jax.jit(jax.vmap(step.positions, in_axes=(None, None, 0)))
    images = dataset.train.images
    labels, everywhere = place((np.zeros(0, np.int32), cells(dataset)), step.mesh)
    of_matched, of_statistics = step.draws.specs()
    firsts = first + np.concatenate([[0], np.cumsum(lengths)[:-1]])

    def rows(wanted: jax.Array, spec: PartitionSpec) -> jax.Array:
        where = np.asarray(wanted)
        size = math.prod(dataset.image_shape)

        def part(index: tuple[slice, ...]) -> np.ndarray:
            own = where[index[:-1]]
            return aligned(read_rows(images, own.reshape(-1))).reshape(*own.shape, size)

        return place_parts((*where.shape, size), step.mesh, spec, part)

    def read(block: tuple[int, int]) -> TrainingSet:
        first, length = block
        updates = jnp.arange(first, first + length, dtype=jnp.int32)
        wanted = positions(index, local_key, updates)
        others = None
        if wanted.statistics is not None and of_statistics is not None:
            others = rows(wanted.statistics, of_statistics)
        return TrainingSet(rows(wanted.matched, of_matched), labels, everywhere, others)

    schedule = zip(firsts.tolist(), lengths, strict=True)
    return prefetch(read, schedule, workers=1, pieces=_AHEAD)


def read_rows(images: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Some images of an array, flat, ``[M, H * W * C]``.

    From a memory map they are read through its file: what a map has shown once may stay in memory
    until that is full.

    >>> read_rows(np.arange(12, dtype=np.uint8).reshape(3, 2, 2, 1), np.array([2, 0])).tolist()
    [[8, 9, 10, 11], [0, 1, 2, 3]]
    """
    size = math.prod(images.shape[1:])
    mapped = _mapped(images)
    if mapped is None:  # chosen first: of an array with gaps, reshaping would copy the whole
        return images[positions].reshape(len(positions), size)
    rows = aligned_empty((len(positions), size), np.uint8)
    start = images.ctypes.data - mapped.ctypes.data + mapped.offset
    with open(str(mapped.filename), "rb", buffering=0) as file:
        for row in np.argsort(positions, kind="stable"):
            file.seek(start + int(positions[row]) * size)
            if file.readinto(rows[row]) != size:
                raise OSError(f"{mapped.filename} has been cut while it was read")
    return rows


def _mapped(images: np.ndarray) -> np.memmap | None:
    """The memory map that an array without gaps is a part of, if it is one."""
    base: object = images
    while isinstance(base, np.ndarray):
        if isinstance(base, np.memmap) and not isinstance(base.base, np.memmap):
            # What was written to a private copy is not in the file.
            is_file = base.filename and base.mode != "c"
            return base if images.flags.c_contiguous and is_file else None
        base = base.base
    return None
