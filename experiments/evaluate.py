"""Score a distilled set on the test images of a data set.

python experiments/evaluate.py SET --data_dir DATA [--evaluate.archs M] [--any.field VALUE ...]
python experiments/evaluate.py SET --config cmnist_fg_dm --data_dir DATA

SET is a distilled.npz, the folder of a run, a folder that export.py wrote, or one of images
CLASS/file. Without --config the settings are those of the run that made it, if it says which;
else --data.name suffices. The scores go to evaluation.json.
"""

import signal
import sys
from itertools import count
from pathlib import Path

from rich.console import Console

from fairdd_jax import command_line, comparison, interrupts, models, rescoring, sharding, workdir
from fairdd_jax import console as terminal
from fairdd_jax.config import Config
from fairdd_jax.data import Dataset
from fairdd_jax.distilled import load_distilled
from fairdd_jax.errors import WorkdirError
from fairdd_jax.schema import SURROUNDINGS, differences

SCORES = "evaluation.json"


def main(arguments: list[str]) -> int:
    """Parse, load, score; returns the exit code."""
    signal.signal(signal.SIGTERM, interrupts.raise_terminated)
    sharding.use_all_cores()
    return terminal.exit_code(run, arguments)


def run(arguments: list[str], console: Console) -> int:
    """Everything between the command line and the exit code."""
    places, rest = command_line.places(arguments, "SET")
    distilled = load_distilled(places[0]) if places else None
    chosen = command_line.read_options(rest)[0].config
    typed = [name for argument in rest for name in models.imports(argument.rpartition("=")[2])]
    command = command_line.read_command(
        rest,
        description=__doc__,
        is_run=False,
        settings=rescoring.settings(distilled, trusted=typed) if distilled and not chosen else None,
    )
    if command is None or distilled is None:
        return 0
    config = command.config
    dataset = terminal.load(command, console)
    folder = workdir.prepare(_folder(command, places[0], dataset))
    with workdir.locked(folder):
        this = rescoring.Rescoring(distilled, config, dataset)
        with terminal.progress_bar(console, "score the set", this.steps, "steps") as advance:
            for results in this.results(advance):  # what comes next may not fit in the memory
                workdir.write_json(folder / SCORES, {"set": _absolute(places[0])} | results)
    console.print(terminal.score_table(comparison.score_rows({"the set": results})))
    terminal.say(console, f"written to {folder}")
    return 0


def _folder(command: command_line.Command, place: str, dataset: Dataset) -> Path:
    """The output folder; by default a new one for every set, all settings and test images."""
    name = f"evaluate_{_name(place)}_{command.config.data.name}"
    names = (name if number == 1 else f"{name}_{number}" for number in count(1))
    for each in names:
        folder = command_line.output_folder(command, each)
        with workdir.explained(folder):
            there = _others(folder / SCORES, place, command.config, dataset)
        if not there:
            return folder
        if command.options.workdir:
            break
    raise WorkdirError(f"{folder} holds scores of {there}; choose another --workdir")


def _others(path: Path, place: str, config: Config, dataset: Dataset) -> str:
    """Whose scores are in a file, if they are those of something else."""
    there = workdir.read_json(path) if path.exists() else {}
    if not there:
        return ""
    if there.get("set") != _absolute(place):
        return f"another set, {there.get('set')}"
    if there.get("dataset", {}).get("fingerprint") != dataset.fingerprint:
        return "other test images"
    # The number of images is that of the set.
    found = differences(there.get("config", {}), config, SURROUNDINGS | {"ipc"})
    return found and f"other settings: {found}"


def _absolute(place: str) -> str:
    return str(Path(place).resolve())


def _name(place: str) -> str:
    """What a set is called: its folder or file, and of a run's distilled.npz the run."""
    path = Path(place).resolve()
    if path.name == "distilled.npz":
        return path.parent.name
    return path.name if path.is_dir() else path.stem


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
