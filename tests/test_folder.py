"""Distilled sets as folders of PNG files: exact on the way back, and plain folders of images."""

import dataclasses
import io
import json
import os
import runpy
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image
from rich.console import Console

from fairdd_jax import folder as folders
from fairdd_jax.console import exit_code
from fairdd_jax.data import files
from fairdd_jax.distilled import DistilledSet, load_distilled
from fairdd_jax.errors import DataError, WorkdirError

run = runpy.run_path(str(Path(__file__).parents[1] / "experiments" / "export.py"))["run"]
# Names that no folder can have, that sort otherwise, that are alike without their signs, that mean
# a split to Hugging Face, and that tables take for numbers, dates or nothing.
NAMES = ("10", "2", "T-shirt/top", "T shirt top", "../up", "test", "bullet train", "犬", "NA")
NAMES += ("1999-01-01", "", "Déjà vu", "a" * 300)
IPC, SIDES = 2, (4, 5)
MEAN, STD = (0.1307, 0.25, 0.125), (0.5, 1 / 3, 1.0)


def sample(channels=3, names=NAMES):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (len(names) * IPC, *SIDES, channels), np.uint8)
    labels = np.repeat(np.arange(len(names), dtype=np.int32), IPC)
    return DistilledSet.of_pixels(
        images=images,
        labels=labels,
        mean=MEAN[:channels],
        std=STD[:channels],
        class_names=names,
        meta={"config": {"ipc": IPC}, "evaluations": []},
    )


def content(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def assert_same(loaded, expected):
    for field in dataclasses.fields(DistilledSet):
        a, b = getattr(loaded, field.name), getattr(expected, field.name)
        np.testing.assert_array_equal(a, b, err_msg=field.name)
        if isinstance(b, np.ndarray):
            assert a.dtype == b.dtype


@pytest.mark.parametrize("channels", [1, 3])
def test_a_folder_comes_back_as_it_was(tmp_path, channels):
    exported = sample(channels)
    exported.export(tmp_path / "set")
    assert_same(load_distilled(tmp_path / "set"), exported)
    assert_same(load_distilled(str(tmp_path / "set")), exported)


def test_the_order_of_the_images_is_kept(tmp_path):
    whole = sample()
    order = np.random.default_rng(1).permutation(len(whole.labels))
    mixed = dataclasses.replace(
        whole,
        images=whole.images[order],
        images_float=whole.images_float[order],
        labels=whole.labels[order],
    )
    mixed.export(tmp_path)
    assert_same(load_distilled(tmp_path), mixed)


def test_what_is_scored_is_then_the_8_bit_image(tmp_path):
    """A set whose floats are not on the grid of the pixels, and which is coded."""
    whole = sample()
    between = dataclasses.replace(
        whole, images_float=whole.images_float + 0.001, images_coded=whole.images_float
    )
    between.export(tmp_path)
    assert_same(load_distilled(tmp_path), whole)


def test_files_are_images_in_folders_whose_order_is_that_of_the_classes(tmp_path):
    sample().export(tmp_path)
    found = sorted(path.name for path in (tmp_path / "train").iterdir() if path.is_dir())
    assert [int(name.partition("_")[0]) for name in found] == list(range(len(NAMES)))
    for name in found:
        assert name.isascii()
        assert name.replace("_", "").isalnum()
        assert len(name) < 50
    by_class = [sorted(path for path in (tmp_path / "train" / name).iterdir()) for name in found]
    assert [len(paths) for paths in by_class] == [IPC] * len(NAMES)
    for i, path in enumerate(path for paths in by_class for path in paths):
        with Image.open(path) as picture:
            np.testing.assert_array_equal(np.asarray(picture), sample().images[i])


def test_the_table_names_every_file_with_its_class(tmp_path):
    sample().export(tmp_path)
    table = pyarrow.parquet.read_table(tmp_path / "train" / "metadata.parquet").to_pydict()
    assert set(table) == {"file_name", "label", "class_name"}
    np.testing.assert_array_equal(table["label"], sample().labels)
    assert table["class_name"] == [NAMES[label] for label in sample().labels]
    pngs = {path.relative_to(tmp_path / "train").as_posix() for path in tmp_path.rglob("*.png")}
    assert set(table["file_name"]) == pngs
    for name, label in zip(table["file_name"], table["label"], strict=True):
        assert int(name.partition("/")[0].partition("_")[0]) == label


def test_equal_sets_give_equal_bytes(tmp_path):
    for name in ("a", "b"):
        sample().export(tmp_path / name)
    a, b = content(tmp_path / "a"), content(tmp_path / "b")
    assert list(a.values()) == list(b.values())
    assert len(a) == len(NAMES) * IPC + 2


def test_an_export_leaves_what_is_there_alone(tmp_path):
    sample().export(tmp_path / "set")
    before = content(tmp_path / "set")
    with pytest.raises(WorkdirError, match="is not empty"):
        sample().export(tmp_path / "set")
    assert content(tmp_path / "set") == before
    (tmp_path / "file").write_text("mine")
    with pytest.raises(WorkdirError, match="cannot write"):
        sample().export(tmp_path / "file")
    with pytest.raises(DataError, match="2 channels cannot be exported; 1 or 3 can"):
        sample(2).export(tmp_path / "two")


# Folders that others made


def write_plain(root, names=("b", "a", "10", "2"), mode="RGB"):
    """Two images per class; the pixels in the order of their sorted names."""
    rng = np.random.default_rng(0)
    pixels = []
    for name in sorted(names):
        (root / name).mkdir(parents=True)
        for i in range(2):
            image = Image.fromarray(rng.integers(0, 256, (*SIDES, 3), np.uint8)).convert(mode)
            image.save(root / name / f"{i}.png")
            pixels.append(np.asarray(image).reshape(*SIDES, -1))
    return np.stack(pixels)


@pytest.mark.parametrize("below", ["", "train"])
@pytest.mark.parametrize(("mode", "channels"), [("RGB", 3), ("L", 1)])
def test_a_plain_folder_says_no_normalisation(tmp_path, below, mode, channels):
    pixels = write_plain(tmp_path / below, mode=mode)
    (tmp_path / below / ".hidden").mkdir()
    Image.new("L", (1, 1)).save(tmp_path / below / ".hidden" / "x.png")
    (tmp_path / "notes.txt").write_text("mine")
    loaded = load_distilled(tmp_path)
    np.testing.assert_array_equal(loaded.images, pixels)
    np.testing.assert_array_equal(loaded.labels, [0, 0, 1, 1, 2, 2, 3, 3])
    assert loaded.class_names == ("10", "2", "a", "b")
    assert (loaded.mean, loaded.std) == ((0.0,) * channels, (1.0,) * channels)
    np.testing.assert_allclose(loaded.images_float, pixels / 255, rtol=1e-6)
    np.testing.assert_array_equal(loaded.transform(pixels), loaded.images_float)
    assert loaded.meta == {}


def test_grey_images_among_others_are_grey_in_colour(tmp_path):
    pixels = write_plain(tmp_path)
    Image.new("L", SIDES[::-1], 77).save(tmp_path / "a" / "1.png")
    loaded = load_distilled(tmp_path)
    np.testing.assert_array_equal(loaded.images[:5], pixels[:5])
    assert (loaded.images[5] == 77).all()
    assert loaded.images.shape == pixels.shape


def refused(folder):
    with pytest.raises(DataError) as error:
        load_distilled(folder)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500
    return str(error.value)


def test_no_image(tmp_path):
    for place in (tmp_path, tmp_path / "none"):
        assert f"no distilled set at {place}" in refused(place)
    sample().export(tmp_path / "set")
    for path in tmp_path.rglob("*.png"):
        path.unlink()
    assert "no distilled set at" in refused(tmp_path / "set")


def test_images_of_different_sizes(tmp_path):
    write_plain(tmp_path)
    Image.new("RGB", (5, 7)).save(tmp_path / "b" / "1.png")
    assert f"{tmp_path}/b/1.png is 7x5, 10/0.png 4x5; all images" in refused(tmp_path)


def test_damaged_images(tmp_path):
    sample().export(tmp_path / "set")
    path = sorted(tmp_path.rglob("*.png"))[3]
    whole = path.read_bytes()
    for damaged in (b"", b"hello", whole[: len(whole) // 2]):
        path.write_bytes(damaged)
        assert f"{path} cannot be read (" in refused(tmp_path / "set")
    path.unlink()
    os.mkfifo(path)
    assert "it is a pipe" in refused(tmp_path / "set")


def test_images_that_are_too_large(tmp_path, monkeypatch):
    write_plain(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(files, "LARGEST", 10)
        assert "more than the 10 that an image may have" in refused(tmp_path)
    monkeypatch.setattr(folders, "LARGEST", 8 * 4 * 5 * 3 - 1)
    assert "unpacks to 8 images of 4x5, more than 479 bytes" in refused(tmp_path)
    monkeypatch.setattr(folders, "LARGEST", 8 * 4 * 5 * 3)
    assert len(load_distilled(tmp_path).images) == 8


def test_images_that_are_in_no_class(tmp_path):
    write_plain(tmp_path / "plain")
    Image.new("RGB", SIDES[::-1]).save(tmp_path / "plain" / "x.png")
    assert "plain/x.png is not in CLASS/file" in refused(tmp_path / "plain")
    (tmp_path / "plain" / "x.png").rename(tmp_path / "x.png")
    (tmp_path / "plain" / "a" / "deep").mkdir()
    (tmp_path / "x.png").rename(tmp_path / "plain" / "a" / "deep" / "x.png")
    assert "a/deep/x.png is not in CLASS/file" in refused(tmp_path / "plain")
    sample().export(tmp_path / "set")
    write_plain(tmp_path / "set" / "train", names=["other"])
    assert "is not in a folder of distilled.json" in refused(tmp_path / "set")
    write_plain(tmp_path / "one", names=["one"])
    assert "one class alone, 'one'" in refused(tmp_path / "one")


def test_a_class_may_be_called_train(tmp_path):
    pixels = write_plain(tmp_path / "plain", names=["train", "bus"])
    loaded = load_distilled(tmp_path / "plain")
    assert loaded.class_names == ("bus", "train")
    np.testing.assert_array_equal(loaded.images, pixels)
    sample().export(tmp_path / "set")
    Image.new("RGB", SIDES[::-1]).save(tmp_path / "set" / "train" / "x.png")
    assert "train/x.png is not in a folder of distilled.json" in refused(tmp_path / "set")


def test_a_set_of_one_class_comes_back(tmp_path):
    exported = sample(names=["one"])
    exported.export(tmp_path)
    assert_same(load_distilled(tmp_path), exported)


@pytest.mark.parametrize(
    "change",
    [
        {"class_names": ["a"]},
        {"class_names": "abcdefghijklm"},
        {"class_names": list(range(len(NAMES)))},
        {"folders": ["x"] * len(NAMES)},
        {"mean": [0.5, 0.5]},
        {"mean": [0.5, 0.5], "std": [1, 1]},
        {"mean": ["a", "b", "c"]},
        {"mean": [None] * 3},
        {"mean": 0.5, "std": 1},
        {"std": [1, 0, 1]},
        {"std": [1, float("nan"), 1]},
        {"meta": []},
    ],
    ids=lambda change: json.dumps(change)[:40],
)
def test_a_damaged_description(tmp_path, change):
    sample().export(tmp_path)
    path = tmp_path / "distilled.json"
    whole = json.loads(path.read_text())
    path.write_text(json.dumps(whole | change))
    assert str(path) in refused(tmp_path)


def test_a_description_that_is_none(tmp_path):
    sample().export(tmp_path)
    path = tmp_path / "distilled.json"
    whole = json.loads(path.read_text())
    for text in ("", "[", "[]", "3", "[" * 100_000, '"\udce9"'):
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
        assert f"{path} is damaged" in refused(tmp_path)
    for name in whole:
        path.write_text(json.dumps({key: value for key, value in whole.items() if key != name}))
        assert name in refused(tmp_path)
    path.write_text(json.dumps(whole | {"folders": ["../set", *whole["folders"][1:]]}))
    assert "is not in a folder of distilled.json" in refused(tmp_path)


# The program


def test_the_program_exports_a_run(tmp_path, capsys):
    (tmp_path / "run").mkdir()
    sample().save(tmp_path / "run" / "distilled.npz")
    assert exit_code(run, [str(tmp_path / "run"), str(tmp_path / "set")]) == 0
    expected = f"{len(NAMES) * IPC} images of {len(NAMES)} classes, written to {tmp_path / 'set'}\n"
    assert capsys.readouterr().out == expected
    np.testing.assert_array_equal(load_distilled(tmp_path / "set").images, sample().images)
    assert exit_code(run, ["--help"]) == 0
    assert "export.py RUN FOLDER" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "RUN FOLDER must come before the options, got nothing there"),
        (["run"], 2, "got run;"),
        (["run", "set", "more"], 2, "got run set more;"),
        (["run", "set", "--ipc", "3"], 2, "unknown option '--ipc'"),
        (["none", "set"], 3, "no distilled set at none"),
        (["run", "run"], 4, "run is not empty"),
    ],
)
def test_what_the_program_refuses(tmp_path, monkeypatch, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    Path("run").mkdir()
    sample().save("run/distilled.npz")
    screen = io.StringIO()
    monkeypatch.setattr("fairdd_jax.console.Console", lambda **options: Console(file=screen))
    assert exit_code(run, arguments) == code
    assert message in " ".join(screen.getvalue().split())
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["distilled.npz", "run"]
