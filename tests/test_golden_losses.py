"""Matching losses against the official implementations: dm.npz and dc.npz."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import FIRST_ORDER, SECOND_ORDER, assert_close, golden
from torch_layout import (
    assert_trees_close,
    convnet_from_torch,
    features_from_torch,
    images_from_torch,
)

from fairdd_jax import losses
from fairdd_jax.methods import METHODS
from fairdd_jax.methods.method import Real

# Chunks that do not divide the batch, so that padding is tested too.
CHUNK = 5

FAIRNESS = ("vanilla", "fairdd", "cobra", "fairdd_mean")


class Matching:
    """A golden data set run through a method of ours, class by class."""

    def __init__(self, file: str, method: str):
        self.golden = golden(file)
        self.method = METHODS[method]
        self.network, self.params = convnet_from_torch(self.golden)
        self.real = images_from_torch(self.golden["real"])
        self.ipc = int(self.golden["meta/ipc"])
        self.synthetic = images_from_torch(self.golden["syn"]).reshape(
            self.real.shape[0], self.ipc, *self.real.shape[2:]
        )
        self.cache = {}
        self.num_groups = int(self.golden["meta/num_groups"])

    def forward(self, params, images, mask=None):
        return self.network.apply({"params": params}, images)

    def weights(self, label):
        groups = jnp.asarray(self.golden["group"][label])
        return losses.group_weights(groups, num_groups=self.num_groups)

    def group_signals(self, label):
        if label not in self.cache:
            real, weights = self.real[label], self.weights(label)
            self.cache[label] = self._group_signals(real, weights, label)
        return self.cache[label]

    @partial(jax.jit, static_argnums=0)
    def _group_signals(self, images, weights, label):
        blocks = images.shape[0] // CHUNK + self.num_groups
        real = Real(images, weights, lambda x: x, CHUNK, CHUNK, blocks)
        return self.method.group_signals(self.forward, self.params, real, label)

    @partial(jax.jit, static_argnums=0)
    def synthetic_signal(self, images, label):
        return self.method.synthetic_signal(self.forward, self.params, images, label, 2)

    @partial(jax.jit, static_argnums=0)
    def pull_back(self, images, label, cotangent):
        return jax.vjp(lambda x: self.synthetic_signal(x, label), images)[1](cotangent)[0]

    def loss_and_gradient(self, fairness, distance):
        """Loss per class, and gradient of their sum with respect to the synthetic images."""
        counts = self.golden["group_count"]
        values, gradients = [], []
        for label, images in enumerate(self.synthetic):
            value, cotangent = jax.value_and_grad(self.method.loss, argnums=1)(
                self.group_signals(label),
                self.synthetic_signal(images, label),
                shares=jnp.asarray(counts[label] / counts[label].sum(), jnp.float32),
                present=jnp.asarray(counts[label] > 0),
                fairness=fairness,
                distance=distance,
            )
            values.append(value)
            gradients.append(self.pull_back(images, label, cotangent))
        return np.stack(values), np.concatenate(gradients)


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


@pytest.mark.parametrize("distance", sorted(losses.GRADIENT_DISTANCES))
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


@pytest.mark.parametrize("distance", sorted(losses.GRADIENT_DISTANCES))
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
