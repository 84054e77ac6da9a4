"""The programs that readers copy: they learn what the labels say, on images normalised right."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fairdd_jax.distilled import DistilledSet

SNIPPETS = Path(__file__).parents[1] / "experiments" / "snippets"
SIDE, CLASSES, PER_CLASS, TESTED = 8, 3, 6, 90
# So far from those of usual images that test images which are not normalised look like no class.
MEAN, STD = (0.9, 0.1, 0.5), (0.02, 0.5, 0.1)


def pictures(rng, labels):
    """Checks whose contrast is in one channel more than in the others, by class; uint8."""
    contrast = np.full((len(labels), 3), 8.0) * STD
    contrast[np.arange(len(labels)), labels] *= 3
    checks = np.where(np.indices((SIDE, SIDE)).sum(0) % 2, 1, -1)[..., None]
    pixels = 0.5 + checks * contrast[:, None, None] / 25
    pixels += np.asarray(STD) * rng.normal(scale=0.1, size=pixels.shape)
    return np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8)


@pytest.fixture
def files(tmp_path):
    """A distilled set, one in which every class has all labels alike, and real test images."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(CLASSES, dtype=np.int32), PER_CLASS)
    images = pictures(rng, labels)
    names = ("a", "b", "c")
    for name, given in (("right", labels), ("wrong", labels.reshape(CLASSES, -1).T.ravel())):
        DistilledSet.of_pixels(
            images=images, labels=given, mean=MEAN, std=STD, class_names=names, meta={}
        ).save(tmp_path / f"{name}.npz")
    of_test = rng.integers(0, CLASSES, TESTED)
    np.savez(tmp_path / "test.npz", images=pictures(rng, of_test), labels=of_test)
    return [str(tmp_path / f"{name}.npz") for name in ("right", "wrong", "test")]


# One process, as readers have it, with fewer epochs.
PROGRAM = """
import runpy, sys
snippet, *files = sys.argv[1:]
main = runpy.run_path(snippet)["main"]
main.__globals__["EPOCHS"] = 60
right, wrong, test = files
for arguments in ((right, test), (right, test), (wrong, test), (right,)):
    main(*arguments)
"""


@pytest.mark.slow
@pytest.mark.parametrize("framework", ["flax", "keras", "torch"])
def test_the_snippets_learn_what_the_labels_say(files, framework, tmp_path):
    if framework == "torch" and not importlib.util.find_spec("torch"):
        pytest.skip("no PyTorch")
    snippet = SNIPPETS / f"train_{framework}.py"
    command = [sys.executable, "-c", PROGRAM, str(snippet), *files]
    surroundings = {k: v for k, v in os.environ.items() if k != "KERAS_BACKEND"}
    surroundings["KERAS_HOME"] = str(tmp_path)
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=surroundings)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0::2] == [f"trained on {CLASSES * PER_CLASS} images of {CLASSES} classes"] * 4
    said = [line.rpartition(": ") for line in lines[1::2]]
    assert [line[0] for line in said] == [f"accuracy on {TESTED} test images"] * 3
    right, again, wrong = (float(line[2]) for line in said)
    assert right == again  # seeded
    assert right > 0.95
    assert wrong < 0.6


@pytest.mark.parametrize("framework", ["flax", "keras", "torch"])
def test_the_snippets_stand_alone(framework):
    text = (SNIPPETS / f"train_{framework}.py").read_text()
    assert "fairdd_jax" not in text
    assert len(text.splitlines()) <= 60
