"""Pictures: their size and every pixel of them."""

import io

import numpy as np
import pytest
from PIL import Image

from fairdd_jax import report

GAP = 2


def pictures(classes, ipc, channels, height=5, width=4):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (classes, ipc, height, width, channels), np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("ipc", "columns", "rows"), [(1, 1, 1), (10, 10, 1), (15, 10, 2)])
def test_grid_shows_every_image_in_the_row_of_its_class(ipc, columns, rows, channels):
    classes, height, width, scale = 3, 5, 4, 2
    images = pictures(classes, ipc, channels, height, width)
    shown = np.asarray(report.grid(images))
    down, right = height * scale + GAP, width * scale + GAP
    expected = np.full((classes * rows * down + GAP, columns * right + GAP, 3), 255, np.uint8)
    for label in range(classes):
        for i in range(ipc):
            top = GAP + (label * rows + i // columns) * down
            left = GAP + (i % columns) * right
            for y in range(height * scale):
                for x in range(width * scale):
                    expected[top + y, left + x] = images[label, i, y // scale, x // scale]
    np.testing.assert_array_equal(shown, expected)


def test_columns_and_scale():
    images = pictures(2, 5, 3)
    assert report.grid(images, columns=3, scale=1).size == (
        3 * (4 + GAP) + GAP,
        4 * (5 + GAP) + GAP,
    )
    assert report.grid(images, scale=3).size == (5 * (12 + GAP) + GAP, 2 * (15 + GAP) + GAP)


def test_side_by_side_keeps_the_panels_and_writes_their_titles():
    panels = {
        "first\nline": report.grid(pictures(2, 3, 3)),
        "second": report.grid(pictures(3, 1, 1)),
    }
    shown = np.asarray(report.side_by_side(panels))
    tops = []
    left = 0
    for panel in map(np.asarray, panels.values()):
        height, width, _ = panel.shape
        # The panel is where a window of its size equals it; panels come from left to right.
        places = [
            (y, x)
            for y in range(shown.shape[0] - height + 1)
            for x in range(left, shown.shape[1] - width + 1)
            if (shown[y, x : x + width] == panel[0]).all()
            and (shown[y : y + height, x : x + width] == panel).all()
        ]
        assert len(places) == 1
        top, x = places[0]
        assert (shown[:top, x : x + width] < 128).any()  # ink above the panel
        tops.append(top)
        left = x + width
    assert len(set(tops)) == 1
    assert shown.shape[1] > sum(panel.width for panel in panels.values())


def test_titles_that_are_wider_than_their_panels_have_room():
    panel = report.grid(pictures(1, 1, 3))
    title = "accuracy 93.9±0.2 %, DEO_M 13.0±2.4"
    alone = np.asarray(report.side_by_side({title: panel}))
    assert (alone[:, -8:] == 255).all()  # the title ends before the edge
    both = np.asarray(report.side_by_side({title: panel, "other": panel}))
    np.testing.assert_array_equal(both[:, : alone.shape[1]], alone)


def test_png_keeps_every_pixel():
    picture = report.grid(pictures(2, 2, 3))
    content = report.png_bytes(picture)
    assert content.startswith(b"\x89PNG")
    with Image.open(io.BytesIO(content)) as opened:
        np.testing.assert_array_equal(np.asarray(opened), np.asarray(picture))
    assert report.png_bytes(picture) == content
