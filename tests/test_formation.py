"""Multi-formation against plain loops."""

import jax.numpy as jnp
import numpy as np
import pytest

from fairdd_jax import formation
from fairdd_jax.errors import ConfigError


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def bilinear(crop, side, interpolation):
    """One channel, pixel by pixel."""
    result = np.zeros(side)
    for i in range(side[0]):
        for j in range(side[1]):
            at = []
            for index, target, source in zip((i, j), side, crop.shape, strict=True):
                if interpolation == "corners":
                    at.append(index * (source - 1) / (target - 1))
                else:
                    at.append(min(max((index + 0.5) * source / target - 0.5, 0), source - 1))
            y, x = (int(np.floor(a)) for a in at)
            down, right = at[0] - y, at[1] - x
            below, beside = min(y + 1, crop.shape[0] - 1), min(x + 1, crop.shape[1] - 1)
            upper = (1 - right) * crop[y, x] + right * crop[y, beside]
            lower = (1 - right) * crop[below, x] + right * crop[below, beside]
            result[i, j] = (1 - down) * upper + down * lower
    return result


@pytest.mark.parametrize("interpolation", ["half_pixel", "corners"])
@pytest.mark.parametrize(
    ("factor", "side"), [(2, (8, 6)), (3, (9, 12)), (3, (10, 8)), (4, (7, 11))]
)
def test_decode_agrees_with_loops(factor, side, interpolation):
    images = normal(2, *side, 3)
    fill = np.array([0.5, -1.0, 2.0], np.float32)
    actual = formation.decode(
        jnp.asarray(images), factor=factor, interpolation=interpolation, fill=fill
    )
    assert actual.shape == (2 * factor**2, *side, 3)
    if interpolation == "corners":
        height, width = (s // factor for s in side)
        padded = images
    else:
        height, width = (-(-s // factor) for s in side)
        padded = np.empty((2, height * factor, width * factor, 3), np.float32)
        padded[:] = fill
        padded[:, : side[0], : side[1]] = images
    k = 0
    for p in range(factor):
        for q in range(factor):
            for n in range(2):
                crop = padded[n, p * height : (p + 1) * height, q * width : (q + 1) * width]
                for c in range(3):
                    expected = bilinear(crop[..., c], side, interpolation)
                    np.testing.assert_allclose(actual[k, ..., c], expected, atol=1e-5)
                k += 1


def test_factor_one_changes_nothing():
    images = jnp.asarray(normal(2, 5, 5, 1))
    np.testing.assert_array_equal(formation.decode(images, factor=1), images)


def test_mix_takes_the_nearest_pixels_of_every_image():
    images = np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1, 1) * np.ones(
        (4, 2, 7, 8, 3), np.uint8
    )
    images[:, 1] += 10
    coded = formation.mix(images, factor=2)
    assert coded.dtype == np.uint8
    assert coded.shape == (2, 7, 8, 3)
    assert coded[0, :4, :4].max() == 0
    assert coded[1, :4, 4:].min() == coded[1, :4, 4:].max() == 11
    assert coded[0, 4:, :4].min() == 2
    ramp = np.arange(8)[None, None, None, :, None].repeat(4, 0).repeat(8, 2)
    assert formation.mix(ramp, factor=2)[0, 0, :, 0].tolist() == [0, 2, 4, 6] * 2


def test_unknown_interpolation():
    with pytest.raises(ConfigError, match="did you mean 'corners'"):
        formation.decode(jnp.zeros((1, 4, 4, 1)), factor=2, interpolation="corner")


@pytest.mark.parametrize("side", range(2, 34))
def test_no_crop_is_padding_alone(side):
    """Which pixels of the padded side each crop has tells which factors are refused."""
    for factor in range(2, side + 1):
        is_pixel = np.arange(side + -side % factor).reshape(factor, -1) < side
        if is_pixel.any(1).all():
            formation.check_factor(factor, side, interpolation="half_pixel")
        else:
            with pytest.raises(ConfigError, match=f"--factor {factor} pads a side of {side} "):
                formation.decode(jnp.ones((1, side, side, 1)), factor=factor)
        formation.check_factor(factor, side)


@pytest.mark.parametrize("interpolation", ["half_pixel", "corners"])
def test_a_crop_has_a_pixel(interpolation):
    """As many crops along the shorter side as it has pixels show one each, and no more are cut."""
    images = normal(1, 5, 3, 1)
    decoded = formation.decode(jnp.asarray(images), factor=3, interpolation=interpolation)
    assert decoded.shape == (9, 5, 3, 1)
    np.testing.assert_allclose(decoded[0, 0, :, 0], images[0, 0, 0, 0])
    parts = normal(9, 1, 5, 3, 1)
    assert formation.mix(parts, factor=3)[0, 0, :, 0].tolist() == parts[:3, 0, 0, 0, 0].tolist()
    message = "--factor 4 cuts images of 5x3 pixels into crops of less than a pixel; choose 1 to 3"
    with pytest.raises(ConfigError, match=message):
        formation.decode(jnp.asarray(images), factor=4, interpolation=interpolation)
    with pytest.raises(ConfigError, match=message):
        formation.mix(normal(16, 1, 5, 3, 1), factor=4)
