"""A run that was stopped and goes on equals one that was not, bit for bit."""

import dataclasses
import gc
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import jax
import numpy as np
import pytest
from test_loop import settings, toy

from fairdd_jax import distill, interrupts, resume
from fairdd_jax.checkpoint import steps_in
from fairdd_jax.config import Config
from fairdd_jax.data import Dataset
from fairdd_jax.errors import ConfigError, NonFiniteLossError, WorkdirError
from fairdd_jax.evaluate import Evaluator
from fairdd_jax.interrupts import Hold, Terminated
from fairdd_jax.resume import Keeper
from fairdd_jax.run import Run

QUICK = {
    "evaluate.epochs": 1,
    "evaluate.networks": 1,
    "evaluate.uint8_networks": 1,
    "evaluate.archs": "ConvNetD1W8",
    "log_every": 4,
    "block": 1,
}
# What differs from the settings of test_loop.py, with twelve updates each.
RUNS = {
    "dm": {"steps": 12, "average_img": 0.5},
    "dc": {"steps": 4, "outer_loops": 3, "lr_net": 0.1, "evaluate.every": 2},
    "dsa": {"steps": 6, "dsa_strategy": "flip_crop", "stream": "always", "block": 3},
    "dream": {
        "steps": 6,
        "inner_epochs": 0,
        "inner_real": 16,
        "representatives": 5,
        "momentum_net": 0.9,
        "debias": "lff",
    },
}
SLOW = pytest.mark.slow


def made(method="dm", **changes):
    return settings(method, **(QUICK | RUNS[method] | changes))


def distilled(config, folder=None, *, stop=None, every=1, notes=None):
    """A run, stopped by an interrupt once ``stop`` compiled calls are done."""
    run = Run(config, toy())
    if folder is None:
        run.distill()
        return run
    on_note = pytest.fail if notes is None else notes.append
    with Keeper(folder, config, every=every, on_note=on_note) as keeper:
        if stop is None:
            run.distill(keeper=keeper)
            return run
        calls = []

        def stopped(hold):
            calls.append(1)
            if len(calls) == stop:
                signal.raise_signal(signal.SIGINT)
            return bool(hold._received)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Hold, "stopped", stopped)
            with pytest.raises(KeyboardInterrupt):
                run.distill(keeper=keeper)
    return run


def told(log):
    """The lines of the log but for the times."""
    return [{key: line[key] for key in ("step", "update", "loss")} for line in log]


def assert_same(run, other):
    np.testing.assert_array_equal(run.images, other.images)
    assert run.step == other.step
    assert told(run.log) == told(other.log)
    assert run.evaluations == other.evaluations
    assert run.evaluations_uint8 == other.evaluations_uint8


@pytest.fixture(scope="module")
def whole():
    """Runs that were never stopped, by method."""
    runs = {}

    def of(method):
        if method not in runs:
            runs[method] = distilled(made(method))
        return runs[method]

    return of


@pytest.mark.parametrize(
    ("method", "stop"),
    [
        ("dm", 2),
        pytest.param("dm", 5, marks=SLOW),
        pytest.param("dc", 6, marks=SLOW),
        pytest.param("dc", 9, marks=SLOW),
        pytest.param("dsa", 3, marks=SLOW),
        pytest.param("dream", 7, marks=SLOW),
    ],
)
def test_a_run_that_was_interrupted_goes_on_as_if_it_had_not(tmp_path, whole, method, stop):
    """In the middle of a line of the log or at its end, in any method, with all that it has."""
    config = made(method)
    first = distilled(config, tmp_path, stop=stop)
    assert 0 < first.step < config.steps
    assert_same(distilled(config, tmp_path), whole(method))


def test_a_run_goes_on_with_other_blocks_and_chunks(tmp_path, whole):
    """As on another device: the same up to rounding."""
    first = distilled(made(), tmp_path, stop=5)
    run = distilled(made(block=3, chunk=64), tmp_path)
    assert first.log[-1]["update"] == 4  # stopped after the fifth, within a block of three
    np.testing.assert_allclose(run.images, whole("dm").images, atol=1e-4)
    assert [line["update"] for line in run.log] == [4, 8, 12]


def test_checkpoints_change_nothing(tmp_path, whole):
    assert_same(distilled(made(), tmp_path, every=3), whole("dm"))


def test_what_is_finished_is_not_computed_again(tmp_path, whole, monkeypatch):
    distilled(made(), tmp_path)
    monkeypatch.setattr("fairdd_jax.loop.training_set", pytest.fail)
    assert_same(distilled(made(), tmp_path), whole("dm"))


def test_a_checkpoint_is_made_at_the_line_after_it_is_due(tmp_path):
    distilled(made(log_every=2), tmp_path, every=5)
    steps = sorted(int(path.name) for path in (tmp_path / resume.FOLDER).iterdir())
    assert steps == [6, 10, 12]


def test_the_best_stays(tmp_path, monkeypatch):
    """By the worst cell of the first network that an evaluation on the way has: second of five."""
    config = made(steps=12, log_every=2, **{"evaluate.every": 2})
    scores = iter([0.1, 0.9, 0.3, None, 0.2])

    def evaluate(run, archs, on_steps):
        for mean in next(scores), 0.5 + run.step / 100:
            worst = {"worst_group_accuracy": {"mean": mean}}
            run.evaluations.append({"step": run.step, "arch": archs, **worst})

    monkeypatch.setattr(Run, "evaluate", evaluate)
    run = Run(config, toy())
    with Keeper(tmp_path, config, every=2, keep=2) as keeper:
        run.distill(keeper=keeper)
    steps = sorted(int(path.name) for path in (tmp_path / resume.FOLDER).iterdir())
    assert steps == [4, 10, 12]


@pytest.mark.slow
def test_an_interrupted_evaluation_on_the_way_is_made_again(tmp_path, whole, monkeypatch):
    def interrupt(run, archs, on_steps):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Run, "evaluate", interrupt)
        run = Run(made("dc"), toy())
        with Keeper(tmp_path, made("dc"), every=100) as keeper, pytest.raises(KeyboardInterrupt):
            run.distill(keeper=keeper)
    assert run.step == 2
    assert_same(distilled(made("dc"), tmp_path), whole("dc"))


@pytest.mark.slow
@pytest.mark.parametrize("done", [1, 2])
def test_an_evaluation_on_the_way_goes_on_with_the_architecture_that_it_was_at(
    tmp_path, monkeypatch, done
):
    """Interrupted when the first one's 8-bit images are due, or the second one."""
    config = made(**{"evaluate.archs": "ConvNetD1W8,MLP", "evaluate.every": 6})
    scored = []

    def interrupt(evaluator, *args, **options):
        if len(scored) == done:
            raise KeyboardInterrupt
        scored.append(evaluate(evaluator, *args, **options))
        return scored[-1]

    evaluate = Evaluator.evaluate
    with monkeypatch.context() as patch, Keeper(tmp_path, config) as keeper:
        patch.setattr(Evaluator, "evaluate", interrupt)
        run = Run(config, toy())
        with pytest.raises(KeyboardInterrupt):
            run.distill(keeper=keeper)
    assert (run.step, len(run.evaluations), len(run.evaluations_uint8)) == (6, 1, done - 1)
    assert_same(distilled(config, tmp_path), distilled(config))


# What orbax had begun to read when it met the damage.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_damaged_newest_checkpoint_is_left_for_the_one_before(tmp_path, whole):
    distilled(made(log_every=2), tmp_path, stop=8)
    folder = tmp_path / resume.FOLDER
    newest = max(folder.iterdir(), key=lambda path: int(path.name))
    for path in (newest / "arrays").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:-9])
    notes = []
    run = distilled(made(log_every=2), tmp_path, notes=notes)
    gc.collect()
    assert len(notes) == 1
    assert f"checkpoint of update {newest.name} in {folder} is damaged" in notes[0]
    assert "\n" not in notes[0]
    np.testing.assert_array_equal(run.images, whole("dm").images)


@pytest.mark.slow
def test_a_run_of_a_version_with_fewer_settings_goes_on(tmp_path, whole, monkeypatch):
    def of_old(config):
        content = dataclasses.asdict(config)
        del content["data"]["colours"], content["average_img"]
        return content

    config = made("dsa")
    with monkeypatch.context() as patch:
        patch.setattr(Config, "as_json", of_old)
        distilled(config, tmp_path, stop=3)
    assert_same(distilled(config, tmp_path), whole("dsa"))


def test_checkpoints_of_another_run_are_refused(tmp_path):
    distilled(made(), tmp_path)
    with pytest.raises(ConfigError, match="--ipc 2 there, 1 here; choose another --workdir"):
        distilled(made(ipc=1), tmp_path)
    split = (np.zeros((9, 8, 8, 3), np.uint8), np.arange(9) % 2, np.arange(9) % 3)
    run = Run(made(), Dataset.from_arrays(split, split, name="toy"))
    with (
        Keeper(tmp_path, made()) as keeper,
        pytest.raises(ConfigError, match="other numbers of training images"),
    ):
        run.distill(keeper=keeper)


def test_other_versions_are_said(tmp_path, monkeypatch):
    distilled(made(), tmp_path)
    versions = resume.environment.versions() | {"jax": "0.0.1"}
    monkeypatch.setattr(resume.environment, "versions", lambda: versions)
    notes = []
    distilled(made(), tmp_path, notes=notes)
    assert len(notes) == 1
    assert "other versions of jax" in notes[0]


def test_a_non_finite_loss_leaves_the_last_good_state(tmp_path):
    config = made(log_every=1, lr_img=1e30)
    run = Run(config, toy())
    with Keeper(tmp_path, config, every=1) as keeper, pytest.raises(NonFiniteLossError):
        run.distill(keeper=keeper)
    with Keeper(tmp_path, config) as keeper:
        again = Run(config, toy())
        with pytest.raises(NonFiniteLossError):
            again.distill(keeper=keeper)
    assert np.isfinite(again.images).all()
    np.testing.assert_array_equal(again.images, run.images)


def test_starting_over_removes_and_refuses(tmp_path):
    distilled(made(), tmp_path, stop=3)
    with pytest.raises(WorkdirError, match="add --resume auto to go on, --resume never to start"):
        resume.refuse_overwriting(tmp_path, made())
    resume.refuse_overwriting(tmp_path, made(), resume=True)
    kept: list[Path] = []
    run = Run(made(), toy())
    with Keeper(tmp_path, made(), resume=False) as keeper:
        run.distill(
            keeper=keeper,
            on_start=lambda lines: kept.extend((tmp_path / resume.FOLDER).iterdir()),
        )
    assert kept == []
    run.evaluate()
    assert not run.complete
    run.baselines = {"random": {}, "full": {}}
    assert run.complete
    run.save(tmp_path)
    resume.refuse_overwriting(tmp_path, made())


@pytest.mark.parametrize("going_on", [False, True])
def test_a_finished_run_of_other_settings_is_refused(tmp_path, going_on):
    """As far as they decide what it computes; those that came since count as they were."""
    content = {"complete": True, "config": made().as_json()}
    del content["config"]["average_img"]

    def refuse(**changes):
        (tmp_path / "results.json").write_text(json.dumps(content))
        config = made(average_img=0.0, **changes)
        resume.refuse_overwriting(tmp_path, config, resume=going_on)

    refuse()
    refuse(chunk=7, block=2, log_every=3, stream="always")
    name = f"{tmp_path} holds a finished run, toy dm fairdd, of other settings: "
    instead = "choose another --workdir, or --resume never to start over"
    with pytest.raises(WorkdirError) as caught:
        refuse(fairness="vanilla", **{"evaluate.epochs": 2})
    differences = "--evaluate.epochs 1 there, 2 here; --fairness fairdd there, vanilla here"
    assert str(caught.value) == f"{name}{differences}; {instead}"
    with pytest.raises(WorkdirError) as caught:
        refuse(steps=1, seed=2, per_cell=3, lr_img=0.5, init="noise", momentum_img=0.1)
    assert str(caught.value).count(" there, ") == 4
    assert str(caught.value).endswith(f" here and 2 more; {instead}")
    content["complete"] = False
    refuse(seed=2)


@pytest.mark.parametrize(
    ("checkpoint", "going_on", "changes", "end"),
    [
        (True, True, {}, None),
        (True, False, {}, "add --resume auto to go on, --resume never to start over, or choose"),
        (True, True, {"seed": 2}, "; --steps 6 there, 12 here; choose another --workdir, or"),
        (True, True, {"lr_img_halved": "0.5"}, "--steps 6 there, 12 here; choose another"),
        (True, True, {"steps": 5}, ": --steps 6 there, 5 here; choose another"),
        (False, True, {}, ": --steps 6 there, 12 here; choose another"),
    ],
)
def test_a_finished_run_may_go_on_with_more_steps(tmp_path, checkpoint, going_on, changes, end):
    config = made(**changes)
    before = made(**changes | {"steps": 6, "seed": 0})
    content = {"complete": True, "config": before.as_json()}
    (tmp_path / "results.json").write_text(json.dumps(content))
    if checkpoint:
        (tmp_path / resume.FOLDER / "6").mkdir(parents=True)
    if end is None:
        resume.refuse_overwriting(tmp_path, config, resume=going_on)
    else:
        with pytest.raises(WorkdirError, match=re.escape(end)):
            resume.refuse_overwriting(tmp_path, config, resume=going_on)


@pytest.mark.parametrize("method", ["dm", pytest.param("dream", marks=SLOW)])
def test_more_steps_end_as_if_there_had_been_no_end_before(tmp_path, whole, method):
    """Which was in the middle of a line of the log."""
    config, expected = made(method), whole(method)
    first = distilled(made(method, steps=config.steps - 1), tmp_path)
    assert first.log[-1]["update"] % config.log_every
    run = distilled(config, tmp_path)
    np.testing.assert_array_equal(run.images, expected.images)
    lines = [line for line in told(run.log) if line["update"] != first.log[-1]["update"]]
    assert lines == told(expected.log)
    with pytest.raises(ConfigError, match=f"--steps {config.steps} there, 2 here"):
        distilled(made(method, steps=2), tmp_path)


def test_a_rate_that_follows_from_the_steps_is_another_run_with_more_of_them(tmp_path):
    distilled(made(lr_img_halved="0.5", steps=6), tmp_path)
    with pytest.raises(ConfigError, match="--steps 6 there, 12 here"):
        distilled(made(lr_img_halved="0.5"), tmp_path)


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"complete": false}', '{"complete": true}', '{"complete": 1, "config": 3}', "\x00"],
)
def test_results_that_are_no_results_are_of_no_finished_run(tmp_path, text):
    (tmp_path / resume.FOLDER / "7").mkdir(parents=True)
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(WorkdirError, match="stopped after 7 updates"):
        resume.refuse_overwriting(tmp_path, made())


def test_a_finished_run_without_checkpoints_does_not_begin_anew(tmp_path):
    """Not with more steps, which would take the place of its results."""
    results = distilled(made()).results() | {"complete": True}
    with pytest.raises(WorkdirError, match="run of 12 steps that cannot go on: it has no"):
        resume.take_scores(Run(made(steps=14), toy()), results)
    resume.take_scores(Run(made(), toy()), results)  # it computes the same again
    resume.take_scores(Run(made(steps=14), toy()), results | {"complete": False})


def test_results_of_other_images_are_kept(tmp_path):
    """Equal settings, and as many images of every cell, in another data folder."""
    run = distilled(made(), tmp_path)
    run.evaluate()
    run.baselines = {"random": {}, "full": {}}
    run.save(tmp_path)
    other = toy(seed=1)
    train = dataclasses.replace(run.dataset.train, images=other.train.images)
    other = dataclasses.replace(run.dataset, train=train)
    resume.refuse_other_images(tmp_path, toy())
    with pytest.raises(WorkdirError, match="holds a finished run on other images than those of"):
        resume.refuse_other_images(tmp_path, other)
    with (
        Keeper(tmp_path, made()) as keeper,
        pytest.raises(ConfigError, match="are of another run: other images; choose another"),
    ):
        Run(made(), other).distill(keeper=keeper)
    scores = Run(made(steps=12), other)
    scores.step = 12
    resume.take_scores(scores, run.results())
    assert scores.evaluations == []
    results = run.results()
    del results["dataset"]["fingerprint"]  # of an earlier version
    resume.take_scores(scores, results)
    assert len(scores.evaluations) == 1


@pytest.mark.slow
def test_scores_of_this_very_run_are_taken_over(tmp_path):
    config = made(**{"evaluate.archs": "ConvNetD1W8,MLP", "evaluate.every": 6})
    run = distilled(config)
    run.evaluate()
    run.baselines["random"] = {"scored": True}
    results = json.loads(json.dumps(run.results()))
    other = distilled(config)
    resume.take_scores(other, results)
    other.evaluate_rest()
    assert other.unscored() == []
    assert (other.evaluations, other.baselines) == (run.evaluations, run.baselines)
    # Interrupted before the last network scored the 8-bit images.
    cut = json.loads(json.dumps(run.results()))
    del cut["evaluations_uint8"][-1]
    resume.take_scores(other, cut)
    assert other.unscored() == ["MLP"]
    other.evaluate_rest()
    assert other.evaluations == run.evaluations
    assert other.evaluations_uint8 == run.evaluations_uint8
    # What was saved when it was stopped before its end.
    fourth = distilled(config)
    resume.take_scores(fourth, results | {"step": 6, "evaluations": []})
    assert len(fourth.evaluations) == 2
    assert fourth.baselines == run.baselines  # of real images, whatever the step
    # Another run.
    third = distilled(dataclasses.replace(config, seed=1))
    before = list(third.evaluations)
    resume.take_scores(third, results)
    assert (third.evaluations, third.baselines) == (before, {})


def test_distill_keeps_checkpoints_in_a_folder_of_its_own(tmp_path, monkeypatch):
    dataset = toy()
    chosen = {"ipc": 1, "steps": 4, "model": "ConvNetD1W8", "per_cell": 4, "log_every": 1}
    monkeypatch.setattr(resume.environment, "peak_memory", lambda: 5)
    first = distill(dataset, checkpoints=tmp_path, **chosen)
    assert (tmp_path / resume.FOLDER / "4").is_dir()
    monkeypatch.setattr(resume.environment, "peak_memory", lambda: 3)
    with monkeypatch.context() as patch:
        patch.setattr("fairdd_jax.loop.training_set", pytest.fail)
        again = distill(dataset, checkpoints=tmp_path, **chosen)
    np.testing.assert_array_equal(first.images, again.images)
    assert again.peak_memory() == 5  # of the process that computed
    with pytest.raises(ConfigError, match="--steps 4 there, 3 here"):
        distill(dataset, checkpoints=tmp_path, **(chosen | {"steps": 3}))
    longer = distill(dataset, checkpoints=tmp_path, **(chosen | {"steps": 5}))
    assert [line["update"] for line in longer.log] == [1, 2, 3, 4, 5]
    assert longer.log[:4] == first.log


# Signals


def test_a_signal_that_a_program_takes_note_of_is_no_end(tmp_path):
    """Its own handler raises nothing; what has been done is kept."""
    seen = []
    handler = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    try:
        run = Run(made(), toy())
        with Keeper(tmp_path, made()) as keeper, pytest.raises(Terminated):
            run.distill(
                lambda line: signal.raise_signal(signal.SIGTERM) if line.update == 4 else None,
                keeper=keeper,
            )
    finally:
        signal.signal(signal.SIGTERM, handler)
    assert seen == [signal.SIGTERM]
    assert 4 <= run.step < 12
    assert steps_in(tmp_path / resume.FOLDER)[-1] == run.step


def test_a_run_that_was_interrupted_before_its_first_line_does_not_begin_again(monkeypatch):
    """Its images are no longer those of the start."""
    run = Run(made(log_every=10), toy())
    answers = iter([False, False, True])
    with monkeypatch.context() as patch:
        patch.setattr(Hold, "stopped", lambda hold: next(answers) and signal_noted(hold))
        with pytest.raises(KeyboardInterrupt):
            run.distill()
    assert (run.step, run.log) == (3, [])
    with pytest.raises(ConfigError, match="make another Run"):
        run.distill()


def signal_noted(hold):
    hold._received.append(signal.SIGINT)
    return True


def signalled(number, seen, error=None):
    with Hold() as hold:
        signal.raise_signal(number)
        seen.append(hold.stopped())
        if error:
            raise error


def test_signals_wait_for_the_end_of_a_hold():
    seen = []
    with pytest.raises(KeyboardInterrupt):
        signalled(signal.SIGINT, seen)
    handler = signal.signal(signal.SIGTERM, interrupts.raise_terminated)
    try:
        with pytest.raises(Terminated):
            signalled(signal.SIGTERM, seen)
    finally:
        signal.signal(signal.SIGTERM, handler)
    assert seen == [True, True]


def test_of_several_processes_none_leaves_alone(monkeypatch):
    """A signal that comes while the others answer is one that they have not heard of."""
    late = [signal.SIGINT]

    def asked(flag):
        while late:
            signal.raise_signal(late.pop())
        return flag

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(interrupts, "any_of", asked)
    hold = Hold()
    with hold:
        assert not hold.stopped()
    with pytest.raises(KeyboardInterrupt), hold:
        assert hold.stopped()


def test_of_several_processes_all_leave_for_one(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(interrupts, "any_of", lambda flag: True)
    handler = signal.signal(signal.SIGTERM, interrupts.raise_terminated)
    hold = Hold()
    try:
        with pytest.raises(Terminated), hold:
            assert hold.stopped()
    finally:
        signal.signal(signal.SIGTERM, handler)


def test_a_signal_after_the_last_update_is_not_lost(monkeypatch):
    """As one of several processes gets it: none of the others has been asked since."""
    run = Run(made(), toy())
    with monkeypatch.context() as patch:
        patch.setattr(jax, "process_count", lambda: 2)
        patch.setattr(interrupts, "any_of", lambda flag: flag)
        with pytest.raises(KeyboardInterrupt):
            run.distill(lambda line: line.update == 12 and signal.raise_signal(signal.SIGINT))
    assert run.step == 12


def test_one_process_need_not_ask_before_it_leaves():
    with pytest.raises(KeyboardInterrupt), Hold():
        signal.raise_signal(signal.SIGINT)


def test_a_hold_leaves_errors_and_handlers_as_they_are():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(ZeroDivisionError):
        signalled(signal.SIGINT, [], ZeroDivisionError())
    assert signal.getsignal(signal.SIGINT) is before


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Hold() as hold:
            signal.raise_signal(signal.SIGINT)
            assert not hold.stopped()
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_hold_nothing():
    results = []

    def work():
        with Hold() as hold:
            results.append(hold.stopped())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert results == [False]


@pytest.mark.slow
def test_another_number_of_devices_goes_on_up_to_rounding(tmp_path, whole):
    """From one device here to two in a process of their own."""
    distilled(made(), tmp_path, stop=6)
    script = textwrap.dedent(
        """
        import sys
        import numpy as np
        from test_resume import distilled, made
        run = distilled(made(), sys.argv[1])
        import jax
        assert len(jax.devices()) == 2
        np.save(sys.argv[2], run.images)
        """
    )
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]),
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=2",
    }
    command = [sys.executable, "-c", script, tmp_path, tmp_path / "images.npy"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    start = Run(made(), toy()).images
    change, expected = np.load(tmp_path / "images.npy") - start, whole("dm").images - start
    assert np.abs(change - expected).max() <= 1e-4 * np.abs(expected).max()
    assert len(jax.devices()) == 1
