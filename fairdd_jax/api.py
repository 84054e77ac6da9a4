"""The short way in: distil a data set, score the result, save it."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fairdd_jax import config as configuration
from fairdd_jax import data, presets, workdir
from fairdd_jax.config import Config
from fairdd_jax.data import Dataset
from fairdd_jax.estimate import Estimate, estimate
from fairdd_jax.loop import Progress
from fairdd_jax.resume import Keeper
from fairdd_jax.run import Run


def distill(
    dataset: str | Dataset,
    *,
    ipc: int = Config.ipc,
    method: str = Config.method,
    fairness: str = Config.fairness,
    recipe: str | None = None,
    data_dir: str | Path | None = None,
    download: bool = False,
    cache_dir: str | Path | None = None,
    checkpoints: str | Path | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    **settings: Any,
) -> Run:
    """Condense a data set into a few synthetic images per class.

    Args:
      dataset: a name of `fairdd_jax.data.names`, or a `fairdd_jax.data.Dataset` of your own.
      ipc: synthetic images per class.
      method: ``dm``, ``dc``, ``dsa``, ``idc``, ``dream`` or ``cafe``.
      fairness: a name of `fairdd_jax.losses.FAIRNESS`, as ``vanilla``, ``fairdd`` or ``cobra``.
      recipe: ``official`` or ``cobra`` takes every value of that program, sampling included;
        ``mosaic`` is our own method.
      data_dir: where the files of a named data set are.
      download: whether they may be downloaded.
      cache_dir: where decoded images are kept, by default in the user's cache folder.
      checkpoints: an output folder that keeps checkpoints of this run; if it has some already, of
        the same settings or of fewer steps, the run goes on from the newest.
      on_progress: called at every line of the log.
      **settings: any other field of `fairdd_jax.config.Config`; nested ones with a dot, as in
        ``**{"evaluate.epochs": 300}``. Of a data set of your own, ``data.`` fields only record what
        it is.

    Returns:
      The finished run, which evaluates and saves itself.

    Raises:
      ConfigError: a wrong name or value, or checkpoints of other settings.
      DataError: missing or damaged data.
      NonFiniteLossError: the loss became NaN or infinite.
      WorkdirError: checkpoints cannot be written.
      fairdd_jax.interrupts.Terminated: as `fairdd_jax.run.Run.distill`.

    >>> import numpy as np
    >>> from fairdd_jax.data import Dataset
    >>> rng = np.random.default_rng(0)
    >>> images = rng.integers(0, 256, (40, 8, 8, 3), np.uint8)
    >>> split = images, np.arange(40) % 2, np.arange(40) // 20
    >>> run = distill(Dataset.from_arrays(split, split), ipc=1, steps=1, model="ConvNetD1W8")
    >>> run.distilled().images.shape
    (2, 8, 8, 3)
    """
    config = _config(dataset, method, recipe, {"ipc": ipc, "fairness": fairness, **settings})
    if isinstance(dataset, str):
        dataset = data.load(config.data, data_dir=data_dir, download=download, cache_dir=cache_dir)
    run = Run(config, dataset)
    if checkpoints is None:
        run.distill(on_progress)
    else:
        with (
            workdir.locked(workdir.prepare(Path(checkpoints))),
            Keeper(checkpoints, config) as keeper,
        ):
            run.distill(on_progress, keeper=keeper)
    return run


def dry_run(
    dataset: str | Dataset,
    *,
    ipc: int = Config.ipc,
    method: str = Config.method,
    fairness: str = Config.fairness,
    recipe: str | None = None,
    data_dir: str | Path | None = None,
    download: bool = False,
    cache_dir: str | Path | None = None,
    minutes: float | None = None,
    **settings: Any,
) -> Estimate:
    """Estimate what `distill` and the scores will take on this machine, and do neither.

    A few updates and a few steps of the evaluation networks are timed; nothing is written
    but decoded images into the cache.

    Args:
      dataset: as in `distill`, and so all others.
      ipc: synthetic images per class.
      method: the matching method.
      fairness: what the synthetic images are matched to.
      recipe: ``official``, ``cobra`` or ``mosaic``.
      data_dir: where the files of a named data set are.
      download: whether they may be downloaded.
      cache_dir: where decoded images are kept.
      minutes: that all of it may take; if it takes more, settings that fit are looked for.
      **settings: any other field of `fairdd_jax.config.Config`.

    Returns:
      Seconds, bytes, and alternatives where memory or minutes do not suffice.

    Raises:
      ConfigError: a wrong name or value.
      DataError: missing or damaged data.
      NonFiniteLossError: the loss became NaN or infinite.

    >>> import numpy as np
    >>> from fairdd_jax.data import Dataset
    >>> rng = np.random.default_rng(0)
    >>> images = rng.integers(0, 256, (40, 8, 8, 3), np.uint8)
    >>> split = images, np.arange(40) % 2, np.arange(40) // 20
    >>> few = {"steps": 9, "evaluate.networks": 1, "evaluate.baselines": "none"}
    >>> found = dry_run(Dataset.from_arrays(split, split), ipc=1, model="MLP", **few)
    >>> found.fits, found.seconds["distil"] > 0, found.peak_bytes > images.nbytes
    (True, True, True)
    """
    config = _config(dataset, method, recipe, {"ipc": ipc, "fairness": fairness, **settings})
    began = time.perf_counter()
    if isinstance(dataset, str):
        dataset = data.load(config.data, data_dir=data_dir, download=download, cache_dir=cache_dir)
    load_seconds = time.perf_counter() - began
    return estimate([config], dataset, load_seconds=load_seconds, minutes=minutes)


def _config(
    dataset: str | Dataset, method: str, recipe: str | None, settings: dict[str, Any]
) -> Config:
    """The resolved configuration of a method on a data set."""
    name = dataset if isinstance(dataset, str) else dataset.name
    chosen = presets.compose_parts(method, data=name, recipe=recipe)
    return configuration.make(chosen | {"data.name": name} | settings)
