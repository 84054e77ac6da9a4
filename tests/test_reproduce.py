"""The driver of the tables, and the tables that are drawn from its files."""

import dataclasses
import io
import json
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import records
from PIL import Image

from fairdd_jax import command_line, presets, workdir
from fairdd_jax.config import make

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
HEAD = Path(__file__).parent / "fixtures" / "mnist_head"  # 40 and 20 real digits
sys.path.insert(0, str(EXPERIMENTS))

import reproduce  # noqa: E402
import result_tables  # noqa: E402

SMALL = """
[small]
settings.evaluate = { networks = 1, epochs = 1, uint8_networks = 0, baselines = "random" }

[[small.rows]]
name = "fairdd"
configs = ["cmnist_fg_dm", "cmnist_bg_dm"]
seeds = [2, 1]
ipc = 1
minutes = 1
settings = { steps = 2, per_cell = 1, model = "ConvNetD1W8" }
"""


def pretended(command):
    """Leaves what the driver takes of a run, with the settings that run.py would read."""
    chosen = command_line.read_command(command[2:], description=None)
    folder = Path(chosen.options.workdir)
    config = chosen.config.as_json()
    write_run(folder, "results", config=config, baselines={"random": records.scores([[1.0]])})
    (folder / "images").mkdir(exist_ok=True)
    (folder / "images" / f"step_{chosen.config.steps:06d}.png").write_bytes(b"picture")
    workdir.write_json(folder / "config.json", config)
    return 0


@pytest.fixture
def driver(tmp_path, monkeypatch):
    """Runs the driver on a small table; returns its exit code and the calls of run.py."""
    monkeypatch.setattr(reproduce, "TABLES", tmp_path / "tables.toml")
    reproduce.TABLES.write_text(SMALL)
    calls = []
    real = reproduce.call

    def call(*arguments, data_dir=HEAD, pretend=True):
        def called(command):
            calls.append(command)
            return (pretended if pretend else real)(command)

        monkeypatch.setattr(reproduce, "call", called)
        calls.clear()
        places = ["--workdir", str(tmp_path / "runs"), "--results", str(tmp_path / "results")]
        options = ["--table", "small", "--data_dir", str(data_dir), *places, *arguments]
        return reproduce.main(options), list(calls)

    return call


@pytest.mark.parametrize("table", ["main", "selection"])
def test_every_row_of_every_table_can_be_run(table):
    jobs = reproduce.read_jobs(table)
    assert max(Counter(job.name for job in jobs).values()) == 1
    for job in jobs:
        config = job.config()
        assert (config.seed, config.ipc) == (job.settings["seed"], job.settings["ipc"])
        assert job.minutes > 0
        # Test images are for the final rows alone.
        assert (config.data.validation > 0) == (table == "selection")
    seeds = [job.settings["seed"] for job in jobs]
    assert seeds == sorted(seeds)


@pytest.mark.parametrize("pretend", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_what_is_done_is_kept_and_not_run_again(driver, tmp_path, capsys, pretend):
    code, calls = driver("--only", "cmnist_fg", "fairdd", pretend=pretend)
    assert (code, len(calls)) == (0, 2)
    results = tmp_path / "results" / "small"
    names = [f"cmnist_fg_dm_fairdd_ipc1_seed{seed}" for seed in (0, 1)]
    assert sorted(path.name for path in results.iterdir()) == [
        f"{name}.{suffix}" for name in names for suffix in ("json", "png")
    ]
    whole = json.loads((tmp_path / "runs" / "small" / names[1] / "results.json").read_text())
    assert json.loads((results / f"{names[1]}.json").read_text()) == whole
    assert (whole["seed"], whole["config"]["steps"]) == (1, 2)
    text = (tmp_path / "results" / "small.md").read_text()
    assert [line.split(" | ")[2] for line in text.splitlines()[2:4]] == ["random", "fairdd dm"]

    code, calls = driver("--list")
    assert (code, calls) == (0, [])
    printed = capsys.readouterr().out
    assert "2 of 3 runs are there" in printed
    assert "cmnist_bg_dm_fairdd_ipc1_seed0: about 1 minutes" in printed

    # Other settings are another run.
    reproduce.TABLES.write_text(SMALL.replace("steps = 2", "steps = 1"))
    code, calls = driver("--only", names[0], pretend=pretend)
    assert (code, len(calls)) == (0, 1)
    assert calls[0][calls[0].index("--resume") + 1] == "never"
    assert json.loads((results / f"{names[0]}.json").read_text())["config"]["steps"] == 1
    # So are fewer steps; more go on where they end, if there is a checkpoint.
    checkpoints = tmp_path / "runs" / "small" / names[0] / reproduce.CHECKPOINTS
    shutil.rmtree(checkpoints, ignore_errors=True)
    for checkpoint, choice in ((False, "never"), (True, "auto")):
        reproduce.TABLES.write_text(SMALL.replace("steps = 2", f"steps = {3 + checkpoint}"))
        if checkpoint:
            checkpoints.mkdir()
        code, calls = driver("--only", names[0])
        assert (code, calls[0][calls[0].index("--resume") + 1]) == (0, choice)
    # Where it was computed does not matter; and what differs is no one row.
    text = (results / f"{names[0]}.json").read_text()
    (results / f"{names[0]}.json").write_text(text.replace('"chunk": ', '"chunk": 9'))
    assert driver("--only", names[0]) == (0, [])
    rows = result_tables.read("small", tmp_path / "results")
    assert [len(row.runs) for row in rows if row.name == "fairdd dm"] == [1, 1]


@pytest.mark.parametrize("table", ["main", "selection"])
def test_runs_that_are_kept_are_done_whatever_settings_came_since(table):
    """Those of every row of theirs are of versions with fewer settings."""
    kept = {path.stem for path in (reproduce.RESULTS / table).glob("*.json")}
    jobs = [job for job in reproduce.read_jobs(table) if job.name in kept]
    assert len(jobs) == len(kept) > 0
    assert all(reproduce.is_finished(job, reproduce.RESULTS) for job in jobs)


def test_damaged_results_are_one_line(driver, tmp_path, capsys):
    assert driver("--only", "cmnist_bg")[0] == 0
    path = tmp_path / "results" / "small" / "cmnist_bg_dm_fairdd_ipc1_seed0.json"
    for content in ("{", "3", "{}", '{"config": {}}'):
        path.write_text(content)
        capsys.readouterr()
        assert driver("--only", "cmnist_bg") == (3, [])
        assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("number", "of_child", "code"),
    [(signal.SIGINT, 9, 9), (signal.SIGINT, 0, 130), (signal.SIGTERM, 0, 143)],
)
def test_a_run_that_is_stopped_has_time_to_save(tmp_path, number, of_child, code):
    """The child takes a second for it, longer than Python itself would wait."""
    program = f"""
import signal, sys, time
def save(*_):
    time.sleep(1)
    open({str(tmp_path / "saved")!r}, "w").close()
    sys.exit({of_child})
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, save)
open({str(tmp_path / "begun")!r}, "w").close()
time.sleep(60)
"""
    driver = f"""
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path.insert(0, {str(EXPERIMENTS)!r})
import reproduce
signal.signal(signal.SIGTERM, reproduce.interrupts.raise_terminated)
sys.exit(reproduce.call([sys.executable, "-c", {program!r}]))
"""
    process = subprocess.Popen([sys.executable, "-c", driver], start_new_session=True)
    deadline = time.monotonic() + 60
    while not (tmp_path / "begun").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(number)
    assert process.wait(timeout=30) == code
    assert (tmp_path / "saved").exists()


def test_what_is_left_takes_what_others_of_the_row_took():
    job = reproduce.Job("t", "fairdd", "cmnist_fg_dm", None, {"ipc": 10, "seed": 0}, minutes=20)
    other = dataclasses.replace(job, row="cobra", minutes=10)
    assert reproduce.minutes_left([job, other], []) == 30
    # Half as long again as expected: so will be what nobody has run yet.
    assert reproduce.minutes_left([job, other], [(job, 30.0)]) == 30 + 15
    assert reproduce.minutes_left([job], [(job, 30.0), (job, 50.0), (other, 90.0)]) == 40
    # Another method or number of images under the name of the row takes its own time.
    assert reproduce.minutes_left([dataclasses.replace(job, minutes=6)], [(job, 30.0)]) == 9


def test_a_run_that_fails_ends_it_with_its_code_and_keeps_nothing(driver, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "nowhere"))
    code, calls = driver(data_dir=tmp_path / "nowhere", pretend=False)
    assert (code, len(calls)) == (3, 1)
    assert not (tmp_path / "results" / "small").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--table", "mein"], "unknown table 'mein'; did you mean 'main'?"),
        (["--only", "cmnist_gf"], "unknown row 'cmnist_gf'; did you mean 'cmnist_"),
        (["--ipc", "3"], "no run of main fits"),
        (["--ipc", "ten"], "invalid int value: 'ten'"),
        (["--tabel", "main"], "unknown option --tabel"),
    ],
)
def test_mistakes_are_one_line(arguments, message, capsys):
    assert reproduce.main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def write_run(folder, name, *, config, baselines, seconds=60.0, **changes):
    """What the driver and the tables read of results.json."""
    content = {
        "config": config,
        "dataset": {"test_cell_counts": [[1]]},
        "evaluations": [records.scores([[1.0]], **changes)],
        "evaluations_uint8": [],
        "baselines": baselines,
        "timing": {"distill_s": seconds, "evaluate_s": 1.0},
        "peak_memory_bytes": 2**30,
        "environment": {"device": "cpu cpu"},
        "seed": config["seed"],
    }
    folder.mkdir(exist_ok=True, parents=True)
    (folder / f"{name}.json").write_text(json.dumps(content))


def write_row(folder, seed, *, name="fairdd", steps=7, fairness="fairdd", baselines=(), **changes):
    """One seed of a row of C-MNIST."""
    settings = {"seed": seed, "steps": steps, "fairness": fairness}
    chosen = presets.compose("cmnist_fg_dm") | settings
    config = make(chosen).as_json()
    write_run(
        folder,
        f"cmnist_fg_dm_{name}_ipc10_seed{seed}",
        config=config,
        baselines=dict(baselines),
        seconds=60.0 + 60 * seed,
        **changes,
    )


def test_rows_are_means_over_seeds_with_the_spread_of_all_networks(tmp_path):
    random = records.scores([[1.0]], accuracy=(0.5,), deo=(0.9,))
    write_row(tmp_path / "t", 0, accuracy=(0.9, 0.92), deo=(0.2, 0.2))
    baselines = {"random": random}
    write_row(tmp_path / "t", 1, accuracy=(0.94, 0.96), deo=(0.1, 0.1), baselines=baselines)
    baseline, row = result_tables.read("t", tmp_path)
    assert (row.dataset, row.name, row.ipc) == ("cmnist_fg", "fairdd dm", 10)
    assert row.score("accuracy")["mean"] == pytest.approx(0.93)
    assert row.score("accuracy")["std"] == pytest.approx(0.05**0.5 / 10)
    assert row.paper() == {"accuracy": 0.9461, "deo_max": 0.1704, "deo_mean": 0.0795}
    assert (baseline.name, baseline.paper()["accuracy"]) == ("random", 0.3075)
    result_tables.write("t", tmp_path)
    picture = (tmp_path / "t.png").read_bytes()
    with Image.open(io.BytesIO(picture)) as opened:
        assert opened.size[0] > 300
    assert picture == result_tables.picture([baseline, row])
    first, second = (tmp_path / "t.md").read_text().splitlines()[2:4]
    assert second == (
        "| cmnist_fg | 10 | fairdd dm | 7 | 1.5 | 1.0 | 2 x 2 | 93.0±2.2 "
        "| **15.0±5.0** (10.0) | **7.5±2.5** (5.0) | 94.6 / 17.0 / 8.0 |"
    )
    assert first.startswith("| cmnist_fg | 10 | random |  |  |  | 1 x 1 | 50.0 |")


def test_bold_is_what_reaches_fairdd_whatever_the_fairness_of_the_row(tmp_path):
    write_row(tmp_path / "t", 0, accuracy=(0.3,), deo=(1.0,), fairness="vanilla")
    (row,) = result_tables.read("t", tmp_path)
    assert row.paper()["accuracy"] == 0.2501
    assert row.goal()["accuracy"] == 0.9461
    assert "**" not in "".join(result_tables.lines([row])).partition("Minutes")[0]


def test_the_readme_has_the_rows_that_there_are():
    readme = (EXPERIMENTS.parent / "README.md").read_text()
    lines = list(result_tables.summary(result_tables.read("main", reproduce.RESULTS)))
    assert len(lines) > 2
    assert "\n".join(lines) in readme


@pytest.mark.parametrize("table", ["main", "selection"])
def test_the_tables_are_those_of_the_json(table):
    drawn = (reproduce.RESULTS / f"{table}.md").read_text()
    rows = result_tables.read(table, reproduce.RESULTS)
    assert drawn == "\n".join(result_tables.lines(rows)) + "\n"


def test_minutes_of_other_devices_are_those_of_as_many_updates_on_cpu(tmp_path, monkeypatch):
    settings = {"fairness": "fairdd", "seed": 3, "steps": 10_000, "evaluate.epochs": 0}
    result = {"cores": 2, "cpu_s": [40.0, 1.0, 3.0], "test_cell_counts": [[1]]}
    entry = {"trial": {"preset": "cmnist_fg_dm", "settings": settings}, "result": result}
    monkeypatch.setattr(result_tables, "PACES", tmp_path / "paces.json")
    result_tables.PACES.write_text(json.dumps({"trials": [entry]}))
    result_tables._paces.cache_clear()
    write_row(tmp_path / "t", 0, steps=101)
    (row,) = result_tables.read("t", tmp_path)
    row.runs[0]["environment"]["device"] = "gpu Some"
    # 20 s and 100 updates of 1 s.
    assert result_tables._minutes(row) == "about 2 (1.0 on gpu Some)"
    row.runs[0]["config"]["lr_img"] = 9.0  # costs no time
    assert result_tables._minutes(row) == "about 2 (1.0 on gpu Some)"
    row.runs[0]["config"]["per_cell"] = 3
    assert result_tables._minutes(row) == "(1.0 on gpu Some)"
    result_tables._paces.cache_clear()


def test_minutes_on_one_core_say_so(tmp_path):
    write_row(tmp_path / "t", 0)
    (row,) = result_tables.read("t", tmp_path)
    said = []
    for cores in (1, 2):
        row.runs[0]["environment"]["cores"] = cores
        said.append(result_tables._minutes(row))
    assert said == ["1.0 (one core)", "1.0"]


def test_minutes_and_memory_are_those_on_cpu_where_seeds_were_computed_on_several(tmp_path):
    for seed, seconds, held in ((0, 120.0, 5), (1, 600.0, 2)):
        write_row(tmp_path / "t", seed)
        path = next((tmp_path / "t").glob(f"*seed{seed}.json"))
        content = json.loads(path.read_text())
        content["timing"]["distill_s"] = seconds
        content["peak_memory_bytes"] = held * 2**30
        content["environment"]["device"] = "cpu cpu" if seed else "gpu Some"
        path.write_text(json.dumps(content))
    (row,) = result_tables.read("t", tmp_path)
    assert len(row.runs) == 2
    assert list(result_tables._cells(row))[4:6] == ["10.0", "2.0"]


def test_a_run_of_no_step_is_random(tmp_path):
    full = records.scores([[1.0]], accuracy=(0.9,), deo=(0.5,))
    random = {"accuracy": (0.5, 0.7), "deo": (0.9, 0.9)}
    write_row(tmp_path / "t", 0, name="real", steps=0, baselines={"full": full}, **random)
    rows = result_tables.read("t", tmp_path)
    assert [(row.name, row.score("accuracy")["mean"]) for row in rows] == [
        ("random", pytest.approx(0.6)),
        ("full", 0.9),
    ]
    assert [row.paper()["accuracy"] for row in rows] == [0.3075, 0.9771]
    *_, first, second = result_tables.lines(rows)
    assert "random: `python experiments/run.py" in first
    assert "--steps 0" in first
    assert "full: `python" in second


@pytest.mark.parametrize(
    ("accuracy", "deo", "floor", "reached"),
    [
        (0.95, (0.16, 0.16), 0.01, (True, True)),
        (0.94, (0.18, 0.18), 0.01, (False, False)),
        (0.94, (0.18, 0.18), 0.18, (False, True)),  # no more than chance would show
        (0.94, (0.18, 0.18), 0.175, (False, False)),
        (0.94, (0.19, 0.17), 0.175, (False, True)),  # within one deviation of it
        (0.94, (0.19, 0.17), 0.165, (False, False)),
    ],
)
def test_a_gap_that_chance_alone_shows_counts_as_reached(tmp_path, accuracy, deo, floor, reached):
    write_row(tmp_path / "t", 0, accuracy=(accuracy,) * 2, deo=deo, floor=floor)
    (row,) = result_tables.read("t", tmp_path)
    assert row.reaches("accuracy", 0.9461) == reached[0]
    assert row.reaches("deo_max", 0.1704) == reached[1]
