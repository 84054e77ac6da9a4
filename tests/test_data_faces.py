"""UTKFace and BFFHQ from files in their original layouts."""

import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from originals import (
    UTKFACE_BROKEN,
    UTKFACE_ODD,
    encoded,
    picture,
    refused,
    write_bffhq,
    write_files,
    write_utkface,
)
from PIL import Image

from fairdd_jax.data import DataConfig, bffhq, load, resolved, utkface
from fairdd_jax.errors import ConfigError, DataError

PER_CELL = 3


@pytest.fixture(autouse=True)
def no_copies(tmp_path_factory, monkeypatch):
    """Copies that this machine may have must not be found."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path_factory.mktemp("empty")))


@pytest.fixture(scope="module")
def utkface_dir(tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("utkface")
    write_utkface(data_dir, per_cell=PER_CELL, side=16)
    return data_dir


@pytest.fixture(scope="module")
def bffhq_dir(tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("bffhq")
    write_bffhq(data_dir, per_cell=PER_CELL, side=20)
    return data_dir


def find(source, data_dir, **options):
    name = source.__name__.rpartition(".")[2]
    return source.find(resolved(DataConfig(name, **options)), data_dir, False)


def faces(folder):
    """By file name: the class and the race, in a plain loop as the official program has it."""
    found = {}
    for path in folder.iterdir():
        information = path.name.split("_")
        if len(information) < 4 or "" in information or information[2] == "4":
            continue
        age = int(information[0])
        found[path.name] = (0 if age < 20 else 1 if age < 40 else 2, int(information[2]))
    return found


def listed(split):
    """By file name: the label and the group."""
    names = [split.files.names[i] for i in split.chosen]
    values = zip(split.labels.tolist(), split.groups.tolist(), strict=True)
    return dict(zip(names, values, strict=True))


def test_utkface_tests_on_100_of_every_age_and_race_and_trains_on_the_rest(utkface_dir):
    listing = find(utkface, utkface_dir)
    train, test = listed(listing.train), listed(listing.test)
    assert not train.keys() & test.keys()
    assert train | test == faces(utkface_dir / "UTKFace")
    assert Counter(test.values()) == {(age, race): 100 for age in range(3) for race in range(4)}
    assert len(train) == 12 * PER_CELL + 2
    assert listing.classes == ("0-19", "20-39", "40+")
    assert listing.groups == ("White", "Black", "Asian", "Indian")


def test_utkfaces_broken_names_are_counted_and_its_odd_ones_are_used(utkface_dir):
    listing = find(utkface, utkface_dir)
    used = listed(listing.train) | listed(listing.test)
    assert not set(UTKFACE_BROKEN) & used.keys()
    assert [used.get(name) for name in UTKFACE_ODD] == [(1, 1), (2, 0), None]
    broken, others = listing.notes
    assert broken.startswith(f"{len(UTKFACE_BROKEN)} file names do not say AGE_GENDER_RACE_DATE")
    assert broken.endswith(min(UTKFACE_BROKEN))
    assert others == f"{3 * (100 + PER_CELL) + 1} images of the race 'others' are left out"


@pytest.mark.parametrize(
    ("options", "field", "names"),
    [
        ({"target": "gender"}, "labels", ("male", "female")),
        ({"target": "race", "protected": "age"}, "groups", ("0-19", "20-39", "40+")),
    ],
)
def test_other_attributes_of_utkface(utkface_dir, options, field, names):
    listing = find(utkface, utkface_dir, **options)
    assert (listing.classes if field == "labels" else listing.groups) == names
    values = getattr(listing.train, field)
    for i, value in zip(listing.train.chosen, values, strict=True):
        age, gender, *_ = listing.train.files.names[i].split("_")
        assert value == (int(gender) if field == "labels" else (int(age) >= 20) + (int(age) >= 40))


def test_an_intersection_of_utkface(utkface_dir):
    listing = find(utkface, utkface_dir, target="age", protected="gender,race")
    assert len(listing.groups) == 8
    assert listing.groups[5] == "female & Black"
    for i, group in zip(listing.test.chosen, listing.test.groups, strict=True):
        _, gender, race, _ = listing.test.files.names[i].split("_")
        assert group == 4 * int(gender) + int(race)
    assert len(set(Counter(listed(listing.test).values()).values())) == 1


def test_half_of_a_small_cell_is_for_testing(tmp_path):
    """Officially all of it, which would leave nothing for training."""
    write_utkface(tmp_path, per_cell=0, per_test_cell=4, side=8)
    listing = find(utkface, tmp_path)
    assert set(Counter(listed(listing.test).values()).values()) == {2}
    assert len(listing.train) == 12 * 2 + 2


def test_utkface_in_other_folders(tmp_path):
    """The parts in the wild, without .chip, and the nested folder of its copies."""
    names = [
        f"{age}_0_{race}_{i}.jpg" for age in (5, 25, 60) for race in range(4) for i in range(4)
    ]
    for place in ("part1", "deeper/part2"):
        write_files(tmp_path / "a" / "utkface" / place, [(name, b"") for name in names])
    assert len(find(utkface, tmp_path / "a").train) == 2 * 12 * 4 - 12 * 4
    nested = "utkface_aligned_cropped/UTKFace"
    write_files(tmp_path / "b" / nested, [(name, b"") for name in names])
    assert find(utkface, tmp_path / "b").train.files.place.endswith(nested)


def test_utkface_is_squeezed_to_64(tmp_path):
    folder = write_utkface(tmp_path, per_cell=2, per_test_cell=0, side=70)
    first = find(utkface, tmp_path).train
    wide = encoded(picture(np.random.default_rng(0), 100, 70))
    (folder / first.files.names[first.chosen[0]]).write_bytes(wide)
    data = load(DataConfig("utkface"), data_dir=tmp_path, cache_dir=tmp_path / "cache")
    assert data.image_shape == (64, 64, 3)
    assert len(data.mean) == len(data.std) == 3
    with Image.open(io.BytesIO(wide)) as image:
        expected = np.asarray(image.resize((64, 64), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(data.train.images[0], expected)


def test_utkface_with_a_cell_that_nobody_is_in(tmp_path):
    names = [f"{age}_0_{race}_{i}.jpg" for age in (5, 25) for race in (0, 1) for i in range(4)]
    files = [(name, b"") for name in names if not name.startswith("25_0_1")]
    write_files(tmp_path / "UTKFace", files)
    with refused(DataError, "no image that is '20-39' and 'Black'"):
        find(utkface, tmp_path)


@pytest.mark.parametrize(
    "name", ["1_0_4_20170109142408075.jpg", "1_1_4_20170109142408075.jpg.chip.jpg"]
)
def test_utkface_with_the_others_only(tmp_path, name):
    write_files(tmp_path / "UTKFace", [(name, b"")])
    with refused(DataError, "no image named AGE_GENDER_RACE_DATE.*others"):
        find(utkface, tmp_path)


def test_bffhq_trains_on_align_and_conflict_and_tests_on_test(bffhq_dir):
    listing = find(bffhq, bffhq_dir)
    for split, place in ((listing.train, "0.5pct"), (listing.test, "test")):
        expected = {}
        for path in (bffhq_dir / "bffhq" / place).rglob("*.png"):
            _, age, gender = path.stem.split("_")
            name = path.relative_to(bffhq_dir / "bffhq").as_posix()
            expected[name] = (int(age), int(gender))
        assert listed(split) == expected
    assert Counter(listed(listing.train).values()) == {
        (0, 0): 5 * PER_CELL,
        (1, 1): 5 * PER_CELL,
        (0, 1): PER_CELL,
        (1, 0): PER_CELL,
    }
    assert listing.classes == ("young", "old")
    assert listing.groups == ("female", "male")
    assert listing.notes == ()


def test_the_attributes_of_bffhq_change_places(bffhq_dir):
    swapped = find(bffhq, bffhq_dir, target="gender", protected="age")
    straight = find(bffhq, bffhq_dir)
    np.testing.assert_array_equal(swapped.train.labels, straight.train.groups)
    np.testing.assert_array_equal(swapped.train.groups, straight.train.labels)
    assert swapped.classes == straight.groups


def test_bffhq_is_scaled_by_its_short_side(tmp_path):
    folder = write_bffhq(tmp_path, per_cell=1, side=70)
    name = "test/00000_1_0.png"
    wide = picture(np.random.default_rng(0), 100, 70)
    write_files(folder, [(name, encoded(wide, "PNG"))])
    data = load(DataConfig("bffhq"), data_dir=tmp_path, cache_dir=tmp_path / "cache")
    listing = find(bffhq, tmp_path)
    position = [listing.test.files.names[i] for i in listing.test.chosen].index(name)
    scaled = np.asarray(wide.resize((91, 64), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(data.test.images[position], scaled[:, 14:78])


def test_broken_names_of_bffhq_are_counted(tmp_path):
    folder = write_bffhq(tmp_path, per_cell=1, side=8)
    before = find(bffhq, tmp_path)
    names = ["0.5pct/align/0/00001_0.png", "test/readme.png", "test/1_0_2.png", "test/._1_0_1.png"]
    write_files(folder, [(name, b"") for name in names])
    after = find(bffhq, tmp_path)
    assert listed(after.train) == listed(before.train)
    assert listed(after.test) == listed(before.test)
    assert after.notes == (
        "3 file names do not end in _AGE_GENDER and are left out, such as " + names[0],
    )


@pytest.mark.parametrize("part", ["0.5pct", "test"])
def test_bffhq_without_a_part_is_refused(tmp_path, part):
    folder = write_bffhq(tmp_path, per_cell=1, side=8)
    for path in (folder / part).rglob("*.png"):
        path.unlink()
    with refused(DataError, f"bffhq/{part}/ has no image named"):
        find(bffhq, tmp_path)


@pytest.mark.parametrize("source", [utkface, bffhq])
def test_an_unknown_attribute_is_refused_with_the_nearest(utkface_dir, bffhq_dir, source):
    data_dir = utkface_dir if source is utkface else bffhq_dir
    with refused(ConfigError, "unknown protected attribute 'gendr'; did you mean 'gender'"):
        find(source, data_dir, protected="gendr")
    with refused(ConfigError, "'age' is both target and protected"):
        find(source, data_dir, protected="age")


@pytest.mark.parametrize("source", [utkface, bffhq])
@pytest.mark.parametrize("data_dir", [None, "empty", "absent"])
def test_no_faces_at_all_say_what_to_put_where(tmp_path, source, data_dir):
    (tmp_path / "empty").mkdir()
    with refused(DataError, "not found.*--data_dir"):
        find(source, data_dir and tmp_path / data_dir)


@pytest.mark.parametrize("source", [utkface, bffhq])
def test_a_folder_that_may_not_be_listed_is_a_data_error(tmp_path, monkeypatch, source):
    write_bffhq(tmp_path, per_cell=1, side=8)
    write_utkface(tmp_path, per_cell=1, per_test_cell=1, side=8)

    def walk(folder, onerror, followlinks):
        onerror(PermissionError(13, "Permission denied", str(folder)))
        return iter(())

    monkeypatch.setattr("os.walk", walk)
    monkeypatch.setattr(Path, "rglob", lambda path, pattern: [Path("1_0_0_1.jpg")])
    with refused(DataError, "cannot be listed: Permission denied"):
        find(source, tmp_path)


def test_a_damaged_face_is_refused_by_name_or_left_out(tmp_path):
    folder = write_bffhq(tmp_path, per_cell=2, side=8)
    damaged = next((folder / "test").glob("*.png"))
    damaged.write_bytes(encoded(picture(np.random.default_rng(0), 64, 64))[:-100])
    options = {"data_dir": tmp_path, "cache_dir": tmp_path / "cache"}
    with refused(DataError, rf"1 of \d+ images .*/test/{damaged.name} \(.*truncated"):
        load(DataConfig("bffhq"), **options)
    data = load(DataConfig("bffhq", damaged="leave_out"), **options)
    assert data.notes == ("1 damaged images of the test split are left out",)
    assert len(data.test) == 7
