"""The host's part of distillation: the loop with its log."""

import functools
import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass

import jax
import numpy as np

from fairdd_jax import stream
from fairdd_jax.config import Config
from fairdd_jax.data import Dataset
from fairdd_jax.environment import on_cpu
from fairdd_jax.errors import NonFiniteLossError
from fairdd_jax.representatives import Representatives
from fairdd_jax.sharding import place
from fairdd_jax.step import Step, training_set


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
    """

    step: int
    update: int
    loss: float
    seconds: float
    step_seconds: float
    images_per_second: float
    compile_seconds: float
    images: np.ndarray

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
    config: Config, dataset: Dataset, *, key: jax.Array, images: np.ndarray
) -> Iterator[Progress]:
    """Run all updates, stopping for a line of the log every ``log_every`` of them.

    Args:
      config: a resolved configuration.
      dataset: the real images.
      key: random key; equal keys give equal images, bit for bit on one machine's CPU. (On a GPU
        that takes the flag --xla_gpu_deterministic_ops=true.)
      images: where the synthetic images start, as `fairdd_jax.start.initial_images` gives them.

    Yields:
      The state of affairs at every line of the log, and every ``evaluate.every`` steps.

    Raises:
      NonFiniteLossError: the loss or the images became NaN or infinite; the last `Progress` was
        good.
    """
    step = Step(config, dataset, streamed=stream.is_streamed(config, dataset))
    init_key, run_key = place(jax.random.split(key), step.mesh)
    state = step.init(init_key, images)
    if config.updates == 0:
        return
    lines = call_lengths(config)
    lengths = list(itertools.chain(*lines))
    feed = (
        stream.blocks(step, dataset, run_key, lengths)
        if step.streamed
        else itertools.repeat(training_set(dataset, step.mesh))
    )
    began = time.perf_counter()
    data = next(feed)
    feed = itertools.chain([data], feed)
    choose = Representatives(step, dataset) if config.representatives else None
    cells = choose(state, run_key, data) if choose else data.cells
    data = data._replace(cells=cells)
    compile_block = functools.cache(
        lambda length: step.run_block.lower(state, data, run_key, length=length).compile()
    )
    compile_block(lengths[0])
    compiled = last = time.perf_counter()
    images_per_update = state.images.shape[0] * (step.sampler.batch_size + config.ipc)
    done = 0
    for line in lines:
        since, losses = done, []
        for length, data in zip(line, feed, strict=False):
            if choose and done and done % config.representatives == 0:
                cells = choose(state, run_key, data)
            data = data._replace(cells=cells)
            state, loss = compile_block(length)(state, data, run_key)
            if on_cpu():  # beyond 32 calls on their way, two devices wait for each other for ever
                jax.block_until_ready(loss)
            losses.append(loss)
            done += length
        mean = float(sum(losses)) / ((done - since) * dataset.num_classes)
        current = np.array(state.result)  # a copy: the state is donated
        if not (np.isfinite(mean) and np.isfinite(current).all()):
            raise NonFiniteLossError(
                f"the matching loss ({mean}) or the images became infinite or NaN between updates "
                f"{since} and {done}; try a smaller --lr_img than {config.lr_img}"
            )
        now = time.perf_counter()
        per_update, last = (now - last) / (done - since), now
        yield Progress(
            step=done // config.outer_loops,
            update=done,
            loss=mean,
            seconds=now - compiled,
            step_seconds=per_update,
            images_per_second=images_per_update / per_update,
            compile_seconds=compiled - began,
            images=current,
        )
        last = time.perf_counter()  # whoever took the line may have taken its time


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
