"""Seconds per matching update and peak memory, by method, fairness and sampler.

python experiments/benchmarks/step_time.py --data_dir DATA [--updates 10] [--only dm]

An update renews all synthetic images once; the epochs of network training that gradient matching
takes in between are a figure of their own. Every case runs in a process of its own, so that its
peak memory is its own.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from itertools import product
from pathlib import Path

import jax

from fairdd_jax import config as configuration
from fairdd_jax import data, environment, presets
from fairdd_jax.loop import initial_images
from fairdd_jax.step import Step, training_set
from fairdd_jax.train import labelled

METHODS = ("dm", "dc")
FAIRNESS = ("vanilla", "fairdd")
SAMPLING = ("stratified", "proportional")


def measure(method: str, fairness: str, sampling: str, data_dir: Path, updates: int) -> None:
    """Print the figures of one case as a line of JSON."""
    settings = presets.compose(f"cmnist_fg_{method}")
    # No training in between: the first update's compiled program is timed again and again.
    settings |= {"fairness": fairness, "sampling": sampling, "inner_epochs": 0}
    config = configuration.make(settings)
    dataset = data.load(config.data, data_dir=data_dir)
    step = Step(config, dataset)
    key = jax.random.key(0)
    state = step.init(key, initial_images(key, dataset, ipc=config.ipc, init=config.init))
    real = training_set(dataset)
    began = time.perf_counter()
    update = step.run_block.lower(state, real, key, 1).compile()
    compile_s = time.perf_counter() - began
    seconds = []
    for _ in range(updates + 1):
        began = time.perf_counter()
        state, _ = jax.block_until_ready(update(state, real, key, 1))
        seconds.append(time.perf_counter() - began)
    row = {
        "method": method,
        "fairness": fairness,
        "sampling": sampling,
        "groups": dataset.num_groups,
        "real_images_per_class": step.sampler.batch_size,
        "step_s": statistics.median(seconds[1:]),
        "step_s_min": min(seconds[1:]),
        "step_s_max": max(seconds[1:]),
        "compile_s": compile_s,
        "peak_memory_mib": environment.peak_memory() / 2**20,
        "epoch_s": _epoch_seconds(step, state.images) if method == "dc" else None,
        **environment.describe(),
    }
    print(json.dumps(row))


def _epoch_seconds(step: Step, synthetic: jax.Array, epochs: int = 10) -> float:
    """Seconds per epoch of network training on the synthetic images."""
    images, labels = labelled(synthetic)
    key = jax.random.key(1)
    start = step.trainer.start(step.trainer.init(key, images.shape[1:]), lr=0.01)
    run = jax.jit(step.trainer.run).lower(start, images, labels, key, 0, epochs).compile()
    began = time.perf_counter()
    jax.block_until_ready(run(start, images, labels, key, 0, epochs))
    return (time.perf_counter() - began) / epochs


def main() -> None:
    """Run every case in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data_dir", type=Path, required=True, help="folder with MNIST's IDX files"
    )
    parser.add_argument("--updates", type=int, default=10, help="timed updates per case")
    parser.add_argument("--only", choices=METHODS, help="one method")
    parser.add_argument("--case", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        method, fairness, sampling = options.case
        measure(method, fairness, sampling, options.data_dir, options.updates)
        return
    for case in product((options.only,) if options.only else METHODS, FAIRNESS, SAMPLING):
        command = [sys.executable, __file__, "--data_dir", str(options.data_dir)]
        command += ["--updates", str(options.updates), "--case", *case]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
