"""Scoring: the schedule, training and predicting, and the summary of several networks."""

import json
from dataclasses import replace

import jax
import numpy as np
import pytest

from fairdd_jax import evaluate
from fairdd_jax.config import EvaluateConfig
from fairdd_jax.data import Dataset
from fairdd_jax.errors import NonFiniteLossError
from fairdd_jax.evaluate import Evaluation, Evaluator
from fairdd_jax.metrics import deo_floor, fairness_report
from fairdd_jax.schedule import Schedule

CHUNK, NUM_TEST, SIDE = 8, 37, 8
FOUR_STEPS = Schedule(4, 0)


def halves(num, seed):
    """Noise with a bright left or right half, which tells the class; blue tells the group."""
    rng = np.random.default_rng(seed)
    labels, groups = np.arange(num) % 2, np.arange(num) // 2 % 2
    images = rng.integers(0, 120, (num, SIDE, SIDE, 3))
    for image, label, group in zip(images, labels, groups, strict=True):
        image[:, label * SIDE // 2 : (label + 1) * SIDE // 2] += 80
        image[..., 2] += 50 * group
    return images.astype(np.uint8), labels, groups


@pytest.fixture(scope="module")
def dataset():
    return Dataset.from_arrays(halves(32, 0), halves(NUM_TEST, 1), name="halves")


@pytest.fixture(scope="module")
def evaluator(dataset):
    config = EvaluateConfig(epochs=3, augment="none", lr=0.02)
    return Evaluator(dataset, "ConvNetD1W8", config, chunk=CHUNK)


def trained(evaluator, images=None, *, schedule=FOUR_STEPS, seed=0, **options):
    train = evaluator.dataset.train
    images = train.images if images is None else images
    return evaluator.train(
        jax.numpy.asarray(images),
        jax.numpy.asarray(train.labels),
        schedule=schedule,
        keys=jax.random.key(seed)[None],
        **options,
    )


def kernels(variables):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(variables)])


@pytest.mark.parametrize("steps_per_epoch", [1, 3])
@pytest.mark.parametrize("epochs", [0, 1, 2, 3, 10, 300])
def test_schedule_is_the_official_rule(epochs, steps_per_epoch):
    """Epochs 0 to E, both run; the rate drops after the epoch E // 2 + 1 has been run."""
    steps = {False: 0, True: 0}
    dropped = False
    for epoch in range(epochs + 1):
        steps[dropped] += steps_per_epoch
        if epoch == epochs // 2 + 1:
            dropped = True
    schedule = Schedule.of_synthetic(epochs, steps_per_epoch)
    assert (schedule.before, schedule.after) == (steps[False], steps[True])
    assert schedule.total == (epochs + 1) * steps_per_epoch


def test_schedule_of_all_images_drops_half_way():
    assert Schedule.of_full(10) == Schedule(5, 5)
    assert Schedule.of_full(7) == Schedule(4, 3)
    assert Schedule.of_full(1) == Schedule(1, 0)


def test_training_is_two_stretches_each_with_fresh_momentum(evaluator):
    """Against the trainer alone, step by step: the full rate, then a tenth with momentum zero."""
    schedule = Schedule(3, 2)
    train = evaluator.dataset.train
    init_key, key = jax.random.split(jax.random.key(0))
    variables = evaluator.trainer.init(init_key, evaluator.dataset.image_shape)
    images, labels = jax.numpy.asarray(train.images), jax.numpy.asarray(train.labels)
    for steps, lr in ((range(3), 0.02), (range(3, 5), 0.002)):
        state = evaluator.trainer.start(variables, lr=lr, momentum=0.9, weight_decay=5e-4)
        for step in steps:
            state = evaluator.trainer.run(state, images, labels, key, step, step + 1)
        variables = state.variables
    result = trained(evaluator, schedule=schedule)
    np.testing.assert_allclose(kernels(result), kernels(variables), atol=1e-6)


def test_a_separable_set_is_learnt(evaluator, dataset):
    advanced = []
    schedule = Schedule(35, 15)
    evaluation = evaluator.evaluate(
        dataset.train.images,
        dataset.train.labels,
        schedule=schedule,
        networks=2,
        key=jax.random.key(0),
        on_steps=advanced.append,
    )
    summary = evaluation.summary()
    assert summary["arch"] == "ConvNetD1W8"
    assert summary["num_networks"] == len(summary["accuracy"]["values"]) == 2
    assert summary["optimiser_steps"] == schedule.total
    assert summary["accuracy"]["mean"] > 0.95
    assert sum(advanced) == 2 * schedule.total


def test_prediction_is_that_of_the_network(evaluator, dataset, monkeypatch):
    """Also where the images do not fill the last chunk, or make several blocks."""
    variables = trained(evaluator)
    images = dataset.test.images
    assert len(images) % CHUNK
    inputs = dataset.normalise(images)
    alone = jax.tree.map(lambda leaf: leaf[0], variables)
    logits = evaluator.trainer.network.apply(alone, inputs, train=False).logits
    expected = np.asarray(logits.argmax(-1))
    assert 0 < expected.sum() < len(images)
    np.testing.assert_array_equal(evaluator.predict(variables, images), expected[None])
    np.testing.assert_array_equal(evaluator.predict(variables, np.asarray(inputs)), expected[None])
    monkeypatch.setattr(evaluate, "_BLOCK_BYTES", 2 * CHUNK * images[0].nbytes)
    np.testing.assert_array_equal(evaluator.predict(variables, images), expected[None])
    (report,) = evaluator.test(variables, 1)
    assert report.accuracy == pytest.approx((expected == dataset.test.labels).mean())
    cell = (dataset.test.labels == 1) & (dataset.test.groups == 0)
    assert report.cell_accuracy[1, 0] == pytest.approx((expected[cell] == 1).mean())


def test_pixels_and_normalised_floats_train_alike(evaluator, dataset):
    images = dataset.train.images
    floats = dataset.normalise(images)
    pair = [kernels(trained(evaluator, x)) for x in (images, floats)]
    np.testing.assert_allclose(*pair, atol=1e-5)


def test_networks_differ_and_each_follows_its_key(evaluator, dataset, monkeypatch):
    seen = []

    def look(variables, networks):
        assert jax.tree.leaves(variables)[0].shape[0] == networks
        seen.extend(
            kernels(jax.tree.map(lambda leaf, i=i: leaf[i], variables)) for i in range(networks)
        )
        return ()

    monkeypatch.setattr(evaluator, "test", look)
    for networks, seed in ((3, 0), (1, 0), (1, 1)):
        evaluator.evaluate(
            dataset.train.images,
            dataset.train.labels,
            schedule=Schedule(1, 0),
            networks=networks,
            key=jax.random.key(seed),
        )
    first, second, third, again, other = seen
    np.testing.assert_allclose(first, again, atol=1e-6)  # another number of networks: rounding
    for a, b in ((first, second), (first, third), (second, third), (first, other)):
        assert (a != b).any()


def test_training_that_is_cut_into_calls_compiles_once(evaluator):
    trained(evaluator, schedule=Schedule(evaluate._STEPS_PER_CALL["cpu"] + 3, 1))
    size = evaluator._run._cache_size()
    trained(evaluator, schedule=Schedule(2, 2), seed=5)
    assert evaluator._run._cache_size() == size


LABELS, GROUPS = np.repeat([0, 1, 2], 8), np.tile([0, 1], 12)


def reports(labels=LABELS, groups=GROUPS, *, networks=3, **options):
    rng = np.random.default_rng(0)
    options = {"num_classes": 3, "num_groups": 2} | options
    wrong = [rng.random(len(labels)) < 0.3 for _ in range(networks)]
    return tuple(
        fairness_report(np.where(w, (labels + 1) % 3, labels), labels, groups, **options)
        for w in wrong
    )


SCORES = (
    "accuracy",
    "deo_max",
    "deo_mean",
    "worst_group_accuracy",
    "sufficiency_max",
    "sufficiency_mean",
)


def strictly(summary):
    """The summary as results.json will hold it."""
    return json.loads(json.dumps(summary, allow_nan=False))


def test_summary_is_mean_population_deviation_and_values():
    three = reports()
    summary = strictly(Evaluation("MLP", 7, three).summary())
    assert (summary["arch"], summary["num_networks"], summary["optimiser_steps"]) == ("MLP", 3, 7)
    for name in SCORES:
        values = [getattr(report, name) for report in three]
        mean = sum(values) / 3
        assert summary[name]["values"] == pytest.approx(values)
        assert summary[name]["mean"] == pytest.approx(mean)
        assert summary[name]["std"] == pytest.approx(
            (sum((v - mean) ** 2 for v in values) / 3) ** 0.5
        )
        assert 0 <= summary[name]["mean"] <= 1
    assert summary["accuracy"]["std"] > 0
    floors = summary["deo_max_floor"], summary["deo_mean_floor"]
    each = [deo_floor(report, seed=0) for report in three]
    assert floors == pytest.approx([sum(floor) / 3 for floor in zip(*each, strict=True)])
    assert len(set(each)) > 1
    assert 0 < floors[1] < floors[0] < 1
    cells = sum(report.cell_accuracy for report in three) / 3
    np.testing.assert_allclose(summary["cell_accuracy"], cells)
    assert summary["empty_cells"] == []


def test_summary_has_null_for_an_empty_cell():
    keep = ~((LABELS == 1) & (GROUPS == 0))
    summary = strictly(Evaluation("MLP", 7, reports(LABELS[keep], GROUPS[keep])).summary())
    assert summary["empty_cells"] == [[1, 0]]
    assert summary["cell_accuracy"][1][0] is None
    assert all(rate is not None for rate in summary["cell_accuracy"][0])
    assert summary["deo_max"]["mean"] is not None


def test_summary_has_null_where_there_is_no_gap_to_measure():
    """Every class has one group: its accuracy is known, a difference between groups is not."""
    summary = strictly(Evaluation("MLP", 7, reports(groups=LABELS % 2)).summary())
    for name in ("deo_max", "deo_mean"):
        assert summary[name] == {"mean": None, "std": None, "values": [None] * 3}
        assert summary[f"{name}_floor"] is None
    assert 0 < summary["accuracy"]["mean"] < 1
    assert 0 < summary["worst_group_accuracy"]["mean"] < 1


def test_empty_cells_may_count_as_officially(dataset):
    """A cell without test images has accuracy 0, and the gap of its class is all of the rest."""
    test = dataset.test
    keep = ~((test.labels == 1) & (test.groups == 0))
    split = (test.images[keep], test.labels[keep], test.groups[keep])
    part = Dataset.from_arrays(halves(32, 0), split)
    gaps = {}
    for empty in ("skip", "official"):
        config = EvaluateConfig(epochs=1, augment="none", empty=empty)
        subject = Evaluator(part, "MLP", config, chunk=CHUNK)
        subject.predict = lambda variables, images: part.test.labels[None]
        (report,) = subject.test({}, 1)
        gaps[empty] = report.deo_max, report.cell_accuracy[1, 0]
    assert gaps["official"] == (1.0, 0.0)
    assert gaps["skip"][0] == 0.0
    assert np.isnan(gaps["skip"][1])


def test_blocks_are_bounded_and_no_larger_than_the_set(evaluator, dataset, monkeypatch):
    variables, images = trained(evaluator), dataset.test.images
    shapes = []

    def predict(variables, chunks):
        shapes.append(chunks.shape[:2])
        return jax.numpy.zeros((1, chunks.shape[0] * chunks.shape[1]), int)

    monkeypatch.setattr(evaluator, "_predict", predict)
    monkeypatch.setattr(evaluate, "_BLOCK_BYTES", 2 * CHUNK * images[0].nbytes)
    assert evaluator.predict(variables, images).shape == (1, len(images))
    assert len(images) > 2 * CHUNK
    assert set(shapes) == {(2, CHUNK)}
    shapes.clear()
    monkeypatch.setattr(evaluator, "trainer", replace(evaluator.trainer, chunk=10**6))
    evaluator.predict(variables, images[:7])
    assert shapes == [(1, 7)]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_networks_that_diverge_have_no_scores(value, evaluator, dataset):
    """They would take every image for the first class, and have no gap at all."""
    sound = trained(evaluator)

    def spoilt(leaf):
        return np.concatenate([leaf, np.full_like(leaf, value)])

    both = jax.tree.map(spoilt, sound)
    predicted = evaluator.predict(both, dataset.test.images)
    np.testing.assert_array_equal(predicted[0], evaluator.predict(sound, dataset.test.images)[0])
    assert (predicted[1] == -1).all()
    assert len(evaluator.test(both, 1)) == 1  # the second fills the mesh up
    with pytest.raises(NonFiniteLossError, match=r"1 of 2 networks ConvNetD1W8 .* than 0\.02"):
        evaluator.test(both, 2)
