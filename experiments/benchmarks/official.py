"""The official PyTorch step and ours, timed in turn in one run.

python experiments/benchmarks/official.py --official FairDD [--data_dir DATA] [--runs 10]

FairDD is a checkout of github.com/zqhang/FairDD; PyTorch must be installed. Its main_DM.py and
main_DC.py run as they are in a process of their own; only what gives them data, evaluates and
trains networks in between is replaced in their module `utils`, and that is where they wait for
their turn. While one side is timed the other sleeps; on a machine whose speed drifts the ratios
still hold. A step renews all synthetic images once; the case `epoch` is one epoch of training an
evaluation network on the synthetic images.

The network is ConvNet (depth 3, width 128, 32x32), IPC 10, ten classes, ten groups: C-MNIST (FG),
or random images of its shape without --data_dir. The official step takes 256 real images per
class. Ours takes as many (proportional), or 8 of every class and group (stratified): 80 per class,
a lighter workload.
"""

import argparse
import importlib.util
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import measure
from official_program import BATCH_REAL, EPOCHS, IPC, PROGRAMS, Official
from rich.console import Console
from rich.table import Table

from fairdd_jax import config as configuration
from fairdd_jax import data, environment, presets, sharding
from fairdd_jax.data import DataConfig, Dataset, Split
from fairdd_jax.errors import ConfigError, FairDDError
from fairdd_jax.evaluate import Evaluator, Schedule
from fairdd_jax.start import initial_images
from fairdd_jax.step import Step
from fairdd_jax.train import labelled
from fairdd_jax.training_set import training_set
from fairdd_jax.workdir import write_json

OUT = measure.RESULTS / "official.json"
CASES = ("dm_vanilla", "dm_fairdd", "dc_vanilla", "dc_fairdd", "epoch")
# Evaluation networks that are trained in one call, besides one alone.
NETWORKS = 2
# Seconds between two turns, in which the threads of the side before go to sleep.
PAUSE = 0.3


class Side(NamedTuple):
    """One of those that are timed in turn."""

    name: str
    turn: Callable[[], float]
    """Takes a step, or some epochs; seconds of one."""
    about: dict[str, Any]


def our_step(method: str, fairness: str, sampling: str, dataset: Dataset) -> Side:
    """Our step as the preset has it, without the epochs of network training in between."""
    settings = presets.compose(f"cmnist_fg_{method}")
    settings |= {"ipc": IPC, "batch_real": BATCH_REAL, "inner_epochs": 0}
    config = configuration.make(settings | {"fairness": fairness, "sampling": sampling})
    step = Step(config, dataset)
    key = sharding.place(jax.random.key(0), step.mesh)
    state = step.init(key, initial_images(key, dataset, ipc=IPC, init=config.init).images)
    real = training_set(dataset, step.mesh)

    def turn() -> float:
        nonlocal state
        began = time.perf_counter()
        state, _ = jax.block_until_ready(step.run_block(state, real, key, length=1))
        return time.perf_counter() - began

    about = {"real_images_per_class": step.draws.sampler.batch_size, "first_call_s": turn()}
    turn()
    return Side(sampling, turn, about)


def our_epochs(networks: int, dataset: Dataset) -> Side:
    """Our training of evaluation networks; the seconds are those of one network's epoch."""
    config = configuration.make(presets.compose("cmnist_fg_dm"))
    # Testing is not timed: next to no test images.
    test = dataset.test
    dataset = replace(dataset, test=Split(test.images[:1], test.labels[:1], test.groups[:1]))
    evaluator = Evaluator(dataset, config.model, config.evaluate, chunk=config.chunk)
    key = jax.random.key(0)
    images, labels = labelled(initial_images(key, dataset, ipc=IPC, init=config.init).images)
    turns = itertools.count()

    def turn() -> float:
        own = jax.random.fold_in(key, next(turns))
        schedule = Schedule(EPOCHS, 0)
        began = time.perf_counter()
        evaluator.evaluate(images, labels, schedule=schedule, networks=networks, key=own)
        return (time.perf_counter() - began) / (EPOCHS * networks)

    about = {"networks": networks, "first_call_s": turn() * EPOCHS * networks}
    turn()
    return Side(f"{networks} network{'s' * (networks > 1)}", turn, about)


def compare(case: str, folder: Path, dataset: Dataset, runs: int) -> dict[str, Any]:
    """Warm up both sides of one case, and time them in turn."""
    method, _, fairness = case.partition("_")
    if method == "epoch":
        ours = [our_epochs(networks, dataset) for networks in (1, NETWORKS)]
        about, steps = {"networks": 1}, EPOCHS
    else:
        samplers = ("proportional", "stratified")
        ours = [our_step(method, fairness, sampling, dataset) for sampling in samplers]
        about, steps = {"real_images_per_class": BATCH_REAL}, 1
    with Official(folder, method, fairness, dataset) as official:
        sides = [Side("official", lambda: official.turn(steps), about), *ours]
        time.sleep(PAUSE)
        rate = measure.matmul_rate()
        taken: dict[str, list[float]] = {side.name: [] for side in sides}
        for _, side in itertools.product(range(runs), sides):
            time.sleep(PAUSE)
            taken[side.name].append(side.turn())
    rows = {side.name: side.about | measure.spread(taken[side.name]) for side in sides}
    for side in ours:
        rows[side.name]["official_over_this"] = _ratio(taken["official"], taken[side.name])
    return {"case": case, "matmul_gflops": rate / 1e9, **official.versions, "sides": rows}


def _ratio(official: list[float], ours: list[float]) -> dict[str, float]:
    """Median and range of the ratios of turns that followed each other."""
    ratios = [a / b for a, b in zip(official, ours, strict=True)]
    return {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)}


def table(rows: list[dict[str, Any]]) -> Table:
    """The rows for the eye."""
    result = Table("case", "side", "images", "seconds (range)", "official / this")
    result.title = "Seconds of one step, or of one network's epoch"
    result.caption = (
        "images: real ones per class; proportional is the official workload, stratified a lighter "
        "one, with fewer"
    )
    for row in rows:
        for name, side in row["sides"].items():
            low, middle, high = (f"{side[key]:.3g}" for key in ("min_s", "median_s", "max_s"))
            ratio = side.get("official_over_this")
            result.add_row(
                "" if ratio else row["case"],
                name,
                str(side.get("real_images_per_class", "")),
                f"{middle} ({low}-{high})",
                f"{ratio['median']:.2f} ({ratio['min']:.2f}-{ratio['max']:.2f})" if ratio else "",
            )
        result.add_section()
    return result


def check(folder: Path) -> None:
    """Raise ConfigError unless PyTorch and the official programs are there."""
    if importlib.util.find_spec("torch") is None:
        raise ConfigError("PyTorch is not installed; pip install torch")
    for name in PROGRAMS.values():
        if not (folder / name).is_file():
            raise ConfigError(
                f"--official {folder} has no {name}; give a checkout of github.com/zqhang/FairDD"
            )


def main() -> None:
    """Compare case by case; what is done is written after each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--official", type=Path, required=True, help="a checkout of FairDD")
    parser.add_argument("--data_dir", type=Path, help="folder with MNIST's IDX files")
    parser.add_argument("--runs", type=int, default=10, help="timed turns of every side")
    parser.add_argument("--only", choices=[*PROGRAMS, *CASES], help="a method or case")
    parser.add_argument("--out", type=Path, default=OUT, help="the JSON")
    options = parser.parse_args()
    sharding.use_all_cores()
    try:
        check(options.official)
        dataset = (
            data.load(DataConfig("cmnist_fg"), data_dir=options.data_dir)
            if options.data_dir
            else measure.generated()
        )
        rows: dict[str, dict[str, Any]] = {}
        if options.only and options.out.exists():  # the other cases stay
            rows = {row["case"]: row for row in json.loads(options.out.read_text())["cases"]}
        console = Console()
        for case in CASES:
            if case.startswith(options.only or ""):
                with console.status(case):
                    folder = options.official.absolute()
                    # An official step of this one takes most of a minute.
                    runs = max(3, options.runs // 3) if case == "dc_fairdd" else options.runs
                    rows[case] = compare(case, folder, dataset, runs)
                content = {"data": dataset.name, "ipc": IPC, "cases": list(rows.values())}
                write_json(options.out, content | environment.describe())
        console.print(table(list(rows.values())))
    except FairDDError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
