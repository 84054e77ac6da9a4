"""Gradient matching (DC): the signal is the gradient of the mean cross-entropy.

With the siamese augmentation it is called DSA. The images must be independent given the network
(instance norm, or frozen batch statistics), so that the gradient of a group is a weighted sum over
its images, in whatever portions they pass.

References: Zhao et al., Dataset Condensation with Gradient Matching (ICLR 2021); Zhao and Bilen,
Dataset Condensation with Differentiable Siamese Augmentation (ICML 2021).
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fairdd_jax import losses
from fairdd_jax.chunks import sum_over_chunks
from fairdd_jax.methods.method import Forward, Method, PyTree, Real, uniform


def _cross_entropy(
    params: PyTree, forward: Forward, images: jax.Array, label: jax.Array, weights: jax.Array
) -> jax.Array:
    logits = forward(params, images).logits
    labels = jnp.broadcast_to(label, logits.shape[:1])
    return weights @ optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def group_gradients(forward: Forward, params: PyTree, real: Real, label: jax.Array) -> PyTree:
    """Gradient of the mean cross-entropy of every group of a class, leaves ``[G, ...]``.

    The images are packed into blocks of one group each, and every block's gradient is added to
    that of its group: one backward pass per image whatever the number of groups, where a pass per
    group would cost G of them.
    """
    images, weights, block_groups = _pack(real)
    full = weights.size == real.weights.shape[1]  # a branch keeps XLA from fusing across it

    def add(total: PyTree, block: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[PyTree, None]:
        block_images, block_weights, group = block

        def with_block() -> PyTree:
            gradient = jax.grad(_cross_entropy)(
                params, forward, real.prepare(block_images), label, block_weights
            )
            return jax.tree.map(lambda t, g: t.at[group].add(g), total, gradient)

        if full:
            return with_block(), None
        return jax.lax.cond(block_weights.any(), with_block, lambda: total), None

    num_groups = real.weights.shape[0]
    zeros = jax.tree.map(lambda p: jnp.zeros((num_groups, *p.shape), p.dtype), params)
    return jax.lax.scan(add, zeros, (images, weights, block_groups))[0]


def _pack(real: Real) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Images ``[M, k, ...]``, their weights ``[M, k]`` and the group of each block ``[M]``."""
    num_groups, num_images = real.weights.shape
    slots = real.num_blocks * real.block
    group = jnp.argmax(real.weights, axis=0)
    weight = real.weights.max(0)
    member = (real.weights > 0).astype(jnp.int32)
    blocks = -(-member.sum(1) // real.block)
    ends = jnp.cumsum(blocks)
    rank = jnp.take_along_axis(jnp.cumsum(member, axis=1), group[None], axis=0)[0] - 1
    slot = (ends - blocks)[group] * real.block + rank
    slot = jnp.where(weight > 0, slot, slots)  # out of range: dropped
    source = jnp.zeros(slots, jnp.int32)
    source = source.at[slot].set(jnp.arange(num_images, dtype=jnp.int32), mode="drop")
    weights = jnp.zeros(slots).at[slot].set(weight, mode="drop")
    block_groups = jnp.searchsorted(ends, jnp.arange(real.num_blocks), side="right")
    shape = (real.num_blocks, real.block)
    return (
        real.images[source].reshape(*shape, *real.images.shape[1:]),
        weights.reshape(shape),
        jnp.minimum(block_groups, num_groups - 1),  # of the empty blocks at the end: any
    )


def mean_gradient(
    forward: Forward, params: PyTree, images: jax.Array, label: jax.Array, chunk: int
) -> PyTree:
    """Gradient of the mean cross-entropy of the synthetic images of a class."""

    def of_chunk(images: jax.Array, weights: jax.Array) -> PyTree:
        return jax.grad(_cross_entropy)(params, forward, images, label, weights)

    return sum_over_chunks(of_chunk, images, uniform(images), chunk=chunk)


# Epochs of network training between two updates at the IPCs that the official table has.
_INNER_EPOCHS = {1: 1, 10: 50, 20: 25, 30: 20, 40: 15, 50: 10}
_LONGEST_OUTER_LOOPS = 100


def dc_loops(ipc: int) -> tuple[int, int]:
    """Updates per network, and epochs of network training between them, of gradient matching.

    At the IPCs of the official table its values; the official program ends at any other. In
    between, one update per image of a class and epochs on the line between the neighbours; above
    50 officially 100 updates and 10 epochs.

    >>> dc_loops(10), dc_loops(15), dc_loops(51)
    ((10, 50), (15, 38), (100, 10))
    """
    if ipc > max(_INNER_EPOCHS):
        return _LONGEST_OUTER_LOOPS, _INNER_EPOCHS[max(_INNER_EPOCHS)]
    inner = np.interp(ipc, list(_INNER_EPOCHS), list(_INNER_EPOCHS.values()))
    return ipc, round(float(inner))


DC = Method(
    summary="DC, matches gradients",
    group_signals=group_gradients,
    synthetic_signal=mean_gradient,
    loss=losses.gradient_matching_loss,
    distances=losses.GRADIENT_DISTANCES,
    lr_img=lambda data, ipc, distance: 0.1,
    loops=lambda ipc, on_real: dc_loops(ipc),
    cobra_distance="ours",
    frozen_statistics=True,
    of_gradients=True,
)
