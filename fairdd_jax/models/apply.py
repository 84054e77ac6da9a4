"""Running a network, in float32 or with its products in another type."""

from typing import Any

import flax.linen as nn
import jax

from fairdd_jax.models.networks import Outputs

PyTree = Any


def run(
    network: nn.Module,
    variables: PyTree,
    images: jax.Array,
    *,
    train: bool,
    mask: jax.Array | None = None,
    dtype: str = "float32",
) -> tuple[Outputs, PyTree]:
    """Run a network on normalised images.

    Args:
      network: a module of `fairdd_jax.models`, or one with the same call.
      variables: its collections, float32.
      images: ``[N, H, W, C]`` float32.
      train: whether batch norm takes the statistics of the batch.
      mask: ``[N]``, 0 for the images that batch statistics leave out.
      dtype: type of parameters and activations inside the network. Statistics of the norms and
        everything that comes out, gradients included, are float32.

    Returns:
      Outputs, and the collections that changed (``batch_stats``, or nothing).

    >>> from fairdd_jax import models
    >>> network = models.create("MLP", num_classes=2, image_shape=(4, 4, 1))
    >>> images = jax.numpy.ones((3, 4, 4, 1))
    >>> variables = network.init(jax.random.key(0), images)
    >>> run(network, variables, images, train=False, dtype="bfloat16")[0].logits.dtype
    dtype('float32')
    """
    variables = {**variables, "params": _cast(variables["params"], dtype)}
    outputs, changed = network.apply(
        variables, _cast(images, dtype), train=train, mask=mask, mutable=["batch_stats"]
    )
    return _cast(outputs, "float32"), changed


def _cast(tree: PyTree, dtype: str) -> PyTree:
    return jax.tree.map(lambda x: x.astype(dtype), tree)
