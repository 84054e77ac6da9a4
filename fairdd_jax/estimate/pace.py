"""What runs take, from what some of their calls took: arithmetic alone."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from fairdd_jax import config as configuration
from fairdd_jax.config import Config
from fairdd_jax.data import Dataset
from fairdd_jax.environment import on_cpu
from fairdd_jax.loop import call_lengths
from fairdd_jax.schedule import passes

Seconds = dict[str, float]


class Content(NamedTuple):
    """What updates are about to do, besides matching."""

    fresh: int
    """Those whose network is new."""
    trained: int
    """Those whose network is that of the update before, trained since."""
    choices: int
    """How often representative real images are chosen first."""


def content(config: Config, first: int, length: int) -> Content:
    """That of the updates of one compiled call.

    >>> from fairdd_jax import config
    >>> dc = config.make({"data.name": "demo", "method": "dc", "ipc": 10})
    >>> content(dc, first=9, length=2)
    Content(fresh=1, trained=1, choices=0)
    """
    fresh = -(-(first + length) // config.outer_loops) - -(-first // config.outer_loops)
    chosen = bool(config.representatives) and first % config.representatives == 0
    return Content(fresh, length - fresh, int(chosen))


@dataclass(frozen=True)
class UpdatePace:
    """Seconds of updates.

    Attributes:
      start: before the first one, compiling included.
      compile: of one program; there is one for every number of updates per call.
      fresh: of an update with a new network.
      trained: of an update with that of the one before, training it included.
      choice: of choosing representative real images.
    """

    start: float
    compile: float
    fresh: float
    trained: float = 0.0
    choice: float = 0.0

    def seconds(self, config: Config) -> float:
        """All updates of a run, without what comes before the first."""
        choices = -(-config.updates // config.representatives) if config.representatives else 0
        trained = config.updates - config.steps
        return self.fresh * config.steps + self.trained * trained + self.choice * choices

    def compiling(self, config: Config) -> float:
        """Before the first update, and before the first of every other number per call."""
        lengths = {length for line in call_lengths(config) for length in line}
        return self.start + self.compile * (len(lengths) - 1) if lengths else 0.0


@dataclass(frozen=True)
class ScoringPace:
    """Seconds of networks of one architecture on so many images.

    Attributes:
      networks: how many of them, together.
      compile: of all programs.
      start: until the first step of a training, once all is compiled.
      step: of an optimiser step of all networks.
      test: of testing them all.
    """

    networks: int
    compile: float
    start: float
    step: float
    test: float

    def seconds(self, networks: int, steps: int) -> float:
        """Training and testing some networks.

        On CPU they take their turns; elsewhere they are side by side, and fewer of them are not
        taken to be faster.
        """
        share = networks / self.networks if on_cpu() else 1.0
        return share * (self.start + self.step * steps + self.test)


@dataclass(frozen=True)
class Pace:
    """All that was timed.

    Attributes:
      load: seconds until the data set is there.
      prepare: seconds until the first run can begin.
      files: seconds that the files of a run take at its end.
      updates: by fairness mode and sampling.
      scoring: by architecture and number of images.
    """

    load: float
    prepare: float
    files: float = 0.0
    updates: dict[tuple[str, str], UpdatePace] = field(default_factory=dict)
    scoring: dict[tuple[str, int], ScoringPace] = field(default_factory=dict)

    def seconds(self, configs: Sequence[Config], dataset: Dataset) -> Seconds:
        """What runs of such configurations take, after each other, as in `Estimate`."""
        spent = {"load": self.load, "prepare": self.prepare * len(configs)}
        spent |= {"compile": 0.0, "distil": 0.0}
        for config, baselines in with_baselines(configs):
            if config.updates:
                updates = self.updates[config.fairness, config.sampling]
                spent["compile"] += updates.compiling(config)
                spent["distil"] += updates.seconds(config)
            every = config.evaluate.every
            times = 1 + (max(config.steps - 1, 0) // every if every else 0)
            compiled = set()
            for each in passes(config, dataset, baselines):
                scoring = self.scoring[each.arch, each.num_images]
                program = each.arch, each.num_images, each.networks
                if program not in compiled:
                    spent["compile"] += scoring.compile
                    compiled.add(program)
                seconds = scoring.seconds(each.networks, each.schedule.total)
                count = 1 if each.name in baselines else times
                spent[each.name] = spent.get(each.name, 0.0) + count * seconds
        return spent | {"files": self.files * len(configs)}


def with_baselines(configs: Sequence[Config]) -> Iterator[tuple[Config, tuple[str, ...]]]:
    """Every configuration and the baselines that no other has scored before."""
    scored: set[str] = set()
    for config in configs:
        names = configuration.baselines(config.evaluate)
        yield config, tuple(name for name in names if name not in scored)
        scored |= set(names)
