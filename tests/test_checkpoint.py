"""Checkpoints: what comes back, what stays, and what damage does."""

import errno
import os
import random
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fairdd_jax import checkpoint
from fairdd_jax.checkpoint import Checkpoints, checksum, steps_in
from fairdd_jax.errors import WorkdirError


def arrays(step=0):
    """A tree of every type of leaf that a run has."""
    rng = np.random.default_rng(step)
    return {
        "images": jnp.asarray(rng.standard_normal((3, 40, 5)), jnp.float32),
        "none": None,
        "half": jnp.asarray(rng.standard_normal(7), jnp.bfloat16),
        "number": jnp.asarray(step, jnp.int32),
        "flags": (jnp.asarray([True, False]),),
    }


def assert_same(actual, expected):
    assert actual.keys() == expected.keys()
    for name in ("images", "half", "number"):
        np.testing.assert_array_equal(actual[name], expected[name])
        assert actual[name].dtype == expected[name].dtype
    assert actual["none"] is None
    np.testing.assert_array_equal(actual["flags"][0], expected["flags"][0])


def written(folder, *steps, keep=3, best=None):
    checkpoints = Checkpoints(folder, keep=keep)
    for step in steps:
        checkpoints.save(step, arrays(step), {"step": step, "third": step / 3}, best=best)
    checkpoints.close()


def restored(folder, **options):
    checkpoints = Checkpoints(folder, keep=3)
    found = checkpoints.restore(arrays(), **options)
    checkpoints.close()
    return found, steps_in(folder)


def test_a_record_may_change_while_it_is_written(tmp_path):
    checkpoints, log = Checkpoints(tmp_path, keep=9), []
    for step in range(8):
        log.append(step)
        checkpoints.save(step, arrays(step), {"log": log})
    log.append("later")
    checkpoints.close()
    damaged = []
    found, _ = restored(tmp_path, on_damaged=lambda *about: damaged.append(about))
    assert not damaged
    assert found[1]["log"] == list(range(8))


def test_a_first_axis_may_be_longer_or_shorter_by_zeros(tmp_path):
    """As other numbers of devices need it."""
    saved = jnp.zeros((4, 3)).at[:3].set(jnp.arange(9.0).reshape(3, 3) + 1)
    checkpoints = Checkpoints(tmp_path, keep=3)
    checkpoints.save(1, {"images": saved}, {})
    for length in (3, 4, 6):
        found = checkpoints.restore({"images": jnp.ones((length, 3))})
        np.testing.assert_array_equal(found[0]["images"][:3], saved[:3])
        assert not found[0]["images"][3:].any()
    assert checkpoints.restore({"images": jnp.ones((2, 3))}) is None  # not zeros
    checkpoints.close()


@pytest.mark.parametrize("name", ["[red] head", "what?", "a*b", "{x}", "with space", "äあ"])
def test_a_folder_may_have_any_name(tmp_path, name):
    written(tmp_path / name, 1, 2)
    damaged = []
    found, left = restored(tmp_path / name, on_damaged=lambda *about: damaged.append(about))
    assert damaged == []
    assert_same(found[0], arrays(2))
    assert left == [1, 2]


def test_what_was_saved_comes_back(tmp_path):
    written(tmp_path / "new" / "folder", 5)
    found, left = restored(tmp_path / "new" / "folder")
    assert_same(found[0], arrays(5))
    assert (found[1]["step"], found[1]["third"]) == (5, 5 / 3)
    assert left == [5]


def test_arrays_may_be_donated_while_they_are_written(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=3)
    given = arrays(1)
    checkpoints.save(1, given, {})
    given["images"].delete()
    checkpoints.close()
    assert_same(restored(tmp_path)[0][0], arrays(1))


@pytest.mark.parametrize(("best", "kept"), [(None, [40, 50]), (20, [20, 40, 50])])
def test_the_last_stay_and_the_best(tmp_path, best, kept):
    written(tmp_path, 10, 20, 30, 40, 50, keep=2, best=best)
    assert restored(tmp_path)[1] == kept


def test_nothing_to_restore(tmp_path):
    assert restored(tmp_path) == (None, [])


def test_a_record_that_does_not_fit_stops_before_the_arrays_are_read(tmp_path):
    written(tmp_path, 1, 2)

    def check(record):
        raise KeyError(record["step"])

    with pytest.raises(KeyError, match="2"):
        restored(tmp_path, check=check)


def damaged_files(folder, seed, count):
    """Files of the newest checkpoint, cut or with one bit turned, one after the other."""
    rng = random.Random(seed)
    files = [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size]
    rng.shuffle(files)
    for number in range(count):
        path = files[number % len(files)]  # each of them, or luck alone decides what is needed
        content = bytearray(path.read_bytes())
        original = bytes(content)
        if number % 2:
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        else:
            del content[rng.randrange(len(content)) :]
        path.write_bytes(content)
        yield f"{path.relative_to(folder)}, {len(content)} of {len(original)} bytes"
        path.write_bytes(original)


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_damaged_checkpoint_is_never_used(tmp_path, seed):
    """It is skipped for the one before and said to be damaged, or it is unchanged after all."""
    written(tmp_path / "whole", 1, 2)
    skipped = 0
    for damage in damaged_files(tmp_path / "whole" / "2", seed, 16 if seed == 0 else 40):
        copy = tmp_path / "copy"
        shutil.copytree(tmp_path / "whole", copy)
        notes = []
        found, left = restored(copy, on_damaged=lambda step, why, notes=notes: notes.append(step))
        step = int(found[1]["step"])
        assert_same(found[0], arrays(step))
        assert step == 2 or (notes, left) == ([2], [1]), damage
        skipped += step == 1
        shutil.rmtree(copy)
    assert skipped  # much of what orbax writes is not needed to read it


@pytest.mark.parametrize("number", [0, 1])
def test_a_seal_tells_what_can_still_be_read(tmp_path, monkeypatch, number):
    """Other arrays under the same record, and another record over the same arrays."""
    written(tmp_path, 1)
    changed = arrays(1) | {"images": arrays(1)["images"].at[2, 30, 4].add(1.0)}
    with monkeypatch.context() as patch:
        if number == 0:
            real = checkpoint._checksums
            patch.setattr(checkpoint, "_checksums", lambda _: real(jax.tree.leaves(arrays(2))))
        else:
            patch.setattr(checkpoint, "_seal", lambda record: "0" * 64)
        checkpoints = Checkpoints(tmp_path, keep=3)
        checkpoints.save(2, changed, {"step": 2})
        checkpoints.close()
    reasons = []
    found, _ = restored(tmp_path, on_damaged=lambda step, why: reasons.append((step, why)))
    assert reasons == [(2, ("its arrays have changed", "its record has changed")[number])]
    assert_same(found[0], arrays(1))


def test_what_cannot_be_read_is_set_aside(tmp_path, monkeypatch):
    """Memory that another process takes may be there another time; damage stays."""
    folder = tmp_path / "checkpoints"
    written(folder, 1, 2)
    for attempt in range(2):
        notes, moved = [], []
        with monkeypatch.context() as patch:
            patch.setattr(Checkpoints, "_arrays", raise_out_of_memory)
            found = restored(
                folder,
                on_damaged=lambda *note, notes=notes: notes.append(note),
                on_set_aside=moved.append,
            )
        assert found == (None, [])
        assert notes == [(2, "out of memory"), (1, "out of memory")][attempt:]
        assert moved == [tmp_path / f"checkpoints.unreadable_{attempt + 1}"]
        assert steps_in(moved[0]) == [1, 2][: 2 - attempt]
        written(folder, 1)
    assert_same(restored(folder)[0][0], arrays(1))
    assert_same(restored(tmp_path / "checkpoints.unreadable_1")[0][0], arrays(2))
    for path in folder.rglob("metadata"):
        path.write_bytes(b"{")
    assert restored(folder) == (None, [])
    assert restored(folder, on_set_aside=pytest.fail) == (None, [])


def raise_out_of_memory(*about):
    raise RuntimeError("out of memory")


def test_what_is_unfinished_is_not_there(tmp_path):
    written(tmp_path, 1)
    shutil.copytree(tmp_path / "1", tmp_path / "2.orbax-checkpoint-tmp")
    assert restored(tmp_path)[1] == [1]


def test_a_full_disk_is_one_line(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path, keep=3)
    checkpoints.save(1, arrays(1), {})
    checkpoints._manager.wait_until_finished()

    def refuse(*args, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints._manager, "save", refuse)
        with pytest.raises(WorkdirError, match="No space left on device; free some space") as error:
            checkpoints.save(2, arrays(2), {})
    assert "\n" not in str(error.value)
    checkpoints.close()
    assert restored(tmp_path)[1] == [1]


def test_a_folder_that_is_none(tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(WorkdirError, match="cannot write"):
        Checkpoints(file, keep=3)
    assert file.read_text() == "mine"


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.int32, jnp.uint8, jnp.bool_])
def test_a_checksum_sees_every_place(dtype):
    """Against the sum in Python's integers."""
    array = jnp.asarray(np.random.default_rng(0).integers(0, 2, (3, 5, 2)), dtype)
    bits = np.asarray(array).view(f"u{array.dtype.itemsize}").astype(object).ravel()
    expected = 0
    for place, value in enumerate(bits):
        expected += value * (2 * ((place * 0x9E3779B1 % 2**32) ^ (place >> 15)) + 1)
    assert int(checksum(array)) == expected % 2**32
    other = array.at[2, 4, 1].set(jnp.logical_not(array[2, 4, 1]).astype(dtype))
    assert checksum(other) != checksum(array)
    assert checksum(jnp.flip(array, 1)) != checksum(array)
