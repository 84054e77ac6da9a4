"""Copies prepared by tensorflow-datasets: the same 60 digits as in mnist_head."""

import io
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from originals import refused, write_files
from PIL import Image

from fairdd_jax.data import idx, tfds_prepare, tfds_source
from fairdd_jax.errors import DataError

FIXTURES = Path(__file__).parent / "fixtures"
COPY = FIXTURES / "tfds" / "mnist" / "3.0.1"
TFRECORD = FIXTURES / "tfds_tfrecord" / "mnist" / "3.0.1"


@pytest.fixture
def no_tensorflow(monkeypatch):
    monkeypatch.setattr(tfds_prepare, "has_tensorflow", lambda: False)


@pytest.fixture
def copy(tmp_path):
    return Path(shutil.copytree(COPY.parents[1], tmp_path / "copy")) / "mnist" / "3.0.1"


@pytest.mark.parametrize("split", ["train", "test"])
def test_an_array_record_copy_equals_the_original_files_without_tensorflow(split):
    imported = "tensorflow" in sys.modules
    images, labels = tfds_source.load(COPY, split)
    assert ("tensorflow" in sys.modules) == imported
    expected_images, expected_labels = idx.load(FIXTURES / "mnist_head", "mnist", split)
    assert images.dtype == labels.dtype == np.uint8
    np.testing.assert_array_equal(images, expected_images)
    np.testing.assert_array_equal(labels, expected_labels)


def test_a_tfrecord_copy_needs_tensorflow(no_tensorflow):
    with pytest.raises(DataError, match=r'tfrecord.* pip install "fairdd-jax\[tfds\]"') as error:
        tfds_source.load(TFRECORD, "train")
    assert "\n" not in str(error.value)
    assert "cannot be read" not in str(error.value)


def test_a_tfrecord_copy_is_read_with_tensorflow():
    pytest.importorskip("tensorflow")
    images, labels = tfds_source.load(TFRECORD, "train")
    expected_images, expected_labels = idx.load(FIXTURES / "mnist_head", "mnist", "train")
    np.testing.assert_array_equal(images, expected_images)
    np.testing.assert_array_equal(labels, expected_labels)


def test_copies_are_found_below_the_data_folder_and_then_in_the_default_one(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(FIXTURES / "tfds"))
    assert tfds_source.find_copy(None, "mnist") == COPY
    assert tfds_source.find_copy(tmp_path, "mnist") == COPY
    assert tfds_source.find_copy(FIXTURES / "tfds_tfrecord", "mnist") == TFRECORD
    assert tfds_source.find_copy(None, "fashion_mnist") is None
    for version in ("2.9.0", "10.0.0", "3.0.10"):
        write_files(tmp_path / "mnist" / version, [("dataset_info.json", b"{}")])
    assert tfds_source.find_copy(tmp_path, "mnist") == tmp_path / "mnist" / "10.0.0"


def test_the_default_folder_is_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert tfds_source.find_copy(None, "mnist") is None
    shutil.copytree(FIXTURES / "tfds", tmp_path / "tensorflow_datasets")
    assert tfds_source.find_copy(None, "mnist") == tmp_path / "tensorflow_datasets/mnist/3.0.1"


NETTE = {"copies": ["imagenette/full-size", "imagenette/160px-v2"], "files": "f", "folder": "g"}


def test_of_several_copies_the_first_that_is_there_is_taken_or_made(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "none"))
    monkeypatch.setattr(tfds_prepare, "prepare", lambda *asked: asked)
    with refused(DataError, r"nette not found: put f into .*/g .* imagenette/full-size"):
        tfds_source.copy_of("nette", tmp_path, False, **NETTE)
    asked = tmp_path, "imagenette/full-size"
    assert tfds_source.copy_of("nette", tmp_path, True, **NETTE) == asked
    for name in reversed(NETTE["copies"]):
        shutil.copytree(COPY, tmp_path / name / "1.0.0")
        assert tfds_source.copy_of("nette", tmp_path, True, **NETTE) == tmp_path / name / "1.0.0"


def test_an_unfinished_copy_is_not_found(copy):
    copy.rename(copy.parent / "incomplete.AB12CD_3.0.1")
    assert tfds_source.find_copy(copy.parents[1], "mnist") is None


def damage_shard(copy, change):
    shard = next(copy.glob("*-train.*"))
    shard.write_bytes(change(shard.read_bytes()))


DAMAGE = {
    "truncated": lambda copy: damage_shard(copy, lambda data: data[:70_000]),
    "empty": lambda copy: damage_shard(copy, lambda data: b""),
    "garbage": lambda copy: damage_shard(copy, lambda data: b"<html>" * 30_000),
    "missing": lambda copy: next(copy.glob("*-train.*")).unlink(),
    "no description": lambda copy: (copy / "features.json").unlink(),
    "broken description": lambda copy: (copy / "dataset_info.json").write_text("{"),
}


def test_the_sizes_of_the_splits(copy):
    assert tfds_source.split_sizes(copy) == {"train": 40, "test": 20}
    (copy / "dataset_info.json").write_text("{")
    with refused(DataError, "cannot be read"):
        tfds_source.split_sizes(copy)


def test_records_come_in_the_order_of_the_names_that_decided_where_they_are():
    """Those of MNIST are called 0, 1, ..."""
    found = tfds_source.encoded(COPY, "train", names=[str(i) for i in range(40)])
    images, labels = idx.load(FIXTURES / "mnist_head", "mnist", "train")
    np.testing.assert_array_equal(found.features["label"], labels)
    for i in range(40):
        with Image.open(io.BytesIO(found.files.read(i))) as image:
            np.testing.assert_array_equal(np.asarray(image), images[i])
    assert found.files.names[3] == "3"


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_copy_is_refused_in_one_line(copy, damage):
    assert len(tfds_source.load(copy, "train")[1]) == 40
    damage(copy)
    with pytest.raises(DataError, match="cannot be read") as error:
        tfds_source.load(copy, "train")
    assert str(copy) in str(error.value)
    assert "\n" not in str(error.value)


def test_preparing_needs_tensorflow(no_tensorflow, tmp_path):
    with pytest.raises(DataError, match=r'pip install "fairdd-jax\[tfds\]"'):
        tfds_prepare.prepare(tmp_path, "mnist")


class FakeBuilder:
    """Stands for a builder of tensorflow-datasets, which would reach for the network."""

    def __init__(self, name, *, data_dir, file_format):
        assert file_format == "array_record"
        self.data_dir = str(data_dir / name / "3.0.1")

    def download_and_prepare(self):
        shutil.copytree(COPY, self.data_dir)


def test_preparing_downloads_into_the_data_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(tfds_prepare, "has_tensorflow", lambda: True)
    monkeypatch.setattr("tensorflow_datasets.builder", FakeBuilder)
    folder = tfds_prepare.prepare(tmp_path, "mnist")
    assert folder == tfds_source.find_copy(tmp_path, "mnist")
    assert len(tfds_source.load(folder, "test")[1]) == 20


def test_a_failed_download_is_one_line(tmp_path, monkeypatch):
    def fail(*args, **options):
        raise ConnectionError("no route\nto host " + "x" * 1000)

    monkeypatch.setattr(tfds_prepare, "has_tensorflow", lambda: True)
    monkeypatch.setattr("tensorflow_datasets.builder", fail)
    with pytest.raises(DataError, match="downloading mnist failed: no route to host") as error:
        tfds_prepare.prepare(tmp_path, "mnist")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400
