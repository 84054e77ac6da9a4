"""Run the rows of a table, those that are missing, and write the table.

python experiments/reproduce.py --table main --data_dir DATA [--ipc 10] [--only cmnist_fg fairdd]

The rows are in tables.toml. Each run is one call of run.py with checkpoints, so that what was
stopped goes on where it was; its results.json and the picture of its images are kept in
experiments/results/TABLE/, and what is there with the same settings is not run again. The table
and its picture are drawn from these files alone.
"""

import argparse
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import result_tables
from rich.console import Console

from fairdd_jax import command_line, interrupts, presets, workdir
from fairdd_jax import config as configuration
from fairdd_jax import console as terminal
from fairdd_jax.config import Config
from fairdd_jax.errors import ConfigError, unknown_name
from fairdd_jax.report.record import read_results
from fairdd_jax.resume import FOLDER as CHECKPOINTS
from fairdd_jax.resume import grown
from fairdd_jax.schema import SURROUNDINGS, completed, flat

HERE = Path(__file__).parent
RESULTS = HERE / "results"
TABLES = HERE / "tables.toml"


@dataclass(frozen=True)
class Job:
    """One run.

    Attributes:
      table: that it belongs to.
      row: name of its row.
      preset: what `--config` takes.
      recipe: what `--recipe` takes, if anything.
      settings: fields that differ from these, seed and ipc included.
      minutes: about what it takes on 2 CPU cores.
    """

    table: str
    row: str
    preset: str
    recipe: str | None
    settings: dict[str, Any]
    minutes: float

    @property
    def name(self) -> str:
        """Of its files."""
        return f"{self.preset}_{self.row}_ipc{self.settings['ipc']}_seed{self.settings['seed']}"

    @property
    def words(self) -> set[str]:
        """By which `--only` finds it."""
        return {self.name, self.preset, self.preset.rpartition("_")[0], self.row}

    def config(self) -> Config:
        """Its settings, all of them."""
        chosen = presets.compose(self.preset, recipe=self.recipe) | self.settings
        return configuration.make(chosen)

    def is_of(self, config: dict[str, Any], *, so_far: bool = False) -> bool:
        """Whether a run with that configuration is this one, wherever it was computed.

        Args:
          config: as its files have it.
          so_far: or is its beginning.
        """
        mine, config = self.config(), completed(config)
        may_differ = SURROUNDINGS | (grown(config, mine) if so_far else frozenset())
        return all(
            config.get(name) == value
            for name, value in mine.as_json().items()
            if name not in may_differ
        )

    def command(self, folder: Path, data_dir: Path | None) -> list[str]:
        """The call of run.py."""
        line = [sys.executable, str(HERE / "run.py"), "--config", self.preset]
        line += ["--recipe", self.recipe] if self.recipe else []
        # What is left of a run with other settings cannot be gone on with.
        kept, so_far = folder / "config.json", (folder / CHECKPOINTS).exists()
        is_other = kept.exists() and not self.is_of(workdir.read_json(kept), so_far=so_far)
        line += ["--workdir", str(folder), "--resume", "never" if is_other else "auto"]
        line += ["--data_dir", str(data_dir)] if data_dir else []
        for field, value in self.settings.items():
            line += [f"--{field}", str(value)]
        return line


def read_jobs(table: str) -> list[Job]:
    """The runs of a table; all rows with their first seed come first.

    Raises:
      ConfigError: an unknown table.
    """
    tables = tomllib.loads(TABLES.read_text())
    if table not in tables:
        raise unknown_name("table", table, tables)
    found = []
    for row in tables[table]["rows"]:
        common = flat(tables[table].get("settings", {})) | flat(row.get("settings", {}))
        for position, preset in enumerate(row["configs"]):
            for seed in range(row["seeds"][position]):
                settings = {"ipc": row.get("ipc", 10), "seed": seed} | common
                found.append(
                    Job(table, row["name"], preset, row.get("recipe"), settings, row["minutes"])
                )
    return sorted(found, key=lambda job: job.settings["seed"])


def is_finished(job: Job, results: Path) -> bool:
    """Whether there are results of a run with these settings."""
    path = results / job.table / f"{job.name}.json"
    return path.exists() and job.is_of(read_results(path)["config"])


def minutes_left(left: Iterable[Job], taken: Iterable[tuple[Job, float]]) -> float:
    """An estimate for the runs that are left.

    A run takes what tables.toml says, times how much longer than that the others took: those of
    its row where there are any, else all.

    Args:
      left: the runs.
      taken: runs that are done, and the minutes of each.

    >>> job = Job("main", "fairdd", "cmnist_fg_dm", None, {"ipc": 10, "seed": 0}, minutes=20)
    >>> from dataclasses import replace
    >>> other = replace(job, row="cobra", minutes=10)
    >>> minutes_left([job, other], [(job, 30.0)])
    45.0
    """
    taken = list(taken)
    total = 0.0
    for job in left:
        like = [done for done in taken if done[0].row == job.row] or taken
        expected = sum(other.minutes for other, _ in like)
        total += job.minutes * (sum(minutes for _, minutes in like) / expected if like else 1.0)
    return total


def keep(job: Job, folder: Path, results: Path) -> None:
    """Copy what is kept of a run."""
    content = read_results(folder / "results.json")
    place = workdir.prepare(results / job.table)
    if not content["config"]["data"]["validation"]:  # settings on trial need no picture
        picture = folder / "images" / f"step_{content['config']['steps']:06d}.png"
        workdir.write_atomically(place / f"{job.name}.png", picture.read_bytes())
    workdir.write_json(place / f"{job.name}.json", content)


def chosen_jobs(options: argparse.Namespace) -> list[Job]:
    """Those that the command line asks for.

    Raises:
      ConfigError: there is none.
    """
    jobs = read_jobs(options.table)
    known = set().union(*(job.words for job in jobs))
    if unknown := set(options.only) - known:
        raise unknown_name("row", min(unknown), known)
    # Of names of rows and of other names, where there are any, one must fit.
    rows = {job.row for job in jobs}
    kinds = [names for names in (set(options.only) & rows, set(options.only) - rows) if names]
    jobs = [
        job
        for job in jobs
        if options.ipc in (None, job.settings["ipc"]) and all(job.words & names for names in kinds)
    ]
    if not jobs:
        raise ConfigError(
            f"no run of {options.table} fits --ipc {options.ipc} and --only "
            f"{' '.join(options.only) or 'of all'}; leave one of them out"
        )
    return jobs


def call(command: list[str]) -> int:
    """Run a program to its end. A signal is passed on to it, and it has the time that it needs.

    Returns:
      Its exit code; after a signal never 0, however near its end it was.
    """
    stopped = 0
    # In a group of its own it hears what a terminal sends to all once, and from here.
    with subprocess.Popen(command, process_group=0) as child:
        while True:
            try:
                return child.wait() or stopped
            except KeyboardInterrupt:
                stopped = interrupts.INTERRUPTED
                child.send_signal(signal.SIGINT)
            except interrupts.Terminated:
                stopped = interrupts.TERMINATED
                child.terminate()


def main(arguments: list[str]) -> int:
    """Parse, run what is missing, write the table; returns the exit code."""
    signal.signal(signal.SIGTERM, interrupts.raise_terminated)
    jax.config.update("jax_platforms", "cpu")  # the accelerator is for the runs
    return terminal.exit_code(run, arguments)


def run(arguments: list[str], console: Console) -> int:
    """Everything between the command line and the exit code."""
    options = read_options(arguments)
    results, runs = options.results, options.workdir / options.table
    jobs = chosen_jobs(options)
    left = [job for job in jobs if not is_finished(job, results)]
    console.print(f"{options.table}: {len(jobs) - len(left)} of {len(jobs)} runs are there")
    if len(left) < len(jobs):
        result_tables.write(options.table, results)
    if options.list:
        for job in left:
            console.print(f"{job.name}: about {job.minutes:g} minutes")
        return 0
    taken: list[tuple[Job, float]] = []
    while left:
        job = left[0]
        console.print(f"{job.name}; left: about {minutes_left(left, taken):.0f} minutes")
        console.file.flush()  # what run.py prints comes after it
        is_begun = (runs / job.name / "config.json").exists()
        began = time.perf_counter()
        code = call(job.command(runs / job.name, options.data_dir))
        if code:
            return code  # run.py has said why
        keep(job, runs / job.name, results)
        left.pop(0)
        if not is_begun:  # else this was not all of it
            taken.append((job, (time.perf_counter() - began) / 60))
        result_tables.write(options.table, results)
    return 0


def read_options(arguments: list[str]) -> argparse.Namespace:
    """The command line.

    Raises:
      ConfigError: a wrong option.
    """
    parser = command_line.options_parser(__doc__)
    parser.add_argument("--table", default="main", help="in tables.toml")
    parser.add_argument("--ipc", type=int, help="rows with as many images per class alone")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="NAME", help="these data sets, rows or runs alone"
    )
    parser.add_argument("--data_dir", type=command_line.path, help="where the data files are")
    parser.add_argument(
        "--list", action="store_true", help="draw what is there, say what is left, and stop"
    )
    for name, default, text in (
        ("workdir", Path("runs"), "folder of the runs"),
        ("results", RESULTS, "what is kept of them"),
    ):
        parser.add_argument(f"--{name}", type=command_line.path, default=default, help=text)
    return command_line.parse(parser, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
