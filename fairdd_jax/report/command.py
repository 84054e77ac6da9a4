"""The command that repeats a run."""

import shlex
import sys
from typing import Any

from fairdd_jax import config as configuration
from fairdd_jax import models, presets
from fairdd_jax.data import SOURCES
from fairdd_jax.errors import FairDDError
from fairdd_jax.schema import flat


def command_of(config: dict[str, Any]) -> str | None:
    """The command line that gives this configuration, the shortest of those with any recipe.

    Fields that nothing reads beside the others are left out, as the command line wants it.

    Args:
      config: as in results.json; fields that it lacks are left to the program.

    Returns:
      A line for a shell; None where no preset leads there, as for arrays of the user's own.

    >>> from fairdd_jax.config import make
    >>> chosen = presets.compose("cmnist_fg_dm") | {"ipc": 3}
    >>> command_of(make(chosen).as_json())
    'python experiments/run.py --config cmnist_fg_dm --data_dir DATA --ipc 3'
    """
    source, method = config["data"]["name"], config["method"]
    name = "demo" if (source, method) == ("demo", "dm") else f"{source}_{method}"
    if source not in SOURCES or name not in presets.names():
        return None
    values = flat(config)
    networks = f"{values.get('model')},{values.get('evaluate.archs')}"
    if any(name.partition(":")[0] not in sys.modules for name in models.imports(networks)):
        return None  # a file may come from anybody, and what it names is not run for a line of text
    lines = [_line(flat(config), name, recipe) for recipe in (None, *presets.recipes(method))]
    return min((shlex.join(line) for line in lines if line), key=len, default=None)


def _line(wanted: dict[str, Any], name: str, recipe: str | None) -> list[str] | None:
    chosen = presets.compose(name, recipe=recipe)
    line = ["python", "experiments/run.py", "--config", name]
    if name != "demo":
        line += ["--data_dir", "DATA"]
    line += ["--recipe", recipe] if recipe else []
    try:
        read = wanted.keys() - configuration.unread(configuration.make(chosen | wanted)).keys()
    except FairDDError:
        return None
    # All that differ at once: some are refused without each other.
    own: set[str] = set()
    while (differing := _differing(chosen, wanted, own, read)) != set():
        if differing is None or differing <= own:
            return None
        own |= differing
    # Fields that follow from others are left out; none does that the preset sets.
    for field in sorted(own - chosen.keys(), key=_rank, reverse=True):
        if _differing(chosen, wanted, own - {field}, read) == set():
            own.remove(field)
    for field in sorted(own, key=_rank):
        line += [f"--{field}", _text(wanted[field])]
    return line


def _differing(
    chosen: dict[str, Any], wanted: dict[str, Any], own: set[str], read: set[str]
) -> set[str] | None:
    """Of the fields that are read, those that differ if one's own are set; None if refused."""
    try:
        made = configuration.make(chosen | {field: wanted[field] for field in own})
    except FairDDError:
        return None
    got = flat(made.as_json())
    return {field for field in read if got.get(field) != wanted[field]}


def _rank(field: str) -> tuple[bool, bool, str]:
    """Fields that decide about others come first."""
    return field not in ("fairness", "ipc", "seed", "steps"), "." in field, field


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "null" if value is None else str(value)
