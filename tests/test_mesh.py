"""A mesh of eight devices, of any shape: the update of one device, and what is sent for it."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import assert_close

from fairdd_jax.config import make
from fairdd_jax.errors import ConfigError
from fairdd_jax.sharding import mesh_for

ONE = "class=1"
# Of seven classes: one each, two each but for the last, four each but for the last, all.
SHAPES = {"class=7": (7, 1), "class=4,data=2": (4, 2), "class=2,data=3": (2, 3), "data": (1, 8)}
MESHES = {"data": "class=1,data=8"}
# Method, fairness, sampling, and where the training set is.
FEW = ["dm fairdd stratified resident", "dc vanilla proportional resident"]
COUPLED = "cafe vanilla proportional streamed"
# Any two of method, fairness, sampling and place meet in every combination.
ALL = [
    "dm vanilla stratified resident",
    "dm fairdd stratified streamed",
    "dm fairdd proportional streamed",
    "dc vanilla proportional streamed",
    "dc vanilla proportional resident",
    "dc fairdd stratified resident",
]
# As in test_sharding.py.
ROUNDING = {"atol": 0.0, "rtol": 1e-4}


BOTH = ["class=4,data=2"]  # axes at once


def measured(path, cases, shapes):
    """What eight_devices.py measures of those cases on one device and on meshes."""
    meshes = [MESHES.get(shape, shape) for shape in (ONE, *shapes)]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(sys.path),
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=8",
        "JAX_NUMPY_RANK_PROMOTION": "raise",
        "JAX_NUMPY_DTYPE_PROMOTION": "strict",
    }
    script = Path(__file__).with_name("eight_devices.py")
    names = [f"{case} {mesh}" for case in cases for mesh in meshes]
    command = [sys.executable, script, path, *names]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1500)
    assert run.returncode == 0, run.stderr
    with np.load(path) as arrays:
        return dict(arrays)


@pytest.fixture(scope="session")
def few(tmp_path_factory):
    return measured(tmp_path_factory.mktemp("few") / "results.npz", [*FEW, COUPLED], SHAPES)


@pytest.fixture(scope="session")
def every(tmp_path_factory):
    return measured(tmp_path_factory.mktemp("all") / "results.npz", ALL, BOTH)


def assert_like_one(results, case, shape):
    mesh = MESHES.get(shape, shape)
    assert tuple(results[f"{case} {mesh}/shape"]) == SHAPES[shape]
    for name in ("loss", "change"):
        expected = results[f"{case} {ONE}/{name}"]
        assert_close(results[f"{case} {mesh}/{name}"], expected, **ROUNDING)
    assert (np.abs(results[f"{case} {ONE}/change"]).max((1, 2, 3, 4)) > 1e-4).all()
    filling = results[f"{case} {mesh}/filling"]
    assert len(filling) == -7 % SHAPES[shape][0]
    assert not filling.view(np.uint32).any()  # no negative zero either: see checkpoint.py


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("case", [*FEW, COUPLED])
def test_a_mesh_computes_what_one_device_does(few, case, shape):
    assert_like_one(few, case, shape)


@pytest.mark.slow
@pytest.mark.parametrize("shape", BOTH)
@pytest.mark.parametrize("case", ALL)
def test_every_case_on_a_mesh_computes_what_one_device_does(every, case, shape):
    assert_like_one(every, case, shape)


@pytest.mark.slow
@pytest.mark.parametrize("case", FEW)
@pytest.mark.parametrize("shape", SHAPES)
def test_group_sums_are_reduced_and_no_image_is_gathered(few, case, shape):
    """Along classes the loss alone is sent, along images one reduction per block of group sums.

    The gradients of DC have several arrays, which are reduced together or one by one.
    """
    mesh = MESHES.get(shape, shape)
    prefix = f"{case} {mesh}/collective/"
    counts = {
        name.removeprefix(prefix): int(v) for name, v in few.items() if name.startswith(prefix)
    }
    assert set(counts) == {"all-reduce"}
    along_class, along_data = SHAPES[shape]
    arrays = 1 if case.startswith("dm") else 6  # kernels and biases, norm's scale and bias
    assert (along_class > 1) <= counts["all-reduce"] <= 1 + arrays * (along_data > 1)


def test_the_collectives_are_counted():
    from eight_devices import collectives

    text = "%a = f32[2] all-reduce(%b)\n%c = f32[4] all-gather-start(%a)\n %d = f32[] add(%a, %c)"
    assert collectives(text) == {"all-reduce": 1, "all-gather": 1}


@pytest.mark.parametrize(
    "mesh", ["", "class", "class=0", "data=2", "class=2;data=2", "class=-1", "8"]
)
def test_a_mesh_that_is_none_is_refused(mesh):
    with pytest.raises(ConfigError, match="--mesh must be auto, or like class=4,data=2"):
        make({"data.name": "demo", "mesh": mesh})


@pytest.mark.parametrize("mesh", ["class=11", "class=10,data=100", "class=1,data=2"])
def test_a_mesh_that_does_not_fit_is_refused(mesh):
    with pytest.raises(
        ConfigError, match=f"--mesh {mesh} does not fit: class must not exceed the 10"
    ):
        mesh_for(10, mesh)
