"""What checks a configuration and fills in what depends on other fields."""

import dataclasses
import sys
from collections.abc import Mapping
from typing import Any, TypeVar

from fairdd_jax import augment, data, models, sharding
from fairdd_jax.environment import on_cpu
from fairdd_jax.errors import ConfigError, unknown_name
from fairdd_jax.methods import method_named
from fairdd_jax.schema import Config, EvaluateConfig, flat

T = TypeVar("T")

# COBRA's epochs of network training before a DM update, from an IPC on.
_WARMUP_EPOCHS = {1: 10, 50: 50, 100: 100}
# Real images, an example for a message: a hundred steps of training.
_WARMUP_REAL = 25600
# A chunk's activations should stay near the cores: on TPU v5e one of 1024 moves 20 times the bytes.
_BY_BACKEND = {"cpu": {"chunk": 10, "block": 1}, "accelerator": {"chunk": 128, "block": 10}}


def resolve(config: Config) -> Config:
    """Check a configuration and fill in what depends on other fields.

    Raises:
      ConfigError: a value out of range, or an unknown name.
    """
    _check(config)
    method, of_data = method_named(config.method), data.resolved(config.data)
    cobra = config.fairness == "cobra"
    outer, inner = method.loops(config.ipc, config.inner_real > 0)
    warms_up = cobra and method.cobra_warmup and not config.warmup_real
    warmup = _at_least(_WARMUP_EPOCHS, config.ipc) if warms_up else 0
    evaluation = _filled(config.evaluate, augment=config.dsa_strategy)
    augmented = evaluation.augment != augment.NONE
    distance = config.distance or (method.cobra_distance if cobra else method.default_distance)
    filled = _filled(
        config,
        data=of_data,
        distance=distance,
        lr_img=method.lr_img(of_data, config.ipc, distance),
        factor=method.factor(config.data.name, config.ipc),
        augment_net=config.dsa_strategy,
        outer_loops=outer,
        inner_epochs=0 if config.inner_real else inner,  # in their place
        warmup_epochs=warmup,
        **_BY_BACKEND["cpu" if on_cpu() else "accelerator"],
        evaluate=_filled(evaluation, epochs=1000 if augmented else 300),
    )
    if filled.distance not in method.distances:
        raise unknown_name(f"distance of {config.method}", filled.distance, method.distances)
    between = filled.inner_real and (filled.outer_loops > 1 or filled.warmup_epochs)
    if filled.debias != "none" and not (filled.warmup_real or between):
        raise ConfigError(
            f"--debias {filled.debias} weighs the real images that networks are trained on, and "
            f"here they are trained on none; choose --warmup_real {_WARMUP_REAL} or another number "
            "of them, or --debias none"
        )
    return filled


def _filled(config: Any, **values: Any) -> Any:
    missing = {name: v for name, v in values.items() if getattr(config, name) is None}
    nested = {name: v for name, v in values.items() if dataclasses.is_dataclass(v)}
    return dataclasses.replace(config, **missing, **nested)


def _at_least(table: Mapping[int, T], ipc: int) -> T:
    return table[max(start for start in table if start <= ipc)]


# The smallest valid value of every number that has one, an integer of integers.
_MINIMA = {
    "ipc": 1,
    "steps": 0,
    "seed": 0,
    "per_cell": 1,
    "batch_real": 1,
    "lr_img": 0.0,
    "momentum_img": 0.0,
    "average_img": 0.0,
    "factor": 1,
    "batch_syn": 0,
    "outer_loops": 1,
    "inner_epochs": 0,
    "inner_real": 0,
    "warmup_epochs": 0,
    "warmup_real": 0,
    "lr_net": 0.0,
    "momentum_net": 0.0,
    "weight_decay_net": 0.0,
    "batch_train": 1,
    "cutmix": 0.0,
    "representatives": 0,
    "pool": 0,
    "chunk": 1,
    "block": 1,
    "log_every": 1,
    "evaluate.networks": 1,
    "evaluate.epochs": 0,
    "evaluate.cutmix": 0.0,
    "evaluate.lr": 0.0,
    "evaluate.batch_size": 1,
    "evaluate.every": 0,
    "evaluate.uint8_networks": 0,
    "evaluate.full_epochs": 1,
    "evaluate.full_steps": 0,
}
# And the largest; JAX counts in 32 bits, and reads as many of a seed.
_MOST = 2**31 - 1
_MAXIMA = {
    "seed": 2**32 - 1,
    "momentum_img": 1.0,
    "average_img": 1.0,
    "momentum_net": 1.0,
    "cutmix": 1.0,
    "evaluate.cutmix": 1.0,
}
BASELINES = ("random", "full")


def _check(config: Config) -> None:
    values = flat(dataclasses.asdict(config))
    for name, minimum in _MINIMA.items():
        value = values[name]
        maximum = _MAXIMA.get(name, _MOST if isinstance(minimum, int) else sys.float_info.max)
        if value is not None and not minimum <= value <= maximum:
            upwards = f"to {maximum}" if name in _MAXIMA or value > maximum else "or more"
            raise ConfigError(f"--{name} {value} is out of range; choose {minimum} {upwards}")
    models.check_name(config.model)
    models.resolve_archs(config.evaluate.archs, model=config.model)
    for strategy in (config.dsa_strategy, config.augment_net, config.evaluate.augment):
        augment.operations(strategy or augment.NONE)
    halvings(config)
    if config.inner_epochs and config.inner_real:
        raise ConfigError(
            f"--inner_epochs {config.inner_epochs} trains the network on the synthetic images and "
            f"--inner_real {config.inner_real} on real ones; choose one, and 0 for the other"
        )
    if config.warmup_epochs and config.warmup_real:
        raise ConfigError(
            f"--warmup_epochs {config.warmup_epochs} warms the network up on the synthetic images "
            f"and --warmup_real {config.warmup_real} on real ones; choose one, and 0 for the other"
        )
    if config.debias == "lff" and config.cutmix:
        raise ConfigError(
            f"--debias lff needs the loss of single images, which --cutmix {config.cutmix} mixes; "
            "choose --cutmix 0, or --debias inverse_share or none"
        )
    if config.evaluate.weighting == "inverse_share" and config.init == "noise":
        raise ConfigError(
            "--evaluate.weighting inverse_share needs the groups of the synthetic images, which "
            "noise has not; choose --init real, balanced or mix, or --evaluate.weighting none"
        )
    sharding.check_mesh(config.mesh)
    for name in baselines(config.evaluate):
        if name not in BASELINES:
            raise unknown_name("baseline", name, (*BASELINES, "none"))


# Settings of the training of the network that is matched with.
_OF_TRAINING = (
    *("lr_net", "momentum_net", "weight_decay_net", "batch_train", "augment_net", "cutmix"),
)


def unread(config: Config) -> dict[str, str]:
    """Fields of a resolved configuration that nothing reads beside the others, and why.

    >>> config = resolve(Config(data.DataConfig("cmnist_fg"), sampling="proportional"))
    >>> unread(config)["per_cell"]
    'the proportional sampler draws --batch_real images of a class'
    """
    found = {}
    counts = method_named(config.method).coupling is not None and config.fairness == "vanilla"
    if config.sampling == "proportional":
        found["per_cell"] = "the proportional sampler draws --batch_real images of a class"
    elif not counts:
        found["batch_real"] = "the stratified sampler draws --per_cell images of a group"
    if not config.representatives:
        found["pool"] = "without --representatives all images are drawn from"
    if config.factor == 1:
        found["interpolation"] = "with --factor 1 no image is enlarged"
    if config.outer_loops == 1:
        why = "with --outer_loops 1 every update has a fresh network"
        found["inner_epochs"] = why
        if not config.warmup_epochs:  # which is on real images too if these are
            found["inner_real"] = why
    between = config.outer_loops > 1 and (config.inner_epochs or config.inner_real)
    if not (config.warmup_epochs or config.warmup_real or between):
        found |= dict.fromkeys(_OF_TRAINING, "the network that is matched with is not trained")
    full_steps = config.evaluate.full_steps
    if "full" not in baselines(config.evaluate):
        why = "--evaluate.baselines does not name full"
        found |= dict.fromkeys(("evaluate.full_epochs", "evaluate.full_steps"), why)
    elif full_steps is not None:
        why = f"--evaluate.full_steps {full_steps} stands in their place, null would not"
        found["evaluate.full_epochs"] = why
    return found


def halvings(config: Config) -> tuple[float, ...]:
    """Fractions of the run after which the learning rate of the images is halved.

    Raises:
      ConfigError: they are not numbers between 0 and 1.

    >>> halvings(Config(data=None, lr_img_halved="0.6, 0.9"))
    (0.6, 0.9)
    """
    try:
        fractions = tuple(float(word) for word in config.lr_img_halved.split(",") if word.strip())
    except ValueError:
        fractions = (0.0,)
    if not all(0 < fraction < 1 for fraction in fractions):
        raise ConfigError(
            f"--lr_img_halved must be fractions between 0 and 1 such as 0.6,0.9, "
            f"got '{config.lr_img_halved}'"
        )
    return fractions


def baselines(config: EvaluateConfig) -> tuple[str, ...]:
    """Names of the baselines to score.

    >>> baselines(EvaluateConfig(baselines="random, full"))
    ('random', 'full')
    """
    names = (name.strip() for name in config.baselines.split(","))
    return tuple(name for name in names if name not in ("", "none"))
