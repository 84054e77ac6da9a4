"""Plots of runs, for pages and notebooks: readable on light and dark ground and without colours."""

import functools
import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec

import numpy as np

from fairdd_jax import metrics
from fairdd_jax.report.grids import grid
from fairdd_jax.report.record import Record

if TYPE_CHECKING:  # importing it takes half a second
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito, Color Universal Design (2008): distinct to colour-blind readers too.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#B8A800", "#888888")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_DASHES = ("-", "--", ":", "-.")
_INK = "#010203"  # stands for the colour of the text around, whatever that is
_SIZE = (4.8, 3.0)  # inches: a phone shows it at its own size
_MOST_NAMES = 20  # in a legend
MOST_BARS = 40

Over = str
"""``step`` or ``seconds``."""
_AXES = {"step": "steps of distillation", "seconds": "minutes of distillation"}


P = ParamSpec("P")


def _literal(plot: "Callable[P, Figure]") -> "Callable[P, Figure]":
    """Names are the user's: a plot shows their dollars and leaves out none."""

    @functools.wraps(plot)
    def literal(*arguments: P.args, **options: P.kwargs) -> "Figure":
        import matplotlib as mpl

        with mpl.rc_context({"text.parse_math": False}):
            return plot(*arguments, **options)

    return literal


def _label(name: str) -> str:
    """A name for a legend, which leaves out those that begin with an underscore."""
    return f"\u200b{name}" if name.startswith("_") else name


def style(index: int) -> tuple[str, str]:
    """Colour and marker of the n-th of several things; no two of the first 64 are alike."""
    return _COLOURS[index % 8], _MARKERS[(index + index // 8) % 8]


@_literal
def loss(records: Sequence[Record], *, over: Over) -> "Figure":
    """The matching loss of every run, over steps or minutes."""
    figure, axes = _figure()
    for index, record in enumerate(records):
        x = [_position(line, over) for line in record.log]
        _line(axes, index, x, [line["loss"] for line in record.log], record.name)
    losses = [line["loss"] for record in records for line in record.log]
    if min(losses) > 0 and max(losses) > 10 * min(losses):
        axes.set_yscale("log")
    axes.set(xlabel=_AXES[over], ylabel="matching loss per class")
    if len(records) > 1:
        _legend(axes, fontsize=8)
    return figure


@_literal
def scores(records: Sequence[Record], score: str, *, over: Over) -> "Figure":
    """A score of every run that was scored on the way, in percent over steps or minutes."""
    figure, axes = _figure()
    for index, record in enumerate(records):
        scored = record.scored_on_the_way
        x = [_position(_at(record, each["step"]) | {"step": each["step"]}, over) for each in scored]
        y = [np.nan if (s := each[score]["mean"]) is None else 100 * s for each in scored]
        _line(axes, index, x, y, record.name, marker=style(index)[1])
    axes.set(xlabel=_AXES[over], ylim=(0, 103))
    if len(records) > 1:
        _legend(axes, fontsize=8)
    return figure


def _at(record: Record, step: int) -> dict[str, Any]:
    """The line of the log at a step, or the last before it."""
    before = [line for line in record.log if line["step"] <= step]
    return before[-1] if before else {"seconds": 0.0}


def _position(line: dict[str, Any], over: Over) -> float:
    return float(line["seconds"]) / 60 if over == "seconds" else float(line["step"])


@_literal
def gaps(records: Sequence[Record]) -> "Figure":
    """The gap between the groups of every class, in percent; of many classes those with the largest
    gaps."""
    found = [(record, gap) for record in records if (gap := gap_per_class(record)) is not None]
    names = found[0][0].results["dataset"]["classes"]
    order = np.arange(len(names))
    if len(names) > MOST_BARS:
        order = np.sort(np.argsort(-np.max([gap for _, gap in found], 0))[:MOST_BARS])
    figure, axes = _figure()
    width = 0.8 / len(found)
    for index, (record, gap) in enumerate(found):
        x = np.arange(len(order)) + (index - (len(found) - 1) / 2) * width
        colour, hatch = style(index)[0], ("", "//", "..", "xx")[index % 4]
        bars = axes.bar(x, 100 * gap[order], width, color=colour, label=_label(record.name))
        for bar in bars:
            bar.set(hatch=hatch, edgecolor=_INK, linewidth=0.5)
    axes.set_xticks(
        np.arange(len(order)), [names[label] for label in order], rotation=60, ha="right"
    )
    axes.set(ylabel="gap between groups in %", ylim=(0, 103))
    if len(found) > 1:
        _legend(axes, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    return figure


def gap_per_class(record: Record) -> np.ndarray | None:
    """``[C]`` largest difference between the groups' accuracies, 0 where there is none to compare;
    None of a run without scores."""
    if record.scores is None:
        return None
    rates = np.array(record.scores["cell_accuracy"], float)  # None becomes NaN
    return np.nan_to_num(metrics.gaps(rates))


@_literal
def scatter(points: np.ndarray, values: np.ndarray, names: Sequence[str]) -> "Figure":
    """Points ``[N, 2]`` by what they are, each with a colour and a shape of its own."""
    figure, axes = _figure()
    for value, name in enumerate(names):
        colour, marker = style(value)
        own = points[values == value]
        axes.scatter(
            own[:, 0], own[:, 1], s=12, color=colour, marker=marker, label=_label(name), lw=0
        )
    axes.set(xticks=[], yticks=[], aspect="equal")
    axes.spines[:].set_visible(False)
    if len(names) <= _MOST_NAMES:
        beside = {"loc": "center left", "bbox_to_anchor": (1, 0.5)}
        _legend(axes, **beside, handletextpad=0, markerscale=2)
    return figure


@_literal
def overview(record: Record) -> "Figure":
    """The synthetic images, a class per row, and the loss beside them."""
    import matplotlib.pyplot as plt

    figure = plt.figure(figsize=(9, 4.5), layout="constrained")
    plt.close(figure)  # a notebook shows what is returned, and nothing twice
    left, right = figure.subplots(1, 2)
    by_class = images_by_class(record)
    per_row = min(10, by_class.shape[1])
    left.imshow(np.asarray(grid(by_class, columns=per_row, scale=1)))
    height = left.get_ylim()[0] / len(by_class)
    names = record.distilled.class_names
    step = -(-len(names) // _MOST_NAMES)
    left.set_yticks([(label + 0.5) * height for label in range(len(names))][::step], names[::step])
    left.set(xticks=[], title=f"{by_class.shape[1]} images per class")
    left.tick_params(length=0)
    left.spines[:].set_visible(False)
    steps, losses = ([line[key] for line in record.log] for key in ("step", "loss"))
    right.plot(steps, losses, color=_COLOURS[0])
    right.set(xlabel=_AXES["step"], ylabel="matching loss per class")
    return figure


def images_by_class(record: Record) -> np.ndarray:
    """``[C, I, H, W, channels]`` uint8; classes have equally many images."""
    images = record.distilled.images
    return images.reshape(len(record.distilled.class_names), -1, *images.shape[1:])


def svg(figure: "Figure", *, name: str) -> str:
    """A figure to be put into HTML, in the colour of the text there.

    Args:
      figure: a figure.
      name: tells the figures of a page apart, and readers who cannot see it what it is.

    Returns:
      An ``<svg>`` element; equal figures give equal ones.
    """
    import matplotlib as mpl

    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(
            buffer,
            format="svg",
            transparent=True,
            bbox_inches="tight",
            metadata={"Date": None, "Creator": None, "Title": name},
        )
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(_INK, "currentColor")
    return text.replace("<svg", '<svg role="img"', 1)


def _figure() -> "tuple[Figure, Axes]":
    import matplotlib as mpl
    from matplotlib.figure import Figure

    ink: Any = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
    with mpl.rc_context(dict.fromkeys(ink, _INK)):
        figure = Figure(figsize=_SIZE, layout="constrained")
        axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _line(axes: "Axes", index: int, x: Any, y: Any, name: str, marker: str = "") -> None:
    dash = _DASHES[index % len(_DASHES)]
    axes.plot(x, y, dash, color=style(index)[0], label=_label(name), marker=marker, markersize=4)


def _legend(axes: "Axes", **options: Any) -> None:
    axes.legend(frameon=False, labelcolor=_INK, **options)
