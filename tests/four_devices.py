"""Run by test_sharding.py in a process of its own: the same work on four devices and on one.

Writes what it measured to the .npz file that the command line names.
"""

import os
import sys

import jax
import numpy as np
from jax.sharding import Mesh
from test_loop import settings

from fairdd_jax import evaluate, sharding, step
from fairdd_jax.config import EvaluateConfig
from fairdd_jax.data import Dataset
from fairdd_jax.evaluate import Evaluator
from fairdd_jax.loop import run_updates
from fairdd_jax.schedule import Schedule
from fairdd_jax.start import initial_images

SIDE = 8
SHARES = jax.sharding.PartitionSpec(sharding.AXES)
DSA = "flip_crop"
# Method, number of classes, and what differs from the settings of test_loop.py. A network that is
# trained in batches of six has a last batch of two, one in batches of seven a last one of four.
RUNS = {
    "dm": ("dm", 3, {"fairness": "cobra", "warmup_epochs": 2}),
    "dc": ("dc", 4, {"inner_epochs": 2, "lr_net": 0.1, "batch_train": 6}),
    "dsa": (
        "dsa",
        4,
        {"inner_epochs": 2, "lr_net": 0.1, "model": "ConvNetD1W8BN", "dsa_strategy": DSA},
    ),
    "lff": (
        "dm",
        4,
        {"warmup_real": 90, "debias": "lff", "lr_net": 0.1, "batch_train": 7, "augment_net": DSA},
    ),
}
# Number of images, images per optimiser step, and augmentation.
TRAININGS = {"one batch": (10, 256, "none"), "batches": (30, 8, DSA)}
NUM_TEST = 37


def data_set(num_classes, num_train=60):
    """Random images whose brightness tells the class and whose blue tells the group."""

    def split(num, seed):
        rng = np.random.default_rng(seed)
        labels, groups = np.arange(num) % num_classes, rng.integers(0, 2, num)
        images = rng.integers(0, 90, (num, SIDE, SIDE, 3)) + 40 * labels[:, None, None, None]
        images[..., 2] += 40 * groups[:, None, None]
        return images.astype(np.uint8), labels, groups

    return Dataset.from_arrays(split(num_train, 0), split(NUM_TEST, 1), name="toy")


def let_be_seen(num_devices):
    """Let steps and evaluators use that many devices at most."""

    def mesh_for(count, *args, **options):
        return real(count, *args, **options) if num_devices > 1 else real(count, "class=1")

    real = sharding.mesh_for
    step.mesh_for = mesh_for
    devices = np.array(jax.devices()[:num_devices])
    evaluate.network_mesh = lambda: Mesh(devices[None], (sharding.NETWORK, sharding.DATA))


def distil(name):
    """Three updates as the loop runs them, one to a call."""
    method, num_classes, changes = RUNS[name]
    steps = {"steps": 3} if method == "dm" else {"steps": 1, "outer_loops": 3}
    config = settings(method, **steps, **changes)
    dataset = data_set(num_classes)
    key = jax.random.key(0)
    before = initial_images(key, dataset, ipc=config.ipc, init=config.init).images
    (last,) = run_updates(config, dataset, key=key, images=before)
    return {
        "change": last.images - before,
        "loss": last.loss,
        "devices": step.Step(config, dataset).mesh.size,
    }


def many_updates():
    """So many calls between two lines of the log that the devices once waited for ever."""
    config = settings(steps=300, log_every=300)
    dataset = data_set(4)
    key = jax.random.key(0)
    images = initial_images(key, dataset, ipc=config.ipc, init=config.init).images
    (last,) = run_updates(config, dataset, key=key, images=images)
    return last.update


def train(name):
    """Two networks, trained and then tested, with calls of every kind."""
    num_images, batch_size, strategy = TRAININGS[name]
    dataset = data_set(2, num_images)
    config = EvaluateConfig(batch_size=batch_size, augment=strategy, lr=0.05)
    evaluator = Evaluator(dataset, "ConvNetD1W8", config, chunk=3)
    images, labels = sharding.place(
        (dataset.train.images, dataset.train.labels.astype(np.int32)), evaluator.mesh
    )
    schedule = Schedule(evaluate._STEPS_PER_CALL["cpu"] + 2, 3)
    keys = jax.random.split(jax.random.key(0), 2)
    start = evaluator._init(jax.vmap(lambda key: jax.random.split(key)[0])(keys))
    variables = evaluator.train(images, labels, schedule=schedule, keys=keys)
    change = jax.tree.map(jax.numpy.subtract, jax.device_get(variables), jax.device_get(start))
    inputs = dataset.normalise(dataset.test.images)
    expected = [
        evaluator.network.apply(network, inputs).logits.argmax(-1)
        for network in (jax.tree.map(lambda x, i=i: np.asarray(x)[i], variables) for i in (0, 1))
    ]
    return {
        "change": np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(change)]),
        "predictions": evaluator.predict(variables, dataset.test.images),
        "expected predictions": np.stack(expected),
        "programs": evaluator._run._cache_size(),
        "devices": evaluator.mesh.size,
    }


def networks_side_by_side(num_devices):
    """Five networks as accelerators train them: each on one device, and as many as there are."""
    on_cpu = evaluate.on_cpu
    devices = np.array(jax.devices()[:num_devices])
    evaluate.on_cpu = lambda: False
    evaluate.network_mesh = lambda: Mesh(devices[:, None], (sharding.NETWORK, sharding.DATA))
    dataset = data_set(2, 30)
    config = EvaluateConfig(batch_size=8, augment=DSA, lr=0.05)
    evaluator = Evaluator(dataset, "ConvNetD1W8", config, chunk=3)
    evaluation = evaluator.evaluate(
        dataset.train.images,
        dataset.train.labels,
        schedule=Schedule(2, 1),  # none has learned all
        networks=5,
        key=jax.random.key(0),
    )
    evaluate.on_cpu = on_cpu
    return [report.cell_accuracy for report in evaluation.reports]


def network_mesh_of_accelerators():
    """Its shape."""
    on_cpu = sharding.on_cpu
    sharding.on_cpu = lambda: False
    shape = sharding.network_mesh().devices.shape
    sharding.on_cpu = on_cpu
    return shape


def own_parts():
    """Rows of a number, each device's part times ten to the number of its device."""
    mesh = sharding.mesh_for(4)

    def function(rows):
        return sharding.own_part(rows, mesh.size) * 10 ** jax.lax.axis_index(sharding.AXES)

    shared = sharding.shard_map(function, mesh, sharding.REPLICATED, SHARES)
    return shared(jax.numpy.arange(1, 13))


def distances_in_memory(specs):
    """Bytes from an aligned array on the host to what every device has of it."""
    memory = np.zeros(4096 + 64, np.uint8)
    first = -memory.ctypes.data % 64
    array = memory[first : first + 4096].reshape(64, 64)
    placed = sharding.place(array, sharding.mesh_for(4), specs)
    parts = [shard.data for shard in placed.addressable_shards]
    return [part.unsafe_buffer_pointer() - array.ctypes.data for part in parts]


def main(path):
    """Measure everything."""
    os.sched_getaffinity = lambda pid: range(4)
    sharding.use_all_cores()
    results = {
        "devices": len(jax.devices()),
        "meshes": [sharding.mesh_for(count).devices.shape for count in range(1, 13)],
        "meshes of classes": [
            sharding.mesh_for(count, data=False).devices.shape for count in range(1, 13)
        ],
        "meshes of networks": [
            sharding.network_mesh().devices.shape,
            network_mesh_of_accelerators(),
        ],
        "own parts": own_parts(),
        "many updates": many_updates(),
        "replicated": distances_in_memory(sharding.REPLICATED),
        "split": distances_in_memory(sharding.SPLIT),
    }
    for num_devices in (4, 1):
        let_be_seen(num_devices)
        for function, names in ((distil, RUNS), (train, TRAININGS)):
            for name in names:
                values = function(name)
                results |= {f"{name}/{num_devices}/{key}": v for key, v in values.items()}
        results[f"networks/{num_devices}"] = networks_side_by_side(num_devices)
    np.savez(path, **{name: np.asarray(value) for name, value in results.items()})


if __name__ == "__main__":
    main(sys.argv[1])
