r"""Fairness modes: what the synthetic signal of a class is matched to.

For one class, let :math:`m_a` be the mean signal (features, or parameter gradients) of the real
images with protected attribute :math:`a`, :math:`r_a` the share of that group in the class,
:math:`s` the signal of the synthetic images and :math:`D` a distance. Every fairness mode is a
small function of these:

=============== ======================================================================
vanilla         :math:`D(\sum_a r_a m_a, s)`, the mean of the class
fairdd          :math:`\sum_a D(m_a, s)`
fairdd_mean     :math:`\frac{1}{|A|} \sum_a D(m_a, s)`, as COBRA's code has it for gradients
cobra           :math:`D(\frac{1}{|A|} \sum_a m_a, s)`, the barycentre of the groups
inverse_size    :math:`\sum_a w_a D(m_a, s)`, :math:`w_a \propto 1 / r_a`, mean weight 1
ldam            :math:`\sum_a w_a D(m_a, s)`, :math:`w_a \propto r_a^{-1/4}`, mean weight 1
groupdro        :math:`\max_a D(m_a, s)`, the group that is matched worst
df              :math:`\frac{1}{|A|} \sum_a D(m_a, s) / r_a`, which large steps may follow
=============== ======================================================================

The sums run over the groups that are present, :math:`|A|` of them; a class without any has the
loss 0. The loss of a data set is the sum over its classes: ``vmap`` these functions over a leading
class axis. The modes from ``inverse_size`` on are those that the FairDD paper compares itself with;
it names their ideas and not their formulas, which are ours.

References: Zhou et al., FairDD (NeurIPS 2025), equations 5 and 6, tables 7 and 10; COBRA (ICML
2026); Zhao et al., Dataset Condensation with Gradient Matching (ICLR 2021); Zhao and Bilen, Dataset
Condensation with Distribution Matching (WACV 2023); Cao et al., LDAM (NeurIPS 2019), whose margins
are proportional to the power -1/4 of a size; Sagawa et al., GroupDRO (ICLR 2020).
"""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from fairdd_jax.centres import group_centres, normalised
from fairdd_jax.distances import Distance

PyTree = Any
Fairness = Literal[
    "vanilla", "fairdd", "fairdd_mean", "cobra", "inverse_size", "ldam", "groupdro", "df"
]


# A loss of one class: of (centres, synthetic, distance, shares, present).
Mode = Callable[[PyTree, PyTree, Distance, jax.Array, jax.Array], jax.Array]
# Of every group: of (shares, present).
Weights = Callable[[jax.Array, jax.Array], jax.Array]
# One number: of (the distance of every group, shares, present).
Total = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


def _of_mean(weights: Weights) -> Mode:
    """The mode that matches one weighted mean of the centres."""

    def mode(
        centres: PyTree,
        synthetic: PyTree,
        distance: Distance,
        shares: jax.Array,
        present: jax.Array,
    ) -> jax.Array:
        of_groups = weights(shares, present)
        mean = jax.tree.map(lambda centre: group_centres(centre, of_groups), centres)
        return jnp.where(present.any(), distance(mean, synthetic), 0.0)

    return mode


def _of_terms(total: Total) -> Mode:
    """The mode that makes one number of the groups' terms."""

    def mode(
        centres: PyTree,
        synthetic: PyTree,
        distance: Distance,
        shares: jax.Array,
        present: jax.Array,
    ) -> jax.Array:
        terms = jax.vmap(distance, in_axes=(0, None))(centres, synthetic)
        return total(terms, shares, present)

    return mode


def _weighted(weights: Weights) -> Mode:
    """The mode that adds the groups' terms with weights."""

    def total(terms: jax.Array, shares: jax.Array, present: jax.Array) -> jax.Array:
        known = jnp.where(present > 0, shares, 1.0)
        return jnp.sum(jnp.where(present > 0, weights(known, present) * terms, 0.0))

    return _of_terms(total)


def _power(exponent: float) -> Weights:
    """Weights proportional to a power of the shares, of mean 1 over the present groups."""
    return lambda shares, present: present.sum() * normalised(present * shares**exponent)


def _largest(terms: jax.Array, shares: jax.Array, present: jax.Array) -> jax.Array:
    return jnp.where(present.any(), jnp.max(jnp.where(present > 0, terms, -jnp.inf)), 0.0)


FAIRNESS: dict[Fairness, Mode] = {
    "vanilla": _of_mean(lambda shares, present: shares),
    "fairdd": _weighted(lambda shares, present: present),
    "fairdd_mean": _weighted(lambda shares, present: normalised(present)),
    "cobra": _of_mean(lambda shares, present: normalised(present)),
    "inverse_size": _weighted(_power(-1.0)),
    "ldam": _weighted(_power(-0.25)),
    "groupdro": _of_terms(_largest),
    "df": _weighted(lambda shares, present: normalised(present) / shares),
}


def inverse_shares(labels: np.ndarray, groups: np.ndarray) -> np.ndarray:
    r"""What model fairness multiplies the training loss of every image by.

    :math:`1 / (|A| r_a)` for an image of group a, of mean 1 over a class whose groups are A.

    Args:
      labels: ``[N]`` integers.
      groups: ``[N]`` integers.

    Returns:
      ``[N]`` float32.

    Reference: the baseline "model fairness" of the FairDD paper's table 7.

    >>> inverse_shares(np.array([0, 0, 0, 1]), np.array([1, 1, 2, 0])).tolist()
    [0.75, 0.75, 1.5, 1.0]
    """
    weights = np.zeros(len(labels), np.float32)
    for label in np.unique(labels):
        members = labels == label
        present, place, count = np.unique(groups[members], return_inverse=True, return_counts=True)
        weights[members] = members.sum() / (len(present) * count[place])
    return weights
