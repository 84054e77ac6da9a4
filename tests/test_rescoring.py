"""Scores of distilled sets from files: those of the run that made them, or a clear refusal."""

import dataclasses
import gzip
import json
import runpy
import shutil
from pathlib import Path

import numpy as np
import originals
import pytest
from PIL import Image
from test_run import HEAD, own_surroundings, table_rows

from fairdd_jax import command_line, data, presets, schema, scoring
from fairdd_jax.config import make
from fairdd_jax.data import Dataset
from fairdd_jax.distilled import DistilledSet, load_distilled
from fairdd_jax.errors import ConfigError
from fairdd_jax.evaluate import Evaluation
from fairdd_jax.metrics import fairness_report
from fairdd_jax.rescoring import Rescoring, settings
from fairdd_jax.run import Run

__all__ = ["own_surroundings"]  # a fixture of every test here
main = runpy.run_path(str(Path(__file__).parents[1] / "experiments" / "evaluate.py"))["main"]
SETTINGS = {"steps": 0, "ipc": 2, "seed": 5, "model": "ConvNetD1W8", "dsa_strategy": "none"}
SETTINGS |= {"evaluate.networks": 1, "evaluate.epochs": 2, "evaluate.batch_size": 9}


@pytest.fixture(scope="module")
def run():
    """A scored run, its images between the grey levels of pixels."""
    config = make(presets.compose("cmnist_fg_dm") | SETTINGS)
    run = Run(config, data.load(config.data, data_dir=HEAD))
    run.images = run.images + np.float32(0.003)
    run.evaluate()
    return run


@pytest.fixture
def folder(run, tmp_path):
    run.save(tmp_path / "run")
    return tmp_path / "run"


def evaluated(place, *arguments):
    """What the program writes."""
    where = place.parent / "scores"
    options = ["--data_dir", str(HEAD), "--workdir", str(where), *arguments]
    assert main([str(place), *options]) == 0
    return json.loads((where / "evaluation.json").read_text())


def test_the_scores_are_those_of_the_run(run, folder, capsys):
    found = evaluated(folder)
    assert found["evaluations"] == run.evaluations
    assert found["evaluations_uint8"] == run.evaluations_uint8
    assert found["baselines"] == {}
    assert found["dataset"] == json.loads(json.dumps(run.results()["dataset"]))
    assert found["seed"] == 5
    rows = table_rows(capsys.readouterr().out)
    assert [row[0] for row in rows][:2] == ["the set", "the set in 8 bits"]
    accuracy = found["evaluations"][0]["accuracy"]["mean"]
    assert rows[0][1] == f"{100 * accuracy:.1f}"


@pytest.mark.slow
def test_an_exported_set_has_the_scores_of_the_8_bit_images(run, folder):
    load_distilled(folder).export(folder.parent / "set")
    found = evaluated(folder.parent / "set")
    assert found["evaluations"] == run.evaluations_uint8
    assert found["evaluations_uint8"] == []
    # And so have the images alone, if all settings are given.
    options = [f"--{name}={value}" for name, value in SETTINGS.items()]
    shutil.rmtree(folder.parent / "scores")
    (folder.parent / "set" / "distilled.json").unlink()
    for place in (folder.parent / "set" / "train").glob("*/"):
        place.rename(place.with_name(place.name.partition("_")[2]))
    found = evaluated(folder.parent / "set", "--config", "cmnist_fg_dm", *options)
    (scores,) = run.evaluations_uint8
    assert found["evaluations"] == [{k: v for k, v in scores.items() if k != "step"}]


@pytest.mark.slow
def test_networks_of_ones_own_and_baselines(folder, tmp_path, monkeypatch, capsys):
    (tmp_path / "mynets.py").write_text(
        "import flax.linen as nn\n"
        "class Net(nn.Module):\n"
        "    classes: int\n"
        "    @nn.compact\n"
        "    def __call__(self, x):\n"
        "        x = x.reshape(len(x), -1)\n"
        "        return nn.Dense(self.classes)(x), x\n"
        "mine = Net\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    options = ["--evaluate.archs", "mynets:mine,MLP", "--evaluate.uint8_networks", "0"]
    found = evaluated(folder, *options, "--evaluate.baselines", "random", "--evaluate.networks=2")
    assert [scores["arch"] for scores in found["evaluations"]] == ["mynets:mine", "MLP"]
    assert {scores["num_networks"] for scores in found["evaluations"]} == {2}
    assert found["baselines"]["random"]["arch"] == "mynets:mine"
    names = [row[0] for row in table_rows(capsys.readouterr().out)]
    assert names == ["random", "the set, mynets:mine, step 0", "the set, MLP, step 0"]


# What is trained on


def scored(monkeypatch, distilled, dataset, **changes):
    """Images and labels that are scored, for every architecture."""
    seen = []

    def record(self, arch, images, labels, *rest):
        seen.append((np.asarray(images), np.asarray(labels)))
        return Evaluation(arch, 1, (report,))

    report = fairness_report([0], [0], [0], num_classes=1, num_groups=1)

    monkeypatch.setattr(scoring.Scoring, "_score", record)
    monkeypatch.setattr(scoring.Scoring, "_evaluator", lambda *args: None)
    config = make({"data.name": "toy", "evaluate.baselines": "none", **changes})
    *_, last = Rescoring(distilled, config, dataset).results()
    assert last["complete"]
    return seen


def toy(classes=("a", "b", "c"), mean=(0.5, 0.25, 0.1), std=(0.5, 0.3, 0.2)):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6, 8, 8, 3), np.uint8)
    split = images, np.arange(6) % 3, np.arange(6) // 3
    return Dataset.from_arrays(split, split, name="toy", classes=classes, mean=mean, std=std)


def some_set(names=("a", "b", "c"), mean=(0.5, 0.25, 0.1), std=(0.5, 0.3, 0.2), shape=(8, 8, 3)):
    rng = np.random.default_rng(1)
    images = rng.normal(scale=0.3, size=(len(names), 2, *shape)).astype(np.float32)
    return DistilledSet.of_classes(images, mean=mean, std=std, class_names=names, meta={})


def test_the_images_are_scored_as_they_are_and_in_8_bits(monkeypatch):
    distilled = some_set()
    (whole, labels), (rounded, _) = scored(monkeypatch, distilled, toy())
    np.testing.assert_array_equal(whole, distilled.images_float)
    np.testing.assert_array_equal(labels, [0, 0, 1, 1, 2, 2])
    np.testing.assert_array_equal(rounded, distilled.transform(distilled.images))
    assert len(scored(monkeypatch, distilled, toy(), **{"evaluate.uint8_networks": 0})) == 1
    assert len(scored(monkeypatch, distilled, toy(), **{"evaluate.archs": "MLP,LeNet"})) == 4


@pytest.mark.parametrize("is_rounded", [False, True])
def test_it_takes_as_many_steps_as_it_says(monkeypatch, is_rounded):
    whole, taken = some_set(), []
    if is_rounded:  # then the 8-bit images are the same, and are not scored again
        whole = dataclasses.replace(whole, images_float=whole.transform(whole.images))
    uneven = dataclasses.replace(
        whole, **{name: getattr(whole, name)[:5] for name in ("images", "images_float", "labels")}
    )
    report = fairness_report([0], [0], [0], num_classes=1, num_groups=1)

    def record(self, arch, images, labels, groups, of_set, networks, on_steps):
        taken.append(networks * of_set.total)
        return Evaluation(arch, 1, (report,))

    monkeypatch.setattr(scoring.Scoring, "_score", record)
    monkeypatch.setattr(scoring.Scoring, "_evaluator", lambda *args: None)
    chosen = {"evaluate.batch_size": 2, "evaluate.networks": 3, "evaluate.epochs": 4}
    chosen |= {"evaluate.archs": "MLP,LeNet", "evaluate.baselines": "full,random"}
    rescoring = Rescoring(uneven, make({"data.name": "toy", **chosen}), toy())
    parts = list(rescoring.results())  # what comes later does not change them
    assert [(part["complete"], len(part["evaluations"])) for part in parts] == [
        (False, 1),
        (False, 2),
        (False, 2),
        (True, 2),
    ]
    assert rescoring.steps == sum(taken)
    assert len(taken) == (2 if is_rounded else 4) + 2
    assert taken[0] == 3 * 5 * 3  # networks, epochs and one more, batches of 5 images


def test_classes_have_the_numbers_of_the_data_set(monkeypatch):
    (_, labels), _ = scored(monkeypatch, some_set(), toy(classes=("c", "a", "b")))
    np.testing.assert_array_equal(labels, [1, 1, 2, 2, 0, 0])


def test_images_have_the_normalisation_of_the_data_set(monkeypatch, tmp_path):
    dataset = toy()
    plain = DistilledSet.of_pixels(
        images=dataset.train.images,
        labels=dataset.train.labels,
        mean=(0.0,) * 3,
        std=(1.0,) * 3,
        class_names=dataset.classes,
        meta={},
    )
    ((images, _),) = scored(monkeypatch, plain, dataset)
    expected = dataset.normalise(dataset.train.images)
    np.testing.assert_array_equal(images, expected)
    other = some_set(mean=(0.1, 0.2, 0.3), std=(0.25, 1.0, 0.5))
    (images, _), _ = scored(monkeypatch, other, dataset)
    pixels = other.images_float * np.asarray(other.std) + other.mean
    np.testing.assert_allclose(images, (pixels - dataset.mean) / dataset.std, atol=1e-5)


def test_settings_are_those_of_the_run_without_its_baselines(run):
    found = settings(run.distilled())
    assert make(found).evaluate.baselines == "none"
    assert make(found | {"evaluate.baselines": run.config.evaluate.baselines}) == run.config
    assert settings(some_set()) == {}


@pytest.mark.parametrize("name", [["--data.name", "celeba"], ["--data.name=celeba"]])
def test_another_data_set_has_its_own_settings(name):
    own = {"data.name": "cmnist_fg", "data.bias_ratio": 0.8, "ipc": 3}

    def config(*arguments):
        command = command_line.read_command(
            list(arguments), description=None, is_run=False, settings=own
        )
        return command.config

    assert (config().data.bias_ratio, config().ipc) == (0.8, 3)
    other = config(*name)
    assert (other.data.name, other.data.bias_ratio, other.ipc) == ("celeba", 0.9, 3)


# What does not fit


@pytest.mark.parametrize(
    ("distilled", "message"),
    [
        (some_set(names=("a", "b")), "classes 'a', 'b', toy has 'a', 'b', 'c'; choose"),
        (some_set(names=("a", "b", "d")), "'a', 'b', 'd', toy has"),
        (some_set(names=("a", "b", "c", "c")), "'a', 'b', 'c', 'c', toy has"),
        (some_set(names=tuple("abcdefgh")), "'e' and 3 more, toy has"),
        (some_set(shape=(8, 9, 3)), "images of the set are 8x9x3, those of toy 8x8x3"),
        (some_set(shape=(8, 8, 1), mean=(0.5,), std=(1.0,)), "8x8x1, those of toy 8x8x3"),
    ],
)
def test_a_set_of_other_data(distilled, message):
    with pytest.raises(ConfigError, match=message) as error:
        Rescoring(distilled, make({"data.name": "toy"}), toy())
    assert "\n" not in str(error.value)


def test_groups_that_nobody_knows():
    config = make({"data.name": "toy", "evaluate.weighting": "inverse_share", "model": "MLP"})
    with pytest.raises(ConfigError, match=r"choose --evaluate\.weighting none"):
        next(Rescoring(some_set(), config, toy()).results())


def test_scores_are_kept_when_the_next_network_takes_too_much(folder, monkeypatch):
    score = scoring.Scoring.score

    def greedy(self, arch, *args, **options):
        if arch == "LeNet":
            raise MemoryError
        return score(self, arch, *args, **options)

    monkeypatch.setattr(scoring.Scoring, "score", greedy)
    where = folder.parent / "scores"
    options = ["--data_dir", str(HEAD), "--workdir", str(where), "--evaluate.archs", "MLP,LeNet"]
    assert main([str(folder), *options]) == 6
    found = json.loads((where / "evaluation.json").read_text())
    assert [scores["arch"] for scores in found["evaluations"]] == ["MLP"]
    assert not found["complete"]


def test_scores_of_another_set_or_of_other_settings_stay(folder, tmp_path, capsys, monkeypatch):
    """By default each has a folder of its own; one that was named is left alone."""
    other = shutil.copytree(folder, tmp_path / "other" / "run")
    head = ["--data_dir", str(HEAD)]
    assert main([str(folder), *head]) == 0
    with monkeypatch.context() as patch:
        patch.chdir(folder.parent)
        elsewhere = ["--workdir", str(tmp_path / "runs" / "evaluate_run_cmnist_fg")]
        assert main([f"{folder.name}/", *head, *elsewhere]) == 0  # the same set
    assert main([str(other), *head]) == 0
    assert main([str(folder), *head, "--evaluate.epochs", "1"]) == 0
    paths = tmp_path.glob("runs/*/evaluation.json")
    named = {path.parent.name: json.loads(path.read_text()) for path in paths}
    found = {name: (Path(c["set"]), c["config"]["evaluate"]["epochs"]) for name, c in named.items()}
    first = "evaluate_run_cmnist_fg"
    assert found == {first: (folder, 2), f"{first}_2": (other, 2), f"{first}_3": (folder, 1)}
    capsys.readouterr()
    where = ["--workdir", f"runs/{first}"]
    refused(capsys, 4, f"holds scores of another set, {folder}", str(other), *head, *where)
    more = ["--evaluate.epochs", "1"]
    refused(
        capsys,
        4,
        "holds scores of other settings: --evaluate.epochs 2 there, 1 here; choose",
        str(folder),
        *head,
        *where,
        *more,
    )
    reversed_labels = shutil.copytree(HEAD, tmp_path / "reversed")
    with gzip.open(HEAD / "t10k-labels-idx1-ubyte.gz") as file:
        content = file.read()
    with gzip.open(reversed_labels / "t10k-labels-idx1-ubyte.gz", "wb") as file:
        file.write(content[:8] + content[8:][::-1])
    other_images = ["--data_dir", str(reversed_labels)]
    refused(capsys, 4, "holds scores of other test images", str(folder), *other_images, *where)
    scores = tmp_path / "runs" / first / "evaluation.json"
    scores.write_text("{}")
    assert main([str(folder), *head, *where]) == 0
    capsys.readouterr()
    scores.write_text("{")
    refused(capsys, 3, f"{scores.relative_to(tmp_path)} is damaged", str(folder), *head, *where)


def refused(capsys, code, message, *arguments):
    assert main(list(arguments)) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
    assert message in printed.err


def test_a_set_has_the_table_of_own_images_by_its_name(tmp_path, monkeypatch, capsys):
    """However the run was told of it; who scores the set says where it is, if it is elsewhere."""
    photos, lists = originals.write_images(tmp_path / "photos", side=8), tmp_path / "lists"
    lists.mkdir()
    table = (photos / "faces.csv").rename(lists / "faces.csv")
    monkeypatch.chdir(lists)
    settings = presets.compose("images_dm") | SETTINGS | {"data.size": 8, "ipc": 1}
    for name, given in (("a", table), ("b", "faces.csv"), ("c", "../lists/faces.csv")):
        config = make(settings | {"data.table": str(given)})
        dataset = data.load(config.data, data_dir=photos, cache_dir=tmp_path / "cache")
        Run(config, dataset).distilled().save(tmp_path / f"{name}.npz")
    sets = [path.read_bytes() for path in sorted(tmp_path.glob("*.npz"))]
    assert sets == sets[:1] * 3
    assert load_distilled(tmp_path / "a.npz").meta["config"]["data"]["table"] == "faces.csv"
    monkeypatch.chdir(tmp_path)
    places = [str(tmp_path / "a.npz"), "--data_dir", str(photos), "--cache_dir", "cache"]
    places += ["--workdir", str(tmp_path / "scores")]
    refused(capsys, 3, "pass its path: --data.table", *places)
    assert main([*places, "--data.table", str(table), "--evaluate.epochs=0"]) == 0


def test_what_the_program_refuses(folder, capsys, tmp_path):
    where, head = str(folder), ["--data_dir", str(HEAD)]
    plain = tmp_path / "plain"
    for name in ("0", "1"):
        (plain / name).mkdir(parents=True)
        Image.new("RGB", (32, 32)).save(plain / name / "0.png")
    refused(capsys, 2, "SET must come before the options")
    refused(capsys, 2, "SET must come before the options", "--config", "cmnist_fg_dm")
    refused(capsys, 3, "no distilled set at none", "none")
    refused(capsys, 2, "--config NAME or --data.name NAME is missing", str(plain))
    refused(capsys, 2, "did you mean 'evaluate.epochs'", where, "--evaluate.epoch", "1")
    refused(capsys, 2, "which --recipe and --quick change", where, "--quick")
    refused(capsys, 2, "did you mean 'cmnist_fg'", where, "--data.name", "cmnist_gf")
    refused(capsys, 2, "--data.name", where, "--data.name")
    refused(capsys, 2, "contradicts --config", where, "--config=demo", "--data.name=celeba")
    refused(capsys, 3, "celeba not found", where, "--data.name", "celeba", *head)
    refused(capsys, 3, "mnist not found", where)
    options = ["--data.name", "cmnist_fg", *head]
    refused(capsys, 2, "classes '0', '1', cmnist_fg has '0', '1', '2', ", str(plain), *options)
    refused(capsys, 2, "--resume is for experiments/run.py", where, "--resume", "auto")
    refused(capsys, 2, "--tensorboard is for experiments/run.py", where, "--tensorboard")
    for option in ("--checkpoint_every", "--checkpoints"):
        refused(capsys, 2, f"{option} is for experiments/run.py", where, option, "100")
    shutil.copytree(folder, tmp_path / "both" / "fairdd")
    shutil.copytree(folder, tmp_path / "both" / "vanilla")
    refused(capsys, 3, "runs that have one: fairdd, vanilla; pass one", str(tmp_path / "both"))
    (tmp_path / "result.pt").write_bytes(b"PK")
    refused(capsys, 3, "experiments/convert_pt.py", str(tmp_path / "result.pt"))


@pytest.mark.parametrize("config", [{"ipc": "many"}, {"of": "another version"}, 3])
def test_settings_of_no_version(folder, capsys, config):
    path = folder / "distilled.npz"
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    arrays["meta"] = np.asarray(json.dumps({"config": config}))
    np.savez(path, **arrays)
    refused(capsys, 2, "the distilled set holds are not taken over: ", str(folder))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("model", "from_a_file:network"),
        ("evaluate.archs", "from_a_file:network"),
        ("evaluate.archs", "MLP, from_a_file:network"),
    ],
)
def test_code_that_a_set_names_is_not_run(
    run, folder, capsys, tmp_path, monkeypatch, option, value
):
    """Whoever made it: to import a module is to run it."""
    (tmp_path / "from_a_file.py").write_text("raise SystemExit('it ran')")
    monkeypatch.syspath_prepend(tmp_path)
    name = "from_a_file:network"
    config = schema.flat(dataclasses.asdict(run.config)) | {option: value}
    distilled = dataclasses.replace(run.distilled(), meta={"config": config})
    distilled.save(folder / "distilled.npz")
    refused(capsys, 2, f"{name} is code, type --{option} {name} to run it", str(folder))
    for typed in ([f"--{option}", value], [f"--{option}={value}"]):
        with pytest.raises(SystemExit, match="it ran"):
            main([str(folder), *typed])


def test_help_and_list(capsys, folder):
    assert main(["--help"]) == 0
    assert "evaluate.py SET" in capsys.readouterr().out
    assert main([str(folder), "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "(type: int, default: 5)" in text  # the seed of the run
    assert "--data_dir DIR" in text
    assert not [option for option in ("--resume", "--checkpoint", "--dry_run") if option in text]
    assert main(["--list"]) == 0
    assert "cmnist_fg_dm" in capsys.readouterr().out
