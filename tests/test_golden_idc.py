"""Multi-formation and IDC as COBRA's code has it: dc.npz."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import FIRST_ORDER, SECOND_ORDER, assert_close, golden
from golden_matching import Matching
from torch_layout import images_from_torch

from fairdd_jax import formation
from fairdd_jax.models.layers import Norm

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


def in_doubt(idc, label):
    """Whether a relu of the decoded images lies so near to its kink that rounding decides its side.

    Then the gradient of the loss, which is what is matched, has two right values.
    """
    images = idc.decode(jnp.asarray(idc.synthetic[label]))
    _, state = idc.network.apply(
        {"params": idc.params},
        images,
        capture_intermediates=lambda module, _: isinstance(module, Norm),
        mutable=["intermediates"],
    )
    return min(jnp.abs(x).min() for x in jax.tree.leaves(state["intermediates"])) < 1e-6


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("mode", MODES)
def test_matching(idc, mode, distance):
    key = f"idc_{mode}/{distance}"
    values, gradient = idc.loss_and_gradient(MODES[mode], distance)
    gradient = gradient.reshape(idc.synthetic.shape)
    slopes = None
    if f"{key}/grad_syn" in idc.golden:
        slopes = images_from_torch(idc.golden[f"{key}/grad_syn"]).reshape(gradient.shape)
    else:
        assert distance != "ours"
    doubts = [in_doubt(idc, label) for label in range(len(values))]
    assert not all(doubts)
    for label, doubt in enumerate(doubts):
        loose = {"rtol": 2e-3} if doubt else {}
        expected = idc.golden[f"{key}/loss_per_class"][label]
        assert_close(values[label], expected, **FIRST_ORDER | loose)
        if slopes is not None:
            loose = {"rtol": 5e-2} if doubt else {}
            assert_close(gradient[label], slopes[label], **SECOND_ORDER | loose)
    total = idc.golden[f"{key}/loss_total"]
    assert_close(values.sum(), total, **FIRST_ORDER | ({"rtol": 2e-3} if any(doubts) else {}))
