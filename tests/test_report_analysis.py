"""What only the real images tell, against plain loops; and reading what a run has left."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from records import log_line, record
from test_loop import toy

from fairdd_jax import outputs, report
from fairdd_jax.config import make
from fairdd_jax.data import Dataset
from fairdd_jax.errors import ConfigError, DataError
from fairdd_jax.report import analysis
from fairdd_jax.run import Run

FOLDERS = [
    ("results.json", b"{}"),
    ("results.json", b"[1"),
    ("analysis.npz", b"PK"),
    ("metrics.jsonl", b"\xff"),
]


def features(images):
    return images.reshape(len(images), -1).astype(np.float32)


@pytest.mark.parametrize("most", [3, 50])
def test_the_nearest_among_as_many_of_every_group(monkeypatch, most):
    monkeypatch.setattr(analysis, "_PER_CELL", most)
    rng = np.random.default_rng(5)
    images = rng.integers(0, 256, (60, 4, 4, 3), np.uint8)
    split = images, np.repeat([0, 1], 30), rng.choice(3, 60, p=[0.7, 0.2, 0.1])
    dataset = Dataset.from_arrays(split, split)
    train = dataset.train
    # Every real image is its own nearest one, if it takes part.
    images = images.reshape(2, 30, 4, 4, 3)
    found = analysis.nearest_groups(images, dataset, features)
    counts = dataset.cell_counts(train)
    for label in range(dataset.num_classes):
        number = min(most, *(count for count in counts[label] if count))
        for i, image in enumerate(features(images[label])):
            best = None
            for group in range(dataset.num_groups):
                cell = [j for j in range(len(train)) if train.labels[j] == label
                        and train.groups[j] == group]  # fmt: skip
                for j in cell[:number]:
                    distance = ((features(train.images[j : j + 1])[0] - image) ** 2).sum()
                    if best is None or distance < best[0]:
                        best = distance, group
            assert found[label, i] == best[1]


def test_a_map_repeats_and_keeps_neighbours():
    rng = np.random.default_rng(0)
    centres = 50 * rng.standard_normal((3, 5))
    kinds = np.repeat(np.arange(3), 15)
    points = centres[kinds] + rng.standard_normal((45, 5))
    first, second = (analysis._map(points.astype(np.float32), seed=3) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    distances = ((first[:, None] - first[None]) ** 2).sum(-1)
    np.fill_diagonal(distances, np.inf)
    np.testing.assert_array_equal(kinds[distances.argmin(1)], kinds)


@pytest.mark.parametrize("points", [np.eye(3), np.ones((20, 2)), np.arange(20)[:, None]])
def test_too_few_or_equal_features_have_no_map(points):
    assert analysis._map(points.astype(np.float32), seed=0).shape == (0, 2)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A run with its files, and its images before the first update."""
    folder = tmp_path_factory.mktemp("saved")
    settings = {"steps": 2, "model": "ConvNetD1W8", "log_every": 1, "evaluate.epochs": 1,
                "evaluate.networks": 1, "evaluate.uint8_networks": 0, "per_cell": 2}  # fmt: skip
    run = Run(make({"data.name": "toy", "ipc": 2} | settings), toy())
    start = run.images
    run.distill()
    run.evaluate()
    run.save(folder)
    return folder, run, start


def test_a_run_comes_back_from_its_folder(saved):
    folder, run, start = saved
    found = report.read(folder, name="fairdd")
    assert found.results == json.loads(json.dumps(run.results())) | {
        "peak_memory_bytes": found.results["peak_memory_bytes"]
    }
    assert found.log == run.log
    dataset = run.dataset
    pixels = 255 * (start * np.float32(dataset.std) + np.float32(dataset.mean))
    assert np.abs(found.analysis.start - pixels).max() <= 0.51
    assert len(found.analysis.points) == len(dataset.test)
    np.testing.assert_array_equal(found.analysis.labels, dataset.test.labels)
    for field in dataclasses.fields(found.analysis):
        np.testing.assert_array_equal(
            getattr(found.analysis, field.name), getattr(run.analysis, field.name)
        )
    assert (folder / "report.html").read_text() == report.page([found])
    assert report.page([dataclasses.replace(run.record(), results=found.results)]) == report.page(
        [found]
    )
    assert "<img" in run._repr_html_()
    assert len(run.plot().axes) == 2


@pytest.mark.pages
def test_scores_of_an_earlier_process_keep_their_map(saved, tmp_path):
    folder, run, _ = saved
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    before = report.Analysis.read(folder, step=2)
    (tmp_path / report.PAGE).unlink()
    run.analysis, run.trained = None, {}
    outputs.save(run, tmp_path)
    assert (tmp_path / report.PAGE).exists()
    np.testing.assert_array_equal(report.Analysis.read(tmp_path, step=2).points, before.points)
    assert len(before.points)
    # Those of an earlier step are of other images.
    dataclasses.replace(before, step=1).save(tmp_path)
    assert report.read(tmp_path).analysis is None
    run.analysis = None
    outputs.save(run, tmp_path)
    found = report.read(tmp_path).analysis
    assert found.step == 2
    assert len(found.points) == 0


def test_features_that_are_not_finite_have_no_map():
    features = np.random.default_rng(0).standard_normal((20, 4))
    assert analysis._map(features, seed=0).shape == (20, 2)
    features[3, 1] = np.inf
    assert analysis._map(features, seed=0).shape == (0, 2)


@pytest.mark.parametrize(("name", "content"), FOLDERS)
def test_damage_is_one_line(saved, tmp_path, name, content):
    folder, _, _ = saved
    for path in folder.glob("*.*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=name) as error:
        report.read(tmp_path)
    assert "\n" not in str(error.value)


def test_no_run_is_one_line(tmp_path):
    with pytest.raises(DataError, match=r"no run in .*no results\.json"):
        report.read(tmp_path)


def test_a_torn_last_line_and_a_missing_analysis_are_none(saved, tmp_path):
    folder, _, _ = saved
    for name in ("results.json", "distilled.npz"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "metrics.jsonl").write_text(f'{json.dumps(log_line(3))}\n{{"step": 4, "lo')
    found = report.read(tmp_path)
    assert found.log == [log_line(3)]
    assert found.analysis is None
    assert found.name == tmp_path.name


def test_runs_are_called_by_what_tells_them_apart(saved, tmp_path):
    folder, _, _ = saved
    for name in ("a/run", "b/run"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).symlink_to(folder)
    names = [tmp_path / "a" / "run", folder]
    with pytest.raises(ConfigError, match="named twice"):
        report.named(names)
    copies = []
    for name in ("c/run", "d/run"):
        copies.append(tmp_path / name)
        copies[-1].mkdir(parents=True)
        for file in ("results.json", "distilled.npz"):
            (copies[-1] / file).write_bytes((folder / file).read_bytes())
    assert [each.name for each in report.named(copies)] == ["c/run", "d/run"]


def test_composition_counts_neighbours():
    run = record()
    assert run.analysis.composition(3).tolist() == [[1.0, 0.0, 0.0], [0.0, 0.5, 0.5]]
