"""How fast this machine is at a run, and how much memory it takes: some of its own calls, timed."""

import dataclasses
import itertools
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial

import jax
import numpy as np
from jax.stages import Compiled

from fairdd_jax import stream
from fairdd_jax.config import Config
from fairdd_jax.data import Dataset, Split
from fairdd_jax.environment import on_cpu, peak_memory
from fairdd_jax.estimate.pace import Content, ScoringPace, UpdatePace, content
from fairdd_jax.evaluate import Evaluator
from fairdd_jax.loop import LoopState, call_lengths, run_updates
from fairdd_jax.run import Run
from fairdd_jax.schedule import Pass, Schedule
from fairdd_jax.sharding import is_aligned
from fairdd_jax.train import labelled

# How long updates are timed, at least.
_SECONDS = 2.0
# Test images times networks that testing is timed on, on CPU.
_TESTED = 1000
# Steps of an epoch whose last step matters.
_SHORT_EPOCH = 8

OnBytes = Callable[[int], None]


class EnoughError(Exception):
    """What was asked for is known; the rest need not run."""


def of_updates(
    config: Config, dataset: Dataset, images: np.ndarray, *, on_bytes: OnBytes = lambda size: None
) -> UpdatePace:
    """Time some updates of a run, from where all kinds of them follow each other closely.

    Args:
      config: a resolved configuration with at least one update.
      dataset: the real images, with the groups that the matching is told.
      images: where the synthetic images start.
      on_bytes: told the memory of every program before it runs.
    """
    trial, first = _trial(config)
    calls: list[Content] = []
    taken: list[float] = []
    wanted = _rank({content(config, *call) for call in _calls(config)})
    began = time.perf_counter()
    lines = run_updates(
        trial,
        dataset,
        key=jax.random.key(config.seed),
        images=images,
        restore=partial(_begin_at, first),
        on_compiled=lambda program: on_bytes(_bytes_of_updates(program, config, dataset)),
    )
    done, before, compiling = first, 0.0, 0.0
    for line in lines:
        if not calls:
            before, compiling = time.perf_counter() - began, line.compile_seconds
        calls.append(content(trial, done, line.update - done))
        taken.append(line.step_seconds * (line.update - done))
        done = line.update
        # The first call is slower than those that follow.
        if _rank(set(calls[1:])) >= wanted and sum(taken[1:]) >= _SECONDS:
            break
    lines.close()
    found = np.linalg.lstsq(np.array(calls[1:], float), np.array(taken[1:]), rcond=None)[0]
    fresh, trained, choice = found.clip(0.0).tolist()
    start = before - float(np.dot(calls[0], (fresh, trained, choice)))
    return UpdatePace(max(start, 0.0), compiling, fresh, trained, choice)


def _trial(config: Config) -> tuple[Config, int]:
    """A run whose every call is a line of the log, and the update to begin with.

    It chooses representatives more often, and begins shortly before its second network.
    """
    every = min(config.representatives, 3) if config.block == 1 else config.representatives
    stride = math.lcm(every or 1, config.block)
    first = (config.outer_loops - 1) // stride * stride
    trial = dataclasses.replace(
        config,
        steps=config.steps + 1000,
        log_every=config.block,
        representatives=every,
        evaluate=dataclasses.replace(config.evaluate, every=0),
    )
    return trial, first


def _begin_at(update: int, start: LoopState) -> LoopState:
    return start._replace(state=start.state._replace(update=start.state.update + update))


def _calls(config: Config) -> list[tuple[int, int]]:
    """First update and number of updates of every compiled call."""
    lengths = [length for line in call_lengths(config) for length in line]
    firsts = itertools.accumulate(lengths, initial=0)
    return list(zip(firsts, lengths, strict=False))


def _rank(calls: set[Content]) -> int:
    """How many kinds of content such calls tell apart."""
    return int(np.linalg.matrix_rank(np.array(sorted(calls)))) if calls else 0


def of_scoring(
    run: Run, todo: Sequence[Pass], *, on_bytes: OnBytes = lambda size: None
) -> dict[tuple[str, int], ScoringPace]:
    """Time some steps of every kind of training that is to be scored, and tests on some images.

    Args:
      run: the run that they belong to; it is given a trained network of every architecture.
      todo: what is to be scored, see `fairdd_jax.schedule.passes`.
      on_bytes: told the memory of every program before it runs.

    Returns:
      By architecture and number of images.
    """
    found: dict[tuple[str, int], ScoringPace] = {}
    for each in todo:
        key = each.arch, each.num_images
        if key not in found or found[key].networks < each.networks:
            found[key] = _of_pass(run, each, on_bytes)
    return found


def _of_pass(run: Run, each: Pass, on_bytes: OnBytes) -> ScoringPace:
    config, test = run.config, run.dataset.test
    # On accelerators all of them: they are fast there, and a few would not keep them busy.
    wanted = max(1, _TESTED // each.networks) if on_cpu() else len(test)
    part = slice(None, None, max(1, len(test) // wanted))
    tested = Split(test.images[part], test.labels[part], test.groups[part])
    evaluator = Evaluator(
        dataclasses.replace(run.dataset, test=tested),
        each.arch,
        config.evaluate,
        chunk=config.chunk,
        compute_dtype=config.compute_dtype,
    )
    images, labels = _images(run, each)
    steps = max(1, evaluator.steps_per_call(each.networks) // 2)
    # The last step of an epoch may have few images: where it matters, whole epochs are timed.
    epoch = evaluator.trainer.steps_per_epoch(each.num_images)
    steps += -steps % epoch if epoch <= _SHORT_EPOCH else 0

    def evaluate(schedule: Schedule, on_compiled: Callable[[Compiled], None] | None) -> list[float]:
        """Seconds of the start with the first step, of the other steps, and of the test."""
        marks = [time.perf_counter()]
        evaluation = evaluator.evaluate(
            images,
            labels,
            schedule=schedule,
            networks=each.networks,
            key=jax.random.key(config.seed),
            on_steps=lambda steps: marks.append(time.perf_counter()),
            on_compiled=on_compiled,
        )
        marks.append(time.perf_counter())
        if each.name == "synthetic":
            run.trained[each.arch] = evaluation.variables
        return np.diff(marks).tolist()

    # The second time nothing is compiled, and what is compared is the same but for that.
    cold = evaluate(Schedule(1, 0), lambda program: on_bytes(_bytes(program)))
    first, *calls, test_seconds = evaluate(Schedule(1, steps), None)
    others = sum(calls)
    return ScoringPace(
        each.networks,
        compile=max(0.0, sum(cold) - first - test_seconds),
        start=max(0.0, first - others / steps),
        step=others / steps,
        test=test_seconds * len(test) / len(tested),
    )


def _images(run: Run, each: Pass) -> tuple[jax.Array | np.ndarray, jax.Array | np.ndarray]:
    """A training set of that size and kind; what it shows decides nothing here."""
    if each.name == "full":
        return run.dataset.train.images, run.dataset.train.labels
    images, labels = map(np.asarray, labelled(run.decoded()))
    return np.resize(images, (each.num_images, *images.shape[1:])), np.resize(
        labels, each.num_images
    )


def of_files(run: Run) -> float:
    """Seconds that the files of a run take at its end; they are written to a temporary folder."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        run.save(folder)
    return time.perf_counter() - began


# Memory


def occupied() -> int:
    """Bytes before anything is compiled; nothing on accelerators, whose programs take all."""
    return peak_memory() if on_cpu() else 0


def footprint(run: Run, todo: Sequence[Pass]) -> int:
    """Bytes of the largest program of a run, none of which is run.

    Args:
      run: the run.
      todo: what is to be scored.
    """
    sizes = [0]

    def on_bytes(size: int) -> None:
        sizes.append(size)
        raise EnoughError

    measures: list[Callable[[], object]] = [partial(_of_pass, run, p, on_bytes) for p in todo]
    if run.config.updates:
        arguments = run.config, run.matched, run.images
        measures.append(partial(of_updates, *arguments, on_bytes=on_bytes))
    for measure in measures:
        try:
            measure()
        except EnoughError:
            continue
    return max(sizes)


def _bytes_of_updates(program: Compiled, config: Config, dataset: Dataset) -> int:
    """Of a program that updates; on CPU it shares a resident training set with the host."""
    size, images = _bytes(program), dataset.train.images
    if on_cpu() and not stream.is_streamed(config, dataset):
        size -= images.nbytes * jax.local_device_count()
        size += 0 if is_aligned(images) else images.nbytes
    return max(size, 0)


def _bytes(program: Compiled) -> int:
    """Arguments, results and what a program needs in between, as the compiler counts them."""
    found = program.memory_analysis()
    if found is None:  # not every backend counts
        return 0
    size = found.argument_size_in_bytes + found.output_size_in_bytes + found.temp_size_in_bytes
    size -= found.alias_size_in_bytes
    return int(size * (jax.local_device_count() if on_cpu() else 1))
