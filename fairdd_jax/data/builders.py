"""Builders of tensorflow-datasets for what it lacks: UTKFace, BFFHQ and the user's own images.

They keep the image files as they are, with their names, in array_record; a copy is read without
TensorFlow, preparing one needs it (`fairdd-jax[tfds]`). It imports tensorflow-datasets, and is
itself imported only to prepare.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from fairdd_jax.data.files import images_below
from fairdd_jax.data.tfds_source import WHOLE


class _Files(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """All images below the manual folder, each under its name in it."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        features = {"image": tfds.features.Image(), "name": tfds.features.Text()}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        return {WHOLE: self._generate_examples(Path(dl_manager.manual_dir))}

    def _generate_examples(self, folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
        for name in images_below(folder):
            yield name, {"image": str(folder / name), "name": name}


class Utkface(_Files):
    """UTKFace."""

    MANUAL_DOWNLOAD_INSTRUCTIONS = "The folder UTKFace with AGE_GENDER_RACE_DATE.jpg."


class Bffhq(_Files):
    """BFFHQ."""

    MANUAL_DOWNLOAD_INSTRUCTIONS = "The folder with 0.5pct/ and test/."


class Images(_Files):
    """The user's own images, with the columns of their table.

    Args:
      columns: texts by the name of the column, a row per image; "path" says which.
    """

    MANUAL_DOWNLOAD_INSTRUCTIONS = "A folder with images."

    def __init__(self, *, columns: Mapping[str, Sequence[str]], **options: Any):
        self._columns = {"name": columns["path"], **columns}
        super().__init__(**options)

    def _info(self) -> tfds.core.DatasetInfo:
        texts = {name: tfds.features.Text() for name in self._columns}
        features = {"image": tfds.features.Image(), **texts}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _generate_examples(self, folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
        for values in zip(*self._columns.values(), strict=True):
            row = dict(zip(self._columns, values, strict=True))
            yield row["name"], {"image": str(folder / row["name"]), **row}


BUILDERS = {"utkface": Utkface, "bffhq": Bffhq, "images": Images}
