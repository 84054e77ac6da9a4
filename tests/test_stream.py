"""A streamed training set: the same batches as a resident one, read from where it lies."""

import itertools
import threading
import time
import tracemalloc

import jax
import numpy as np
import pytest
from test_loop import settings, toy

from fairdd_jax import stream
from fairdd_jax.data import Dataset, Split
from fairdd_jax.loop import call_lengths, run_updates
from fairdd_jax.prefetch import prefetch
from fairdd_jax.sharding import place
from fairdd_jax.start import initial_images
from fairdd_jax.step import Step

# Batch norm in gradient matching draws a second batch, for its statistics.
RUNS = {
    "dm": {"dsa_strategy": "flip_crop", "block": 2, "steps": 5, "log_every": 3},
    "dm proportional": {"sampling": "proportional", "steps": 3},
    "dc": {"inner_epochs": 1},
    "dc batchnorm": {"model": "ConvNetD1W8BN"},
}


@pytest.fixture
def on_disk(tmp_path):
    """The toy data set with its training images in a memory map, behind a header."""
    dataset = toy()
    np.save(tmp_path / "images.npy", dataset.train.images)
    images = np.load(tmp_path / "images.npy", mmap_mode="r")
    train = Split(images, dataset.train.labels, dataset.train.groups)
    test, names = dataset.test, (dataset.classes, dataset.groups)
    return Dataset(dataset.name, train, test, *names, dataset.mean, dataset.std)


def distilled(name, dataset, where):
    method, changes = name.split()[0], RUNS[name]
    config = settings(method, **changes, stream=where)
    key = jax.random.key(0)
    images = initial_images(key, dataset, ipc=config.ipc, init=config.init).images
    *_, last = run_updates(config, dataset, key=key, images=images)
    return last


SLOW = {"dm proportional", "dc", "dc batchnorm"}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in RUNS]
)
def test_streamed_and_resident_give_the_same_images(name, on_disk):
    resident, streamed = (distilled(name, on_disk, where) for where in ("never", "always"))
    assert streamed.update == resident.update
    np.testing.assert_array_equal(streamed.images, resident.images)
    assert streamed.loss == resident.loss


def test_every_block_has_the_images_that_its_updates_draw(on_disk):
    config = settings(steps=5, log_every=3, block=2)
    step = Step(config, on_disk, streamed=True)
    key = place(jax.random.key(3), step.mesh)
    lengths = list(itertools.chain(*call_lengths(config)))
    assert lengths == [2, 1, 2]
    update = 0
    for data, length in zip(stream.blocks(step, on_disk, key, lengths), lengths, strict=True):
        assert data.images.shape[0] == length
        for images in np.asarray(data.images):
            wanted = np.asarray(step.positions(data.cells, key, update).matched)
            expected = on_disk.train.images[wanted].reshape(*wanted.shape, -1)
            np.testing.assert_array_equal(images, expected)
            update += 1
    assert update == 5


def test_rows_of_a_map_are_read_through_its_file(on_disk, monkeypatch):
    images, positions = on_disk.train.images, np.array([59, 0, 3, 3, 17])
    expected = np.array(images)[positions].reshape(5, -1)
    opened = []
    opened = []

    def counting(*arguments, **options):
        opened.append(arguments)
        return open(*arguments, **options)

    monkeypatch.setattr(stream, "open", counting, raising=False)
    np.testing.assert_array_equal(stream.read_rows(images, positions), expected)
    np.testing.assert_array_equal(stream.read_rows(np.array(images), positions), expected)
    assert len(opened) == 1


def test_a_part_of_a_map_starts_where_it_starts(on_disk):
    images = on_disk.train.images[7:]
    expected = np.array(images)[[2, 0]].reshape(2, -1)
    np.testing.assert_array_equal(stream.read_rows(images, np.array([2, 0])), expected)


def test_rows_of_an_array_with_gaps_do_not_copy_the_whole(tmp_path):
    """As channels of a file that stand first are moved last."""
    np.save(tmp_path / "images.npy", np.arange(1000 * 3 * 64, dtype=np.uint8).reshape(1000, 3, 64))
    images = np.load(tmp_path / "images.npy", mmap_mode="r").reshape(1000, 3, 8, 8)
    images = images.transpose(0, 2, 3, 1)
    expected = np.array(images)[[5, 2]].reshape(2, -1)
    tracemalloc.start()
    rows = stream.read_rows(images, np.array([5, 2]))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_array_equal(rows, expected)
    assert peak < images.nbytes / 4


def test_a_private_copy_is_not_read_through_its_file(tmp_path):
    np.save(tmp_path / "images.npy", np.zeros((3, 2, 2, 1), np.uint8))
    images = np.load(tmp_path / "images.npy", mmap_mode="c")
    images[1] = 7
    assert stream.read_rows(images, np.array([1, 0])).tolist() == [[7] * 4, [0] * 4]


def test_a_file_that_was_cut_is_an_error(on_disk, tmp_path):
    with open(tmp_path / "images.npy", "r+b") as file:
        file.truncate(1000)
    with pytest.raises(OSError, match="cut"):
        stream.read_rows(on_disk.train.images, np.array([59]))


def test_large_sets_are_streamed_unless_the_user_says_otherwise(monkeypatch):
    dataset = toy()
    assert not stream.is_streamed(settings(), dataset)
    assert stream.is_streamed(settings(stream="always"), dataset)
    monkeypatch.setattr(stream, "_SHARE", 1e-12)
    assert stream.is_streamed(settings(), dataset)
    assert not stream.is_streamed(settings(stream="never"), dataset)


def test_work_ahead_is_in_order_and_bounded():
    running, most, lock = set(), [], threading.Lock()

    def work(item):
        with lock:
            running.add(item)
            most.append(max(running) - len(taken))
        time.sleep(0.002 * (item % 3))
        return item

    taken = []
    for result in prefetch(work, range(40), workers=3, pieces=4):
        taken.append(result)
    assert taken == list(range(40))
    assert max(most) <= 5


def test_an_error_ahead_of_time_is_raised_in_its_turn():
    results = prefetch(lambda x: 1 // x, [1, 1, 0, 1], workers=2, pieces=2)
    assert [next(results), next(results)] == [1, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)
