"""Memory and time to the first step on a data set of CelebA's size, with generated images.

python experiments/benchmarks/large_set.py [--method dm]

162,770 images of 64 x 64 x 3, two classes, two groups, in memory. Everything counts from the start
of the process: imports, generating, moving to the device, compiling.
"""

import argparse
import time

BEGAN = time.perf_counter()

import jax  # noqa: E402
import measure  # noqa: E402

from fairdd_jax import config as configuration  # noqa: E402
from fairdd_jax import environment, presets, sharding, workdir  # noqa: E402
from fairdd_jax.loop import run_updates  # noqa: E402
from fairdd_jax.start import initial_images  # noqa: E402


def main() -> None:
    """Take a few updates and write what they needed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--method", default="dm", help="matching method")
    parser.add_argument("--images", type=int, default=162_770, help="size of the training set")
    options = parser.parse_args()
    sharding.use_all_cores()
    dataset = measure.generated(classes=2, groups=2, size=64, num_train=options.images)
    generated_s = time.perf_counter() - BEGAN
    settings = presets.compose_parts(options.method) | {"data.name": "generated"}
    config = configuration.make(settings | {"log_every": 1, "steps": 3})
    key = jax.random.key(0)
    images = initial_images(key, dataset, ipc=config.ipc, init=config.init).images
    lines = run_updates(config, dataset, key=key, images=images)
    first = next(lines)
    first_step_s = time.perf_counter() - BEGAN
    step_s = [line.step_seconds for line in lines]
    row = {
        "method": options.method,
        "images_mib": dataset.train.images.nbytes / 2**20,
        "peak_memory_mib": environment.peak_memory() / 2**20,
        "generated_s": generated_s,
        "compile_s": first.compile_seconds,
        "start_to_first_step_s": first_step_s,
        "step_s": min(step_s),
        **environment.describe(),
    }
    workdir.write_json(measure.RESULTS / f"large_set_{options.method}.json", row)
    over = row["peak_memory_mib"] - row["images_mib"]
    print(
        f"{row['images_mib']:.0f} MiB of images, peak {over:.0f} MiB more; first step after "
        f"{first_step_s:.1f} s, generating {generated_s:.1f} s; {row['step_s']:.2f} s a step"
    )


if __name__ == "__main__":
    main()
