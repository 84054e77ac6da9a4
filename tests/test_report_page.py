"""The page of a run: its numbers are those of the files, and it needs nothing else."""

import base64
import io
import json
import re

import numpy as np
import pytest
from pages import Page
from PIL import Image
from records import CELLS, log_line, record, scores
from rich.console import Console

from fairdd_jax import comparison, outputs, report
from fairdd_jax import console as terminal
from fairdd_jax.report import plots
from fairdd_jax.report.verdict import verdict


def text_rows(rows):
    screen = io.StringIO()
    Console(file=screen, width=160).print(terminal.score_table(rows))
    lines = screen.getvalue().splitlines()
    rule = next(i for i, line in enumerate(lines) if line.strip().startswith("───"))
    cells = [re.split(r"\s{2,}", line.strip()) for line in lines[rule + 1 :] if line.strip()]
    return cells[: len(rows)]


def test_text_json_and_page_have_the_same_table(tmp_path):
    settings = {"data__name": "cmnist_fg", "ipc": 10}
    runs = [record("one", config=settings), record("two", config=settings | {"seed": 1})]
    runs[0].results["baselines"]["full"] = scores(CELLS, deo=(None,), floor=None)
    rows = outputs.save_comparison(runs, tmp_path)
    assert list(rows) == ["random", "one", "two", "full", "paper: DM + FairDD"]
    page = Page((tmp_path / "report.html").read_text())
    table = page.table("trained on")
    assert table[0][1:] == list(comparison.COLUMNS)
    in_text = text_rows(rows)
    for row, text, name in zip(table[1:], in_text, rows, strict=True):
        assert [cell for cell in row if cell] == text
        entry = json.loads((tmp_path / "comparison.json").read_text())[name]
        mean = entry["accuracy"]["mean"]
        assert row[1].startswith(f"{100 * mean:.1f}")
    assert table[-1][1:4] == ["94.6", "17.0", "8.0"]  # what the paper prints


def test_baselines_and_papers_of_several_runs_are_told_apart():
    here = record(config={"data__name": "cmnist_fg", "ipc": 10})
    same = record("same", config={"data__name": "cmnist_fg", "ipc": 10})
    there = record(
        "full",
        config={"data__name": "cmnist_bg", "ipc": 50, "method": "dc"},
        baselines={"random": scores(CELLS, accuracy=(0.6,)), "full": scores(CELLS)},
    )
    rows = comparison.score_rows({run.name: run.results for run in (here, same)})
    assert [*rows] == ["random", "mine", "same", "paper: DM + FairDD"]
    rows = comparison.score_rows({run.name: run.results for run in (here, there)})
    assert [*rows] == [
        "random, mine", "random, full", "mine", "full (run)", "full",
        "paper: DM + FairDD, cmnist_fg, IPC 10", "paper: DC + FairDD, cmnist_bg, IPC 50",
    ]  # fmt: skip
    assert rows["random, full"]["accuracy"]["mean"] == 0.6
    assert rows["full (run)"] is there.results["evaluations"][0]
    text = report.page([here, there])
    assert "<h1>cmnist_fg dm, cmnist_bg dc: 2 runs</h1>" in text


def test_the_caption_says_what_became_of_empty_cells():
    rows = comparison.score_rows({"mine": record().results})
    assert "empty (class, group) cells are left out" in comparison.caption(rows)
    official = scores([[0.9, 0.0]]) | {"empty_cells": [[0, 1]]}
    run = record(evaluations=[official], baselines={})
    rows = comparison.score_rows({"mine": run.results})
    assert "cells count as accuracy 0" in comparison.caption(rows)
    assert "left out" not in comparison.caption(rows)


def test_heat_maps_are_the_scores_and_the_neighbours():
    page = Page(report.page([record()]))
    accuracy, groups, train = (table for table in page.tables if table[0][0] == "class"
                               and table[0][1] == "a")  # fmt: skip
    assert accuracy == [
        ["class", "a", "b", "c", "gap"],
        ["cat", "90", "50", "none", "40.0"],
        ["dog", "75", "25", "100", "75.0"],
    ]
    assert groups[1:] == [["cat", "100", "0", "0"], ["dog", "0", "50", "50"]]
    assert train[1:] == [["cat", "75", "25", "0"], ["dog", "25", "25", "50"]]


def test_images_at_the_start_and_the_end():
    run = record()
    page = Page(report.page([run]))
    shown = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(image["src"].partition(",")[2]))))
        for image in page.images
    ]
    assert len(shown) == 4  # two classes, start and end
    start, end = run.analysis.start, run.distilled.images
    for picture, expected in zip(shown, (start[0], end[:2], start[1], end[2:]), strict=True):
        np.testing.assert_array_equal(picture[1:5, 1:5], expected[0])
        np.testing.assert_array_equal(picture[1:5, 6:10], expected[1])
    assert all(image["alt"] for image in page.images)


def test_a_page_needs_no_other_file():
    text = report.page([record("one"), record("two")])
    page = Page(text)
    assert not {"script", "link", "iframe"} & set(page.tags)
    for _, name, value in page.attributes:
        if name in ("src", "href", "xlink:href"):
            assert value.startswith(("data:image/png;base64,", "#"))
    assert not re.findall(r"url\((?!#)", text)
    assert "@import" not in text


HOSTILE = ("<b>", '"><script>alert(1)</script>', "{{ 7 * 7 }}", "$0_$50k")


def test_names_from_the_data_are_text_and_nothing_else():
    cells = np.full((4, 2), 0.5)
    run = record(HOSTILE[1], classes=HOSTILE, groups=("<i>", "_$x$"), analysis=None,
                 evaluations=[scores(cells)])  # fmt: skip
    run.results["dataset"]["train_cell_counts"] = [[1, 1]] * 4
    page = Page(report.page([run, record("other", analysis=None)]))
    assert not {"b", "i", "script"} & set(page.tags)
    assert [row[0] for row in page.table("class")[1:]] == list(HOSTILE)
    assert Page(report.fragment(run)).table("class")[1][0] == "<b>"
    # Dollars are no formulas, and no name is left out of a legend.
    names = ("$0_$50k", "_$x$")
    figures = [plots.scatter(np.eye(2), np.arange(2), names)]
    runs = [record(name, classes=HOSTILE, evaluations=[scores(cells)]) for name in names]
    figures += [plots.gaps(runs), plots.loss(runs, over="step")]
    for figure in figures:
        shown = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
        assert [text.lstrip("\u200b") for text in shown] == list(names)
        assert plots.svg(figure, name="plot").count("$0_$50k") >= 1


def test_a_run_that_was_stopped_has_a_page():
    page = Page(report.page([record(evaluations=[], log=[], analysis=None, baselines={})]))
    assert "not scored" in " ".join(page.texts)
    assert page.table("class")
    assert "svg" not in page.tags


@pytest.mark.parametrize(
    ("deo", "floor", "said"),
    [
        ((0.30, 0.50), 0.15, "40.0±10.0 points, 25.0 more than what chance alone would show"),
        ((0.10, 0.20), 0.12, "15.0±5.0 points, within its spread of what chance alone would show"),
        ((0.10, 0.20), 0.16, "15.0±5.0 points, no more than chance alone would show"),
        ((0.20,), 0.15, "20.0 points, 5.0 more than what chance"),
        ((None,), None, "nothing is known of gaps"),
    ],
)
def test_the_verdict_weighs_the_gap_against_chance(deo, floor, said):
    text = verdict(record(evaluations=[scores(CELLS, deo=deo, floor=floor)]))
    assert said in text
    assert text.startswith("4 images in place of 60: a ConvNet trained on them gets 85.0±5.0 %")
    assert "As many random real images give 40.0 %" in text


def test_the_verdict_says_which_images_were_scored():
    text = verdict(record(config={"data__test_without": 2}))
    assert "% of the test images of all groups but the last 2 right" in text
    held_out = {"data__validation": 0.1, "data__test_without": 1}
    wanted = "% of the training images that were held out of all groups but the last 1 right"
    assert wanted in verdict(record(config=held_out))


def test_of_several_networks_and_steps_the_last_of_the_first():
    early, late = scores(CELLS, step=2), scores(CELLS, step=4)
    other = scores(CELLS, step=4, arch="MLP")
    run = record(evaluations=[early, late, other])
    assert run.scores is late
    assert run.scored_on_the_way == [early, late]
    again = scores(CELLS, step=4)
    twice = record(evaluations=[early, late, other, again])
    assert twice.scores is again
    assert twice.scored_on_the_way == [early, again]
    titles = re.findall(r"<figcaption>(.*?)</figcaption>", report.page([run]))
    assert {"Accuracy in % over steps", "DEO_M in % over minutes"} <= set(titles)
    figure = plots.scores([run], "accuracy", over="seconds")
    (line,) = figure.axes[0].get_lines()
    np.testing.assert_allclose(line.get_xydata(), [[1.0, 85.0], [2.0, 85.0]])
    torn = record(evaluations=[early, late], log=[log_line(2)])
    (line,) = plots.scores([torn], "accuracy", over="step").axes[0].get_lines()
    np.testing.assert_allclose(line.get_xydata(), [[2.0, 85.0], [4.0, 85.0]])


def test_the_loss_over_steps_and_minutes():
    runs = [record("one"), record("two", log=[log_line(8)])]
    for over, first in (("step", [2, 4]), ("seconds", [1, 2])):
        one, two = plots.loss(runs, over=over).axes[0].get_lines()
        np.testing.assert_allclose(one.get_xdata(), first)
        np.testing.assert_allclose(one.get_ydata(), [0.5, 0.25])
        assert two.get_linestyle() != one.get_linestyle()  # told apart without colours


def test_gaps_of_many_classes_are_the_largest_ones():
    rng = np.random.default_rng(0)
    cells = rng.random((60, 2))
    names = tuple(f"class {label}" for label in range(60))
    run = record(classes=names, groups=("a", "b"), evaluations=[scores(cells)], analysis=None)
    gaps = np.abs(cells[:, 0] - cells[:, 1])
    axes = plots.gaps([run]).axes[0]
    largest = np.sort(np.argsort(-gaps)[:40])
    assert [label.get_text() for label in axes.get_xticklabels()] == [names[i] for i in largest]
    np.testing.assert_allclose([bar.get_height() for bar in axes.patches], 100 * gaps[largest])


def test_a_class_with_one_group_has_no_bar():
    cells = [[0.9, 0.5, None], [None, 0.25, None], [None, None, None]]
    run = record(classes=("cat", "dog", "cow"), evaluations=[scores(cells)], analysis=None)
    np.testing.assert_allclose(plots.gap_per_class(run), [0.4, 0, 0])


def test_kinds_have_a_colour_and_a_shape_of_their_own():
    assert len({plots.style(index) for index in range(64)}) == 64


def test_plots_take_the_colour_of_the_text_and_repeat():
    text = plots.svg(plots.loss([record()], over="step"), name="loss")
    assert text.startswith('<svg role="img"')
    assert text.count("currentColor") > 10
    assert "#010203" not in text
    assert text == plots.svg(plots.loss([record()], over="step"), name="loss")


def test_a_notebook_sees_the_verdict_the_scores_and_the_images():
    run = record()
    page = Page(report.fragment(run))
    assert verdict(run) in " ".join(page.texts)
    assert page.table("trained on")[2][0] == "mine"
    assert len(page.images) == 2
    figure = report.overview(run)
    picture, loss = figure.axes
    assert [label.get_text() for label in picture.get_yticklabels()] == ["cat", "dog"]
    np.testing.assert_allclose(loss.get_lines()[0].get_ydata(), [0.5, 0.25])
