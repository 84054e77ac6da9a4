"""Distribution matching (DM): the signal is the mean feature of a fresh random network.

Reference: Zhao and Bilen, Dataset Condensation with Distribution Matching (WACV 2023).
"""

import jax
import jax.numpy as jnp

from fairdd_jax import losses
from fairdd_jax.methods.method import Forward, Method, PyTree, Real


def feature_centres(forward: Forward, params: PyTree, real: Real, label: jax.Array) -> jax.Array:
    """Mean features of every group of a class, ``[G, D]``.

    Features are never kept for more than a chunk: each chunk's share of the group sums is a matrix
    product, and the sums add up over the chunks.
    """
    del label
    chunk = min(real.chunk, real.images.shape[0])
    padding = -real.images.shape[0] % chunk
    images = jnp.pad(real.images, ((0, padding), (0, 0), (0, 0), (0, 0)))
    weights = jnp.pad(real.weights, ((0, 0), (0, padding)))
    images = images.reshape(-1, chunk, *images.shape[1:])
    weights = jnp.moveaxis(weights.reshape(weights.shape[0], -1, chunk), 1, 0)

    def centres_of(part: jax.Array, share: jax.Array) -> jax.Array:
        outputs = forward(params, real.prepare(part), share.any(0))
        return losses.group_centres(outputs.features, share)

    def add(total: jax.Array, part: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        return total + centres_of(*part), None

    total = jax.eval_shape(centres_of, images[0], weights[0])
    return jax.lax.scan(add, jnp.zeros(total.shape, total.dtype), (images, weights))[0]


def mean_feature(
    forward: Forward, params: PyTree, images: jax.Array, label: jax.Array
) -> jax.Array:
    """Mean feature of the synthetic images of a class, ``[D]``."""
    del label
    return forward(params, images).features.mean(0)


DM = Method(
    summary="DM, matches mean features",
    group_signals=feature_centres,
    synthetic_signal=mean_feature,
    loss=losses.distribution_matching_loss,
    distances=losses.FEATURE_DISTANCES,
    cobra_distance="l1",
    lr_img={1: 1.0, 100: 10.0},
    trains_network=False,
    cobra_warmup=True,
    frozen_statistics=False,
)
