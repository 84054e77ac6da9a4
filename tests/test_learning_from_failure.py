"""Learning from Failure: against a plain loop over images, in pieces, in chunks; what it finds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_train import SIDE, Linear, Normed, images

from fairdd_jax import learning_from_failure
from fairdd_jax.data.sampling import group_index
from fairdd_jax.learning_from_failure import LearningFromFailure
from fairdd_jax.train import Trainer

NUM, BATCH, CLASSES = 23, 9, 3
LR, MOMENTUM, DECAY = 0.5, 0.9, 0.01
KEY = jax.random.key(1)


def begun(network=None, num=NUM, **options):
    """The training, and a start with two networks."""
    trainer = Trainer(network or Linear(), (0.0,), (1.0,), **{"batch_size": BATCH} | options)
    both = (
        trainer.start(
            trainer.init(jax.random.key(seed), (SIDE, SIDE, 1)),
            lr=LR,
            momentum=MOMENTUM,
            weight_decay=DECAY,
        )
        for seed in (0, 7)
    )
    lff = LearningFromFailure(trainer, CLASSES)
    return lff, lff.start(*both, num_images=num)


def trained(last=8, network=None, **options):
    lff, state = begun(network, **options)
    return jax.jit(lff.run)(state, *images(NUM), KEY, 0, last)


class PlainLfF:
    """The authors' program in numpy: linear classifiers, one image after the other.

    Losses are averaged with 0.7 for what was, but the first of an image counts in full; the average
    is divided by the largest of the class; generalised cross-entropy is q p^q times cross-entropy
    with p held fixed, q = 0.7.
    """

    def __init__(self, x, y, kernels):
        self.x, self.y = x.reshape(len(x), -1).astype(np.float64), y
        self.kernels = [kernel.astype(np.float64) for kernel in kernels]
        self.velocities = [np.zeros_like(kernel) for kernel in self.kernels]
        self.averages = np.zeros((2, len(x)))
        self.visited = np.zeros(len(x), bool)

    def probabilities(self, which, image):
        logits = self.x[image] @ self.kernels[which]
        exponentials = np.exp(logits - logits.max())
        return exponentials / exponentials.sum()

    def weights(self, batch):
        for image in batch:
            for which in (0, 1):
                loss = -np.log(self.probabilities(which, image)[self.y[image]])
                old = self.averages[which, image]
                new = 0.7 * old + 0.3 * loss if self.visited[image] else loss
                self.averages[which, image] = new
            self.visited[image] = True
        found = []
        for image in batch:
            of_class = np.flatnonzero(self.y == self.y[image])
            biased, other = self.averages[:, image] / self.averages[:, of_class].max(1)
            found.append(biased / (biased + other + 1e-8))
        return found

    def step(self, batch):
        weights = self.weights(batch)
        for which in (0, 1):
            gradient = np.zeros_like(self.kernels[which])
            for image, weight in zip(batch, weights, strict=True):
                p = self.probabilities(which, image)
                truth = np.eye(CLASSES)[self.y[image]]
                factor = weight if which else 0.7 * p[self.y[image]] ** 0.7
                gradient += factor * np.outer(self.x[image], p - truth) / len(batch)
            gradient += DECAY * self.kernels[which]
            self.velocities[which] = MOMENTUM * self.velocities[which] + gradient
        for kernel, velocity in zip(self.kernels, self.velocities, strict=True):
            kernel -= LR * velocity


def kernel(network):
    return np.asarray(network.variables["params"]["kernel"])


def test_steps_agree_with_a_plain_loop():
    """Eight steps are two epochs and two thirds: of images that were visited once, twice, thrice.

    Each of the three batches of an epoch has other images, the last one five of them.
    """
    lff, state = begun()
    x, y = images(NUM)
    plain = PlainLfF(np.asarray(x), np.asarray(y), [kernel(state.biased), kernel(state.network)])
    step = jax.jit(lff.step)
    shuffle_key = jax.random.split(KEY)[0]
    visits = np.zeros(NUM, int)
    for number in range(8):
        _, indices, share = lff.trainer._batch(NUM, shuffle_key, number, 1)
        batch = np.asarray(indices)[np.asarray(share) > 0]
        visits[batch] += 1
        plain.step(batch)
        state = step(state, x, y, KEY, number)
        expected = np.where(plain.visited, plain.averages, -1.0)
        np.testing.assert_allclose(state.averages, expected, rtol=1e-5)
        np.testing.assert_allclose(kernel(state.biased), plain.kernels[0], atol=1e-5)
        np.testing.assert_allclose(kernel(state.network), plain.kernels[1], atol=1e-5)
    assert set(visits) == {2, 3}
    assert state.variables is state.network.variables


@pytest.mark.parametrize("network", [Linear(), Normed()], ids=["linear", "batch norm"])
def test_chunks_do_not_change_the_result(network):
    whole, chunked = (trained(network=network, chunk=chunk) for chunk in (1024, 4))
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(chunked), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_pieces_equal_the_whole():
    lff, start = begun(strategy="flip_crop")
    run = jax.jit(lff.run)
    whole = run(start, *images(NUM), KEY, 0, 5)
    pieces = run(run(start, *images(NUM), KEY, 0, 2), *images(NUM), KEY, 2, 5)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(pieces), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("network", "strategy"), [(Linear(), "flip_crop"), (Normed(), "none")])
def test_losses_are_those_of_the_training_step(network, strategy):
    """With equal weights their mean over a batch is the loss that the step takes, augmented."""
    lff, state = begun(network, strategy=strategy, chunk=4)
    of_batch = (*images(NUM), KEY, 2)  # the last one of the epoch, which is filled up
    indices, losses = jax.jit(lff.trainer.losses)(state.network.variables, *of_batch)
    valid = np.asarray(indices) < NUM
    assert valid.sum() == 5 < len(valid)
    _, metrics = jax.jit(lff.trainer.step)(state.network, *of_batch)
    assert float(metrics.loss) == pytest.approx(np.asarray(losses)[valid].mean(), rel=1e-5)


def test_arithmetic_in_bfloat16_keeps_losses_in_float32():
    half, full = (trained(dtype=dtype) for dtype in ("bfloat16", "float32"))
    assert half.averages.dtype == jnp.float32
    np.testing.assert_allclose(half.averages, full.averages, rtol=0.2, atol=0.05)
    assert (half.averages != full.averages).any()


def test_images_that_contradict_the_bias_weigh_more():
    """Two pixels say the class: a bright one, right in 90 % of the images, and a dim one, always.

    The bright one is learned first. Where it is wrong the biased network fails, and goes on to.
    """
    rng = np.random.default_rng(0)
    num = 200
    y = np.arange(num) % 2
    group = np.where(np.arange(num) < 180, y, 1 - y)
    x = rng.normal(size=(num, SIDE, SIDE, 1)) * 0.05
    x[:, 0, 0, 0] += 2.0 * (2 * group - 1)
    x[:, 1, 1, 0] += 0.5 * (2 * y - 1)
    lff, state = begun(num=num, batch_size=32)
    arrays = jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.int32)
    state = jax.jit(lff.run)(state, *arrays, KEY, 0, 84)
    weights = np.asarray(
        learning_from_failure.difficulty(state.averages, arrays[1], num_classes=CLASSES)
    )
    cells = group_index(y, group, num_classes=2, num_groups=2)
    assert np.asarray(cells.counts).tolist() == [[90, 10], [10, 90]]
    minority = weights[group != y]
    majority = weights[group == y]
    assert minority.min() > 0.5 > 0.1 > majority.max()


def test_an_image_that_nobody_fails_at_counts_a_little():
    """Losses of 0 divide by nothing, and batch statistics leave no image out."""
    averages = jnp.array([[0.0, 0.0, -1.0], [0.0, 2.0, -1.0]])
    weights = learning_from_failure.difficulty(averages, jnp.array([0, 1, 1]), num_classes=2)
    np.testing.assert_allclose(weights, learning_from_failure.EPSILON)
    assert float(learning_from_failure.confidence(jnp.float32(1e4))) > 0
