"""The step and the loop against plain loops over images and groups."""

import dataclasses
import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fairdd_jax import config as configuration
from fairdd_jax import losses
from fairdd_jax.data import Dataset
from fairdd_jax.errors import ConfigError, NonFiniteLossError
from fairdd_jax.loop import run_updates
from fairdd_jax.start import initial_images
from fairdd_jax.step import Step
from fairdd_jax.training_set import training_set

CLASSES, GROUPS, SIDE = 2, 3, 8


def toy(num=60, seed=0):
    """Random images whose brightness tells the class and whose last channel tells the group."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, num)
    groups = np.where(rng.random(num) < 0.6, labels, rng.integers(0, GROUPS, num))
    images = rng.integers(0, 90, (num, SIDE, SIDE, 3)) + 60 * labels[:, None, None, None]
    images[..., 2] += 40 * groups[:, None, None]
    split = (images.astype(np.uint8), labels, groups)
    return Dataset.from_arrays(split, split, name="toy")


def settings(method="dm", **changes):
    base = {
        "data.name": "toy",
        "method": method,
        "model": "ConvNetD1W8",
        "ipc": 2,
        "steps": 2,
        "per_cell": 4,
        "batch_real": 16,
        "chunk": 3,
        "lr_img": 0.1,
    }
    if method != "dm":
        base |= {"outer_loops": 2, "inner_epochs": 1}
    return configuration.make(base | changes)


def logged(config, dataset, seed=0):
    """The lines of the log of a whole run."""
    key = jax.random.key(seed)
    images = initial_images(key, dataset, ipc=config.ipc, init=config.init).images
    return run_updates(config, dataset, key=key, images=images)


def start(config, dataset, seed=0):
    key = jax.random.key(seed)
    images = initial_images(key, dataset, ipc=config.ipc, init=config.init).images
    step = Step(config, dataset)
    return step, step.init(key, images), training_set(dataset, step.mesh), key


def updated(config, dataset, count=1):
    step, state, data, key = start(config, dataset)
    return step.run_block(state, data, key, length=count)


def plain_loss(config, dataset, step, params, synthetic):
    """The loss of all classes with the whole data set as the batch, group by group, no chunks."""
    real = dataset.normalise(jnp.asarray(dataset.train.images))

    def features(images):
        return step.network.apply({"params": params}, images).features.mean(0)

    def gradients(images, label):
        def mean_loss(p):
            logits = step.network.apply({"params": p}, images).logits
            labels = jnp.full(len(images), label)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        return jax.grad(mean_loss)(params)

    total = 0.0
    for label in range(CLASSES):
        of_class = dataset.train.labels == label
        signals, shares = [], []
        for group in range(GROUPS):
            member = of_class & (dataset.train.groups == group)
            if not member.any():
                continue
            images = real[np.flatnonzero(member)]
            signals.append(features(images) if config.method == "dm" else gradients(images, label))
            shares.append(member.sum() / of_class.sum())
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *signals)
        mine = synthetic[label]
        signal = features(mine) if config.method == "dm" else gradients(mine, label)
        loss = (
            losses.distribution_matching_loss
            if config.method == "dm"
            else losses.gradient_matching_loss
        )
        total += loss(
            stacked,
            signal,
            shares=jnp.asarray(shares, jnp.float32),
            fairness=config.fairness,
            distance=config.distance,
        )
    return total


WHOLE = [{"sampling": "stratified", "per_cell": 60}, {"sampling": "proportional", "batch_real": 60}]


QUICK = {("dm", "fairdd")}


@pytest.mark.parametrize("sampler", WHOLE, ids=["stratified", "proportional"])
@pytest.mark.parametrize(
    ("method", "fairness"),
    [
        pytest.param(*case, marks=() if case in QUICK else pytest.mark.slow)
        for case in itertools.product(("dm", "dc"), ("vanilla", "fairdd", "cobra"))
    ],
)
def test_update_agrees_with_a_plain_loop(method, fairness, sampler):
    """With every cell drawn whole, a step is one SGD step on the loss of the whole data set."""
    dataset = toy()
    config = settings(method, fairness=fairness, warmup_epochs=0, momentum_img=0.0, **sampler)
    step, state, data, key = start(config, dataset)
    before = np.asarray(state.images)
    after, loss = step.run_block(state, data, key, length=1)
    params = after.network.variables["params"]  # the network that was drawn for this update
    expected, gradient = jax.value_and_grad(lambda s: plain_loss(config, dataset, step, params, s))(
        jnp.asarray(before)
    )
    np.testing.assert_allclose(loss, expected, rtol=2e-5)
    moved = (before - np.asarray(after.images)) / config.lr_img
    np.testing.assert_allclose(moved, gradient, atol=2e-4 * np.abs(gradient).max())


@pytest.mark.slow
def test_chunks_do_not_change_what_is_augmented():
    strategy = "color_crop_cutout_flip_scale_rotate"
    images = [
        updated(settings("dsa", chunk=chunk, dsa_strategy=strategy), toy(), 2)[0].images
        for chunk in (5, 64)
    ]
    np.testing.assert_allclose(*images, atol=2e-5)


@pytest.mark.slow
def test_order_of_images_and_names_of_groups_do_not_matter():
    dataset = toy()
    rng = np.random.default_rng(1)
    order, renamed = rng.permutation(len(dataset.train)), rng.permutation(GROUPS)
    split = dataset.train
    shuffled = (split.images[order], split.labels[order], renamed[split.groups[order]])
    other = dataclasses.replace(dataset, train=type(split)(*shuffled), test=dataset.test)
    config = settings("dm", **WHOLE[0])
    step, state, data, key = start(config, dataset)
    images = np.asarray(state.images)
    expected = step.run_block(state, data, key, length=1)[0].images
    permuted = Step(config, other)
    result = permuted.run_block(
        permuted.init(key, images), training_set(other, permuted.mesh), key, length=1
    )[0].images
    np.testing.assert_allclose(expected, result, atol=1e-5)


@pytest.mark.parametrize("method", ["dm", "dc"])
def test_loss_falls(method):
    config = settings(method, steps=1, outer_loops=25, inner_epochs=0, log_every=1, lr_img=0.05)
    seen = [line.loss for line in logged(config, toy())]
    assert len(seen) == 25
    assert np.mean(seen[-5:]) < 0.9 * np.mean(seen[:5])


@pytest.mark.slow
def test_equal_seeds_give_equal_bits_and_blocks_do_not_matter():
    runs = [
        np.asarray(updated(settings("dsa", dsa_strategy="flip_rotate"), toy(), 3)[0].images)
        for _ in range(2)
    ]
    np.testing.assert_array_equal(*runs)
    step, state, data, key = start(settings("dsa", dsa_strategy="flip_rotate"), toy())
    for _ in range(3):
        state, _ = step.run_block(state, data, key, length=1)
    np.testing.assert_array_equal(runs[0], state.images)
    other = step.run_block(step.init(key, runs[0]), data, jax.random.key(1), length=3)[0]
    assert (np.asarray(other.images) != runs[0]).any()


def test_second_call_compiles_nothing():
    step, state, data, key = start(settings("dc"), toy())
    for _ in range(2):
        state, _ = step.run_block(state, data, key, length=1)
    assert step.run_block._cache_size() == 1


@pytest.mark.slow
def test_networks_serve_an_outer_loop_and_are_trained_in_between():
    dataset = toy()

    def kernels(inner_epochs):
        step, state, data, key = start(
            settings("dc", outer_loops=2, inner_epochs=inner_epochs), dataset
        )
        result = []
        for _ in range(3):
            state, _ = step.run_block(state, data, key, length=1)
            result.append(np.asarray(state.network.variables["params"]["classifier"]["kernel"]))
        return result

    first, second, third = kernels(0)
    np.testing.assert_array_equal(first, second)
    assert (first != third).any()
    trained_first, trained_second, _ = kernels(4)
    np.testing.assert_array_equal(trained_first, first)
    assert (trained_second != first).any()


def test_cobra_warms_the_network_up():
    assert settings(fairness="cobra").warmup_epochs == 10
    losses_seen = [
        float(updated(settings(fairness="cobra", warmup_epochs=epochs), toy())[1])
        for epochs in (0, 5)
    ]
    assert losses_seen[0] != losses_seen[1]


@pytest.mark.parametrize(
    "method", ["dm", *(pytest.param(name, marks=pytest.mark.slow) for name in ("dc", "cafe"))]
)
def test_batch_norm_networks_work(method):
    config = settings(method, model="ConvNetD1W8BN", steps=2, log_every=1)
    lines = list(logged(config, toy()))
    assert np.isfinite([line.loss for line in lines]).all()
    assert (lines[-1].images != lines[0].images).any()


@pytest.mark.slow
def test_batch_statistics_leave_padding_out():
    """A cell smaller than ``per_cell`` is padded; asking for more padding must change nothing."""
    values = [
        float(updated(settings("dm", model="ConvNetD1W8BN", per_cell=n), toy())[1])
        for n in (60, 75)
    ]
    assert values[0] == pytest.approx(values[1], rel=1e-4)


def test_initial_images_are_real_distinct_and_balanced():
    dataset = toy()
    key = jax.random.key(0)
    pixels = dataset.normalise(jnp.asarray(dataset.train.images))
    pixels = np.asarray(pixels).reshape(len(dataset.train), -1)
    for init in ("real", "balanced"):
        images = initial_images(key, dataset, ipc=6, init=init).images
        for label in range(CLASSES):
            found = [
                int(np.flatnonzero((pixels == image.reshape(1, -1)).all(1))[0])
                for image in images[label]
            ]
            assert len(set(found)) == 6
            assert (dataset.train.labels[found] == label).all()
            if init == "balanced":
                counts = np.bincount(dataset.train.groups[found], minlength=GROUPS)
                available = dataset.cell_counts(dataset.train)[label]
                assert (counts >= np.minimum(available, 2)).all()
    noise = initial_images(key, dataset, ipc=50, init="noise").images
    assert abs(noise.mean()) < 0.02
    assert abs(noise.std() - 1) < 0.02


def test_more_images_than_a_class_has_are_refused():
    with pytest.raises(ConfigError, match=r"ipc 61 is more than the \d+ real images of class '0'"):
        initial_images(jax.random.key(0), toy(), ipc=61, init="real")


def test_images_that_became_infinite_are_not_taken(monkeypatch):
    """The loss of an update is that of the images before it, which may have been finite."""
    update = Step.update

    def overflowing(self, state, data, key):
        state, loss = update(self, state, data, key)
        return state._replace(images=jnp.where(state.update < 2, state.images, jnp.inf)), loss

    monkeypatch.setattr(Step, "update", overflowing)
    lines = []
    with pytest.raises(NonFiniteLossError, match="between updates 1 and 2; try a smaller"):
        lines.extend(logged(settings(steps=3, log_every=1), toy()))
    assert [line.update for line in lines] == [1]


def test_every_evaluation_on_the_way_gets_a_line():
    config = settings(steps=7, log_every=5, **{"evaluate.every": 3})
    assert [line.step for line in logged(config, toy())] == [3, 5, 6, 7]


def test_branches_stay_branches_on_cpu():
    """Under vmap a switch computes every augmentation, and a cond both of its sides."""
    strategy = "color_crop_cutout_flip_scale_rotate"
    step, state, data, key = start(settings("dsa", dsa_strategy=strategy), toy())
    program = str(jax.make_jaxpr(partial(step.run_block, length=1))(state, data, key))
    switches = program.count("cond[")
    assert switches >= 3  # of the real images, the synthetic ones, and the empty blocks


def test_a_non_finite_loss_stops_with_its_steps_and_keeps_the_last_good_images():
    config = settings("dm", lr_img=1e30, steps=6, log_every=2)
    good = []
    with pytest.raises(NonFiniteLossError, match=r"between updates \d and \d; try a smaller"):
        good.extend(logged(config, toy()))
    assert len(good) < 3
