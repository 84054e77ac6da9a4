"""Features of many images, a few at a time, outside a step."""

from typing import Any

import flax.linen as nn
import jax
import numpy as np

from fairdd_jax import models
from fairdd_jax.data import Dataset
from fairdd_jax.sharding import REPLICATED, SPLIT, local_mesh, place, shard_map

PyTree = Any

_BLOCK = 500  # images per compiled call


class Embedding:
    """Maps the variables of a network and uint8 images to features.

    Args:
      network: a module of `fairdd_jax.models`.
      dataset: image shape and normalisation.
      chunk: images that pass through the network at once, on every device, at most.
      dtype: type of the arithmetic in the network, see `fairdd_jax.models.apply`.
    """

    def __init__(self, network: nn.Module, dataset: Dataset, *, chunk: int, dtype: str = "float32"):
        self.network = network
        self.dataset = dataset
        self.chunk = min(chunk, _BLOCK)
        self.dtype = dtype
        self.mesh = local_mesh()
        stride = self.chunk * self.mesh.size
        self.size = -(-_BLOCK // stride) * stride
        self._of_block = jax.jit(shard_map(self._of_device, self.mesh, (REPLICATED, SPLIT), SPLIT))

    def __call__(self, variables: PyTree, images: np.ndarray) -> np.ndarray:
        """Features ``[n, D]`` float32 of images ``[n, H, W, C]``, memory-mapped or not."""
        variables = place(variables, self.mesh)
        parts = []
        for start in range(0, len(images), self.size):
            block = images[start : start + self.size]
            padded = np.pad(block, [(0, self.size - len(block))] + [(0, 0)] * 3)
            features = self._of_block(variables, place(padded, self.mesh, SPLIT))
            parts.append(np.asarray(features)[: len(block)])
        return np.concatenate(parts)

    def _of_device(self, variables: PyTree, pixels: jax.Array) -> jax.Array:
        def of_chunk(chunk: jax.Array) -> jax.Array:
            images = self.dataset.normalise(chunk)
            outputs, _ = models.apply(
                self.network, variables, images, train=False, dtype=self.dtype
            )
            return outputs.features

        chunks = pixels.reshape(-1, self.chunk, *self.dataset.image_shape)
        return jax.lax.map(of_chunk, chunks).reshape(len(pixels), -1)
