"""CelebA from files in its original layouts: cells, splits and what is refused."""

import io
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from originals import CELEBA_ATTRIBUTES, encoded, picture, refused, write_celeba
from PIL import Image

from fairdd_jax.data import DataConfig, celeba, load, resolved
from fairdd_jax.errors import ConfigError, DataError

TRAIN, TEST = "0", "2"
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A data folder that no test changes."""
    data_dir = tmp_path_factory.mktemp("original")
    write_celeba(data_dir)
    return data_dir


@pytest.fixture
def folder(original, tmp_path):
    """A copy to damage."""
    return Path(shutil.copytree(original / "celeba", tmp_path / "data" / "celeba"))


def find(data_dir, **options):
    return celeba.find(resolved(DataConfig("celeba", **options)), data_dir, False)


def has_attributes(folder):
    """By file name: its part, and the set of its attributes. Read in a plain loop."""
    lines = (folder / "list_attr_celeba.txt").read_text().splitlines()
    rows = {}
    for line in lines[2:]:
        name, *values = line.split()
        rows[name] = {a for a, v in zip(lines[1].split(), values, strict=True) if v == "1"}
    partition = (folder / "list_eval_partition.txt").read_text().splitlines()
    parts = dict(line.split() for line in partition)
    return {name: (parts[name], attributes) for name, attributes in rows.items()}


def count_cells(folder, part, target, *protected):
    """Images of a part by (class, group), the group a binary number."""
    cells = Counter()
    for where, attributes in has_attributes(folder).values():
        group = 0
        for name in protected:
            group = 2 * group + (name in attributes)
        cells[int(target in attributes), group] += where == part
    return cells


def listed_cells(listed):
    return Counter(zip(listed.labels.tolist(), listed.groups.tolist(), strict=True))


def content(listing):
    """The name, label and group of every image of both splits, and its bytes."""
    return [
        (
            listed.files.names[i].rpartition("/")[2],
            int(label),
            int(group),
            listed.files.read(i),
        )
        for listed in (listing.train, listing.test)
        for i, label, group in zip(listed.chosen, listed.labels, listed.groups, strict=True)
    ]


@pytest.mark.parametrize(
    ("target", "protected"),
    [(None, None), ("attractive", "wearing_necktie"), ("MALE", "Attractive"), ("Smiling", "Young")],
)
def test_training_has_all_of_part_0_and_testing_evenly_of_part_2(original, target, protected):
    listing = find(original, target=target, protected=protected)
    names = {name.lower(): name for name in CELEBA_ATTRIBUTES}
    wanted = [names[(target or "attractive").lower()], names[(protected or "male").lower()]]
    folder = original / "celeba"
    assert listed_cells(listing.train) == count_cells(folder, TRAIN, *wanted)
    there = count_cells(folder, TEST, *wanted)
    assert len(set(there.values())) > 1
    assert listed_cells(listing.test) == dict.fromkeys(there, min(there.values()))


def test_every_image_has_its_label_its_group_and_its_part(original):
    listing = find(original)
    rows = has_attributes(original / "celeba")
    for listed, part in ((listing.train, TRAIN), (listing.test, TEST)):
        assert len(set(listed.chosen.tolist())) == len(listed)
        for i, label, group in zip(listed.chosen, listed.labels, listed.groups, strict=True):
            where, attributes = rows[listed.files.names[i]]
            assert where == part
            assert (label, group) == ("Attractive" in attributes, "Male" in attributes)


def test_class_1_has_the_attribute(original):
    listing = find(original)
    assert listing.classes == ("not attractive", "attractive")
    assert listing.groups == ("not male", "male")


def test_an_intersection_has_a_group_for_every_combination(original):
    listing = find(original, protected="male,wearing_necktie")
    assert listing.groups == (
        "not male & not wearing_necktie",
        "not male & wearing_necktie",
        "male & not wearing_necktie",
        "male & wearing_necktie",
    )
    wanted = ("Attractive", "Male", "Wearing_Necktie")
    folder = original / "celeba"
    assert listed_cells(listing.train) == count_cells(folder, TRAIN, *wanted)
    there = count_cells(folder, TEST, *wanted)
    assert len(there) == 8
    assert listed_cells(listing.test) == dict.fromkeys(there, min(there.values()))


def test_an_intersection_as_the_target(original):
    listing = find(original, target="male, wearing_necktie", protected="attractive")
    assert listing.classes[2] == "male & not wearing_necktie"
    there = count_cells(original / "celeba", TRAIN, "Attractive", "Male", "Wearing_Necktie")
    swapped = {(group, label): count for (label, group), count in there.items()}
    assert listed_cells(listing.train) == swapped


def test_the_seed_draws_the_test_images(original):
    first, again, other = (find(original, seed=seed).test.chosen for seed in (30, 30, 31))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(
    "layout",
    [
        {"images": "zip"},
        {"images": "nested", "lists": "csv"},
        {"images": "zip", "lists": "csv"},
        {"places": ("Img", "Anno", "Eval")},
        {"images": "zip", "places": ("Img", "Anno", "Eval")},
    ],
    ids=lambda layout: "-".join(map(str, layout.values())),
)
def test_every_layout_gives_the_same_data_set(original, tmp_path, layout):
    write_celeba(tmp_path, **layout)
    assert content(find(tmp_path)) == content(find(original))


@pytest.mark.parametrize("name", ["CelebA", "celeb_a", "."])
def test_every_name_of_the_folder_is_found(original, tmp_path, name):
    shutil.copytree(original / "celeba", tmp_path / name, dirs_exist_ok=True)
    assert len(find(tmp_path).train) == len(find(original).train)


def test_lines_that_end_as_on_windows(original, folder):
    for path in folder.glob("*.txt"):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n") + b"\r\n")
    assert content(find(folder.parent)) == content(find(original))


def test_images_are_cut_to_178_and_scaled_to_64(original, tmp_path):
    data = load(DataConfig("celeba"), data_dir=original, cache_dir=tmp_path)
    listing = find(original)
    assert data.image_shape == (64, 64, 3)
    assert (data.mean, data.std) == ((0.5063, 0.4258, 0.3832), (0.2676, 0.2453, 0.2410))
    for position in (0, 5):
        with Image.open(io.BytesIO(listing.train.files.read(listing.train.chosen[position]))) as i:
            expected = i.crop((0, 20, 178, 198)).resize((64, 64), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(data.train.images[position], np.asarray(expected))
    small = load(DataConfig("celeba", size=16), data_dir=original, cache_dir=tmp_path)
    assert small.image_shape == (16, 16, 3)


def test_the_balanced_variant_trains_on_as_many_of_every_cell(original, tmp_path):
    config = DataConfig("celeba", balanced=True, size=8)
    data = load(config, data_dir=original, cache_dir=tmp_path)
    smallest = min(count_cells(original / "celeba", TRAIN, "Attractive", "Male").values())
    assert data.cell_counts(data.train).tolist() == [[smallest] * 2] * 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"target": "atractive"},
            "unknown target attribute 'atractive'; did you mean 'attractive'",
        ),
        ({"protected": "male,neckty"}, "unknown protected attribute 'neckty'; Valid: 5_o_clock"),
        ({"protected": "wearing_neckti"}, "did you mean 'wearing_necktie'"),
        ({"protected": "male,Male"}, "'Male' comes twice"),
        ({"target": "male"}, "'Male' is both target and protected"),
        ({"target": "young,male", "protected": "male,smiling"}, "'Male' is both"),
        ({"protected": "male,"}, "unknown protected attribute ''"),
    ],
)
def test_impossible_attributes_are_refused(original, options, message):
    with refused(ConfigError, message):
        find(original, **options)


def edit(name, change):
    """Change the lines of a list, without their ends."""

    def apply(folder):
        path = folder / name
        path.write_text("".join(f"{line}\n" for line in change(path.read_text().splitlines())))

    return apply


ATTRIBUTES, PARTITION = "list_attr_celeba.txt", "list_eval_partition.txt"
BAD = {
    "no attributes": (
        lambda folder: (folder / ATTRIBUTES).unlink(),
        r"celeba has the images of CelebA but lacks list_attr_celeba\.txt; put it there",
    ),
    "no parts": (
        lambda folder: (folder / PARTITION).unlink(),
        r"celeba lacks list_eval_partition\.txt; put it beside",
    ),
    "no images": (
        lambda folder: shutil.rmtree(folder / "img_align_celeba"),
        r"celeba lacks img_align_celeba/ and img_align_celeba\.zip",
    ),
    "attributes cut off": (
        lambda folder: (folder / ATTRIBUTES).write_bytes((folder / ATTRIBUTES).read_bytes()[:1500]),
        r"is damaged: 41 columns in its header, \d+ in 0000\d\d\.jpg; get it again",
    ),
    "a quote that nothing ends": (
        lambda folder: (
            (folder / ATTRIBUTES).unlink(),
            (folder / "list_attr_celeba.csv").write_text('image_id,"Young\n' + "1,\n" * 10**5),
        ),
        r"list_attr_celeba\.csv is damaged: field larger than field limit",
    ),
    "a long line of another kind": (
        lambda folder: (folder / ATTRIBUTES).write_text("2\nYoung\n" + "long" * 100 + "\n"),
        r"2 columns in its header, 1 in (long){10}; get it again",
    ),
    "attributes empty": (
        lambda folder: (folder / ATTRIBUTES).write_text(""),
        "is damaged: .* no rows",
    ),
    "attributes without rows": (edit(ATTRIBUTES, lambda lines: lines[:2]), "no rows"),
    "attributes without a header": (
        edit(ATTRIBUTES, lambda lines: lines[:1] + lines[2:]),
        "is damaged: 42 columns in its header, 41 in",
    ),
    "attributes with another value": (
        edit(ATTRIBUTES, lambda lines: [*lines[:-1], lines[-1][:-1] + "2"]),
        "the attribute Young has the value '-?2', not 1 or -1",
    ),
    "a web page": (
        lambda folder: (folder / ATTRIBUTES).write_text("<!DOCTYPE html>\n<html lang=en>\n<body>"),
        r"list_attr_celeba\.txt is a web page; get it again",
    ),
    "attributes that are no text": (
        lambda folder: (folder / ATTRIBUTES).write_bytes(encoded(picture(RNG, 9, 9))),
        r"list_attr_celeba\.txt is no text; get it again",
    ),
    "parts cut off": (
        edit(PARTITION, lambda lines: lines[:-3]),
        r"no part 0, 1 or 2 for 0000\d\d\.jpg and 2 other images",
    ),
    "another part": (
        edit(PARTITION, lambda lines: [line[:-1] + "3" for line in lines]),
        r"no part 0, 1 or 2 for 000001\.jpg",
    ),
    "parts of one column": (
        edit(PARTITION, lambda lines: [line[:-2] for line in lines]),
        "list_eval_partition",
    ),
    "nothing for testing": (
        edit(PARTITION, lambda lines: [line[:-1] + "0" for line in lines]),
        "no image is in the test part",
    ),
    "nothing for training": (
        edit(PARTITION, lambda lines: [line[:-1] + "2" for line in lines]),
        "no image is in the train part",
    ),
}


@pytest.mark.parametrize(("damage", "message"), BAD.values(), ids=BAD.keys())
def test_damaged_files_are_refused_in_one_line(folder, damage, message):
    damage(folder)
    with refused(DataError, message):
        find(folder.parent)


def test_an_empty_test_cell_is_named(folder):
    """Of a rare attribute, as baldness of women is, the even test split would be empty."""

    def nobody_is_both(lines):
        male, bald = (lines[1].split().index(name) + 1 for name in ("Male", "Bald"))
        rows = [line.split() for line in lines[2:]]
        for row in rows:
            row[bald] = row[male]
        return [*lines[:2], *map(" ".join, rows)]

    edit(ATTRIBUTES, nobody_is_both)(folder)
    with refused(DataError, "no image that is 'not bald' and 'male'.*choose other attributes"):
        find(folder.parent, target="bald")


def test_a_list_that_may_not_be_read_is_a_data_error(original, monkeypatch):
    def refuse(path, **options):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_text", refuse)
    with refused(DataError, r"list_attr_celeba\.txt cannot be read: Permission denied"):
        find(original)


@pytest.mark.parametrize("content", [b"", b"<html>", b"PK\x03\x04 and then cut off"])
def test_a_damaged_archive_is_refused(folder, content):
    shutil.rmtree(folder / "img_align_celeba")
    (folder / "img_align_celeba.zip").write_bytes(content)
    with refused(DataError, r"img_align_celeba\.zip cannot be read \(.*\); get it again"):
        find(folder.parent)


def test_an_archive_without_some_of_the_images_is_refused(original, folder, tmp_path):
    write_celeba(tmp_path / "fewer", per_cell=1, images="zip")
    shutil.rmtree(folder / "img_align_celeba")
    shutil.copy(tmp_path / "fewer" / "celeba" / "img_align_celeba.zip", folder)
    with refused(DataError, r"img_align_celeba\.zip lacks 0000\d\d\.jpg and \d+ other images"):
        find(folder.parent)


def test_images_that_are_not_there_are_refused_by_name(folder, tmp_path):
    for path in (folder / "img_align_celeba").glob("00000[12].jpg"):
        path.unlink()
    with refused(DataError, r"2 of \d+ images .*/000001\.jpg \(No such file or directory\)"):
        load(DataConfig("celeba"), data_dir=folder.parent, cache_dir=tmp_path / "cache")


@pytest.mark.parametrize("data_dir", [None, "empty", "absent"])
def test_no_celeba_at_all_says_what_to_put_where(tmp_path, monkeypatch, data_dir):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    (tmp_path / "empty").mkdir()
    with refused(DataError, r"celeba not found.*img_align_celeba/ .*list_attr_celeba\.txt .*tfds"):
        find(data_dir and tmp_path / data_dir)
