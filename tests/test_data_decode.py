"""Encoded images of every kind, against Pillow and slices of arrays."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from originals import encoded, picture
from PIL import Image

from fairdd_jax.data.decode import DamagedImageError, Transform, decode


def image(width=10, height=6):
    """A picture without symmetry, and its pixels."""
    shown = picture(np.random.default_rng(0), width, height, label=1, group=2)
    return shown, np.asarray(shown)


def whole(data, **options):
    """The image as it is, its side being that of the picture, which must be a square."""
    with Image.open(io.BytesIO(data)) as opened:
        return decode(data, Transform(max(opened.size)), **options)


def resized(pixels, side):
    return np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.BILINEAR))


def png(shown, **options):
    return encoded(shown, "PNG", **options)


# From the upright pixels to the stored ones, by EXIF's definition: what side the row 0 and the
# column 0 of the stored image are (of 6, a phone held upright, the right side and the top).
STORED = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.swapaxes(0, 1),
    6: lambda upright: upright.swapaxes(0, 1)[::-1],
    7: lambda upright: upright.swapaxes(0, 1)[::-1, ::-1],
    8: lambda upright: upright.swapaxes(0, 1)[:, ::-1],
}


@pytest.mark.parametrize("orientation", STORED)
def test_exif_turns_an_image_upright(orientation):
    _, upright = image(9, 9)
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](upright)))
    exif = Image.Exif()
    exif[274] = orientation
    np.testing.assert_array_equal(whole(png(stored, exif=exif)), upright)


@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b""])
def test_damaged_exif_turns_nothing(exif):
    shown, _ = image(9, 9)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow says that it is corrupt
        actual = whole(encoded(shown, exif=exif))
    np.testing.assert_array_equal(actual, whole(encoded(shown)))


def test_exif_that_cannot_be_read_turns_nothing(monkeypatch):
    def fail(image):
        raise struct.error("unpack requires a buffer of 2 bytes")

    shown, pixels = image(9, 9)
    exif = Image.Exif()
    exif[274] = 3
    data = png(shown, exif=exif)
    monkeypatch.setattr(Image.Image, "getexif", fail)
    np.testing.assert_array_equal(whole(data), pixels)


def test_a_colour_image_keeps_its_pixels():
    shown, pixels = image(9, 9)
    actual = whole(png(shown))
    assert actual.dtype == np.uint8
    np.testing.assert_array_equal(actual, pixels)
    for kind in ("BMP", "TIFF"):
        np.testing.assert_array_equal(whole(encoded(shown, kind)), pixels)


def test_a_grey_image_gets_three_equal_channels():
    shown, _ = image(9, 9)
    grey = shown.convert("L")
    expected = np.repeat(np.asarray(grey)[..., None], 3, axis=-1)
    np.testing.assert_array_equal(whole(png(grey)), expected)


def test_a_black_and_white_image():
    bits = np.random.default_rng(0).random((9, 9)) < 0.5
    actual = whole(png(Image.fromarray(bits)))
    np.testing.assert_array_equal(actual, np.repeat(bits[..., None], 3, axis=-1) * 255)


def test_a_cmyk_jpeg():
    """Of one colour, so that compression loses nothing: (1 - C)(1 - K) and so on."""
    ink = np.broadcast_to(np.array([51, 102, 0, 85], np.uint8), (9, 9, 4))
    data = encoded(Image.fromarray(ink, "CMYK"), quality=100)
    cyan, magenta, yellow, black = 51, 102, 0, 85
    expected = [(255 - c) * (255 - black) / 255 for c in (cyan, magenta, yellow)]
    assert np.abs(whole(data).astype(float) - expected).max() <= 2


def palette(transparency):
    colours = np.array([[255, 0, 0], [0, 200, 0], [0, 0, 100], [9, 9, 9]], np.uint8)
    indices = np.random.default_rng(0).integers(0, 4, (9, 9), np.uint8)
    shown = Image.fromarray(indices, "P")
    shown.putpalette(colours.tobytes())
    options = {} if transparency is None else {"transparency": transparency}
    return png(shown, **options), colours[indices]


@pytest.mark.parametrize("transparency", [None, 1, b"\xff\x00\x80\xff"])
def test_a_palette_image_with_and_without_transparency(transparency):
    data, expected = palette(transparency)
    np.testing.assert_array_equal(whole(data), expected)


def test_transparency_is_dropped():
    _, pixels = image(9, 9)
    alpha = np.random.default_rng(0).integers(0, 256, (9, 9, 1), np.uint8)
    data = png(Image.fromarray(np.concatenate([pixels, alpha], axis=-1)))
    np.testing.assert_array_equal(whole(data), pixels)
    grey = Image.fromarray(np.concatenate([pixels[..., :1], alpha], axis=-1), "LA")
    np.testing.assert_array_equal(whole(png(grey)), np.repeat(pixels[..., :1], 3, axis=-1))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("top", [200, 5000, 65535])
def test_16_bit_greys_are_scaled_and_not_clipped(kind, top):
    levels = np.linspace(0, top, 81).astype(np.uint16).reshape(9, 9)
    actual = whole(encoded(Image.fromarray(levels), kind))
    expected = np.rint(levels / 65535 * 255)
    np.testing.assert_array_equal(actual, np.repeat(expected[..., None], 3, axis=-1))


def test_floating_point_pixels_are_refused():
    data = encoded(Image.fromarray(np.ones((9, 9), np.float32)), "TIFF")
    with pytest.raises(DamagedImageError, match="floating-point"):
        decode(data, Transform(9))


def test_celebas_centre_crop_is_a_slice():
    shown, pixels = image(178, 218)
    actual = decode(png(shown), Transform(178, crop=178))
    np.testing.assert_array_equal(actual, pixels[20:198])
    small = decode(png(shown), Transform(64, crop=178))
    np.testing.assert_array_equal(small, resized(pixels[20:198], 64))


def test_a_crop_larger_than_the_image_takes_its_largest_square():
    shown, pixels = image(10, 6)
    np.testing.assert_array_equal(decode(png(shown), Transform(6, crop=178)), pixels[:, 2:8])


@pytest.mark.parametrize(("width", "height"), [(30, 20), (20, 30), (31, 20), (20, 33), (39, 20)])
def test_the_short_side_is_scaled_and_the_middle_is_cut(width, height):
    """As torchvision's Resize(8) and CenterCrop(8)."""
    shown, _ = image(width, height)
    long = int(8 * max(width, height) / 20)
    sides = (long, 8) if width > height else (8, long)
    pixels = np.asarray(shown.resize(sides, Image.Resampling.BILINEAR))
    start = round((long - 8) / 2)
    middle = slice(start, start + 8)
    expected = pixels[:, middle] if width > height else pixels[middle]
    actual = decode(png(shown), Transform(8, fit="crop"))
    np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize(("width", "height"), [(1, 1), (3, 100), (100, 3), (1, 2)])
@pytest.mark.parametrize("fit", ["crop", "stretch"])
def test_any_shape_becomes_the_square(width, height, fit):
    shown, _ = image(width, height)
    assert decode(png(shown), Transform(8, fit=fit)).shape == (8, 8, 3)


def test_stretching_squeezes_the_whole_image():
    shown, pixels = image(30, 20)
    np.testing.assert_array_equal(decode(png(shown), Transform(8)), resized(pixels, 8))


def test_grey_on_request_is_pillows_conversion_of_the_result():
    shown, pixels = image(30, 20)
    expected = np.asarray(Image.fromarray(resized(pixels, 8)).convert("L"))
    actual = decode(png(shown), Transform(8), grey=True)
    np.testing.assert_array_equal(actual, np.repeat(expected[..., None], 3, axis=-1))


def truncated(kind):
    data = encoded(image(64, 64)[0], kind)
    return data[: len(data) * 2 // 3]


def bomb():
    """A PNG that says it has 60,000 x 60,000 pixels."""
    data = png(image(9, 9)[0])
    header = b"IHDR" + struct.pack(">II", 60_000, 60_000) + data[24:29]
    return data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]


DAMAGE = {
    "truncated JPEG": (truncated("JPEG"), "truncated"),
    "truncated PNG": (truncated("PNG"), "truncated"),
    "truncated GIF": (truncated("GIF"), "truncated"),
    "truncated TIFF": (truncated("TIFF"), "truncated"),
    "web page": (b"\n<!DOCTYPE html>\n<html><body>Too many requests", "it is a web page"),
    "XML": (b'<?xml version="1.0"?><Error><Code>AccessDenied', "it is a web page"),
    "nothing": (b"", "it is empty"),
    "zeros": (bytes(1000), "it is no image"),
    "text": (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a", "it is no image"),
    "only a header": (png(image()[0])[:30], "it is no image"),
    "more pixels than fit": (bomb(), "3600000000 pixels"),
}


@pytest.mark.parametrize("sides", [(1, 70_000), (70_000, 1)])
def test_a_line_is_no_image_to_cut_a_square_from(sides):
    """Scaled to the width of the square it would be as long as memory is."""
    line = png(Image.new("RGB", sides))
    with pytest.raises(DamagedImageError, match=f"{sides[0]} x {sides[1]} pixels, too thin"):
        decode(line, Transform(8, fit="crop"))
    assert decode(line, Transform(8, fit="stretch")).shape == (8, 8, 3)


def test_too_little_memory_is_no_damage(monkeypatch):
    def fail(opened):
        raise MemoryError

    monkeypatch.setattr("fairdd_jax.data.decode._rgb", fail)
    with pytest.raises(MemoryError):
        decode(png(image()[0]), Transform(8))


@pytest.mark.parametrize(("data", "message"), DAMAGE.values(), ids=DAMAGE.keys())
def test_what_is_no_whole_image_is_refused_and_named(data, message):
    with pytest.raises(DamagedImageError, match=message) as error:
        decode(data, Transform(8))
    text = str(error.value)
    assert text
    assert "\n" not in text
    assert "BytesIO" not in text
