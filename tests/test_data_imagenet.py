"""Tiny-ImageNet-S and the subsets of ImageNet from folders in their original layouts."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from originals import refused, write_imagenet, write_tiny_imagenet
from PIL import Image

from fairdd_jax.data import DataConfig, imagenet, load, resolved
from fairdd_jax.data.balance import assign_grey
from fairdd_jax.errors import DataError

CLASSES = 6
SUBSET = "fruit"
WNIDS = tuple(imagenet.SUBSETS[SUBSET])
NAME = f"imagenet_{SUBSET}_s"


@pytest.fixture(autouse=True)
def no_copies(tmp_path_factory, monkeypatch):
    """Copies that this machine may have must not be found."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path_factory.mktemp("empty")))


@pytest.fixture(scope="module")
def tiny_dir(tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("tiny")
    write_tiny_imagenet(data_dir, num_classes=CLASSES)
    return data_dir


@pytest.fixture(scope="module")
def subset_dir(tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("subset")
    write_imagenet(data_dir, WNIDS, side=20)
    return data_dir


@pytest.fixture
def tiny(tiny_dir, tmp_path):
    """A copy to damage."""
    return Path(shutil.copytree(tiny_dir, tmp_path / "data")) / "tiny-imagenet-200"


def find(data_dir, subset=None, **options):
    name = f"imagenet_{subset}_s" if subset else "tiny_imagenet_s"
    return imagenet.find(resolved(DataConfig(name, **options)), data_dir, False, subset=subset)


def grey_share(listed, label):
    return 1 - listed.groups[listed.labels == label].mean()


def test_tiny_imagenets_labels_are_those_of_its_folders_and_annotations(tiny_dir):
    listing = find(tiny_dir)
    folder = tiny_dir / "tiny-imagenet-200"
    order = sorted(path.name for path in (folder / "train").iterdir())
    for i, label in zip(listing.train.chosen, listing.train.labels, strict=True):
        assert listing.train.files.names[i].split("/")[0] == order[label]
    truth = dict(
        line.split("\t")[:2]
        for line in (folder / "val/val_annotations.txt").read_text().splitlines()
    )
    for i, label in zip(listing.test.chosen, listing.test.labels, strict=True):
        assert truth[listing.test.files.names[i].removeprefix("images/")] == order[label]
    assert len(listing.train) == 10 * CLASSES
    assert listing.classes == tuple(f"thing {i}" for i in range(CLASSES))
    assert listing.groups == ("grey", "colour")


@pytest.mark.parametrize("ratio", [0.9, 0.6, 1.0, 0.0])
def test_half_of_the_classes_are_mostly_grey(tiny_dir, ratio):
    listing = find(tiny_dir, bias_ratio=ratio)
    for label in range(CLASSES):
        expected = ratio if label < CLASSES / 2 else 1 - ratio
        assert grey_share(listing.train, label) == pytest.approx(expected)
    np.testing.assert_array_equal(listing.train.grey, listing.train.groups == 0)
    even = assign_grey(listing.train.labels, ratio=ratio, num_classes=CLASSES)
    np.testing.assert_array_equal(listing.train.groups, even)


def test_every_test_image_is_there_grey_and_in_colour(tiny_dir):
    test = find(tiny_dir).test
    for group in (0, 1):
        assert sorted(test.chosen[test.groups == group]) == list(range(CLASSES))
    np.testing.assert_array_equal(test.grey, test.groups == 0)


def test_grey_images_are_pillows_conversion(tiny_dir, tmp_path):
    data = load(DataConfig("tiny_imagenet_s"), data_dir=tiny_dir, cache_dir=tmp_path)
    listing = find(tiny_dir)
    assert data.image_shape == (64, 64, 3)
    assert (data.mean, data.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    for split, listed in ((data.train, listing.train), (data.test, listing.test)):
        for position in range(0, len(listed), 7):
            path = Path(listed.files.place) / listed.files.names[listed.chosen[position]]
            with Image.open(path) as image:
                shown = image.convert("RGB")
            shown = shown.convert("L") if listed.groups[position] == 0 else shown
            expected = np.asarray(shown.convert("RGB"))
            np.testing.assert_array_equal(split.images[position], expected)


def test_tiny_imagenet_whose_val_was_sorted_into_folders(tiny_dir, tiny):
    before = find(tiny_dir)
    for line in (tiny / "val/val_annotations.txt").read_text().splitlines():
        name, wnid, *_ = line.split("\t")
        (tiny / "val" / wnid).mkdir(exist_ok=True)
        (tiny / "val/images" / name).rename(tiny / "val" / wnid / name)
    (tiny / "val/val_annotations.txt").unlink()
    np.testing.assert_array_equal(find(tiny.parent).test.labels, before.test.labels)


def test_class_names_without_words(tiny):
    (tiny / "words.txt").unlink()
    order = sorted((tiny / "wnids.txt").read_text().split())
    assert find(tiny.parent).classes == tuple(order)


DAMAGE = {
    "no classes": (lambda folder: (folder / "wnids.txt").write_text(""), "wnids.txt is empty"),
    "no text": (lambda folder: (folder / "wnids.txt").write_bytes(b"\xff\xfe"), "cannot be read"),
    "a class lacks": (
        lambda folder: shutil.rmtree(next((folder / "train").iterdir())),
        r"train lacks the class n\d{8}; put its folder there",
    ),
    "no validation": (lambda folder: shutil.rmtree(folder / "val"), "val lacks the class"),
    "annotations cut off": (
        lambda folder: (folder / "val/val_annotations.txt").write_text("val_0.JPEG"),
        "val has no image of the classes",
    ),
    "annotations that are no text": (
        lambda folder: (folder / "val/val_annotations.txt").write_bytes(b"\xff\xd8\xff"),
        "val has no image of the classes",
    ),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_tiny_imagenet_is_refused_in_one_line(tiny, damage, message):
    damage(tiny)
    with refused(DataError, message):
        find(tiny.parent)


def test_a_class_without_images_is_refused(tiny, tmp_path):
    for path in next((tiny / "train").iterdir()).rglob("*.JPEG"):
        path.unlink()
    with refused(DataError, r"class 'thing \d' has no training image"):
        load(DataConfig("tiny_imagenet_s"), data_dir=tiny.parent, cache_dir=tmp_path / "cache")


@pytest.mark.parametrize("subset", imagenet.SUBSETS)
def test_a_subset_has_ten_classes_of_different_names(subset):
    classes = imagenet.SUBSETS[subset]
    assert len(classes) == len(set(classes.values())) == 10
    assert all(len(wnid) == 9 and wnid[0] == "n" and wnid[1:].isdigit() for wnid in classes)


def test_a_subset_takes_its_classes_in_their_order_and_no_other(subset_dir):
    listing = find(subset_dir, SUBSET)
    counts = np.bincount(listing.train.labels)
    assert counts.tolist() == [10 + label for label in range(10)]
    for listed in (listing.train, listing.test):
        for i, label in zip(listed.chosen, listed.labels, strict=True):
            assert listed.files.names[i].startswith(f"{WNIDS[label]}/")
    assert listing.classes == tuple(imagenet.SUBSETS[SUBSET].values())


def test_classes_of_different_sizes_have_the_same_bias(subset_dir):
    train = find(subset_dir, SUBSET).train
    for label in range(10):
        size = 10 + label
        majority = int(0.9 * size)
        grey = majority if label < 5 else size - majority
        groups = train.groups[train.labels == label]
        assert groups.tolist() == [0] * grey + [1] * (size - grey)


def test_grey_cmyk_and_misnamed_images_are_decoded(subset_dir, tmp_path):
    config = DataConfig(NAME, bias_ratio=0.0, size=16)
    data = load(config, data_dir=subset_dir, cache_dir=tmp_path)
    assert data.image_shape == (16, 16, 3)
    assert data.notes == ()
    first = data.train.images[data.train.labels == 0][0]
    assert (first == first[..., :1]).all()  # stored grey
    last = find(subset_dir, SUBSET, bias_ratio=0.0).train
    with Image.open(Path(last.files.place) / last.files.names[9]) as image:
        assert image.format == "PNG"


def test_subsets_are_128_pixels(subset_dir, tmp_path):
    assert load(DataConfig(NAME), data_dir=subset_dir, cache_dir=tmp_path).image_shape[0] == 128


@pytest.mark.parametrize("folder", ["imagefruit", "imagenet_fruit", "ImageNet", "."])
def test_every_name_of_the_folder_is_found(subset_dir, tmp_path, folder):
    shutil.copytree(subset_dir / "imagenet", tmp_path / folder, dirs_exist_ok=True)
    assert len(find(tmp_path, SUBSET).train) == sum(10 + label for label in range(10))


def test_a_subset_without_one_of_its_classes_is_refused(subset_dir, tmp_path):
    shutil.copytree(subset_dir, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "imagenet/val" / WNIDS[3])
    with refused(DataError, f"val lacks the class {WNIDS[3]}; put its folder there"):
        find(tmp_path, SUBSET)


@pytest.mark.parametrize("subset", [None, *imagenet.SUBSETS])
@pytest.mark.parametrize("data_dir", [None, "empty", "absent"])
def test_nothing_at_all_says_what_to_put_where(tmp_path, subset, data_dir):
    (tmp_path / "empty").mkdir()
    with refused(DataError, "not found.*train/ and val/.*--data_dir"):
        find(data_dir and tmp_path / data_dir, subset)
