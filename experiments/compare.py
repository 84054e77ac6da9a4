"""Put runs side by side: a table, a picture and a page.

python experiments/compare.py RUN RUN ... [--workdir DIR]

RUN is the output folder of a run. The table goes to the terminal, and comparison.json,
comparison.png and report.html to DIR, by default runs/comparison. Of a single run that was stopped
it makes the page that it lacks.
"""

import sys
from pathlib import Path

from rich.console import Console

from fairdd_jax import command_line, outputs, report, workdir
from fairdd_jax import console as terminal
from fairdd_jax.errors import ConfigError


def main(arguments: list[str]) -> int:
    """Read, compare, write; returns the exit code."""
    return terminal.exit_code(run, arguments)


def run(arguments: list[str], console: Console) -> int:
    """Everything between the command line and the exit code."""
    parser = command_line.options_parser(__doc__)
    parser.add_argument("runs", nargs="*", metavar="RUN", help="output folder of a run")
    parser.add_argument(
        "--workdir", type=command_line.path, default=Path("runs/comparison"), metavar="DIR"
    )
    options = command_line.parse(parser, arguments)
    if not options.runs:
        raise ConfigError("no run is named; pass the output folders of one or more")
    records = report.named(options.runs)
    folder = workdir.prepare(options.workdir)
    rows = outputs.save_comparison(records, folder)
    console.print(terminal.score_table(rows))
    terminal.say(console, f"written to {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
