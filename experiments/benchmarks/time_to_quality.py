"""Accuracy and DEO against seconds of distillation: full C-MNIST (FG), DM, both samplers.

python experiments/benchmarks/time_to_quality.py --data_dir DATA [--epochs 1000]
    [--official_json experiments/results/benchmarks/official.json] [--plot]

Each curve distils with the preset cmnist_fg_dm, and at some numbers of updates scores the float
images with fresh networks. Seconds count compiling and updates, not loading and scoring. A curve
ends early once two scores in a row reach the goal. An official iteration matches as many images as
an update of the proportional sampler, so that the seconds of the one times the number of the other
estimate what the official program needs. The JSON is written after every score.
"""

import argparse
import itertools
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import measure

from fairdd_jax import config as configuration
from fairdd_jax import data, environment, presets, sharding, workdir
from fairdd_jax.config import Config
from fairdd_jax.data import Dataset
from fairdd_jax.errors import FairDDError
from fairdd_jax.evaluate import Evaluator, Schedule
from fairdd_jax.loop import run_updates
from fairdd_jax.start import initial_images
from fairdd_jax.train import labelled

ACCURACY, DEO_M = 0.93, 0.17  # the goal
UPDATES = [150, 250, 400, 700]
VANILLA_UPDATES = [50, 150]  # its scores hardly move
CURVES = ("stratified fairdd", "proportional fairdd", "stratified vanilla", "proportional vanilla")

Point = dict[str, Any]
Curve = dict[str, Any]


def points(
    config: Config, dataset: Dataset, evaluator: Evaluator, at: list[int]
) -> Iterator[Point]:
    """Distil, and score the images after each of those numbers of updates."""
    init, distil, evaluate = jax.random.split(jax.random.key(config.seed), 3)
    start = initial_images(init, dataset, ipc=config.ipc, init=config.init).images
    seconds, done = 0.0, 0
    for line in run_updates(config, dataset, key=distil, images=start):
        seconds += (line.update - done) * line.step_seconds
        done = line.update
        if done not in at:
            continue
        images, labels = labelled(line.images)
        per_epoch = evaluator.trainer.steps_per_epoch(len(images))
        schedule = Schedule.of_synthetic(config.evaluate.epochs, per_epoch)
        count = config.evaluate.networks
        scores = evaluator.evaluate(
            images, labels, schedule=schedule, networks=count, key=evaluate
        ).summary()
        yield {
            "update": done,
            "seconds": line.compile_seconds + seconds,
            "compile_s": line.compile_seconds,
            "step_s": line.step_seconds,
            **{score: scores[score]["mean"] for score in ("accuracy", "deo_max", "deo_mean")},
        }


def good(point: Point) -> bool:
    """Whether a score reaches the goal."""
    return point["accuracy"] >= ACCURACY and (point["deo_max"] or 0.0) <= DEO_M


def reached(found: list[Point]) -> dict[str, Any] | None:
    """The first of two scores in a row that reach the goal, else the first that does."""
    firsts = [point for point in found if good(point)]
    runs = [a for a, b in itertools.pairwise(found) if good(a) and good(b)]
    if not firsts:
        return None
    first = (runs or firsts)[0]
    return {"update": first["update"], "seconds": first["seconds"], "confirmed": bool(runs)}


def official_estimate(curves: dict[str, Curve], step_s: float) -> dict[str, Any]:
    """Seconds of the official program if it needs the updates that our proportional run needed."""
    ours = curves.get("proportional fairdd", {}).get("reached")
    estimate = ours and {"updates": ours["update"], "seconds": ours["update"] * step_s}
    return {"step_s": step_s, "reached": estimate}


def official_step(path: Path) -> float:
    """Seconds of an official DM iteration with FairDD, from the JSON of official.py."""
    cases = {case["case"]: case["sides"] for case in json.loads(path.read_text())["cases"]}
    return float(cases["dm_fairdd"]["official"]["median_s"])


def plot(results: dict[str, Any], path: Path) -> None:
    """Draw accuracy and DEO_M against the seconds, with the goal."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    panels = figure.subplots(1, 2)
    official = (results.get("official") or {}).get("reached")
    for axes, score, name, goal in zip(
        panels, ("accuracy", "deo_max"), ("accuracy", "DEO_M"), (ACCURACY, DEO_M), strict=True
    ):
        for curve, content in results["curves"].items():
            seconds = [point["seconds"] for point in content["points"]]
            values = [point[score] for point in content["points"]]
            style = "o-" if content["fairness"] == "fairdd" else "s--"
            colour = "C0" if content["sampling"] == "stratified" else "C1"
            axes.plot(seconds, values, style, markersize=4, color=colour, label=curve)
        axes.axhline(goal, color="grey", linestyle=":", label="goal")
        if official:
            text = "official at the goal, estimated"
            axes.axvline(official["seconds"], color="black", linestyle="-.", label=text)
        axes.set_xscale("log")
        measure.plain_log(axes.xaxis)
        axes.set_xlabel("seconds of distillation, compiling included")
        axes.set_ylabel(name)
        axes.grid(alpha=0.3)
    panels[0].legend(fontsize=8)
    first = next(iter(results["curves"].values()))
    figure.suptitle(f"C-MNIST (FG), DM, IPC {first['ipc']}, scored after {first['epochs']} epochs")
    measure.save_figure(path, figure)


def main() -> int:
    """Distil and score curve after curve."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", type=Path, help="folder with MNIST's IDX files")
    parser.add_argument("--only", nargs="+", choices=CURVES, default=CURVES, help="curves")
    parser.add_argument(
        "--updates", type=int, nargs="+", metavar="N", default=UPDATES, help="when FairDD is scored"
    )
    parser.add_argument(
        "--vanilla_updates", type=int, nargs="+", metavar="N", default=VANILLA_UPDATES
    )
    parser.add_argument("--epochs", type=int, default=1000, help="of training the networks")
    parser.add_argument("--networks", type=int, default=1, help="per score")
    parser.add_argument("--ipc", type=int, default=10, help="synthetic images per class")
    parser.add_argument("--model", default="ConvNet", help="network")
    parser.add_argument("--seed", type=int, default=0)
    official = parser.add_mutually_exclusive_group()
    official.add_argument("--official_step_s", type=float, help="seconds per official iteration")
    official.add_argument("--official_json", type=Path, help="what official.py wrote")
    parser.add_argument("--plot", action="store_true", help="compute nothing, draw --out again")
    parser.add_argument("--out", type=Path, default=measure.RESULTS / "time_to_quality.json")
    options = parser.parse_args()
    sharding.use_all_cores()
    try:
        run(options)
    except FairDDError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def run(options: argparse.Namespace) -> None:
    """Compute the curves that are asked for, those in the JSON otherwise stay; draw them all."""
    results: dict[str, Any] = {"curves": {}}
    if options.plot or options.only != CURVES:
        results = json.loads(options.out.read_text()) if options.out.exists() else results
    if not options.plot:
        compute(options, results)
    step_s = options.official_step_s
    if options.official_json:
        step_s = official_step(options.official_json)
    if step_s:
        results["official"] = official_estimate(results["curves"], step_s)
        workdir.write_json(options.out, results)
    plot(results, options.out.with_suffix(".png"))


def compute(options: argparse.Namespace, results: dict[str, Any]) -> None:
    """Put the curves into the results, and these into the JSON after every score."""
    configs = {name: settings(options, name) for name in options.only}
    config, _ = next(iter(configs.values()))
    dataset = data.load(config.data, data_dir=options.data_dir)
    evaluator = Evaluator(dataset, config.model, config.evaluate, chunk=config.chunk)
    results["environment"] = environment.describe()
    for name, (config, at) in configs.items():
        found: list[Point] = []
        for point in points(config, dataset, evaluator, at):
            found.append(point)
            results["curves"][name] = {
                "sampling": config.sampling,
                "fairness": config.fairness,
                "ipc": config.ipc,
                "model": config.model,
                "seed": config.seed,
                "epochs": config.evaluate.epochs,
                "networks": config.evaluate.networks,
                "points": found,
                "reached": reached(found),
            }
            workdir.write_json(options.out, results)
            print(
                f"{name}: {point['update']} updates, {point['seconds']:.1f} s, accuracy "
                f"{point['accuracy']:.4f}, DEO_M {point['deo_max']}, DEO_A {point['deo_mean']}",
                flush=True,
            )
            if len(found) > 1 and all(map(good, found[-2:])):
                break


def settings(options: argparse.Namespace, name: str) -> tuple[Config, list[int]]:
    """Configuration of a curve, and after how many updates it is scored."""
    sampling, fairness = name.split()
    at = options.vanilla_updates if fairness == "vanilla" else options.updates
    chosen = {
        "sampling": sampling,
        "fairness": fairness,
        "ipc": options.ipc,
        "model": options.model,
        "seed": options.seed,
        "steps": max(at),
        "log_every": math.gcd(*at),
        "evaluate.epochs": options.epochs,
        "evaluate.networks": options.networks,
    }
    return configuration.make(presets.compose("cmnist_fg_dm") | chosen), at


if __name__ == "__main__":
    sys.exit(main())
