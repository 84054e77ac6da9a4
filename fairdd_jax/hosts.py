"""Several processes that compute one run: how they find each other, and who writes its files."""

import re
import signal

import jax
import numpy as np

from fairdd_jax.errors import ConfigError

AUTO = "auto"
_EXPLICIT = re.compile(r"(\S+:\d{1,5}),(\d{1,6}),(\d{1,6})")


def join(others: str | None) -> None:
    """Join the processes of a run, before anything else uses JAX.

    Args:
      others: ``auto`` where the surroundings tell (Cloud TPU, SLURM, Open MPI); or, on any
        machines, ``HOST:PORT,N,I``: address of the first process, number of processes, and which of
        them, from 0, this is. Without it the run is this process alone.

    Raises:
      ConfigError: neither form, or the others are not found.
    """
    if others is None:
        return
    found = _EXPLICIT.fullmatch(others)
    if others != AUTO and (not found or int(found[3]) >= int(found[2])):
        raise ConfigError(
            f"--distributed must be auto, or HOST:PORT,N,I with I from 0 to N - 1, got '{others}'"
        )
    where = (found[1], int(found[2]), int(found[3])) if found else ()
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    handler = signal.getsignal(signal.SIGTERM)
    try:
        jax.distributed.initialize(*where)
        if handler is not None:
            signal.signal(signal.SIGTERM, handler)  # JAX has taken it
    except (ValueError, RuntimeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConfigError(
            f"--distributed {others}: the other processes were not found ({reason}); see "
            "experiments/docs/launch.md"
        ) from None


def is_first() -> bool:
    """Whether this process is the one that writes files and speaks to people."""
    return jax.process_index() == 0


def any_of(flag: bool) -> bool:
    """Whether any process says so; all of them must ask."""
    if jax.process_count() == 1:
        return flag
    from jax.experimental import multihost_utils

    return bool(multihost_utils.process_allgather(np.array(flag)).any())


def fetch(array: jax.Array) -> np.ndarray:
    """The whole of an array, wherever its parts are; all processes must ask."""
    if array.is_fully_addressable or array.is_fully_replicated:
        return np.asarray(array)
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(array, tiled=True))
