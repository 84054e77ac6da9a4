"""Checkpoints that are whole or not used: written by orbax in the background, sealed by checksums.

A file that was cut or changed on disk may still be readable; the seal is what tells.
"""

import glob
import hashlib
import json
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from fairdd_jax import hosts, workdir
from fairdd_jax.errors import one_line

PyTree = Any
Record = dict[str, Any]

_UNSIGNED = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}


class Checkpoints:
    """The last checkpoints of a folder, and the best.

    A checkpoint is a tree of arrays, written from the devices that have them, and a record for
    everything else, which JSON can hold.

    Args:
      folder: where they are; made when the first is written.
      keep: how many of the last stay.

    Raises:
      WorkdirError: the folder cannot be written.
    """

    def __init__(self, folder: Path, *, keep: int):
        import orbax.checkpoint as ocp  # takes two seconds to import

        policies = ocp.checkpoint_managers
        self.folder = workdir.prepare(folder.absolute())
        self._best = _Best()
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policies.AnyPreservationPolicy(
                [policies.LatestN(n=keep), self._best]
            ),
        )
        # It finds the parts of its format by patterns, to which brackets in a name are none.
        is_literal = glob.escape(str(self.folder)) == str(self.folder)
        arrays = ocp.StandardCheckpointHandler(use_ocdbt=is_literal)
        with workdir.explained(self.folder, Exception):
            self._manager = ocp.CheckpointManager(
                self.folder,
                options=options,
                item_handlers={"arrays": arrays, "record": ocp.JsonCheckpointHandler()},
            )

    def save(self, step: int, arrays: PyTree, record: Record, *, best: int | None = None) -> None:
        """Begin to write a checkpoint; the arrays may be given away (donated) afterwards.

        Args:
          step: its number, larger than those before.
          arrays: a tree of JAX arrays.
          record: what JSON can hold; it may change afterwards too.
          best: step of the checkpoint to keep however old it becomes.

        Raises:
          WorkdirError: this one, or the one before, cannot be written.
        """
        import orbax.checkpoint as ocp

        self._best.step = best
        leaves = [jnp.array(leaf) for leaf in jax.tree.leaves(arrays)]  # copies: see `arrays`
        record = record | {"checksums": [int(value) for value in _checksums(leaves)]}
        record = json.loads(json.dumps(record))  # of its own: it is written in the background
        with workdir.explained(self.folder, Exception):
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    arrays=ocp.args.StandardSave(_named(leaves)),
                    record=ocp.args.JsonSave(record | {"seal": _seal(record)}),
                ),
                force=True,
            )

    def restore(
        self,
        template: PyTree,
        *,
        check: Callable[[Record], None] = lambda record: None,
        on_damaged: Callable[[int, str], None] = lambda step, reason: None,
        on_set_aside: Callable[[Path], None] = lambda folder: None,
    ) -> tuple[PyTree, Record] | None:
        """The newest checkpoint that is whole; newer ones, which are not, are removed.

        If none is, all are moved to a new folder beside, ``checkpoints.unreadable_1``: what could
        not be read this time, for want of memory for instance, may be read another time.

        Args:
          template: a tree of arrays like those that were saved, on the devices to restore them to.
            First axes may be longer or shorter by elements that are all zero.
          check: sees the record before the arrays are read, and raises if they do not fit.
          on_damaged: told the step of a damaged one, and what is wrong with it.
          on_set_aside: told where they are moved.

        Returns:
          The arrays and their record; None if no checkpoint is whole.

        Raises:
          WorkdirError: the folder cannot be written.
        """
        self._manager.wait_until_finished()  # those that are written in the background are seen
        steps = steps_in(self.folder)
        for step in reversed(steps):
            try:
                record = self._record(step)
            except Exception as error:  # damaged bytes make orbax raise nearly anything
                on_damaged(step, one_line(error))
                continue
            check(record)
            try:
                arrays = self._arrays(step, template, record["checksums"])
            except Exception as error:
                on_damaged(step, one_line(error))
                continue
            self._remove_after(step)
            return arrays, record
        if steps:
            on_set_aside(self._set_aside())
        return None

    def close(self) -> None:
        """Wait until everything is written.

        Raises:
          WorkdirError: it cannot be.
        """
        with workdir.explained(self.folder, Exception):
            try:
                self._manager.wait_until_finished()
            finally:
                self._manager.close()

    def _record(self, step: int) -> Record:
        import orbax.checkpoint as ocp

        wanted = ocp.args.Composite(record=ocp.args.JsonRestore())
        record: Record = dict(self._manager.restore(step, args=wanted)["record"])
        if record.pop("seal", None) != _seal(record):
            raise ValueError("its record has changed")
        return record

    def _arrays(self, step: int, template: PyTree, checksums: Sequence[int]) -> PyTree:
        import orbax.checkpoint as ocp

        leaves, structure = jax.tree.flatten(template)
        shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding) for x in leaves]
        wanted = ocp.args.Composite(arrays=ocp.args.StandardRestore(_named(shapes), strict=False))
        restored = self._manager.restore(step, args=wanted)["arrays"]
        leaves = [restored[name] for name in _named(shapes)]
        if [int(value) for value in _checksums(leaves)] != list(checksums):
            raise ValueError("its arrays have changed")
        return jax.tree.unflatten(structure, leaves)

    def _set_aside(self) -> Path:
        places = (self.folder.with_name(f"{self.folder.name}.unreadable_{n}") for n in count(1))
        aside = next(place for place in places if not place.exists())
        hosts.any_of(False)  # all have found the same before the first makes it
        with workdir.explained(self.folder, Exception):
            if hosts.is_first():
                aside.mkdir()
                for step in steps_in(self.folder):
                    (self.folder / str(step)).rename(aside / str(step))
            hosts.any_of(False)  # none looks before they are gone
            self._manager.reload()
        return aside

    def _remove_after(self, step: int) -> None:
        """Make room for what is computed again."""
        with workdir.explained(self.folder, Exception):
            for newer in steps_in(self.folder):
                if newer > step:
                    self._manager.delete(newer)


def steps_in(folder: Path) -> list[int]:
    """Steps of the checkpoints of a folder, damaged ones too, the oldest first."""
    return sorted(int(path.name) for path in folder.glob("*") if path.name.isdigit())


class _Best:
    """A policy for orbax: one step stays, which may become another."""

    step: int | None = None

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        return [checkpoint.step == self.step for checkpoint in checkpoints]


def _named(leaves: Sequence[Any]) -> dict[str, Any]:
    """Leaves under names that do not depend on the tree that they come from."""
    return {f"leaf_{number:04d}": leaf for number, leaf in enumerate(leaves)}


def _seal(record: Record) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


@jax.jit
def _checksums(leaves: list[jax.Array]) -> list[jax.Array]:
    return [checksum(leaf) for leaf in leaves]


def checksum(array: jax.Array) -> jax.Array:
    """Sum of the bits of every element times an odd number of its place, modulo 2**32.

    Whatever devices have the array, the sum is the same: that of integers has no order. A change of
    one element always changes it, of several all but once in 2**32.

    Args:
      array: of any shape, of numbers of at most 32 bits.

    >>> one = jnp.zeros((3, 2)).at[2, 1].set(1.0)
    >>> bool(checksum(one) == checksum(one)), bool(checksum(one) == checksum(one[::-1]))
    (True, False)
    """
    if array.dtype == jnp.bool_:
        array = array.astype(jnp.uint8)
    unsigned = _UNSIGNED[array.dtype.itemsize]
    bits = jax.lax.bitcast_convert_type(array, unsigned).astype(jnp.uint32)
    place = jnp.zeros(array.shape, jnp.uint32)
    for axis, size in enumerate(array.shape):
        place = place * jnp.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, array.shape, axis)
    scattered = (place * jnp.uint32(0x9E3779B1)) ^ (place >> 15)
    return (bits * (2 * scattered + 1)).sum(dtype=jnp.uint32)
