"""UTKFace: faces whose file names say age, gender and race.

`AGE_GENDER_RACE_DATE.jpg` (or `.jpg.chip.jpg`) below `UTKFace/`, in any subfolders, or a copy made
by `experiments/prepare.py`. As officially, faces of the race "others" are left out, ages are cut at
20 and 40, and 100 images of every (class, group) cell are for testing. If the smallest has no more,
half as many as it has (officially all, which leaves none for training). Names that do not follow
the rule are counted and left out.

Reference: Zhang et al., Age Progression/Regression by Conditional Adversarial Autoencoder
(CVPR 2017).
"""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fairdd_jax.data import tfds_source
from fairdd_jax.data.attributes import Attribute, smallest_cell, target_and_protected
from fairdd_jax.data.balance import balanced_split
from fairdd_jax.data.config import DataConfig
from fairdd_jax.data.decode import Transform
from fairdd_jax.data.files import find_folder
from fairdd_jax.data.listing import Listed, Listing, Source
from fairdd_jax.errors import DataError

MEAN = (0.6135867892520825, 0.4722519020075052, 0.4070309090621279)
STD = (0.25492949231398077, 0.23054187352850616, 0.22834804939251105)
AGES, GENDERS = ("0-19", "20-39", "40+"), ("male", "female")
RACES = ("White", "Black", "Asian", "Indian")
_OTHERS = 4
_BOUNDS = (20, 40)
_TEST_PER_CELL = 100
_FOLDERS = ("UTKFace", "utkface", "utkface_aligned_cropped/UTKFace", "crop_part1", ".")
# Some names go on oddly after the date ("24_0_1_20170116220224657 .jpg.chip.jpg").
_NAME = re.compile(r"(\d{1,3})_([01])_([0-4])_\d")


def find(config: DataConfig, data_dir: Path | None, download: bool) -> Listing:
    """List UTKFace; see the module and `fairdd_jax.data.listing.Source`."""
    files = tfds_source.files_or_copy(
        "utkface",
        folder_of(data_dir),
        data_dir,
        wanted="the images (AGE_GENDER_RACE_DATE.jpg)",
        where=_FOLDERS[0],
    )
    chosen, attributes, notes = read_names(files.names)
    if not chosen.size:
        raise DataError(f"{files.place} has no image named AGE_GENDER_RACE_DATE.jpg; {notes[0]}")
    target, protected = target_and_protected(attributes, config.target, config.protected)
    smallest = smallest_cell(target, protected, where=files.place)
    per_cell = _TEST_PER_CELL if smallest > _TEST_PER_CELL else max(1, smallest // 2)
    rng = np.random.RandomState(config.seed)
    train, test = balanced_split(target.values, protected.values, per_cell=per_cell, rng=rng)
    return Listing(
        "utkface",
        Listed(files, chosen[train], target.values[train], protected.values[train]),
        Listed(files, chosen[test], target.values[test], protected.values[test]),
        target.names,
        protected.names,
        Transform(config.size),
        MEAN,
        STD,
        notes,
    )


SOURCE = Source(
    find,
    frozenset({"seed", "balanced", "damaged"}),
    {"target": "age", "protected": "race", "size": 64},
)


def folder_of(data_dir: Path | None) -> Path | None:
    """The folder below the data folder that has the faces."""
    return find_folder(data_dir, _FOLDERS, _has_faces)


def _has_faces(folder: Path) -> bool:
    return folder.is_dir() and any(_NAME.match(path.name) for path in folder.rglob("*.jpg"))


def read_names(
    names: Sequence[str],
) -> tuple[np.ndarray, dict[str, Attribute], tuple[str, ...]]:
    r"""Which images can be used, their attributes, and what is to be said of the others.

    >>> names = ["1_0_2_2016.jpg.chip.jpg", "39_1_20170116.jpg", "50_1_4_2017.jpg"]
    >>> chosen, attributes, notes = read_names(names)
    >>> chosen.tolist(), attributes["race"].names[attributes["race"].values[0]]
    ([0], 'Asian')
    >>> print(*notes, sep="\n")
    1 file names do not say AGE_GENDER_RACE_DATE and are left out, such as 39_1_20170116.jpg
    1 images of the race 'others' are left out
    """
    matches = [_NAME.match(name.rpartition("/")[2]) for name in names]
    broken = [name for name, match in zip(names, matches, strict=True) if match is None]
    rows = [(i, *map(int, m.groups())) for i, m in enumerate(matches) if m is not None]
    table = np.array(rows, np.int64).reshape(-1, 4)
    known = table[table[:, 3] != _OTHERS]
    chosen, age, gender, race = known.T
    notes = []
    if broken:
        notes.append(
            f"{len(broken)} file names do not say AGE_GENDER_RACE_DATE and are left out, such as "
            f"{broken[0]}"
        )
    if len(known) < len(table):
        notes.append(f"{len(table) - len(known)} images of the race 'others' are left out")
    attributes = {
        "age": Attribute(np.searchsorted(_BOUNDS, age, side="right").astype(np.int32), AGES),
        "gender": Attribute(gender.astype(np.int32), GENDERS),
        "race": Attribute(race.astype(np.int32), RACES),
    }
    return chosen, attributes, tuple(notes)
