"""Copies that tensorflow-datasets' own builders make of generated original files."""

import io
import shutil
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import originals
import pytest
from PIL import Image

pytest.importorskip("tensorflow")

import tensorflow_datasets as tfds

from fairdd_jax.data import DataConfig, imagenet, load, tfds_prepare, tfds_source
from fairdd_jax.errors import DataError

LANDMARKS = [f"{part}_{axis}" for part in ("lefteye", "righteye", "nose") for axis in "xy"]
LANDMARKS += [f"{side}mouth_{axis}" for side in ("left", "right") for axis in "xy"]


@pytest.fixture(autouse=True)
def offline(tmp_path, monkeypatch):
    """Builders ask nobody, and copies that this machine may have are not found."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "none"))
    monkeypatch.setattr("tensorflow_datasets.core.utils.gcs_utils._is_gcs_disabled", True)


def serve(monkeypatch, downloads):
    """Let builders get those files in place of what they download."""
    for method in ("download", "download_and_extract"):
        monkeypatch.setattr(tfds.download.DownloadManager, method, lambda *_: downloads)


def rows(path):
    """The words of every line."""
    return [line.split() for line in path.read_text().splitlines()]


def equal(a, b):
    return all(
        np.array_equal(getattr(getattr(a, split), field), getattr(getattr(b, split), field))
        for split in ("train", "test")
        for field in ("images", "labels", "groups")
    )


def from_files_and_copy(config, tmp_path, **options):
    """The data set from the files and from a copy that is made now, decoded apart."""
    return [
        load(config, data_dir=tmp_path / place, cache_dir=tmp_path / f"{place} cache", **more)
        for place, more in (("files", {}), ("copies", options))
    ]


@pytest.fixture
def celeba(tmp_path, monkeypatch):
    """CelebA's files with the two lists that only the builder reads."""
    folder = originals.write_celeba(tmp_path / "files", per_cell=3, images="zip")
    names = [row[0] for row in rows(folder / "list_attr_celeba.txt")[2:]]
    lists = {
        "landmarks_celeba": [str(len(names)), " ".join(LANDMARKS)]
        + [f"{name} {' '.join('9' * 10)}" for name in names],
        "identity_celeba": [f"{name} 7" for name in names],
    }
    for name, lines in lists.items():
        (folder / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines))
    keys = (*lists, "list_attr_celeba", "list_eval_partition")
    files = {key: folder / f"{key}.txt" for key in keys}
    serve(monkeypatch, files | {"img_align_celeba": folder / "img_align_celeba.zip"})
    return folder


@pytest.mark.parametrize("protected", ["male", "male,wearing_necktie"])
def test_celebas_copy_is_the_data_set_of_the_files(celeba, tmp_path, protected):
    config = DataConfig("celeba", protected=protected, size=16)
    files, copy = from_files_and_copy(config, tmp_path, download=True)
    assert tfds_source.find_copy(tmp_path / "copies", "celeb_a")
    assert equal(copy, files)
    assert (copy.classes, copy.groups, copy.notes) == (files.classes, files.groups, ())


def test_celebas_copy_has_every_training_image_with_its_attributes(celeba, tmp_path):
    _, copy = from_files_and_copy(DataConfig("celeba", target="smiling"), tmp_path, download=True)
    part = dict(rows(celeba / "list_eval_partition.txt"))
    _, header, *people = rows(celeba / "list_attr_celeba.txt")
    people = [row for row in people if part[row[0]] == "0"]
    smiling, male = (header.index(name) + 1 for name in ("Smiling", "Male"))
    assert copy.train.labels.tolist() == [int(row[smiling] == "1") for row in people]
    assert copy.train.groups.tolist() == [int(row[male] == "1") for row in people]
    for position in range(0, len(people), 7):
        with zipfile.ZipFile(celeba / "img_align_celeba.zip") as archive:
            data = archive.read(f"img_align_celeba/{people[position][0]}")
        with Image.open(io.BytesIO(data)) as image:
            shown = image.crop((0, 20, 178, 198)).resize((64, 64), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(copy.train.images[position], np.asarray(shown))


def test_cifars_copy_is_the_data_set_of_the_batches(tmp_path, monkeypatch):
    folder, _ = originals.write_cifar10(tmp_path / "files")
    serve(monkeypatch, folder.parent)
    files, copy = from_files_and_copy(DataConfig("cifar10s"), tmp_path, download=True)
    assert tfds_source.find_copy(tmp_path / "copies", "cifar10")
    assert equal(copy, files)
    last = (folder / "test_batch.bin").read_bytes()[-3073:]
    assert copy.test.labels[-1] == last[0]
    planes = np.frombuffer(last[1:], np.uint8).reshape(3, 32, 32)
    np.testing.assert_array_equal(copy.test.images[-1], np.stack(list(planes), axis=-1))


@pytest.fixture
def imagenette(tmp_path, monkeypatch):
    """ImageNette's folders under every name that its archives have."""
    wnids = tuple(imagenet.SUBSETS["nette"])
    folder = originals.write_imagenet(tmp_path / "files", wnids, side=20)
    for split in ("train", "val"):
        shutil.rmtree(folder / split / "n09999999")
    for name in ("imagenette", "imagenette2", "imagenette2-160"):
        (tmp_path / "unpacked").mkdir(exist_ok=True)
        (tmp_path / "unpacked" / name).symlink_to(folder)
    serve(monkeypatch, tmp_path / "unpacked")


def shown(split):
    """The images of a split with their labels and groups, in no order."""
    images = (image.tobytes() for image in split.images)
    return Counter(zip(images, split.labels.tolist(), split.groups.tolist(), strict=True))


@pytest.mark.parametrize("ratio", [0.0, 1.0])
def test_imagenettes_copy_has_the_images_of_the_folders(imagenette, tmp_path, ratio):
    """Without bias within a class, which would take other images for want of names."""
    config = DataConfig("imagenet_nette_s", bias_ratio=ratio, size=24)
    files, copy = from_files_and_copy(config, tmp_path, download=True)
    assert tfds_source.find_copy(tmp_path / "copies", "imagenette/full-size")
    assert shown(copy.train) == shown(files.train)
    assert shown(copy.test) == shown(files.test)
    assert copy.classes == files.classes == tuple(imagenet.SUBSETS["nette"].values())
    (note,) = copy.notes
    assert "others are grey than from the folders" in note
    assert files.notes == ()


def test_a_biased_copy_of_imagenette_has_as_many_grey_images(imagenette, tmp_path):
    files, copy = from_files_and_copy(
        DataConfig("imagenet_nette_s", size=8), tmp_path, download=True
    )
    np.testing.assert_array_equal(copy.cell_counts(copy.train), files.cell_counts(files.train))
    grey = copy.train.images[copy.train.groups == 0]
    assert (grey == grey[..., :1]).all()


def test_imagenettes_own_split_is_noted(imagenette, tmp_path):
    tfds_prepare.prepare(tmp_path / "copies", "imagenette/160px-v2")
    config = DataConfig("imagenet_nette_s", bias_ratio=0.0, size=8)
    files, copy = from_files_and_copy(config, tmp_path)
    assert shown(copy.train) == shown(files.train)
    assert "split anew" in copy.notes[1]


def test_a_copy_in_another_format_is_refused_in_one_line(imagenette, tmp_path):
    builder = tfds.builder("imagenette/full-size", data_dir=tmp_path / "copies")
    builder.download_and_prepare()
    with originals.refused(DataError, "prepared as tfrecord; prepare it with file_for"):
        load(DataConfig("imagenet_nette_s"), data_dir=tmp_path / "copies")
    assert Path(builder.data_dir).is_dir()
