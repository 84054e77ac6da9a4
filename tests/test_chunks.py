"""Sums over chunks: the same sum, the same derivatives, and bounded memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import FIRST_ORDER, SECOND_ORDER, assert_close

from fairdd_jax.chunks import sum_over_chunks

ROWS = 17
CHUNKS = [1, 4, 5, 17, 29]


def arrays(rows=ROWS):
    """Images, values and the weights of both, one of them zero."""
    rng = np.random.default_rng(0)
    x, y, weights = (rng.normal(size=shape) for shape in ((rows, 3, 2), (rows,), (rows,)))
    weights[2] = 0
    return tuple(jnp.asarray(a, jnp.float32) for a in (x, y, weights))


def parameter():
    return jnp.asarray(np.random.default_rng(1).normal(size=(6, 4)), jnp.float32)


def sums(matrix, x, y, weights):
    """A pytree of weighted sums; what is summed is not zero where the rows are."""
    hidden = jnp.cos(x.reshape(x.shape[0], -1) @ matrix)
    return {"hidden": weights @ hidden, "both": (weights @ (1 + y**2), weights @ hidden.sum(1))}


def chunked(matrix, *of_rows, chunk):
    return sum_over_chunks(lambda *part: sums(matrix, *part), *of_rows, chunk=chunk)


def total(tree):
    """A scalar that is nonlinear in every leaf."""
    return sum(jnp.sin(leaf).sum() for leaf in jax.tree.leaves(tree))


def assert_equal_trees(actual, expected, tolerance):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert_close(a, b, **tolerance)


@pytest.mark.parametrize("chunk", CHUNKS)
def test_sum_equals_a_loop_over_rows(chunk):
    matrix, (x, y, weights) = parameter(), arrays()
    expected = {"hidden": np.zeros(4), "both": (np.zeros(()), np.zeros(()))}
    for row in range(ROWS):
        hidden = np.cos(np.asarray(x[row], np.float64).ravel() @ np.asarray(matrix, np.float64))
        values = {"hidden": hidden, "both": (1 + float(y[row]) ** 2, hidden.sum())}
        weight = float(weights[row])
        expected = jax.tree.map(lambda t, v, w=weight: t + w * v, expected, values)
    actual = chunked(matrix, x, y, weights, chunk=chunk)
    assert_equal_trees(actual, expected, FIRST_ORDER)


@pytest.mark.parametrize("chunk", CHUNKS)
def test_derivatives_of_both_orders_equal_the_unchunked(chunk):
    """By a parameter that is closed over and by every array; then through the first gradient."""

    def derivatives(function):
        first = jax.grad(lambda *x: total(function(*x)), (0, 1, 2, 3))
        second = jax.grad(lambda *x: total(first(*x)), (0, 1, 2, 3))
        return jax.jit(lambda *x: (first(*x), second(*x)))

    operands = parameter(), *arrays()
    ours = derivatives(lambda *x: chunked(*x, chunk=chunk))(*operands)
    whole = derivatives(sums)(*operands)
    assert_equal_trees(ours[0], whole[0], FIRST_ORDER)
    assert_equal_trees(ours[1], whole[1], SECOND_ORDER)


@pytest.mark.parametrize("chunk", CHUNKS)
def test_second_derivative_of_a_sum_of_gradients(chunk):
    """As gradient matching uses it: a function of summed gradients, differentiated by the rows."""

    def summed_gradient(add):
        def of_rows(x, y, weights, matrix):
            def gradient(*part):
                return jax.grad(lambda m: sums(m, *part)["both"][1])(matrix)

            return jnp.tanh(add(gradient, x, y, weights)).sum()

        return jax.jit(jax.grad(of_rows))(*arrays(), parameter())

    ours = summed_gradient(lambda f, *x: sum_over_chunks(f, *x, chunk=chunk))
    assert_close(ours, summed_gradient(lambda f, *x: f(*x)), **SECOND_ORDER)


@pytest.mark.parametrize(
    ("chunk", "size"), [(1, 1), (4, 4), (5, 5), (8, 6), (16, 9), (17, 17), (29, 17)]
)
def test_chunks_are_equally_large_and_no_larger_than_asked(chunk, size):
    """Of 17 rows and at most 8 at once: 3 chunks of 6, not 8, 8 and 1."""
    seen = set()

    def function(x, y, weights):
        seen.add((x.shape, y.shape, weights.shape))
        return weights @ y

    sum_over_chunks(function, *arrays(), chunk=chunk)
    assert seen == {((size, 3, 2), (size,), (size,))}


@pytest.mark.parametrize("skip", [True, False])
def test_chunks_without_weights_are_left_out_if_asked(skip):
    """Of three chunks of six rows the last weighs nothing: what it gives is not a number."""
    _, y, _ = arrays()
    weights = jnp.asarray([1.0] * 8 + [0.0] * 9)

    def value(y):
        def function(y, weights):
            return weights @ y**2 / weights.max()

        return sum_over_chunks(function, y, weights, chunk=6, skip_weightless=skip)

    total, gradient = jax.value_and_grad(value)(y)
    assert bool(jnp.isfinite(total)) == skip
    if skip:
        rows = np.asarray(y, np.float64) * (np.arange(ROWS) < 8)
        assert_close(total, (rows**2).sum(), **FIRST_ORDER)
        assert_close(gradient, 2 * rows, **FIRST_ORDER)


def test_memory_of_a_gradient_does_not_grow_with_the_chunks():
    """Four times the rows, which alone would quadruple what is kept of every hidden layer."""
    chunk, width = 8, 4096
    matrix = jax.ShapeDtypeStruct((6, width), jnp.float32)

    def temporary_bytes(num_chunks, size):
        def loss(matrix, x, weights):
            def function(x, weights):
                return weights @ jnp.tanh(jnp.sin(x @ matrix)).sum(1)

            return sum_over_chunks(function, x, weights, chunk=size)

        shapes = ((num_chunks * chunk, 6), (num_chunks * chunk,))
        rows = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
        compiled = jax.jit(jax.grad(loss)).lower(matrix, *rows).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    few, many = (temporary_bytes(num_chunks, chunk) for num_chunks in (4, 16))
    layer_of_a_chunk = chunk * width * 4
    assert few > layer_of_a_chunk  # so that there is something to see
    assert many - few < layer_of_a_chunk
    assert temporary_bytes(16, 16 * chunk) > 2 * many
