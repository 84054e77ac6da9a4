"""Is the estimate of --dry_run true? Five whole runs beside what was said of them before.

python experiments/benchmarks/dry_run.py --data_dir DATA [--only demo cmnist_fg_dm]

Every dry run and every run is a process of its own, one after the other; the budgets are small, so
that a run takes one to three minutes on 2 CPU cores. Seconds are those of the whole process, as a
person waits for it, memory is what results.json says. What the JSON has already is not run again;
the table beside it is drawn from it.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import measure
from trials import write_tables

from fairdd_jax import environment, workdir

SCRIPT = Path(__file__).parents[1] / "run.py"

_ONE_NETWORK = "--evaluate.networks 1 --evaluate.epochs 60 --evaluate.uint8_networks 0"
# The command lines, but for --data_dir: scores of all kinds, updates of all kinds.
ROWS = {
    "demo": "--config demo",
    "cmnist_fg_dm": (
        "--config cmnist_fg_dm --steps 100 --evaluate.networks 2 --evaluate.epochs 60"
        " --evaluate.full_steps 40"
    ),
    "cmnist_bg_dm": (
        "--config cmnist_bg_dm --fairness vanilla --sampling proportional --steps 50"
        f" {_ONE_NETWORK} --evaluate.baselines none"
    ),
    "cmnist_fg_dc": f"--config cmnist_fg_dc --steps 1 {_ONE_NETWORK} --evaluate.baselines random",
    "cfmnist_fg_idc": (
        f"--config cfmnist_fg_idc --steps 1 --outer_loops 20 {_ONE_NETWORK}"
        " --evaluate.baselines random"
    ),
}


def compare(arguments: list[str]) -> dict[str, Any]:
    """A dry run, and then the run."""
    with tempfile.TemporaryDirectory() as folder:
        estimate = Path(folder) / "estimate.json"
        out = Path(folder) / "run"
        arguments = [*arguments, "--workdir", str(out)]
        dry_run_s = seconds([*arguments, "--dry_run", str(estimate)])
        run_s = seconds(arguments)
        results = [json.loads(path.read_text()) for path in sorted(out.rglob("results.json"))]
        said = json.loads(estimate.read_text())
    return {
        "dry_run_s": dry_run_s,
        "estimate": {name: said[name] for name in ("total_seconds", "peak_bytes", "seconds")},
        "run_s": run_s,
        "peak_memory_bytes": max(each["peak_memory_bytes"] for each in results),
        "timing": {
            name: sum(each["timing"][name] for each in results)
            for name in ("compile_s", "distill_s", "evaluate_s")
        },
        "environment": environment.describe(),
    }


def seconds(arguments: list[str]) -> float:
    """What a process of the runner takes; if it fails, so does this one."""
    began = time.perf_counter()
    done = subprocess.run([sys.executable, str(SCRIPT), *arguments], stdout=subprocess.DEVNULL)
    if done.returncode:
        sys.exit(done.returncode)  # it has said why
    return time.perf_counter() - began


def lines(results: dict[str, Any]) -> Iterator[str]:
    """The comparison as Markdown."""
    yield "# What a dry run says, and what is true\n"
    yield "Whole processes, data and compiling included; `dry_run.py`.\n"
    yield "| run | estimated s | true s | off by | estimated GiB | true GiB | dry run took s |"
    yield f"| --- |{' --- |' * 6}"
    for name in ROWS:
        if name not in results:
            continue
        row, said = results[name], results[name]["estimate"]
        memory = [size / 2**30 for size in (said["peak_bytes"], row["peak_memory_bytes"])]
        yield (
            f"| `{row['command']}` | {said['total_seconds']:.0f} | {row['run_s']:.0f} | "
            f"{100 * (said['total_seconds'] / row['run_s'] - 1):+.0f} % | {memory[0]:.2f} | "
            f"{memory[1]:.2f} | {row['dry_run_s']:.0f} |"
        )


def collect(names: list[str], out: Path, data_dir: Path | None) -> dict[str, Any]:
    """Run the rows that the JSON lacks, or has of another command, and return all of it."""
    results: dict[str, Any] = json.loads(out.read_text()) if out.exists() else {}
    for name in names:
        if results.get(name, {}).get("command") == ROWS[name]:
            continue
        where = [] if data_dir is None or name == "demo" else ["--data_dir", str(data_dir)]
        results[name] = {"command": ROWS[name], **compare([*ROWS[name].split(), *where])}
        workdir.write_json(out, results)
    return results


def main() -> int:
    """Run what is missing, and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", type=Path, help="folder with the IDX files")
    parser.add_argument("--only", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--out", type=Path, default=measure.RESULTS / "dry_run.json")
    options = parser.parse_args()
    write_tables(lines(collect(options.only, options.out, options.data_dir)), options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
