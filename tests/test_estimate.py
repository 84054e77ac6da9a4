"""What a run will take: the arithmetic on invented times, the settings that fit, and real calls."""

import dataclasses
import itertools
import json
import os
import re
import shlex
import types

import numpy as np
import pytest
from test_loop import settings, toy
from test_run import HEAD_RUN, SMALL, own_surroundings, refused, script  # noqa: F401

import fairdd_jax
from fairdd_jax import command_line, environment, stream
from fairdd_jax import config as configuration
from fairdd_jax.errors import ConfigError
from fairdd_jax.estimate import Alternative, Estimate, estimate, timing
from fairdd_jax.estimate import console as estimate_console
from fairdd_jax.estimate.alternatives import changed, less_memory, less_time
from fairdd_jax.estimate.pace import Pace, ScoringPace, UpdatePace
from fairdd_jax.evaluate import Evaluation, Evaluator
from fairdd_jax.loop import LoopState, Progress, call_lengths
from fairdd_jax.metrics import fairness_report
from fairdd_jax.run import Run
from fairdd_jax.schedule import passes
from fairdd_jax.step import State

FRESH, TRAINED, CHOICE = 3.0, 5.0, 70.0

# How updates differ: not at all; a network for ten; the images are chosen again, too.
KINDS = {
    "dm": {"method": "dm", "steps": 40},
    "dc": {"method": "dc", "outer_loops": 10, "steps": 7},
    "dream": {"method": "dream", "outer_loops": 100, "representatives": 10, "steps": 3},
    "dream, one network each": {"method": "dream", "outer_loops": 1, "representatives": 4},
    "dream, blocks": {"outer_loops": 100, "representatives": 20, "block": 10, "method": "dream"},
    "dc, blocks": {"method": "dc", "outer_loops": 10, "block": 4, "log_every": 9, "steps": 3},
}


def kind(name):
    return settings(**{"log_every": 7, "steps": 5, **KINDS[name]})


def cost(config, update, *, begins):
    """Seconds of one update, of which some begin a compiled call."""
    network = FRESH if update % config.outer_loops == 0 else TRAINED
    chooses = begins and config.representatives and update % config.representatives == 0
    return network + (CHOICE if chooses else 0.0)


def call_seconds(config, first, length):
    return sum(cost(config, first + i, begins=i == 0) for i in range(length))


def simulated(config):
    """Seconds of all updates of a run, one after the other."""
    lengths = list(itertools.chain(*call_lengths(config)))
    firsts = np.cumsum([0, *lengths[:-1]])
    return sum(call_seconds(config, *call) for call in zip(firsts, lengths, strict=True))


def pretended(config, dataset, *, restore, **others):
    """Lines of a log whose first call takes longer."""
    state = State(None, None, None, np.int32(0), None)
    begin = int(restore(LoopState(state, None, None)).state.update)
    done = 0
    for length in itertools.chain(*call_lengths(config)):
        if done >= begin:
            seconds = call_seconds(config, done, length) + (1000.0 if done == begin else 0.0)
            end = done + length
            yield Progress(0, end, 0.0, 0.0, seconds / length, 0.0, 2.0, images=None)
        done += length


# The arithmetic


@pytest.mark.parametrize("name", KINDS)
def test_updates_take_what_they_take_one_after_the_other(name):
    config = kind(name)
    pace = UpdatePace(start=0.0, compile=0.0, fresh=FRESH, trained=TRAINED, choice=CHOICE)
    assert pace.seconds(config) == pytest.approx(simulated(config))


@pytest.mark.parametrize("name", KINDS)
def test_few_calls_tell_what_a_run_takes(name, monkeypatch):
    lines = []

    def counted(*arguments, **options):
        for line in pretended(*arguments, **options):
            lines.append(line)
            yield line

    monkeypatch.setattr(timing, "run_updates", counted)
    config = kind(name)
    pace = timing.of_updates(config, None, None)
    assert len(lines) <= 5
    assert pace.seconds(config) == pytest.approx(simulated(config))
    assert pace.compile == 2.0
    longer = changed(config, {"steps": 10 * config.steps})
    assert pace.seconds(longer) == pytest.approx(simulated(longer))


def test_every_number_of_updates_per_call_is_compiled():
    config = settings(steps=23, block=10, log_every=20)  # 10, 10 and 3
    assert UpdatePace(start=7.0, compile=2.0, fresh=1.0).compiling(config) == 9.0


SCORED = {
    "evaluate.archs": "ConvNetD1W8,MLP",
    "evaluate.networks": 3,
    "evaluate.uint8_networks": 2,
    "evaluate.epochs": 4,
    "evaluate.full_epochs": 2,
    "evaluate.batch_size": 16,
}


@pytest.mark.parametrize(
    "changes",
    [
        {"evaluate.uint8_networks": 9},
        {"factor": 2},
        {"ipc": 40, "init": "noise"},
        {"evaluate.full_steps": 0},
    ],
)
def test_passes_are_what_a_run_scores(changes, monkeypatch):
    dataset = toy()
    config = settings(**SCORED | changes)
    run = Run(config, dataset)
    seen = []

    def evaluate(self, images, labels, *, schedule, networks, **others):
        seen.append((self.arch, len(images), networks, schedule))
        assert len(labels) == len(images)
        test = dataset.test
        report = fairness_report(test.labels, test.labels, test.groups, num_classes=2, num_groups=3)
        return Evaluation(self.arch, schedule.total, (report,) * networks)

    monkeypatch.setattr(Evaluator, "evaluate", evaluate)
    run.evaluate()
    for name in ("random", "full"):
        run.score_baseline(name)
    todo = passes(config, dataset, ("random", "full"))
    assert [each[1:] for each in todo] == seen
    assert [each.name for each in todo] == ["synthetic", "uint8"] * 2 + ["random", "full"]
    assert run.scoring.steps(("random", "full")) == sum(n * s.total for _, _, n, s in seen)


def scoring_pace(config, dataset, *, networks=1, **seconds):
    zero = {"compile": 0.0, "start": 0.0, "step": 0.0, "test": 0.0}
    pace = ScoringPace(networks, **zero | seconds)
    return {(each.arch, each.num_images): pace for each in passes(config, dataset, ALL)}


ALL = ("random", "full")


def measured(config, dataset, *, load=0.0, prepare=0.0, fresh=0.0, start=0.0, **seconds):
    modes = ("vanilla", "fairdd")
    updates = {(mode, config.sampling): UpdatePace(start, 0.0, fresh, fresh) for mode in modes}
    return Pace(load, prepare, 4.0, updates, scoring_pace(config, dataset, **seconds))


def test_what_seconds_are_spent_on():
    dataset = toy()
    config = settings(**SCORED, steps=10)
    own = 5  # epochs 0 to 4 of one batch
    two = 2  # architectures
    pace = measured(config, dataset, load=1.0, prepare=2.0, fresh=3.0, step=1.0, test=10.0)
    assert pace.seconds([config], dataset) == {
        "load": 1.0,
        "prepare": 2.0,
        "compile": 0.0,
        "distil": 30.0,
        "synthetic": two * 3 * (own + 10.0),
        "uint8": two * 2 * (own + 10.0),
        "random": 3 * (own + 10.0),
        "full": 2 * 4 + 10.0,  # two epochs of 60 images in batches of 16
        "files": 4.0,
    }
    # A program for every architecture, number of images and number of networks: 3 and 2 on each of
    # two architectures, and one for `full`; `random` has as many as there are synthetic ones.
    compiling = measured(config, dataset, compile=1.0, start=100.0)
    assert compiling.seconds([config], dataset)["compile"] == 100.0 + 2 * two + 1


def test_networks_that_were_timed_together_share_the_time():
    pace = ScoringPace(networks=5, compile=0.0, start=1.0, step=2.0, test=3.0)
    assert pace.seconds(5, 10) == 24.0
    assert pace.seconds(1, 10) == pytest.approx(24.0 / 5)  # on CPU, one after the other


@pytest.mark.parametrize(("every", "times"), [(0, 1), (2, 5), (3, 4), (10, 1), (99, 1)])
def test_scores_on_the_way(every, times):
    """Of ten steps: at the end, and before at every multiple; baselines at the end alone."""
    dataset = toy()
    config = settings(steps=10, **{"evaluate.every": every, "evaluate.networks": 1})
    spent = measured(config, dataset, test=1.0).seconds([config], dataset)
    assert (spent["synthetic"], spent["uint8"]) == (times, times)
    assert (spent["random"], spent["full"]) == (1, 1)


def test_runs_side_by_side_share_their_baselines():
    dataset = toy()
    modes = [settings(steps=4, fairness=mode) for mode in ("vanilla", "fairdd")]
    pace = measured(modes[0], dataset, load=1.0, prepare=1.0, fresh=1.0, test=1.0)
    one, both = (pace.seconds(configs, dataset) for configs in (modes[:1], modes))
    shared = ("load", "random", "full")
    assert both == {n: s if n in shared else 2 * s for n, s in one.items()}


@pytest.mark.parametrize("networks", [1, 3, 20])
def test_steps_of_scoring_are_timed_over_whole_epochs(networks, monkeypatch):
    """The second of an epoch's two steps has fewer images and takes less."""
    clock = [0.0]

    def evaluate(self, images, labels, *, schedule, networks, on_steps, **others):
        clock[0] += 100.0
        stride = self.steps_per_call(networks)
        for first, last in ((0, schedule.before), (schedule.before, schedule.total)):
            for begin in range(first, last, stride):
                steps = range(begin, min(begin + stride, last))
                clock[0] += sum(4.0 if step % 2 else 10.0 for step in steps)
                on_steps(len(steps) * networks)
        clock[0] += 5.0
        return Evaluation(self.arch, schedule.total, ())

    monkeypatch.setattr(Evaluator, "evaluate", evaluate)
    monkeypatch.setattr(timing, "time", types.SimpleNamespace(perf_counter=lambda: clock[0]))
    dataset = toy()
    images = dataset.num_classes  # one of each
    few = {"evaluate.networks": networks, "evaluate.batch_size": images - 1, "ipc": 1}
    run = Run(settings(**few), dataset)
    (pace,) = timing.of_scoring(run, passes(run.config, dataset)[:1]).values()
    assert (pace.networks, pace.step) == (networks, 7.0)
    assert pace.start == pytest.approx(103.0)


# What fits


def settings_of(**changes):
    """A configuration that takes ten networks and 1,000 updates."""
    return settings(steps=1000, **{"evaluate.epochs": 9, **changes})


@pytest.mark.parametrize("sampling", ["stratified", "proportional"])
@pytest.mark.parametrize("minutes", [12.5, 10.0, 8.0, 4.0, 2.5])
def test_what_is_proposed_fits_by_its_own_estimate(minutes, sampling):
    dataset = toy()
    config = settings_of(sampling=sampling)
    pace = measured(config, dataset, load=10.0, fresh=0.5, step=1.0, test=2.0)
    assert sum(pace.seconds([config], dataset).values()) > 60 * minutes
    found = list(less_time([config], dataset, pace, seconds=60 * minutes))
    assert found
    for chosen, seconds in found:
        again = pace.seconds([changed(config, chosen)], dataset)
        assert again == seconds
        assert sum(again.values()) <= 60 * minutes
        if "steps" in chosen:  # it is as many as fit, in two digits
            more = changed(config, chosen | {"steps": int(chosen["steps"] * 1.1) + 1})
            assert sum(pace.seconds([more], dataset).values()) > 0.95 * 60 * minutes
    assert len({json.dumps(chosen) for chosen, _ in found}) == len(found)


def test_the_nearest_comes_first():
    dataset, config = toy(), settings_of()
    pace = measured(config, dataset, fresh=0.5, step=1.0, test=2.0)
    # 500 s of updates; 120 s of ten networks, 12 of 8 bits, 120 of random, 12 of full; 4 of files.
    assert sum(pace.seconds([config], dataset).values()) == 768.0
    chosen = [found for found, _ in less_time([config], dataset, pace, seconds=800.0)]
    assert chosen == [{"steps": 980}, {"evaluate.baselines": "random"}]
    chosen = [found for found, _ in less_time([config], dataset, pace, seconds=240.0)]
    assert chosen == [
        {"evaluate.baselines": "none", "steps": 180},
        {"evaluate.baselines": "none", "evaluate.networks": 3, "steps": 350},
        {"evaluate.baselines": "none", "evaluate.networks": 1, "steps": 400},
    ]
    assert not list(less_time([config], dataset, pace, seconds=20.0))


def test_scoring_less_is_proposed_only_where_it_leaves_more_updates():
    dataset, config = toy(), settings_of()
    # Networks cost next to nothing: leaving them out gains no update of two digits.
    pace = measured(config, dataset, fresh=5.0, step=1e-4, test=1e-4)
    chosen = [found for found, _ in less_time([config], dataset, pace, seconds=600.0)]
    assert chosen == [{"steps": 110}]


def test_a_cheaper_sampler_is_an_alternative():
    dataset, config = toy(), settings_of(sampling="proportional")
    pace = measured(config, dataset, step=1.0)
    for sampling, seconds in (("proportional", 1.0), ("stratified", 0.1)):
        pace.updates["fairdd", sampling] = UpdatePace(0.0, 0.0, seconds)
    chosen = [found for found, _ in less_time([config], dataset, pace, seconds=1000.0)]
    assert chosen[-1] == {"sampling": "stratified"}
    assert all("steps" in found for found in chosen[:-1])


def test_the_command_line_makes_what_was_estimated():
    arguments = ["--data.name=toy", "--steps=20", "--evaluate.networks=5"]
    fields = configuration.parser()
    config = configuration.from_arguments(fields, arguments)
    chosen = {"steps": 7, "evaluate.networks": 2, "evaluate.baselines": "none", "chunk": 3}
    chosen |= {"sampling": "proportional", "stream": "always"}
    typed = itertools.chain(*((f"--{name}", str(value)) for name, value in chosen.items()))
    assert configuration.from_arguments(fields, [*arguments, *typed]) == changed(config, chosen)


PER_IMAGE, FULL, RESIDENT = 10, 500, 300


def pretended_footprint(run, todo):
    """Bytes of a chunk, of the whole training set, and of one on the device."""
    size = PER_IMAGE * run.config.chunk
    size += FULL * any(each.name == "full" for each in todo)
    return size + RESIDENT * (not stream.is_streamed(run.config, run.dataset))


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (700, [{"evaluate.baselines": "random"}]),
        (979, [{"evaluate.baselines": "random"}, {"stream": "always"}, {"chunk": 2}]),
        (500, [{"evaluate.baselines": "random", "stream": "always"}]),
        (130, [{"evaluate.baselines": "random", "stream": "always", "chunk": 2}]),
        (100, []),
    ],
)
def test_settings_that_take_less_memory(limit, expected, monkeypatch):
    monkeypatch.setattr(timing, "footprint", pretended_footprint)
    config, dataset = settings(chunk=8), toy()
    found = list(less_memory([config], dataset, limit, more=100))
    assert [each.settings for each in found] == expected
    for each in found:
        again = changed(config, each.settings)
        todo = passes(again, dataset, configuration.baselines(again.evaluate))
        assert each.peak_bytes == 100 + pretended_footprint(Run(again, dataset), todo) <= limit


def test_what_cannot_be_streamed_is_not_proposed(monkeypatch):
    monkeypatch.setattr(timing, "footprint", lambda run, todo: 0)
    for changes in (
        {"representatives": 2},
        {"inner_real": 4, "inner_epochs": 0},
        {"warmup_real": 4},
        {"stream": "always"},
    ):
        found = less_memory([settings("dc", **changes)], toy(), 1000, more=0)
        assert all("stream" not in each.settings for each in found)


@pytest.mark.parametrize(
    ("lines", "files", "limits"),
    [
        ("0::/jobs/one\n", {"jobs/memory.max": "700", "jobs/one/memory.max": "900"}, {700, 900}),
        ("0::/jobs\n", {"jobs/memory.max": "max"}, set()),
        ("0::/../of/the/host\n", {"memory.max": "300"}, {300}),
        (
            "9:cpu:/fast\n4:memory:/one\n0::/\n",
            {"memory/one/memory.limit_in_bytes": "500", "cpu/fast/memory.max": "1"},
            {500},
        ),
    ],
)
def test_limits_of_control_groups(tmp_path, lines, files, limits):
    (tmp_path / "groups").write_text(lines)
    for name, content in files.items():
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    found = environment._group_limits(tmp_path / "groups", tmp_path / "root")
    assert set(found) == limits
    assert not list(environment._group_limits(tmp_path / "nothing", tmp_path))


def test_cores_are_those_that_the_process_may_run_on(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 5)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {1, 4}, raising=False)
    assert environment.describe()["cores"] == 2
    monkeypatch.delattr(os, "sched_getaffinity")  # as on macOS
    assert environment.cores() == 5


def test_memory_is_limited_by_the_smallest(monkeypatch):
    physical = environment.memory_limit()
    monkeypatch.setattr(environment, "_group_limits", lambda: iter([5000, 7000]))
    assert environment.memory_limit() == 5000
    monkeypatch.setattr(environment, "_group_limits", lambda: iter([2**62]))
    assert environment.memory_limit() >= physical
    assert stream.is_large(toy()) is False


# Real calls


@pytest.fixture
def hasty(monkeypatch):
    """As few updates as tell everything."""
    monkeypatch.setattr(timing, "_SECONDS", 0.0)


TINY = {
    "model": "ConvNetD1W8",
    "ipc": 1,
    "per_cell": 2,
    "log_every": 1,
    "evaluate.networks": 1,
    "evaluate.epochs": 2,
    "evaluate.uint8_networks": 0,
    "evaluate.baselines": "none",
}
DC = {"method": "dc", "outer_loops": 2, "evaluate.networks": 2, "evaluate.baselines": "full"}


@pytest.mark.parametrize("changes", [{}, pytest.param(DC, marks=pytest.mark.slow)])
def test_a_dry_run_writes_nothing_and_tells_what_it_takes(changes, hasty, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = fairdd_jax.dry_run(toy(), steps=5, **TINY | changes)
    scored = {"synthetic", "full"} if changes else {"synthetic"}
    assert set(found.seconds) == {"load", "prepare", "compile", "distil", "files"} | scored
    for name in {"compile", "distil", "files"} | scored:
        assert found.seconds[name] > 0
    assert found.total_seconds == pytest.approx(sum(found.seconds.values()))
    assert found.peak_bytes >= toy().train.images.nbytes
    assert found.limit_bytes == environment.memory_limit()
    assert found.fits
    assert found.alternatives == ()
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_too_large_a_program_is_not_run(hasty, monkeypatch):
    dataset, config = toy(), settings(**TINY | {"evaluate.baselines": "full"}, chunk=8)
    todo = passes(config, dataset, ("full",))
    needed = timing.footprint(Run(config, dataset), todo)
    monkeypatch.setattr(timing, "occupied", lambda: 10_000)
    monkeypatch.setattr(environment, "peak_memory", lambda: 0)
    monkeypatch.setattr(environment, "memory_limit", lambda: 10_000 + needed - 1)
    found = estimate([config], dataset)
    assert not found.fits_memory
    assert found.seconds == {}
    assert found.total_seconds is None
    assert "not measured" in "\n".join(estimate_console.verdict(found, config, []))
    assert found.alternatives
    for each in found.alternatives:
        again = estimate([changed(config, each.settings)], dataset)
        assert again.fits
        assert again.peak_bytes <= each.peak_bytes + 10_000


# The command line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--minutes", "5"], "add --dry_run"),
        (["--dry_run", "--minutes", "0"], "--minutes 0 is out of range"),
        (["--dry_run", "--minutes", "nan"], "--minutes nan is out of range"),
        (["--dry_run", "--minutes", "soon"], "invalid float value: 'soon'"),
    ],
)
def test_wrong_options(arguments, message, capsys):
    refused(capsys, 2, message, "--config", "demo", *arguments)


@pytest.fixture
def pretending(monkeypatch):
    """Updates take a minute in all, fair ones ten; testing takes two."""
    minutes = {"vanilla": 1.0, "fairdd": 10.0}

    def of_updates(config, *others, **options):
        return UpdatePace(0.0, 0.0, 60 * minutes[config.fairness] / config.steps)

    def of_scoring(run, todo, **options):
        pace = ScoringPace(1, 0.0, 0.0, 0.0, test=120.0)
        return {(each.arch, each.num_images): pace for each in todo}

    monkeypatch.setattr(timing, "of_updates", of_updates)
    monkeypatch.setattr(timing, "of_scoring", of_scoring)
    monkeypatch.setattr(timing, "of_files", lambda run: 6.0)
    monkeypatch.setattr(script.time, "process_time", lambda: 0.0)


def printed_by(capsys, *arguments):
    assert script.main(list(arguments)) == 0
    return " ".join(capsys.readouterr().out.split())


def test_the_runner_says_what_it_would_do(pretending, tmp_path, capsys):
    few = ["--evaluate.baselines", "none", "--evaluate.uint8_networks", "0", "--workdir", "out"]
    asked = ["--dry_run", "estimate.json", "--minutes", "8"]
    printed = printed_by(capsys, *HEAD_RUN, *few, *asked)
    assert "cmnist_fg: 40 training and 20 test images of 32 x 32 x 3" in printed
    assert "10 classes, 10 groups, 0 to 5 training images per cell" in printed
    assert "dm, fairdd: 2 updates of 1 images per class, ConvNetD1W8" in printed
    assert "stratified, 2 of every cell" in printed
    assert "synthetic: 1 x ConvNetD1W8, 3 optimiser steps on 10 images" in printed
    assert "mesh class=1,data=1; training set on the device" in printed
    assert "files out" in printed
    assert "distil 10.0" in printed
    assert "does not fit in 8 minutes" in printed
    [proposal] = re.findall(r"min python experiments/run.py (.*)$", printed)
    assert proposal.endswith("--workdir out --steps 1")
    assert [path.name for path in tmp_path.iterdir()] == ["estimate.json"]
    written = json.loads((tmp_path / "estimate.json").read_text())
    assert written["fits"] is False
    assert written["total_seconds"] == pytest.approx(sum(written["seconds"].values()))


def test_a_stopped_run_is_refused_as_it_would_be(tmp_path, capsys):
    (tmp_path / "out" / "checkpoints" / "5").mkdir(parents=True)
    refused(capsys, 4, "stopped after 5 updates", *HEAD_RUN, "--dry_run", "--workdir", "out")


def test_other_programs_have_no_dry_run():
    with pytest.raises(ConfigError, match=r"experiments/run\.py"):
        command_line.read_command(["--config", "demo", "--dry_run"], description="", is_run=False)


def test_the_demo_is_estimated_with_both_modes(pretending, capsys):
    text = printed_by(capsys, "--config", "demo", *SMALL, "--dry_run", "--minutes", "1e3")
    assert "dm, vanilla and fairdd" in text
    assert "distil 11.0" in text  # one minute and ten
    assert "score the synthetic images 4.0" in text  # two sets
    assert "score the baseline random 2.0" in text
    assert "score the baseline full 2.0" in text
    assert "write the report and the other files 0.2" in text
    assert "fits in 1000 minutes" in text


def test_proposals_are_commands():
    proposal = Alternative({"steps": 7, "evaluate.baselines": "none"}, 50.0, 1)
    found = Estimate({"load": 70.0}, 1, 2, minutes=1.0, alternatives=(proposal,))
    typed = ["--config", "demo", "--workdir", "my runs"]
    config = configuration.make({"data.name": "demo"})
    last = list(estimate_console.verdict(found, config, typed))[-1]
    command = "python experiments/run.py --config demo --workdir 'my runs' --steps 7"
    assert last == f"0.8 min  {command} --evaluate.baselines none"
    none = dataclasses.replace(found, alternatives=())
    assert (
        "no setting that is tried here" in list(estimate_console.verdict(none, config, typed))[-1]
    )


def test_proposals_are_not_refused():
    """What was typed and would then change nothing is left out."""
    config = configuration.make({"data.name": "demo", "sampling": "proportional", "batch_real": 64})
    settings = {"sampling": "stratified", "evaluate.baselines": "none"}
    found = Estimate({}, 1, 2, minutes=1.0, alternatives=(Alternative(settings, 50.0, 1),))
    typed = ["--config", "demo", "--batch_real", "64", "--evaluate.full_steps=9", "--ipc", "3"]
    last = list(estimate_console.verdict(found, config, typed))[-1]
    command = "run.py --config demo --ipc 3 --sampling stratified --evaluate.baselines none"
    assert last.endswith(command)
    assert command_line.read_command(shlex.split(command)[1:], description=None).config.ipc == 3
