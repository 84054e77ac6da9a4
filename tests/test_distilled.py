"""Distilled sets as files: whole, readable by numpy alone, and refused when damaged."""

import json

import numpy as np
import pytest

from fairdd_jax.data.normalise import normalise
from fairdd_jax.distilled import DistilledSet, load_distilled
from fairdd_jax.errors import DataError, WorkdirError

CLASSES, IPC, SHAPE = 3, 2, (4, 5, 3)
MEAN, STD = (0.5, 0.25, 0.125), (0.5, 0.25, 1.0)
NAMES = ("zero", "eins", "déux")
META = {"config": {"ipc": IPC}, "evaluations": []}


def sample():
    rng = np.random.default_rng(0)
    images = rng.normal(size=(CLASSES, IPC, *SHAPE)).astype(np.float32)
    return DistilledSet.of_classes(images, mean=MEAN, std=STD, class_names=NAMES, meta=META)


def arrays_of(distilled):
    return {
        "images": distilled.images,
        "images_float": distilled.images_float,
        "labels": distilled.labels,
        "mean": np.asarray(distilled.mean),
        "std": np.asarray(distilled.std),
        "class_names": np.asarray(distilled.class_names),
    }


def assert_same(a, b):
    for x, y in zip(arrays_of(a).values(), arrays_of(b).values(), strict=True):
        np.testing.assert_array_equal(x, y)
    assert a.meta == b.meta


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "distilled.npz"
    sample().save(path)
    return path


def test_images_of_classes_become_pixels_and_labels():
    rng = np.random.default_rng(1)
    images = rng.normal(size=(CLASSES, IPC, *SHAPE)).astype(np.float32)
    distilled = DistilledSet.of_classes(images, mean=MEAN, std=STD, class_names=NAMES, meta=META)
    np.testing.assert_array_equal(distilled.labels, [0, 0, 1, 1, 2, 2])
    assert distilled.images.dtype == np.uint8
    for i, label in enumerate(distilled.labels):
        np.testing.assert_array_equal(distilled.images_float[i], images[label, i % IPC])
    pixels = np.clip((distilled.images_float * STD + np.asarray(MEAN)) * 255, 0, 255)
    np.testing.assert_allclose(distilled.images, pixels, atol=0.5001)


def test_round_trip(path):
    assert_same(load_distilled(path), sample())
    assert_same(load_distilled(str(path)), sample())
    assert_same(load_distilled(path.parent), sample())


def test_numpy_alone_reads_it(path):
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    assert set(arrays) == {*arrays_of(sample()), "meta"}
    for name, expected in arrays_of(sample()).items():
        np.testing.assert_array_equal(arrays[name], expected)
    assert arrays["images"].dtype == np.uint8
    assert arrays["images_float"].dtype == np.float32
    assert arrays["labels"].dtype.kind == "i"
    assert json.loads(str(arrays["meta"])) == META


def test_equal_sets_give_equal_bytes(path, tmp_path):
    sample().save(tmp_path / "again.npz")
    assert (tmp_path / "again.npz").read_bytes() == path.read_bytes()


def test_transform_brings_pixels_into_the_space_of_the_floats(path):
    distilled = load_distilled(path)
    pixels = np.random.default_rng(2).integers(0, 256, (7, *SHAPE), np.uint8)
    by_hand = (pixels / 255 - np.asarray(MEAN)) / np.asarray(STD)
    np.testing.assert_allclose(distilled.transform(pixels), by_hand, atol=1e-6)
    np.testing.assert_array_equal(
        distilled.transform(pixels), np.asarray(normalise(pixels, mean=MEAN, std=STD))
    )
    inside = np.abs(distilled.images_float * STD + np.asarray(MEAN) - 0.5) < 0.5
    error = np.abs(distilled.transform(distilled.images) - distilled.images_float) * STD
    assert error[inside].max() < 0.5001 / 255


def refused(path):
    """Load a damaged file; its error is one line that names the file."""
    with pytest.raises(DataError) as error:
        load_distilled(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500
    return str(error.value)


def test_missing(tmp_path):
    message = refused(tmp_path / "nothing.npz")
    assert message.startswith("no distilled set at ")
    assert "distilled.npz" in refused(tmp_path)


def test_truncated(path):
    content = path.read_bytes()
    for length in range(0, len(content), 37):
        path.write_bytes(content[:length])
        assert "not a readable distilled set" in refused(path)


def test_flipped_bits(path):
    """Whatever byte is damaged, the set is refused or the same (dates of a zip do not matter)."""
    content = bytearray(path.read_bytes())
    refusals = 0
    for place in range(0, len(content), 3):
        content[place] ^= 1 << place % 8
        path.write_bytes(content)
        content[place] ^= 1 << place % 8
        error = error_of(path)
        refusals += error is not None
        if error is None:
            assert_same(load_distilled(path), sample())
        else:
            assert "\n" not in error
    assert refusals > len(content) / 3 / 2


def error_of(path):
    """What loading says, None if nothing is wrong."""
    try:
        load_distilled(path)
    except DataError as error:
        return str(error)
    return None


@pytest.mark.parametrize("content", [b"", b"hello\nworld\n", b"\x80\x04K\x01.", b"PK\x03\x04"])
def test_other_files(path, content):
    path.write_bytes(content)
    assert "not a readable distilled set" in refused(path)


def test_a_single_array(path):
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    assert "not a readable distilled set" in refused(path)


def test_pickled_objects_are_not_run(path, tmp_path):
    class Trap:
        def __reduce__(self):
            return (tmp_path.joinpath("sprung").write_text, ("!",))

    arrays = arrays_of(sample()) | {"meta": np.array([Trap()], dtype=object)}
    np.savez(path, **arrays, allow_pickle=True)
    assert "not a readable distilled set" in refused(path)
    assert not (tmp_path / "sprung").exists()


def test_a_missing_array(path):
    whole = arrays_of(sample()) | {"meta": np.asarray("{}")}
    for name in whole:
        np.savez(path, **{key: array for key, array in whole.items() if key != name})
        assert name in refused(path)


@pytest.mark.parametrize(
    "change",
    [
        {"images": np.zeros((6, 4, 5, 1), np.uint8)},
        {"images": np.zeros((6, 4, 5, 3), np.int64)},
        {"images": np.zeros((0, 4, 5, 3), np.uint8), "labels": np.zeros(0, np.int32)},
        {"images_float": np.zeros((5, 4, 5, 3), np.float32)},
        {"images_float": np.zeros((6, 4, 5, 3), np.complex64)},
        {"images_float": np.full((6, 4, 5, 3), np.nan, np.float32)},
        {"images_coded": np.full((2, 4, 5, 3), np.inf, np.float32)},
        {"images_coded": np.zeros((2, 4, 5, 3))},
        {"images_coded": np.zeros((2, 4, 4, 3), np.float32)},
        {"labels": np.zeros(5, np.int32)},
        {"labels": np.zeros((6, 1), np.int32)},
        {"labels": np.zeros(6)},
        {"labels": np.full(6, 3)},
        {"labels": np.full(6, -1)},
        {"mean": np.zeros(2, np.float32)},
        {"mean": np.full(3, np.nan, np.float32)},
        {"std": np.array(["a", "b", "c"])},
        {"std": np.array([1, 0, 1], np.float32)},
        {"std": np.array([1, np.inf, 1], np.float32)},
        {"class_names": np.asarray("zero")},
        {"class_names": np.arange(3)},
        {"meta": np.zeros(3, [("long" * 3000, "i4")])},  # numpy complains in several lines
        {"meta": np.asarray("not json")},
        {"meta": np.asarray("[1]")},
        {"meta": np.asarray(3)},
    ],
    ids=lambda change: " ".join(f"{k} {v.dtype}{v.shape}"[:40] for k, v in change.items()),
)
def test_arrays_that_do_not_fit(path, change):
    whole = arrays_of(sample())
    whole |= {name: whole[name].astype(np.float32) for name in ("mean", "std")}
    whole |= {"meta": np.asarray("{}")}
    np.savez(path, **whole)
    load_distilled(path)
    np.savez(path, **whole | change)
    refused(path)


def test_saving_where_nothing_can_be_saved(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkdirError, match="cannot write"):
        sample().save(tmp_path / "file" / "distilled.npz")
