"""Look at a data set before a run: images per cell, bias, duplicates, warnings, samples.

python experiments/audit.py --config celeba_dm --data_dir DATA [--data.target smiling ...]
python experiments/audit.py --data.name images --data.table faces.csv --data_dir DATA

Without a preset it looks with the sampler's default settings.
"""

import sys

from rich.console import Console

from fairdd_jax import command_line, report, workdir
from fairdd_jax import console as terminal
from fairdd_jax.audit import audit
from fairdd_jax.audit import report as audit_report
from fairdd_jax.data.cards import card
from fairdd_jax.start import parts_of


def main(arguments: list[str]) -> int:
    """Parse, load, look; returns the exit code."""
    return terminal.exit_code(run, arguments)


def run(arguments: list[str], console: Console) -> int:
    """Everything between the command line and the exit code, which is 0 with warnings too."""
    command = command_line.read_command(arguments, description=__doc__, is_run=False)
    if command is None:
        return 0
    config = command.config
    name = command.options.config or config.data.name
    folder = workdir.prepare(command_line.output_folder(command, f"audit_{name}"))
    dataset = terminal.load(command, console)
    stratified = config.sampling == "stratified"
    found = audit(
        dataset,
        per_cell=config.per_cell if stratified else None,
        batch_real=None if stratified else config.batch_real,
        ipc=config.ipc,
        parts=parts_of(config.init, factor=config.factor),
        empty=config.evaluate.empty,
    )
    picture = audit_report.picture(dataset)
    page = audit_report.page(found, picture, card(config.data.name))
    workdir.write_json(folder / "audit.json", found.as_dict())
    workdir.write_atomically(folder / "audit.png", report.png_bytes(picture))
    workdir.write_atomically(folder / "audit.html", page.encode())
    for title, split in (("training", found.train), ("test", found.test)):
        console.print(audit_report.table(found, split, title))
    lines = [f"warning: {finding.message}" for finding in found.findings]
    for line in [*lines, f"written to {folder}"]:
        terminal.say(console, line)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
