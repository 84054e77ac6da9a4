"""Instance norm and average pooling against plain loops in double precision and Flax's own."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import FIRST_ORDER, SECOND_ORDER, assert_close
from jax.test_util import check_grads

from fairdd_jax.models import layers
from fairdd_jax.models.layers import avg_pool, instance_norm


def operands(*shape, offset=0.0, seed=0):
    """Images, scale and bias."""
    rng = np.random.default_rng(seed)
    images = rng.normal(offset, 1.5, shape)
    scale, bias = rng.normal(1.0, 0.5, shape[-1]), rng.normal(size=shape[-1])
    return tuple(np.asarray(x, np.float32) for x in (images, scale, bias))


def loop_norm(images, scale, bias):
    """One channel of one image after the other, in the precision of the operands."""
    result = np.zeros_like(images)
    for n, c in np.ndindex(images.shape[0], images.shape[3]):
        pixels = images[n, :, :, c]
        centred = pixels - pixels.mean()
        deviation = np.sqrt((centred * centred).mean() + 1e-5)
        result[n, :, :, c] = centred / deviation * scale[c] + bias[c]
    return result


def weights_like(images):
    return np.linspace(-1, 1, images.size).reshape(images.shape)


def loop_loss(x):
    return (np.tanh(loop_norm(*x)) * weights_like(x[0])).sum()


def loop_gradient(x):
    """Complex step: the imaginary part of f(x + ih) / h, exact to rounding for any small h."""
    gradient = [np.zeros(a.shape) for a in x]
    for which, a in enumerate(x):
        for place in np.ndindex(a.shape):
            moved = [b.astype(complex) for b in x]
            moved[which][place] += 1e-30j
            gradient[which][place] = loop_loss(moved).imag / 1e-30
    return gradient


def loop_second(x, step=1e-4):
    """Gradient of the sum of the gradient's sines, which is the Hessian times their cosines."""
    along = [np.cos(g) for g in loop_gradient(x)]
    ahead, behind = (
        loop_gradient([a + sign * step * v for a, v in zip(x, along, strict=True)])
        for sign in (1, -1)
    )
    return [(a - b) / (2 * step) for a, b in zip(ahead, behind, strict=True)]


def derivatives(norm):
    """Value, gradients, and gradients of a nonlinear function of the gradients."""

    def loss(*x):
        weights = jnp.asarray(weights_like(x[0]), x[0].dtype)
        return (jnp.tanh(norm(*x)) * weights).sum()

    gradient = jax.grad(loss, (0, 1, 2))

    def of_gradients(*x):
        return sum(jnp.sin(g).sum() for g in gradient(*x))

    second = jax.grad(of_gradients, (0, 1, 2))
    return jax.jit(lambda *x: (norm(*x), gradient(*x), second(*x)))


def flax_norm(images, scale, bias):
    norm = nn.GroupNorm(None, group_size=1, epsilon=1e-5)
    return norm.apply({"params": {"scale": scale, "bias": bias}}, images)


@pytest.mark.parametrize("shape", [(2, 3, 5, 3), (1, 1, 7, 2)])
def test_instance_norm_matches_loop(shape):
    x = operands(*shape)
    exact = [a.astype(np.float64) for a in x]
    value, gradient, second = derivatives(instance_norm)(*x)
    assert_close(value, loop_norm(*exact), **FIRST_ORDER)
    for ours, plain in zip(gradient, loop_gradient(exact), strict=True):
        assert_close(ours, plain, **FIRST_ORDER)
    for ours, plain in zip(second, loop_second(exact), strict=True):
        assert_close(ours, plain, **SECOND_ORDER)


def test_instance_norm_matches_flax():
    """Whose derivatives come from automatic differentiation; on larger odd sizes."""
    x = operands(3, 17, 29, 5, offset=0.7)
    ours, theirs = (derivatives(norm)(*x) for norm in (instance_norm, flax_norm))
    # Against doubles either rounds by up to 1e-4, most on CPUs that add few numbers at a time.
    second_order = {"atol": 1e-9, "rtol": 3e-4}
    for order, tolerance in enumerate((FIRST_ORDER, FIRST_ORDER, second_order)):
        pairs = zip(jax.tree.leaves(ours[order]), jax.tree.leaves(theirs[order]), strict=True)
        for mine, reference in pairs:
            assert_close(mine, reference, **tolerance)


def test_instance_norm_derivatives_match_finite_differences():
    """Coarse, because the arithmetic is float32 whatever comes in; the loop above is the fine."""
    check_grads(
        instance_norm, operands(2, 3, 3, 2), order=2, modes=["rev"], atol=1e-2, rtol=1e-2, eps=1e-2
    )


# A sum of sixteen 0.5 is exact; of 0.7 it leaves a variance of rounding, 1e-7 beside the 1e-5.
@pytest.mark.parametrize(("level", "tolerance"), [(0.0, 1e-5), (0.5, 1e-5), (0.7, 2e-2)])
def test_constant_channel_has_finite_derivatives(level, tolerance):
    """Its pixels become the bias, and its gradients those of the loop, 1 / sqrt(1e-5) large."""
    images, scale, bias = operands(1, 4, 4, 2)
    images[..., 0] = level
    value, gradient, second = derivatives(instance_norm)(images, scale, bias)
    exact = [a.astype(np.float64) for a in (images, scale, bias)]
    assert_close(value, loop_norm(*exact), atol=0, rtol=tolerance)
    for ours, plain in zip(gradient, loop_gradient(exact), strict=True):
        assert_close(ours, plain, atol=0, rtol=tolerance)
    assert all(np.isfinite(leaf).all() for leaf in second)


def test_variance_does_not_fall_below_zero():
    """The difference of means of a constant large channel may round to less than -1e-5."""
    levels = np.linspace(100, 1000, 200, dtype=np.float32)
    images = np.broadcast_to(levels, (1, 7, 9, 200)) * np.ones((1, 7, 9, 1), np.float32)
    ones = np.ones(200, np.float32)
    squares = jnp.square(images).mean((1, 2)) - jnp.square(images.mean((1, 2)))
    assert (squares < -1e-5).any()  # so that there is something to see
    y, pull = jax.vjp(instance_norm, images, ones, ones)
    assert np.isfinite(y).all()
    assert all(np.isfinite(leaf).all() for leaf in pull(y))


def test_bfloat16_keeps_its_type_and_has_float32_statistics():
    """Sums of 256 pixels about 8 would lose whole units in bfloat16, which counts in 16s there.

    The result is then that of the loop on the same rounded pixels, itself rounded once: to 2^-8.
    """
    images, scale, bias = operands(2, 16, 16, 3, offset=8.0)
    x, s, b = (jnp.asarray(a, jnp.bfloat16) for a in (images, scale, bias))
    exact = [np.asarray(a, np.float64) for a in (x, s, b)]
    y, pull = jax.vjp(instance_norm, x, s, b)
    assert y.dtype == jnp.bfloat16
    assert_close(np.asarray(y, np.float64), loop_norm(*exact), atol=0, rtol=2**-8)

    cotangent = jnp.asarray(operands(2, 16, 16, 3, seed=1)[0], jnp.bfloat16)
    _, reference = jax.vjp(instance_norm, *(jnp.asarray(a, jnp.float32) for a in exact))
    expected = reference(jnp.asarray(cotangent, jnp.float32))
    for ours, theirs in zip(pull(cotangent), expected, strict=True):
        assert ours.dtype == jnp.bfloat16
        assert_close(np.asarray(ours, np.float64), theirs, atol=0, rtol=2**-8)


def test_bfloat16_images_with_float32_parameters_have_float32_gradients_of_these():
    images, scale, bias = operands(2, 5, 7, 3)
    y, pull = jax.vjp(instance_norm, jnp.asarray(images, jnp.bfloat16), scale, bias)
    assert [leaf.dtype for leaf in (y, *pull(y))] == ["bfloat16", "bfloat16", "float32", "float32"]


@pytest.mark.parametrize("backend", ["cpu", "accelerator"])
@pytest.mark.parametrize(
    ("size", "shape"),
    [(2, (2, 5, 6, 3)), (4, (2, 8, 12, 3)), (4, (2, 9, 11, 3)), (4, (1, 7, 4, 2))],
)
def test_average_pooling_matches_loop(size, shape, backend, monkeypatch):
    """Remainders of rows and columns are dropped and have gradient zero.

    With p the mean of a window of n pixels, the gradient of the sum of all p^3 is 3 p^2 / n in
    the window, and its derivative along a direction whose mean there is d is 6 p d / n.
    """
    monkeypatch.setattr(layers, "on_cpu", lambda: backend == "cpu")
    images, direction = operands(*shape)[0], operands(*shape, seed=1)[0]
    pooled = np.zeros((shape[0], shape[1] // size, shape[2] // size, shape[3]))
    gradient, second = np.zeros(shape), np.zeros(shape)
    for place in np.ndindex(pooled.shape):
        rows, columns = (slice(size * i, size * i + size) for i in place[1:3])
        window = place[0], rows, columns, place[3]
        mean, along = (a[window].astype(np.float64).mean() for a in (images, direction))
        pooled[place] = mean
        gradient[window] = 3 * mean**2 / size**2
        second[window] = 6 * mean * along / size**2

    @jax.jit
    def derivatives(x):
        cubes = jax.grad(lambda x: (avg_pool(x, size) ** 3).sum())
        value, _ = jax.vjp(lambda x: avg_pool(x, size), x)
        return value, cubes(x), jax.grad(lambda x: jnp.vdot(cubes(x), direction))(x)

    assert_close(avg_pool(jnp.asarray(images), size), pooled, **FIRST_ORDER)
    for ours, plain in zip(derivatives(images), (pooled, gradient, second), strict=True):
        assert_close(ours, plain, **FIRST_ORDER)
