"""Write a distilled set as PNG files, which Hugging Face datasets and tensorflow-datasets read.

python experiments/export.py RUN FOLDER

RUN is the folder of a run or a distilled.npz. FOLDER is new; experiments/docs/takeaway.md says how
others read it.
"""

import sys

from rich.console import Console

from fairdd_jax import command_line
from fairdd_jax import console as terminal
from fairdd_jax.distilled import load_distilled
from fairdd_jax.errors import ConfigError


def main(arguments: list[str]) -> int:
    """Read, write; returns the exit code."""
    return terminal.exit_code(run, arguments)


def run(arguments: list[str], console: Console) -> int:
    """Everything between the command line and the exit code."""
    places, options = command_line.places(arguments, "RUN", "FOLDER")
    if not places:
        print(__doc__)
        return 0
    if options:
        raise ConfigError(f"unknown option '{options[0]}'; export.py has --help alone")
    source, folder = places
    distilled = load_distilled(source)
    distilled.export(folder)
    line = f"{len(distilled.images)} images of {len(distilled.class_names)} classes, written to"
    terminal.say(console, f"{line} {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
