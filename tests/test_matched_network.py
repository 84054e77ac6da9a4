"""What networks are trained on before and between updates, and how real images are weighed."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_loop import settings, start, toy

from fairdd_jax.learning_from_failure import FailureState, LearningFromFailure
from fairdd_jax.step import Step
from fairdd_jax.train import Trainer

TRAINING = {"lr_net": 0.2, "momentum_net": 0.9, "weight_decay_net": 0.01, "batch_train": 9}
LENGTH = 60  # of the toy data set: an epoch has six batches of nine and one of six


def run(config, updates=1):
    """The step, the key and the networks after so many updates."""
    step, state, data, key = start(config, toy())
    networks = []
    for _ in range(updates):
        state, _ = step.run_block(state, data, key, length=1)
        networks.append(jax.device_get(state.network))
    return step, key, networks


def assert_same(actual, expected, **tolerance):
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, **tolerance)


def differ(one, other):
    return any(
        np.abs(a - b).max() > 1e-3
        for a, b in zip(*map(jax.tree.leaves, (one.variables, other.variables)), strict=True)
    )


def plain_training(step, params, key, importance, steps):
    """SGD on the weighted cross-entropy of the toy images, without the trainer but for its order.

    Gradients are means over a batch, of which every image's part is multiplied by its importance;
    the importance is of mean 1 over a class, not over a batch.
    """
    train = toy().train
    mean, std = (np.asarray(values, np.float32) for values in (toy().mean, toy().std))
    images = (train.images.astype(np.float32) / np.float32(255) - mean) / std

    def loss(params, batch):
        logits = step.network.apply({"params": params}, images[batch]).logits
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels[batch])
        return (jnp.asarray(importance)[batch] * losses).sum() / len(batch)

    gradient_of, images = jax.jit(jax.grad(loss)), jnp.asarray(images)
    labels = jnp.asarray(train.labels)
    velocity = jax.tree.map(jnp.zeros_like, params)
    for number in range(steps):
        _, indices, share = step.trainer._batch(LENGTH, jax.random.split(key)[0], number, 1)
        batch = np.asarray(indices)[np.asarray(share) > 0]
        gradient = gradient_of(params, batch)
        velocity = jax.tree.map(lambda v, g, p: 0.9 * v + g + 0.01 * p, velocity, gradient, params)
        params = jax.tree.map(lambda p, v: p - 0.2 * v, params, velocity)
    return params


def inverse_shares():
    """1 / (|A| r_a), counted image by image."""
    train, found = toy().train, []
    for label, group in zip(train.labels, train.groups, strict=True):
        of_class = train.groups[train.labels == label]
        found.append(len(of_class) / (len(set(of_class.tolist())) * (of_class == group).sum()))
    return np.array(found, np.float32)


@pytest.mark.parametrize("debias", ["none", "inverse_share"])
def test_a_fresh_network_is_trained_on_weighted_real_images(debias):
    """65 images are eight batches: an epoch of seven, and one of the next."""
    step, key, (network,) = run(settings(warmup_real=65, debias=debias, **TRAINING))
    init_key, train_key = step._keys(key, jnp.int32(0))[:2]
    importance = inverse_shares() if debias == "inverse_share" else np.ones(LENGTH, np.float32)
    assert importance.std() > 0.3 or debias == "none"
    params = step.matched_network.fresh(init_key).variables["params"]
    expected = plain_training(step, params, train_key, importance, 8)
    assert_same(network.variables["params"], expected, atol=2e-5)


def test_a_network_that_learns_from_failures_takes_the_place_of_a_plain_one():
    """The one that is not biased is matched; it begins as the network of the same seed does."""
    config = settings(warmup_real=65, debias="lff", **TRAINING)
    step, key, (found, one_more) = run(config, updates=2)
    assert isinstance(found, FailureState)
    init_key, train_key = step._keys(key, jnp.int32(0))[:2]
    dataset = toy()
    trainer = Trainer(step.network, dataset.mean, dataset.std, batch_size=9, chunk=5)
    lff = LearningFromFailure(trainer, dataset.num_classes)
    begun = step.matched_network.fresh(init_key)
    images, labels = jnp.asarray(dataset.train.images), jnp.asarray(dataset.train.labels)
    expected = jax.jit(lff.run)(begun, images, labels, train_key, 0, 8)
    assert_same(found, expected, atol=2e-5)
    plain = Step(settings(**TRAINING), dataset).matched_network.fresh(init_key)
    assert_same(begun.network, plain, atol=0)
    assert differ(begun.biased, begun.network)
    assert (found.averages >= 0).all()
    assert differ(one_more, found)  # a fresh one every time


def test_without_training_a_network_is_as_it_was_made():
    step, key, (network,) = run(settings())
    fresh = step.matched_network.fresh(step._keys(key, jnp.int32(0)).init)
    assert_same(network, fresh, atol=0)


def test_real_images_before_the_first_update_and_synthetic_ones_in_between():
    config = settings("dc", warmup_real=18, inner_epochs=2, outer_loops=2, **TRAINING)
    step, state, data, key = start(config, toy())
    first, _ = step.run_block(state, data, key, length=1)
    before = jax.device_get((first.network, first.images))
    second, _ = step.run_block(first, data, key, length=1)
    keys = [step._keys(key, jnp.int32(update)) for update in (0, 1)]
    params = step.matched_network.fresh(keys[0].init).variables["params"]
    expected = plain_training(step, params, keys[0].train, np.ones(LENGTH, np.float32), 2)
    assert_same(before[0].variables["params"], expected, atol=2e-5)
    images = jnp.asarray(before[1]).reshape(-1, *before[1].shape[2:])
    expected = jax.jit(step.trainer.run)(
        before[0], images, jnp.array([0, 0, 1, 1]), keys[1].train, 0, 2
    )
    assert_same(second.network, expected, atol=2e-5)


def test_averages_last_as_long_as_their_network():
    config = settings("dc", inner_real=18, inner_epochs=0, debias="lff", **TRAINING)
    networks = run(config, updates=3)[2]
    visited = [(network.averages[0] >= 0).sum() for network in networks]
    assert visited == [0, 18, 0]


@pytest.mark.parametrize(
    ("changes", "real", "synthetic"),
    [
        ({}, (0, 0), (0, 0)),
        ({"warmup_real": 19}, (3, 0), (0, 0)),
        ({"warmup_epochs": 2}, (0, 0), (4, 0)),  # of ten images, in batches of nine
        ({"inner_real": 9}, (0, 1), (0, 0)),
        ({"inner_real": 9, "warmup_epochs": 2}, (14, 1), (0, 0)),
        ({"inner_real": 9, "warmup_real": 19}, (3, 1), (0, 0)),
        ({"warmup_real": 19, "inner_epochs": 3}, (3, 0), (0, 6)),
        ({"inner_epochs": 3, "factor": 2}, (0, 0), (0, 15)),
    ],
)
def test_steps_of_training(changes, real, synthetic):
    none = {"inner_epochs": 0, "warmup_epochs": 0, "ipc": 5, "batch_train": 9}
    config = settings("dc", **(none | changes))
    networks = Step(config, toy()).matched_network
    assert networks.training_steps(real=True) == real
    assert networks.training_steps(real=False) == synthetic
