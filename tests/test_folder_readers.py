"""Exported sets as Hugging Face datasets and tensorflow-datasets read them."""

import re
from pathlib import Path

import numpy as np
import pytest
from test_folder import IPC, NAMES, sample

TEXT = (Path(__file__).parents[1] / "experiments" / "docs" / "takeaway.md").read_text()


@pytest.fixture(params=[3, 1], ids=["colour", "grey"])
def exported(request, tmp_path):
    sample(request.param).export(tmp_path / "set")
    return sample(request.param), tmp_path / "set"


def pixels(image):
    """As the set has them."""
    return np.asarray(image).reshape(*np.shape(image)[:2], -1)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Hugging Face's package, which keeps what it makes in the test's folder and asks nobody."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    return datasets


@pytest.mark.filterwarnings("default")  # of other packages
@pytest.mark.parametrize("how", ["imagefolder", "folder", "streamed"])
def test_hugging_face(hub, exported, tmp_path, how):
    whole, folder = exported
    if how == "folder":
        loaded = hub.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
    else:
        loaded = hub.load_dataset(
            "imagefolder",
            data_dir=str(folder),
            cache_dir=str(tmp_path / "cache"),
            streaming=how == "streamed",
        )
    assert list(loaded) == ["train"]
    train = loaded["train"]
    assert train.features["label"].names == list(NAMES)
    rows = list(train)
    assert len(rows) == len(whole.labels)
    for i, row in enumerate(rows):
        assert set(row) == {"image", "label", "class_name"}
        np.testing.assert_array_equal(pixels(row["image"]), whole.images[i])
        assert row["label"] == whole.labels[i]
        assert row["class_name"] == NAMES[whole.labels[i]]


@pytest.mark.filterwarnings("default")
def test_tensorflow_datasets(exported):
    pytest.importorskip("tensorflow")
    import tensorflow_datasets as tfds

    whole, folder = exported
    builder = tfds.ImageFolder(str(folder), shape=(None, None, whole.images.shape[-1]))
    assert builder.info.splits["train"].num_examples == len(whole.labels)
    assert list(builder.info.splits) == ["train"]
    assert builder.info.features["label"].num_classes == len(NAMES)
    seen = np.zeros(len(whole.labels), int)
    for row in builder.as_dataset(split="train").as_numpy_iterator():
        i = int(row["image/filename"].decode().rpartition("/")[2].partition(".")[0])
        seen[i] += 1
        np.testing.assert_array_equal(row["image"], whole.images[i])
        assert row["label"] == whole.labels[i]
    assert (seen == 1).all()
    assert len(seen) == len(NAMES) * IPC


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("package", ["datasets", "tensorflow_datasets", "fairdd_jax"])
def test_the_code_of_the_guide(hub, tmp_path, monkeypatch, package):
    """It gives the images and the labels, and the names where it says so."""
    pytest.importorskip("tensorflow")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    sample().export("digits")
    blocks = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    (code,) = (block for block in blocks if re.search(rf"(from|import) {package}\b", block))
    found = {}
    exec(code, found)
    images = np.stack([pixels(image) for image in found["images"]])
    order = np.lexsort(images.reshape(len(images), -1).T)
    whole = sample()
    expected = np.lexsort(whole.images.reshape(len(images), -1).T)
    np.testing.assert_array_equal(images[order], whole.images[expected])
    labels = np.asarray(found["labels"])
    np.testing.assert_array_equal(labels[order], whole.labels[expected])
    assert tuple(found.get("names", NAMES)) == NAMES
