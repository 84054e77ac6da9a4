"""Settings that fit where those that were asked for take too much."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fairdd_jax import config as configuration
from fairdd_jax import stream
from fairdd_jax.config import Config
from fairdd_jax.data import Dataset
from fairdd_jax.estimate import timing
from fairdd_jax.estimate.pace import Pace, Seconds, with_baselines
from fairdd_jax.run import Run
from fairdd_jax.schedule import passes

Settings = dict[str, Any]

# Share of the time or memory that is allowed which alternatives may take: a machine is not equally
# fast twice.
_MARGIN = 0.95
# Networks that are tried where fewer updates are needed too.
_FEW_NETWORKS = (3, 1)


@dataclass(frozen=True)
class Alternative:
    """Settings that fit where those that were asked for do not.

    Attributes:
      settings: those to change, by the names that they have on the command line.
      total_seconds: as in `fairdd_jax.estimate.Estimate`; None if nothing was timed.
      peak_bytes: as in `fairdd_jax.estimate.Estimate`.
    """

    settings: Settings
    total_seconds: float | None
    peak_bytes: int


def changed(config: Config, settings: Mapping[str, Any]) -> Config:
    """A resolved configuration with other values of fields that no other depends on.

    >>> from fairdd_jax import config
    >>> few = changed(config.make({"data.name": "demo"}), {"steps": 3, "evaluate.networks": 1})
    >>> few.steps, few.evaluate.networks
    (3, 1)
    """
    nested = {name.removeprefix("evaluate."): v for name, v in settings.items() if "." in name}
    plain = {name: value for name, value in settings.items() if "." not in name}
    evaluate = dataclasses.replace(config.evaluate, **nested)
    return dataclasses.replace(config, **plain, evaluate=evaluate)


def less_time(
    configs: Sequence[Config], dataset: Dataset, measured: Pace, *, seconds: float
) -> Iterator[tuple[Settings, Seconds]]:
    """The nearest settings that take no more time, cheaper scoring and fewer updates.

    Args:
      configs: of the runs that take too much.
      dataset: the data set that they speak of.
      measured: what was timed of them, of every sampling that may be chosen.
      seconds: that they may take.

    Yields:
      Settings with what they take: all updates if scoring less suffices; else the most updates that
      fit, with several ways of scoring.
    """
    allowed = _MARGIN * seconds

    def spent(settings: Settings) -> Seconds:
        return measured.seconds([changed(config, settings) for config in configs], dataset)

    def fits(settings: Settings) -> bool:
        return sum(spent(settings).values()) <= allowed

    samplings = dict.fromkeys(sampling for _, sampling in measured.updates)
    for sampling in sorted(samplings, key=lambda name: name != configs[0].sampling):
        start = {} if sampling == configs[0].sampling else {"sampling": sampling}
        most = 0
        for scoring in _cheaper_scoring(configs[0]):
            settings = start | scoring
            if fits(settings):
                yield settings, spent(settings)
                break
            few = scoring.get("evaluate.networks", configs[0].evaluate.networks)
            if "evaluate.networks" in scoring and few not in _FEW_NETWORKS:
                continue
            steps = _most(lambda n: fits(settings | {"steps": n}), configs[0].steps)  # noqa: B023
            if steps > most:  # else it scores less and gains nothing
                most = steps
                fewer = settings | {"steps": steps}
                yield fewer, spent(fewer)


def _cheaper_scoring(config: Config) -> Iterator[Settings]:
    """Nothing, then less and less: baselines are left out, then networks."""
    yield {}
    settings: Settings = {}
    names = configuration.baselines(config.evaluate)
    if "full" in names and len(names) > 1:
        yield {"evaluate.baselines": ",".join(name for name in names if name != "full")}
    if names:
        settings["evaluate.baselines"] = "none"
        yield settings
    for networks in range(config.evaluate.networks - 1, 0, -1):
        yield settings | {"evaluate.networks": networks}


def _most(fits: Callable[[int], bool], most: int) -> int:
    """The largest number below ``most`` that fits, of two digits; 0 if none does.

    >>> _most(lambda n: n <= 3456, 20000), _most(lambda n: False, 20000)
    (3400, 0)
    """
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    unit = 10 ** max(0, len(str(low)) - 2)
    return low // unit * unit


def less_memory(
    configs: Sequence[Config], dataset: Dataset, limit: int, *, more: int
) -> Iterator[Alternative]:
    """The nearest settings that fit in the memory: one change alone if any does, else several.

    Args:
      configs: of the runs that do not fit.
      dataset: the data set that they speak of.
      limit: bytes that there are.
      more: bytes that are taken besides those of the programs.
    """

    def tried(settings: Settings) -> Alternative | None:
        sizes = []
        for config, baselines in with_baselines([changed(c, settings) for c in configs]):
            todo = passes(config, dataset, baselines)
            sizes.append(timing.footprint(Run(config, dataset), todo))
        found = Alternative(settings, None, more + max(sizes))
        return found if found.peak_bytes <= _MARGIN * limit else None

    base = configs[0]
    single: list[Settings] = []
    names = configuration.baselines(base.evaluate)
    if "full" in names:
        kept = ",".join(name for name in names if name != "full") or "none"
        single.append({"evaluate.baselines": kept})
    needs_all = base.inner_real or base.warmup_real or base.representatives
    if not (needs_all or stream.is_streamed(base, dataset)):
        single.append({"stream": "always"})
    chunks = [{"chunk": base.chunk // 2**i} for i in range(1, base.chunk.bit_length())]
    found = [tried(settings) for settings in single]
    found.append(next(filter(None, map(tried, chunks)), None))
    if not any(found):
        every = {name: value for settings in single for name, value in settings.items()}
        found = [next(filter(None, (tried(every | chunk) for chunk in ({}, *chunks))), None)]
    yield from filter(None, found)
