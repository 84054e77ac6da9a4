"""Pictures of synthetic sets."""

import io

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_BACKGROUND = (255, 255, 255)
_INK = (20, 20, 20)


def grid(images: np.ndarray, *, columns: int = 10, scale: int = 2, gap: int = 2) -> Image.Image:
    """Lay images out, a class per row (per several rows if it has more than ``columns``).

    Args:
      images: ``[classes, ipc, H, W, C]`` uint8, one or three channels.
      columns: most images in a row.
      scale: screen pixels per pixel.
      gap: screen pixels between images and around them.
    """
    classes, ipc, height, width, channels = images.shape
    columns = min(columns, ipc)
    rows_per_class = -(-ipc // columns)
    cell = (height * scale + gap, width * scale + gap)
    size = (columns * cell[1] + gap, classes * rows_per_class * cell[0] + gap)
    canvas = Image.new("RGB", size, _BACKGROUND)
    for label in range(classes):
        for i in range(ipc):
            pixels = np.broadcast_to(images[label, i], (height, width, max(channels, 3)))
            tile = Image.fromarray(np.ascontiguousarray(pixels[..., :3]))
            tile = tile.resize((width * scale, height * scale), Image.Resampling.NEAREST)
            row = label * rows_per_class + i // columns
            canvas.paste(tile, (gap + i % columns * cell[1], gap + row * cell[0]))
    return canvas


def side_by_side(panels: dict[str, Image.Image]) -> Image.Image:
    """Put pictures beside each other, each below its title (line breaks allowed)."""
    font = ImageFont.load_default(size=18)
    lines = max(title.count("\n") for title in panels) + 1
    header = 24 * lines + 12
    margin = 16
    ruler = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    widths = [
        max(panel.width, int(ruler.multiline_textbbox((0, 0), title, font=font)[2]))
        for title, panel in panels.items()
    ]
    width = sum(widths) + margin * (len(panels) + 1)
    height = header + max(panel.height for panel in panels.values()) + margin
    canvas = Image.new("RGB", (width, height), _BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    x = margin
    for (title, panel), column in zip(panels.items(), widths, strict=True):
        draw.multiline_text((x, 8), title, fill=_INK, font=font, spacing=6)
        canvas.paste(panel, (x, header))
        x += column + margin
    return canvas


def png_bytes(picture: Image.Image) -> bytes:
    """The picture as a PNG file; to compress it better takes ten times as long for 4 to 8 %."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", compress_level=4)
    return buffer.getvalue()
