"""Rows of labelled images, from a table or from folders, and what may be wrong with them."""

import os
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from fairdd_jax.data.files import images_below
from fairdd_jax.errors import ConfigError, DataError, one_line, unknown_name

# Columns of what folders say, and defaults of what a table says.
PATH, TARGET, PROTECTED, SPLIT = "path", "target", "protected", "split"
SPLITS = {"train": "train", "training": "train", "test": "test", "testing": "test"}
# Folders that are no classes beside one of these.
_OTHER_SPLITS = ("val", "valid", "validation", "dev", "eval", "holdout")
_SHOWN = 3  # rows that a message names
_MISSING = ("", "NA", "N/A", "NaN", "nan", "null", "None")
Columns = dict[str, list[str | None]]


class Rows(NamedTuple):
    """Rows that can be used: every image once, with a value in every column."""

    columns: dict[str, list[str]]
    """Texts by the name of the column; `PATH` is below the data folder."""
    labels: list[str]
    """Which columns are the target and the protected ones."""
    split: str | None
    """Which column says train or test."""
    notes: list[str]
    """What was left out."""


def rows_of(
    columns: Columns,
    *,
    path: str,
    labels: list[str],
    split: str | None,
    leave_out: bool,
    root: Path,
    is_table: bool = True,
) -> Rows:
    """Check rows.

    Args:
      columns: texts, None where a value is missing.
      path: the column with the paths.
      labels: the columns with labels.
      split: the column that says train or test, if there is one.
      leave_out: rows without a value are left out, and not an error.
      root: the folder that no path may leave.
      is_table: somebody wrote the paths, perhaps on Windows; else they are names of files.

    Raises:
      ConfigError: a column that is not there, or one of labels that is called as that of paths
        will be.
      DataError: a row without a value, a path that leaves the folder, or an image with two labels.

    >>> columns = {"path": ["a.png", "b.png"], "age": ["old", None], "sex": ["f", "m"]}
    >>> options = {"path": "path", "labels": ["age", "sex"], "split": None, "root": Path("x")}
    >>> rows_of(columns, leave_out=True, **options).columns
    {'path': ['a.png'], 'age': ['old'], 'sex': ['f']}
    """
    notes: list[str] = []
    used = list(dict.fromkeys([*labels, *([split] if split else [])]))
    if PATH in used and path != PATH:
        raise ConfigError(
            f"the column '{PATH}' cannot be a label or the split where the paths are in '{path}'; "
            "rename it in the table"
        )
    rows = _complete_rows(columns, [path, *used], leave_out, notes)
    # Absolute paths may lead through the links that the folder is given through, or not.
    roots = (root, root.absolute(), root.resolve())
    paths = [_checked(name, roots, is_table) for name in rows[path]]
    rows = {PATH: paths} | {name: rows[name] for name in used}
    return Rows(_once(rows, split, notes), labels, split, notes)


def read_table(path: Path) -> Columns:
    """The columns of a CSV or Parquet file as texts, None where a value is missing.

    Columns of lists, structures and bytes are left out.

    Raises:
      DataError: it cannot be read.
    """
    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            with pyarrow.parquet.ParquetFile(path) as file:
                table = file.read()
        else:
            # Else a value with a line break may not lie where one block of the file ends.
            breaks = pyarrow.csv.ParseOptions(newlines_in_values=True)
            with pyarrow.csv.open_csv(path, parse_options=breaks) as reader:
                texts = dict.fromkeys(reader.schema.names, pa.string())
            table = pyarrow.csv.read_csv(
                path,
                parse_options=breaks,
                convert_options=pyarrow.csv.ConvertOptions(column_types=texts),
            )
        columns = {
            field.name: table.column(i).cast(pa.string()).to_pylist()
            for i, field in enumerate(table.schema)
            if not _has_no_text(field.type)
        }
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
        raise DataError(f"the table {path} cannot be read: {_reason(error)}") from None
    if len(set(table.column_names)) < len(table.column_names):
        raise DataError(f"the table {path} has two columns of one name; rename one")
    return {
        name: [None if value in _MISSING else value for value in values]
        for name, values in columns.items()
    }


def _reason(error: Exception) -> str:
    """What is wrong with a table, without the noise that a file of another kind has for a row."""
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    text = one_line(error)
    text = "".join(takewhile(lambda c: c.isprintable() and c != "\ufffd", text))
    return f"{text}; it must be CSV in UTF-8 or Parquet"


def _has_no_text(kind: pa.DataType) -> bool:
    """Whether a column of that type, embeddings or pictures, can be no class, group or path."""
    if isinstance(kind, pa.BaseExtensionType):  # a UUID is bytes, JSON is text
        kind = kind.storage_type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return (
        pa.types.is_nested(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
        or pa.types.is_binary_view(kind)
    )


def read_tree(root: Path) -> Columns:
    """The columns that the folders CLASS/GROUP/file mean, perhaps with the split above them."""
    found = images_below(root)
    if not found:
        raise DataError(
            f"{root} has no image; put them into folders CLASS/GROUP/, or pass --data.table FILE"
        )
    parts = [PurePosixPath(name).parts for name in found]
    tops = {part[0].lower() for part in parts}
    splits = tops <= set(SPLITS) or {SPLITS.get(top) for top in tops} >= {"train", "test"}
    if not splits and tops & set(SPLITS) and tops - set(SPLITS) <= set(_OTHER_SPLITS):
        raise DataError(
            f"{root} has the folders {' and '.join(sorted(tops))}: call the one to distil train "
            "and the one that scores test, or pass --data.table FILE"
        )
    depth = 3 + splits
    wrong = [name for name, part in zip(found, parts, strict=True) if len(part) != depth]
    if wrong:
        raise DataError(
            f"{root}/{wrong[0]} is not at {'SPLIT/' * splits}CLASS/GROUP/file ({len(wrong)} such "
            "images); move them, or pass --data.table FILE with the columns path, target, protected"
        )
    columns: Columns = {
        PATH: list(found),
        TARGET: [part[-3] for part in parts],
        PROTECTED: [part[-2] for part in parts],
    }
    return columns | ({SPLIT: [part[0] for part in parts]} if splits else {})


def _complete_rows(
    columns: Columns, used: list[str], leave_out: bool, notes: list[str]
) -> dict[str, list[str]]:
    """The rows with a value in every column that is used."""
    for name in used:
        if name not in columns:
            raise unknown_name("column", name, columns)
    values = [columns[name] for name in used]
    missing = [i for i, row in enumerate(zip(*values, strict=True)) if None in row]
    if missing and not leave_out:
        shown = ", ".join(
            f"row {i + 2} has no {next(n for n in used if columns[n][i] is None)}"
            for i in missing[:_SHOWN]
        )
        raise DataError(
            f"{len(missing)} of {len(values[0])} rows lack a value: {shown}; fill them in, or "
            "leave them out with --data.damaged leave_out"
        )
    if missing:
        notes.append(f"{len(missing)} rows without a value are left out")
    gone = set(missing)
    kept = [i for i in range(len(values[0])) if i not in gone]
    if not kept:
        raise DataError("the table has no row with a value in every column that is used")
    return {name: [str(columns[name][i]) for i in kept] for name in used}


def _checked(path: str, roots: Sequence[Path], is_table: bool) -> str:
    """The path, if it can be one and stays below the folder, which can be written in several
    ways."""
    if "\0" in path:
        shown = path.replace("\0", "?")
        raise DataError(f"the path {shown} has a zero byte; the table is damaged, make it again")
    slashes = path
    # A table may come from Windows; where / alone parts folders, \ may be a letter of a name.
    if is_table and "\\" in path and (os.sep == "\\" or not os.path.exists(roots[0] / path)):
        slashes = path.replace("\\", "/")
    pure = PurePosixPath(slashes)
    if pure.is_absolute():
        full = Path(slashes)
        below = [full.relative_to(root) for root in roots if full.is_relative_to(root)]
        pure = PurePosixPath(below[0].as_posix() if below else "..")
    if ".." in pure.parts:
        raise DataError(
            f"the path {path} leaves {roots[0]}; move the image into the folder, or pass a "
            "--data_dir above all images"
        )
    return pure.as_posix()


def _once(rows: dict[str, list[str]], split: str | None, notes: list[str]) -> dict[str, list[str]]:
    """Rows of a split, every image once; one with two different labels is an error."""
    first: dict[str, int] = {}
    for i, path in enumerate(rows[PATH]):
        j = first.setdefault(path, i)
        if any(values[i] != values[j] for values in rows.values()):
            raise DataError(
                f"{path} comes twice, with different values; keep one of its rows in the table"
            )
    if len(first) < len(rows[PATH]):
        notes.append(f"{len(rows[PATH]) - len(first)} rows repeat another one and are left out")
    kept = [i for i in first.values() if split is None or rows[split][i].strip().lower() in SPLITS]
    if len(kept) < len(first):
        notes.append(f"{len(first) - len(kept)} images are in neither split and are left out")
    if not kept:
        raise DataError("no row says train or test in the split column")
    return {name: [values[i] for i in kept] for name, values in rows.items()}
