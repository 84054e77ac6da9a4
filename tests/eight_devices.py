"""Run by test_mesh.py in a process with eight devices: one update on meshes of every shape.

Writes what it measured to the .npz file that the command line names first; the others are cases, as
``dm fairdd stratified resident class=4,data=2``.
"""

import re
import sys

import jax
import numpy as np
from four_devices import data_set
from test_loop import settings

from fairdd_jax import stream
from fairdd_jax.loop import call_lengths
from fairdd_jax.sharding import place
from fairdd_jax.start import initial_images
from fairdd_jax.step import Step
from fairdd_jax.training_set import training_set

CLASSES = 7
# A cell has fewer images than are drawn of it, and no part of a batch is like another.
CHANGES = {"per_cell": 5, "batch_real": 13, "chunk": 2, "lr_img": 0.1, "init": "noise"}
COLLECTIVES = ("all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter")


def collectives(text):
    """How often the text of a program has each, and the largest array that is gathered."""
    counts = {name: len(re.findall(rf" {name}(?:-start)?\(", text)) for name in COLLECTIVES}
    return {name: count for name, count in counts.items() if count}


def updated(method, fairness, sampling, where, mesh):
    """The change of the images in three updates, their loss, and the collectives of the program."""
    changes = CHANGES | {"fairness": fairness, "sampling": sampling, "mesh": mesh}
    if method != "dm":
        changes |= {"inner_epochs": 0}
    config = settings(method, steps=3, block=3, **changes)
    dataset = data_set(CLASSES, 150)
    key = jax.random.key(0)
    images = initial_images(key, dataset, ipc=config.ipc, init=config.init).images
    step = Step(config, dataset, streamed=where == "streamed")
    state, key = step.init(key, images), place(key, step.mesh)
    if step.draws.streamed:
        lengths = [length for line in call_lengths(config) for length in line][:1]
        data = next(stream.blocks(step, dataset, key, lengths))
    else:
        lengths, data = [3], training_set(dataset, step.mesh)
    program = step.run_block.lower(state, data, key, length=lengths[0]).compile()
    counts = collectives(program.as_text())
    state, loss = program(state, data, key)
    return {
        "change": np.asarray(state.images)[:CLASSES] - images,
        "filling": np.asarray(state.images)[CLASSES:],
        "loss": np.asarray(loss),
        "shape": step.mesh.devices.shape,
        **{f"collective/{name}": count for name, count in counts.items()},
    }


def main(path, cases):
    """Measure everything."""
    assert len(jax.devices()) == 8
    results = {}
    for case in cases:
        results |= {f"{case}/{name}": value for name, value in updated(*case.split()).items()}
    np.savez(path, **{name: np.asarray(value) for name, value in results.items()})


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
