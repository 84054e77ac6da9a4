"""An audit for people: a table in the terminal, a picture with samples, a page that has it all."""

import base64

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from rich import box
from rich.table import Table
from rich.text import Text

from fairdd_jax import report
from fairdd_jax.audit import Audit, SplitAudit
from fairdd_jax.data import Dataset

_MOST_CLASSES, _MOST_GROUPS = 20, 12  # in the terminal and in the picture; the page has all
_TILE = 64  # side of a sample in the picture, about
_MOST_SAMPLES, _MOST_ACROSS = 5, 30
_MARGIN, _LABEL, _LINE = 12, 150, 20  # pixels
_BACKGROUND, _INK, _FAINT = (255, 255, 255), (20, 20, 20), (150, 150, 150)


def table(audit: Audit, split: SplitAudit, title: str) -> Table:
    """Images per cell and the bias ratio of each class.

    Args:
      audit: the whole.
      split: the part of it to show.
      title: its name.

    Returns:
      The table; of many classes or groups it has the first ones, and says so.
    """
    note = _cut_note(audit)
    result = Table(
        title=f"{title}: {split.counts.sum():,} images by class and group",
        caption=f"{note}, audit.html has all" if note else None,
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
    )
    result.add_column("class", overflow="fold")
    for group in audit.groups[:_MOST_GROUPS]:
        result.add_column(Text(group), justify="right")
    result.add_column("largest", justify="right", no_wrap=True)
    rows = zip(audit.classes, split.counts, split.bias_ratio, strict=True)
    for name, counts, ratio in list(rows)[:_MOST_CLASSES]:
        cells = (Text(f"{count:,}") for count in counts[:_MOST_GROUPS])
        result.add_row(Text(name), *cells, _percent(ratio))
    return result


def picture(dataset: Dataset) -> Image.Image:
    """Some training images of every cell, a class per row and a group per column.

    They are spread evenly over the cell in the order of the data set. Of many classes or groups the
    first ones are shown, and a line says so.

    >>> images = np.zeros((4, 32, 32, 1), np.uint8)
    >>> split = images, [0, 0, 1, 1], [0, 1, 0, 1]
    >>> picture(Dataset.from_arrays(split, split)).size  # two columns of five samples, enlarged
    (850, 260)
    """
    counts = dataset.cell_counts(dataset.train)
    rows = min(dataset.num_classes, _MOST_CLASSES)
    columns = min(dataset.num_groups, _MOST_GROUPS)
    samples = int(np.clip(_MOST_ACROSS // columns, 1, _MOST_SAMPLES))
    height, width, _ = dataset.image_shape
    stride = max(1, max(height, width) // (2 * _TILE))  # of large images every so many pixels
    shape = (-(-height // stride), -(-width // stride))
    scale = max(1, round(_TILE / max(shape)))
    blank = np.zeros((1, samples, *shape, 1), np.uint8)
    panel = report.grid(blank, columns=samples, scale=scale).size
    step = (panel[0] + _MARGIN, panel[1] + _LINE)
    canvas = Image.new(
        "RGB",
        (_LABEL + columns * step[0] + _MARGIN, 3 * _LINE + rows * step[1] + 2 * _MARGIN),
        _BACKGROUND,
    )
    draw = ImageDraw.Draw(canvas)
    font, small = ImageFont.load_default(size=15), ImageFont.load_default(size=12)
    headline = "; ".join(filter(None, [f"{dataset.name}, training images", _cut_note(dataset)]))
    draw.text((_MARGIN, _MARGIN), _fitted(headline, canvas.width - 2 * _MARGIN, font), _INK, font)
    for group in range(columns):
        label = _fitted(dataset.groups[group], panel[0], font)
        draw.text((_LABEL + group * step[0], _MARGIN + 1.3 * _LINE), label, _INK, font)
    for row in range(rows):
        top = _MARGIN + 3 * _LINE + row * step[1]
        label = _fitted(dataset.classes[row], _LABEL - 2 * _MARGIN, font)
        draw.text((_MARGIN, top + panel[1] / 2 - 8), label, _INK, font)
        for group in range(columns):
            left = _LABEL + group * step[0]
            count = counts[row, group]
            draw.text((left, top - 15), f"{count:,}", _INK if count else _FAINT, small)
            if count:
                shown = _samples(dataset, row, group, samples)[:, ::stride, ::stride]
                canvas.paste(report.grid(shown[None], columns=samples, scale=scale), (left, top))
    return canvas


def page(audit: Audit, picture: Image.Image, card: str) -> str:
    """All of an audit as one HTML file that needs no other.

    Args:
      audit: the audit.
      picture: of `picture`.
      card: the data card, as text.

    Returns:
      HTML; all that comes from the arguments is escaped.
    """
    splits = (
        {
            "title": title,
            "counts": split.counts.tolist(),
            "shares": (split.counts / np.maximum(split.counts.sum(1, keepdims=True), 1)).tolist(),
            "largest": [_percent(ratio) for ratio in split.bias_ratio],
        }
        for title, split in (("Training", audit.train), ("Test", audit.test))
    )
    template = report.environment().get_template("audit.html")
    return template.render(
        audit=audit,
        splits=list(splits),
        picture=base64.b64encode(report.png_bytes(picture)).decode(),
        card=card,
    )


def _samples(dataset: Dataset, label: int, group: int, number: int) -> np.ndarray:
    train = dataset.train
    cell = np.flatnonzero((train.labels == label) & (train.groups == group))
    chosen = np.unique(np.linspace(0, len(cell) - 1, number).round().astype(int))
    return np.asarray(train.images[cell[chosen]])


def _cut_note(of: Audit | Dataset) -> str:
    """What a cut table or picture lacks."""
    parts = [
        f"{most} of {len(names)} {what}"
        for names, most, what in (
            (of.classes, _MOST_CLASSES, "classes"),
            (of.groups, _MOST_GROUPS, "groups"),
        )
        if len(names) > most
    ]
    return "the first " + " and ".join(parts) + " are shown" if parts else ""


def _fitted(text: str, width: float, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """The text on one line, shortened to a width in pixels."""
    text = " ".join(text.split())
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}..") > width:
        text = text[:-1]
    return f"{text}.."


def _percent(ratio: float) -> str:
    return "none" if np.isnan(ratio) else f"{100 * ratio:.1f} %"
