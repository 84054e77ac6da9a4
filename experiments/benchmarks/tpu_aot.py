"""What a step takes on TPU v5e, by ahead-of-time compilation; no TPU need be there.

python experiments/benchmarks/tpu_aot.py [--presets demo] [--set chunk=64] [--operations 20]

Run it in a virtual environment of its own that has the project and, by pip install "jax[tpu]", the
libtpu that goes with its jax: a program for the CPU would look for a TPU and hang where libtpu is
installed. The blocks of updates of every preset, with the settings of an accelerator, are compiled
for one chip and for a 2x4 slice. What is written holds for one chip and one update:

- HBM needed: arguments + temporaries + output - aliased, by `memory_analysis`, + the code.
- FLOPs without products with padding, and bytes of HBM, both read off the compiled program with
  loops counted as often as they run (`hlo`). Beside them in the JSON: the FLOPs of the traced step,
  all chips together and products with padding included, and what `cost_analysis` says of the whole
  block, which counts the body of a loop once.
- The roofline's time, the longer of FLOPs and bytes at the chip's rates. (Products of float32
  numbers are one pass in bfloat16 at JAX's default precision.) The compiler's own estimate of all
  operations, one after the other, says what is lost beside it.
- Network training between two updates (gradient matching), a mean over the updates of a network.

On the slice the step takes the mesh that it takes by itself: along the classes as many chips as
there are classes for, the others along the real images of a class. Each has its share of the
classes, filled up to equally many: their synthetic images with momentum and, drawn from the
training set that every chip has whole, their real images. Network training shares every batch. The
network and its initialisation are on all.
"""

import argparse
import contextlib
import importlib.util
import json
import math
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from importlib import metadata
from itertools import product
from pathlib import Path
from typing import Any
from unittest import mock

# Before JAX is imported: no search for a TPU, and a machine for libtpu to believe in.
os.environ |= {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
}

if importlib.util.find_spec("libtpu") is None:
    print('libtpu is missing: pip install "jax[tpu]" in a virtual environment of its own')
    sys.exit(2)

import jax
import jax.numpy as jnp
import measure
import numpy as np
from hlo import Operation, Program
from jax.experimental import topologies
from jax.sharding import NamedSharding

from fairdd_jax import config as configuration
from fairdd_jax import data, environment, presets, workdir
from fairdd_jax.config import Config
from fairdd_jax.sharding import REPLICATED, SPLIT, num_slots
from fairdd_jax.step import State, Step
from fairdd_jax.training_set import TrainingSet, training_set

Shapes = dict[str, int]

# The data sets' shapes, by the data set's part of a preset's name: nothing is loaded.
_COLOURED = {"classes": 10, "groups": 10, "size": 32, "num_train": 60_000}
SHAPES: dict[str, Shapes] = {
    "demo": _COLOURED | {"num_train": 4_500},
    **dict.fromkeys(("cmnist_fg", "cmnist_bg", "cfmnist_fg", "cfmnist_bg"), _COLOURED),
    "cifar10s": {"classes": 10, "groups": 2, "size": 32, "num_train": 50_000},
    "celeba": {"classes": 2, "groups": 2, "size": 64, "num_train": 162_770},
    "utkface": {"classes": 3, "groups": 4, "size": 64, "num_train": 20_813},
    "bffhq": {"classes": 2, "groups": 2, "size": 64, "num_train": 19_200},
    "tiny_imagenet_s": {"classes": 200, "groups": 2, "size": 64, "num_train": 100_000},
    **{
        name: {"classes": 10, "groups": 2, "size": 128, "num_train": 13_000}
        for name in data.names()
        if name.startswith("imagenet_")
    },
}

# Slices, and what libtpu needs to know beside their names.
TOPOLOGIES: dict[str, dict[str, Any]] = {"1x1": {"chips_per_host_bounds": (1, 1, 1)}, "2x4": {}}
DESCRIPTIONS = TOPOLOGIES | {"2x2": {}, "4x8": {}, "16x16": {}}

OUT = measure.RESULTS / "tpu_v5e.json"
COLLECTIVE = re.compile(r"(all-|reduce-scatter|collective-).*(?<!-done)$")
COLUMNS = (
    *("preset", "chips", "HBM needed (of 16 GB)", "GFLOP", "HBM traffic (MB)", "FLOP/byte"),
    *("roofline (ms)", "compiler's estimate (ms)", "network training: roofline (ms)"),
    *("estimate (ms)", "collectives", "compile (s)"),
)
Row = dict[str, Any]

# One chip of TPU v5e.
PEAK_FLOPS = 197e12  # bfloat16, per second
BANDWIDTH = 819e9  # of HBM, bytes per second
CLOCK = 1.5e9  # cycles per second: the peak over 4 units of 128 x 128 multiply-adds
HBM = 16e9  # bytes


@contextlib.contextmanager
def chips(topology: str) -> Iterator[None]:
    """Within it the chips of a slice are what JAX has."""
    described = topologies.get_topology_desc(f"v5e:{topology}", "tpu", **DESCRIPTIONS[topology])
    with (
        mock.patch.object(jax, "devices", return_value=list(described.devices)),
        mock.patch.object(jax, "default_backend", return_value="tpu"),
    ):
        yield


def row_of(config: Config, shapes: Shapes, show: int, known: dict[str, Row]) -> Row:
    """A block of updates; presets that differ in what the images show share a program."""
    step, arguments = abstract_step(config, shapes)
    lowered = step.run_block.lower(*arguments, length=config.block)
    program = lowered.as_text()
    if program not in known:
        traced = {"traced_flops_of_all_chips": traced_flops(config, shapes)}
        known[program] = compiled_row(config, step, lowered, show) | traced
    return known[program]


def compiled_row(config: Config, step: Step, lowered: jax.stages.Lowered, show: int) -> Row:
    """Compile a block of updates; its figures. Prints the ``show`` dearest operations."""
    settings = {"chips": step.mesh.size, "chunk": config.chunk, "block": config.block}
    began = time.perf_counter()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return settings | {"fits": False, "reason": str(error).splitlines()[0]}
    compile_s = time.perf_counter() - began

    # One loop has no known length: the network training of an update.
    program = Program(compiled.as_text() or "")
    training_steps = mean_training_steps(step)
    update = list(program.operations((0,) if training_steps else ()))
    everything = list(program.operations((training_steps,) if training_steps else ()))
    of_update = totals(update, config.block)
    of_training = totals(everything, config.block) - of_update
    for operation in sorted(update, key=lambda o: -o.times * seconds(o))[:show]:
        print(described_operation(operation, config.block))
    memory = {
        name: getattr(compiled.memory_analysis(), f"{name}_size_in_bytes")
        for name in ("argument", "temp", "output", "alias", "generated_code")
    }
    needed = sum(memory.values()) - 2 * memory["alias"]
    xla = compiled.cost_analysis() or {}
    return settings | {
        "hbm": memory | {"needed": needed},
        "fits": needed <= HBM,
        "update": figures(*of_update),
        "training": figures(*of_training) | {"steps": training_steps} if training_steps else None,
        "cost_analysis": {"flops": xla["flops"], "bytes": xla["bytes accessed"]},
        "collectives": Counter(o.opcode for o in everything if COLLECTIVE.match(o.opcode)),
        "compile_s": compile_s,
    }


def abstract_step(
    config: Config, shapes: Shapes, *, streamed: bool = False
) -> tuple[Step, tuple[Any, ...]]:
    """The step, and its state, its training set and its key as shapes on the chips."""
    few = 1009  # training images, a length that nothing else has
    dataset = measure.generated(**(shapes | {"num_train": few}), num_test=shapes["classes"])
    step = Step(config, dataset, streamed=streamed)
    images = (dataset.num_classes, config.ipc, *dataset.image_shape)
    filled = (num_slots(dataset.num_classes, step.mesh), *images[1:])

    def arguments(key: jax.Array, images: jax.Array) -> tuple[State, TrainingSet, jax.Array]:
        return step.init(key, images), training_set(dataset, step.mesh), key

    def placed(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        sharding = NamedSharding(step.mesh, SPLIT if leaf.shape == filled else REPLICATED)
        full = tuple(shapes["num_train"] if length == few else length for length in leaf.shape)
        return jax.ShapeDtypeStruct(full, leaf.dtype, sharding=sharding)

    start = jax.ShapeDtypeStruct(images, jnp.float32)
    state, real, key = jax.tree.map(placed, jax.eval_shape(arguments, jax.random.key(0), start))
    if streamed:
        wanted = jax.eval_shape(step.positions, real.cells, key, 0).matched.shape
        size = math.prod(dataset.image_shape)
        sharding = NamedSharding(step.mesh, step.draws.specs()[0])
        rows = jax.ShapeDtypeStruct((config.block, *wanted, size), jnp.uint8, sharding=sharding)
        real = real._replace(images=rows, labels=jax.ShapeDtypeStruct((0,), jnp.int32))
    return step, (state, real, key)


def mean_training_steps(step: Step) -> float:
    """Steps of network training per update where the compiler does not know their number."""
    loops = step.config.outer_loops
    of_sets = (step.matched_network.training_steps(real=real) for real in (True, False))
    warmup, inner = map(sum, zip(*of_sets, strict=True))
    return (warmup + (loops - 1) * inner) / loops if loops > 1 else 0.0


def traced_flops(config: Config, shapes: Shapes) -> int:
    """Of one update without network training, on all chips."""
    step, arguments = abstract_step(replace(config, outer_loops=1), shapes)
    return measure.flops(partial(step.run_block, length=1), *arguments)


def totals(operations: list[Operation], updates: int) -> np.ndarray:
    """FLOPs, bytes of HBM and estimated seconds of one update."""
    each = [np.multiply(o.times, (o.flops, o.hbm_bytes, seconds(o))) for o in operations]
    return np.sum(each, axis=0) / updates


def seconds(operation: Operation) -> float:
    """The compiler's estimate; a copy that runs beside other work takes no time."""
    if operation.cycles is not None:
        return operation.cycles / CLOCK
    return 0.0 if operation.opcode.endswith("-start") else operation.hbm_bytes / BANDWIDTH


def figures(flops: float, hbm_bytes: float, estimate: float) -> dict[str, float]:
    """What the table shows of the totals."""
    return {
        "flops": flops,
        "hbm_bytes": hbm_bytes,
        "flops_per_byte": flops / max(hbm_bytes, 1.0),
        "roofline_ms": 1e3 * max(flops / PEAK_FLOPS, hbm_bytes / BANDWIDTH),
        "compiler_ms": 1e3 * estimate,
    }


def described_operation(operation: Operation, updates: int) -> str:
    """A line: milliseconds and bytes per update, how often it runs, what it is."""
    times = operation.times / updates
    return (
        f"{1e3 * times * seconds(operation):8.3f} ms {times * operation.hbm_bytes / 1e6:9.2f} MB "
        f"x{times:<5g} {operation.opcode:10} {operation.type_[:50]:50} {operation.source[-80:]}"
    )


def markdown(rows: list[Row]) -> str:
    """The table of the results."""
    lines = [" | ".join(COLUMNS), " | ".join(["---", "---", *["---:"] * (len(COLUMNS) - 2)])]
    for row in rows:
        lines.append(f"{row['preset']} | {row['chips']} of {row['topology']}")
        if "reason" in row:
            lines[-1] += " | over 16" + " | " * (len(COLUMNS) - 3)
            continue
        numbers = [row["hbm"]["needed"] / 1e9, row["update"]["flops"] / 1e9]
        numbers += [row["update"]["hbm_bytes"] / 1e6, row["update"]["flops_per_byte"]]
        for part in (row["update"], row["training"]):
            numbers += [part["roofline_ms"], part["compiler_ms"]] if part else [0.0, 0.0]
        numbers += [sum(row["collectives"].values()), row["compile_s"]]
        lines[-1] += "".join(f" | {number:.3g}" for number in numbers)
    return "".join(f"| {line} |\n" for line in lines)


def main() -> None:
    """Compile every preset for every topology, and write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    # The user's own images have any shape.
    names = [name for name in presets.names() if not name.startswith("images_")]
    parser.add_argument(
        "--presets", nargs="+", default=names, choices=names, help="others keep their rows"
    )
    parser.add_argument("--topologies", nargs="+", default=list(TOPOLOGIES), choices=TOPOLOGIES)
    parser.add_argument(
        "--set", nargs="+", default=[], help="settings, as chunk=64; written with --out alone"
    )
    parser.add_argument("--operations", type=int, default=0, help="print that many, dearest first")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    chosen = dict(setting.split("=", 1) for setting in options.set)
    out = options.out or (None if chosen else OUT)
    rows: dict[tuple[str, str], Row] = {}
    if out and out.exists():
        kept = json.loads(out.read_text())["rows"]
        rows = {(row["preset"], row["topology"]): row for row in kept if row["preset"] in names}
    known: dict[str, Row] = {}
    for preset, topology in product(options.presets, options.topologies):
        with chips(topology):
            config = configuration.make(presets.compose(preset) | chosen)
            found = row_of(config, SHAPES[config.data.name], options.operations, known)
        labels = {"preset": preset, "topology": topology, "settings": chosen}
        rows[preset, topology] = labels | found
        print(markdown([rows[preset, topology]]).splitlines()[-1], flush=True)
        if out:
            write(out, rows)


def write(out: Path, rows: dict[tuple[str, str], Row]) -> None:
    """The rows as JSON, and as a table beside it."""
    table = [rows[key] for key in sorted(rows)]
    versions = environment.describe() | {"libtpu": metadata.version("libtpu")}
    workdir.write_json(out, {"rows": table, **versions})
    workdir.write_atomically(out.with_suffix(".md"), markdown(table).encode())


if __name__ == "__main__":
    main()
