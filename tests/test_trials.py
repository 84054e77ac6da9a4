"""The trials of the benchmarks: budgets, resuming, tables, and what counts as a direction."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from fairdd_jax import presets

BENCHMARKS = Path(__file__).parents[1] / "experiments" / "benchmarks"
HEAD = Path(__file__).parent / "fixtures" / "mnist_head"  # 40 and 20 real digits
sys.path.append(str(BENCHMARKS))

import ablations  # noqa: E402
import equal_time  # noqa: E402
import trials  # noqa: E402
from trials import Trial  # noqa: E402

SMALL = {"ipc": 1, "model": "ConvNetD1W8", "evaluate.epochs": 1}


def result(accuracy, deo=0.5):
    scores = {"accuracy": accuracy, "deo_max": deo, "deo_mean": deo / 2}
    scores["cell_accuracy"] = [[accuracy, accuracy], [accuracy, accuracy]]
    return {
        "updates": 3,
        "step_s": 0.5,
        "peak_memory_bytes": 2**30,
        "scores": {"ConvNet": scores},
        "test_cell_counts": [[1, 1], [1, 1]],
    }


@pytest.mark.slow
def test_a_trial_stops_when_its_updates_are_done():
    found = trials.run(Trial("cmnist_fg_dm", {**SMALL, "steps": 1000}, 3), HEAD)
    assert found["updates"] == len(found["cpu_s"]) == 3
    assert min(found["cpu_s"]) > 0
    assert 0 <= found["scores"]["ConvNetD1W8"]["accuracy"] <= 1
    assert np.sum(found["test_cell_counts"]) == 20


@pytest.mark.slow
def test_what_is_known_is_not_run_again(tmp_path, monkeypatch):
    out = tmp_path / "trials.json"
    known, new = (Trial("cmnist_fg_dm", {**SMALL, "steps": n}) for n in (0, 1))
    entry = {"trial": trials.asdict(known), "environment": {}, "result": result(0.5)}
    out.write_text(json.dumps({"trials": [entry]}))
    found = trials.collect([known, new], out, HEAD)
    assert found[known.key] == entry
    assert found[new.key]["result"]["updates"] == 1
    assert found == trials.collect([known, new], out, tmp_path / "nowhere")


def test_missing_data_ends_it(tmp_path, monkeypatch, capfd):
    nowhere = str(tmp_path / "nowhere")
    monkeypatch.setenv("TFDS_DATA_DIR", nowhere)
    with pytest.raises(SystemExit) as error:
        trials.collect([Trial("cmnist_fg_dm", SMALL)], tmp_path / "out.json", Path(nowhere))
    assert error.value.code == 3
    assert nowhere in capfd.readouterr().err


@pytest.mark.parametrize("score", trials.SCORES)
def test_a_direction_exceeds_twice_the_spread(score):
    low, high = [0.50, 0.52], [0.60, 0.60]
    better, worse = (high, low) if score == "accuracy" else (low, high)
    assert trials.spread(low) == pytest.approx(0.01 * np.sqrt(2))
    assert ablations.verdict(better, worse, score) == "holds"
    assert ablations.verdict(worse, better, score) == "the opposite"
    assert ablations.verdict([0.50, 0.52], [0.53, 0.53], score) == "within the spread"
    assert ablations.verdict(better[:1], worse, score) == "one seed"


def test_groups_that_the_test_set_lacks():
    rates, counts = [[0.9, 0.5, 0.1], [0.8, 0.8, 0.8]], [[1, 3, 9], [2, 2, 9]]
    scores = {"accuracy": 0.4, "deo_max": 0.8, "deo_mean": 0.4, "cell_accuracy": rates}
    found = {"scores": {"ConvNet": scores}, "test_cell_counts": counts}
    assert ablations.scores_of(ablations.row(), found)["accuracy"] == 0.4
    without = ablations.scores_of(ablations.row(without=1), found)
    assert without == pytest.approx({"accuracy": 5.6 / 8, "deo_max": 0.4, "deo_mean": 0.2})


@pytest.mark.parametrize("name", ablations.STUDIES)
def test_a_study_claims_what_its_rows_show(name):
    study = ablations.STUDIES[name]
    for claim in study.claims:
        assert {claim.better, claim.worse} <= set(study.rows)
    for row in study.rows.values():
        assert row.arch in row.archs.split(",")
        chosen = presets.compose(row.preset) | row.trial(0).settings
        assert trials.configuration.make(chosen).steps == ablations.STEPS


def test_tables_have_what_is_known():
    study = ablations.STUDIES["minority"]
    fair, biased = study.rows["fairdd, unequal"], study.rows["vanilla, unequal"]
    known = {fair.trial(seed).key: {"result": result(0.9, 0.1)} for seed in (0, 1)}
    known |= {biased.trial(seed).key: {"result": result(0.2 + seed / 10)} for seed in (0, 1)}
    text = "\n".join(ablations.lines(study, known, seeds=2))
    assert "| fairdd, unequal | 90.0 ± 0.0 | 10.0 ± 0.0 | 5.0 ± 0.0 | 2 |" in text
    assert "| vanilla, unequal | 25.0 ± 7.1 | 50.0 ± 0.0 | 25.0 ± 0.0 | 2 |" in text
    assert "| fairdd, unequal better than vanilla, unequal | accuracy | holds |" in text
    assert "| vanilla | " not in text

    comparison = equal_time.COMPARISONS["methods"]
    pace = {"updates": 3, "cpu_s": [20.0, 3.0, 5.0], "cores": 2, "peak_memory_bytes": 2**30}
    known = {comparison.pace("dm, cobra").key: {"result": pace}}
    entry = {"result": result(0.9, 0.1), "environment": {"device": "gpu Some"}}
    known[comparison.trial("dm, cobra", 0, pace).key] = entry
    text = "\n".join(equal_time.lines(comparison, known, seeds=1))
    assert "| dm, cobra | 3 | 2.00 | 1.0 | 301 | 90.0 | 10.0 | 5.0 | 1 |" in text
    assert "vanilla" not in text
    assert "Time is that of 2 CPU cores; updates and scores are of gpu Some." in text


def test_networks_on_cropped_images_take_more_steps():
    comparison = equal_time.COMPARISONS["methods"]
    pace = {"cpu_s": [20.0, 3.0], "cores": 2}
    trial = comparison.trial("idc, fairdd", 0, pace)  # 40 images of a class, 64 in a batch
    found = {"test_cell_counts": [[1, 1]] * 10}
    assert equal_time.scoring_steps(trial, found) == 301 * -(-400 // 64)


CONTROLS = {f"{name}, fairdd, networks of as many steps" for name in ("cmnist_fg", "cfmnist_bg")}


@pytest.mark.parametrize("control", sorted(CONTROLS))
def test_controls_are_scored_with_as_many_steps(control):
    pace = {"updates": 3, "cpu_s": [20.0, 3.0, 5.0], "cores": 2}

    def steps(row):
        trial = equal_time.COMPARISONS["own"].trial(row, 0, pace)
        chosen = presets.compose(trial.preset) | trials._SCORING | trial.settings
        config = trials.configuration.make(chosen)
        batches = -(-100 * config.factor**2 // config.evaluate.batch_size)
        return batches * (config.evaluate.epochs + 1)

    fairdd = control.removesuffix(", networks of as many steps")
    assert steps(control) == steps(fairdd.replace("fairdd", "mosaic")) > steps(fairdd)


@pytest.mark.parametrize("name", equal_time.COMPARISONS)
def test_rows_get_equal_time(name):
    comparison = equal_time.COMPARISONS[name]
    pace = {"updates": 3, "cpu_s": [20.0, 3.0, 5.0], "cores": 2}  # 10 s, then 2 s an update
    for row in comparison.rows:
        trial = comparison.trial(row, 0, pace)
        assert trial.updates == 1 + (comparison.seconds - 10) // 2
        assert ("evaluate.epochs" in trial.settings) == (row in CONTROLS)  # all are scored alike
        chosen = presets.compose(trial.preset) | trial.settings
        assert trials.configuration.make(chosen).updates >= trial.updates
        assert comparison.pace(row).updates > 1
        assert comparison.pace(row).settings["evaluate.epochs"] == 0
    slow = {"updates": 2, "cpu_s": [900.0, 9.0], "cores": 2}
    assert comparison.trial(row, 0, slow).updates == 1


def test_other_pixels_have_the_pace_of_their_program():
    comparison = equal_time.COMPARISONS["official"]
    plain, clean = map(comparison.pace, ("stratified batches", "colours that do not wrap around"))
    assert clean == plain
    trials = [
        comparison.trial(row, 0, {"cpu_s": [1.0, 1.0], "cores": 2}) for row in comparison.rows
    ]
    assert len({trial.key for trial in trials}) == len(trials)
