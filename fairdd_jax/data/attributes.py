"""Attributes of images, by name: which one is the target, which ones are protected."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fairdd_jax.errors import ConfigError, DataError, unknown_name


@dataclass(frozen=True, eq=False)
class Attribute:
    """One attribute of every image.

    Attributes:
      values: integers ``[N]``, an index into the names.
      names: what each value is called.
    """

    values: np.ndarray
    names: tuple[str, ...]

    def take(self, positions: np.ndarray) -> "Attribute":
        """The attribute of some of the images."""
        return Attribute(self.values[positions], self.names)


def select(attributes: Mapping[str, Attribute], wanted: str, *, role: str) -> Attribute:
    """The attribute of that name; several, separated by commas, are crossed.

    Args:
      attributes: all there are, by name.
      wanted: one name or several, whatever their case unless two differ in it alone.
      role: "target" or "protected", for messages.

    Returns:
      The attribute; crossed ones number their values like digits, the first attribute the most
      significant, and name them "a & b".

    Raises:
      ConfigError: an unknown name or one that comes twice.

    >>> male = Attribute(np.array([0, 1, 1]), ("not male", "male"))
    >>> tie = Attribute(np.array([0, 0, 1]), ("no tie", "tie"))
    >>> both = select({"male": male, "tie": tie}, "Male,tie", role="protected")
    >>> both.values.tolist(), both.names[2]
    ([0, 2, 3], 'male & no tie')
    """
    names = _names(attributes, wanted, role)
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"the {role} attribute '{name}' comes twice; name it once")
    result = attributes[names[0]]
    for name in names[1:]:
        other = attributes[name]
        result = Attribute(
            result.values * len(other.names) + other.values,
            tuple(f"{a} & {b}" for a in result.names for b in other.names),
        )
    return result


def _names(attributes: Mapping[str, Attribute], wanted: str, role: str) -> list[str]:
    """The names as the attributes have them."""
    by_lower = {name.lower(): name for name in attributes}
    names = [name.strip() for name in wanted.split(",")]
    for name in names:
        if name.lower() not in by_lower:
            raise unknown_name(f"{role} attribute", name.lower(), by_lower)
    return [name if name in attributes else by_lower[name.lower()] for name in names]


def target_and_protected(
    attributes: Mapping[str, Attribute], target: str, protected: str
) -> tuple[Attribute, Attribute]:
    """Both by name; see `select`.

    Raises:
      ConfigError: an unknown name, or one attribute in both roles.
    """
    roles = (("target", target), ("protected", protected))
    chosen = [select(attributes, wanted, role=role) for role, wanted in roles]
    shared = set.intersection(*(set(_names(attributes, w, role)) for role, w in roles))
    if shared:
        raise ConfigError(
            f"'{min(shared)}' is both target and protected; a classifier of it cannot be fair to it"
        )
    return chosen[0], chosen[1]


def smallest_cell(target: Attribute, protected: Attribute, *, where: str) -> int:
    """Images of the smallest (class, group) cell, of the classes and groups that occur.

    Raises:
      DataError: it is empty, so that no even split can be drawn.

    >>> male = Attribute(np.array([0, 1, 1, 0, 1]), ("not male", "male"))
    >>> tie = Attribute(np.array([0, 0, 1, 1, 1]), ("no tie", "tie"))
    >>> smallest_cell(tie, male, where="the test part")
    1
    """
    cells = [
        (np.sum((target.values == label) & (protected.values == group)), label, group)
        for label in np.unique(target.values)
        for group in np.unique(protected.values)
    ]
    count, label, group = min(cells)
    if not count:
        raise DataError(
            f"{where} has no image that is '{target.names[label]}' and '{protected.names[group]}', "
            "so that no even test split can be drawn; choose other attributes"
        )
    return int(count)


def categories(values: Sequence[str], *, what: str) -> Attribute:
    """Values of any kind as an attribute: numbers in their order, other texts alphabetically.

    Args:
      values: a text per image.
      what: their name, for messages.

    Raises:
      DataError: fewer than two different values, or more than a thousand.

    >>> categories(["10", "9", "10"], what="age").names
    ('9', '10')
    """
    different = set(values)
    try:
        names = sorted(different, key=_number)
    except ValueError:
        names = sorted(different)
    if len(names) < 2:
        raise DataError(
            f"{what} has the one value '{names[0]}' for all {len(values)} images; at least two are "
            "needed, choose another column"
        )
    if len(names) > 1000:
        raise DataError(
            f"{what} has {len(names)} different values for {len(values)} images; choose a column "
            "with few, or put them into bins first"
        )
    index = {name: position for position, name in enumerate(names)}
    return Attribute(np.array([index[value] for value in values], np.int32), tuple(names))


def _number(text: str) -> tuple[float, str]:
    """A text as a number, and for those that are the same number ("1", "1.0") the text."""
    number = float(text)
    if not math.isfinite(number):  # there is no order with NaN in it
        raise ValueError(f"'{text}' is no number")
    return number, text
