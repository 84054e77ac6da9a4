"""What is scored, and in how many optimiser steps."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fairdd_jax import models
from fairdd_jax.config import Config
from fairdd_jax.data import Dataset


@dataclass(frozen=True)
class Schedule:
    """Optimiser steps at the full learning rate, and then, momentum at zero, at a tenth of it."""

    before: int
    after: int

    @classmethod
    def of_synthetic(cls, epochs: int, steps_per_epoch: int) -> "Schedule":
        """Epochs 0 to ``epochs`` inclusive, dropping after epoch ``epochs // 2 + 1``: official."""
        before = min(epochs // 2 + 2, epochs + 1)
        return cls(before * steps_per_epoch, (epochs + 1 - before) * steps_per_epoch)

    @classmethod
    def of_full(cls, steps: int) -> "Schedule":
        """Dropping after half of the steps."""
        return cls(steps - steps // 2, steps // 2)

    @property
    def total(self) -> int:
        """All optimiser steps."""
        return self.before + self.after


def synthetic_schedule(config: Config, num_images: int, epochs: int | None = None) -> Schedule:
    """That of so many images, synthetic ones or real ones in their place."""
    epochs = config.evaluate.epochs if epochs is None else epochs
    return Schedule.of_synthetic(epochs, -(-num_images // config.evaluate.batch_size))


def full_schedule(config: Config, dataset: Dataset) -> Schedule:
    """That of the baseline full."""
    evaluate = config.evaluate
    if evaluate.full_steps == 0:
        images = dataset.num_classes * config.decoded_ipc
        return Schedule.of_full(synthetic_schedule(config, images).total)
    per_epoch = -(-len(dataset.train) // evaluate.batch_size)
    return Schedule.of_full(evaluate.full_steps or evaluate.full_epochs * per_epoch)


class Pass(NamedTuple):
    """A set of images that fresh networks of one architecture are trained on and tested."""

    name: str
    """``synthetic``, ``uint8`` or that of a baseline."""
    arch: str
    num_images: int
    networks: int
    schedule: Schedule


def passes(config: Config, dataset: Dataset, baselines: Sequence[str] = ()) -> list[Pass]:
    """All that is scored at the end of a run, in that order.

    Args:
      config: a resolved configuration.
      dataset: the data set that it speaks of.
      baselines: those to score too.
    """
    evaluate = config.evaluate
    archs = models.resolve_archs(evaluate.archs, model=config.model)
    images = dataset.num_classes * config.decoded_ipc
    schedule = synthetic_schedule(config, images)
    counts = {
        "synthetic": evaluate.networks,
        "uint8": min(evaluate.uint8_networks, evaluate.networks),
    }
    found = [
        Pass(name, arch, images, count, schedule)
        for arch in archs
        for name, count in counts.items()
        if count
    ]
    if "random" in baselines:
        real = dataset.num_classes * random_ipc(config, dataset)
        of_real = synthetic_schedule(config, real)
        found.append(Pass("random", archs[0], real, evaluate.networks, of_real))
    if "full" in baselines:
        found.append(Pass("full", archs[0], len(dataset.train), 1, full_schedule(config, dataset)))
    return found


def random_ipc(config: Config, dataset: Dataset) -> int:
    """Real images per class of the baseline random: less than asked only with init noise."""
    return min(config.ipc, int(dataset.cell_counts(dataset.train).sum(1).min()))
