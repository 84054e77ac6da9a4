"""What methods other than DM and DC set: spaces, schedules, real training images, choices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fairdd_jax import augment
from fairdd_jax import config as configuration
from fairdd_jax.data import Dataset
from fairdd_jax.distilled import load_distilled
from fairdd_jax.errors import ConfigError
from fairdd_jax.fairness import inverse_shares
from fairdd_jax.loop import call_lengths, run_updates
from fairdd_jax.representatives import Representatives
from fairdd_jax.run import Run
from fairdd_jax.start import initial_images
from fairdd_jax.step import Step
from fairdd_jax.training_set import training_set

CLASSES, GROUPS, SIDE = 2, 2, 8
MEAN, STD = (0.5, 0.4, 0.3), (0.5, 0.25, 0.2)


def toy(seed=0):
    """Every cell has dark and bright images, the first ones dark."""
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1, 0, 1], [12, 8, 6, 12])
    groups = np.repeat([0, 0, 1, 1], [12, 8, 6, 12])
    place = np.concatenate([np.arange(n) / n for n in (12, 8, 6, 12)])
    level = np.where(place < 0.75, 60, 190) + 5 * labels + 9 * groups
    pattern = rng.integers(-20, 20, (SIDE, SIDE, 3)) * np.where(place < 0.75, 1, -1).reshape(
        -1, 1, 1, 1
    )
    images = level[:, None, None, None] + pattern + rng.integers(-3, 4, (len(labels), 1, 1, 3))
    images = images.clip(0, 255).astype(np.uint8)
    split = images, labels, groups
    return Dataset.from_arrays(split, split, mean=MEAN, std=STD)


def settings(**changes):
    base = {
        "data.name": "toy",
        "method": "dc",
        "model": "ConvNetD1W8",
        "ipc": 2,
        "steps": 2,
        "per_cell": 2,
        "chunk": 8,
        "lr_img": 0.1,
        "outer_loops": 2,
        "inner_epochs": 0 if changes.get("inner_real") else 1,
        "block": 1,
    }
    return configuration.make(base | changes)


def begun(config, dataset=None):
    dataset = dataset or toy()
    key = jax.random.key(0)
    images = initial_images(
        key, dataset, ipc=config.ipc, init=config.init, factor=config.factor
    ).images
    step = Step(config, dataset)
    return step, step.init(key, images), training_set(dataset, step.mesh), key


def after(config, updates=1):
    step, state, data, key = begun(config)
    for _ in range(updates):
        state, _ = step.run_block(state, data, key, length=1)
    return jax.device_get(state)


@pytest.mark.slow
def test_a_step_in_pixels_is_larger_where_pixels_deviate_less():
    """Pixel p = mean + std x, so that dL/dp = dL/dx / std, and a step of p moves x by 1 / std."""
    before = np.asarray(begun(settings())[1].images)
    plain, pixel = (after(settings(space=space)).images for space in ("normalised", "pixel"))
    np.testing.assert_allclose(
        (pixel - before) * np.square(STD), plain - before, atol=1e-6 + 1e-4 * np.abs(plain).max()
    )
    assert np.abs(plain - before).max() > 0


@pytest.mark.slow
def test_pixels_are_clipped_at_the_start_of_an_iteration_alone():
    config = settings(space="pixel", init="noise", lr_img=0.0)
    images = after(config).images * np.asarray(STD) + np.asarray(MEAN)
    assert images.min() >= -1e-6
    assert images.max() <= 1 + 1e-6
    assert np.abs(begun(config)[1].images).max() > 2.1  # which lies outside
    step, state, data, key = begun(config)
    state = step.run_block(state, data, key, length=1)[0]
    state = jax.device_get(state)
    state = state._replace(images=state.images + 50.0)
    again = step.run_block(jax.device_put(state), data, key, length=1)[0]  # update 2 of 2
    assert np.asarray(again.images).max() > 40


def test_the_learning_rate_is_halved_on_the_way():
    config = settings(steps=4, lr_img=0.25, lr_img_halved="0.5,0.75", momentum_img=0.0)
    optimizer = Step(config, toy()).optimizer
    state = optimizer.init(jnp.ones(1))
    rates = []
    for _ in range(config.updates):
        update, state = optimizer.update(jnp.ones(1), state)
        rates.append(-float(update[0]))
    assert rates == [0.25] * 4 + [0.125] * 2 + [0.0625] * 2


@pytest.mark.slow
def test_the_result_is_the_running_mean_of_the_images():
    def images(**changes):
        config = settings(log_every=1, **changes)
        start = begun(config)[1].images
        lines = run_updates(config, toy(), key=jax.random.key(0), images=start)
        return [np.asarray(start), *(line.images for line in lines)]

    (mean, *steps), (_, *means) = images(), images(average_img=0.75)
    for now, found in zip(steps, means, strict=True):
        mean = 0.75 * mean + 0.25 * now
        np.testing.assert_allclose(found, mean, atol=1e-6)
    assert np.abs(mean - steps[-1]).max() > 1e-3


@pytest.mark.slow
def test_the_network_is_trained_on_real_images_between_updates():
    config = settings(
        inner_real=12, batch_train=5, momentum_net=0.9, weight_decay_net=0.01, lr_net=0.1
    )
    step, state, data, key = begun(config)
    first = step.run_block(state, data, key, length=1)[0]
    fresh = jax.device_get(first.network)
    second = jax.device_get(step.run_block(first, data, key, length=1)[0].network)
    train_key = step._keys(key, jnp.int32(1)).train
    images = toy().train.images
    expected = step.trainer
    plain = type(expected)(
        expected.network,
        MEAN,
        STD,
        batch_size=5,
        chunk=8,
        dtype="float32",
    )
    labels = jnp.asarray(toy().train.labels, jnp.int32)
    trained = plain.run(fresh, jnp.asarray(images), labels, train_key, 0, 3)  # 3 x 5 >= 12
    for a, b in zip(jax.tree.leaves(second), jax.tree.leaves(trained), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    assert any(
        np.abs(a - b).max() > 1e-4
        for a, b in zip(*map(jax.tree.leaves, (fresh.variables, second.variables)), strict=True)
    )


def test_fewer_synthetic_images_than_there_are():
    config = settings(ipc=3, batch_syn=1, momentum_img=0.0)
    moved = after(config).images - begun(config)[1].images
    assert (np.abs(moved).max(axis=(2, 3, 4)) > 0).sum(1).tolist() == [1, 1]


def test_representatives_are_next_to_the_centres_and_shares_stay():
    """Two images of each cell: a dark one and a bright one, whatever the shares of the two."""
    config = settings(representatives=2)
    step, state, data, key = begun(config)
    index = Representatives(step, toy())(state, key, data)
    np.testing.assert_array_equal(index.shares, data.cells.shares)
    assert index.counts.tolist() == [[2, 2], [2, 2]]
    train = toy().train
    for label in range(CLASSES):
        for group in range(GROUPS):
            begin = int(index.start[label, group])
            chosen = np.asarray(index.order[begin : begin + 2])
            assert (train.labels[chosen] == label).all()
            assert (train.groups[chosen] == group).all()
            assert sorted(train.images[chosen].mean((1, 2, 3)) > 120) == [False, True]


def test_representatives_of_a_class_under_the_proportional_sampler():
    config = settings(representatives=2, sampling="proportional", batch_real=4, pool=9)
    step, state, data, key = begun(config)
    index = jax.device_get(Representatives(step, toy())(state, key, data))
    train = toy().train
    assert (index.counts.sum(1) <= 4).all()
    for label in range(CLASSES):
        begin, count = index.start[label, 0], index.counts[label].sum()
        chosen = index.order[begin : begin + count]
        assert len(set(chosen.tolist())) == count >= 2
        assert (train.labels[chosen] == label).all()
        np.testing.assert_array_equal(
            np.bincount(train.groups[chosen], minlength=GROUPS), index.counts[label]
        )
        assert (np.diff(train.groups[chosen]) >= 0).all()


@pytest.mark.slow
def test_representatives_are_chosen_anew():
    config = settings(steps=4, representatives=3, log_every=8, block=5, pool=5)
    assert call_lengths(config) == [[3, 3, 2]]
    dataset = toy()
    key = jax.random.key(0)
    images = initial_images(key, dataset, ipc=2, init="real").images
    with_pools = list(run_updates(config, dataset, key=key, images=images))
    without = list(run_updates(settings(steps=4, log_every=8), dataset, key=key, images=images))
    assert np.abs(with_pools[-1].images - without[-1].images).max() > 0
    again = list(run_updates(config, dataset, key=key, images=images))
    np.testing.assert_array_equal(again[-1].images, with_pools[-1].images)


@pytest.mark.parametrize("field", ["inner_real", "warmup_real", "representatives"])
def test_what_needs_the_training_set_on_the_device_is_refused_without(field):
    config = settings(stream="always", **{field: 4})
    images = initial_images(jax.random.key(0), toy(), ipc=2, init="real").images
    with pytest.raises(ConfigError, match=f"--stream never or --{field} 0"):
        next(run_updates(config, toy(), key=jax.random.key(0), images=images))


@pytest.mark.parametrize("model", ["MLP", "ViT1"])
def test_distances_of_kernels_need_convolutions(model):
    with pytest.raises(ConfigError, match=f"kernel_mse matches convolutions and {model} has none"):
        Step(settings(method="idc", distance="kernel_mse", model=model), toy())


def test_cafe_needs_the_layers_of_a_network():
    with pytest.raises(ConfigError, match="cafe matches the layers of a network and MLP names"):
        Step(settings(method="cafe", model="MLP"), toy())


@pytest.mark.parametrize("init", ["mix", "balanced"])
def test_images_that_start_as_several_show_them(init):
    dataset = toy()
    images, groups = initial_images(jax.random.key(1), dataset, ipc=1, init=init, factor=2)
    assert images.shape == (CLASSES, 1, SIDE, SIDE, 3)
    assert groups.shape == (CLASSES, 4)
    pixels = np.rint((images * STD + MEAN) * 255).astype(int)
    for label in range(CLASSES):
        small = dataset.train.images[dataset.train.labels == label][:, ::2, ::2].astype(int)
        of_class = dataset.train.groups[dataset.train.labels == label]
        for place in range(4):
            row, column = divmod(place, 2)
            part = pixels[label, 0, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
            found = np.flatnonzero((small == part).all((1, 2, 3)))
            assert groups[label, place] in of_class[found]
        if init == "balanced":
            available = np.bincount(of_class, minlength=dataset.num_groups)
            shown = np.bincount(groups[label], minlength=dataset.num_groups)
            assert (shown >= np.minimum(available, 4 // dataset.num_groups)).all()


@pytest.mark.parametrize("init", ["real", "mix", "balanced", "noise"])
def test_more_crops_than_pixels_are_refused_before_anything_is_done(init):
    Run(settings(ipc=1, factor=SIDE), toy())
    with pytest.raises(ConfigError, match=f"--factor 9 cuts .* pixel; choose 1 to {SIDE}"):
        Run(settings(ipc=1, factor=SIDE + 1, init=init), toy())


def test_a_run_of_coded_images(tmp_path):
    changes = {"method": "idc", "factor": 2, "init": "mix", "ipc": 1, "evaluate.networks": 1}
    changes |= {"evaluate.epochs": 1, "evaluate.baselines": "none", "distance": "kernel_mse"}
    run = Run(settings(**changes), toy())
    run.distill()
    run.evaluate()
    run.save(tmp_path)
    loaded = load_distilled(tmp_path)
    assert loaded.images.shape == (CLASSES * 4, SIDE, SIDE, 3)
    assert loaded.labels.tolist() == [0] * 4 + [1] * 4
    np.testing.assert_array_equal(loaded.images_coded, run.images.reshape(-1, SIDE, SIDE, 3))
    np.testing.assert_array_equal(loaded.images_float, run.decoded().reshape(-1, SIDE, SIDE, 3))
    assert run.evaluations[0]["optimiser_steps"] == run.scoring.steps() // 2


def test_the_matching_may_be_told_other_groups():
    run = Run(settings(**{"groups.noise": 0.5}), toy())
    assert (run.matched.train.groups != run.dataset.train.groups).mean() == 0.5
    matched = run.results()["matched"]
    assert matched["train_cell_counts"] != run.results()["dataset"]["train_cell_counts"]
    assert Run(settings(), toy()).matched.train.groups.tolist() == toy().train.groups.tolist()


def test_inverse_shares_make_groups_count_alike():
    labels, groups = toy().train.labels, toy().train.groups
    weights = inverse_shares(labels, groups)
    for label in range(CLASSES):
        sums = [weights[(labels == label) & (groups == g)].sum() for g in range(GROUPS)]
        np.testing.assert_allclose(sums, (labels == label).sum() / GROUPS, rtol=1e-6)


def test_what_an_image_weighs_in_training():
    """Weights of 2 and 0 on the halves of a batch are the same as one half alone."""
    run = Run(settings(**{"evaluate.networks": 1, "evaluate.epochs": 2}), toy())
    evaluator = run.scoring._evaluator("ConvNetD1W8")
    images = jnp.asarray(toy().train.images[:8])
    labels = jnp.asarray([0, 1] * 4, jnp.int32)
    keys = jax.random.split(jax.random.key(0), 1)
    from fairdd_jax.schedule import Schedule

    schedule = Schedule(3, 0)
    half = jnp.asarray([2.0] * 4 + [0.0] * 4)
    weighted = evaluator.train(images, labels, schedule=schedule, keys=keys, importance=half)
    alone = evaluator.train(images[:4], labels[:4], schedule=schedule, keys=keys)
    for a, b in zip(jax.tree.leaves(weighted), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_weights_by_group_need_groups():
    with pytest.raises(ConfigError, match="inverse_share needs the groups"):
        settings(init="noise", **{"evaluate.weighting": "inverse_share"})


def test_cutmix_shows_a_box_of_another_image():
    for seed in range(8):
        box = augment.sample_box(jax.random.key(seed), (9, 7, 3), probability=1.0)
        images, own = augment.cutmix(box, jnp.zeros((2, 9, 7, 3)), jnp.ones((2, 9, 7, 3)))
        shown = np.asarray(images[0, ..., 0])
        rows, columns = np.flatnonzero(shown.any(1)), np.flatnonzero(shown.any(0))
        assert shown.mean() == pytest.approx(1 - float(own), abs=1e-6)
        assert shown.sum() == len(rows) * len(columns)  # one rectangle
    mixed = [
        float(
            augment.cutmix(
                augment.sample_box(jax.random.key(s), (8, 8, 1), probability=0.3),
                jnp.zeros((1, 8, 8, 1)),
                jnp.ones((1, 8, 8, 1)),
            )[1]
        )
        < 1
        for s in range(300)
    ]
    assert 0.15 < np.mean(mixed) < 0.36  # some boxes are empty


@pytest.mark.slow
def test_cutmix_mixes_the_labels_by_area():
    """A linear network of constant images: the gradient of its bias tells the mean target."""
    run = Run(settings(), toy())
    trainer = run.scoring._evaluator("ConvNetD1W8").trainer
    trainer = type(trainer)(trainer.network, MEAN, STD, batch_size=4, cutmix=1.0, chunk=4)
    variables = trainer.init(jax.random.key(0), (SIDE, SIDE, 3))
    bias = variables["params"]["classifier"]["bias"]
    state = trainer.start(variables, lr=1.0)
    images = jnp.full((4, SIDE, SIDE, 3), 100, jnp.uint8)
    labels = jnp.asarray([0, 0, 0, 0], jnp.int32)
    same = trainer.step(state, images, labels, jax.random.key(3), 0)[0]
    plain = type(trainer)(trainer.network, MEAN, STD, batch_size=4, chunk=4)
    without = plain.step(state, images, labels, jax.random.key(3), 0)[0]
    for a, b in zip(*map(jax.tree.leaves, (same.variables, without.variables)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)  # equal images of one class: nothing to mix
    labels = jnp.asarray([0, 1, 1, 1], jnp.int32)
    moved = trainer.step(state, images, labels, jax.random.key(3), 0)[0]
    outputs = trainer.network.apply(variables, jnp.zeros((1, SIDE, SIDE, 3)))
    assert outputs.logits.shape == (1, CLASSES)
    # Every image is somebody's partner once: the mean target stays 1/4 and 3/4.
    expected = plain.step(state, images, labels, jax.random.key(3), 0)[0]
    change = [s.variables["params"]["classifier"]["bias"] - bias for s in (moved, expected)]
    np.testing.assert_allclose(change[0], change[1], atol=1e-6)
