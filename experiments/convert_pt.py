"""Turn a result of the official PyTorch programs, FairDD's or COBRA's, into a distilled.npz.

python experiments/convert_pt.py FILE.pt OUT.npz --config cmnist_fg_dm --recipe official \
    --data_dir DATA [--experiment 0]

--config, or --data.name, says what it was made of; its method and recipe are how evaluate.py then
scores it. What COBRA's IDC saved takes the preset of IDC and --recipe cobra. It needs PyTorch:
pip install "fairdd-jax[torch]".
"""

import sys
from pathlib import Path

from rich.console import Console

from fairdd_jax import command_line, official_file
from fairdd_jax import console as terminal
from fairdd_jax.errors import ConfigError


def main(arguments: list[str]) -> int:
    """Read, convert, write; returns the exit code."""
    return terminal.exit_code(run, arguments)


def run(arguments: list[str], console: Console) -> int:
    """Everything between the command line and the exit code."""
    places, rest = command_line.places(arguments, "FILE.pt", "OUT.npz")
    chosen, rest = _experiment(rest)
    command = command_line.read_command(rest, description=__doc__, is_run=False)
    if command is None:
        return 0
    if command.options.workdir is not None:
        raise ConfigError(
            "--workdir means nothing here: OUT.npz is all that is written; leave it out"
        )
    source, target = map(Path, places)
    if target.suffix != ".npz":
        raise ConfigError(f"the second file is written and ends in .npz, got {target}")
    saved = official_file.read(source)
    if not 0 <= chosen < len(saved):
        raise ConfigError(f"--experiment {chosen} is out of range; {source} has {len(saved)}")
    dataset = terminal.load(command, console)
    distilled = official_file.convert(saved[chosen], command.config, dataset)
    distilled.save(target)
    several = f", experiment {chosen} of {len(saved)}" if len(saved) > 1 else ""
    line = f"{len(distilled.images)} images of {len(dataset.classes)} classes{several}, written to"
    terminal.say(console, f"{line} {target}")
    return 0


def _experiment(arguments: list[str]) -> tuple[int, list[str]]:
    """Which one is asked for, counted from 0, and the other arguments."""
    parser = command_line.options_parser()
    parser.add_argument("--experiment", type=int, default=0)
    found, rest = command_line.parse_known(parser, arguments)
    return found.experiment, rest


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
