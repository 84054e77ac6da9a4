"""The user's own images: tables and folders, and every mistake in them."""

import datetime
import itertools
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from originals import encoded, refused, write_files, write_images, write_tree
from PIL import Image

from fairdd_jax.data import DataConfig, attributes, load, own, resolved, tfds_source
from fairdd_jax.data.files import Folder
from fairdd_jax.errors import ConfigError, DataError

HEADER = "path,target,protected"
# Three cats inside, and so on: "a" with "x" often, with "y" once.
ROWS = [("a", "x"), ("a", "x"), ("a", "y"), ("b", "x"), ("b", "y"), ("b", "y")]


def find(data_dir, **options):
    return own.find(resolved(DataConfig("images", **options)), data_dir, False)


def write_csv(folder, *lines, name="table.csv", encoding="utf-8"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("\n".join(lines) + "\n", encoding=encoding)
    return folder


def table(folder, rows=ROWS, *, header=HEADER, times=10):
    """A CSV with the rows many times, every image another one."""
    lines = [
        ",".join([f"images/{i}_{j}.png", *map(str, row)])
        for i in range(times)
        for j, row in enumerate(rows)
    ]
    return write_csv(folder, header, *lines)


def from_csv(folder, **options):
    return find(folder, table="table.csv", **options)


def listed(split):
    return {
        split.files.names[i]: (int(label), int(group))
        for i, label, group in zip(split.chosen, split.labels, split.groups, strict=True)
    }


def cells(split):
    return Counter(listed(split).values())


def test_a_table_gives_every_image_its_label_and_group(tmp_path):
    listing = from_csv(table(tmp_path))
    train, test = listed(listing.train), listed(listing.test)
    expected = {
        f"images/{i}_{j}.png": ("ab".index(a), "xy".index(x))
        for i in range(10)
        for j, (a, x) in enumerate(ROWS)
    }
    assert train | test == expected
    assert len(train) + len(test) == len(expected)
    assert (listing.classes, listing.groups) == (("a", "b"), ("x", "y"))
    assert listing.notes == ()


@pytest.mark.parametrize("fraction", [0.2, 0.5, 0.3])
def test_every_cell_gives_the_same_fraction_for_testing(tmp_path, fraction):
    listing = from_csv(table(tmp_path), test_fraction=fraction)
    counts = Counter(("ab".index(a), "xy".index(x)) for a, x in ROWS * 10)
    assert cells(listing.test) == {cell: round(n * fraction) for cell, n in counts.items()}
    assert cells(listing.train) + cells(listing.test) == counts


def test_the_split_follows_the_seed(tmp_path):
    table(tmp_path)
    first, again, other = (listed(from_csv(tmp_path, seed=seed).test) for seed in (30, 30, 31))
    assert first == again
    assert first != other


def test_a_split_column(tmp_path):
    rows = [(*row, split) for row in ROWS for split in ("Train", " test", "val")]
    table(tmp_path, rows, header=f"{HEADER},part", times=2)
    listing = from_csv(tmp_path, split_column="part")
    assert len(listing.train) == len(listing.test) == 2 * len(ROWS)
    assert {int(name.split("_")[1][:-4]) % 3 for name in listed(listing.test)} == {1}
    assert listing.notes == (f"{2 * len(ROWS)} images are in neither split and are left out",)


def test_other_columns_and_an_intersection(tmp_path):
    rows = [(a, b, c) for a in (0, 1) for b in ("m", "f") for c in ("old", "new")]
    table(tmp_path, rows, header="file,class,sex,age", times=5)
    options = {"path_column": "file", "target": "class"}
    listing = from_csv(tmp_path, protected="sex,age", **options)
    assert listing.groups == ("f & new", "f & old", "m & new", "m & old")
    assert set((cells(listing.train) + cells(listing.test)).values()) == {5}
    for name, (label, group) in listed(listing.train).items():
        row = rows[int(name.split("_")[1][:-4])]
        assert (str(row[0]), f"{row[1]} & {row[2]}") == (
            listing.classes[label],
            listing.groups[group],
        )


def test_combinations_that_no_image_has_are_no_groups(tmp_path):
    rows = [(a, b) for a in "ab" for b in ("m,old", "m,new", "f,old")]
    table(tmp_path, rows, header="path,target,sex,age")
    assert from_csv(tmp_path, protected="sex,age").groups == ("f & old", "m & new", "m & old")


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ((10, 9, -1), ("-1", "9", "10")),
        ((0.5, 10.25, 2.0), ("0.5", "2.0", "10.25")),
        (("true", "false", "perhaps"), ("false", "perhaps", "true")),
        (("weiß", "grün", "日本"), ("grün", "weiß", "日本")),
        (("2020-01-02", "2019-12-31", "2020-01-01"), ("2019-12-31", "2020-01-01", "2020-01-02")),
        ((1, 2, "two"), ("1", "2", "two")),
    ],
)
def test_values_of_any_type_in_a_csv(tmp_path, values, names):
    table(tmp_path, [(value, group) for value in values for group in "xy"])
    listing = from_csv(tmp_path)
    assert listing.classes == names
    for name, (label, _) in listed(listing.train).items():
        assert listing.classes[label] == str(values[int(name.split("_")[1][:-4]) // 2])


def write_parquet(folder, columns, count=20):
    """A table whose columns repeat some values."""
    repeated = {
        name: (values * count)[: count * 2] if isinstance(values, list) else values
        for name, values in columns.items()
    }
    paths = [f"{i}.png" for i in range(count * 2)]
    pyarrow.parquet.write_table(pa.table({"path": paths} | repeated), folder / "table.parquet")
    return folder


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ([10, 9], ("9", "10")),
        ([False, True], ("false", "true")),
        ([0.5, 2.25], ("0.5", "2.25")),
        ([datetime.date(2020, 1, 2), datetime.date(2020, 1, 1)], ("2020-01-01", "2020-01-02")),
        (["weiß", "grün"], ("grün", "weiß")),
        (pa.array(["b", "a"] * 20).dictionary_encode(), ("a", "b")),
        (pa.array(["b", "a"] * 20, pa.large_string()), ("a", "b")),
    ],
    ids=["int", "bool", "float", "date", "text", "dictionary", "large text"],
)
def test_values_of_any_type_in_a_parquet(tmp_path, values, names):
    write_parquet(tmp_path, {"target": values, "protected": [0, 0, 1, 1]})
    listing = find(tmp_path, table="table.parquet")
    assert listing.classes == names
    first = names.index(str(values[0]).lower() if isinstance(values[0], bool) else str(values[0]))
    assert listed(listing.train).get("0.png", listed(listing.test).get("0.png")) == (first, 0)


def test_columns_of_a_parquet_that_are_no_values_do_not_matter(tmp_path):
    columns = {"target": [0, 1], "protected": [0, 0, 1, 1]}
    columns |= {"embedding": [[1.0, 2.0]] * 2, "picture": [b"\xff"] * 2}
    columns |= {"more": [{"bytes": b"\xff"}] * 2}
    write_parquet(tmp_path, columns)
    assert len(find(tmp_path, table="table.parquet").train) == 32
    with refused(ConfigError, "unknown column 'embedding'"):
        find(tmp_path, table="table.parquet", target="embedding")


@pytest.mark.parametrize("kind", ["fixed size", "view", "dictionary", "uuid"])
def test_columns_of_bytes_of_any_kind_do_not_matter(tmp_path, kind):
    column = {
        "fixed size": lambda: pa.array([b"\xff\xfe"] * 40, pa.binary(2)),
        "view": lambda: pa.array([b"\xff"] * 40, pa.binary_view()),
        "dictionary": lambda: pa.array([b"\xff"] * 40).dictionary_encode(),
        "uuid": lambda: pa.ExtensionArray.from_storage(
            pa.uuid(), pa.array([b"\xff" * 16] * 40, pa.binary(16))
        ),
    }[kind]()
    try:
        write_parquet(tmp_path, {"target": [0, 1], "protected": [0, 0, 1, 1], "hash": column})
    except pa.ArrowNotImplementedError as error:
        pytest.skip(str(error))
    assert len(find(tmp_path, table="table.parquet").train) == 32


def test_names_beyond_ascii_are_read_and_decoded(tmp_path):
    write_tree(tmp_path, {"bilder ü/猫": 4, "bilder ü/dog, big": 4}, side=6)
    lines = [
        f'"bilder ü/{n}/{i}.png",{n[0]},é{i % 2}' for n in ("猫", "dog, big") for i in range(4)
    ]
    write_csv(tmp_path, HEADER, *lines, name="Tâble.csv")
    config = DataConfig("images", table="Tâble.csv", test_fraction=0.5, size=6)
    data = load(config, data_dir=tmp_path, cache_dir=tmp_path / "cache")
    assert (data.classes, data.groups) == (("d", "猫"), ("é0", "é1"))
    assert data.cell_counts(data.test).tolist() == [[1, 1], [1, 1]]


def test_a_table_as_spreadsheets_write_it(tmp_path):
    """With a byte order mark, the line ends of Windows and quotes."""
    lines = (f'"{i}.png","x",{i % 2}' for i in range(8))
    text = "\r\n".join([HEADER, *lines, '"8.png","y",1', '"9.png","y",0'])
    (tmp_path / "table.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert from_csv(tmp_path).classes == ("x", "y")


def test_a_line_break_in_a_value_of_a_large_table(tmp_path):
    """Which is read in blocks of a megabyte."""
    remarks = ['"' + "word\n" * words + '"' for words in (2**18, *[2] * 11)]
    rows = [(*row, remark) for row, remark in zip(ROWS * 2, remarks, strict=True)]
    table(tmp_path, rows, header=f"{HEADER},remark", times=1)
    assert len(from_csv(tmp_path, test_fraction=0.5).train) == 6


def test_a_table_outside_the_data_folder(tmp_path):
    table(tmp_path / "elsewhere")
    (tmp_path / "images").mkdir()
    path = str(tmp_path / "elsewhere" / "table.csv")
    assert len(find(tmp_path / "images", table=path).train) == 48
    with refused(DataError, r"the table table\.csv is neither in .*images nor here"):
        find(tmp_path / "images", table="table.csv")


def test_a_table_in_the_home_folder(tmp_path, monkeypatch):
    """As --data.table=~/table.csv, which no shell expands."""
    monkeypatch.setenv("HOME", str(table(tmp_path / "home")))
    (tmp_path / "images").mkdir()
    assert len(find(tmp_path / "images", table="~/table.csv").train) == 48


MISSING = ["", "NA", "NaN", "null"]


@pytest.mark.parametrize("value", MISSING)
def test_rows_without_a_value_are_refused_by_number_or_left_out(tmp_path, value):
    table(tmp_path)
    lines = (tmp_path / "table.csv").read_text().splitlines()
    lines[2] = f"images/other.png,{value},x"
    lines[5] = f"images/more.png,a,{value}"
    write_csv(tmp_path, *lines)
    message = "2 of 60 rows lack a value: row 3 has no target, row 6 has no protected; .*leave_out"
    with refused(DataError, message):
        from_csv(tmp_path)
    listing = from_csv(tmp_path, damaged="leave_out")
    names = listed(listing.train) | listed(listing.test)
    assert len(names) == 58
    assert not {"images/other.png", "images/more.png"} & names.keys()
    assert listing.notes == ("2 rows without a value are left out",)


def test_missing_values_of_a_column_that_is_not_used_do_not_matter(tmp_path):
    table(tmp_path, [(*row, "") for row in ROWS], header=f"{HEADER},remark")
    assert len(from_csv(tmp_path).train) == 48


def test_missing_values_of_a_parquet(tmp_path):
    columns = {"target": ["a", "b", None, "b"], "protected": [0.0, float("nan"), 1.0, 1.0]}
    write_parquet(tmp_path, columns)
    with refused(DataError, "20 of 40 rows lack a value: row 3 has no protected, row 4 has no tar"):
        find(tmp_path, table="table.parquet")


def test_a_table_without_any_complete_row(tmp_path):
    write_csv(tmp_path, HEADER, "1.png,,", "2.png,,x")
    with refused(DataError, "no row with a value in every column"):
        from_csv(tmp_path, damaged="leave_out")


def test_equal_rows_of_one_image_count_once(tmp_path):
    table(tmp_path)
    lines = (tmp_path / "table.csv").read_text().splitlines()
    write_csv(tmp_path, *lines, lines[1], lines[1].replace("images/", "./images//"))
    listing = from_csv(tmp_path)
    assert len(listing.train) + len(listing.test) == 60
    assert listing.notes == ("2 rows repeat another one and are left out",)


@pytest.mark.parametrize("column", [1, 2, 3])
def test_one_image_with_two_labels_or_in_both_splits_is_refused(tmp_path, column):
    rows = [(*row, split) for row in ROWS for split in ("train", "test")]
    table(tmp_path, rows, header=f"{HEADER},part")
    lines = (tmp_path / "table.csv").read_text().splitlines()
    row = lines[1].split(",")
    row[column] = {1: "b", 2: "y", 3: "test"}[column]
    write_csv(tmp_path, *lines, ",".join(row))
    with refused(DataError, r"images/0_0\.png comes twice, with different values"):
        from_csv(tmp_path, split_column="part")


@pytest.mark.parametrize(
    "path", ["../secret.png", "images/../../secret.png", "/etc/passwd", "..\\secret.png", ".."]
)
def test_a_path_that_leaves_the_folder_is_refused(tmp_path, path):
    table(tmp_path)
    with (tmp_path / "table.csv").open("a") as file:
        file.write(f"{path},a,x\n")
    with refused(DataError, "leaves .*; move the image into the folder") as error:
        from_csv(tmp_path)
    assert path in str(error.value)


def test_a_path_with_a_zero_byte_is_refused(tmp_path):
    """As a crash leaves it in a file."""
    table(tmp_path)
    with (tmp_path / "table.csv").open("a") as file:
        file.write("images/\0\0.png,a,x\n")
    with refused(DataError, r"the path images/\?\?\.png has a zero byte"):
        from_csv(tmp_path, damaged="leave_out")


def test_a_name_in_another_encoding_is_refused(tmp_path):
    """As an old archive leaves it: no page and no terminal can show it."""
    write_tree(tmp_path, {"cat/a": 1, "dog/b": 1})
    try:
        os.rename(tmp_path / "cat", os.path.join(os.fsencode(tmp_path), b"caf\xe9"))
    except OSError:
        pytest.skip("this file system has names in UTF-8 alone")
    with refused(DataError, r"the name caf\?/a/0.png is no text in utf-8; rename it"):
        find(tmp_path)


def test_an_absolute_path_into_the_folder_is_taken(tmp_path):
    lines = [f"{tmp_path}/{i}.png,{i % 2},{i // 2 % 2}" for i in range(12)]
    listing = from_csv(write_csv(tmp_path, HEADER, *lines))
    assert set(listed(listing.train) | listed(listing.test)) == {f"{i}.png" for i in range(12)}


@pytest.mark.parametrize("place", ["real", "link", "real/a/..", "link/a/.."])
def test_an_absolute_path_into_a_folder_written_otherwise(tmp_path, monkeypatch, place):
    (tmp_path / "real" / "a").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(tmp_path)
    place = Path(place)
    for written in (Path("real"), place):
        lines = [f"{tmp_path}/{written}/{i}.png,{i % 2},{i // 2 % 2}" for i in range(12)]
        listing = from_csv(write_csv(place, HEADER, *lines))
        assert set(listed(listing.train) | listed(listing.test)) == {f"{i}.png" for i in range(12)}
        for other in ("real2/0.png", f"{written}/../secret.png", f"{written}/a/../../secret.png"):
            write_csv(place, HEADER, *lines, f"{tmp_path}/{other},0,0")
            with refused(DataError, "leaves .*; move the image into the folder"):
                from_csv(place)


def test_a_backslash_is_a_slash_of_windows_unless_a_file_is_called_so(tmp_path):
    names = [rf"{place}\{i}.png" for place in "ab" for i in range(4)]
    lines = [f"{name},{i % 2},{i // 2 % 2}" for i, name in enumerate(names)]
    write_files(tmp_path, [(name, b"") for name in names[:4]])
    listing = from_csv(write_csv(tmp_path, HEADER, *lines), test_fraction=0.5)
    expected = {*names[:4], *(f"b/{i}.png" for i in range(4))}
    assert set(listed(listing.train) | listed(listing.test)) == expected


def test_a_backslash_in_the_name_of_a_file_in_folders(tmp_path):
    names = [rf"{c}/{g}/p\{i}.png" for c in "ab" for g in "xy" for i in (0, 1)]
    write_files(tmp_path, [(name, b"") for name in names])
    listing = find(tmp_path, test_fraction=0.5)
    assert sorted(listed(listing.train) | listed(listing.test)) == names


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("a", "x"), ("a", "y")], "column 'target' has the one value 'a' for all 20 images"),
        ([("a", "x"), ("b", "x")], "column 'protected' has the one value 'x' for all 20 images"),
    ],
)
def test_one_class_and_one_group_are_refused(tmp_path, rows, message):
    with refused(DataError, message):
        from_csv(table(tmp_path, rows))


def test_a_column_of_ever_new_values_is_refused(tmp_path):
    rows = [(i, "xy"[i % 2]) for i in range(1100)]
    with refused(DataError, "column 'target' has 1100 different values for 1100 images"):
        from_csv(table(tmp_path, rows, times=1))


def test_a_group_of_one_split_only_is_noted(tmp_path):
    rows = [("a", "x", "train"), ("b", "y", "train"), ("a", "z", "train")]
    rows += [("a", "x", "test"), ("b", "y", "test"), ("a", "w", "test")]
    table(tmp_path, rows, header=f"{HEADER},part", times=3)
    listing = from_csv(tmp_path, split_column="part")
    assert listing.groups == ("w", "x", "y", "z")
    assert listing.notes == ("the group 'w' has no train image", "the group 'z' has no test image")


def test_a_class_that_is_only_tested_is_refused(tmp_path):
    write_tree(tmp_path, {f"{s}/{c}/{g}": 1 for s in ("train", "test") for c in "ab" for g in "xy"})
    write_tree(tmp_path, {"test/c/x": 1})
    with refused(DataError, "class 'c' has no training image"):
        load(DataConfig("images"), data_dir=tmp_path, cache_dir=tmp_path / "cache")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "targt"}, "unknown column 'targt'; did you mean 'target'?"),
        ({"protected": "target,protcted"}, "unknown column 'protcted'; did you mean 'protected'?"),
        ({"path_column": "file"}, "unknown column 'file'; .*Valid: path, protected, target"),
        ({"split_column": "split"}, "unknown column 'split'"),
        ({"path_column": "target", "target": "path"}, "the column 'path' cannot be a label"),
        ({"target": "protected"}, "'protected' is both target and protected"),
        ({"protected": "protected,protected"}, "'protected' comes twice"),
    ],
)
def test_unknown_columns_are_refused_with_the_nearest(tmp_path, options, message):
    table(tmp_path)
    with refused(ConfigError, message):
        from_csv(tmp_path, **options)


def test_columns_whose_names_differ_in_case_alone(tmp_path):
    table(tmp_path, header="path,Age,age")
    listing = from_csv(tmp_path, target="Age", protected="age")
    assert (listing.classes, listing.groups) == (("a", "b"), ("x", "y"))
    with refused(ConfigError, "'Age' is both target and protected"):
        from_csv(tmp_path, target="Age", protected="age,Age")


BAD_TABLES = {
    "empty.csv": b"",
    "cut.csv": b"path,target,protected\n1.png,a\n",
    "latin.csv": "path,target,protected\n1.png,gr\xfcn,x\n".encode("latin-1"),
    "zeros.csv": bytes(100),
    "noise.csv": b"a,b\n" + np.random.default_rng(0).bytes(4000),
    "picture.csv": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
    "page.parquet": b"<html>",
    "empty.parquet": b"",
}


@pytest.mark.parametrize("name", BAD_TABLES)
def test_a_table_that_is_none_is_refused_in_one_line(tmp_path, name):
    (tmp_path / name).write_bytes(BAD_TABLES[name])
    with refused((DataError, ConfigError), ".") as error:
        find(tmp_path, table=name)
    assert len(str(error.value).replace(str(tmp_path), "")) < 300
    assert str(error.value).isprintable()
    assert "\ufffd" not in str(error.value)


def test_a_table_that_may_not_be_read_is_told_why(tmp_path, monkeypatch):
    def refuse(path, **options):
        raise PermissionError(13, f"Failed to open local file '{path}'. Detail: [errno 13]")

    table(tmp_path)
    monkeypatch.setattr(pyarrow.csv, "open_csv", refuse)
    with refused(DataError, r"table\.csv cannot be read: Permission denied$"):
        from_csv(tmp_path)


def test_a_table_in_another_encoding_is_told_which(tmp_path):
    (tmp_path / "latin.csv").write_bytes(BAD_TABLES["latin.csv"])
    with refused(DataError, r"latin\.csv cannot be read: .*; it must be CSV in UTF-8 or Parquet"):
        find(tmp_path, table="latin.csv")


def test_a_table_without_rows_is_refused(tmp_path):
    with refused(DataError, "no row"):
        from_csv(write_csv(tmp_path, HEADER))


def test_two_columns_of_one_name_are_refused(tmp_path):
    write_csv(tmp_path, "path,target,target,protected", "1.png,a,b,x")
    with refused(DataError, "two columns of one name"):
        from_csv(tmp_path)
    names = ["path", "target", "target"]
    columns = pa.Table.from_arrays([pa.array(["1.png"])] * 3, names=names)
    pyarrow.parquet.write_table(columns, tmp_path / "table.parquet")
    with refused(DataError, "two columns of one name"):
        find(tmp_path, table="table.parquet")


def test_a_split_column_that_says_neither(tmp_path):
    table(tmp_path, [(*row, "a") for row in ROWS], header=f"{HEADER},part")
    with refused(DataError, "no row says train or test"):
        from_csv(tmp_path, split_column="part")
    table(tmp_path, [(*row, "train") for row in ROWS], header=f"{HEADER},part")
    with refused(DataError, "no image is for test; say test in part"):
        from_csv(tmp_path, split_column="part")


def test_cells_too_small_for_the_fraction(tmp_path):
    table(tmp_path, [("a", "x"), ("b", "y")], times=2)
    with refused(DataError, r"no image is for test; change --data\.test_fraction"):
        from_csv(tmp_path, test_fraction=0.1)


def test_folders_are_the_labels(tmp_path):
    write_tree(tmp_path, {"cat/in": 4, "cat/out": 2, "dog/in": 1, "dog/out": 5})
    listing = find(tmp_path, test_fraction=0.5)
    assert (listing.classes, listing.groups) == (("cat", "dog"), ("in", "out"))
    for split in (listing.train, listing.test):
        for name, (label, group) in listed(split).items():
            assert name.startswith(f"{listing.classes[label]}/{listing.groups[group]}/")
    assert cells(listing.train) == {(0, 0): 2, (0, 1): 1, (1, 0): 1, (1, 1): 3}


@pytest.mark.parametrize("names", [("train", "test"), ("Training", "TESTING")])
@pytest.mark.parametrize("more", [{}, {"val/cat/in": 3}])
def test_folders_of_splits(tmp_path, names, more):
    train, test = names
    places = {f"{train}/{c}/{g}": 3 for c in ("cat", "dog") for g in ("in", "out")}
    places |= {f"{test}/{c}/{g}": 2 for c in ("cat", "dog") for g in ("in", "out")}
    write_tree(tmp_path, places | more)
    listing = find(tmp_path)
    assert (len(listing.train), len(listing.test)) == (12, 8)
    assert all(name.startswith(test) for name in listed(listing.test))
    assert listing.notes == (("3 images are in neither split and are left out",) if more else ())


@pytest.mark.parametrize(
    ("here", "beside"), [("train", "val"), ("Train", "Validation"), ("test", "dev")]
)
def test_a_validation_split_is_not_a_class(tmp_path, here, beside):
    """As torchvision's ImageFolder is laid out; below it are classes, which would be groups."""
    write_tree(tmp_path, {f"{s}/{c}": 2 for s in (here, beside) for c in "ab"})
    with refused(DataError, "call the one to distil train and the one that scores test"):
        find(tmp_path)


def test_links_to_folders_are_followed(tmp_path):
    """But not round and round."""
    write_tree(tmp_path / "mine", {f"{c}/{g}": 4 for c in "ab" for g in "xy"})
    write_tree(tmp_path / "elsewhere", {"x": 4, "y": 4})
    (tmp_path / "mine" / "c").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "mine")
    (tmp_path / "mine" / "a" / "x" / "up").symlink_to("..")
    assert find(tmp_path / "mine").classes == ("a", "b", "c")


def test_equal_numbers_have_one_order(tmp_path):
    """Whatever the order of a set is in this process."""
    for values, names in (
        (["1", "01", "1.0", "0"], ("0", "01", "1", "1.0")),
        (["NAN", "10", "9", "inf"], ("10", "9", "NAN", "inf")),
        (["10", "9", "-1e1"], ("-1e1", "9", "10")),
    ):
        for order in itertools.permutations(values):
            assert attributes.categories(order, what="age").names == names


def test_folders_without_a_test_split_are_refused(tmp_path):
    write_tree(tmp_path, {f"train/{c}/{g}": 1 for c in "ab" for g in "xy"})
    with refused(DataError, "no image is for test; put some in test/"):
        find(tmp_path)


def test_a_class_may_be_called_train(tmp_path):
    write_tree(tmp_path, {f"{c}/{g}": 4 for c in ("train", "bus") for g in ("day", "night")})
    assert find(tmp_path, test_fraction=0.5).classes == ("bus", "train")


def test_what_is_no_image_or_hidden_in_the_folders_does_not_matter(tmp_path):
    write_tree(tmp_path, {f"{c}/{g}": 4 for c in "ab" for g in "xy"})
    for name in ("readme.txt", "a/notes.md", "a/x/._0.png", ".DS_Store", "a/x/Thumbs.db"):
        (tmp_path / name).write_text("")
    assert len(find(tmp_path, test_fraction=0.5).train) == 8


@pytest.mark.parametrize("place", [".", "a", "a/x/deep"])
def test_an_image_at_another_depth_is_refused_by_name(tmp_path, place):
    write_tree(tmp_path, {f"{c}/{g}": 1 for c in "ab" for g in "xy"})
    write_tree(tmp_path, {place: 1})
    with refused(DataError, r"0\.png is not at CLASS/GROUP/file \(1 such images\)"):
        find(tmp_path)


def test_folders_without_images_and_without_a_second_class(tmp_path):
    (tmp_path / "a" / "x").mkdir(parents=True)
    with refused(DataError, "has no image; put them into folders CLASS/GROUP/"):
        find(tmp_path)
    write_tree(tmp_path, {"a/x": 2, "a/y": 2})
    with refused(DataError, "column 'target' has the one value 'a'"):
        find(tmp_path)


@pytest.mark.parametrize("field", ["target", "protected", "split_column"])
def test_a_column_without_a_table_is_refused(tmp_path, field):
    write_tree(tmp_path, {f"{c}/{g}": 4 for c in "ab" for g in "xy"})
    with refused(ConfigError, rf"--data\.{field} is a column, but there is no --data\.table"):
        find(tmp_path, **{field: "age"})


def test_a_column_of_paths_without_a_table_is_refused(tmp_path):
    write_tree(tmp_path, {f"{c}/{g}": 4 for c in "ab" for g in "xy"})
    with refused(ConfigError, r"--data\.path_column file means nothing without a table"):
        find(tmp_path, path_column="file")


def test_a_fraction_for_testing_of_images_that_are_split_is_refused(tmp_path):
    message = r"--data\.test_fraction 0\.5 means nothing to images that come as train and test"
    table(tmp_path, [(*row, "train") for row in ROWS], header=f"{HEADER},part")
    with refused(ConfigError, message):
        from_csv(tmp_path, split_column="part", test_fraction=0.5)
    write_tree(tmp_path, {f"{s}/{c}/{g}": 1 for s in ("train", "test") for c in "ab" for g in "xy"})
    with refused(ConfigError, message):
        find(tmp_path, test_fraction=0.5)


@pytest.mark.parametrize("data_dir", [None, "absent", "file"])
def test_no_folder_is_refused(tmp_path, data_dir):
    (tmp_path / "file").write_text("")
    kind, message = (DataError, "is no folder") if data_dir else (ConfigError, "is missing: pass")
    with refused(kind, message):
        find(data_dir and tmp_path / data_dir)


def test_a_folder_that_may_not_be_listed_is_a_data_error(tmp_path, monkeypatch):
    def walk(folder, onerror, followlinks):
        onerror(PermissionError(13, "Permission denied", str(folder)))
        return iter(())

    monkeypatch.setattr("os.walk", walk)
    with refused(DataError, "cannot be listed: Permission denied"):
        find(tmp_path)


def test_a_copy_in_the_default_folder_is_not_taken(tmp_path, monkeypatch):
    """It may be of other images."""
    write_files(tmp_path, [("copies/images/1.0.0/dataset_info.json", b"{}")])
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "copies"))
    (tmp_path / "mine").mkdir()
    with refused(DataError, "mine has no image"):
        find(tmp_path / "mine")


def test_a_copy_whose_split_leaves_images_out_keeps_the_labels_at_their_images(
    tmp_path, monkeypatch
):
    """Every image is of one colour, which says its class, group and split. The copy is one but for
    the packing, which needs TensorFlow; test_data_builders.py packs."""
    parts = ("val", "train", "test")
    rows = np.array([(a, b, c) for a in range(2) for b in range(2) for c in range(3)])
    names = [f"{i:02d}.png" for i in range(len(rows))]
    images = (Image.new("RGB", (8, 8), tuple((90 * row).tolist())) for row in rows)
    shown = (encoded(image, "PNG") for image in images)
    write_files(tmp_path / "images", zip(names, shown, strict=True))
    features = {"path": names, "part": [parts[c] for c in rows[:, 2]]}
    features |= {"target": rows[:, 0].astype(str), "protected": rows[:, 1].astype(str)}
    columns = {name: np.asarray(values) for name, values in features.items()}
    copy = tfds_source.Encoded(Folder(tmp_path / "images", names), columns)
    monkeypatch.setattr(tfds_source, "copy_below", lambda *args: tmp_path)
    monkeypatch.setattr(tfds_source, "encoded", lambda *args: copy)
    (tmp_path / "copies").mkdir()
    config = DataConfig("images", split_column="part", size=8)
    data = load(config, data_dir=tmp_path / "copies", cache_dir=tmp_path / "cache")
    for number, split in ((1, data.train), (2, data.test)):
        expected = np.stack([split.labels, split.groups, np.full(4, number)], axis=-1)
        np.testing.assert_array_equal(split.images[:, 0, 0], 90 * expected)


@pytest.mark.parametrize("fit", ["crop", "stretch"])
def test_images_become_squares_and_their_statistics_are_measured(tmp_path, fit):
    write_images(tmp_path, per_cell=4)
    config = DataConfig("images", table="faces.csv", size=16, fit=fit, test_fraction=0.25)
    data = load(config, data_dir=tmp_path, cache_dir=tmp_path / "cache")
    assert data.image_shape == (16, 16, 3)
    assert (data.cell_counts(data.train) == 3).all()
    assert (data.cell_counts(data.test) == 1).all()
    pixels = np.asarray(data.train.images, float).reshape(-1, 3) / 255
    np.testing.assert_allclose([data.mean, data.std], [pixels.mean(0), pixels.std(0)], rtol=1e-12)
    listing = find(tmp_path, table="faces.csv", size=16, fit=fit, test_fraction=0.25)
    position = int(np.flatnonzero(listing.train.labels == 2)[0])  # 48 pixels wide, 64 high
    with Image.open(tmp_path / listing.train.files.names[listing.train.chosen[position]]) as image:
        scaled = image.resize((16, 21 if fit == "crop" else 16), Image.Resampling.BILINEAR)
    expected = np.asarray(scaled)[2:18] if fit == "crop" else np.asarray(scaled)
    np.testing.assert_array_equal(data.train.images[position], expected)


def test_the_balanced_variant(tmp_path):
    write_tree(tmp_path, {"cat/in": 8, "cat/out": 4, "dog/in": 6, "dog/out": 10}, side=4)
    config = DataConfig("images", balanced=True, size=4, test_fraction=0.5)
    data = load(config, data_dir=tmp_path, cache_dir=tmp_path / "cache")
    assert data.cell_counts(data.train).tolist() == [[2, 2], [2, 2]]
    assert data.cell_counts(data.test).tolist() == [[4, 2], [3, 5]]


def test_an_empty_cell_cannot_be_balanced(tmp_path):
    write_tree(tmp_path, {"cat/in": 8, "cat/out": 4, "dog/in": 6}, side=4)
    config = DataConfig("images", balanced=True, size=4)
    with refused(DataError, "images cannot be balanced: a .* cell has no training image"):
        load(config, data_dir=tmp_path, cache_dir=tmp_path / "cache")


def test_images_that_are_missing_or_damaged_are_named_or_left_out(tmp_path):
    write_images(tmp_path, per_cell=4, side=16)
    (tmp_path / "pictures/cat_inside_0.png").unlink()
    (tmp_path / "pictures/dog_outside_1.png").write_text("<!doctype html>")
    (tmp_path / "pictures/fox_inside_2.png").write_bytes(b"")
    options = {"data_dir": tmp_path, "cache_dir": tmp_path / "cache"}
    base = DataConfig("images", table="faces.csv", size=8, test_fraction=0.25)
    with refused(DataError, r"3 of 24 images cannot be decoded: .*/pictures/.*leave_out"):
        load(base, **options)
    config = DataConfig(
        "images", table="faces.csv", size=8, test_fraction=0.25, damaged="leave_out"
    )
    data = load(config, **options)
    assert len(data.train) + len(data.test) == 24 - 3
    assert sum(int(note.split()[0]) for note in data.notes) == 3


def test_a_path_of_an_image_may_be_a_folder_and_is_damaged_then(tmp_path):
    write_images(tmp_path, per_cell=4, side=8)
    path = tmp_path / "pictures/cat_inside_0.png"
    path.unlink()
    Path.mkdir(path)
    with refused(DataError, r"cat_inside_0\.png \(Is a directory\)"):
        config = DataConfig("images", table="faces.csv", size=8)
        load(config, data_dir=tmp_path, cache_dir=tmp_path / "cache")
