"""Group centres: the mean signal of every protected group, as one matrix product."""

import jax
import jax.numpy as jnp

# Accelerators would round the operands of a mean otherwise.
PRECISION = "highest"


def normalised(weights: jax.Array) -> jax.Array:
    """Weights (or counts, or booleans) divided by their sum along the last axis.

    All zero if it is 0.

    >>> normalised(jnp.array([[3, 0, 1], [0, 0, 0]])).tolist()
    [[0.75, 0.0, 0.25], [0.0, 0.0, 0.0]]
    """
    weights = weights.astype(jnp.float32)
    total = weights.sum(-1, keepdims=True)
    return weights / jnp.maximum(total, jnp.finfo(weights.dtype).tiny)


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
    # In int32, since num_groups may be more than a narrow type of the labels holds.
    member = groups.astype(jnp.int32)[None, :] == jnp.arange(num_groups)[:, None]
    if valid is not None:
        member &= valid[None, :]
    return normalised(member)


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
    return jnp.tensordot(weights, signals, axes=1, precision=PRECISION)
