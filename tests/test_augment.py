"""Augmentation against loops, and its sampling and transformations."""

import itertools
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fairdd_jax import augment
from fairdd_jax.errors import ConfigError

OPERATIONS = augment.ALL.split("_")
SIZES = [(17, 29), (6, 1), (1, 5)]


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@cache
def draws(number, shape=(32, 32, 3)):
    draw = jax.jit(jax.vmap(partial(augment.sample, image_shape=shape)))
    return draw(jax.random.split(jax.random.key(3), number))


@partial(jax.jit, static_argnames="operation")
def run(operation, parameters, images):
    """One operation, compiled without the others."""
    return augment.apply(parameters._replace(op=0), images, strategy=operation)


# The operations against loops


def bilinear_matrix(height, width, position):
    """Dense [pixels, pixels] matrix of bilinear sampling; position maps (u, v) to (u, v)."""
    matrix = np.zeros((height * width, height * width))
    for i, j in np.ndindex(height, width):
        u, v = position((2 * j + 1) / width - 1, (2 * i + 1) / height - 1)
        x, y = ((u + 1) * width - 1) / 2, ((v + 1) * height - 1) / 2
        left, top = int(np.floor(x)), int(np.floor(y))
        for row, column in itertools.product((top, top + 1), (left, left + 1)):
            if 0 <= row < height and 0 <= column < width:
                weight = (1 - abs(y - row)) * (1 - abs(x - column))
                matrix[i * width + j, row * width + column] += weight
    return matrix


def rotation(theta):
    return lambda u, v: (
        np.cos(theta) * u - np.sin(theta) * v,
        np.sin(theta) * u + np.cos(theta) * v,
    )


RESAMPLING = {
    "shrink": ("scale", {"sx": 1.19, "sy": 1.07}, lambda u, v: (1.19 * u, 1.07 * v)),
    "enlarge": ("scale", {"sx": 0.84, "sy": 0.9}, lambda u, v: (0.84 * u, 0.9 * v)),
    "rotate": ("rotate", {"theta": 0.26}, rotation(0.26)),
    "rotate far": ("rotate", {"theta": -2.0}, rotation(-2.0)),
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("case", RESAMPLING)
def test_resampling_and_its_gradient_equal_a_dense_matrix(case, size):
    operation, numbers, position = RESAMPLING[case]
    matrix = bilinear_matrix(*size, position)
    images, cotangent = normal(2, *size, 3), normal(2, *size, 3, seed=1)
    resample = jax.jit(partial(getattr(augment, operation), **numbers))
    out, vjp = jax.vjp(resample, jnp.asarray(images))

    def times(matrix, images):
        flat = images.reshape(2, -1, 3)
        return np.einsum("pq,nqc->npc", matrix, flat).reshape(images.shape)

    np.testing.assert_allclose(out, times(matrix, images), rtol=0, atol=2e-5)
    gradient = vjp(jnp.asarray(cotangent))[0]
    np.testing.assert_allclose(gradient, times(matrix.T, cotangent), rtol=0, atol=2e-5)


def test_quarter_turn_of_a_square():
    images = normal(2, 7, 7, 3)
    turned = augment.rotate(jnp.asarray(images), theta=np.float32(np.pi / 2))
    np.testing.assert_allclose(turned, np.rot90(images, axes=(1, 2)), atol=1e-5)


def test_scale_asks_for_full_precision():
    """Accelerators multiply matrices in fewer bits by default, which a CPU does not show."""
    images = jnp.zeros((2, 8, 8, 3))
    text = str(jax.make_jaxpr(augment.scale)(images, sx=1.0, sy=1.0))
    assert text.count("dot_general") == text.count("Precision.HIGHEST, Precision.HIGHEST") > 0


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shift", [(2, -3), (-1, 4), (40, 0), (0, -40)])
def test_crop_equals_a_loop(size, shift):
    image = normal(*size, 2)
    expected = np.zeros_like(image)
    for i, j in np.ndindex(*size):
        row, column = i + shift[0], j + shift[1]
        if 0 <= row < size[0] and 0 <= column < size[1]:
            expected[i, j] = image[row, column]
    actual = augment.crop(jnp.asarray(image), translation_x=shift[0], translation_y=shift[1])
    np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("size", SIZES)
def test_cutout_equals_clamped_indices(size):
    height, width = (int(length / 2 + 0.5) for length in size)
    image = np.ones((*size, 2), np.float32)
    for x, y in itertools.product((0, size[0] // 2, size[0]), (0, size[1] // 3, size[1])):
        expected = image.copy()
        for i, j in np.ndindex(height, width):
            row = min(max(x - height // 2 + i, 0), size[0] - 1)
            column = min(max(y - width // 2 + j, 0), size[1] - 1)
            expected[row, column] = 0
        actual = augment.cutout(jnp.asarray(image), offset_x=x, offset_y=y)
        np.testing.assert_array_equal(actual, expected)


def test_colour_of_each_image_depends_on_that_image_alone():
    images = normal(3, 5, 4, 3)
    numbers = {"randb": 0.1, "rands": 0.9, "randc": 0.3}
    together = augment.color(jnp.asarray(images), **numbers)
    for image, actual in zip(images, together, strict=True):
        bright = image + (0.1 - 0.5)
        grey = bright.mean(2, keepdims=True)
        saturated = grey + 1.8 * (bright - grey)
        expected = saturated.mean() + 0.8 * (saturated - saturated.mean())
        np.testing.assert_allclose(actual, expected, atol=1e-6)


# Sampling


def test_every_operation_is_equally_likely():
    count = np.bincount(draws(3000).op, minlength=len(OPERATIONS))
    assert len(count) == len(OPERATIONS)
    np.testing.assert_allclose(count / 3000, 1 / 6, atol=0.03)  # over 4 standard deviations


def test_parts_run_one_after_the_other():
    images = jnp.asarray(normal(3, 9, 7, 3))
    strategy = "color+crop_flip+cutout"
    assert augment.operations(strategy) == [
        ("color", "crop", "cutout"),
        ("color", "flip", "cutout"),
    ]
    seen = set()
    for seed in range(12):
        parameters = augment.sample(jax.random.key(seed), images.shape, strategy=strategy)
        seen.add(int(parameters.op))
        expected = images
        for name in ("color", ("crop", "flip")[int(parameters.op)], "cutout"):
            expected = run(name, parameters, expected)
        actual = augment.apply(parameters, images, strategy=strategy)
        np.testing.assert_allclose(actual, expected, atol=1e-6)
    assert seen == {0, 1}


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("randb", 0, 1),
        ("rands", 0, 1),
        ("randc", 0, 1),
        ("randf", 0, 1),
        ("sx", 1 / 1.2, 1.2),
        ("sy", 1 / 1.2, 1.2),
        ("theta", -np.pi / 12, np.pi / 12),
    ],
)
def test_numbers_are_uniform(name, low, high):
    values = np.sort(getattr(draws(3000), name))
    assert low <= values[0] < values[-1] <= high
    uniform = np.linspace(low, high, len(values))
    assert np.max(np.abs(values - uniform)) < 0.04 * (high - low)


@pytest.mark.parametrize("shape", [(32, 17, 3), (5, 32, 64, 1)])
def test_integers_are_uniform_on_the_official_range(shape):
    parameters = draws(6000, shape)
    for axis, length in (("x", shape[-3]), ("y", shape[-2])):
        most = int(length / 8 + 0.5)
        offsets = length + 1 - int(length / 2 + 0.5) % 2
        for name, low, number in (("translation", -most, 2 * most + 1), ("offset", 0, offsets)):
            values = getattr(parameters, f"{name}_{axis}")
            assert values.dtype == jnp.int32
            count = np.bincount(values - low, minlength=number)
            assert len(count) == number
            mean = 6000 / number
            assert np.max(np.abs(count - mean)) < 5 * np.sqrt(mean)


def test_numbers_are_independent_of_each_other():
    table = np.corrcoef(np.stack(draws(3000)))
    assert np.max(np.abs(table - np.eye(len(table)))) < 0.1


# One operation on a batch


@pytest.mark.parametrize("operation", OPERATIONS)
def test_siamese_images_are_treated_alike(operation):
    parameters = augment.sample(jax.random.key(1), (9, 9, 3))._replace(randf=0.1)
    real, synthetic = jnp.asarray(normal(3, 9, 9, 3)), jnp.asarray(normal(2, 9, 9, 3, seed=1))
    both = run(operation, parameters, jnp.concatenate((real, synthetic)))
    np.testing.assert_allclose(run(operation, parameters, real), both[:3], atol=1e-6)
    np.testing.assert_allclose(run(operation, parameters, synthetic), both[3:], atol=1e-6)
    assert not np.array_equal(both[:3], real)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_leading_axes(operation):
    parameters = augment.sample(jax.random.key(2), (9, 11, 3))
    images = jnp.asarray(normal(6, 9, 11, 3))
    expected = run(operation, parameters, images)
    nested = run(operation, parameters, images.reshape(2, 3, 9, 11, 3))
    np.testing.assert_allclose(nested.reshape(images.shape), expected, atol=1e-6)
    single = run(operation, parameters, images[0])
    np.testing.assert_allclose(single, expected[0], atol=1e-6)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_half_precision_is_kept(operation):
    parameters = augment.sample(jax.random.key(2), (8, 8, 3))
    images = jnp.asarray(normal(2, 8, 8, 3))
    out = run(operation, parameters, images.astype(jnp.bfloat16))
    assert out.dtype == jnp.bfloat16
    expected = run(operation, parameters, images)
    np.testing.assert_allclose(out.astype(jnp.float32), expected, atol=0.06)


@pytest.mark.parametrize(
    "over_classes", [jax.lax.map, lambda f, xs: jax.vmap(f)(xs)], ids=["map", "vmap"]
)
def test_gradient_inside_a_map_over_classes(over_classes):
    """As in distillation; class k has operation k, so that every branch of the switch runs."""
    number = len(OPERATIONS)
    parameters = draws(number, (7, 9, 3))
    parameters = parameters._replace(op=jnp.arange(number), randf=jnp.full(number, 0.25))
    images = jnp.asarray(normal(number, 2, 7, 9, 3))
    weights = jnp.asarray(normal(number, 2, 7, 9, 3, seed=1))

    def loss(images, parameters, weights):
        return jnp.sum(weights * augment.apply(parameters, images) ** 2)

    gradients = jax.jit(
        lambda *arguments: over_classes(lambda one: jax.grad(loss)(*one), arguments)
    )(images, parameters, weights)
    for k, operation in enumerate(OPERATIONS):
        one = jax.tree.map(lambda leaf, k=k: leaf[k], parameters)
        out, vjp = jax.vjp(partial(run, operation, one), images[k])
        np.testing.assert_allclose(gradients[k], vjp(2 * weights[k] * out)[0], atol=1e-5)


def test_second_call_with_other_numbers_is_not_traced_again():
    traces = []

    @jax.jit
    def draw_and_apply(key, images):
        traces.append(1)
        return augment.apply(augment.sample(key, images.shape), images)

    images = jnp.asarray(normal(2, 8, 8, 3))
    first, second = (draw_and_apply(jax.random.key(seed), images) for seed in (0, 1))
    assert not np.array_equal(first, second)
    assert len(traces) == 1


# Evaluation: every image its own numbers


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_image_of_a_batch_has_its_own_numbers(operation):
    image = normal(1, 32, 32, 3)
    images = jnp.asarray(np.repeat(image, 16, axis=0))
    batch = jax.jit(partial(augment.augment_batch, strategy=operation))
    out = batch(jax.random.key(0), images)
    different = len(np.unique(out, axis=0))
    assert different == 2 if operation == "flip" else different > 8


def test_a_batch_has_one_operation():
    """Only cutout makes zeros here, so a batch has a zero in all images or in none."""
    images = jnp.asarray(1 + np.abs(normal(8, 6, 6, 1)))
    batch = jax.jit(partial(augment.augment_batch, images=images, strategy="flip_cutout"))
    holes = [jnp.any(batch(jax.random.key(seed)) == 0, (1, 2, 3)).tolist() for seed in range(12)]
    assert [True] * 8 in holes
    assert [False] * 8 in holes
    assert all(len(set(hole)) == 1 for hole in holes)


def test_a_batch_runs_one_branch():
    """With a batched index the switch would become a selection among all results."""
    images = jnp.zeros((2, 8, 8, 3))
    text = str(jax.make_jaxpr(augment.augment_batch)(jax.random.key(0), images))
    assert "cond[" in text


def test_the_key_decides():
    images = jnp.asarray(normal(4, 8, 8, 3))
    batch = jax.jit(partial(augment.augment_batch, images=images))
    first, again, other = (batch(jax.random.key(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


# Strategies


def test_none_changes_nothing():
    images = jnp.asarray(normal(2, 8, 8, 3))
    parameters = augment.sample(jax.random.key(0), images.shape, strategy="none")
    np.testing.assert_array_equal(augment.apply(parameters, images, strategy="none"), images)
    batch = augment.augment_batch(jax.random.key(0), images, strategy="none")
    np.testing.assert_array_equal(batch, images)


@pytest.mark.parametrize("strategy", ["color_flp", "", "Crop", "none_flip"])
def test_unknown_operation(strategy):
    images = jnp.zeros((2, 8, 8, 3))
    parameters = augment.sample(jax.random.key(0), images.shape)
    with pytest.raises(ConfigError, match=r"unknown augmentation .* Valid: color, crop"):
        augment.sample(jax.random.key(0), images.shape, strategy=strategy)
    with pytest.raises(ConfigError, match="unknown augmentation"):
        augment.apply(parameters, images, strategy=strategy)
    with pytest.raises(ConfigError, match="unknown augmentation"):
        augment.augment_batch(jax.random.key(0), images, strategy=strategy)


def test_unknown_operation_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'flip'"):
        augment.sample(jax.random.key(0), (8, 8, 3), strategy="color_flp")


def test_integer_images_are_refused():
    parameters = augment.sample(jax.random.key(0), (8, 8, 3))
    with pytest.raises(AssertionError, match="float"):
        augment.apply(parameters, jnp.zeros((2, 8, 8, 3), jnp.uint8))
