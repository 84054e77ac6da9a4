"""Distribution matching (DM): the signal is the mean feature of a fresh random network.

Reference: Zhao and Bilen, Dataset Condensation with Distribution Matching (WACV 2023).
"""

from collections.abc import Callable

import jax

from fairdd_jax import losses
from fairdd_jax.chunks import sum_over_chunks
from fairdd_jax.methods.method import Forward, Method, PyTree, Real, uniform
from fairdd_jax.models import Outputs

Signal = Callable[[Outputs], PyTree]


def _features(outputs: Outputs) -> jax.Array:
    return outputs.features


def group_means(
    forward: Forward, params: PyTree, real: Real, label: jax.Array, signal: Signal = _features
) -> PyTree:
    """Mean signal of every group of a class, leaves ``[G, ...]``.

    Signals are never kept for more than a chunk, whose share of the group sums is a matrix
    product.
    """
    del label

    def of_chunk(images: jax.Array, weights: jax.Array) -> PyTree:
        signals = signal(forward(params, real.prepare(images), weights.any(1)))
        return jax.tree.map(lambda x: losses.group_centres(x, weights.T), signals)

    return sum_over_chunks(of_chunk, real.images, real.weights.T, chunk=real.chunk)


def synthetic_mean(
    forward: Forward,
    params: PyTree,
    images: jax.Array,
    label: jax.Array,
    chunk: int,
    signal: Signal = _features,
) -> PyTree:
    """Mean signal of the synthetic images of a class."""
    del label

    def of_chunk(images: jax.Array, weights: jax.Array) -> PyTree:
        signals = signal(forward(params, images))
        return jax.tree.map(lambda x: losses.group_centres(x, weights[None])[0], signals)

    return sum_over_chunks(of_chunk, images, uniform(images), chunk=chunk)


DM = Method(
    summary="DM, matches mean features",
    group_signals=group_means,
    synthetic_signal=synthetic_mean,
    loss=losses.distribution_matching_loss,
    distances=losses.FEATURE_DISTANCES,
    lr_img=lambda data, ipc, distance: 10.0 if ipc >= 100 else 1.0,
    cobra_distance="l1",
    cobra_warmup=True,
    frozen_statistics=False,
)
