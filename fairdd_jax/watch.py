"""Looking at a run while it goes: TensorBoard, and a trace of the profiler."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
from jax.errors import JaxRuntimeError

from fairdd_jax import workdir
from fairdd_jax.errors import ConfigError
from fairdd_jax.loop import Progress

OnProgress = Callable[[Progress], None]


@contextlib.contextmanager
def tensorboard(folder: Path) -> Iterator[OnProgress]:
    """Write the lines of the log for TensorBoard too, below ``folder / "tensorboard"``.

    What an earlier run of the folder has written of the same updates is hidden.

    Yields a function that takes a line.

    Raises:
      ConfigError: the package tensorboardX is missing.
      WorkdirError: it cannot be written.
    """
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        raise ConfigError(
            'TensorBoard needs a package; pip install "fairdd-jax[tensorboard]", or leave '
            "--tensorboard out"
        ) from None
    place = folder / "tensorboard"
    writers: list[SummaryWriter] = []

    def on_progress(progress: Progress) -> None:
        with workdir.explained(place):
            if not writers:
                writers.append(SummaryWriter(str(place), purge_step=progress.update))
            for name, value in progress.line().items():
                if name not in ("step", "update"):
                    writers[0].add_scalar(name, value, progress.update)
            writers[0].flush()

    try:
        yield on_progress
    finally:
        with workdir.explained(place):
            for writer in writers:
                writer.close()


@contextlib.contextmanager
def profile(folder: Path) -> Iterator[OnProgress]:
    """Trace the updates between the first two lines of the log, below ``folder / "profile"``.

    By then everything is compiled. The trace opens in TensorBoard, XProf or Perfetto.

    Yields a function that takes a line.

    Raises:
      WorkdirError: it cannot be written.
    """
    place, lines, is_tracing = folder / "profile", 0, False

    def trace(start: bool) -> None:
        nonlocal is_tracing
        is_tracing = False  # also after an error
        with workdir.explained(place, (OSError, JaxRuntimeError)):
            if start:
                jax.profiler.start_trace(str(place))
            else:
                jax.profiler.stop_trace()
        is_tracing = start

    def on_progress(progress: Progress) -> None:
        nonlocal lines
        lines += 1
        if lines <= 2:
            trace(start=lines == 1)

    try:
        yield on_progress
    finally:
        if is_tracing:
            trace(start=False)
