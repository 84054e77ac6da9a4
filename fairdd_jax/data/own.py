"""The user's own images: a table of paths with columns, a tree of folders, or a prepared copy.

A table (CSV or Parquet) has a row per image: its path relative to the data folder, the target
column, one or more protected columns, and perhaps a column that says train or test. Without a table
the folders are the labels: `CLASS/GROUP/file`, perhaps below `train/` and `test/`. Values may be of
any type; each different one is a class or a group. Images of any other split are left out.
"""

import os
from pathlib import Path

import numpy as np

from fairdd_jax.data import tfds_source
from fairdd_jax.data.attributes import Attribute, categories, target_and_protected
from fairdd_jax.data.balance import stratified_split
from fairdd_jax.data.config import DataConfig
from fairdd_jax.data.decode import Transform
from fairdd_jax.data.files import Folder, ImageFiles, images_below
from fairdd_jax.data.listing import Listed, Listing, Source
from fairdd_jax.data.table import (
    PATH,
    PROTECTED,
    SPLIT,
    SPLITS,
    TARGET,
    Columns,
    Rows,
    read_table,
    read_tree,
    rows_of,
)
from fairdd_jax.errors import ConfigError, DataError


def find(config: DataConfig, data_dir: Path | None, download: bool) -> Listing:
    """List the user's images; see the module and `fairdd_jax.data.listing.Source`."""
    del download
    folder = _folder(data_dir)
    copy = None
    if config.table is None and not images_below(folder):
        # One in the default folder of tensorflow-datasets may be of other images.
        copy = tfds_source.copy_below(folder, "images")
    if copy is not None:
        encoded = tfds_source.encoded(copy, tfds_source.WHOLE)
        columns = {name: column.tolist() for name, column in encoded.features.items()}
        files: ImageFiles = encoded.files
        rows = _rows(config, columns, folder)
    else:
        rows = labelled_rows(config, folder)
        files = Folder(folder, rows.columns[PATH])
    attributes = {
        name: categories(values, what=f"column '{name}'")
        for name, values in rows.columns.items()
        if name in rows.labels
    }
    target, protected = map(
        _occurring, target_and_protected(attributes, config.target, config.protected)
    )
    if rows.split is None:
        rng = np.random.RandomState(config.seed)
        train, test = stratified_split(
            target.values, protected.values, fraction=config.test_fraction, rng=rng
        )
    else:
        parts = np.array([SPLITS[part.strip().lower()] for part in rows.columns[rows.split]])
        train, test = np.flatnonzero(parts == "train"), np.flatnonzero(parts == "test")
    # A copy has images of other splits too, which are no rows.
    where = {name: i for i, name in enumerate(files.names)}
    chosen = np.array([where[path] for path in rows.columns[PATH]])
    notes = list(rows.notes)
    for part, positions in (("train", train), ("test", test)):
        if not positions.size:
            advice = "change --data.test_fraction, or add images"
            if rows.split:
                advice = f"say {part} in {rows.split}" if config.table else f"put some in {part}/"
            raise DataError(f"no image is for {part}; {advice}")
        absent = np.setdiff1d(np.arange(len(protected.names)), protected.values[positions])
        notes += [f"the group '{protected.names[g]}' has no {part} image" for g in absent]
    return Listing(
        "images",
        Listed(files, chosen[train], target.values[train], protected.values[train]),
        Listed(files, chosen[test], target.values[test], protected.values[test]),
        target.names,
        protected.names,
        Transform(config.size, fit=config.fit),
        notes=tuple(notes),
    )


SOURCE = Source(
    find,
    frozenset(
        {"seed", "balanced", "fit", "table", "path_column", "split_column", "test_fraction"}
        | {"damaged"}
    ),
    {"target": TARGET, "protected": PROTECTED, "size": 64},
)


def labelled_rows(config: DataConfig, folder: Path) -> Rows:
    """The rows of the table, or those that the folders mean.

    Raises:
      ConfigError: a column that is not there. DataError: what is wrong with the rows.
    """
    if config.table:
        return _rows(config, read_table(_table_path(folder, config.table)), folder)
    for field in ("target", "protected", "split_column"):
        if getattr(config, field) != SOURCE.defaults.get(field):
            raise ConfigError(
                f"--data.{field} is a column, but there is no --data.table; without one the "
                "folders CLASS/GROUP/file are the labels"
            )
    return _rows(config, read_tree(folder), folder)


def _rows(config: DataConfig, columns: Columns, folder: Path) -> Rows:
    """What is used of the columns."""
    labels = [name.strip() for name in f"{config.target},{config.protected}".split(",")]
    split = config.split_column or (SPLIT if config.table is None and SPLIT in columns else None)
    if split and config.test_fraction != DataConfig.test_fraction:
        raise ConfigError(
            f"--data.test_fraction {config.test_fraction} means nothing to images that come as "
            "train and test already; leave it out"
        )
    if config.table is None and config.path_column != DataConfig.path_column:
        raise ConfigError(
            f"--data.path_column {config.path_column} means nothing without a table; leave it out, "
            "or pass --data.table FILE"
        )
    return rows_of(
        columns,
        path=config.path_column if config.table else PATH,
        labels=labels,
        split=split,
        leave_out=config.damaged == "leave_out",
        root=folder,
        is_table=config.table is not None,
    )


def _folder(data_dir: Path | None) -> Path:
    if data_dir is None:
        raise ConfigError(
            "the folder of your images is missing: pass --data_dir FOLDER, and --data.table FILE "
            "unless the folders are CLASS/GROUP/file"
        )
    if not data_dir.is_dir():
        raise DataError(f"{data_dir} is no folder; pass --data_dir with the folder of your images")
    return data_dir


def _table_path(data_dir: Path, table: str) -> Path:
    for path in (data_dir / table, Path(os.path.expanduser(table))):
        if path.is_file():
            return path
    raise DataError(
        f"the table {table} is neither in {data_dir} nor here; pass its path: --data.table"
    )


def _occurring(attribute: Attribute) -> Attribute:
    """The attribute without crossed values that no image has."""
    present, values = np.unique(attribute.values, return_inverse=True)
    return Attribute(values.astype(np.int32), tuple(attribute.names[i] for i in present))
