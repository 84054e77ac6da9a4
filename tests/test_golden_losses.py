"""Matching losses against the official implementations: dm.npz and dc.npz."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import FIRST_ORDER, SECOND_ORDER, assert_close
from golden_matching import Matching
from torch_layout import (
    assert_trees_close,
    convnet_from_torch,
    features_from_torch,
    images_from_torch,
)

from fairdd_jax import losses

FAIRNESS = ("vanilla", "fairdd", "cobra", "fairdd_mean")
DISTANCES = ("cos", "mse", "ours")


@pytest.fixture(scope="module")
def dm():
    return Matching("dm.npz", "dm")


@pytest.fixture(scope="module")
def dc():
    return Matching("dc.npz", "dc")


@pytest.mark.parametrize("fairness", ["vanilla", "fairdd", "cobra"])
def test_distribution_matching(dm, fairness):
    distance = dm.method.cobra_distance if fairness == "cobra" else dm.method.default_distance
    values, gradient = dm.loss_and_gradient(fairness, distance)
    assert_close(values, dm.golden[f"{fairness}/loss_per_class"], **FIRST_ORDER)
    assert_close(values.sum(), dm.golden[f"{fairness}/loss_total"], **FIRST_ORDER)
    expected = images_from_torch(dm.golden[f"{fairness}/grad_syn"])
    assert_close(gradient, expected, **FIRST_ORDER)


def test_features_and_group_centres(dm):
    width = dm.network.width
    for label, images in enumerate(dm.real):
        features = dm.network.apply({"params": dm.params}, images).features
        expected = features_from_torch(dm.golden["embed_real"][label], width)
        assert_close(features, expected, **FIRST_ORDER)
        centres = features_from_torch(dm.golden["group_mean"][label], width)
        present = dm.golden["group_count"][label] > 0
        signals = np.asarray(dm.group_signals(label))
        assert_close(signals[present], centres[present], **FIRST_ORDER)
        assert np.isnan(centres[~present]).all()
        assert not signals[~present].any()
        barycentre = features_from_torch(dm.golden["barycenter"][label], width)
        assert_close(signals[present].mean(0), barycentre, **FIRST_ORDER)
        margin = np.abs(barycentre - dm.synthetic_signal(dm.synthetic[label], label))
        assert margin.min() > dm.golden["cobra/min_abs_diff"] / 2
    synthetic = dm.network.apply({"params": dm.params}, images_from_torch(dm.golden["syn"]))
    expected = features_from_torch(dm.golden["embed_syn"], width)
    assert_close(synthetic.features, expected, **FIRST_ORDER)


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("fairness", FAIRNESS)
def test_gradient_matching(dc, fairness, distance):
    key = f"{fairness}/{distance}"
    values, gradient = dc.loss_and_gradient(fairness, distance)
    assert_close(values, dc.golden[f"{key}/loss_per_class"], **FIRST_ORDER)
    assert_close(values.sum(), dc.golden[f"{key}/loss_total"], **FIRST_ORDER)
    if f"{key}/grad_syn" in dc.golden:
        expected = images_from_torch(dc.golden[f"{key}/grad_syn"])
        assert_close(gradient, expected, **SECOND_ORDER)
    else:
        assert fairness == "fairdd_mean"


def test_matched_parameter_gradients(dc):
    for label in range(dc.real.shape[0]):
        signals = dc.group_signals(label)
        count = dc.golden["group_count"][label]
        weights = {
            "real_vanilla": count / count.sum(),
            "real_cobra": (count > 0) / (count > 0).sum(),
        }
        for name, weight in weights.items():
            weight = jnp.asarray(weight, jnp.float32)
            pooled = jax.tree.map(lambda s, w=weight: jnp.tensordot(w, s, 1), signals)
            expected = convnet_from_torch(dc.golden, f"gw/{name}/", at=label)[1]
            assert_trees_close(pooled, expected, **FIRST_ORDER)
        synthetic = dc.synthetic_signal(dc.synthetic[label], label)
        expected = convnet_from_torch(dc.golden, "gw/syn/", at=label)[1]
        assert_trees_close(synthetic, expected, **FIRST_ORDER)


def rows_last(tensor):
    """PyTorch keeps the output channels first, Flax last."""
    return jnp.asarray(np.moveaxis(tensor, 0, -1))


def pairs(dc):
    prefix = "distance_wb/"
    return sorted({key.split("/")[1] for key in dc.golden if key.startswith(prefix)})


def test_distance_of_one_tensor(dc):
    cases = pairs(dc)
    assert cases
    for case in cases:
        real, synthetic = (rows_last(dc.golden[f"distance_wb/{case}/{k}"]) for k in ("gwr", "gws"))
        value, gradient = jax.value_and_grad(
            lambda s, r=real: losses.gradient_matching_loss([r[None]], [s])
        )(synthetic)
        assert_close(value, dc.golden[f"distance_wb/{case}/out"], **FIRST_ORDER)
        expected = rows_last(dc.golden[f"distance_wb/{case}/grad_gws"])
        assert_close(gradient, expected, **FIRST_ORDER)


@pytest.mark.parametrize("distance", DISTANCES)
def test_distance_of_a_network(dc, distance):
    prefix = f"match_loss/{distance}/grad_gws/"
    tensors = [key.removeprefix(prefix) for key in dc.golden if key.startswith(prefix)]
    assert tensors
    real = {t: rows_last(dc.golden[f"distance_wb/{t}/gwr"])[None] for t in tensors}
    synthetic = {t: rows_last(dc.golden[f"distance_wb/{t}/gws"]) for t in tensors}
    value, gradient = jax.value_and_grad(
        lambda s: losses.gradient_matching_loss(real, s, distance=distance)
    )(synthetic)
    assert_close(value, dc.golden[f"match_loss/{distance}/out"], **FIRST_ORDER)
    for tensor in tensors:
        assert_close(gradient[tensor], rows_last(dc.golden[prefix + tensor]), **FIRST_ORDER)
