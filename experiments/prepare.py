"""Pack a folder of images into a copy for tensorflow-datasets, which loads faster and moves easily.

python experiments/prepare.py --data.name utkface --data_dir FOLDER --workdir COPIES

COPIES is then a --data_dir like any other, without FOLDER. It takes TensorFlow to prepare, not to
read: pip install "fairdd-jax[tfds]". With the user's own images (--data.name images) go the columns
that --data.target, --data.protected and --data.split_column name.
"""

import sys

from rich.console import Console

from fairdd_jax import command_line, data, workdir
from fairdd_jax import console as terminal
from fairdd_jax.data import bffhq, own, tfds_prepare, utkface
from fairdd_jax.errors import ConfigError, DataError

FOLDERS = {"utkface": utkface.folder_of, "bffhq": bffhq.folder_of}


def run(arguments: list[str], console: Console) -> int:
    """Everything between the command line and the exit code."""
    command = command_line.read_command(arguments, description=__doc__, is_run=False)
    if command is None:
        return 0
    config, options = data.resolved(command.config.data), command.options
    if options.data_dir is None or options.workdir is None:
        raise ConfigError("say where the images are and where the copy goes: --data_dir, --workdir")
    data_dir, to = options.data_dir, workdir.prepare(options.workdir)
    if config.name == "images":
        columns = own.labelled_rows(config, data_dir).columns
        copy = tfds_prepare.prepare_files("images", data_dir, to=to, columns=columns)
    elif config.name in FOLDERS:
        folder = FOLDERS[config.name](data_dir)
        if folder is None:
            raise DataError(f"{data_dir} has no images of {config.name}; --data_dir says where")
        copy = tfds_prepare.prepare_files(config.name, folder, to=to)
    else:
        raise ConfigError(
            f"{config.name} needs no preparing: its files are read as they are. Valid: "
            f"{', '.join([*FOLDERS, 'images'])}"
        )
    terminal.say(console, f"written to {copy}")
    return 0


if __name__ == "__main__":
    sys.exit(terminal.exit_code(run, sys.argv[1:]))
