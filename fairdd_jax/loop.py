"""The host's part of distillation: the loop with its log."""

import functools
import itertools
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import NamedTuple

import jax
import numpy as np
from jax.stages import Compiled

from fairdd_jax import stream
from fairdd_jax.config import Config, unread
from fairdd_jax.data import Dataset
from fairdd_jax.data.sampling import GroupIndex
from fairdd_jax.environment import on_cpu
from fairdd_jax.errors import NonFiniteLossError
from fairdd_jax.hosts import fetch
from fairdd_jax.representatives import Representatives
from fairdd_jax.sharding import place
from fairdd_jax.step import State, Step
from fairdd_jax.training_set import training_set


class LoopState(NamedTuple):
    """All that the loop needs to go on from between two compiled calls.

    Everything random, the images to draw included, follows from the key of the run and the number
    of the update.
    """

    state: State
    representatives: GroupIndex | None
    """The real images that are drawn from, if not all are."""
    loss: jax.Array
    """Sum of the losses of the line of the log that is being made, or that was."""


@dataclass(frozen=True)
class Progress:
    """A line of the log: the state of affairs after some updates.

    Attributes:
      step: iterations done.
      update: updates of the images done; ``outer_loops`` of them make an iteration.
      loss: mean matching loss per class and update since the last line.
      seconds: time since the first update began.
      step_seconds: mean time per update since the last line.
      images_per_second: real and synthetic images matched per second since the last line.
      compile_seconds: time that compiling took before.
      images: ``[C, I, H, W, channels]``, the synthetic images now, normalised.
      state: what to go on from; it is gone (donated) once the next line is asked for.
      is_line: whether it is one: False of updates that were stopped on the way to the next.
    """

    step: int
    update: int
    loss: float
    seconds: float
    step_seconds: float
    images_per_second: float
    compile_seconds: float
    images: np.ndarray
    state: LoopState | None = None
    is_line: bool = True

    def line(self) -> dict[str, float]:
        """The line of metrics.jsonl."""
        return {
            "step": self.step,
            "update": self.update,
            "loss": self.loss,
            "seconds": self.seconds,
            "step_s": self.step_seconds,
            "images_per_s": self.images_per_second,
        }


def run_updates(
    config: Config,
    dataset: Dataset,
    *,
    key: jax.Array,
    images: np.ndarray,
    restore: Callable[[LoopState], LoopState | None] = lambda start: None,
    stopped: Callable[[], bool] = lambda: False,
    on_compiled: Callable[[Compiled], None] = lambda program: None,
) -> Generator[Progress, None, None]:
    """Run all updates, stopping for a line of the log every ``log_every`` of them.

    Args:
      config: a resolved configuration.
      dataset: the real images.
      key: random key; equal keys give equal images, bit for bit on one machine's CPU. (On a GPU
        that takes the flag --xla_gpu_deterministic_ops=true.)
      images: where the synthetic images start, as `fairdd_jax.start.initial_images` gives them.
      restore: given the state before the first update, when all that the configuration may be
        refused for has been looked at, returns the one to go on from instead, of which it may keep
        nothing but shapes and devices; or None.
      stopped: asked after every compiled call; if it says so, the updates end there with a
        `Progress` that is no line.
      on_compiled: told of every compiled program before it runs.

    Yields:
      The state of affairs at every line of the log, and every ``evaluate.every`` steps.

    Raises:
      NonFiniteLossError: the loss or the images became NaN or infinite; the last `Progress` was
        good.
    """
    step = Step(config, dataset, streamed=stream.is_streamed(config, dataset))
    init_key, run_key = jax.random.split(key)
    init_key, placed_key = place((init_key, run_key), step.mesh)
    state = step.init(init_key, images)
    choose = Representatives(step, dataset) if config.representatives else None
    nothing = np.zeros((), np.float32)
    start = LoopState(state, choose.none() if choose else None, place(nothing, step.mesh))
    state, chosen, total = restore(start) or start
    done = int(state.update)
    lines = remaining(call_lengths(config), done)
    lengths = [length for line in lines for length in line.lengths]
    if not lengths:
        return
    feed = (
        stream.blocks(step, dataset, run_key, lengths, first=done)
        if step.draws.streamed
        else itertools.repeat(training_set(dataset, step.mesh))
    )
    began = time.perf_counter()
    data = next(feed)
    feed = itertools.chain([data], feed)
    all_cells = data.cells

    @functools.cache
    def compile_block(length: int) -> Compiled:
        program = step.run_block.lower(state, data, placed_key, length=length).compile()
        on_compiled(program)
        return program

    # Compiled before the clock starts, for cells of the shapes that they will have.
    data = data._replace(cells=chosen or all_cells)
    compile_block(lengths[0])
    compiled = last = time.perf_counter()
    C = dataset.num_classes
    synthetic = min(config.batch_syn or config.decoded_ipc, config.decoded_ipc)
    images_per_update = C * (step.draws.sampler.batch_size + synthetic)
    for line in lines:
        begin, is_stopped = done, False
        if begin == line.first:
            total = place(nothing, step.mesh)
        for length, data in zip(line.lengths, feed, strict=False):
            if choose and done % config.representatives == 0:
                chosen = choose(state, run_key, data)
            data = data._replace(cells=chosen or all_cells)
            state, loss = compile_block(length)(state, data, placed_key)
            if on_cpu():  # beyond 32 calls on their way, two devices wait for each other for ever
                jax.block_until_ready(loss)
            total += loss
            done += length
            if is_stopped := stopped():
                break
        mean = float(total) / ((done - line.first) * C)
        current = np.array(fetch(state.result)[:C])  # a copy: the state is donated
        if not (np.isfinite(mean) and np.isfinite(current).all()):
            smaller = f"--lr_img than {config.lr_img}"
            if "lr_net" not in unread(config):
                smaller += f", or --lr_net than {config.lr_net}"
            raise NonFiniteLossError(
                f"the matching loss ({mean}) or the images became infinite or NaN between updates "
                f"{line.first} and {done}; try a smaller {smaller}"
            )
        is_line = done == line.first + line.updates
        now = time.perf_counter()
        per_update, last = (now - last) / (done - begin), now
        yield Progress(
            step=done // config.outer_loops,
            update=done,
            loss=mean,
            seconds=now - compiled,
            step_seconds=per_update,
            images_per_second=images_per_update / per_update,
            compile_seconds=compiled - began,
            images=current,
            state=LoopState(state, chosen, total),
            is_line=is_line,
        )
        if is_stopped:
            return
        last = time.perf_counter()  # whoever took the line may have taken its time


class Line(NamedTuple):
    """What is left to do of a line of the log."""

    first: int
    """Updates done before it."""
    updates: int
    """Updates of the whole line."""
    lengths: list[int]
    """Updates of every compiled call that is left."""


def remaining(lines: list[list[int]], done: int) -> list[Line]:
    """What `call_lengths` gives, without the calls that have been made.

    >>> remaining([[3, 2], [2]], done=3)
    [Line(first=0, updates=5, lengths=[2]), Line(first=5, updates=2, lengths=[2])]

    Of a call that was made in part, as another backend does, the rest is left.

    >>> remaining([[3, 2]], done=1)
    [Line(first=0, updates=5, lengths=[2, 2])]
    """
    left, position = [], 0
    for line in lines:
        first, lengths = position, []
        for length in line:
            position += length
            if position > done:
                lengths.append(min(length, position - done))
        if lengths:
            left.append(Line(first, position - first, lengths))
    return left


def call_lengths(config: Config) -> list[list[int]]:
    """The updates of every compiled call, a list for each line of the log.

    >>> from fairdd_jax import config
    >>> settings = {"data.name": "demo", "steps": 7, "log_every": 5, "block": 3}
    >>> call_lengths(config.make(settings))
    [[3, 2], [2]]
    """
    # The next line of the log, and the next evaluation on the way if there are any.
    total = config.updates
    strides = (config.log_every, config.evaluate.every * config.outer_loops or total)
    lines, done = [], 0
    while done < total:
        stop = min(total, *(done - done % stride + stride for stride in strides))
        lengths = []
        while done < stop:
            chosen = config.representatives - done % (config.representatives or 1)
            lengths.append(min(config.block, stop - done, chosen or total))
            done += lengths[-1]
        lines.append(lengths)
    return lines
