"""Scores of a distilled set that comes from a file, whoever made it, as a run scores its own."""

import dataclasses
from collections.abc import Callable, Collection, Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np

from fairdd_jax import config as configuration
from fairdd_jax import environment, models, outputs
from fairdd_jax.config import Config
from fairdd_jax.data import Dataset
from fairdd_jax.distilled import DistilledSet
from fairdd_jax.errors import ConfigError, first_few
from fairdd_jax.schedule import passes, synthetic_schedule
from fairdd_jax.schema import flat
from fairdd_jax.scoring import Scoring

Results = dict[str, Any]

_SHOWN = 5  # class names that a message shows


def settings(distilled: DistilledSet, *, trusted: Collection[str] = ()) -> dict[str, Any]:
    """The settings of the run that made a set, but without baselines; empty if it does not say.

    Args:
      distilled: the set, which may come from anybody.
      trusted: networks ``module:function`` that may be imported, which runs their code.

    Raises:
      ConfigError: they are no settings of this version, or name a network that is not trusted.
    """
    config = distilled.meta.get("config")
    if config is None:
        return {}
    try:
        values = flat(config)
        for option in ("model", "evaluate.archs"):
            for name in models.imports(str(values.get(option))):
                if name not in trusted:
                    raise ConfigError(f"{name} is code, type --{option} {name} to run it")
        own = configuration.make(values)
    except (ConfigError, AttributeError, TypeError) as error:
        raise ConfigError(
            f"the settings that the distilled set holds are not taken over: {error}; or choose "
            "others with --config"
        ) from None
    return flat(dataclasses.asdict(own)) | {"evaluate.baselines": "none"}


class Rescoring:
    """Scores a distilled set on the test set of a data set.

    Args:
      distilled: the set.
      config: a resolved configuration, of which ``evaluate`` and the seed count.
      dataset: the data set that it speaks of.

    Attributes:
      config: the configuration with the number of images that the set has.
      steps: optimiser steps that `results` takes.

    Raises:
      ConfigError: the set does not fit the data set, or a network does not fit the images.
    """

    def __init__(self, distilled: DistilledSet, config: Config, dataset: Dataset):
        self._labels = _renumbered(distilled, dataset)
        self._images = _renormalised(distilled, dataset)
        self._of_step = {name: step for name, step in distilled.meta.items() if name == "step"}
        ipc = len(self._labels) // (dataset.num_classes * config.factor**2)
        self.config = dataclasses.replace(config, ipc=max(1, ipc))
        self._baselines = configuration.baselines(config.evaluate)
        self._scoring = Scoring(self.config, dataset)
        self._kinds = self._to_score()
        own = synthetic_schedule(self.config, len(self._images)).total
        networks = sum(networks for _, _, networks in self._kinds) * len(self._scoring.archs())
        self.steps = networks * own + sum(
            each.networks * each.schedule.total
            for each in passes(self.config, dataset, self._baselines)
            if each.name in self._baselines
        )

    def _to_score(self) -> list[tuple[str, np.ndarray, int]]:
        """Where the scores go, images and networks; the 8-bit images if they are others."""
        wanted = self.config.evaluate
        rounded = self._scoring.rounded(self._images)
        few = min(wanted.uint8_networks, wanted.networks)
        kinds = [("evaluations", self._images, wanted.networks)]
        if few and (rounded != self._images).any():
            kinds.append(("evaluations_uint8", rounded, few))
        return kinds

    def results(self, on_steps: Callable[[int], None] = lambda steps: None) -> Iterator[Results]:
        """Train fresh networks and test them; the 8-bit images too, if they are others.

        Args:
          on_steps: told how many optimiser steps were just taken.

        Yields:
          What results.json of a run says of its scores, after every network and baseline.

        Raises:
          NonFiniteLossError: a network diverged.
        """
        scoring, archs = self._scoring, self._scoring.archs()
        scores: dict[str, list[Results]] = {"evaluations": [], "evaluations_uint8": []}
        baselines: dict[str, Results] = {}

        def so_far() -> Results:
            is_scored = len(scores["evaluations"]) == len(archs)
            return {
                **{kind: list(found) for kind, found in scores.items()},
                "baselines": dict(baselines),
                "complete": is_scored and len(baselines) == len(self._baselines),
                "config": dataclasses.asdict(self.config),
                "dataset": outputs.described(scoring.dataset),
                "environment": environment.describe(),
                "seed": self.config.seed,
            }

        for arch in archs:
            for kind, images, networks in self._kinds:
                evaluation = scoring.score(
                    arch,
                    images,
                    self._labels,
                    networks=networks,
                    epochs=self.config.evaluate.epochs,
                    on_steps=on_steps,
                )
                scores[kind].append(self._of_step | evaluation.summary())
            yield so_far()
        for name in self._baselines:
            baselines[name] = scoring.baseline(name, on_steps)
            yield so_far()


def _renumbered(distilled: DistilledSet, dataset: Dataset) -> np.ndarray:
    """The labels by the numbers that the classes have in the data set."""
    names, wanted = distilled.class_names, dataset.classes
    if names == wanted:
        return distilled.labels
    if len(set(names)) < len(names) or set(names) != set(wanted):
        raise ConfigError(
            f"the set has the classes {_some(names)}, {dataset.name} has {_some(wanted)}; choose "
            "the data set that it was distilled from, or rename its folders"
        )
    return np.array([wanted.index(name) for name in names], np.int32)[distilled.labels]


def _renormalised(distilled: DistilledSet, dataset: Dataset) -> np.ndarray:
    """The images in the normalised space of the data set."""
    shape, wanted = distilled.images.shape[1:], dataset.image_shape
    if shape != wanted:
        raise ConfigError(
            f"the images of the set are {_sides(shape)}, those of {dataset.name} {_sides(wanted)}; "
            "choose the data set that it was distilled from, in its size"
        )
    mean, std, new_mean, new_std = (
        jnp.asarray(values, jnp.float32).reshape(1, 1, 1, -1)
        for values in (distilled.mean, distilled.std, dataset.mean, dataset.std)
    )
    if (mean == new_mean).all() and (std == new_std).all():
        return distilled.images_float
    return np.asarray((distilled.images_float * std + mean - new_mean) / new_std)


def _some(names: tuple[str, ...]) -> str:
    return first_few([f"'{name}'" for name in names], _SHOWN)


def _sides(shape: tuple[int, ...]) -> str:
    return "x".join(str(side) for side in shape)
