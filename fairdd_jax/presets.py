"""Presets: what a name such as ``cmnist_fg_dm`` is composed of, from ``presets.toml``."""

import tomllib
from importlib import resources
from typing import Any

from fairdd_jax.errors import unknown_name
from fairdd_jax.methods import METHODS, method_named


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
    of_data = flat(table()["data"][source].get("settings", {}))
    settings = {"data.name": source} | of_data | compose_parts(method, recipe=recipe)
    settings |= flat(table()["demo"]) if name == "demo" else {}
    return settings | (flat(table()["quick"]) if quick else {})


def compose_parts(method: str, *, recipe: str | None = None) -> dict[str, Any]:
    """The settings of a method.

    Args:
      method: a name of `fairdd_jax.methods.METHODS`.
      recipe: ``official`` or ``cobra``: every value of that program.

    Raises:
      ConfigError: an unknown name.
    """
    method_named(method)
    entries = table()
    settings = {"method": method} | flat(entries["methods"][method])
    if recipe is None:
        return settings
    if recipe not in entries["recipes"]:
        raise unknown_name("recipe", recipe, entries["recipes"])
    return settings | flat(entries["recipes"][recipe][method])


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested dict with dotted keys.

    >>> flat({"ipc": 1, "evaluate": {"epochs": 300}})
    {'ipc': 1, 'evaluate.epochs': 300}
    """
    result: dict[str, Any] = {}
    for key, value in tree.items():
        dotted = prefix + key
        result |= flat(value, f"{dotted}.") if isinstance(value, dict) else {dotted: value}
    return result
