"""Multi-formation and IDC as COBRA's code has it: dc.npz."""

from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest
from conftest import FIRST_ORDER, SECOND_ORDER, assert_close, golden
from golden_matching import Matching
from torch_layout import images_from_torch

from fairdd_jax import formation

DISTANCES = ("cos", "mse", "ours")
# COBRA's own fairdd of gradient matching divides by the number of groups.
MODES = {"vanilla": "vanilla", "fairdd": "fairdd_mean", "cobra": "cobra"}


@pytest.fixture(scope="module")
def idc():
    factor = int(golden("dc.npz")["meta/factor"])
    return Matching(
        "dc.npz", "idc", partial(formation.decode, factor=factor, interpolation="corners")
    )


def cases():
    return sorted({key.split("/")[1] for key in golden("dc.npz") if key.startswith("decode_zoom/")})


@pytest.mark.parametrize("case", cases())
def test_decoding(case):
    arrays = {
        name: golden("dc.npz")[f"decode_zoom/{case}/{name}"]
        for name in ("x", "y", "factor", "out", "y_out")
    }
    factor = int(arrays["factor"])
    images = jnp.asarray(images_from_torch(arrays["x"]))
    decoded = formation.decode(images, factor=factor, interpolation="corners")
    assert_close(decoded, images_from_torch(arrays["out"]), **FIRST_ORDER)
    np.testing.assert_array_equal(np.tile(arrays["y"], factor**2), arrays["y_out"])


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("mode", MODES)
def test_matching(idc, mode, distance):
    key = f"idc_{mode}/{distance}"
    values, gradient = idc.loss_and_gradient(MODES[mode], distance)
    assert_close(values, idc.golden[f"{key}/loss_per_class"], **FIRST_ORDER)
    assert_close(values.sum(), idc.golden[f"{key}/loss_total"], **FIRST_ORDER)
    if f"{key}/grad_syn" in idc.golden:
        expected = images_from_torch(idc.golden[f"{key}/grad_syn"])
        assert_close(gradient, expected, **SECOND_ORDER)
    else:
        assert distance != "ours"
