"""Copies in the format of tensorflow-datasets, made from downloads or from folders of images.

This needs TensorFlow, while reading does not. tensorflow-datasets is imported only when a copy is
prepared.
"""

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path

from fairdd_jax.errors import ConfigError, DataError, one_line

# Its columns besides those of a table, see `fairdd_jax.data.builders`.
_OF_A_COPY = {"image", "name"}


def prepare(data_dir: Path | None, name: str) -> Path:
    """Download a data set and prepare it as array_record.

    Args:
      data_dir: where to put it; None is the default folder of tensorflow-datasets.
      name: its name in tensorflow-datasets.

    Returns:
      The folder of the copy.

    Raises:
      DataError: without TensorFlow, or when the download fails.
    """
    _need_tensorflow(f"downloading {name}")
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name, data_dir=data_dir, file_format="array_record")
        builder.download_and_prepare()
    except Exception as error:  # network, disk, checksum: each has its own class
        raise DataError(
            f"downloading {name} failed: {one_line(error)}; or put its files into the data folder"
        ) from error
    return Path(builder.data_dir)


def prepare_files(
    name: str,
    folder: Path,
    *,
    to: Path | None = None,
    columns: Mapping[str, Sequence[str]] | None = None,
) -> Path:
    """Prepare a folder of images as array_record.

    Args:
      name: "utkface", "bffhq" or "images".
      folder: the images.
      to: where to put the copy; None is the default folder of tensorflow-datasets.
      columns: for "images" texts by the name of the column, a row per image; "path" says which.

    Returns:
      The folder of the copy.

    Raises:
      ConfigError: a column of a name that a copy uses itself.
      DataError: without TensorFlow, or when the images cannot be copied.
    """
    for name_of_column in set(columns or ()) & _OF_A_COPY:
        raise ConfigError(
            f"a packed copy has a column '{name_of_column}' of its own; rename that of the table"
        )
    _need_tensorflow("preparing images")
    import tensorflow_datasets as tfds

    from fairdd_jax.data import builders

    options = {} if columns is None else {"columns": columns}
    try:
        builder = builders.BUILDERS[name](data_dir=to, file_format="array_record", **options)
        manual = tfds.download.DownloadConfig(manual_dir=folder)
        builder.download_and_prepare(download_config=manual)
    except Exception as error:  # tfds raises anything from KeyError to its own classes
        raise DataError(f"{folder} cannot be prepared: {one_line(error)}") from error
    return Path(builder.data_dir)


def _need_tensorflow(doing: str) -> None:
    if not has_tensorflow():
        raise DataError(f'{doing} needs TensorFlow: pip install "fairdd-jax[tfds]"')


def has_tensorflow() -> bool:
    """Whether it is installed."""
    return importlib.util.find_spec("tensorflow") is not None
