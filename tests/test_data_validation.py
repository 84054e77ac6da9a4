"""Validation: images held out of the training images take the place of the test images."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from originals import refused, write_cifar10, write_imagenet
from test_data_idx import write_data_set
from test_data_own import write_tree

from fairdd_jax.data import SOURCES, DataConfig, idx, imagenet, load, names, resolved
from fairdd_jax.data.balance import to_grey
from fairdd_jax.errors import ConfigError, DataError


@pytest.fixture(autouse=True)
def no_others(tmp_path_factory, monkeypatch):
    """Data sets that this machine may have elsewhere must not be found."""
    empty = tmp_path_factory.mktemp("empty")
    monkeypatch.setattr(idx, "SYSTEM_DIR", empty)
    monkeypatch.setenv("TFDS_DATA_DIR", str(empty))


def seen(images):
    return Counter(image.tobytes() for image in images)


@pytest.mark.parametrize("name", ["cmnist_fg", "cmnist_bg"])
def test_coloured_images_are_held_out_before_they_are_coloured(tmp_path, name):
    write_data_set(tmp_path / "mnist", n=300)
    images, labels = idx.load(tmp_path / "mnist", "mnist", "train")
    data = load(DataConfig(name, validation=0.4), data_dir=tmp_path)

    def ink(split):
        shown = split.images[:, 4:, 4:].max(axis=-1) > 0
        return shown if name.endswith("fg") else ~shown

    # Every training image once, in one of the splits, and no test image at all.
    assert seen(ink(data.train)) + seen(ink(data.test)) == seen(images >= 128)
    held = np.bincount(data.test.labels, minlength=10)
    assert held.tolist() == [round(0.4 * n) for n in np.bincount(labels, minlength=10)]
    # The bias is that of the official splits: nine in ten, and none.
    own_train, own_test = (
        np.mean(split.labels == split.groups) for split in (data.train, data.test)
    )
    assert own_train > 0.85
    assert own_test < 0.15
    assert any("120 images made of training images" in note for note in data.notes)


def test_the_demo_shows_held_out_digits_in_every_colour():
    data = load(DataConfig("demo", validation=0.1))
    assert len(data.train) == 4050
    assert data.cell_counts(data.test).tolist() == [[45] * 10] * 10


def test_greyscale_is_put_on_after_holding_out(tmp_path):
    write_cifar10(tmp_path)
    whole = load(DataConfig("cifar10s", bias_ratio=1.0), data_dir=tmp_path)
    data = load(DataConfig("cifar10s", validation=0.3), data_dir=tmp_path)
    held = data.test.images[data.test.groups == 0]
    assert seen(to_grey(data.train.images)) + seen(held) == seen(to_grey(whole.train.images))
    assert (data.cell_counts(data.test)[:, 0] == data.cell_counts(data.test)[:, 1]).all()


def test_files_are_held_out_before_they_lose_their_colour(tmp_path):
    wnids = tuple(imagenet.SUBSETS["woof"])
    write_imagenet(tmp_path, wnids, side=20)

    def find(**options):
        config = resolved(DataConfig("imagenet_woof_s", **options))
        return SOURCES[config.name].find(config, tmp_path, False)

    whole, listing = find(), find(validation=0.5)
    held = listing.test.chosen[: len(listing.test) // 2]
    assert sorted([*listing.train.chosen, *held]) == sorted(whole.train.chosen)
    assert listing.test.files is listing.train.files
    assert listing.test.labels.tolist() == whole.train.labels[listing.test.chosen].tolist()
    assert listing.train.labels.tolist() == whole.train.labels[listing.train.chosen].tolist()
    assert Counter(listing.test.grey.tolist()) == {True: len(held), False: len(held)}


def test_other_data_sets_hold_the_same_share_of_every_cell_out(tmp_path):
    sizes = {"train/cat/in": 8, "train/cat/out": 4, "train/dog/in": 4, "train/dog/out": 12}
    write_tree(tmp_path, sizes | {f"test/{name}": 3 for name in ("cat/in", "dog/out")}, side=4)
    options = {"data_dir": tmp_path, "cache_dir": tmp_path / "cache"}
    whole = load(DataConfig("images", size=4), **options)
    data = load(DataConfig("images", size=4, validation=0.25), **options)
    assert data.cell_counts(data.test).tolist() == [[2, 1], [1, 3]]
    assert data.cell_counts(data.train).tolist() == [[6, 3], [3, 9]]
    assert seen(data.train.images) + seen(data.test.images) == seen(whole.train.images)
    balanced = DataConfig("images", size=4, validation=0.25, balanced=True)
    even = load(balanced, **options)
    assert even.cell_counts(even.train).tolist() == [[3, 3], [3, 3]]


def test_the_split_is_decided_by_the_seed_of_the_data():
    first, again, other = (
        load(DataConfig("demo", validation=0.02, seed=seed)).test for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first.images, again.images)
    assert seen(first.images) != seen(other.images)


def test_every_data_set_takes_it():
    for name in names():
        assert resolved(DataConfig(name, validation=0.5)).validation == 0.5


def test_shares_that_hold_out_nothing_are_refused(tmp_path: Path):
    with refused(DataError, r"--data\.validation 0\.0001 holds out no image of demo; take"):
        load(DataConfig("demo", validation=0.0001))
    with pytest.raises(ConfigError, match=r"validation must be a fraction in \[0, 1\], got 2"):
        DataConfig("demo", validation=2)
