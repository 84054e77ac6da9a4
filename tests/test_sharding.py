"""Work on four devices: the results of one, up to the order in which numbers are added."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import assert_close

RUNS = ("dm", "dc", "dsa", "lff")
TRAININGS = ("one batch", "batches")
# Sums of float32 in another order differ by 1e-7; three updates, or the steps of a training, with
# second derivatives make more of it.
ROUNDING = {"atol": 0.0, "rtol": 1e-4}
pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def results(tmp_path_factory):
    """What four_devices.py measures, in a process that has not started JAX yet."""
    path = tmp_path_factory.mktemp("sharding") / "results.npz"
    script = Path(__file__).with_name("four_devices.py")
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(sys.path),
        "JAX_NUMPY_RANK_PROMOTION": "raise",
        "JAX_NUMPY_DTYPE_PROMOTION": "strict",
    }
    command = [sys.executable, script, path]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    with np.load(path) as arrays:
        return dict(arrays)


def test_every_core_is_a_device(results):
    assert results["devices"] == 4


def test_a_mesh_has_all_devices_as_many_as_there_are_classes_for_along_them(results):
    most = [max(n for n in (1, 2, 4) if n <= count) for count in range(1, 13)]
    assert results["meshes"].tolist() == [[n, 4 // n] for n in most]
    assert results["meshes of classes"].tolist() == [[n, 1] for n in most]


def test_cores_share_batches_and_accelerators_have_networks_side_by_side(results):
    assert results["meshes of networks"].tolist() == [[1, 4], [4, 1]]


def test_networks_on_devices_of_their_own_are_those_of_one_device(results):
    """Five of them, which four devices do not divide."""
    four, one = results["networks/4"], results["networks/1"]
    assert four.shape[0] == one.shape[0] == 5
    np.testing.assert_array_equal(four, one)
    assert len(np.unique(one.round(6), axis=0)) > 1


def test_devices_do_not_wait_for_each_other_for_ever(results):
    assert results["many updates"] == 300


@pytest.mark.parametrize("method", RUNS)
def test_distillation_is_that_of_one_device(results, method):
    """With networks trained in between on batches that the devices do not divide."""
    four, one = (
        {key: results[f"{method}/{n}/{key}"] for key in ("devices", "loss", "change")}
        for n in (4, 1)
    )
    assert (four["devices"], one["devices"]) == (4, 1)
    assert_close(four["loss"], one["loss"], **ROUNDING)
    assert_close(four["change"], one["change"], **ROUNDING)
    assert (np.abs(one["change"]).max((1, 2, 3, 4)) > 1e-3).all()  # of every class


@pytest.mark.parametrize("training", TRAININGS)
def test_training_is_that_of_one_device(results, training):
    """Whether or not the devices divide the batch; each image augmented as its place in it says."""
    assert results[f"{training}/4/devices"] == 4
    one = results[f"{training}/1/change"]
    assert_close(results[f"{training}/4/change"], one, **ROUNDING)
    assert np.abs(one).max() > 0.01


@pytest.mark.parametrize("training", TRAININGS)
@pytest.mark.parametrize("devices", [1, 4])
def test_predictions_are_in_the_order_of_the_images(results, training, devices):
    """Of a test set that neither the devices nor the chunks divide."""
    predictions = results[f"{training}/{devices}/predictions"]
    expected = results[f"{training}/{devices}/expected predictions"]
    assert predictions.shape[1] % (4 * 3)
    np.testing.assert_array_equal(predictions, expected)
    assert len(np.unique(predictions)) == 2


@pytest.mark.parametrize("training", TRAININGS)
@pytest.mark.parametrize("devices", [1, 4])
def test_training_in_several_calls_compiles_once(results, training, devices):
    assert results[f"{training}/{devices}/programs"] == 1


def test_every_device_takes_its_own_part(results):
    rows = np.arange(1, 13).reshape(4, 3)
    expected = rows * 10 ** np.arange(4)[:, None]
    np.testing.assert_array_equal(results["own parts"], expected.ravel())


def test_aligned_arrays_are_placed_without_a_copy(results):
    """All devices of a CPU read the host's own memory: the whole of it, or their parts."""
    assert results["replicated"].tolist() == [0, 0, 0, 0]
    assert results["split"].tolist() == [0, 1024, 2048, 3072]
