"""Settings: one frozen tree.

A value of None means that it depends on the others; `fairdd_jax.resolve` fills it in.
"""

import dataclasses
import json
from collections.abc import Set
from typing import Any, Literal

from fairdd_jax.data import DataConfig
from fairdd_jax.data.config import UNSET, Float, Int, Str
from fairdd_jax.errors import first_few
from fairdd_jax.fairness import Fairness
from fairdd_jax.formation import Interpolation
from fairdd_jax.grouping import GroupsConfig
from fairdd_jax.metrics import Empty

# Fields that decide how fast and where a run computes, not what.
SURROUNDINGS = frozenset({"block", "chunk", "log_every", "mesh", "stream"})
# Settings that are named where runs differ in more.
_MOST_NAMED = 4

Init = Literal["real", "balanced", "mix", "noise"]
Weighting = Literal["none", "inverse_share"]
Debias = Literal["none", "inverse_share", "lff"]


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
    """How a synthetic set is scored: fresh networks are trained on it and tested.

    Attributes:
      archs: networks as in model, separated by commas, or an official mode: S, SS, M, W, D, A, P,
        N, B (SS is the network that distilled).
      networks: fresh networks per architecture.
      epochs: training epochs on the synthetic set; one more is run, as officially. By method and
        augmentation if null.
      augment: augmentation strategies joined by underscores, or none. That of the distillation if
        null.
      cutmix: probability that a training batch is mixed by CutMix.
      weighting: what the loss of a training image is multiplied by, nothing (none) or the inverse
        share of its group in its class (inverse_share, the model fairness of the FairDD paper); the
        group of a synthetic image is that of the real one that it started as.
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
    cutmix: float = 0.0
    weighting: Weighting = "none"
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
      init: synthetic images start as random real images, as factor**2 small ones in each (mix), as
        the same of all groups in turn (balanced), or as noise.
      factor: crops along each side of a synthetic image, each of which is enlarged to an image of
        its own (multi-formation). By method, data and ipc if null.
      interpolation: how crops are enlarged, pixel centres (half_pixel) or corners on each other.
      model: network that distils, by name or as package.module:factory.
      distance: ours, mse, cos, kernel_mse, kernel_l1 (gradients); squared_l2, l1, cos (features);
        layers, layers_equal, layers_shallow (of CAFE). By method if null.
      dsa_strategy: siamese augmentation while distilling: names joined by underscores, of which one
        is drawn; or by +, which run in turn; or none.
      lr_img: learning rate of the synthetic images, in units of space. By method if null.
      lr_img_halved: fractions of the run after which the learning rate is halved, by commas.
      space: units of the synthetic images, normalised; or pixel values in [0, 1], to which they are
        clipped at the start of every iteration.
      momentum_img: momentum of the synthetic images.
      average_img: the result is a running mean of the synthetic images, of which every update keeps
        this share; 0 takes the last ones.
      batch_syn: synthetic images per class and update, decoded ones, drawn at random; 0 takes all.
      outer_loops: updates of the images per network. By method and ipc if null.
      inner_epochs: epochs of network training between two updates. By method and ipc if null.
      inner_real: real images, drawn afresh, that the network is trained on between two updates; 0
        trains it on the synthetic ones, inner_epochs.
      warmup_epochs: epochs of network training before the first update. By fairness and ipc if
        null.
      warmup_real: real images, drawn afresh, that a fresh network is trained on before its first
        update, in place of warmup_epochs; 0 trains it on none.
      debias: how training on real images weighs them, alike (none); by the inverse share of their
        group in their class (inverse_share); or by how hard they are for a second network that
        learns the bias (lff, Learning from Failure), which reads no group.
      lr_net: learning rate of that network training.
      momentum_net: momentum of that network training.
      weight_decay_net: weight decay of that network training.
      batch_train: images per step of that network training.
      augment_net: augmentation of that network training. That of the matching if null.
      cutmix: probability that a batch of that network training is mixed by CutMix.
      representatives: updates after which the real images to draw from are chosen anew, those next
        to the cluster centres of their features (DREAM); 0 draws from all.
      pool: real images of a cell (stratified) or class that representatives are chosen from; 0
        takes all.
      chunk: images that pass through the network at once; bounds the memory. By backend if null.
      block: updates per compiled call. By backend if null.
      stream: whether the training images stay on disk (or in memory) and those of an update are
        read ahead of time, or lie on the device; auto streams what takes more than half of the
        device's memory.
      mesh: devices that share the work, as class=4,data=2: along classes, and along the real images
        of a class; auto takes as many as are useful.
      compute_dtype: type of the arithmetic inside the networks; sums and statistics are float32.
      log_every: updates between two lines of the log.
      groups: what the matching is told of the groups of the training images.
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
    factor: Int = UNSET
    interpolation: Interpolation = "half_pixel"
    model: str = "ConvNet"
    distance: Str = UNSET
    dsa_strategy: str = "none"
    lr_img: Float = UNSET
    lr_img_halved: str = ""
    space: Literal["normalised", "pixel"] = "normalised"
    momentum_img: float = 0.5
    average_img: float = 0.0
    batch_syn: int = 0
    outer_loops: Int = UNSET
    inner_epochs: Int = UNSET
    inner_real: int = 0
    warmup_epochs: Int = UNSET
    warmup_real: int = 0
    debias: Debias = "none"
    lr_net: float = 0.01
    momentum_net: float = 0.0
    weight_decay_net: float = 0.0
    batch_train: int = 256
    augment_net: Str = UNSET
    cutmix: float = 0.0
    representatives: int = 0
    pool: int = 0
    chunk: Int = UNSET
    block: Int = UNSET
    stream: Literal["auto", "always", "never"] = "auto"
    mesh: str = "auto"
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    log_every: int = 10
    groups: GroupsConfig = dataclasses.field(default_factory=GroupsConfig)
    evaluate: EvaluateConfig = dataclasses.field(default_factory=EvaluateConfig)

    @property
    def decoded_ipc(self) -> int:
        """Images per class that networks are trained on: ``factor**2`` are coded in each."""
        return self.ipc * self.factor**2

    @property
    def updates(self) -> int:
        """Updates of the synthetic images in the whole run."""
        return self.steps * self.outer_loops

    def as_json(self) -> dict[str, Any]:
        """All fields as JSON gives them back, which makes lists of tuples."""
        content: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return content


def completed(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration that a file of an earlier version has, with the fields that came since.

    They have their defaults, with which a run is what it was before them.

    >>> completed({"data": {"name": "demo", "seed": 3}, "ipc": 5})["data"]["minority"]
    'equal'
    """
    return _onto(Config(DataConfig("demo")).as_json(), config)


def _onto(defaults: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """The one dict over the other, and so inside of both."""
    return defaults | {
        name: _onto(defaults[name], value)
        if isinstance(value, dict) and isinstance(defaults.get(name), dict)
        else value
        for name, value in given.items()
    }


def differences(config: dict[str, Any], here: Config, may_differ: Set[str]) -> str:
    """What tells the run of a file's configuration from one here, empty if nothing does.

    Args:
      config: as a file has it.
      here: the other.
      may_differ: fields that do not count.

    >>> here = Config(DataConfig("demo"), ipc=3)
    >>> differences(here.as_json() | {"ipc": 1, "block": 2}, here, SURROUNDINGS)
    '--ipc 1 there, 3 here'
    """
    there, own = flat(completed(config)), flat(here.as_json())
    found = [
        f"--{name} {there.get(name)} there, {own.get(name)} here"
        for name in sorted((there.keys() | own.keys()) - may_differ)
        if there.get(name) != own.get(name)
    ]
    return first_few(found, _MOST_NAMED, separator="; ")


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested dict with dotted keys.

    >>> flat({"ipc": 1, "evaluate": {"epochs": 300}})
    {'ipc': 1, 'evaluate.epochs': 300}
    """
    result: dict[str, Any] = {}
    for key, value in tree.items():
        dotted = prefix + key
        result |= flat(value, f"{dotted}.") if isinstance(value, dict) else {dotted: value}
    return result
