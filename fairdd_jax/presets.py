"""Presets: what a name such as ``cmnist_fg_dm`` is composed of, from ``presets.toml``."""

import tomllib
from importlib import resources
from typing import Any

from fairdd_jax.errors import ConfigError, unknown_name
from fairdd_jax.methods import METHODS, method_named
from fairdd_jax.schema import flat


def table() -> dict[str, Any]:
    """The content of ``presets.toml``."""
    return tomllib.loads(resources.files("fairdd_jax").joinpath("presets.toml").read_text())


def names() -> dict[str, str]:
    """Every preset name with a line about it.

    >>> "cmnist_fg_dm" in names()
    True
    """
    entries = table()
    lines = {"demo": "vanilla and FairDD side by side: " + entries["data"]["demo"]["summary"]}
    for source, entry in entries["data"].items():
        if source != "demo":
            for name, method in METHODS.items():
                lines[f"{source}_{name}"] = f"{entry['summary']}; {method.summary}"
    return lines


def compose(name: str, *, recipe: str | None = None, quick: bool = False) -> dict[str, Any]:
    """The settings of a preset that differ from the defaults, as ``{"evaluate.epochs": 300}``.

    Args:
      name: a name of `names`.
      recipe: as in `compose_parts`.
      quick: the same code path in seconds.

    Raises:
      ConfigError: an unknown name.

    >>> compose("cmnist_fg_dc")["steps"]
    1000
    """
    if name not in names():
        raise unknown_name("config", name, names())
    source, _, method = ("demo", "", "dm") if name == "demo" else name.rpartition("_")
    settings = {"data.name": source} | compose_parts(method, data=source, recipe=recipe)
    settings |= flat(table()["demo"]) if name == "demo" else {}
    if quick:
        small = flat(table()["quick"]) | _shared(method, source, quick=True)
        settings |= {name: value for name, value in small.items() if settings.get(name) != 0}
    return settings


def compose_parts(
    method: str, *, data: str | None = None, recipe: str | None = None
) -> dict[str, Any]:
    """The settings of a method, on a data set where some depend on it.

    Args:
      method: a name of `fairdd_jax.methods.METHODS`.
      data: name of the data set.
      recipe: ``official`` or ``cobra``: every value of that program; ``mosaic``: ours.

    Raises:
      ConfigError: an unknown name, or a program that does not have the method.
    """
    method_named(method)
    entries = table()
    settings = {"method": method} | flat(entries["data"].get(data, {}).get("settings", {}))
    settings |= flat(entries["methods"].get(method, {})) | _shared(method, data, quick=False)
    if recipe is None:
        return settings
    if recipe not in entries["recipes"]:
        raise unknown_name("recipe", recipe, entries["recipes"])
    if method not in entries["recipes"][recipe]:
        raise ConfigError(
            f"the program of recipe '{recipe}' has no {method}; it has "
            f"{', '.join(entries['recipes'][recipe])}"
        )
    return settings | flat(entries["recipes"][recipe][method])


def recipes(method: str) -> list[str]:
    """Recipes that a method has.

    >>> recipes("dm")
    ['official', 'cobra', 'mosaic']
    """
    return [name for name, methods in table()["recipes"].items() if method in methods]


def _shared(method: str, data: str | None, *, quick: bool) -> dict[str, Any]:
    """What a method shares with others, on every data set or on this one."""
    settings: dict[str, Any] = {}
    for entry in table()["shared"]:
        fits = method in entry["methods"] and data in entry.get("data", (data,))
        if fits and entry.get("quick", False) == quick:
            settings |= flat(entry["settings"])
    return settings
