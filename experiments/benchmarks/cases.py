"""What step_time.py measures, a case per process: an update, an epoch, or two things in turn.

python experiments/benchmarks/cases.py '{"kind": "update", "method": "dc"}' [runs]

prints a line of JSON; what the case does not say is as in the base case.
"""

import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import measure
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from fairdd_jax import config as configuration
from fairdd_jax import environment, models, presets
from fairdd_jax.config import Config
from fairdd_jax.data import Dataset
from fairdd_jax.evaluate import MOMENTUM, WEIGHT_DECAY, Evaluator
from fairdd_jax.methods.method import Real
from fairdd_jax.models import Outputs
from fairdd_jax.sharding import AXES, REPLICATED, mesh_for, place, shard_map, use_all_cores
from fairdd_jax.start import initial_images
from fairdd_jax.step import State, Step
from fairdd_jax.train import Trainer, labelled
from fairdd_jax.training_set import training_set

EPOCHS = 4  # of network training in one timed call: each draws an augmentation, dear or cheap
FEATURE_IMAGES = 2560


@dataclass(frozen=True)
class Case:
    """One case; the defaults are the base case."""

    kind: str = "update"
    method: str = "dm"
    fairness: str = "fairdd"
    sampling: str = "stratified"
    groups: int = 10
    size: int = 32
    classes: int = 10
    ipc: int = 10
    num_train: int = 20_000
    chunk: int | None = None  # the backend's default
    model: str = "ConvNet"

    def config(self) -> Config:
        """The method's preset with the factors of this case."""
        names = ("fairness", "sampling", "ipc", "chunk", "model")
        factors = {name: getattr(self, name) for name in names}
        preset = presets.compose_parts(self.method) | {"data.name": "generated"}
        return configuration.make(preset | factors)

    def dataset(self) -> Dataset:
        """Generated images."""
        return measure.generated(
            classes=self.classes,
            groups=self.groups,
            size=self.size,
            num_train=self.num_train,
            num_test=self.classes,
        )


class Update:
    """The compiled update of a case, to be called again and again.

    Every call draws other images and another augmentation. Where a network serves several updates,
    each is timed as the first of a network, before which there is no training.
    """

    def __init__(self, case: Case):
        config, dataset = case.config(), case.dataset()
        self.step = Step(config, dataset)
        self.key = jax.random.key(0)
        images = initial_images(self.key, dataset, ipc=config.ipc, init=config.init).images
        self.state = self.step.init(self.key, images)
        self.real = training_set(dataset, self.step.mesh)
        self.block = 1 if self.step.config.outer_loops > 1 else config.block
        self.firsts = itertools.count(step=max(self.block, config.outer_loops))
        began = time.perf_counter()
        program = self.step.run_block.lower(self.state, self.real, self.key, length=self.block)
        self.compiled = program.compile()
        self.compile_s = time.perf_counter() - began

    def __call__(self) -> State:
        """Take a block of updates."""
        number = jax.device_put(jnp.int32(next(self.firsts)), self.state.update.sharding)
        state = self.state._replace(update=number)
        self.state, _ = self.compiled(state, self.real, self.key)
        return self.state

    def seconds(self, runs: int) -> list[float]:
        """Seconds per update of every run."""
        return [taken / self.block for taken in measure.seconds(self, runs=runs, warmup=0)]

    def flops(self) -> int:
        """Operations of an update but for network training; blocks that may be empty count."""
        step = Step(replace(self.step.config, outer_loops=1), self.step.dataset)
        one = partial(step.run_block, length=1)
        return measure.flops(one, self.state, self.real, self.key)


def update(case: Case, runs: int) -> dict[str, Any]:
    """Time the matching update."""
    one = Update(case)
    rate = measure.matmul_rate()
    first, *taken = one.seconds(1 + runs)
    real = one.step.draws.sampler.batch_size
    return {
        "real_images_per_class": real,
        "chunk_used": one.step.config.chunk,
        "compile_s": one.compile_s,
        "first_step_s": first,
        "images_per_s": case.classes * (real + case.ipc) / statistics.median(taken),
        "peak_memory_mib": environment.peak_memory() / 2**20,
        **_rates(taken, one.flops(), [rate]),
    }


def _rates(taken: list[float], flops: int, matmul: list[float]) -> dict[str, float]:
    """Seconds, and operations per second beside those of the matrix product."""
    rate, product = flops / statistics.median(taken), statistics.median(matmul)
    return {
        **measure.spread(taken),
        "flops": flops,
        "gflop_per_s": rate / 1e9,
        "matmul_gflop_per_s": product / 1e9,
        "fraction_of_matmul": rate / product,
    }


def inner_epoch(case: Case, runs: int) -> dict[str, Any]:
    """Time an epoch of the network training between two updates."""
    step = Step(case.config(), case.dataset())
    return _epoch(case, runs, step.trainer, step.mesh, momentum=0.0, weight_decay=0.0)


def evaluation_epoch(case: Case, runs: int) -> dict[str, Any]:
    """Time an epoch of the training of one network that scores a synthetic set."""
    config = case.config()
    evaluator = Evaluator(
        case.dataset(),
        config.model,
        config.evaluate,
        chunk=config.chunk,
        compute_dtype=config.compute_dtype,
    )
    optimizer = {"momentum": MOMENTUM, "weight_decay": WEIGHT_DECAY}
    return _epoch(case, runs, evaluator.trainer, evaluator.mesh, **optimizer)


def _epoch(
    case: Case, runs: int, trainer: Trainer, mesh: Mesh, **optimizer: float
) -> dict[str, Any]:
    config, dataset = case.config(), case.dataset()
    key = jax.random.key(0)
    synthetic = labelled(initial_images(key, dataset, ipc=case.ipc, init=config.init).images)
    start = trainer.start(trainer.init(key, dataset.image_shape), lr=config.lr_net, **optimizer)
    arguments = place((start, *synthetic, key), mesh)
    num_images = case.classes * case.ipc
    per_epoch = trainer.steps_per_epoch(num_images)
    firsts = itertools.count(step=EPOCHS * per_epoch)
    program = jax.jit(shard_map(trainer.run, mesh, (REPLICATED,) * 6, REPLICATED))
    began = time.perf_counter()
    compiled = program.lower(*arguments, 0, 1).compile()
    compile_s = time.perf_counter() - began
    rate = measure.matmul_rate()

    def epochs() -> Any:
        first = next(firsts)
        return compiled(*arguments, first, first + EPOCHS * per_epoch)

    first, *taken = (s / EPOCHS for s in measure.seconds(epochs, runs=1 + runs, warmup=0))
    return {
        "strategy": trainer.strategy,
        "chunk_used": trainer.chunk,
        "compile_s": compile_s,
        "first_epoch_s": first,
        "images_per_s": num_images / statistics.median(taken),
        "peak_memory_mib": environment.peak_memory() / 2**20,
        **_rates(taken, per_epoch * measure.flops(program, *arguments, 0, 1), [rate]),
    }


def feature_pass(case: Case, runs: int) -> dict[str, Any]:
    """Time group centres of the features of many images, and the matrix product, in turn."""
    config, dataset = case.config(), case.dataset()
    step, mesh = Step(config, dataset), mesh_for(FEATURE_IMAGES)
    images, groups = dataset.train.images[:FEATURE_IMAGES], dataset.train.groups[:FEATURE_IMAGES]
    member = groups[None] == np.arange(case.groups)[:, None]
    weights = member / np.maximum(member.sum(1, keepdims=True), 1)

    def forward(params: Any, images: jax.Array, mask: jax.Array | None = None) -> Outputs:
        variables = {"params": params}
        return models.apply(
            step.network, variables, images, train=True, mask=mask, dtype=config.compute_dtype
        )[0]

    def prepare(x: jax.Array) -> jax.Array:
        return dataset.normalise(x)

    def centres(params: Any, images: jax.Array, weights: jax.Array) -> jax.Array:
        blocks = -(-len(images) // config.chunk)
        real = Real(images, weights, prepare, config.chunk, config.chunk, blocks)
        part = step.method.group_signals(forward, params, real, jnp.int32(0))
        return jax.lax.psum(part, AXES)

    shards = (REPLICATED, PartitionSpec(AXES), PartitionSpec(None, AXES))
    program = jax.jit(shard_map(centres, mesh, shards, REPLICATED))
    params = step.trainer.init(jax.random.key(0), dataset.image_shape)["params"]
    arguments = place((params, images, weights.astype(np.float32)), mesh, shards)
    flops = measure.flops(program, *arguments)
    measure.seconds(lambda: program(*arguments), runs=1)
    taken, rates = [], []
    for _ in range(runs):
        taken += measure.seconds(lambda: program(*arguments), runs=1, warmup=0)
        rates.append(measure.matmul_rate(runs=3))
    fractions = [flops / s / rate for s, rate in zip(taken, rates, strict=True)]
    return {
        "images": len(images),
        "chunk_used": config.chunk,
        **_rates(taken, flops, rates),
        "fraction_of_matmul": statistics.median(fractions),
        "fraction_min": min(fractions),
        "fraction_max": max(fractions),
    }


def fairness_ratio(case: Case, runs: int) -> dict[str, Any]:
    """Time the update of FairDD and that of vanilla in turn, on the same images."""
    vanilla, fairdd = Update(replace(case, fairness="vanilla")), Update(case)
    pairs = [vanilla.seconds(1) + fairdd.seconds(1) for _ in range(1 + runs)][1:]
    ratios = [b / a for a, b in pairs]
    return {
        "real_images_per_class": fairdd.step.draws.sampler.batch_size,
        "vanilla": measure.spread([a for a, _ in pairs]),
        "fairdd": measure.spread([b for _, b in pairs]),
        "ratio": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
    }


KINDS: dict[str, Callable[[Case, int], dict[str, Any]]] = {
    function.__name__: function
    for function in (update, inner_epoch, evaluation_epoch, feature_pass, fairness_ratio)
}


def main() -> None:
    """Measure the case of the command line."""
    use_all_cores()
    case = Case(**json.loads(sys.argv[1]))
    runs = int(sys.argv[2]) if len(sys.argv) > 2 else 10
    row = asdict(case) | KINDS[case.kind](case, runs)
    print(json.dumps({"row": row, "environment": environment.describe()}))


if __name__ == "__main__":
    main()
