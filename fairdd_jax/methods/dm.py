"""Distribution matching (DM): the signal is the mean feature of a fresh random network.

Reference: Zhao and Bilen, Dataset Condensation with Distribution Matching (WACV 2023).
"""

import jax

from fairdd_jax import losses
from fairdd_jax.chunks import sum_over_chunks
from fairdd_jax.methods.method import Forward, Method, PyTree, Real, uniform


def feature_centres(forward: Forward, params: PyTree, real: Real, label: jax.Array) -> jax.Array:
    """Mean features of every group of a class, ``[G, D]``.

    Features are never kept for more than a chunk, whose share of the group sums is a matrix
    product.
    """
    del label

    def of_chunk(images: jax.Array, weights: jax.Array) -> jax.Array:
        outputs = forward(params, real.prepare(images), weights.any(1))
        return losses.group_centres(outputs.features, weights.T)

    return sum_over_chunks(of_chunk, real.images, real.weights.T, chunk=real.chunk)


def mean_feature(
    forward: Forward, params: PyTree, images: jax.Array, label: jax.Array, chunk: int
) -> jax.Array:
    """Mean feature of the synthetic images of a class, ``[D]``."""
    del label

    def of_chunk(images: jax.Array, weights: jax.Array) -> jax.Array:
        return weights @ forward(params, images).features

    return sum_over_chunks(of_chunk, images, uniform(images), chunk=chunk)


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
