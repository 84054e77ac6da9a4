"""The vision transformer: against plain numpy, and what gradient matching needs of it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import FIRST_ORDER, assert_close
from jax.test_util import check_grads
from scipy.special import erf
from test_apply import cosine, products
from test_loop import toy
from test_models import random_variables

import fairdd_jax
from fairdd_jax import models
from fairdd_jax.errors import ConfigError
from fairdd_jax.models.vit import HEADS, ViT, patches
from fairdd_jax.run import Run

SHAPES = [(8, 8, 3), (28, 28, 1), (10, 17, 3), (3, 3, 1)]


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


# Patches and sizes


def loop_patches(image):
    """Side of a patch, and every patch flattened, pixel by pixel, zeros outside the image."""
    height, width, channels = image.shape
    p = 1
    while 8 * p < max(height, width):
        p += 1
    found = []
    for top in range(0, height, p):
        for left in range(0, width, p):
            patch = np.zeros((p, p, channels), image.dtype)
            for i, j in np.ndindex(p, p):
                if top + i < height and left + j < width:
                    patch[i, j] = image[top + i, left + j]
            found.append(patch.ravel())
    return np.stack(found)


@pytest.mark.parametrize("shape", SHAPES)
def test_patches_match_loop(shape):
    images = np.asarray(normal(2, *shape))
    np.testing.assert_array_equal(patches(images), [loop_patches(image) for image in images])


@pytest.mark.parametrize(
    ("size", "side", "count"),
    [(8, 1, 8), (28, 4, 7), (32, 4, 8), (64, 8, 8), (96, 12, 8), (128, 16, 8), (33, 5, 7)],
)
def test_at_most_8_patches_a_side(size, side, count):
    shape = jax.eval_shape(patches, jax.ShapeDtypeStruct((5, size, size, 3), jnp.float32)).shape
    assert shape == (5, count**2, 3 * side**2)


@pytest.mark.parametrize(
    ("name", "layers", "width"), [("ViT1", 1, 128), ("ViT3", 3, 128), ("ViT2W16", 2, 16)]
)
@pytest.mark.parametrize(("size", "side"), [(32, 4), (28, 4), (64, 8)])
def test_number_of_parameters(name, layers, width, size, side):
    """Patches and positions; in a layer two norms, four maps of attention, two of four times the
    width; a norm; the linear layer.
    """
    D, T = width, (size // side) ** 2
    embedding = side**2 * 3 * D + D + T * D
    layer = 2 * 2 * D + 4 * (D * D + D) + (D * 4 * D + 4 * D) + (4 * D * D + D)
    expected = embedding + layers * layer + 2 * D + (D * 7 + 7)
    network = models.create(name, num_classes=7, image_shape=(size, size, 3))
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    variables = jax.eval_shape(network.init, jax.random.key(0), images)
    assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == expected
    assert variables.keys() == {"params"}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ViT1W6", "ViT1W6: attention has 4 heads; choose a width that 4 divides"),
        ("ViT0", "unknown network 'ViT0'; did you mean 'ViT"),
        ("ViT", "unknown network 'ViT'; did you mean 'ViT"),
        ("ViT2BN", "unknown network 'ViT2BN'; did you mean 'ViT2'"),
    ],
)
def test_wrong_names(name, message):
    with pytest.raises(ConfigError, match=message):
        models.check_name(name)


def test_initial_distributions():
    """PyTorch's for linear layers, narrow for positions, the identity for norms."""
    images = jnp.zeros((1, 32, 32, 3))
    variables = jax.jit(ViT(10, layers=1).init)(jax.random.key(0), images)["params"]
    layer = variables["EncoderLayer_0"]
    for name, fan_in in (("query", 128), ("out", 128), ("expand", 128), ("contract", 512)):
        for values in map(np.ravel, layer[name].values()):
            bound = fan_in**-0.5
            assert np.abs(values).max() <= bound
            assert abs(values.std() - bound / 3**0.5) < 4 * bound / np.sqrt(3 * values.size)
    positions = variables["positions"]
    assert abs(positions.std() - 0.02) < 4 * 0.02 / np.sqrt(2 * positions.size)
    assert (layer["norm_mlp"]["scale"] == 1).all()
    assert not layer["norm_attention"]["bias"].any()


# Values


def plain_norm(x, p):
    return (x - x.mean()) / np.sqrt(x.var() + 1e-5) * p["scale"] + p["bias"]


def plain_linear(x, p):
    return x @ p["kernel"] + p["bias"]


def plain_attention(tokens, p):
    """Token by token and head by head."""
    normed = [plain_norm(token, p["norm_attention"]) for token in tokens]
    query, key, value = (
        [plain_linear(token, p[name]) for token in normed] for name in ("query", "key", "value")
    )
    size = len(tokens[0]) // HEADS
    attended = []
    for q in query:
        heads = []
        for part in (slice(head * size, (head + 1) * size) for head in range(HEADS)):
            weights = np.exp([q[part] @ k[part] / size**0.5 for k in key])
            weights /= weights.sum()
            heads.append(sum(w * v[part] for w, v in zip(weights, value, strict=True)))
        attended.append(plain_linear(np.concatenate(heads), p["out"]))
    return attended


def plain_vit(image, p, layers):
    """Logits and features of one image."""
    tokens = [
        plain_linear(patch, p["patches"]) + position
        for patch, position in zip(loop_patches(image), p["positions"], strict=True)
    ]
    for number in range(layers):
        layer = p[f"EncoderLayer_{number}"]
        attended = plain_attention(tokens, layer)
        tokens = [token + y for token, y in zip(tokens, attended, strict=True)]
        for t, token in enumerate(tokens):
            hidden = plain_linear(plain_norm(token, layer["norm_mlp"]), layer["expand"])
            hidden = hidden * (1 + erf(hidden / 2**0.5)) / 2
            tokens[t] = token + plain_linear(hidden, layer["contract"])
    features = plain_norm(np.mean(tokens, 0), p["norm"])
    return plain_linear(features, p["classifier"]), features


@pytest.mark.parametrize("shape", SHAPES)
def test_equals_a_plain_transformer(shape):
    network = ViT(3, layers=2, width=8)
    images = normal(2, *shape)
    variables = random_variables(network, shape)
    # Weights of this size would make every softmax choose one token.
    variables = jax.tree.map(lambda x: x / 2, variables)
    outputs = jax.jit(network.apply)(variables, images)
    params = jax.tree.map(np.float64, variables["params"])
    for n, image in enumerate(np.float64(images)):
        logits, features = plain_vit(image, params, layers=2)
        assert_close(outputs.logits[n], logits, **FIRST_ORDER)
        assert_close(outputs.features[n], features, **FIRST_ORDER)


def test_images_are_independent():
    """Another second image changes nothing of the first: outputs, nor its share of a gradient."""
    network = ViT(3, layers=2, width=8)
    variables = random_variables(network, (8, 8, 3))
    images = normal(2, 8, 8, 3)
    labels = jnp.array([0, 1])

    @jax.jit
    def first(images):
        def loss(params):
            outputs = network.apply({"params": params}, images, train=True)
            losses = optax.softmax_cross_entropy_with_integer_labels(outputs.logits, labels)
            return losses[0], outputs

        gradient, outputs = jax.grad(loss, has_aux=True)(variables["params"])
        return gradient, outputs.logits[0], outputs.features[0]

    for one, other in zip(
        jax.tree.leaves(first(images)),
        jax.tree.leaves(first(images.at[1].multiply(100))),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)


@pytest.fixture
def tiny():
    """A network with parameters and images in double precision."""
    network = ViT(2, layers=1, width=4)
    variables = random_variables(network, (4, 4, 1))
    params = jax.tree.map(lambda x: np.float64(x) / 2, variables["params"])
    jax.config.update("jax_enable_x64", True)
    yield network, params, np.random.default_rng(1).normal(size=(2, 4, 4, 1))
    jax.config.update("jax_enable_x64", False)


@pytest.mark.slow
def test_second_derivatives_match_finite_differences(tiny):
    """Of the cross-entropy by parameters and images, as gradient matching takes them."""
    network, params, images = tiny

    @jax.jit
    def loss(params, images):
        logits = network.apply({"params": params}, images).logits
        return optax.softmax_cross_entropy_with_integer_labels(logits, jnp.array([0, 1])).mean()

    with jax.numpy_dtype_promotion("standard"):  # Flax's own norms need it
        assert loss(params, images).dtype == jnp.float64
        check_grads(loss, (params, images), order=2, modes=["rev"], atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_gradient_matching_moves_the_images():
    """Second derivatives inside the compiled loops."""
    settings = {"steps": 1, "ipc": 1, "per_cell": 2, "outer_loops": 1}
    run = fairdd_jax.distill(toy(), method="dc", model="ViT1W4", **settings)
    before = Run(run.config, run.dataset).images
    moved = np.abs(run.images - before).max((1, 2, 3, 4))
    assert np.isfinite(moved).all()
    assert (moved > 0).all()


# bfloat16


@pytest.mark.slow
def test_bfloat16_goes_the_same_way():
    network = models.create("ViT1W32", num_classes=4, image_shape=(8, 8, 3))
    images = normal(4, 8, 8, 3)
    variables = jax.jit(network.init)(jax.random.key(0), images)

    def gradient(dtype):
        def loss(params):
            outputs, _ = models.apply(network, {"params": params}, images, train=True, dtype=dtype)
            assert outputs.logits.dtype == outputs.features.dtype == jnp.float32
            return (outputs.logits**2).sum()

        with jax.numpy_dtype_promotion("standard"):  # Flax's own norms need it
            trace = jax.make_jaxpr(jax.grad(loss))(variables["params"])
            return set(products(trace.jaxpr)), jax.jit(jax.grad(loss))(variables["params"])

    (used, ours), (_, exact) = gradient("bfloat16"), gradient("float32")
    assert used == {"bfloat16"}
    assert 0.99 < cosine(ours, exact) < 1 - 2.0**-20
