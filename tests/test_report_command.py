"""The command that repeats a run, what the papers print for it, and the program that compares."""

import dataclasses
import importlib
import json
import runpy
import shlex
import sys
from pathlib import Path

import pytest
from records import config, record

from fairdd_jax import command_line, outputs, presets, published, schema
from fairdd_jax.config import unread
from fairdd_jax.fairness import FAIRNESS
from fairdd_jax.report.command import command_of

SCRIPT = Path(__file__).parents[1] / "experiments" / "compare.py"


@pytest.mark.parametrize(("where", "field"), [((), "model"), (("evaluate",), "archs")])
def test_code_that_results_name_is_not_run(tmp_path, monkeypatch, where, field):
    """For the sake of a line of text: results may come from anybody."""
    module = f"from_results_{field}"
    (tmp_path / f"{module}.py").write_text("def network(num_classes): raise SystemExit")
    monkeypatch.syspath_prepend(tmp_path)
    results = config(**presets.compose("cmnist_fg_dm"))
    part = results[where[0]] if where else results
    part[field] = f"{module}:network"
    assert command_of(results) is None
    assert module not in sys.modules
    importlib.import_module(module)
    assert f"{module}:network" in command_of(results)  # a run of one's own


def read(config):
    """The fields that something reads."""
    return schema.flat(config.as_json()) | dict.fromkeys(unread(config))


@pytest.mark.parametrize(
    "arguments",
    [
        ["--config", "demo"],
        ["--config", "demo", "--quick", "--seed", "3"],
        ["--config", "cmnist_fg_dm", "--fairness", "cobra", "--ipc", "50"],
        ["--config", "celeba_dc", "--data.protected", "male,pale_skin", "--distance", "cos"],
        ["--config", "cfmnist_bg_idc", "--recipe", "cobra"],
        [
            "--config",
            "cmnist_fg_dream",
            "--evaluate.full_steps",
            "null",
            "--data.minority",
            "unequal",
        ],
        ["--config", "images_cafe", "--data.table", "a table.csv", "--chunk", "7"],
        ["--config", "cmnist_fg_dm", "--recipe", "mosaic"],
        ["--config", "cmnist_fg_dm", "--sampling", "proportional", "--batch_real", "64"],
        ["--config", "demo", "--evaluate.full_steps", "null", "--evaluate.full_epochs", "3"],
        ["--config", "cmnist_fg_dm", "--groups.source", "kmeans", "--groups.clusters", "4"],
        ["--config", "cmnist_fg_dc", "--debias", "lff", "--warmup_real", "2560"],
        ["--config", "cifar10s_dm", "--data.validation", "0.1", "--data.seed", "5"],
        ["--config", "cmnist_fg_idc", "--inner_real", "0", "--inner_epochs", "5"],
    ],
    ids=" ".join,
)
def test_the_command_gives_the_configuration(arguments):
    wanted = command_line.read_command(arguments, description=None).config
    text = command_of(json.loads(json.dumps(dataclasses.asdict(wanted))))
    assert text.startswith("python experiments/run.py --config ")
    again = command_line.read_command(shlex.split(text)[2:], description=None).config
    assert read(again) == read(wanted)
    if "--quick" not in arguments:  # which has no word of its own
        typed = {word for word in [*arguments, "--data_dir"] if word.startswith("--")}
        assert {word for word in shlex.split(text) if word.startswith("--")} <= typed


def test_without_a_preset_there_is_no_command():
    assert command_of(config(data__name="mine")) is None
    assert command_of(config(data__name="demo", method="dc")) is None


def test_what_the_papers_print():
    rows = published.rows(config(data__name="cmnist_bg", ipc=10, method="dm"))
    (row,) = rows.values()
    assert list(rows) == ["paper: DM + FairDD"]
    scores = [row[name]["mean"] for name in ("accuracy", "deo_max", "deo_mean")]
    assert scores == [0.9488, 0.1342, 0.0677]  # FairDD, Table 1
    cobra = published.rows(config(data__name="cmnist_bg", ipc=10, fairness="cobra"))
    assert "second-hand" in cobra["paper: DM + COBRA"]["source"]
    assert published.rows(config(data__name="cmnist_bg", data__seed=3, ipc=10)) == rows
    old = config(data__name="cmnist_bg", ipc=10)
    del old["data"]["colours"], old["data"]["test_without"]
    assert published.rows(old) == rows


def test_a_run_of_no_update_stands_beside_random_images():
    start = config(data__name="cmnist_bg", ipc=10, steps=0)
    (row,) = published.rows(start).values()
    assert list(published.rows(start)) == ["paper: Random"]
    assert row["accuracy"]["mean"] == 0.2795  # FairDD, Table 2


@pytest.mark.parametrize(
    "settings",
    [
        {"data__name": "cmnist_bg", "ipc": 7},
        {"data__name": "cmnist_bg", "ipc": 10, "data__bias_ratio": 0.95},
        {"data__name": "cmnist_bg", "ipc": 10, "data__colours": 4},
        {"data__name": "cmnist_bg", "ipc": 10, "data__test_without": 1},
        {"data__name": "cmnist_bg", "ipc": 10, "fairness": "groupdro"},
        {"data__name": "celeba", "ipc": 10, "data__target": "young"},
        {"data__name": "mine", "ipc": 10},
        {"data__name": "cmnist_bg", "ipc": 10, "steps": 0, "init": "balanced"},
        {"data__name": "cmnist_bg", "ipc": 7, "steps": 0},
    ],
)
def test_other_settings_are_not_in_the_papers(settings):
    assert published.rows(config(**settings)) == {}


def test_every_published_row_belongs_to_a_preset():
    text = (Path(published.__file__).parent / "published.csv").read_text()
    lines = [line.split(",") for line in text.splitlines()[1:]]
    named = [line for line in lines if line[3]]
    assert len(named) > 100
    for data, ipc, method, fairness, *_ in named:
        assert f"{data}_{method}" in presets.names()
        assert fairness in FAIRNESS
        assert int(ipc) > 0


# The program


main = runpy.run_path(str(SCRIPT))["main"]


@pytest.fixture
def folders(tmp_path):
    """Two runs in folders of their own."""
    for name in ("one", "two"):
        run = record(name)
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text(json.dumps(run.results))
        run.distilled.save(tmp_path / name / "distilled.npz")
    return [str(tmp_path / name) for name in ("one", "two")]


def test_it_compares(folders, tmp_path, capsys):
    assert main([*folders, "--workdir", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert [name in printed for name in ("random", "one", "two")] == [True] * 3
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"comparison.json", "comparison.png", outputs.OF_THE_WHOLE[2]}
    assert set(json.loads((tmp_path / "out/comparison.json").read_text())) == {
        "random", "one", "two"}  # fmt: skip


@pytest.mark.parametrize(
    ("code", "message", "arguments"),
    [
        (2, "no run is named", []),
        (2, "named twice", ["{one}", "{one}"]),
        (2, "unknown option --wrkdir", ["{one}", "--wrkdir", "x"]),
        (3, "no run in", ["{one}", "{one}/nowhere"]),
        (4, "cannot write", ["{one}", "--workdir", "{one}/results.json"]),
    ],
)
def test_mistakes_are_one_line(folders, capsys, code, message, arguments):
    assert main([argument.format(one=folders[0]) for argument in arguments]) == code
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
    assert message in printed.err
