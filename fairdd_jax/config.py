"""Configurations from the command line or from a dict, with complaints in one line.

Values come, each from one place and in this order, from the defaults of the dataclasses
(`fairdd_jax.schema`), from `fairdd_jax.presets`, and from the user; `fairdd_jax.resolve` checks
them and fills in what depends on the others.
"""

import dataclasses
import functools
import re
from argparse import ArgumentError
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from fairdd_jax.data import DataConfig
from fairdd_jax.errors import ConfigError, unknown_name
from fairdd_jax.resolve import BASELINES, baselines, halvings, resolve, unread
from fairdd_jax.schema import Config, EvaluateConfig, Init, flat

__all__ = [
    "BASELINES",
    "Config",
    "EvaluateConfig",
    "Init",
    "baselines",
    "from_arguments",
    "halvings",
    "make",
    "parser",
    "resolve",
    "unread",
    "without_paths",
]


def parser(settings: dict[str, Any] | None = None) -> ArgumentParser:
    """A parser of every field, with those settings in place of the defaults."""
    result = ArgumentParser(exit_on_error=False, default_env=False, allow_abbrev=False)
    result.add_class_arguments(Config, as_group=True)
    result.set_defaults(settings or {})
    return result


def make(settings: dict[str, Any]) -> Config:
    """A resolved configuration from settings such as ``{"data.name": "demo", "ipc": 1}``.

    Raises:
      ConfigError: a wrong name, type or value.

    >>> make({"data.name": "cmnist_fg", "ipc": 1}).distance
    'squared_l2'
    """
    known = flat(dataclasses.asdict(Config(DataConfig("demo"))))
    for name in settings:
        if name not in known:
            raise unknown_name("field", name, known)
    arguments = [f"--{name}={'null' if v is None else v}" for name, v in settings.items()]
    return from_arguments(_parser_of_defaults(), arguments)


# Building it takes longer than parsing with it.
_parser_of_defaults = functools.cache(parser)


def from_arguments(fields: ArgumentParser, arguments: list[str]) -> Config:
    """A resolved configuration from command-line arguments.

    Raises:
      ConfigError: a wrong name, type or value, in one line.
    """
    try:
        parsed = fields.instantiate(fields.parse_args(arguments))
    except ArgumentError as error:
        raise _explained(error, fields) from None
    names = {field.name for field in dataclasses.fields(Config)}
    return resolve(Config(**{name: value for name, value in parsed.items() if name in names}))


def _explained(error: ArgumentError, fields: ArgumentParser) -> ConfigError:
    """The parser's complaint in one line, with the nearest valid choice."""
    text = " ".join(str(error).split())
    misspelt = re.match(r"unrecognized arguments: --(\S+?)(=.*|\s.*)?$", text)
    if misspelt:
        options = [o[2:] for action in fields._actions for o in action.option_strings]
        return unknown_name("option", misspelt[1], (o for o in options if o != "help"))
    choice = re.match(r'Parser key "(.*)": Expected a .*Literal\[(.*)\].* Got value: (.*)$', text)
    if choice:
        return unknown_name(choice[1], choice[3], re.findall(r"'(.*?)'", choice[2]))
    typed = re.match(
        r'Parser key "(.*?)": (?:Expected|Does not validate) (.*?)(?:Got|Given) value.*?: (.*)$',
        text,
    )
    if typed:
        types = dict.fromkeys(re.findall(r"<class '(\w+)'>", typed[2]))
        valid = " or ".join(types).replace("NoneType", "null")
        got = typed[3].removeprefix("<class 'str'> Given value: ")
        return ConfigError(
            f"--{typed[1]} must be {valid}, got {got}; see --help for every field with its type"
        )
    return ConfigError(text)


def without_paths(config: Config) -> dict[str, Any]:
    """The configuration with the table of own images by its name, wherever it lies."""
    table = config.data.table
    named = dataclasses.replace(config.data, table=table and Path(table).name)
    return dataclasses.asdict(dataclasses.replace(config, data=named))
