"""What a matching method is: a record of functions. The loop knows no method by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from fairdd_jax.data import DataConfig
from fairdd_jax.models import Outputs

PyTree = Any


class Forward(Protocol):
    """A network with everything but its parameters and its images fixed."""

    def __call__(self, params: PyTree, images: jax.Array, mask: jax.Array | None = None) -> Outputs:
        """Logits and features of normalised images ``[N, H, W, C]``; ``mask`` as in models."""
        ...


@dataclass(frozen=True)
class Real:
    """The real images of one class as a method sees them.

    Attributes:
      images: ``[N, H, W, C]`` uint8.
      weights: ``[G, N]``; row g averages the images of group g.
      prepare: normalises and augments any number of the images.
      chunk: images that pass through the network at once.
      block: size of a block of images of one group, for methods that take one group at a time.
      num_blocks: how many such blocks hold all images, whatever the draw.
    """

    images: jax.Array
    weights: jax.Array
    prepare: Callable[[jax.Array], jax.Array]
    chunk: int
    block: int
    num_blocks: int


def uniform(images: jax.Array) -> jax.Array:
    """Weights ``[N]`` that average images ``[N, ...]``."""
    return jnp.full(images.shape[0], 1.0 / images.shape[0])


class Pull(NamedTuple):
    """What couples the classes: how real images of one class move the synthetic means of all."""

    value: jax.Array
    """Its loss."""
    gradient: jax.Array
    """``[C, D]``, with respect to the mean features of all classes."""


@dataclass(frozen=True)
class Method:
    """A matching method.

    Attributes:
      summary: one line for a person.
      group_signals: ``(forward, params, real, label)`` to the mean signal of every group, a pytree
        with leading axis G.
      synthetic_signal: ``(forward, params, images, label, chunk)`` to the same pytree without that
        axis.
      loss: ``(group signals, synthetic signal, shares, present, fairness, distance)`` to a scalar.
      distances: names of the distances that the loss knows; the first is the default.
      lr_img: ``(settings of the data set, ipc, distance)`` to the learning rate of the synthetic
        images.
      loops: ``(ipc, whether the network is trained on real images)`` to the updates per network,
        and the epochs of training on the synthetic images in between.
      factor: ``(name of the data set, ipc)`` to the crops along each side of a synthetic image.
      cobra_distance: the default distance of the fairness mode cobra.
      cobra_warmup: whether cobra warms the network up before it matches.
      cobra_class_mean: whether cobra divides the loss by the number of classes.
      frozen_statistics: whether batch norm uses statistics taken from real images of all classes
        beforehand, or those of the batch in hand.
      coupling: ``(forward, params, real, label, weights, synthetic means [C, D])`` to the `Pull` of
        the real images of a class, which vanilla adds; weights ``[N]`` add up to
        ``batch_real``.
      of_gradients: whether the signals are gradients of the network's parameters.
      layers: whether it needs the layers of the network's outputs.
    """

    summary: str
    group_signals: Callable[[Forward, PyTree, Real, jax.Array], PyTree]
    synthetic_signal: Callable[[Forward, PyTree, jax.Array, jax.Array, int], PyTree]
    loss: Callable[..., jax.Array]
    distances: Mapping[str, Any]
    lr_img: Callable[[DataConfig, int, str], float]
    cobra_distance: str
    frozen_statistics: bool
    loops: Callable[[int, bool], tuple[int, int]] = lambda ipc, on_real: (1, 0)
    factor: Callable[[str, int], int] = lambda dataset, ipc: 1
    cobra_warmup: bool = False
    cobra_class_mean: bool = False
    coupling: Callable[..., Pull] | None = None
    of_gradients: bool = False
    layers: bool = False

    @property
    def default_distance(self) -> str:
        """The distance of every fairness mode but cobra."""
        return next(iter(self.distances))
