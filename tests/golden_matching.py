"""A golden data set run through a method of ours, class by class."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from conftest import golden
from torch_layout import convnet_from_torch, images_from_torch

from fairdd_jax import losses
from fairdd_jax.methods import METHODS
from fairdd_jax.methods.method import Real

# Chunks that do not divide the batch, so that padding is tested too.
CHUNK = 5


class Matching:
    """A golden data set run through a method of ours, class by class."""

    def __init__(self, file: str, method: str, decode=lambda images: images):
        self.golden = golden(file)
        self.method = METHODS[method]
        self.network, self.params = convnet_from_torch(self.golden)
        self.real = images_from_torch(self.golden["real"])
        self.ipc = int(self.golden["meta/ipc"])
        self.synthetic = images_from_torch(self.golden["syn"]).reshape(
            self.real.shape[0], self.ipc, *self.real.shape[2:]
        )
        self.cache = {}
        self.decode = decode
        # cafe.npz does not say how many groups there are.
        self.num_groups = int(self.golden.get("meta/num_groups", self.golden["group"].max() + 1))

    def forward(self, params, images, mask=None):
        return self.network.apply({"params": params}, images)

    def weights(self, label):
        groups = jnp.asarray(self.golden["group"][label])
        return losses.group_weights(groups, num_groups=self.num_groups)

    def group_signals(self, label):
        if label not in self.cache:
            real, weights = self.real[label], self.weights(label)
            self.cache[label] = self._group_signals(real, weights, label)
        return self.cache[label]

    @partial(jax.jit, static_argnums=0)
    def _group_signals(self, images, weights, label):
        blocks = images.shape[0] // CHUNK + self.num_groups
        real = Real(images, weights, lambda x: x, CHUNK, CHUNK, blocks)
        return self.method.group_signals(self.forward, self.params, real, label)

    @partial(jax.jit, static_argnums=0)
    def synthetic_signal(self, images, label):
        images = self.decode(images)
        return self.method.synthetic_signal(self.forward, self.params, images, label, 2)

    @partial(jax.jit, static_argnums=0)
    def pull_back(self, images, label, cotangent):
        return jax.vjp(lambda x: self.synthetic_signal(x, label), images)[1](cotangent)[0]

    def loss_and_gradient(self, fairness, distance):
        """Loss per class, and gradient of their sum with respect to the synthetic images."""
        counts = np.stack([np.bincount(g, minlength=self.num_groups) for g in self.golden["group"]])
        values, gradients = [], []
        for label, images in enumerate(self.synthetic):
            value, cotangent = jax.value_and_grad(self.method.loss, argnums=1)(
                self.group_signals(label),
                self.synthetic_signal(images, label),
                shares=jnp.asarray(counts[label] / counts[label].sum(), jnp.float32),
                present=jnp.asarray(counts[label] > 0),
                fairness=fairness,
                distance=distance,
            )
            values.append(value)
            gradients.append(self.pull_back(images, label, cotangent))
        return np.stack(values), np.concatenate(gradients)
