"""How an update scales over TPU v5e chips at the size of ImageNet-1k, by ahead-of-time compilation.

python experiments/benchmarks/tpu_scaling.py [--chips 8 32] [--ipc 1 10]

Needs what tpu_aot.py needs, and no TPU. FairDD DM of 1000 classes of 224 px in two groups, 16 real
images per class, the training set streamed. Written after every row; others keep theirs.

What is assumed: a chip takes the time that the compiler estimates for its operations one after the
other; then a reduction waits for a signal to cross the torus and back, 1 us per chip on the way
(what is reduced, the loss, is one number); the images of the next updates have arrived in time, and
the table has what every host of 8 chips reads for that. Efficiency is the time of the fewest chips
that have the memory, times these chips, over the same of the row.
"""

import argparse
import json
import sys
from itertools import product
from pathlib import Path

import measure
from tpu_aot import HBM, Row, abstract_step, chips, compiled_row

from fairdd_jax import config as configuration
from fairdd_jax import environment, workdir

TOPOLOGIES = {1: (1, 1), 4: (2, 2), 8: (2, 4), 32: (4, 8), 256: (16, 16)}
SHAPES = {"classes": 1000, "groups": 2, "size": 224, "num_train": 1_281_167}
SETTINGS = {
    "data.name": "imagenet_nette_s",  # for the groups alone
    "method": "dm",
    "model": "ConvNetD5",
    "sampling": "stratified",
    "per_cell": 8,
    "block": 1,
    "stream": "always",
}
# By images per class: as many as there is memory for, with the layers' outputs for the gradient.
CHUNKS = {1: 128, 10: 64}
HOP = 1e-6  # seconds
CHIPS_PER_HOST = 8
OUT = measure.RESULTS / "tpu_scaling.json"


def row_of(num_chips: int, ipc: int) -> Row:
    """One update on a slice: what the compiler says, and what is assumed of the rest."""
    sides = TOPOLOGIES[num_chips]
    with chips("x".join(map(str, sides))):
        config = configuration.make(SETTINGS | {"ipc": ipc, "chunk": CHUNKS[ipc]})
        step, arguments = abstract_step(config, SHAPES, streamed=True)
        lowered = step.run_block.lower(*arguments, length=config.block)
        row = compiled_row(config, step, lowered, 0)
    used = step.mesh.size
    labels = {"slice": num_chips, "ipc": ipc, "mesh": dict(step.mesh.shape), "chunk": config.chunk}
    if "update" not in row:
        return row | labels
    reductions = sum(row["collectives"].values())
    across = sum(side // 2 for side in sides)  # of a torus
    collective_s = reductions * 2 * across * HOP
    images = step.draws.sampler.batch_size * SHAPES["classes"] * 3 * SHAPES["size"] ** 2
    return (
        row
        | labels
        | {
            "seconds": row["update"]["compiler_ms"] / 1e3 + collective_s,
            "collective_s": collective_s,
            "bytes_per_host": images / used * min(used, CHIPS_PER_HOST),
        }
    )


def markdown(rows: list[Row]) -> str:
    """The table."""
    columns = ["IPC", "chips", "mesh", "HBM needed (of 16 GB)", "roofline (ms)", "update (ms)"]
    columns += ["of it collectives (ms)", "efficiency", "a host reads (GB/s)"]
    lines = [" | ".join(columns), " | ".join(["---:"] * len(columns))]
    for row in rows:
        mesh = ",".join(f"{axis}={size}" for axis, size in row["mesh"].items())
        cells = [str(row["ipc"]), str(row["slice"]), mesh]
        if "seconds" in row:
            cells += [f"{row['hbm']['needed'] / 1e9:.3g}{'' if row['fits'] else ', too much'}"]
            numbers = [row["update"]["roofline_ms"], 1e3 * row["seconds"]]
            numbers += [1e3 * row["collective_s"]]
            cells += [f"{number:.3g}" for number in numbers]
            share = efficiency(row, rows)
            cells += [f"{share:.0%}" if row["fits"] else "-"]
            cells += [f"{row['bytes_per_host'] / row['seconds'] / 1e9:.2g}"]
        else:
            cells += ["over 16", *["-"] * 5]
        lines.append(" | ".join(cells))
    return "".join(f"| {line} |\n" for line in lines)


def efficiency(row: Row, rows: list[Row]) -> float:
    """Chip seconds of the smallest slice with the memory, over those of this row."""
    fitting = [r for r in rows if r["fits"] and r["ipc"] == row["ipc"]]
    least = min(fitting, key=lambda r: int(r["slice"]), default=row)
    share: float = least["seconds"] * least["slice"] / (row["seconds"] * row["slice"])
    return share


def main() -> int:
    """Compile what is asked for, and write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--chips", nargs="+", type=int, default=list(TOPOLOGIES), choices=TOPOLOGIES
    )
    parser.add_argument("--ipc", nargs="+", type=int, default=list(CHUNKS), choices=list(CHUNKS))
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    kept = json.loads(options.out.read_text())["rows"] if options.out.exists() else []
    rows = {(row["ipc"], row["slice"]): row for row in kept}
    for ipc, num_chips in product(options.ipc, options.chips):
        rows[ipc, num_chips] = row_of(num_chips, ipc)
        table = [rows[key] for key in sorted(rows)]
        print(markdown([rows[ipc, num_chips]]).splitlines()[-1], flush=True)
        workdir.write_json(options.out, {"rows": table, "hbm": HBM, **environment.describe()})
        workdir.write_atomically(options.out.with_suffix(".md"), markdown(table).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
