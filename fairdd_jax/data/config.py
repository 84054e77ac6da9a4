"""Which data set, and how: the settings of all sources."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from fairdd_jax.data.bias import COLOURS, Minority
from fairdd_jax.data.decode import Fit
from fairdd_jax.errors import ConfigError, unknown_name

# The value of a field that depends on others, here on the data set, until it is filled in. Type
# checkers see what it is filled in with: everybody but the code that does it works with that.
UNSET: Any = None
if TYPE_CHECKING:
    Int: TypeAlias = int
    Float: TypeAlias = float
    Str: TypeAlias = str
else:
    Int, Float, Str = int | None, float | None, str | None

Damaged = Literal["refuse", "leave_out"]

_INTEGERS = (("colours", 2, len(COLOURS)), ("severity", 0, 4), ("size", 1, 4096))  # and bounds


@dataclass(frozen=True)
class DataConfig:
    """Which data set to load and how.

    Attributes:
      name: data set; `fairdd_jax.data.names()` lists them.
      bias_ratio: share of each training class that has the colour of the class (colours), or
        that is grey (in the first half of the classes) or coloured (in the second); a fraction
        in [0, 1]. The test split has no bias, whatever this says.
      minority: how the other colours share the rest of a class: "equal" parts, or
        "unequal" ones in proportion 1:2:..., dealt to the colours at random.
      colours: colours that there are, and groups, an integer in [2, 10]: with N of them class c has
        the colour c modulo N, the rest of it the other N - 1, and the test images all N, equally
        often. How the FairDD paper made fewer groups than ten (Table 13) is not printed; this
        is our reading.
      clean_colours: for cfmnist_bg, colours that fade evenly to black instead of the official
        ones, which wrap around modulo 256; the colours of the others are clean already.
      severity: for cifar10s, how much the first group differs from the second, an integer in [0, 4]
        (the grade of representation difference of the COBRA paper): 0 not at all, then other
        channels, a line, a square, noise and a second line, each on top of those before. Grey
        if null.
      seed: integer in [0, 2**32 - 1] that decides which image gets which colour and which split;
        30 is the official one of the coloured data sets.
      target: attribute (column) to predict, for data sets that have several; several separated by
        commas are crossed. The data set's own if null.
      protected: attribute (column) that must not matter, likewise.
      balanced: leave training images out until every (class, group) cell has as many as the
        smallest.
      size: side of the images in pixels. The data set's own if null.
      fit: images that are no squares are cut ("crop") or squeezed ("stretch").
      table: CSV or Parquet file with a row per image, for images; relative to the data folder.
        Without one the folders are the labels: CLASS/GROUP/file.
      path_column: column of the table that has the file names, relative to the data folder.
      split_column: column of the table that says train or test; rows of any other split are left
        out. Without one a part of every cell is for testing.
      test_fraction: that part.
      validation: share of the training images that is held out, evenly of every class (and group,
        unless the data set makes its own bias), and scored in place of the test images: what
        settings are chosen on. Where the bias is made, these images have none, as the test
        images.
      test_without: number of groups, the last ones, whose test images are left out; scores are of
        the others. Training has them all.
      damaged: images that cannot be decoded and rows without a value end the program ("refuse") or
        are left out and counted ("leave_out").

    Raises:
      ConfigError: on a value outside its range.

    >>> DataConfig("cmnist_fg").bias_ratio
    0.9
    """

    name: str
    bias_ratio: float = 0.9
    minority: Minority = "equal"
    colours: int = 10
    clean_colours: bool = False
    severity: Int = UNSET
    seed: int = 30
    target: Str = UNSET
    protected: Str = UNSET
    balanced: bool = False
    size: Int = UNSET
    fit: Fit = "crop"
    table: Str = UNSET
    path_column: str = "path"
    split_column: Str = UNSET
    test_fraction: float = 0.2
    validation: float = 0.0
    test_without: int = 0
    damaged: Damaged = "refuse"

    def __post_init__(self) -> None:
        for field in ("bias_ratio", "test_fraction", "validation"):
            value = getattr(self, field)
            if not isinstance(value, int | float) or not 0 <= value <= 1:
                raise ConfigError(f"{field} must be a fraction in [0, 1], got {value!r}")
        for field, valid in (("minority", Minority), ("fit", Fit), ("damaged", Damaged)):
            if getattr(self, field) not in get_args(valid):
                raise unknown_name(field, str(getattr(self, field)), get_args(valid))
        if not isinstance(self.seed, int) or not 0 <= self.seed < 2**32:
            raise ConfigError(f"seed must be an integer in [0, 2**32 - 1], got {self.seed!r}")
        for field in ("target", "protected", "table", "path_column", "split_column"):
            if getattr(self, field) == "":
                raise ConfigError(f"{field} is empty; give a name, or leave it out")
        for field, low, high in _INTEGERS:
            value = getattr(self, field)
            if value is UNSET is getattr(type(self), field):
                continue
            if not isinstance(value, int) or not low <= value <= high:
                raise ConfigError(f"{field} must be an integer in [{low}, {high}], got {value!r}")
        if not isinstance(self.test_without, int) or self.test_without < 0:
            raise ConfigError(
                f"test_without must be a number of groups, 0 or more, got {self.test_without!r}"
            )
