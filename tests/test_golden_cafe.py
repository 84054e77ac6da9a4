"""CAFE against COBRA's implementation: cafe.npz."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import FIRST_ORDER, assert_close
from golden_matching import CHUNK, Matching
from torch_layout import features_from_torch, images_from_torch

from fairdd_jax.losses import _match, layer_matching_loss
from fairdd_jax.methods.cafe import _DISCRIMINATION
from fairdd_jax.methods.method import Real


@pytest.fixture(scope="module")
def cafe():
    return Matching("cafe.npz", "cafe")


def signals(cafe):
    return [cafe.synthetic_signal(x, label) for label, x in enumerate(cafe.synthetic)]


def of_tensors(tree):
    """Features and layers in the order of the golden: features, then the layers from the last."""
    features, layers = tree
    return [features, *reversed(layers)]


def test_features(cafe):
    outputs = cafe.network.apply({"params": cafe.params}, images_from_torch(cafe.golden["syn"]))
    width = cafe.network.width
    assert_close(outputs.logits, cafe.golden["syn_logits"], **FIRST_ORDER)
    expected = features_from_torch(cafe.golden["syn_feature/0"], width)
    assert_close(outputs.features, expected, **FIRST_ORDER)
    for label, signal in enumerate(signals(cafe)):
        flat, *maps = of_tensors(signal)
        expected = features_from_torch(cafe.golden["syn_feature_mean/0"][label], width)
        assert_close(flat, expected, **FIRST_ORDER)
        for place, mean in enumerate(maps, start=1):
            expected = images_from_torch(cafe.golden[f"syn_feature_mean/{place}"][label])
            assert_close(mean, expected, **FIRST_ORDER)
        assert f"syn_feature_mean/{len(maps) + 1}" not in cafe.golden


def squared_distances(cafe, fairness):
    """``[C, layers]``: features, then the layers from the first block on."""
    counts = [np.bincount(g, minlength=cafe.num_groups) for g in cafe.golden["group"]]
    rows = []
    for label, (signal, count) in enumerate(zip(signals(cafe), counts, strict=True)):
        groups, own = cafe.group_signals(label), signal
        layers = [(groups[0], own[0]), *zip(groups[1], own[1], strict=True)]
        rows.append(
            [
                _match(
                    real,
                    synthetic,
                    lambda a, b: jnp.sum((a - b) ** 2),
                    jnp.asarray(count / count.sum(), jnp.float32),
                    jnp.asarray(count > 0),
                    fairness,
                )
                for real, synthetic in layers
            ]
        )
    return np.asarray(rows)


def test_barycentre(cafe):
    assert_close(squared_distances(cafe, "cobra"), cafe.golden["cobra/layer_sqdist"], **FIRST_ORDER)
    values, gradient = cafe.loss_and_gradient("cobra", "layers_shallow")
    classes = len(cafe.synthetic)
    assert_close(values.sum() / classes, cafe.golden["cobra/loss_total"], **FIRST_ORDER)
    expected = images_from_torch(cafe.golden["cobra/grad_syn"])
    assert_close(gradient / classes, expected, **FIRST_ORDER)


def cross_entropy_of_real_images(cafe):
    logits = cafe.forward(cafe.params, cafe.real.reshape(-1, *cafe.real.shape[2:])).logits
    labels = jnp.repeat(jnp.arange(len(cafe.real)), cafe.real.shape[1])
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def test_vanilla(cafe):
    flat, *layers = squared_distances(cafe, "vanilla").sum(0)
    expected = cafe.golden["vanilla/layer_sqdist"]
    assert_close(np.array([*layers, flat]), expected, **FIRST_ORDER)

    real_images = cross_entropy_of_real_images(cafe)
    assert_close(real_images, cafe.golden["vanilla/ce_real"], **FIRST_ORDER)

    means = jnp.stack([signal[0] for signal in signals(cafe)])
    pulls = []
    for label, images in enumerate(cafe.real):
        real = Real(images, cafe.weights(label), lambda x: x, CHUNK, CHUNK, 1)
        weights = jnp.ones(images.shape[0])
        pulls.append(cafe.method.coupling(cafe.forward, cafe.params, real, label, weights, means))
    pull = jax.tree.map(lambda *parts: sum(parts), *pulls)
    inner = pull.value / _DISCRIMINATION
    assert_close(inner, cafe.golden["vanilla/ce_inner_sum"], **FIRST_ORDER)

    values, gradient = cafe.loss_and_gradient("vanilla", "layers_equal")
    total = values.sum() + real_images + pull.value
    assert_close(total, cafe.golden["vanilla/loss_total"], **FIRST_ORDER)
    pulled = [
        jax.vjp(lambda x, c=c: cafe.synthetic_signal(x, c)[0], images)[1](pull.gradient[c])[0]
        for c, images in enumerate(cafe.synthetic)
    ]
    expected = images_from_torch(cafe.golden["vanilla/grad_syn"])
    assert_close(gradient + np.concatenate(pulled), expected, **FIRST_ORDER)


def test_the_published_weights_are_smaller_for_the_first_blocks(cafe):
    groups, own = cafe.group_signals(0), cafe.synthetic_signal(cafe.synthetic[0], 0)
    value = layer_matching_loss(groups, own, fairness="cobra", distance="layers")
    flat, *layers = squared_distances(cafe, "cobra")[0]
    expected = flat + 0.1 * sum(layers[:2]) + sum(layers[2:])
    np.testing.assert_allclose(value, expected, rtol=1e-5)
