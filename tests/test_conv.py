"""The convolution against XLA's own, whose derivatives come from automatic differentiation."""

import re
from collections.abc import Callable, Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import FIRST_ORDER, assert_close
from jax import lax
from jax.test_util import check_grads

from fairdd_jax.models import conv
from fairdd_jax.models.conv import conv2d

LAYOUT = ("NHWC", "HWIO", "NHWC")
Convolution = Callable[[jax.Array, jax.Array], jax.Array]


def reference(stride: int, padding: int) -> Convolution:
    def convolve(images: jax.Array, kernel: jax.Array) -> jax.Array:
        pads = [(padding, padding)] * 2
        return lax.conv_general_dilated(
            images, kernel, (stride, stride), pads, dimension_numbers=LAYOUT
        )

    return convolve


FEW, MANY = 3, 6  # input channels of a first layer and of any other


def operands(size: int, channels: int = MANY) -> tuple[jax.Array, jax.Array]:
    """Two images and a kernel of 4 outputs: no two axes of one length."""
    random = np.random.default_rng(size)
    images = random.normal(size=(2, 7, 10, channels))
    kernel = random.normal(size=(size, size, channels, 4)) / size
    return jnp.asarray(images, jnp.float32), jnp.asarray(kernel, jnp.float32)


def curved(convolve: Convolution) -> Convolution:
    """A scalar in which all second derivatives, the mixed one too, are at work."""

    def loss(images: jax.Array, kernel: jax.Array) -> jax.Array:
        output = convolve(images, kernel)
        return jnp.vdot(jnp.tanh(output), jnp.linspace(-1, 1, output.size).reshape(output.shape))

    return loss


def derivatives(convolve: Convolution) -> Callable:
    """Output, both gradients, and a Hessian-vector product with respect to both operands."""
    gradient = jax.grad(curved(convolve), (0, 1))

    def along(images: jax.Array, kernel: jax.Array) -> jax.Array:
        by_images, by_kernel = gradient(images, kernel)
        return jnp.vdot(by_images, jnp.cos(images)) + jnp.vdot(by_kernel, jnp.cos(kernel))

    @jax.jit
    def compute(images: jax.Array, kernel: jax.Array) -> tuple:
        second = jax.grad(along, (0, 1))(images, kernel)
        return convolve(images, kernel), gradient(images, kernel), second

    return compute


# Every pair of the three settings; two sides of different parity, so that the stride leaves a
# remainder on one of them.
CASES = [
    (1 + (size // 2 + padding) % 2, size, padding) for size in (1, 3, 5) for padding in range(4)
]


@pytest.mark.parametrize(
    ("stride", "size", "padding", "channels"),
    [(*case, MANY) for case in CASES] + [(1, size, p, FEW) for size in (1, 3, 5) for p in (0, 2)],
)
def test_value_and_derivatives_match_reference(
    stride: int, size: int, padding: int, channels: int
) -> None:
    def convolve(images: jax.Array, kernel: jax.Array) -> jax.Array:
        return conv2d(images, kernel, stride=stride, padding=padding)

    images, kernel = operands(size, channels)
    actual = jax.tree.leaves(derivatives(convolve)(images, kernel))
    expected = jax.tree.leaves(derivatives(reference(stride, padding))(images, kernel))
    assert len(actual) == len(expected) == 5
    for ours, theirs in zip(actual, expected, strict=True):
        assert_close(ours, theirs, **FIRST_ORDER)


@pytest.fixture
def double_precision() -> Iterator[None]:
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize(
    ("stride", "size", "padding", "channels"), [(1, 3, 1, MANY), (2, 3, 2, MANY), (1, 3, 1, FEW)]
)
def test_gradients_match_finite_differences(
    stride: int, size: int, padding: int, channels: int
) -> None:
    random = np.random.default_rng(size)
    images = jnp.asarray(random.normal(size=(2, 4, 5, channels)))
    kernel = jnp.asarray(random.normal(size=(size, size, channels, 4)))

    def convolve(images: jax.Array, kernel: jax.Array) -> jax.Array:
        return conv2d(images, kernel, stride=stride, padding=padding)

    assert convolve(images, kernel).dtype == jnp.float64
    check_grads(convolve, (images, kernel), order=2, modes=["rev"], atol=1e-5, rtol=1e-5)


@pytest.fixture
def tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conv, "_MANY_CHANNELS", 1)


def convolutions(images: jax.Array, kernel: jax.Array, **options: int) -> int:
    """How many are left of a convolution and its derivatives."""
    compute = derivatives(lambda x, k: conv2d(x, k, **options))
    return str(jax.make_jaxpr(compute)(images, kernel)).count("conv_general_dilated[")


@pytest.mark.usefixtures("tiles")
@pytest.mark.parametrize("padding", range(3))
def test_tiles_match_reference(padding: int) -> None:
    """Sides of both parities, so that the last tiles hang over."""
    assert convolutions(*operands(3), padding=padding) == 0
    test_value_and_derivatives_match_reference(1, 3, padding, MANY)


@pytest.mark.usefixtures("tiles", "double_precision")
@pytest.mark.parametrize("padding", range(3))
def test_tiles_match_finite_differences(padding: int) -> None:
    random = np.random.default_rng(padding)
    images, kernel = (jnp.asarray(random.normal(size=s)) for s in ((2, 4, 5, 6), (3, 3, 6, 4)))
    assert convolutions(images, kernel, padding=padding) == 0
    convolve = partial(conv2d, padding=padding)
    check_grads(convolve, (images, kernel), order=2, modes=["rev"], atol=1e-5, rtol=1e-5)


@pytest.mark.usefixtures("tiles")
def test_tiles_round_as_plain_convolutions_do() -> None:
    """The error of sums of 9 x 128 products, beside that of the reference."""
    random = np.random.default_rng(0)
    images, kernel = (
        random.normal(size=shape).astype(np.float32) for shape in ((4, 16, 16, 128), (3, 3, 128, 8))
    )
    padded = np.pad(images.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    exact = sum(
        padded[:, i : i + 16, j : j + 16] @ kernel[i, j].astype(np.float64)
        for i in range(3)
        for j in range(3)
    )
    ours, theirs = (
        np.abs(np.asarray(f(jnp.asarray(images), jnp.asarray(kernel))) - exact)
        for f in (partial(conv2d, padding=1), reference(1, 1))
    )
    assert np.sqrt((ours**2).mean()) < 3 * np.sqrt((theirs**2).mean())
    assert ours.max() < 1e-6 * np.abs(exact).max()


@pytest.mark.parametrize(
    ("options", "dtype", "is_plain"),
    [
        ({"padding": 1}, jnp.float32, False),
        ({"padding": 1, "stride": 2}, jnp.float32, True),
        ({"padding": 3}, jnp.float32, True),
        ({"padding": 1}, jnp.bfloat16, True),
    ],
)
def test_what_is_computed_by_tiles(
    options: dict, dtype: jnp.dtype, is_plain: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, kernel = jnp.ones((1, 4, 4, 32), dtype), jnp.ones((3, 3, 32, 32), dtype)

    def is_convolution(kernel: jax.Array) -> bool:
        jaxpr = jax.make_jaxpr(partial(conv2d, **options))(images, kernel)
        return "conv_general_dilated" in str(jaxpr)

    assert is_convolution(kernel) == is_plain
    assert is_convolution(kernel[..., :31])
    monkeypatch.setattr(conv, "on_cpu", lambda: False)
    assert is_convolution(kernel)


@pytest.mark.usefixtures("tiles")
@pytest.mark.parametrize("stride", [1, 2])
def test_vmap_equals_loop(stride: int) -> None:
    """Several networks on several batches: kernel and images both mapped, gradients too."""
    images = jnp.stack([operands(3)[0] * scale for scale in (1.0, 0.5, -2.0)])
    kernels = jnp.stack([operands(3)[1] * scale for scale in (1.0, -1.0, 0.3)])
    compute = derivatives(lambda x, k: conv2d(x, k, stride=stride, padding=1))
    mapped = jax.vmap(compute)(images, kernels)
    for i, pair in enumerate(zip(images, kernels, strict=True)):
        row = jax.tree.map(lambda leaf, i=i: leaf[i], mapped)
        for ours, alone in zip(jax.tree.leaves(row), jax.tree.leaves(compute(*pair)), strict=True):
            assert_close(ours, alone, **FIRST_ORDER)


def test_scan_equals_loop() -> None:
    """Gradient steps on the kernel, compiled as a loop, and then differentiated by the images."""
    images, kernel = operands(3)
    gradient = jax.grad(curved(lambda x, k: conv2d(x, k, padding=1)), 1)

    def scanned(images: jax.Array) -> jax.Array:
        def step(kernel: jax.Array, _: None) -> tuple[jax.Array, None]:
            return kernel - 0.01 * gradient(images, kernel), None

        return lax.scan(step, kernel, None, length=3)[0]

    def unrolled(images: jax.Array) -> jax.Array:
        k = kernel
        for _ in range(3):
            k = k - 0.01 * gradient(images, k)
        return k

    @partial(jax.jit, static_argnums=0)
    def compute(train: Callable, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jax.value_and_grad(lambda x: (train(x) ** 2).sum())(images)

    for ours, theirs in zip(compute(scanned, images), compute(unrolled, images), strict=True):
        assert_close(ours, theirs, **FIRST_ORDER)


def test_all_derivatives_keep_the_layout() -> None:
    """No convolution of any order in another layout or grouped, which CPU loops run slowly."""
    compute = derivatives(lambda x, k: conv2d(x, k, padding=1))
    text = "".join(str(jax.make_jaxpr(compute)(*operands(3))).split())
    layouts = re.findall(r"lhs_spec=.*?out_spec=\(.*?\)", text)
    assert len(layouts) >= 6  # the three forms, and what their own derivatives are made of
    assert set(layouts) == {"lhs_spec=(0,3,1,2),rhs_spec=(3,2,0,1),out_spec=(0,3,1,2)"}
    assert set(re.findall(r"group_count=(\d+)", text)) == {"1"}
