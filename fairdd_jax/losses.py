"""Matching losses between real groups and a synthetic set: pure functions of arrays.

Every loss is a distance (`fairdd_jax.distances`) between the signals of the groups of one class and
that of its synthetic images, put together by a fairness mode (`fairdd_jax.fairness` has the table).
The loss of a data set is the sum over its classes: ``vmap`` these functions over a leading class
axis.

References: Zhou et al., FairDD (NeurIPS 2025), equations 5 and 6; COBRA (ICML 2026); Zhao et al.,
Dataset Condensation with Gradient Matching (ICLR 2021); Zhao and Bilen, Dataset Condensation with
Distribution Matching (WACV 2023).
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from fairdd_jax.centres import PRECISION, group_centres, group_weights, normalised
from fairdd_jax.distances import (
    FEATURE_DISTANCES,
    GRADIENT_DISTANCES,
    LAYER_DISTANCES,
    Distance,
)
from fairdd_jax.errors import unknown_name
from fairdd_jax.fairness import FAIRNESS

__all__ = [
    "FAIRNESS",
    "FEATURE_DISTANCES",
    "GRADIENT_DISTANCES",
    "LAYER_DISTANCES",
    "discrimination_loss",
    "distribution_matching_loss",
    "gradient_matching_loss",
    "group_centres",
    "group_weights",
    "layer_matching_loss",
]

PyTree = Any


def distribution_matching_loss(
    centres: jax.Array,
    synthetic_mean: jax.Array,
    *,
    shares: jax.Array | None = None,
    present: jax.Array | None = None,
    fairness: str = "fairdd",
    distance: str = "squared_l2",
) -> jax.Array:
    r"""Distance between the mean features of the groups of one class and of its synthetic images.

    With ``squared_l2``, :math:`D(m, s) = \sum_d (m_d - s_d)^2`; with ``l1``,
    :math:`\sum_d |m_d - s_d|`, which COBRA uses; with ``cos``, 1 minus their cosine.

    Args:
      centres: ``[G, D]``, mean features of each group.
      synthetic_mean: ``[D]``, mean features of the synthetic images.
      shares: ``[G]``, fraction of the class in each group; equal shares if None. Renormalised over
        the groups that are present.
      present: ``[G]`` booleans; all if None. A group that is not present does not count,
        whatever its centre.
      fairness: a name of `FAIRNESS`; see the module.
      distance: a name of `FEATURE_DISTANCES`.

    Returns:
      Scalar, in squared (``squared_l2``) or plain (``l1``) units of the features.

    Raises:
      ConfigError: an unknown fairness or distance.

    Reference: FairDD, equation 5. The official code sums over the groups and does not divide.

    >>> centres = jnp.array([[0.0, 0.0], [2.0, 0.0]])
    >>> mean = jnp.array([0.0, 0.0])
    >>> distribution_matching_loss(centres, mean)
    Array(4., dtype=float32)
    >>> distribution_matching_loss(centres, mean, shares=jnp.array([0.9, 0.1]), fairness="vanilla")
    Array(0.04, dtype=float32)
    """
    measure = _named("distance", distance, FEATURE_DISTANCES)
    return _match(centres, synthetic_mean, measure, shares, present, fairness)


def gradient_matching_loss(
    group_gradients: PyTree,
    synthetic_gradients: PyTree,
    *,
    shares: jax.Array | None = None,
    present: jax.Array | None = None,
    fairness: str = "fairdd",
    distance: str = "ours",
) -> jax.Array:
    r"""Distance between the parameter gradients of real groups and of the synthetic images.

    With ``ours``, :math:`D(r, s)` sums :math:`1 - \langle r_o, s_o\rangle / (|r_o||s_o| + 10^{-6})`
    over the tensors with two or more axes and over their output channels :math:`o`, which lie
    along the last axis of a Flax kernel; tensors with one axis (biases, norms) do not count. With
    ``mse`` and ``cos``, all tensors are concatenated, and D is their squared distance, or
    :math:`1 - \langle r, s\rangle / (|r||s| + 10^{-6})`. A norm has gradient 0 at 0, not NaN. With
    ``kernel_mse`` and ``kernel_l1``, D is the squared or absolute distance of the convolution
    kernels alone, as in IDC.

    Args:
      group_gradients: pytree of ``[G, *shape]``, gradient of the mean loss of each group.
      synthetic_gradients: the same pytree of ``[*shape]``.
      shares: ``[G]``, fraction of the class in each group; equal shares if None. Renormalised over
        the groups that are present.
      present: ``[G]`` booleans; all if None. A group that is not present does not count,
        whatever its centre.
      fairness: a name of `FAIRNESS`; see the module.
      distance: a name of `GRADIENT_DISTANCES`.

    Returns:
      Scalar; ``ours`` and ``cos`` have no unit.

    Raises:
      ConfigError: an unknown fairness or distance.

    Reference: FairDD, equation 6; the distance ``ours`` is that of Zhao et al. (2021), section
    3.3, the distances of kernels those of Kim et al., IDC (ICML 2022). Deviation: rows run along
    the last axis, where PyTorch keeps output channels first.

    >>> kernel = jnp.array([[1.0, 0.0], [0.0, 1.0]])
    >>> gradient_matching_loss({"kernel": jnp.stack([kernel, -kernel])}, {"kernel": kernel})
    Array(4., dtype=float32)
    """
    measure = _named("distance", distance, GRADIENT_DISTANCES)
    return _match(group_gradients, synthetic_gradients, measure, shares, present, fairness)


def layer_matching_loss(
    group_means: PyTree,
    synthetic_means: PyTree,
    *,
    shares: jax.Array | None = None,
    present: jax.Array | None = None,
    fairness: str = "fairdd",
    distance: str = "layers_equal",
) -> jax.Array:
    r"""Distance between mean features of several layers, as CAFE matches them.

    :math:`D(m, s) = \sum_l w_l \sum_d (m_{ld} - s_{ld})^2`. The flattened features always weigh 1.
    With ``layers_equal``, COBRA's vanilla CAFE, all others do too; with ``layers``, as CAFE's
    authors publish it, the activations of the first two blocks weigh 0.1 and the deep layers 1;
    with ``layers_shallow``, COBRA's barycentre, the first two blocks 1 and the deep layers 0.1.

    Args:
      group_means: ``(features [G, D], layers)``; layers are those of `fairdd_jax.models.Outputs`,
        the last of them the final feature map, with leading axis G.
      synthetic_means: the same tree without that axis.
      shares: as in `distribution_matching_loss`.
      present: as in `distribution_matching_loss`.
      fairness: a name of `FAIRNESS`; see the module. The authors publish ``vanilla``, COBRA's code
        has ``cobra``; the others are ours.
      distance: a name of `LAYER_DISTANCES`.

    Returns:
      Scalar, in squared units of the features. COBRA's code divides it by the number of classes.

    Raises:
      ConfigError: an unknown fairness or distance.

    Reference: Wang et al., CAFE (CVPR 2022), equation 3.

    >>> means = (jnp.array([1.0]), (jnp.array([1.0]), jnp.array([1.0]), jnp.array([1.0])))
    >>> groups = jax.tree.map(lambda m: 2 * m[None], means)
    >>> layer_matching_loss(groups, means, distance="layers")
    Array(2.2, dtype=float32)
    """
    measure = _named("distance", distance, LAYER_DISTANCES)
    return _match(group_means, synthetic_means, measure, shares, present, fairness)


def discrimination_loss(
    features: jax.Array, synthetic_means: jax.Array, labels: jax.Array, *, weights: jax.Array
) -> jax.Array:
    r"""How badly the synthetic class means tell real images apart, CAFE's discrimination loss.

    :math:`\sum_i w_i \, \mathrm{CE}(\langle x_i, s_1\rangle, \ldots; y_i)`

    Args:
      features: ``[N, D]``, those of real images.
      synthetic_means: ``[C, D]``, mean features of the synthetic images of every class.
      labels: ``[N]`` integers.
      weights: ``[N]``; 1 for every image officially.

    Returns:
      Scalar.

    Reference: Wang et al., CAFE (CVPR 2022), equation 5.

    >>> discrimination_loss(
    ...     jnp.eye(2), jnp.zeros((2, 2)), jnp.array([0, 1]), weights=jnp.ones(2)
    ... ).round(4)
    Array(1.3863, dtype=float32)
    """
    logits = jnp.matmul(features, synthetic_means.T, precision=PRECISION)
    return weights @ optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def _match(
    centres: PyTree,
    synthetic: PyTree,
    distance: Distance,
    shares: jax.Array | None,
    present: jax.Array | None,
    fairness: str,
) -> jax.Array:
    mode = _named("fairness", fairness, FAIRNESS)
    num_groups = jax.tree.leaves(centres)[0].shape[0]
    counts = jnp.ones(num_groups) if present is None else present.astype(jnp.float32)
    shares = counts if shares is None else counts * shares
    # The mean of no image may be NaN, and NaN times 0 is NaN, in gradients too.
    centres = jax.tree.map(
        lambda centre: jnp.where(counts.reshape(-1, *[1] * (centre.ndim - 1)) > 0, centre, 0.0),
        centres,
    )
    return mode(centres, synthetic, distance, normalised(shares), counts)


def _named(
    kind: str, name: str, table: Mapping[Any, Callable[..., jax.Array]]
) -> Callable[..., Any]:
    if name not in table:
        raise unknown_name(kind, name, table)
    return table[name]
