"""CAFE: the signal is the mean of the features of every layer, and the network is trained between.

Without a fairness mode it also asks that the synthetic class means tell real images apart, which
couples the classes. That loss is linear in what each class does to the others, so that its gradient
with respect to all class means is found first and then added class by class.

Reference: Wang et al., CAFE: Learning to Condense Dataset by Aligning Features (CVPR 2022).
Deviations from the authors' code: the loops between two networks are those of DC, as in COBRA's,
where the authors stop when the accuracy on real images stands still; the cross-entropy of the real
images, which nothing synthetic changes, is left out. The discrimination loss is a sum over
`batch_real` images as theirs, however many the sampler draws.
"""

from functools import partial

import jax
import jax.numpy as jnp

from fairdd_jax import losses
from fairdd_jax.chunks import sum_over_chunks
from fairdd_jax.methods.dc import dc_loops
from fairdd_jax.methods.dm import group_means, synthetic_mean
from fairdd_jax.methods.method import Forward, Method, Pull, PyTree, Real
from fairdd_jax.models import Outputs

_DISCRIMINATION = 0.01  # weight of that loss


def _layers(outputs: Outputs) -> PyTree:
    return outputs.features, outputs.layers


def discrimination(
    forward: Forward,
    params: PyTree,
    real: Real,
    label: jax.Array,
    weights: jax.Array,
    synthetic_means: jax.Array,
) -> Pull:
    """The weighted discrimination loss of the real images of a class, and its gradient."""

    def of_chunk(images: jax.Array, weights: jax.Array) -> Pull:
        features = forward(params, real.prepare(images), weights > 0).features
        labels = jnp.full(features.shape[0], label)
        loss = partial(losses.discrimination_loss, features, labels=labels, weights=weights)
        return Pull(*jax.value_and_grad(loss)(synthetic_means))

    total = sum_over_chunks(of_chunk, real.images, weights, chunk=real.chunk)
    return jax.tree.map(lambda x: _DISCRIMINATION * x, total)


CAFE = Method(
    summary="CAFE, matches mean features of every layer",
    group_signals=partial(group_means, signal=_layers),
    synthetic_signal=partial(synthetic_mean, signal=_layers),
    loss=losses.layer_matching_loss,
    distances=losses.LAYER_DISTANCES,
    lr_img=lambda data, ipc, distance: 0.1,
    loops=lambda ipc, on_real: dc_loops(ipc),
    cobra_distance="layers_shallow",
    cobra_class_mean=True,
    frozen_statistics=False,
    coupling=discrimination,
    layers=True,
)
