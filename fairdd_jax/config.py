"""One frozen tree of settings, parsed, checked and completed.

Values come, each from one place and in this order, from the defaults of the dataclasses, from
`fairdd_jax.presets`, and from the user. A value of None means that it depends on the others;
`resolve` fills it in.
"""

import dataclasses
import re
import sys
from argparse import ArgumentError
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

import numpy as np
from jsonargparse import ArgumentParser

from fairdd_jax import augment, models
from fairdd_jax.data import DataConfig
from fairdd_jax.environment import on_cpu
from fairdd_jax.errors import ConfigError, unknown_name
from fairdd_jax.losses import Fairness
from fairdd_jax.methods import method_named
from fairdd_jax.metrics import Empty
from fairdd_jax.presets import flat

# The value of a field that depends on others until `resolve` has filled it in. Type checkers see
# the resolved configuration, which is the one that everybody but this module works with.
UNSET: Any = None
T = TypeVar("T")
if TYPE_CHECKING:
    Int: TypeAlias = int
    Float: TypeAlias = float
    Str: TypeAlias = str
else:
    Int, Float, Str = int | None, float | None, str | None

Init = Literal["real", "balanced", "noise"]


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
    """How a synthetic set is scored: fresh networks are trained on it and tested.

    Attributes:
      archs: networks by name, separated by commas, or an official mode: S, SS, M, W, D, A, P, N, B
        (SS is the network that distilled).
      networks: fresh networks per architecture.
      epochs: training epochs on the synthetic set; one more is run, as officially. By method and
        augmentation if null.
      augment: augmentation strategies joined by underscores, or none. That of the distillation if
        null.
      lr: learning rate, times 0.1 after half of the epochs.
      batch_size: images per optimiser step.
      empty: a (class, group) cell without test images is left out (skip) or counts as accuracy 0
        (official).
      every: distillation steps between evaluations on the way; 0 evaluates at the end alone.
      uint8_networks: networks that score the 8-bit images also; 0 leaves that out.
      baselines: random (real images, as many), full (the whole training set), none, or several
        separated by commas.
      full_epochs: epochs of the baseline full, one network.
      full_steps: optimiser steps of the baseline full, in place of its epochs; 0 takes as many as
        the synthetic set gets.
    """

    archs: str = "SS"
    networks: int = 10
    epochs: Int = UNSET
    augment: Str = UNSET
    lr: float = 0.01
    batch_size: int = 256
    empty: Empty = "skip"
    every: int = 0
    uint8_networks: int = 1
    baselines: str = "random,full"
    full_epochs: int = 10
    full_steps: int | None = None


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that decides a run.

    Attributes:
      data: the data set and its bias.
      method: matching method.
      fairness: what the synthetic images are matched to (the class mean, every group, ...).
      ipc: synthetic images per class.
      seed: decides everything random but the data set, which has a seed of its own.
      steps: distillation iterations, each with a fresh network.
      sampling: real images drawn evenly from every (class, group) cell, or uniformly from a class.
      per_cell: real images per (class, group) cell and update (stratified).
      batch_real: real images per class and update (proportional).
      init: synthetic images start as random real images, as those of all groups in turn, or as
        noise.
      model: network that distils.
      distance: ours, mse, cos (gradients); squared_l2, l1, cos (features). By method if null.
      dsa_strategy: siamese augmentation while distilling, strategies joined by underscores, or
        none.
      lr_img: learning rate of the synthetic images, in normalised pixel units. By method if null.
      momentum_img: momentum of the synthetic images.
      outer_loops: updates of the images per network. By method and ipc if null.
      inner_epochs: epochs of network training between two updates. By method and ipc if null.
      warmup_epochs: epochs of network training before the first update. By fairness and ipc if
        null.
      lr_net: learning rate of that network training.
      batch_train: images per step of that network training.
      chunk: images that pass through the network at once; bounds the memory. By backend if null.
      block: updates per compiled call. By backend if null.
      stream: whether the training images stay on disk (or in memory) and those of an update are
        read ahead of time, or lie on the device; auto streams what takes more than half of the
        device's memory.
      compute_dtype: type of the arithmetic inside the networks; sums and statistics are float32.
      log_every: updates between two lines of the log.
      evaluate: how the result is scored.
    """

    data: DataConfig
    method: str = "dm"
    fairness: Fairness = "fairdd"
    ipc: int = 10
    seed: int = 0
    steps: int = 1000
    sampling: Literal["stratified", "proportional"] = "stratified"
    per_cell: int = 8
    batch_real: int = 256
    init: Init = "real"
    model: str = "ConvNet"
    distance: Str = UNSET
    dsa_strategy: str = "none"
    lr_img: Float = UNSET
    momentum_img: float = 0.5
    outer_loops: Int = UNSET
    inner_epochs: Int = UNSET
    warmup_epochs: Int = UNSET
    lr_net: float = 0.01
    batch_train: int = 256
    chunk: Int = UNSET
    block: Int = UNSET
    stream: Literal["auto", "always", "never"] = "auto"
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    log_every: int = 10
    evaluate: EvaluateConfig = dataclasses.field(default_factory=EvaluateConfig)

    @property
    def updates(self) -> int:
        """Updates of the synthetic images in the whole run."""
        return self.steps * self.outer_loops


# COBRA's epochs of network training before a DM update, from an IPC on.
_WARMUP_EPOCHS = {1: 10, 50: 50, 100: 100}
# Epochs of network training between two DC updates at the IPCs that the official table has.
_INNER_EPOCHS = {1: 1, 10: 50, 20: 25, 30: 20, 40: 15, 50: 10}
_LONGEST_OUTER_LOOPS = 100
# A chunk's activations should stay near the cores: on TPU v5e one of 1024 moves 20 times the bytes.
_BY_BACKEND = {"cpu": {"chunk": 10, "block": 1}, "accelerator": {"chunk": 128, "block": 10}}


def parser(settings: dict[str, Any] | None = None) -> ArgumentParser:
    """A parser of every field, with those settings in place of the defaults."""
    result = ArgumentParser(exit_on_error=False, default_env=False, allow_abbrev=False)
    result.add_class_arguments(Config, as_group=True)
    result.set_defaults(settings or {})
    return result


def make(settings: dict[str, Any]) -> Config:
    """A resolved configuration from settings such as ``{"data.name": "demo", "ipc": 1}``.

    Raises:
      ConfigError: a wrong name, type or value.

    >>> make({"data.name": "cmnist_fg", "ipc": 1}).distance
    'squared_l2'
    """
    known = flat(dataclasses.asdict(Config(DataConfig("demo"))))
    for name in settings:
        if name not in known:
            raise unknown_name("field", name, known)
    arguments = [f"--{name}={'null' if v is None else v}" for name, v in settings.items()]
    return from_arguments(parser(), arguments)


def from_arguments(fields: ArgumentParser, arguments: list[str]) -> Config:
    """A resolved configuration from command-line arguments.

    Raises:
      ConfigError: a wrong name, type or value, in one line.
    """
    try:
        parsed = fields.instantiate(fields.parse_args(arguments))
    except ArgumentError as error:
        raise _explained(error, fields) from None
    names = {field.name for field in dataclasses.fields(Config)}
    return resolve(Config(**{name: value for name, value in parsed.items() if name in names}))


def _explained(error: ArgumentError, fields: ArgumentParser) -> ConfigError:
    """The parser's complaint in one line, with the nearest valid choice."""
    text = " ".join(str(error).split())
    misspelt = re.match(r"unrecognized arguments: --(\S+?)(=.*|\s.*)?$", text)
    if misspelt:
        options = [o[2:] for action in fields._actions for o in action.option_strings]
        return unknown_name("option", misspelt[1], (o for o in options if o != "help"))
    choice = re.match(r'Parser key "(.*)": Expected a .*Literal\[(.*)\].* Got value: (.*)$', text)
    if choice:
        return unknown_name(choice[1], choice[3], re.findall(r"'(.*?)'", choice[2]))
    typed = re.match(
        r'Parser key "(.*?)": (?:Expected|Does not validate) (.*?)(?:Got|Given) value.*?: (.*)$',
        text,
    )
    if typed:
        types = dict.fromkeys(re.findall(r"<class '(\w+)'>", typed[2]))
        valid = " or ".join(types).replace("NoneType", "null")
        got = typed[3].removeprefix("<class 'str'> Given value: ")
        return ConfigError(
            f"--{typed[1]} must be {valid}, got {got}; see --help for every field with its type"
        )
    return ConfigError(text)


def resolve(config: Config) -> Config:
    """Check a configuration and fill in what depends on other fields.

    Raises:
      ConfigError: a value out of range, or an unknown name.
    """
    _check(config)
    method = method_named(config.method)
    cobra = config.fairness == "cobra"
    outer, inner = dc_loops(config.ipc) if method.trains_network else (1, 0)
    warmup = _at_least(_WARMUP_EPOCHS, config.ipc) if cobra and method.cobra_warmup else 0
    evaluation = _filled(config.evaluate, augment=config.dsa_strategy)
    augmented = evaluation.augment != augment.NONE
    filled = _filled(
        config,
        distance=method.cobra_distance if cobra else method.default_distance,
        lr_img=_at_least(method.lr_img, config.ipc),
        outer_loops=outer,
        inner_epochs=inner,
        warmup_epochs=warmup,
        **_BY_BACKEND["cpu" if on_cpu() else "accelerator"],
        evaluate=_filled(evaluation, epochs=1000 if augmented else 300),
    )
    if filled.distance not in method.distances:
        raise unknown_name(f"distance of {config.method}", filled.distance, method.distances)
    return filled


def _filled(config: Any, **values: Any) -> Any:
    missing = {name: v for name, v in values.items() if getattr(config, name) is None}
    nested = {name: v for name, v in values.items() if dataclasses.is_dataclass(v)}
    return dataclasses.replace(config, **missing, **nested)


def dc_loops(ipc: int) -> tuple[int, int]:
    """Updates per network, and epochs of network training between them, of gradient matching.

    At the IPCs of the official table its values; the official program ends at any other. In
    between, one update per image of a class and epochs on the line between the neighbours; above
    50 officially 100 updates and 10 epochs.

    >>> dc_loops(10), dc_loops(15), dc_loops(51)
    ((10, 50), (15, 38), (100, 10))
    """
    if ipc > max(_INNER_EPOCHS):
        return _LONGEST_OUTER_LOOPS, _INNER_EPOCHS[max(_INNER_EPOCHS)]
    inner = np.interp(ipc, list(_INNER_EPOCHS), list(_INNER_EPOCHS.values()))
    return ipc, round(float(inner))


def _at_least(table: Mapping[int, T], ipc: int) -> T:
    return table[max(start for start in table if start <= ipc)]


# The smallest valid value of every number that has one.
_MINIMA = {
    "ipc": 1,
    "steps": 0,
    "seed": 0,
    "per_cell": 1,
    "batch_real": 1,
    "lr_img": 0.0,
    "momentum_img": 0.0,
    "outer_loops": 1,
    "inner_epochs": 0,
    "warmup_epochs": 0,
    "lr_net": 0.0,
    "batch_train": 1,
    "chunk": 1,
    "block": 1,
    "log_every": 1,
    "evaluate.networks": 1,
    "evaluate.epochs": 0,
    "evaluate.lr": 0.0,
    "evaluate.batch_size": 1,
    "evaluate.every": 0,
    "evaluate.uint8_networks": 0,
    "evaluate.full_epochs": 1,
    "evaluate.full_steps": 0,
}
# And the largest: JAX reads 32 bits of a seed.
_MAXIMA = {"seed": 2**32 - 1, "momentum_img": 1.0}
BASELINES = ("random", "full")


def _check(config: Config) -> None:
    values = flat(dataclasses.asdict(config))
    for name, minimum in _MINIMA.items():
        value, maximum = values[name], _MAXIMA.get(name)
        if value is not None and not minimum <= value <= (maximum or sys.float_info.max):
            upwards = "or more" if maximum is None else f"to {maximum}"
            raise ConfigError(f"--{name} {value} is out of range; choose {minimum} {upwards}")
    models.check_name(config.model)
    models.resolve_archs(config.evaluate.archs, model=config.model)
    for strategy in (config.dsa_strategy, config.evaluate.augment or augment.NONE):
        augment.operations(strategy)
    for name in baselines(config.evaluate):
        if name not in BASELINES:
            raise unknown_name("baseline", name, (*BASELINES, "none"))


def baselines(config: EvaluateConfig) -> tuple[str, ...]:
    """Names of the baselines to score.

    >>> baselines(EvaluateConfig(baselines="random, full"))
    ('random', 'full')
    """
    names = (name.strip() for name in config.baselines.split(","))
    return tuple(name for name in names if name not in ("", "none"))
