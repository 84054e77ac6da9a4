"""Applying a network, in float32 or with its products in another type."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from fairdd_jax.models.networks import Outputs

PyTree = Any


def apply(
    network: nn.Module,
    variables: PyTree,
    images: jax.Array,
    *,
    train: bool,
    mask: jax.Array | None = None,
    dtype: str = "float32",
) -> tuple[Outputs, PyTree]:
    """Apply a network to normalised images.

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
    >>> apply(network, variables, images, train=False, dtype="bfloat16")[0].logits.dtype
    dtype('float32')
    """
    variables = {**variables, "params": _cast(variables["params"], dtype)}
    outputs, changed = network.apply(
        variables, _cast(images, dtype), train=train, mask=mask, mutable=["batch_stats"]
    )
    return _cast(outputs, "float32"), changed


def shapes(network: nn.Module, image_shape: tuple[int, ...]) -> tuple[Outputs, PyTree]:
    """Shapes and types of what a network gives for one image, and of its variables.

    Args:
      network: a module of `fairdd_jax.models`, or one with the same call.
      image_shape: ``(H, W, C)``

    >>> from fairdd_jax import models
    >>> network = models.create("MLP", num_classes=2, image_shape=(4, 4, 1))
    >>> shapes(network, (4, 4, 1))[0].logits.shape
    (1, 2)
    """
    made: tuple[Outputs, PyTree] = jax.eval_shape(
        lambda key: network.init_with_output(key, jnp.zeros((1, *image_shape))), jax.random.key(0)
    )
    return made


def _cast(tree: PyTree, dtype: str) -> PyTree:
    return jax.tree.map(lambda x: x.astype(dtype), tree)
