"""Score a distilled set on the test images of a data set.

python experiments/evaluate.py SET --data_dir DATA [--evaluate.archs M] [--any.field VALUE ...]
python experiments/evaluate.py SET --config cmnist_fg_dm --data_dir DATA

SET is a distilled.npz, the folder of a run, a folder that export.py wrote, or one of images
CLASS/file. Without --config the settings are those of the run that made it, if it says which;
else --data.name suffices. The scores go to evaluation.json.
"""

import sys
from pathlib import Path

from rich.console import Console

from fairdd_jax import command_line, comparison, models, rescoring, sharding, workdir
from fairdd_jax import console as terminal
from fairdd_jax.distilled import load_distilled


def main(arguments: list[str]) -> int:
    """Parse, load, score; returns the exit code."""
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
    config, options = command.config, command.options
    folder = Path(options.workdir or f"runs/evaluate_{_name(places[0])}_{config.data.name}")
    workdir.prepare(folder)
    with workdir.locked(folder):
        dataset = terminal.load(command, console)
        this = rescoring.Rescoring(distilled, config, dataset)
        with terminal.progress_bar(console, "score the set", this.steps, "steps") as advance:
            results = this.results(advance)
        workdir.write_json(folder / "evaluation.json", {"set": places[0]} | results)
    console.print(terminal.score_table(comparison.score_rows({"the set": results})))
    terminal.say(console, f"written to {folder}")
    return 0


def _name(place: str) -> str:
    """What a set is called: its folder or file, and of a run's distilled.npz the run."""
    path = Path(place).resolve()
    if path.name == "distilled.npz":
        return path.parent.name
    return path.name if path.is_dir() else path.stem


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
