r"""Matching losses between real groups and a synthetic set: pure functions of arrays.

For one class, let :math:`m_a` be the mean signal (features, or parameter gradients) of the real
images with protected attribute :math:`a`, :math:`r_a` the share of that group in the class,
:math:`s` the signal of the synthetic images and :math:`D` a distance. Every fairness mode is a
small function of these:

=============== ======================================================================
vanilla         :math:`D(\sum_a r_a m_a, s)`, the mean of the class
fairdd          :math:`\sum_a D(m_a, s)`
fairdd_mean     :math:`\frac{1}{|A|} \sum_a D(m_a, s)`, as COBRA's code has it for gradients
cobra           :math:`D(\frac{1}{|A|} \sum_a m_a, s)`, the barycentre of the groups
=============== ======================================================================

The sums run over the groups that are present. The loss of a data set is the sum over its classes:
``vmap`` these functions over a leading class axis.

References: Zhou et al., FairDD (NeurIPS 2025), equations 5 and 6; COBRA (ICML 2026); Zhao et al.,
Dataset Condensation with Gradient Matching (ICLR 2021); Zhao and Bilen, Dataset Condensation with
Distribution Matching (WACV 2023).
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp

from fairdd_jax.errors import unknown_name

PyTree = Any
Fairness = Literal["vanilla", "fairdd", "fairdd_mean", "cobra"]
Distance = Callable[[PyTree, PyTree], jax.Array]

# What the official code adds to a product of norms before it divides by it.
_EPSILON = 1e-6
# Accelerators would round the operands of a mean otherwise.
_PRECISION = "highest"


def group_weights(
    groups: jax.Array, *, num_groups: int, valid: jax.Array | None = None
) -> jax.Array:
    """Weights whose rows average the images of each group.

    Args:
      groups: ``[N]`` integers in ``[0, num_groups)``.
      num_groups: number of groups G.
      valid: ``[N]`` booleans; an image that is not valid gets weight 0 everywhere.

    Returns:
      ``[G, N]``; row g is 1/n_g at the n_g valid images of group g, all zero if there are none.

    >>> group_weights(jnp.array([0, 2, 0]), num_groups=3)
    Array([[0.5, 0. , 0.5],
           [0. , 0. , 0. ],
           [0. , 1. , 0. ]], dtype=float32)
    """
    member = groups[None, :] == jnp.arange(num_groups, dtype=groups.dtype)[:, None]
    if valid is not None:
        member &= valid[None, :]
    member = member.astype(jnp.float32)
    return member / jnp.maximum(member.sum(1, keepdims=True), 1.0)


def group_centres(signals: jax.Array, weights: jax.Array) -> jax.Array:
    r"""Mean signal of every group, :math:`m_a = \sum_i w_{ai} x_i`.

    Args:
      signals: ``[N, ...]``, one per image.
      weights: ``[G, N]``, rows as `group_weights` makes them; an all-zero row is an absent group.

    Returns:
      ``[G, ...]``; zero for an absent group.

    >>> group_centres(jnp.array([[1.0], [3.0], [5.0]]), jnp.array([[0.5, 0.5, 0.0], [0, 0, 1.0]]))
    Array([[2.],
           [5.]], dtype=float32)
    """
    return jnp.tensordot(weights, signals, axes=1, precision=_PRECISION)


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
      shares: ``[G]``, fraction of the class in each group; equal shares if None. Only ``vanilla``
        uses it, renormalised over the groups that are present.
      present: ``[G]`` booleans; all if None. A group that is not present does not count.
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
    :math:`1 - \langle r, s\rangle / (|r||s| + 10^{-6})`. A norm has gradient 0 at 0, not NaN.

    Args:
      group_gradients: pytree of ``[G, *shape]``, gradient of the mean loss of each group.
      synthetic_gradients: the same pytree of ``[*shape]``.
      shares: ``[G]``, fraction of the class in each group; equal shares if None. Only ``vanilla``
        uses it, renormalised over the groups that are present.
      present: ``[G]`` booleans; all if None. A group that is not present does not count.
      fairness: a name of `FAIRNESS`; see the module.
      distance: a name of `GRADIENT_DISTANCES`.

    Returns:
      Scalar; ``ours`` and ``cos`` have no unit.

    Raises:
      ConfigError: an unknown fairness or distance.

    Reference: FairDD, equation 6; the distance ``ours`` is that of Zhao et al. (2021), section
    3.3. Deviation: rows run along the last axis, where PyTorch keeps output channels first.

    >>> kernel = jnp.array([[1.0, 0.0], [0.0, 1.0]])
    >>> gradient_matching_loss({"kernel": jnp.stack([kernel, -kernel])}, {"kernel": kernel})
    Array(4., dtype=float32)
    """
    measure = _named("distance", distance, GRADIENT_DISTANCES)
    return _match(group_gradients, synthetic_gradients, measure, shares, present, fairness)


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
    return mode(centres, synthetic, distance, _normalised(shares), counts)


def _normalised(weights: jax.Array) -> jax.Array:
    return weights / jnp.maximum(weights.sum(), jnp.finfo(weights.dtype).tiny)


def _pooled(centres: PyTree, weights: jax.Array) -> PyTree:
    return jax.tree.map(lambda centre: group_centres(centre, weights), centres)


def _vanilla(
    centres: PyTree, synthetic: PyTree, distance: Distance, shares: jax.Array, present: jax.Array
) -> jax.Array:
    return distance(_pooled(centres, shares), synthetic)


def _cobra(
    centres: PyTree, synthetic: PyTree, distance: Distance, shares: jax.Array, present: jax.Array
) -> jax.Array:
    return distance(_pooled(centres, _normalised(present)), synthetic)


def _fairdd(
    centres: PyTree, synthetic: PyTree, distance: Distance, shares: jax.Array, present: jax.Array
) -> jax.Array:
    terms = jax.vmap(distance, in_axes=(0, None))(centres, synthetic)
    return jnp.sum(jnp.where(present > 0, terms, 0.0))


def _fairdd_mean(
    centres: PyTree, synthetic: PyTree, distance: Distance, shares: jax.Array, present: jax.Array
) -> jax.Array:
    total = _fairdd(centres, synthetic, distance, shares, present)
    return total / jnp.maximum(present.sum(), 1.0)


FAIRNESS: dict[Fairness, Callable[..., jax.Array]] = {
    "vanilla": _vanilla,
    "fairdd": _fairdd,
    "fairdd_mean": _fairdd_mean,
    "cobra": _cobra,
}


def _norm(squared: jax.Array) -> jax.Array:
    """Square root with gradient 0 at 0."""
    positive = squared > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, squared, 1.0)), 0.0)


def _one_minus_cosine(dot: jax.Array, squared_a: jax.Array, squared_b: jax.Array) -> jax.Array:
    return 1.0 - dot / (_norm(squared_a) * _norm(squared_b) + _EPSILON)


def _total(
    of_tensors: Callable[[jax.Array, jax.Array], jax.Array], a: PyTree, b: PyTree
) -> jax.Array:
    """Sum over the tensors of two equal trees."""
    return jax.tree.reduce(jnp.add, jax.tree.map(of_tensors, a, b))


def _sum_of_squares(a: PyTree, b: PyTree) -> jax.Array:
    return _total(lambda x, y: jnp.sum((x - y) ** 2), a, b)


def _sum_of_absolutes(a: PyTree, b: PyTree) -> jax.Array:
    return _total(lambda x, y: jnp.sum(jnp.abs(x - y)), a, b)


def _cosine(a: PyTree, b: PyTree) -> jax.Array:
    def dot(x: PyTree, y: PyTree) -> jax.Array:
        return _total(lambda p, q: jnp.sum(p * q), x, y)

    return _one_minus_cosine(dot(a, b), dot(a, a), dot(b, b))


def _cosine_of_rows(a: PyTree, b: PyTree) -> jax.Array:
    def rows(x: jax.Array, y: jax.Array) -> jax.Array:
        if x.ndim < 2:
            return jnp.zeros((), x.dtype)
        axes = tuple(range(x.ndim - 1))
        dot, xx, yy = ((p * q).sum(axes) for p, q in ((x, y), (x, x), (y, y)))
        return _one_minus_cosine(dot, xx, yy).sum()

    return _total(rows, a, b)


FEATURE_DISTANCES: dict[str, Distance] = {
    "squared_l2": _sum_of_squares,
    "l1": _sum_of_absolutes,
    "cos": _cosine,
}
GRADIENT_DISTANCES: dict[str, Distance] = {
    "ours": _cosine_of_rows,
    "mse": _sum_of_squares,
    "cos": _cosine,
}


def _named(
    kind: str, name: str, table: Mapping[Any, Callable[..., jax.Array]]
) -> Callable[..., Any]:
    if name not in table:
        raise unknown_name(kind, name, table)
    return table[name]
