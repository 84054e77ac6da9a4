r"""Learning from Failure (LfF): a network that learns most from what a biased one fails at.

Two networks of one architecture are trained on the same batches. The biased one B is trained with
the generalised cross-entropy of image x, in which images that it is sure of count most, the other
one D with a weighted cross-entropy:

.. math::

    L_B = q\, p_B(y \mid x)^q\, \mathrm{CE}_B(x), \qquad L_D = W(x)\, \mathrm{CE}_D(x), \qquad
    W(x) = \frac{b(x)}{b(x) + d(x) + \epsilon},

where :math:`b` and :math:`d` are the cross-entropies of B and D on x, averaged over the visits of x
(the first one counts in full, then :math:`e \leftarrow \alpha e + (1 - \alpha) \mathrm{CE}`, this
visit's included) and divided by the largest such average in the class of x. Nothing is
differentiated through :math:`p_B^q` and :math:`W`. :math:`q = \alpha = 0.7`,
:math:`\epsilon = 10^{-8}`. No group is known to it: images that contradict the bias are those that
B is slow at.

Reference: Nam et al., Learning from Failure: De-biasing Classifier from Biased Classifier (NeurIPS
2020), algorithm 1; the factor q, the averages, their normalisation and :math:`\epsilon` as in its
authors' code. Deviations: SGD, as every network here, where theirs is Adam; nothing is divided by a
largest average of 0; weights are at least :math:`\epsilon`, so that batch statistics take every
image.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fairdd_jax.train import Trainer, TrainState

PyTree = Any

Q = 0.7
ALPHA = 0.7
EPSILON = 1e-8
_UNSEEN = -1.0


class FailureState(NamedTuple):
    """Both networks in training."""

    network: TrainState
    """The one that learns from the failures of the other."""
    biased: TrainState
    averages: jax.Array
    """``[2, N]``, the losses of the biased and of the other network on every image, averaged over
    its visits; negative before the first."""

    @property
    def variables(self) -> PyTree:
        """Those of the network that is not biased."""
        return self.network.variables


def averaged(averages: jax.Array, indices: jax.Array, losses: jax.Array) -> jax.Array:
    """Averages ``[2, N]`` after a visit of some images.

    Args:
      averages: before it; negative of images that have not been visited.
      indices: ``[B]``, the images; N is none.
      losses: ``[2, B]``

    >>> before = jnp.array([[-1.0, 1.0, 5.0]])
    >>> print(averaged(before, jnp.array([0, 1, 3]), jnp.array([[4.0, 2.0, 9.0]])).round(2))
    [[4.  1.3 5. ]]
    """
    before = averages.at[:, indices].get(mode="clip")
    after = jnp.where(before < 0, losses, ALPHA * before + (1 - ALPHA) * losses)
    return averages.at[:, indices].set(after, mode="drop")


def difficulty(averages: jax.Array, labels: jax.Array, *, num_classes: int) -> jax.Array:
    """W ``[N]`` of images with averages ``[2, N]`` and labels ``[N]``; above 0, below 1.

    >>> print(difficulty(jnp.array([[1.0, 4.0], [3.0, 3.0]]), jnp.array([0, 0]), num_classes=1))
    [0.2 0.5]
    """

    def relative(averages: jax.Array) -> jax.Array:
        known = jnp.maximum(averages, 0.0)
        largest = jax.ops.segment_max(known, labels, num_segments=num_classes)
        return known / jnp.maximum(largest, jnp.finfo(largest.dtype).tiny)[labels]

    biased, other = jax.vmap(relative)(averages)
    return jnp.maximum(biased / (biased + other + EPSILON), EPSILON)


def confidence(losses: jax.Array) -> jax.Array:
    """What generalised cross-entropy multiplies cross-entropies by, :math:`q p^q`.

    >>> f"{confidence(jnp.log(2.0)):.4f}"
    '0.4309'
    """
    return jnp.maximum(Q * jnp.exp(-Q * losses), EPSILON)


@dataclass(frozen=True)
class LearningFromFailure:
    """How two networks are trained side by side.

    Attributes:
      trainer: how each of them is; without CutMix, whose images have no loss of their own.
      num_classes: number of classes.
    """

    trainer: Trainer
    num_classes: int

    def start(self, network: TrainState, biased: TrainState, *, num_images: int) -> FailureState:
        """Begin with two networks that have seen nothing of a set of images."""
        return FailureState(network, biased, jnp.full((2, num_images), _UNSEEN))

    def run(
        self,
        state: FailureState,
        images: jax.Array,
        labels: jax.Array,
        key: jax.Array,
        first: jax.Array | int,
        last: jax.Array | int,
    ) -> FailureState:
        """Take the steps ``first`` to ``last - 1``; both may be traced."""
        body = lambda step, s: self.step(s, images, labels, key, step)  # noqa: E731
        return jax.lax.fori_loop(first, last, body, state)

    def step(
        self,
        state: FailureState,
        images: jax.Array,
        labels: jax.Array,
        key: jax.Array,
        step: jax.Array | int,
    ) -> FailureState:
        """Take one step of both networks on the batch that belongs to its number.

        The batch passes through them once more than in `Trainer.step`, since the weights follow
        from the losses of the whole batch.

        Args:
          state: both networks.
          images: ``[N, H, W, C]`` and the others as in `Trainer.step`.
          labels: ``[N]`` integers.
          key: random key of the whole training.
          step: number of the step, from 0.
        """
        batch = images, labels, key, step
        indices, of_biased = self.trainer.losses(state.biased.variables, *batch)
        _, of_other = self.trainer.losses(state.network.variables, *batch)
        averages = averaged(state.averages, indices, jnp.stack([of_biased, of_other]))
        sure = jnp.zeros(labels.shape).at[indices].set(confidence(of_biased), mode="drop")
        hard = difficulty(averages, labels, num_classes=self.num_classes)
        biased, _ = self.trainer.step(state.biased, *batch, importance=sure)
        network, _ = self.trainer.step(state.network, *batch, importance=hard)
        return FailureState(network, biased, averages)
