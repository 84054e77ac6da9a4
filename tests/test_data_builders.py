"""Our builders of tensorflow-datasets, which need TensorFlow to prepare, not to read."""

import runpy
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import originals
import pytest

pytest.importorskip("tensorflow")

import tensorflow_datasets as tfds

from fairdd_jax.console import exit_code
from fairdd_jax.data import DataConfig, builders, load, tfds_prepare, tfds_source
from fairdd_jax.errors import DataError

PROGRAM = Path(__file__).parents[1] / "experiments" / "prepare.py"
run = runpy.run_path(str(PROGRAM))["run"]


class _OfFolder(tfds.testing.DatasetBuilderTestCase):
    """The checks of tensorflow-datasets itself, on a generated folder."""

    SKIP_CHECKSUMS = True  # nothing is downloaded

    @classmethod
    def setUpClass(cls):
        cls.EXAMPLE_DIR = tempfile.mkdtemp()
        cls.write(Path(cls.EXAMPLE_DIR))
        cls.SPLITS = {tfds_source.WHOLE: len(list(Path(cls.EXAMPLE_DIR).rglob("*.*g")))}
        super().setUpClass()

    @classmethod
    def tearDownClass(cls):
        super().tearDownClass()
        shutil.rmtree(cls.EXAMPLE_DIR)


class TestUtkface(_OfFolder):
    DATASET_CLASS = builders.Utkface
    write = originals.write_utkface


class TestBffhq(_OfFolder):
    DATASET_CLASS = builders.Bffhq
    write = originals.write_bffhq


del _OfFolder  # has nothing to check by itself


def equal(a, b):
    return all(
        np.array_equal(getattr(getattr(a, split), field), getattr(getattr(b, split), field))
        for split in ("train", "test")
        for field in ("images", "labels", "groups")
    )


def same(config, files, copies, cache):
    """Whether files and copy give the same data set, decoded apart."""
    from_files = load(config, data_dir=files, cache_dir=cache / "files")
    from_copy = load(replace(config, table=None), data_dir=copies, cache_dir=cache / "copy")
    return equal(from_copy, from_files) and from_copy.groups == from_files.groups


@pytest.mark.parametrize("name", ["utkface", "bffhq", "images"])
def test_the_program_makes_a_copy_that_gives_the_data_set_of_the_files(name, tmp_path):
    files, copies = tmp_path / "files", tmp_path / "copies"
    getattr(originals, f"write_{name}")(files)
    options = {"table": "faces.csv"}
    config = DataConfig(name, **(options if name == "images" else {}))
    arguments = ["--data.name", name, "--data_dir", str(files), "--workdir", str(copies)]
    if name == "images":
        arguments += [f"--data.{field}={value}" for field, value in options.items()]
    assert exit_code(run, arguments) == 0
    assert tfds_source.find_copy(copies, name)
    assert same(config, files, copies, tmp_path / "cache")


def test_a_copy_whose_split_leaves_images_out_keeps_the_labels_at_their_images(tmp_path):
    """Packed as a label, the split leaves none out; it does as soon as it is read as the split."""
    files, copies = originals.write_images(tmp_path / "files", per_cell=6), tmp_path / "copies"
    header, *lines = (files / "faces.csv").read_text().splitlines()
    lines = [f"{line},{('val', 'train', 'test')[i % 3]}" for i, line in enumerate(lines)]
    (files / "faces.csv").write_text("\n".join([f"{header},part", *lines]))
    arguments = ["--data.name=images", "--data.table=faces.csv", "--data.protected=protected,part"]
    assert exit_code(run, [*arguments, "--data_dir", str(files), "--workdir", str(copies)]) == 0
    config = DataConfig("images", table="faces.csv", split_column="part")
    assert same(config, files, copies, tmp_path / "cache")


def test_what_cannot_be_prepared_is_one_line(tmp_path):
    with pytest.raises(DataError, match="cannot be prepared") as error:
        tfds_prepare.prepare_files("utkface", tmp_path / "nowhere", to=tmp_path)
    assert "\n" not in str(error.value)
