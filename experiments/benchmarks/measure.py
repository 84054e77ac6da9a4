"""What the benchmarks share: generated data, timing, floating-point operations, plots."""

import io
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from fairdd_jax import workdir
from fairdd_jax.data import Dataset, Split
from fairdd_jax.sharding import aligned_empty

RESULTS = Path(__file__).parents[1] / "results" / "benchmarks"


def generated(
    *,
    classes: int = 10,
    groups: int = 10,
    size: int = 32,
    num_train: int = 20_000,
    num_test: int = 2_000,
    channels: int = 3,
    bias: float = 0.9,
    seed: int = 0,
) -> Dataset:
    """Random images; a class has ``bias`` of its images in its own group, the rest in the others.

    Speed does not depend on what the images show, but DC's does on how the groups are filled.
    """
    rng = np.random.default_rng(seed)

    def split(num_images: int) -> Split:
        images = aligned_empty((num_images, size, size, channels), np.uint8)
        for part in np.array_split(images, -(-num_images // 5_000)):
            part[...] = rng.integers(0, 256, part.shape, np.uint8)
        labels = np.arange(num_images) % classes
        own = rng.random(num_images) < bias
        draw = rng.integers(0, groups, num_images)
        return Split(
            images,
            labels.astype(np.int32),
            np.where(own, labels % groups, draw).astype(np.int32),
        )

    names = tuple(map(str, range(max(classes, groups))))
    half = (0.5,) * channels
    return Dataset(
        "generated", split(num_train), split(num_test), names[:classes], names[:groups], half, half
    )


def seconds(function: Callable[[], Any], *, runs: int, warmup: int = 1) -> list[float]:
    """Seconds of every call, the first ``warmup`` calls left out; the result is waited for."""
    taken = []
    for run in range(warmup + runs):
        began = time.perf_counter()
        jax.block_until_ready(function())
        if run >= warmup:
            taken.append(time.perf_counter() - began)
    return taken


def spread(taken: list[float]) -> dict[str, float]:
    """Median, range and interquartile range of seconds."""
    low, high = np.percentile(taken, [25, 75])
    return {
        "median_s": statistics.median(taken),
        "min_s": min(taken),
        "max_s": max(taken),
        "iqr_s": float(high - low),
        "runs": len(taken),
    }


def matmul_rate(size: int = 2048, *, runs: int = 10) -> float:
    """The machine's own float32 rate: FLOP/s of a square matrix product, the best of some runs."""
    a = jnp.ones((size, size), jnp.float32)
    product = jax.jit(lambda a: jnp.dot(a, a, precision="highest"))
    return 2 * size**3 / min(seconds(lambda: product(a), runs=runs, warmup=2))


def flops(function: Callable[..., Any], *arguments: Any) -> int:
    """Operations of the convolutions and matrix products that one call of a function takes.

    Counted in its jaxpr: a scan as often as it runs, what every device of a mesh does as often as
    there are devices, the dearest branch of a conditional, a ``while`` of unknown length once.
    """
    return _count(jax.make_jaxpr(function)(*arguments).jaxpr)


def _count(jaxpr: core.Jaxpr) -> int:
    return sum(_of_equation(equation) for equation in jaxpr.eqns)


def _of_equation(equation: core.JaxprEqn) -> int:
    parameters = equation.params
    inputs: list[Any] = [variable.aval for variable in equation.invars]
    outputs: list[Any] = [variable.aval for variable in equation.outvars]
    match equation.primitive.name:
        case "conv_general_dilated":
            kernel = inputs[1].shape
            features = kernel[parameters["dimension_numbers"].rhs_spec[0]]
            return 2 * outputs[0].size * math.prod(kernel) // features
        case "dot_general":
            (contracted, _), _ = parameters["dimension_numbers"]
            shape = inputs[0].shape
            return 2 * outputs[0].size * math.prod(shape[axis] for axis in contracted)
        case "cond":
            return max(_count(branch.jaxpr) for branch in parameters["branches"])
        case "scan":
            return parameters["length"] * _count(parameters["jaxpr"].jaxpr)
        case "shard_map":  # every device does its part
            return parameters["mesh"].size * _count(parameters["jaxpr"])
    inner = (getattr(value, "jaxpr", value) for value in parameters.values())
    return sum(_count(value) for value in inner if hasattr(value, "eqns"))


def save_figure(path: Path, figure: Any) -> None:
    """Write a figure of matplotlib as PNG."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=80)
    workdir.write_atomically(path, picture.getvalue())


def plain_log(axis: Any) -> None:
    """Ticks of a logarithmic axis at 1, 2 and 5 times the powers of ten, as plain numbers."""
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
