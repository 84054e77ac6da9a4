"""BFFHQ: faces whose age and gender go together in training, but for 0.5 % of them.

The folder has `0.5pct/align/{0,1}/*.png`, `0.5pct/conflict/{0,1}/*.png` and `test/*.png`, also in
subfolders; a file name ends in `_AGE_GENDER`. Or a copy made by `experiments/prepare.py`.

References: Karras et al., A Style-Based Generator Architecture (CVPR 2019), whose faces these are;
Kim et al., BiaSwap (ICCV 2021).
"""

import re
from pathlib import Path

import numpy as np

from fairdd_jax.data import tfds_source
from fairdd_jax.data.attributes import Attribute, target_and_protected
from fairdd_jax.data.config import DataConfig
from fairdd_jax.data.decode import Transform
from fairdd_jax.data.files import find_folder
from fairdd_jax.data.listing import Listed, Listing, Source
from fairdd_jax.errors import DataError

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
# The papers do not say which index means which; by the images 0 is young and 0 is female.
AGES, GENDERS = ("young", "old"), ("female", "male")
_FOLDERS = ("bffhq", "BFFHQ", ".")
_TRAIN, _TEST = "0.5pct/", "test/"
_NAME = re.compile(r".*_([01])_([01])\.\w+$")


def find(config: DataConfig, data_dir: Path | None, download: bool) -> Listing:
    """List BFFHQ; see the module and `fairdd_jax.data.listing.Source`."""
    files = tfds_source.files_or_copy(
        "bffhq",
        folder_of(data_dir),
        data_dir,
        wanted="0.5pct/align/, 0.5pct/conflict/ and test/",
        where=_FOLDERS[0],
    )
    matches = [_NAME.match(name) for name in files.names]
    broken = [name for name, match in zip(files.names, matches, strict=True) if match is None]
    kept = np.flatnonzero([match is not None for match in matches])
    values = np.array([[int(m[1]), int(m[2])] for m in matches if m is not None], np.int32)
    values = values.reshape(-1, 2)
    attributes = {"age": Attribute(values[:, 0], AGES), "gender": Attribute(values[:, 1], GENDERS)}
    target, protected = target_and_protected(attributes, config.target, config.protected)
    splits: list[Listed] = []
    for start in (_TRAIN, _TEST):
        here = np.array([files.names[int(i)].startswith(start) for i in kept])
        if not here.any():
            raise DataError(
                f"{files.place}/{start} has no image named *_AGE_GENDER.png; get the folder again"
            )
        splits.append(Listed(files, kept[here], target.values[here], protected.values[here]))
    notes: tuple[str, ...] = ()
    if broken:
        notes = (
            f"{len(broken)} file names do not end in _AGE_GENDER and are left out, such as "
            f"{broken[0]}",
        )
    return Listing(
        "bffhq",
        splits[0],
        splits[1],
        target.names,
        protected.names,
        Transform(config.size, fit="crop"),
        MEAN,
        STD,
        notes,
    )


SOURCE = Source(
    find,
    frozenset({"seed", "balanced", "damaged"}),
    {"target": "age", "protected": "gender", "size": 64},
)


def folder_of(data_dir: Path | None) -> Path | None:
    """The folder below the data folder that has the faces."""
    return find_folder(data_dir, _FOLDERS, lambda folder: (folder / "0.5pct").is_dir())
