"""What a person types: files, options, and the fields of the configuration."""

import argparse
import dataclasses
import os
from itertools import takewhile
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from fairdd_jax import augment, data, presets, resume
from fairdd_jax import config as configuration
from fairdd_jax.config import Config
from fairdd_jax.errors import ConfigError, unknown_name
from fairdd_jax.estimate import console as estimate_console
from fairdd_jax.schema import flat

# Options that only the program that distils has a use for.
_OF_A_RUN = ("checkpoint_every", "checkpoints", "distributed", "profile", "resume", "tensorboard")


@dataclasses.dataclass(frozen=True)
class Command:
    """A command line that has been read.

    Attributes:
      options: what decides about this run of the program, not about its result.
      fields: the parser of the configuration.
      rest: the arguments for it.
      config: the configuration.
    """

    options: argparse.Namespace
    fields: ArgumentParser
    rest: list[str]
    config: Config


def places(arguments: list[str], *names: str) -> tuple[list[str], list[str]]:
    """What comes before the options, files and folders, and the options.

    Args:
      arguments: what was typed.
      names: of what must be there.

    Returns:
      A place for each name, or none if the help or the list is asked for; and the options.

    Raises:
      ConfigError: too few or too many.

    >>> places(["runs/mine", "--ipc", "3"], "RUN")
    (['runs/mine'], ['--ipc', '3'])
    """
    given = list(takewhile(lambda argument: not argument.startswith("-"), arguments))
    options = arguments[len(given) :]
    if {"-h", "--help", "--list"} & set(options):
        return [], options
    if len(given) != len(names):
        raise ConfigError(
            f"{' '.join(names)} must come before the options, got "
            f"{' '.join(given) or 'nothing there'}; see --help"
        )
    return given, options


def output_folder(command: Command, default: str) -> Path:
    """Where a program writes: the folder that was typed, or one by that name below runs/.

    Raises:
      ConfigError: it lies among images whose folders are their labels, and would be a class.
    """
    options, data_config = command.options, command.config.data
    folder: Path = options.workdir or Path("runs", default)
    are_labels = data_config.name == "images" and not data_config.table and options.data_dir
    if are_labels and folder.resolve().is_relative_to(options.data_dir.resolve()):
        raise ConfigError(
            f"the output folder {folder} lies in {options.data_dir}, where folders are classes; "
            "choose a --workdir outside"
        )
    return folder


def path(text: str) -> Path:
    """The type of an option that names a folder or a file; ~ is the home.

    >>> path("~/runs") == Path.home() / "runs"
    True
    """
    if not text:  # as an unset variable of the shell gives it
        raise argparse.ArgumentTypeError("it is empty; name a place, or leave the option out")
    return Path(os.path.expanduser(text))


def options_parser(description: str | None = None) -> argparse.ArgumentParser:
    """A parser for `parse` and `parse_known`; with a description it takes --help too."""
    return argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=description is not None,
        allow_abbrev=False,
        exit_on_error=False,
    )


def parse_known(
    parser: argparse.ArgumentParser, arguments: list[str]
) -> tuple[argparse.Namespace, list[str]]:
    """The options of a parser, and the arguments that are not its own.

    Raises:
      ConfigError: a value that is none.
    """
    try:
        return parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise ConfigError(str(error)) from None


def parse(parser: argparse.ArgumentParser, arguments: list[str]) -> argparse.Namespace:
    """The options of a parser that has to know them all.

    Raises:
      ConfigError: an unknown option, or a value that is none.

    >>> parser = options_parser("Count.")
    >>> _ = parser.add_argument("--up_to", type=int)
    >>> parse(parser, ["--up_to", "3"]).up_to
    3
    """
    options, unknown = parse_known(parser, arguments)
    if unknown:
        raise ConfigError(f"unknown option {unknown[0]}; see --help")
    return options


def _add_options(parser: argparse.ArgumentParser, *, is_run: bool = True) -> None:
    def of_a_run(text: str) -> str:
        """The help of what other programs take in order to refuse it with a reason."""
        return text if is_run else argparse.SUPPRESS

    group = parser.add_argument_group("program")
    group.add_argument("--config", metavar="NAME", help="a preset; --list prints them")
    group.add_argument("--list", action="store_true", help="print the presets and stop")
    group.add_argument(
        "--recipe", help="official or cobra: every value of that program; mosaic: ours"
    )
    group.add_argument("--quick", action="store_true", help="the same code path in seconds")
    for name, text in (
        ("workdir", "output folder; by default below runs/"),
        ("data_dir", "where the data files are"),
        ("cache_dir", "where decoded images are kept"),
    ):
        group.add_argument(f"--{name}", type=path, metavar="DIR", help=text)
    group.add_argument("--download", action="store_true", help="allow downloads")
    group.add_argument(
        "--tensorboard",
        action="store_true",
        help=of_a_run("write the log for TensorBoard too"),
    )
    group.add_argument(
        "--profile",
        action="store_true",
        help=of_a_run("trace the updates between two lines of the log"),
    )
    group.add_argument(
        "--resume",
        choices=("auto", "never"),
        help=of_a_run(
            "go on from the newest checkpoint in the output folder if there is one, or start over; "
            "by default a run that was stopped, or is finished with other settings, is left alone"
        ),
    )
    group.add_argument(
        "--checkpoint_every",
        metavar="UPDATES",
        type=int,
        default=resume.EVERY,
        help=of_a_run("updates between two checkpoints"),
    )
    group.add_argument(
        "--checkpoints",
        metavar="N",
        type=int,
        default=resume.KEEP,
        help=of_a_run("checkpoints that are kept: the last N and the best"),
    )
    estimate_console.add_options(group, shown=is_run)
    group.add_argument(
        "--distributed",
        metavar="PROCESSES",
        help=of_a_run(
            "join the other processes of this run: auto (Cloud TPU, SLURM), or HOST:PORT,N,I"
        ),
    )


def read_options(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """What decides about this run of the program, and the arguments that are left.

    Raises:
      ConfigError: a value that is none.
    """
    program = options_parser()
    _add_options(program)
    return parse_known(program, arguments)


def read_command(
    arguments: list[str],
    *,
    description: str | None,
    is_run: bool = True,
    settings: dict[str, Any] | None = None,
) -> Command | None:
    """Read a command line; None if it asked for the list or the help, which is then printed.

    Args:
      arguments: what was typed.
      description: of the program, for its help.
      is_run: whether the program distils: it needs --config, and others refuse its options.
      settings: what stands in place of a preset without --config; with the name of another data
        set, those of the data are left out.

    Raises:
      ConfigError: a wrong name, field or value.

    >>> command = read_command(["--config", "demo", "--ipc", "3"], description=None)
    >>> command.config.ipc, command.rest
    (3, ['--ipc', '3'])
    """
    options, rest = read_options(arguments)
    typed = {argument.partition("=")[0] for argument in arguments}
    for name in _OF_A_RUN:
        if f"--{name}" in typed and not is_run:
            raise ConfigError(f"--{name} is for experiments/run.py; leave it out")
    for name in ("checkpoint_every", "checkpoints"):
        if (value := getattr(options, name)) < 1:
            raise ConfigError(f"--{name} {value} is out of range; choose 1 or more")
    estimate_console.check_options(options, is_run=is_run)
    if options.list:
        for name, line in presets.names().items():
            print(f"{name:16} {line}")
        return None
    preset = (
        presets.compose(options.config, recipe=options.recipe, quick=options.quick)
        if options.config
        else {}
    )
    settings = preset or _of_data_set(settings or {}, rest)
    if any(argument in ("-h", "--help") for argument in rest):
        _print_help(settings, description, is_run=is_run)
        return None
    if not preset and (is_run or options.recipe or options.quick):
        changed = "" if is_run else ", which --recipe and --quick change"
        raise ConfigError(f"--config NAME is missing{changed}; --list prints the names")
    fields = configuration.parser({"data.name": ""} | settings)
    _add_options(fields)
    config = configuration.from_arguments(fields, rest)
    if not config.data.name:
        raise ConfigError("--config NAME or --data.name NAME is missing; --list prints the presets")
    for field, value in (("method", config.method), ("data.name", config.data.name)):
        if value != preset.get(field, value):
            raise ConfigError(
                f"--{field} {value} contradicts --config {options.config}; --list prints the names"
            )
    if config.data.name not in data.names():
        raise unknown_name("data set", config.data.name, data.names())
    values = flat(dataclasses.asdict(config))
    for field, why in configuration.unread(config).items():
        # Switching off what is not on does no harm.
        if f"--{field}" in typed and values[field] not in (None, 0, augment.NONE):
            raise ConfigError(f"--{field} changes nothing here: {why}; leave it out")
    return Command(options, fields, rest, config)


def _of_data_set(settings: dict[str, Any], arguments: list[str]) -> dict[str, Any]:
    """The settings that hold for the data set that the arguments name, if they name one."""
    parser = options_parser()
    parser.add_argument("--data.name", dest="name", nargs="?", default=settings.get("data.name"))
    if parser.parse_known_args(arguments)[0].name == settings.get("data.name"):
        return settings
    return {name: value for name, value in settings.items() if not name.startswith("data.")}


def _print_help(settings: dict[str, Any], description: str | None, *, is_run: bool) -> None:
    """Every field with its type and its value in the chosen preset."""
    resolved = flat(dataclasses.asdict(configuration.make(settings))) if settings else {}
    fields = configuration.parser(resolved)
    fields.description = description
    _add_options(fields, is_run=is_run)
    fields.print_help()
