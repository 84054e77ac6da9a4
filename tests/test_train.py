"""Training of networks: batches, augmentation and pieces."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fairdd_jax import train
from fairdd_jax.models.layers import BatchNorm
from fairdd_jax.models.networks import Outputs
from fairdd_jax.train import Trainer

SIDE = 4


class Linear(nn.Module):
    """Small enough to check by hand."""

    @nn.compact
    def __call__(self, x, *, train=False, mask=None):
        features = x.reshape(x.shape[0], -1)
        kernel = self.param("kernel", nn.initializers.normal(), (features.shape[1], 3))
        return Outputs(features @ kernel, features)


class Normed(nn.Module):
    """The same behind a batch norm."""

    @nn.compact
    def __call__(self, x, *, train=False, mask=None):
        return Linear()(BatchNorm()(x, train=train, mask=mask))


def images(num, seed=0):
    rng = np.random.default_rng(seed)
    x = jnp.asarray(rng.normal(size=(num, SIDE, SIDE, 1)), jnp.float32)
    return x, jnp.asarray(rng.integers(0, 3, num), jnp.int32)


def trained(num=23, last=6, network=None, **options):
    trainer = Trainer(network or Linear(), (0.0,), (1.0,), **options)
    x, y = images(num)
    state = trainer.start(trainer.init(jax.random.key(0), x.shape[1:]), lr=0.1, momentum=0.9)
    return jax.jit(trainer.run)(state, x, y, jax.random.key(1), 0, last).variables


def plain_gradient(kernel, x, y):
    """Gradient of the mean cross-entropy of a linear classifier, image by image."""
    total = np.zeros_like(kernel)
    for image, label in zip(x, y, strict=True):
        logits = image.ravel() @ kernel
        probabilities = np.exp(logits - logits.max())
        probabilities /= probabilities.sum()
        probabilities[label] -= 1
        total += np.outer(image.ravel(), probabilities)
    return total / len(x)


def test_sgd_agrees_with_a_plain_loop():
    lr, momentum, decay = 0.1, 0.9, 0.01
    trainer = Trainer(Linear(), (0.0,), (1.0,))
    x, y = images(11)
    variables = trainer.init(jax.random.key(0), x.shape[1:])
    kernel = np.asarray(variables["params"]["kernel"], np.float64)
    state = trainer.start(variables, lr=lr, momentum=momentum, weight_decay=decay)
    velocity = np.zeros_like(kernel)
    for step in range(4):
        state, _ = trainer.step(state, x, y, jax.random.key(1), step)
        gradient = plain_gradient(kernel, np.asarray(x, np.float64), np.asarray(y))
        velocity = momentum * velocity + gradient + decay * kernel
        kernel = kernel - lr * velocity
    np.testing.assert_allclose(state.variables["params"]["kernel"], kernel, atol=1e-5)


def test_an_epoch_sees_every_image_once_in_an_order_of_its_own():
    trainer = Trainer(Linear(), (0.0,), (1.0,), batch_size=5)
    epochs = []
    for epoch in range(2):
        seen = []
        for batch in range(trainer.steps_per_epoch(23)):
            step = epoch * trainer.steps_per_epoch(23) + batch
            _, indices, weights = trainer._batch(23, jax.random.key(0), step, 1)
            valid = np.asarray(weights) > 0
            np.testing.assert_allclose(np.asarray(weights)[valid], 1 / valid.sum(), rtol=1e-6)
            seen += np.asarray(indices)[valid].tolist()
        assert sorted(seen) == list(range(23))
        epochs.append(seen)
    assert epochs[0] != epochs[1]


@pytest.mark.parametrize("network", [Linear(), Normed()], ids=["linear", "batch norm"])
def test_chunks_do_not_change_the_result(network):
    whole, chunked = (trained(network=network, batch_size=9, chunk=c) for c in (1024, 4))
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(chunked), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


class Hollow(Linear):
    """Not a number on images of which none counts."""

    @nn.compact
    def __call__(self, x, *, train=False, mask=None):
        outputs = super().__call__(x)
        counts = 1.0 if mask is None else jnp.sign(mask.max())
        return Outputs(outputs.logits / counts, outputs.features)


def test_what_fills_the_last_batch_up_is_not_computed_on_cpu(monkeypatch):
    """Of 23 images in batches of 9, the last three places, a chunk, are empty."""
    options = {"batch_size": 9, "chunk": 3, "last": 3}
    found, expected = (trained(23, network=n, **options) for n in (Hollow(), Linear()))
    (kernel,), (plain,) = map(jax.tree.leaves, (found, expected))
    np.testing.assert_allclose(kernel, plain, atol=1e-6)
    monkeypatch.setattr(train, "on_cpu", lambda: False)
    (kernel,) = jax.tree.leaves(trained(23, network=Hollow(), **options))
    assert np.isnan(kernel).all()


def test_pieces_equal_the_whole():
    trainer = Trainer(Linear(), (0.0,), (1.0,), batch_size=9, strategy="flip_crop")
    x, y = images(23)
    start = trainer.start(trainer.init(jax.random.key(0), x.shape[1:]), lr=0.1, momentum=0.9)
    run = jax.jit(trainer.run)
    whole = run(start, x, y, jax.random.key(1), 0, 5)
    pieces = run(run(start, x, y, jax.random.key(1), 0, 2), x, y, jax.random.key(1), 2, 5)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(pieces), strict=True):
        np.testing.assert_array_equal(a, b)
    assert run._cache_size() == 1


def test_pixels_are_normalised():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (8, SIDE, SIDE, 1)).astype(np.uint8)
    labels = jnp.asarray(rng.integers(0, 3, 8), jnp.int32)
    trainer = Trainer(Linear(), (0.2,), (0.4,))
    state = trainer.start(trainer.init(jax.random.key(0), pixels.shape[1:]), lr=0.1)
    floats = jnp.asarray((pixels / 255 - 0.2) / 0.4, jnp.float32)
    results = [
        trainer.run(state, x, labels, jax.random.key(1), 0, 2).variables["params"]["kernel"]
        for x in (jnp.asarray(pixels), floats)
    ]
    np.testing.assert_allclose(*results, atol=1e-5)


def test_augmentation_changes_the_training_and_follows_the_key():
    plain, augmented, again = (
        trained(strategy=strategy)["params"]["kernel"] for strategy in ("none", "crop", "crop")
    )
    assert (plain != augmented).any()
    np.testing.assert_array_equal(augmented, again)
