"""The short way in: a run from arrays to scores and files, and that it repeats itself."""

import dataclasses
import inspect
import json
import subprocess
import sys
from types import SimpleNamespace

import jax
import numpy as np
import originals
import pytest
from PIL import Image
from test_loop import CLASSES, GROUPS, SIDE, toy

import fairdd_jax
from fairdd_jax import api, data, presets, schema, seeds
from fairdd_jax import run as runs
from fairdd_jax.api import distill, dry_run
from fairdd_jax.config import Config, make
from fairdd_jax.data import Listed, Listing, idx
from fairdd_jax.data.decode import Transform
from fairdd_jax.data.files import Folder, images_below
from fairdd_jax.distilled import load_distilled
from fairdd_jax.errors import ConfigError, DataError, NonFiniteLossError
from fairdd_jax.loop import Progress
from fairdd_jax.methods import METHODS
from fairdd_jax.run import Run
from fairdd_jax.start import initial_images

IPC, STEPS = 2, 3
UNSCORED = SimpleNamespace(summary=dict, variables=None)
SETTINGS = {
    "steps": STEPS,
    "model": "ConvNetD1W8",
    "dsa_strategy": "flip",
    "per_cell": 4,
    "chunk": 8,
    "log_every": 1,
    "evaluate.networks": 2,
    "evaluate.epochs": 3,
    "evaluate.full_steps": 5,
}


def started(**changes):
    """A run before its first update."""
    config = make({"data.name": "toy", "ipc": IPC} | SETTINGS | changes)
    return Run(config, toy())


@pytest.fixture(scope="module")
def finished():
    """A run that was evaluated on the way and at the end, with its baselines."""
    lines = []
    run = distill(
        toy(), ipc=IPC, on_progress=lines.append, **SETTINGS | {"evaluate.every": 1, "seed": 4}
    )
    assert len(lines) == STEPS
    run.evaluate()
    run.score_baseline("random")
    run.score_baseline("full")
    return run


@pytest.fixture(scope="module")
def again():
    """The same without an evaluation on the way."""
    return distill(toy(), ipc=IPC, seed=4, **SETTINGS)


def test_images_log_and_steps(finished):
    assert finished.step == STEPS
    assert finished.images.shape == (CLASSES, IPC, SIDE, SIDE, 3)
    assert [line["step"] for line in finished.log] == [1, 2, 3]
    assert (finished.images != started(seed=4).images).any()
    assert all(seconds > 0 for seconds in finished.results()["timing"].values())


def test_evaluations_on_the_way_and_at_the_end(finished):
    for evaluations, networks in ((finished.evaluations, 2), (finished.evaluations_uint8, 1)):
        assert [scores["step"] for scores in evaluations] == [1, 2, 3]
        assert {scores["num_networks"] for scores in evaluations} == {networks}
        assert {scores["arch"] for scores in evaluations} == {"ConvNetD1W8"}
        assert {scores["optimiser_steps"] for scores in evaluations} == {4}  # epochs 0 to 3


def test_evaluating_on_the_way_changes_no_image(finished, again):
    np.testing.assert_array_equal(finished.images, again.images)


def test_a_run_is_distilled_once(again):
    with pytest.raises(ConfigError, match="make another Run"):
        again.distill()


def test_time_of_scoring_before_and_on_the_way_is_not_time_of_distilling(monkeypatch):
    run = started(**{"evaluate.every": 1})
    run.scoring.seconds = 1000.0

    def evaluate(archs, on_steps):
        run.scoring.seconds += 500.0

    def run_updates(*args, restore, **options):
        restore(None)
        return iter(lines)

    lines = [Progress(step, step, 0.5, 1.0, 1.0, 1.0, 1.0, run.images) for step in (1, 2)]
    monkeypatch.setattr(run, "evaluate", evaluate)
    monkeypatch.setattr(runs, "run_updates", run_updates)
    clock = iter([0.0, 1.0, 503.0])
    monkeypatch.setattr(runs, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    run.distill()
    assert run.scoring.seconds == 2000.0
    assert run.timing["distill_s"] == 3.0


def test_evaluate_appends_what_it_returns(again):
    before = len(again.evaluations)
    first = again.evaluate(networks=1, epochs=1)
    second = again.evaluate(networks=1, epochs=1)
    assert again.evaluations[before:] == first + second
    assert first == second  # the networks follow the seed
    assert first[0]["optimiser_steps"] == 2
    other = again.evaluate("MLP,ConvNetD1W8", networks=1, epochs=0)
    assert [scores["arch"] for scores in other] == ["MLP", "ConvNetD1W8"]


def test_eight_bit_images_may_be_left_out():
    run = started(**{"evaluate.uint8_networks": 0})
    run.scoring._score = lambda *args: UNSCORED
    run.evaluate()
    assert len(run.evaluations) == 1
    assert run.evaluations_uint8 == []


def test_eight_bit_images_are_those_of_the_file(monkeypatch):
    run = started()
    run.images = run.images + 0.001
    scored = []
    monkeypatch.setattr(
        run.scoring, "_score", lambda arch, images, *rest: scored.append(images) or UNSCORED
    )
    run.evaluate()
    whole, rounded = scored
    distilled = run.distilled()
    np.testing.assert_array_equal(whole, distilled.images_float)
    np.testing.assert_array_equal(rounded, distilled.transform(distilled.images))


def scored_images(run, name):
    """What a baseline trains on, as normalised images and labels, and its schedule."""
    seen = []
    run.scoring._score = lambda arch, *args: seen.append(args) or UNSCORED
    run.score_baseline(name)
    images, labels, _, schedule, networks, _ = seen[0]
    dataset = run.dataset
    inputs = np.asarray(dataset.normalise(images))
    return inputs, labels, schedule, networks


def test_the_random_baseline_is_distinct_real_images_of_each_class():
    run = started(ipc=6)
    images, labels, schedule, networks = scored_images(run, "random")
    dataset = run.dataset
    real = np.asarray(dataset.normalise(dataset.train.images))
    places = [np.flatnonzero((real == image).all((1, 2, 3))).tolist() for image in images]
    assert all(len(found) == 1 for found in places)
    assert len({found[0] for found in places}) == CLASSES * 6
    np.testing.assert_array_equal(dataset.train.labels[np.ravel(places)], labels)
    np.testing.assert_array_equal(np.bincount(labels), [6] * CLASSES)
    assert (schedule.total, networks) == (4, 2)
    assert (images.reshape(run.images.shape) != run.images).any()  # not where the run began


def test_the_random_baseline_of_a_large_set_takes_what_the_smallest_class_has():
    run = started(ipc=50, init="noise")
    smallest = run.dataset.cell_counts(run.dataset.train).sum(1).min()
    assert smallest < 50
    _, labels, _, _ = scored_images(run, "random")
    np.testing.assert_array_equal(np.bincount(labels), [smallest] * CLASSES)


def test_the_full_baseline_is_the_whole_training_set():
    run = started()
    images, labels, schedule, networks = scored_images(run, "full")
    train = run.dataset.train
    np.testing.assert_array_equal(labels, train.labels)
    np.testing.assert_array_equal(images, run.dataset.normalise(train.images))
    assert (schedule.total, networks) == (5, 1)
    epochs = {"evaluate.full_steps": None, "evaluate.full_epochs": 3, "evaluate.batch_size": 25}
    _, _, schedule, _ = scored_images(started(**epochs), "full")
    assert schedule.total == 3 * 3  # 60 images in batches of 25
    _, _, schedule, _ = scored_images(started(**{"evaluate.full_steps": 0}), "full")
    assert schedule.total == 4  # what a synthetic set gets


SCORES = {
    "arch",
    "num_networks",
    "accuracy",
    "deo_max",
    "deo_mean",
    "deo_max_floor",
    "deo_mean_floor",
    "worst_group_accuracy",
    "cell_accuracy",
}


def test_results_have_the_promised_fields(finished):
    results = json.loads(json.dumps(finished.results(), allow_nan=False))
    assert set(results) == {
        "complete",
        "step",
        "config",
        "dataset",
        "matched",
        "evaluations",
        "evaluations_uint8",
        "baselines",
        "timing",
        "peak_memory_bytes",
        "environment",
        "seed",
    }
    dataset = results["dataset"]
    assert set(dataset) == {
        "name",
        "num_train",
        "num_test",
        "classes",
        "groups",
        "train_cell_counts",
        "test_cell_counts",
        "fingerprint",
        "notes",
    }
    assert (dataset["name"], dataset["num_train"], dataset["num_test"]) == ("toy", 60, 60)
    assert dataset["classes"] == ["0", "1"]
    assert len(dataset["groups"]) == GROUPS
    train = toy().train
    for label, row in enumerate(dataset["train_cell_counts"]):
        for group, count in enumerate(row):
            assert count == ((train.labels == label) & (train.groups == group)).sum()
    assert set(results["timing"]) == {"compile_s", "step_s", "distill_s", "evaluate_s"}
    assert {"jax", "device", "cores", "git_commit"} <= set(results["environment"])
    assert results["peak_memory_bytes"] > 2**20
    assert results["seed"] == results["config"]["seed"] == 4
    assert set(results["baselines"]) == {"random", "full"}
    for scores in results["evaluations"]:
        assert set(scores) >= SCORES | {"step"}
    for scores in results["baselines"].values():
        assert set(scores) >= SCORES
        for name in ("accuracy", "deo_max", "deo_mean", "worst_group_accuracy"):
            assert set(scores[name]) == {"mean", "std", "values"}
            assert 0 <= scores[name]["mean"] <= 1
    assert results["baselines"]["random"]["num_networks"] == 2
    assert results["baselines"]["full"]["optimiser_steps"] == 5
    assert make(schema.flat(results["config"])) == finished.config


def test_save_writes_the_promised_files(finished, tmp_path):
    finished.save(tmp_path / "run")
    found = {str(path.relative_to(tmp_path / "run")) for path in tmp_path.rglob("*.*")}
    written = {"config.json", "metrics.jsonl", "results.json", "distilled.npz"}
    assert found == {*written, "images/step_000003.png"}
    read = {
        name: json.loads((tmp_path / "run" / name).read_text())
        for name in found
        if name.endswith(".json")
    }
    assert make(schema.flat(read["config.json"])) == finished.config
    expected = json.loads(json.dumps(finished.results()))
    del expected["peak_memory_bytes"], read["results.json"]["peak_memory_bytes"]
    assert read["results.json"] == expected
    with Image.open(tmp_path / "run" / "images" / "step_000003.png") as picture:
        assert picture.size == (IPC * (2 * SIDE + 2) + 2, CLASSES * (2 * SIDE + 2) + 2)
    distilled = fairdd_jax.load_distilled(tmp_path / "run")
    np.testing.assert_array_equal(
        distilled.images_float, finished.images.reshape(-1, SIDE, SIDE, 3)
    )
    assert distilled.meta["evaluations"] == expected["evaluations"]
    assert distilled.meta["config"] == expected["config"]
    assert distilled.class_names == ("0", "1")


def test_the_file_says_nothing_about_where_and_when(finished, tmp_path):
    finished.save(tmp_path)
    with np.load(tmp_path / "distilled.npz", allow_pickle=False) as file:
        meta = json.loads(str(file["meta"]))
    assert set(meta) == {"config", "dataset", "step", "versions", "evaluations"}
    assert set(meta["versions"]) >= {"jax", "fairdd-jax"}
    names = json.dumps(meta)
    for word in ("seconds", '_s"', "time", "host", "device", "platform", "/", "date"):
        assert word not in names.replace("update", "")


def test_equal_seeds_give_equal_bytes_and_other_seeds_do_not(again, tmp_path):
    same = distill(toy(), ipc=IPC, seed=4, **SETTINGS)
    fresh = Run(again.config, toy())  # `again` may have been evaluated since
    fresh.images, fresh.step = again.images, again.step
    other = started(seed=5)
    for name, run in (("same", same), ("again", fresh), ("other", other)):
        run.save(tmp_path / name)
    content = {path.parent.name: path.read_bytes() for path in tmp_path.glob("*/distilled.npz")}
    assert content["same"] == content["again"]
    assert content["same"] != content["other"]
    other.distill()
    assert (other.images != same.images).any(axis=(2, 3, 4)).all()  # every image of every class


def test_streams_of_a_seed_are_independent():
    run = started()
    keys = [
        tuple(jax.random.key_data(seeds.key(run.config.seed, stream)).tolist())
        for stream in (seeds.INIT, seeds.DISTILL, seeds.EVALUATE, seeds.RANDOM)
    ]
    assert len(set(keys)) == 4
    key = seeds.key(run.config.seed, seeds.INIT)
    expected = initial_images(key, run.dataset, ipc=IPC, init="real").images
    np.testing.assert_array_equal(run.images, expected)


def test_no_step_leaves_the_images_where_they_started(tmp_path):
    run = distill(toy(), ipc=1, **SETTINGS | {"steps": 0})
    np.testing.assert_array_equal(run.images, started(ipc=1).images)
    assert (run.step, run.log) == (0, [])
    run.save(tmp_path)
    assert load_distilled(tmp_path).images.shape == (CLASSES, SIDE, SIDE, 3)


def test_a_non_finite_loss_leaves_the_last_good_images(tmp_path):
    run = started(lr_img=1e30, steps=9, **{"evaluate.uint8_networks": 0})
    start = run.images
    with pytest.raises(NonFiniteLossError):
        run.distill()
    assert run.step == len(run.log) < 9
    assert np.isfinite([line["loss"] for line in run.log]).all()
    assert run.step > 0 or (run.images == start).all()
    assert run.timing["distill_s"] > 0
    run.save(tmp_path)
    assert load_distilled(tmp_path).images.shape == (CLASSES * IPC, SIDE, SIDE, 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: distill(toy(), ipc=31, **SETTINGS), "ipc 31 is more than"),
        (lambda: distill(toy(), method="dmm"), "did you mean 'dm'"),
        (lambda: distill(toy(), fairness="fair"), "did you mean 'fairdd'"),
        (lambda: distill(toy(), recipe="oficial"), "did you mean 'official'"),
        (lambda: distill(toy(), stepss=3), "did you mean 'steps'"),
        (lambda: distill("cmnist_gf", ipc=1), "did you mean 'cmnist_fg'"),
        (lambda: distill(toy(), model="ConvNetD9", steps=1), "choose a shallower network"),
        (lambda: started(**{"evaluate.archs": "ConvNetD9"}), "choose a shallower network"),
        (lambda: started().evaluate(networks=0), "got 0 networks"),
        (lambda: started().evaluate(epochs=-1), "and -1 epochs"),
        (lambda: started().evaluate("ConvNett"), "did you mean 'ConvNet'"),
        (lambda: started().score_baseline("randm"), "did you mean 'random'"),
    ],
)
def test_wrong_names_and_values(call, message):
    with pytest.raises(ConfigError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


def test_missing_data(tmp_path, monkeypatch):
    monkeypatch.setattr(idx, "SYSTEM_DIR", tmp_path / "system")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with pytest.raises(DataError, match="mnist not found"):
        distill("cmnist_fg", ipc=1, data_dir=tmp_path)


def test_recipes_reach_the_configuration(monkeypatch):
    monkeypatch.setattr(Run, "distill", lambda *args: None)
    run = distill(toy(), ipc=1, method="dm", recipe="cobra")
    assert (run.config.sampling, run.config.batch_real, run.config.steps) == (
        "proportional",
        600,
        2600,
    )
    assert distill(toy(), ipc=1, recipe="cobra", steps=7).config.steps == 7


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", sorted(set(data.names()) - {"demo"}))  # which has a budget as well
def test_a_name_means_what_its_preset_means(monkeypatch, name, method):
    """All settings, the network for larger images among them."""
    monkeypatch.setattr(data, "load", lambda *args, **options: None)
    monkeypatch.setattr(api, "Run", lambda config, dataset: Resolved(config))
    preset = make(presets.compose(f"{name}_{method}"))
    assert distill(name, method=method).config == preset
    if method == Config.method:
        assert distill(name).config == preset


class Resolved(SimpleNamespace):
    """A run of which nothing but the configuration matters."""

    def __init__(self, config):
        super().__init__(config=config, distill=lambda on_progress: None)


@pytest.mark.parametrize("function", [distill, dry_run])
def test_defaults_are_those_of_the_configuration(function):
    given = inspect.signature(function).parameters
    fields = [field for field in dataclasses.fields(Config) if field.name in given]
    assert {field.name for field in fields} == {"ipc", "method", "fairness"}
    for field in fields:
        assert given[field.name].default == field.default


def in_a_fresh_process(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_the_losses_come_without_the_dependencies_of_the_rest():
    heavy = ["tensorflow", "tensorflow_datasets", "jsonargparse", "rich", "fairdd_jax.config"]
    code = (
        "import sys, fairdd_jax\n"
        "from fairdd_jax import losses, metrics, augment\n"
        f"print(*[name for name in {heavy} if name in sys.modules])"
    )
    assert in_a_fresh_process(code) == []


def test_the_package_gives_its_functions_whatever_was_imported_before():
    code = (
        "from fairdd_jax import distill, load_distilled\n"
        "import fairdd_jax, fairdd_jax.api\n"
        "for f in (distill, fairdd_jax.distill, fairdd_jax.distill, fairdd_jax.load_distilled):\n"
        "    print(f.__module__ + '.' + f.__name__)"
    )
    distill_name, load_name = "fairdd_jax.api.distill", "fairdd_jax.distilled.load_distilled"
    assert in_a_fresh_process(code) == [distill_name] * 3 + [load_name]
    assert fairdd_jax.distill is distill


def test_a_source_of_the_users_own(monkeypatch, tmp_path):
    """A function that returns arrays, and one that returns files to decode."""

    def arrays(config, data_dir, download):
        assert data_dir == tmp_path
        assert not download
        return dataclasses.replace(toy(seed=config.seed), name="arrays")

    def files(config, data_dir, download):
        written = originals.write_tree(tmp_path, {f"{c}{g}": 3 for c in "ab" for g in "xy"})
        names = images_below(written)
        labels = np.array([name.startswith("b") for name in names], np.int32)
        groups = np.array([name[1] == "y" for name in names], np.int32)
        split = Listed(Folder(written, names), np.arange(len(names)), labels, groups)
        return Listing("files", split, split, ("a", "b"), ("x", "y"), Transform(8))

    for name, find in (("arrays", arrays), ("files", files)):
        source = data.Source(find, settings=frozenset({"seed"}))
        monkeypatch.setitem(data.SOURCES, name, source)
        run = distill(
            name,
            ipc=1,
            steps=1,
            model="ConvNetD1W8",
            data_dir=tmp_path,
            cache_dir=tmp_path / "cache",
            **{"data.seed": 3},
        )
        assert run.dataset.name == name
        assert run.images.shape == (2, 1, 8, 8, 3)
        with pytest.raises(ConfigError, match=r"bias_ratio .* means nothing to"):
            distill(name, data_dir=tmp_path, **{"data.bias_ratio": 0.5})
