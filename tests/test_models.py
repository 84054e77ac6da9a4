"""Layers, networks and their registry: what the golden numbers do not show."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import FIRST_ORDER, assert_close
from flax.linen import Module
from flax.traverse_util import flatten_dict
from scipy import stats
from torch_layout import abstract_variables, assert_trees_close

from fairdd_jax.errors import ConfigError
from fairdd_jax.models import MODES, create, names, resolve_archs
from fairdd_jax.models.layers import NORMS, BatchNorm, Conv, Dense, avg_pool, max_pool
from fairdd_jax.models.networks import ConvNet


def normal(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def random_variables(network: Module, image_shape: tuple[int, ...]) -> Any:
    """Variables drawn in numpy, which compiles nothing; for training mode alone."""
    return jax.tree.map(
        lambda leaf: normal(*leaf.shape), dict(abstract_variables(network, image_shape))
    )


# Initial distributions


@pytest.mark.parametrize(
    ("layer", "shape", "fan_in"),
    [
        (Conv(500), (1, 4, 4, 7), 9 * 7),
        (Conv(2000, kernel_size=5, padding=0), (1, 6, 6, 1), 25),
        (Dense(1000), (1, 30), 30),
    ],
)
def test_initial_distribution_is_that_of_pytorch(
    layer: Module, shape: tuple[int, ...], fan_in: int
) -> None:
    """Kernel and bias are uniform in +-1/sqrt(fan_in), so of standard deviation bound/sqrt(3)."""
    params = jax.jit(layer.init)(jax.random.key(0), jnp.zeros(shape))["params"]
    bound = fan_in**-0.5
    assert params.keys() == {"kernel", "bias"}
    for values in map(np.ravel, params.values()):
        assert np.abs(values).max() <= bound
        error = 4 * bound / np.sqrt(3 * values.size)  # four standard errors
        assert abs(values.mean()) < error
        assert abs(values.std() - bound / np.sqrt(3)) < error
        assert stats.kstest(values, "uniform", args=(-bound, 2 * bound)).pvalue > 1e-3
    assert len({float(value) for value in params["bias"]}) > 0.99 * params["bias"].size


def test_initial_batch_norm_is_the_identity() -> None:
    init = partial(BatchNorm().init, train=False)
    variables = jax.jit(init)(jax.random.key(0), normal(3, 4, 4, 5))
    affine, running = variables["params"], variables["batch_stats"]
    for one in (affine["scale"], running["var"]):
        assert_close(one, np.ones(5), atol=0, rtol=0)
    for zero in (affine["bias"], running["mean"]):
        assert_close(zero, np.zeros(5), atol=0, rtol=0)


# Registry


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", names())
def test_every_name_takes_every_size(name: str, channels: int) -> None:
    network = create(name, num_classes=7, image_shape=(32, 32, channels))
    for size in (*([28] if channels == 1 else []), 32, 64, 96, 128):
        images = jax.ShapeDtypeStruct((2, size, size, channels), jnp.float32)
        outputs, _ = jax.eval_shape(network.init_with_output, jax.random.key(0), images)
        assert outputs.logits.shape == (2, 7)
        assert outputs.features.shape[0] == 2
        assert outputs.features.shape[1] > 0


@pytest.mark.parametrize("name", ["ConvNet", "LeNet", "AlexNet", "VGG11"])
def test_one_channel_is_padded_to_32(name: str) -> None:
    """MNIST's 28x28 images reach every later layer in the sizes of 32x32 images in colour."""
    grey, colour = (
        flatten_dict(abstract_variables(create(name, num_classes=2, image_shape=shape), shape))
        for shape in ((28, 28, 1), (32, 32, 3))
    )
    assert grey.keys() == colour.keys()
    later = grey.keys() - {("params", "Conv_0", "kernel")}
    assert all(grey[path].shape == colour[path].shape for path in later)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("LeNet", 8),
        ("AlexNet", 7),
        ("VGG11", 31),
        ("ResNet18BN", 24),
        ("ConvNetD5", 31),
    ],
)
def test_too_small_images_are_refused(name: str, size: int) -> None:
    with pytest.raises(ConfigError, match=f"{name} cannot take images of {size}x{size} pixels"):
        create(name, num_classes=2, image_shape=(size, size, 3))
    larger = create(name, num_classes=2, image_shape=(size + 8, size + 8, 3))
    assert larger.num_classes == 2


@pytest.mark.parametrize("size", range(1, 8))
def test_images_smaller_than_a_window_are_refused(size: int) -> None:
    with pytest.raises(ConfigError, match=f"LeNet cannot take images of {size}x{size} pixels"):
        create("LeNet", num_classes=2, image_shape=(size, size, 3))


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("ResNet19", "ResNet18"),
        ("LeNett", "LeNet"),
        ("ConvNetW12O", "ConvNetW128"),
        ("ConvNetD0", "ConvNetD4"),
        ("VGG11BM", "VGG11BN"),
    ],
)
def test_unknown_name_is_refused_with_the_nearest(name: str, nearest: str) -> None:
    for lookup in (
        lambda: create(name, num_classes=2, image_shape=(32, 32, 3)),
        lambda: resolve_archs(f"ConvNet,{name}", model="ConvNet"),
    ):
        with pytest.raises(
            ConfigError, match=f"unknown network '{name}'; did you mean '{nearest}'"
        ):
            lookup()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ConvNet", {}),
        ("ConvNetASwishBN", {"activation": "swish", "norm": "batchnorm"}),
        ("ConvNetD4W64GN", {"depth": 4, "width": 64, "norm": "groupnorm"}),
        ("ConvNetW16D12NP", {"depth": 12, "width": 16, "pooling": "none"}),
        ("ConvNetASW32", {"activation": "sigmoid", "width": 32}),
        (
            "ConvNetALLNMP",
            {"activation": "leakyrelu", "norm": "layernorm", "pooling": "maxpooling"},
        ),
        ("ConvNetNNAPAR", {"activation": "relu", "norm": "none", "pooling": "avgpooling"}),
        ("ConvNetIND2", {"norm": "instancenorm", "depth": 2}),
    ],
)
def test_suffixes_combine(name: str, options: dict[str, object]) -> None:
    network = create(name, num_classes=3, image_shape=(32, 32, 3))
    assert network == ConvNet(3, **options)


def test_group_norm_needs_a_width_that_4_divides() -> None:
    with pytest.raises(ConfigError, match="ConvNetGNW6: group norm makes 4 groups"):
        create("ConvNetGNW6", num_classes=2, image_shape=(32, 32, 3))
    assert create("ConvNetINW6", num_classes=2, image_shape=(32, 32, 3)).width == 6


@pytest.mark.parametrize(
    ("archs", "model", "expected"),
    [
        ("SS", "ConvNetBN", "ConvNetBN"),
        ("S", "ConvNetW64", "ConvNetW64"),
        ("S", "ConvNetBN", "ConvNet"),
        ("S", "ConvNetASwishBN", "ConvNetASwish"),
        ("S", "ConvNetBND4", "ConvNetD4"),
        ("S", "ResNet18BN", "ResNet18"),
        ("S", "ResNet18BN_AP", "ResNet18"),
        ("M", "ConvNet", "MLP ConvNet LeNet AlexNet VGG11 ResNet18"),
        ("W", "ConvNet", "ConvNetW32 ConvNetW64 ConvNetW128 ConvNetW256"),
        ("D", "ConvNet", "ConvNetD1 ConvNetD2 ConvNetD3 ConvNetD4"),
        ("A", "ConvNet", "ConvNetAS ConvNetAR ConvNetAL ConvNetASwish"),
        ("P", "ConvNet", "ConvNetNP ConvNetMP ConvNetAP"),
        ("N", "ConvNet", "ConvNetNN ConvNetBN ConvNetLN ConvNetIN ConvNetGN"),
        ("B", "ConvNet", "ConvNetBN ConvNetASwishBN AlexNetBN VGG11BN ResNet18BN"),
        ("MLP, ConvNetD4W64,", "ConvNet", "MLP ConvNetD4W64"),
    ],
)
def test_evaluation_modes(archs: str, model: str, expected: str) -> None:
    assert resolve_archs(archs, model=model) == tuple(expected.split())


def test_every_mode_gives_official_names() -> None:
    for mode in MODES:
        assert set(resolve_archs(mode, model="VGG11BN")) <= set(names())


def test_no_evaluation_network_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"unknown network ' , '.* Valid: .*ConvNet.* SS"):
        resolve_archs(" , ", model="ConvNet")


# Norms


def test_batch_norm_mask_equals_slice() -> None:
    """Padded rows, however large, reach neither outputs, statistics nor gradients."""
    norm = BatchNorm()
    real, padding = normal(5, 3, 4, 2), 1e3 * normal(3, 3, 4, 2, seed=1)
    images = jnp.concatenate([real, padding])[jnp.array([0, 5, 1, 2, 6, 3, 7, 4])]
    mask = jnp.array([1, 0, 1, 1, 0, 1, 0, 1], jnp.float32)
    rows = jnp.flatnonzero(mask)
    variables = {
        "params": {"scale": jnp.array([0.5, 2.0]), "bias": jnp.array([1.0, -1.0])},
        "batch_stats": {"mean": jnp.array([0.1, 0.2]), "var": jnp.array([1.0, 3.0])},
    }

    @jax.jit
    @partial(jax.value_and_grad, has_aux=True)
    def differentiate(
        x: jax.Array, rows: jax.Array, mask: jax.Array | None
    ) -> tuple[jax.Array, object]:
        y, updates = norm.apply(variables, x, train=True, mask=mask, mutable=["batch_stats"])
        return jnp.vdot(y[rows], jnp.cos(real)), (y[rows], updates)

    masked, masked_gradient = differentiate(images, rows, mask)
    sliced, sliced_gradient = differentiate(real, jnp.arange(5), None)
    for ours, alone in zip(jax.tree.leaves(masked), jax.tree.leaves(sliced), strict=True):
        assert_close(ours, alone, **FIRST_ORDER)
    assert_close(masked_gradient[rows], sliced_gradient, **FIRST_ORDER)
    assert not masked_gradient[mask == 0].any()


def test_batch_norm_of_a_single_value_keeps_its_statistics_finite() -> None:
    """It has no variance; PyTorch refuses such a batch, which may be the rest of an epoch here."""
    norm, images = BatchNorm(), normal(2, 1, 1, 3)
    variables = norm.init(jax.random.key(0), images, train=False)
    _, updates = norm.apply(
        variables, images, train=True, mask=jnp.array([0.0, 1.0]), mutable=["batch_stats"]
    )
    assert_close(updates["batch_stats"]["mean"], 0.1 * images[1, 0, 0], **FIRST_ORDER)
    assert_close(updates["batch_stats"]["var"], jnp.full(3, 0.9), **FIRST_ORDER)


def test_network_passes_the_mask_on() -> None:
    network = ConvNet(2, width=4, depth=2, norm="batchnorm")
    images = normal(6, 8, 8, 3)
    variables = random_variables(network, images.shape[1:])

    @jax.jit
    def train(images: jax.Array, mask: jax.Array) -> tuple:
        return network.apply(variables, images, train=True, mask=mask, mutable=["batch_stats"])

    mask = jnp.array([1, 1, 1, 1, 0, 0], jnp.float32)
    outputs, updates = train(images.at[4:].multiply(100), mask)
    expected, expected_updates = train(images[:4], jnp.ones(4))
    assert_close(outputs.logits[:4], expected.logits, **FIRST_ORDER)
    assert_trees_close(updates["batch_stats"], expected_updates["batch_stats"], **FIRST_ORDER)


@pytest.mark.parametrize("norm", NORMS)
def test_images_are_independent_unless_batch_normalised(norm: str) -> None:
    """With every norm but that of the batch, one image's logits depend on no other image."""
    network = ConvNet(2, width=4, depth=2, norm=norm)
    images = normal(3, 8, 8, 3)
    variables = random_variables(network, images.shape[1:])

    @jax.jit
    @jax.grad
    def influence(images: jax.Array) -> jax.Array:
        outputs, _ = network.apply(variables, images, train=True, mutable=["batch_stats"])
        return outputs.logits[0, 0]

    gradient = jnp.abs(influence(images)).max((1, 2, 3))
    assert gradient[0] > 0
    assert (gradient[1:] > 0).all() if norm == "batchnorm" else (gradient[1:] == 0).all()


# Pooling


def loop_pool(images: np.ndarray, weights: np.ndarray, choose: Callable) -> tuple:
    """Pooled images and the gradient of their sum weighted, one window after the other."""
    pooled, gradient = np.zeros_like(weights), np.zeros_like(images)
    for n, i, j, c in np.ndindex(weights.shape):
        window = np.s_[n, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2, c]
        shares = choose(images[window])
        pooled[n, i, j, c] = (shares * images[window]).sum()
        gradient[window] += weights[n, i, j, c] * shares
    return pooled, gradient


def first_winner(window: np.ndarray) -> np.ndarray:
    return (np.arange(window.size) == window.argmax()).reshape(window.shape)


def mean_shares(window: np.ndarray) -> np.ndarray:
    return np.full(window.shape, 1 / window.size)


@pytest.mark.parametrize(("pool", "choose"), [(max_pool, first_winner), (avg_pool, mean_shares)])
@pytest.mark.parametrize("ties", [False, True])
def test_pooling_matches_loop(pool: Callable, choose: Callable, ties: bool) -> None:
    """Odd sides drop a row and a column; of equal values the first wins, as in PyTorch."""
    images = np.asarray(normal(2, 5, 7, 3))
    images = np.round(images) if ties else images
    weights = np.asarray(normal(2, 2, 3, 3, seed=1))
    pooled, gradient = loop_pool(images, weights, choose)

    @jax.jit
    @jax.value_and_grad
    def compute(images: jax.Array) -> jax.Array:
        return jnp.vdot(pool(images), weights)

    total, actual = compute(images)
    assert_close(pool(images), pooled, **FIRST_ORDER)
    assert_close(total, (pooled * weights).sum(), **FIRST_ORDER)
    assert_close(actual, gradient, **FIRST_ORDER)


def test_max_pool_second_derivative_matches_loop() -> None:
    """Of the sum of the cubes of the winners w: 6 w v at each, along a direction v."""
    images, direction = np.asarray(normal(2, 4, 6, 3)), np.asarray(normal(2, 4, 6, 3, seed=1))
    ones = np.ones((2, 2, 3, 3), np.float32)
    _, winners = loop_pool(images, ones, first_winner)

    def along(images: jax.Array) -> jax.Array:
        return jnp.vdot(jax.grad(lambda x: (max_pool(x) ** 3).sum())(images), direction)

    actual = jax.jit(jax.grad(along))(images)
    assert_close(actual, 6 * winners * images * direction, **FIRST_ORDER)
