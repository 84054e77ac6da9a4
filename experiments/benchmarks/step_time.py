"""How long a matching update takes, and what it depends on: one factor at a time about a base.

python experiments/benchmarks/step_time.py [--only dm] [--factor groups] [--full] [--runs 10]
python experiments/benchmarks/step_time.py --feature_pass | --fairness_ratio | --plot

An update renews all synthetic images once; epochs of network training, those that gradient matching
takes in between and those of the evaluation, are rows of their own kind. Every case runs in a
process of its own, so that its peak memory is its own, on generated images. `--feature_pass` sets
the features of 2560 images against the matrix product and `--fairness_ratio` FairDD against
vanilla, the two timed in turn. The JSON is written after every case, its plot beside it at the
end; `--plot` draws it again.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from typing import Any

import cases
import measure
from cases import Case

from fairdd_jax import workdir

METHODS = ("dm", "dc", "dsa")
FACTORS: dict[str, tuple[Any, ...]] = {
    "fairness": ("vanilla", "fairdd"),
    "sampling": ("stratified", "proportional"),
    "groups": (2, 4, 6, 8, 10),
    "size": (32, 64, 96),
    "classes": (2, 10, 20, 50),
    "ipc": (1, 10, 50),
    "num_train": (5_000, 20_000, 60_000, 160_000),
    "chunk": (4, 8, 16, 32),
}
CROSSED = ("fairness", "sampling", "groups", "size")  # by --full
# What each method's default grid varies: all of them for all methods would take hours.
UPDATES = {
    "dm": tuple(FACTORS),
    "dc": (*CROSSED, "classes", "ipc"),
    "dsa": CROSSED,
}
# The evaluation of dsa is that of dm.
EPOCHS: dict[tuple[str, str], tuple[str, ...]] = {
    ("inner_epoch", "dc"): ("ipc",),
    ("inner_epoch", "dsa"): (),
    ("evaluation_epoch", "dm"): ("ipc",),
    ("evaluation_epoch", "dc"): (),
}
LABELS = {
    "sampling": "sampler",
    "groups": "groups, 8 images of each per class",
    "size": "image size (pixels)",
    "ipc": "synthetic images per class",
    "num_train": "training images",
    "chunk": "images at once (chunk)",
}


def vary(base: Case, names: tuple[str, ...]) -> Iterator[Case]:
    """The base case, and those that differ from it in one factor alone."""
    yield base
    for name in names:
        yield from (replace(base, **{name: value}) for value in FACTORS[name])


def grid(methods: tuple[str, ...], *, factor: str | None, full: bool, model: str) -> list[Case]:
    """The cases of a run, each once."""
    found: list[Case] = []
    for method in methods:
        base = Case(method=method, model=model)
        if full:
            values = product(*(FACTORS[name] for name in CROSSED))
            found += (replace(base, **dict(zip(CROSSED, v, strict=True))) for v in values)
        else:
            found += vary(base, (factor,) if factor else UPDATES[method])
    for (kind, method), names in EPOCHS.items():
        if method in methods and factor in (None, *names):
            found += vary(Case(kind, method, model=model), names)
    return list(dict.fromkeys(found))


def pairs(methods: tuple[str, ...], model: str) -> list[Case]:
    """The cases of FairDD against vanilla."""
    return [
        Case("fairness_ratio", method, sampling=sampling, model=model)
        for method, sampling in product(methods, FACTORS["sampling"])
    ]


def expected_seconds(case: Case, runs: int) -> float:
    """About how long a case takes on 2 CPU cores, with its start and its compiling.

    Counted in forward passes of an image: a gradient takes 3, a gradient's gradient 9.
    """
    pixels = (case.size / 32) ** 2
    start = 14 + 0.4 * case.num_train * pixels / 20_000
    if case.kind == "feature_pass":
        return start + 2 * runs
    if case.kind.endswith("epoch"):
        passes = 3.0 * case.classes * case.ipc * cases.EPOCHS
    else:
        real = 8 * case.groups if case.sampling == "stratified" else 256
        matching = case.method != "dm"
        passes = case.classes * (real * (3 if matching else 1) + case.ipc * (9 if matching else 3))
    times = 2 if case.kind == "fairness_ratio" else 1
    return times * (start + (1 + runs) * passes * pixels * 0.6e-3)


def measured(case: Case, runs: int) -> dict[str, Any]:
    """Measure a case in a process of its own: its row and environment, or its error."""
    command = [sys.executable, str(Path(cases.__file__)), json.dumps(asdict(case)), str(runs)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        return {"row": asdict(case) | {"error": f"exit status {done.returncode}"}}
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def line(row: dict[str, Any]) -> str:
    """A row for the eye: what differs from the base case, and the result."""
    base = asdict(Case(row["kind"], row["method"]))
    varied = " ".join(f"{name}={row[name]}" for name in base if row[name] != base[name])
    name = f"{row['kind']:16} {row['method']:3} {varied or 'base':32}"
    if "error" in row:
        return f"{name} {row['error']}"
    if "ratio" in row:
        return f"{name} {row['ratio']:.3f} ({row['ratio_min']:.3f} to {row['ratio_max']:.3f})"
    compiling = f", compiled in {row['compile_s']:.1f} s" if "compile_s" in row else ""
    return (
        f"{name} {row['median_s']:.4f} s ({row['min_s']:.4f} to {row['max_s']:.4f}), "
        f"{row['gflop_per_s']:.0f} GFLOP/s, {row['fraction_of_matmul']:.0%} of matmul{compiling}"
    )


def varying(rows: list[dict[str, Any]], kind: str, method: str, factor: str) -> dict[Any, Any]:
    """Rows of a kind and method that differ from the base in that factor alone, by its value."""
    base = asdict(Case(kind, method))
    found = {}
    for row in rows:
        fixed = (name for name in base if name not in (factor, "model"))
        if "median_s" in row and all(row[name] == base[name] for name in fixed):
            found[row["chunk_used" if factor == "chunk" else factor]] = row
    words = FACTORS[factor] if isinstance(FACTORS[factor][0], str) else ()
    return {value: found[value] for value in words or sorted(found) if value in found}


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw a panel per factor: median and range of the seconds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 11), layout="constrained")
    panels = figure.subplots(3, 3).ravel()
    updates = [("update", method) for method in METHODS]
    drawn = [*((updates, factor) for factor in FACTORS), (list(EPOCHS), "ipc")]
    for axes, (lines, factor) in zip(panels, drawn, strict=True):
        for kind, method in lines:
            found = varying(rows, kind, method, factor)
            if len(found) > 1:
                _draw(axes, found, factor, method if lines is updates else f"{kind}, {method}")
        axes.set_xlabel(LABELS.get(factor, factor))
        axes.set_ylabel("seconds per update" if lines is updates else "seconds per epoch")
        axes.set_visible(axes.has_data())
    limits = [limit for axes in panels[:-1] if axes.has_data() for limit in axes.get_ylim()]
    for axes in panels[:-1]:  # One scale: what is flat looks flat.
        axes.set_ylim(min(limits, default=0.1), max(limits, default=1.0))
    for axes in (panels[0], panels[-1]):
        if axes.has_data():
            axes.legend()
    figure.suptitle(
        "One factor at a time about 32x32 pixels, 10 groups, 10 classes, IPC 10, FairDD, "
        "stratified: median and range"
    )
    measure.save_figure(path, figure)


def _draw(axes: Any, found: dict[Any, Any], factor: str, label: str) -> None:
    """Draw a line through the rows of a method."""
    from matplotlib.ticker import NullLocator

    values = list(FACTORS[factor])
    numeric = not isinstance(values[0], str)
    if numeric:
        values = sorted({*values, *found})  # the default chunk may be one of its own
    places = dict(zip(values, values if numeric else range(len(values)), strict=True))
    middle = [row["median_s"] for row in found.values()]
    below = [row["median_s"] - row["min_s"] for row in found.values()]
    above = [row["max_s"] - row["median_s"] for row in found.values()]
    x = [places[value] for value in found]
    axes.errorbar(x, middle, [below, above], fmt="o-", capsize=3, markersize=4, label=label)
    if numeric:
        axes.set_xscale("log")
    else:
        axes.set_xlim(-0.5, len(values) - 0.5)
    axes.set_xticks(list(places.values()), [f"{v:,}" if numeric else v for v in values])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_yscale("log")
    measure.plain_log(axes.yaxis)
    axes.grid(alpha=0.3)


def main() -> int:
    """Measure every case; the exit status says whether one failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=METHODS, help="one method; the rows of the others stay")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--factor", choices=FACTORS, help="one factor")
    what.add_argument("--full", action="store_true", help=f"cross {', '.join(CROSSED)}: hours")
    what.add_argument("--feature_pass", action="store_true", help="features of 2560 images")
    what.add_argument("--fairness_ratio", action="store_true", help="FairDD over vanilla")
    what.add_argument("--plot", action="store_true", help="draw what --out holds")
    parser.add_argument("--runs", type=int, default=10, help="timed runs of every case")
    parser.add_argument("--model", default=Case.model, help="network")
    parser.add_argument("--out", type=Path, help="the JSON")
    options = parser.parse_args()
    methods = (options.only,) if options.only else METHODS
    name = "step_time"
    if options.feature_pass:
        name, todo = "feature_pass", [Case("feature_pass", model=options.model)]
    elif options.fairness_ratio:
        name, todo = "fairness_ratio", pairs(methods, options.model)
    else:
        todo = grid(methods, factor=options.factor, full=options.full, model=options.model)
    out = options.out or measure.RESULTS / f"{name}.json"
    if options.plot:
        plot(json.loads(out.read_text())["rows"], out.with_suffix(".png"))
        return 0
    minutes = sum(expected_seconds(case, options.runs) for case in todo) / 60
    print(f"{len(todo)} cases, about {minutes:.0f} minutes on 2 CPU cores", flush=True)
    results: dict[str, Any] = {"rows": []}
    if options.only and out.exists():  # the rows of the other methods stay
        kept = json.loads(out.read_text())["rows"]
        results["rows"] = [row for row in kept if row["method"] not in methods]
    for case in todo:
        result = measured(case, options.runs)
        results["rows"].append(result["row"])
        results["environment"] = result.get("environment", results.get("environment"))
        workdir.write_json(out, results)
        print(line(result["row"]), flush=True)
    if name == "step_time":
        plot(results["rows"], out.with_suffix(".png"))
    return int(any("error" in row for row in results["rows"]))


if __name__ == "__main__":
    sys.exit(main())
