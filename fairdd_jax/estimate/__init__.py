"""What runs will take on this machine, from a few of their own calls, and what would take less."""

import contextlib
import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass

from fairdd_jax import config as configuration
from fairdd_jax import environment
from fairdd_jax.config import Config
from fairdd_jax.data import Dataset
from fairdd_jax.estimate import timing
from fairdd_jax.estimate.alternatives import Alternative, changed, less_memory, less_time
from fairdd_jax.estimate.pace import Pace, Seconds
from fairdd_jax.run import Run
from fairdd_jax.schedule import passes

__all__ = ["Alternative", "Estimate", "estimate"]


@dataclass(frozen=True)
class Estimate:
    """What one run or several after each other will take on this machine.

    Attributes:
      seconds: by what they are spent on: load, prepare, compile, distil, the sets that are scored
        (synthetic, uint8, random, full), and files. Empty if the memory does not suffice: then
        nothing was timed.
      peak_bytes: the most memory at any time.
      limit_bytes: what there is: memory of the device, of the machine or of a control group.
      minutes: that it may take; None for any.
      alternatives: the nearest settings that fit, if these do not.
    """

    seconds: Seconds
    peak_bytes: int
    limit_bytes: int
    minutes: float | None = None
    alternatives: tuple[Alternative, ...] = ()

    @property
    def total_seconds(self) -> float | None:
        """All of it; None if nothing was timed."""
        return sum(self.seconds.values()) if self.seconds else None

    @property
    def fits_memory(self) -> bool:
        """Whether the memory suffices."""
        return self.peak_bytes <= self.limit_bytes

    @property
    def fits_time(self) -> bool:
        """Whether the minutes suffice, or there is no limit to them."""
        total = self.total_seconds
        return self.minutes is None or (total is not None and total <= 60 * self.minutes)

    @property
    def fits(self) -> bool:
        """Whether memory and minutes suffice."""
        return self.fits_memory and self.fits_time


class _TooLargeError(Exception):
    """A program does not fit in the memory."""


def estimate(
    configs: Sequence[Config],
    dataset: Dataset,
    *,
    load_seconds: float = 0.0,
    minutes: float | None = None,
) -> Estimate:
    """Time a few calls of the programs of some runs and say what all of it will take.

    Checkpoints are not counted: they take two seconds, and a fraction of one each.

    Args:
      configs: resolved configurations that differ in their fairness mode alone; their baselines are
        scored once.
      dataset: the data set that they speak of.
      load_seconds: what it took to have it.
      minutes: that all of it may take.

    Raises:
      ConfigError: a run of theirs would raise it.
      NonFiniteLossError: the loss became NaN or infinite.
    """
    limit = environment.memory_limit()
    began = time.perf_counter()
    first = Run(configs[0], dataset)
    measured = Pace(load_seconds, time.perf_counter() - began)
    before = timing.occupied()
    largest = 0

    def on_bytes(size: int) -> None:
        nonlocal largest
        largest = max(largest, size)
        if before + size > limit:
            raise _TooLargeError

    def time_updates(config: Config) -> None:
        if config.updates:
            key = config.fairness, config.sampling
            arguments = config, first.matched, first.images
            measured.updates[key] = timing.of_updates(*arguments, on_bytes=on_bytes)

    todo = passes(configs[0], dataset, configuration.baselines(configs[0].evaluate))
    try:
        for config in configs:
            time_updates(config)
        measured.scoring.update(timing.of_scoring(first, todo, on_bytes=on_bytes))
    except _TooLargeError:
        peak, seconds = before + largest, {}
    else:
        peak = max(before + largest, environment.peak_memory())
        measured = dataclasses.replace(measured, files=timing.of_files(first))
        seconds = measured.seconds(configs, dataset)
    result = Estimate(seconds, peak, limit, minutes)
    if not result.fits_memory:
        smaller = less_memory(configs, dataset, limit, more=peak - largest)
        return dataclasses.replace(result, alternatives=tuple(smaller))
    if not result.fits_time and minutes is not None:
        if configs[0].sampling == "proportional":
            with contextlib.suppress(_TooLargeError):
                for config in configs:
                    time_updates(changed(config, {"sampling": "stratified"}))
        faster = less_time(configs, dataset, measured, seconds=60 * minutes)
        found = [Alternative(settings, sum(spent.values()), peak) for settings, spent in faster]
        return dataclasses.replace(result, alternatives=tuple(found))
    return result
