"""Augmentation against the official implementation."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import FIRST_ORDER, assert_close, golden

from fairdd_jax import augment

DSA = golden("dsa.npz")
CASES = sorted(key.removesuffix("/out") for key in DSA if key.endswith("/out"))
GRADIENTS = sorted(key.removesuffix("/grad_x") for key in DSA if key.endswith("/grad_x"))
RESAMPLING = {"atol": 2e-5, "rtol": 0.0}
DRAWN = "_drawn"


def tolerance(operation):
    return RESAMPLING if operation in ("scale", "rotate") else FIRST_ORDER


def nhwc(images):
    return jnp.asarray(np.moveaxis(images, -3, -1))


def nchw(images):
    return np.moveaxis(np.asarray(images), -1, -3)


def read(case):
    """Operation, images and numbers of a case "<size>/<indep or siamese>/<operation>"."""
    size, _, operation = case.split("/")
    names = {key.removeprefix(f"{case}/") for key in DSA if key.startswith(f"{case}/")}
    names = {name for name in names - {"out", "grad_x"} if not name.endswith(DRAWN)}
    return operation, nhwc(DSA[f"{size}/x"]), {name: DSA[f"{case}/{name}"] for name in names}


@partial(jax.jit, static_argnums=0)
def each(operation, images, numbers):
    """The operation with the numbers of each image."""
    run = getattr(augment, operation)
    return jax.vmap(lambda image, numbers: run(image, **numbers))(images, numbers)


def test_every_operation_has_a_case():
    colour = {"brightness", "saturation", "contrast"}
    assert {case.split("/")[-1] for case in CASES} == colour | set(augment.ALL.split("_"))
    assert {case.split("/")[1] for case in CASES} == {"indep", "siamese"}
    assert GRADIENTS


@pytest.mark.parametrize("case", CASES)
def test_output(case):
    operation, images, numbers = read(case)
    if "siamese" in case:
        for name, used in numbers.items():
            np.testing.assert_array_equal(used, DSA[f"{case}/{name}{DRAWN}"][0])
        first = {name: used[0] for name, used in numbers.items()}
        actual = jax.jit(getattr(augment, operation))(images, **first)
    else:
        actual = each(operation, images, numbers)
    assert_close(nchw(actual), DSA[f"{case}/out"], **tolerance(operation))


@pytest.mark.parametrize("case", GRADIENTS)
def test_gradient(case):
    operation, images, numbers = read(case)
    cotangent = nhwc(DSA[f"{case.split('/')[0]}/cotangent"])
    _, vjp = jax.vjp(lambda images: each(operation, images, numbers), images)
    assert_close(nchw(vjp(cotangent)[0]), DSA[f"{case}/grad_x"], **tolerance(operation))


@pytest.mark.parametrize("source", ["real", "syn"])
def test_pipeline(source):
    strategy = DSA["pipeline/strategy"].item()
    images = nhwc(DSA[f"pipeline/x_{source}"])
    apply = jax.jit(augment.apply, static_argnames="strategy")
    for op, expected in zip(DSA["pipeline/choice"], DSA[f"pipeline/out_{source}"], strict=True):
        operation = strategy.split("_")[op]
        prefix = f"pipeline/{operation}/"
        numbers = {key.removeprefix(prefix): DSA[key] for key in DSA if key.startswith(prefix)}
        arbitrary = augment.sample(jax.random.key(0), images.shape, strategy=strategy)
        parameters = arbitrary._replace(op=op, **numbers)
        actual = apply(parameters, images, strategy=strategy)
        assert_close(nchw(actual), expected, **tolerance(operation))
