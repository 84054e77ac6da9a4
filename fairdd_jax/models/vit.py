"""A small vision transformer: attention in place of the convolutions of the other networks."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from fairdd_jax.models.layers import Dense
from fairdd_jax.models.networks import Outputs

HEADS = 4
_PATCHES_PER_SIDE = 8


class ViT(nn.Module):
    """Patches, learned positions, ``layers`` pre-norm encoder layers, mean pooling, a linear layer.

    The features are the mean of the tokens, normalised: at initial weights attention is nearly
    even, so that a class token would tell distribution matching little more than the mean does,
    at the price of one more token. An image makes at most 8x8 patches whatever its size, so the
    cost does not grow with it; what is missing to whole patches is filled with zeros, the mean
    colour. The images are independent of each other.

    FairDD distils with ViTs of 1 to 3 layers (Table 22) and says no more of them: patches, width,
    heads, hidden units, pooling and initialisation are ours. All linear layers have PyTorch's
    default initialisation. Queries, keys and values are linear layers of their own, unlike in
    Flax's attention layer, so that the distance ``ours`` of gradient matching finds a unit in
    every column of every kernel, as everywhere else.

    Reference: Dosovitskiy et al., An Image is Worth 16x16 Words (ICLR 2021); mean pooling as in
    Beyer et al., Better plain ViT baselines for ImageNet-1k (2022).

    Attributes:
      num_classes: number of logits.
      layers: encoder layers, of `HEADS` heads each.
      width: units of a token, a multiple of `HEADS`.
    """

    num_classes: int
    layers: int = 1
    width: int = 128

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool = False, mask: jax.Array | None = None
    ) -> Outputs:
        """Classify a batch of images."""
        x = patches(x)
        N, T, size = x.shape
        x = Dense(self.width, name="patches")(x.reshape(-1, size)).reshape(N, T, self.width)
        x = x + self.param("positions", nn.initializers.normal(0.02), (T, self.width))[None]
        for _ in range(self.layers):
            x = EncoderLayer()(x)
        features = _norm("norm")(x.mean(1))
        return Outputs(Dense(self.num_classes, name="classifier")(features), features)


class EncoderLayer(nn.Module):
    """Self-attention, then two linear layers on every token, each normalised first and added."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply the layer to tokens ``[N, T, D]``."""
        N, T, D = x.shape
        y = _norm("norm_attention")(x).reshape(-1, D)
        query, key, value = (
            Dense(D, name=name)(y).reshape(N, T, HEADS, -1) for name in ("query", "key", "value")
        )
        y = nn.dot_product_attention(query, key, value).reshape(-1, D)
        x = x + Dense(D, name="out")(y).reshape(x.shape)
        y = _norm("norm_mlp")(x).reshape(-1, D)
        y = jax.nn.gelu(Dense(4 * D, name="expand")(y), approximate=False)
        return x + Dense(D, name="contract")(y).reshape(x.shape)


def _norm(name: str) -> nn.LayerNorm:
    return nn.LayerNorm(epsilon=1e-5, name=name)  # PyTorch's epsilon


def patches(images: jax.Array) -> jax.Array:
    """Square patches, 8 along the longer side or as few less as whole pixels need.

    Args:
      images: ``[N, H, W, C]``, filled with zeros below and on the right to whole patches.

    Returns:
      ``[N, T, p * p * C]``, row by row; p is the longer side over 8, rounded up.

    >>> patches(jnp.zeros((1, 64, 64, 3))).shape, patches(jnp.zeros((1, 28, 20, 1))).shape
    ((1, 64, 192), (1, 35, 16))
    """
    N, height, width, channels = images.shape
    p = -(-max(height, width) // _PATCHES_PER_SIDE)
    padded = jnp.pad(images, ((0, 0), (0, -height % p), (0, -width % p), (0, 0)))
    rows, columns = padded.shape[1] // p, padded.shape[2] // p
    grid = padded.reshape(N, rows, p, columns, p, channels).transpose(0, 1, 3, 2, 4, 5)
    return grid.reshape(N, rows * columns, p * p * channels)
