"""Decoding and caching JPEGs, and streaming a set that is larger than the memory.

python experiments/benchmarks/images.py [--images 20000] [--stream_gb 4] [--limit_gb 2]

Decoding: generated JPEGs of 178x218 pixels in CelebA's layout are cut, scaled to 64x64 and kept;
the first start and the second are processes of their own. Streaming: a generated set of images
on disk is distilled (DM, two classes, two groups, 64x64) under a limit of the process's data (its
anonymous memory, RLIMIT_DATA) that is smaller than the set; how long each update and each wait for
its images takes is told by the median and the longest.
"""

import argparse
import io
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import measure
import numpy as np
from PIL import Image

from fairdd_jax import config as configuration
from fairdd_jax import data, environment, presets, sharding, stream, workdir
from fairdd_jax.data import DataConfig, Dataset, Split
from fairdd_jax.prefetch import prefetch
from fairdd_jax.start import initial_images
from fairdd_jax.step import Step

PIXELS = (218, 178)  # rows, columns
SIZE = 64
UPDATES = 40


def write_jpegs(folder: Path, count: int) -> int:
    """CelebA's layout with that many smooth random images; their bytes in all."""
    images = folder / "img_align_celeba"
    images.mkdir(parents=True)

    def write(number: int) -> int:
        rng = np.random.default_rng(number)
        coarse = Image.fromarray(rng.integers(0, 256, (28, 23, 3), np.uint8))
        fine = np.asarray(coarse.resize(PIXELS[::-1], Image.Resampling.BICUBIC), np.int16)
        noisy = np.clip(fine + rng.integers(-8, 9, fine.shape), 0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(noisy).save(buffer, "JPEG", quality=90)
        (images / f"{number:06d}.jpg").write_bytes(buffer.getvalue())
        return len(buffer.getvalue())

    numbers = range(1, count + 1)
    total = sum(prefetch(write, numbers, workers=2, pieces=64))
    rng = np.random.default_rng(0)
    values = rng.choice(["-1", " 1"], (count, 2))
    rows = [f"{n:06d}.jpg {a} {b}" for n, (a, b) in zip(numbers, values, strict=True)]
    header = [str(count), "Attractive Male "]
    (folder / "list_attr_celeba.txt").write_text("\n".join([*header, *rows]) + "\n")
    parts = [f"{n:06d}.jpg {2 if n % 10 == 0 else 0}" for n in numbers]
    (folder / "list_eval_partition.txt").write_text("\n".join(parts) + "\n")
    return total


def start(folder: Path, cache: Path) -> dict[str, float]:
    """Load the set once."""
    decoded = 0

    def count(images: int) -> None:
        nonlocal decoded
        decoded += images

    before = environment.peak_memory()
    began = time.perf_counter()
    dataset = data.load(DataConfig("celeba"), data_dir=folder, cache_dir=cache, on_decoded=count)
    seconds = time.perf_counter() - began
    return {
        "images": len(dataset.train) + len(dataset.test),
        "decoded": decoded,
        "seconds": seconds,
        "images_per_s": decoded / seconds,
        "peak_memory_bytes": environment.peak_memory(),
        "peak_memory_before_bytes": before,
    }


def write_set(folder: Path, gigabytes: float) -> None:
    """A generated set of that size as a file of uint8 images."""
    count = int(gigabytes * 1e9 / (SIZE * SIZE * 3))
    shape = (count, SIZE, SIZE, 3)
    rng = np.random.default_rng(0)
    with (folder / "images.npy").open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for begin in range(0, count, 4096):
            file.write(rng.bytes((min(4096, count - begin)) * SIZE * SIZE * 3))


def streamed(folder: Path, limit: int) -> dict[str, Any]:
    """Distil the set under a limit of the process's data."""
    sharding.use_all_cores()
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    images = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
    numbers = np.arange(len(images))
    train = Split(images, numbers % 2, numbers // 2 % 2)
    test = Split(np.array(images[:8]), numbers[:8] % 2, numbers[:8] // 2 % 2)
    names = ("a", "b")
    dataset = Dataset("generated", train, test, names, names, (0.5,) * 3, (0.5,) * 3)
    settings = presets.compose_parts("dm") | {"data.name": "generated", "stream": "always"}
    config = configuration.make(settings | {"steps": UPDATES})
    step = Step(config, dataset, streamed=True)
    key = sharding.place(jax.random.key(0), step.mesh)
    state = step.init(key, initial_images(key, dataset, ipc=config.ipc, init=config.init).images)
    feed = stream.blocks(step, dataset, key, [1] * UPDATES)
    waits: list[float] = []
    updates: list[float] = []
    for block in feed_times(feed, waits.append):
        began = time.perf_counter()
        state, _ = jax.block_until_ready(step.run_block(state, block, key, length=1))
        updates.append(time.perf_counter() - began)
    real = dataset.num_classes * step.draws.sampler.batch_size
    # The first has to wait for its images and to compile.
    waits, updates = waits[1:], updates[1:]
    return {
        "set_bytes": train.images.nbytes,
        "limit_bytes": limit,
        "peak_memory_bytes": environment.peak_memory(),
        "update_s": statistics.median(updates),
        "wait_median_s": statistics.median(waits),
        "wait_longest_s": max(waits),
        "images_per_s": real / statistics.median(updates),
    }


def feed_times(feed: Any, tell: Callable[[float], None]) -> Any:
    """The items of an iterator; tells how long each was waited for."""
    while True:
        began = time.perf_counter()
        try:
            item = next(feed)
        except StopIteration:
            return
        tell(time.perf_counter() - began)
        yield item


def in_own_process(part: str, *arguments: object) -> dict[str, Any]:
    """A part of the benchmark whose peak memory is its own."""
    command = [sys.executable, __file__, "--part", part, *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    """Generate, measure, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--stream_gb", type=float, default=4.0)
    parser.add_argument("--limit_gb", type=float, default=2.0)
    parser.add_argument("--out", type=Path, default=measure.RESULTS / "images.json")
    parser.add_argument("--part", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        name, *arguments = options.part
        if name == "start":
            print(json.dumps(start(Path(arguments[0]), Path(arguments[1]))))
        else:
            print(json.dumps(streamed(Path(arguments[0]), int(float(arguments[1])))))
        return
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        folder, cache = Path(place, "celeba"), Path(place, "cache")
        results["jpeg_bytes"] = write_jpegs(folder, options.images)
        for which in ("first_start", "second_start"):
            results[which] = in_own_process("start", folder, cache)
            print(which, results[which], flush=True)
        write_set(Path(place), options.stream_gb)
        results["stream"] = in_own_process("stream", place, options.limit_gb * 1e9)
        print("stream", results["stream"], flush=True)
    workdir.write_json(options.out, results | environment.describe())


if __name__ == "__main__":
    main()
