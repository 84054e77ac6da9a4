"""The audit: its counts against plain loops, when it warns, what it prints and writes."""

import base64
import io
import json
import re
import runpy
import tracemalloc
from importlib import resources
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import originals
import pytest
from pages import Page
from PIL import Image
from rich.console import Console

from fairdd_jax import audit as audit_module
from fairdd_jax import data, presets
from fairdd_jax.audit import audit, findings
from fairdd_jax.audit import report as audit_report
from fairdd_jax.config import Config
from fairdd_jax.data import DataConfig, Dataset, idx
from fairdd_jax.data.cards import SECTIONS, card
from fairdd_jax.errors import ConfigError
from fairdd_jax.start import initial_images, parts_of

SCRIPT = Path(__file__).parents[1] / "experiments" / "audit.py"
HEAD = Path(__file__).parent / "fixtures" / "mnist_head"  # 40 and 20 real digits
CARDS = resources.files("fairdd_jax.data.cards")


def dataset_of(train, test, *, side=4, notes=(), **names):
    """Images that all differ, as many of every cell as two tables say, in random order."""
    rng = np.random.default_rng(3)
    splits, number = [], 0
    for counts in map(np.asarray, (train, test)):
        labels, groups = np.indices(counts.shape)
        order = rng.permutation(counts.sum())
        images = rng.integers(0, 256, (counts.sum(), side, side, 3), np.uint8)
        images[:, 0, 0, 0], images[:, 0, 0, 1] = np.divmod(number + np.arange(len(images)), 256)
        number += len(images)
        cells = (np.repeat(index.ravel(), counts.ravel())[order] for index in (labels, groups))
        splits.append((images, *cells))
    classes, groups = counts.shape
    given = Dataset.from_arrays(
        *splits,
        classes=names.get("classes", [f"class {i}" for i in range(classes)]),
        groups=names.get("groups", [f"group {i}" for i in range(groups)]),
    )
    return Dataset(**{**vars(given), "notes": tuple(notes)})


def kinds(*args, **options):
    return [finding.kind for finding in audit(dataset_of(*args), **options).findings]


# What it counts


def test_counts_and_bias_ratios():
    rng = np.random.default_rng(0)
    tables = rng.integers(1, 9, (2, 3, 4))
    dataset = dataset_of(*tables)
    found = audit(dataset)
    for split, of_split in ((dataset.train, found.train), (dataset.test, found.test)):
        for c in range(3):
            in_class = [g for y, g in zip(split.labels, split.groups, strict=True) if y == c]
            counts = [in_class.count(g) for g in range(4)]
            assert of_split.counts[c].tolist() == counts
            assert of_split.bias_ratio[c] == max(counts) / len(in_class)


def test_a_class_without_images_has_no_bias_ratio():
    found = audit(dataset_of([[2, 1], [1, 1]], [[30, 20], [0, 0]]))
    assert found.test.as_dict()["bias_ratio"] == [0.6, None]
    json.dumps(found.as_dict(), allow_nan=False)


@pytest.mark.parametrize("chunk", [1, 100, 1 << 20])
def test_planted_duplicates(monkeypatch, chunk):
    monkeypatch.setattr(audit_module, "_CHUNK_BYTES", chunk)
    dataset = dataset_of([[6, 5], [7, 6]], [[5, 4], [4, 5]])
    train, test = dataset.train, dataset.test
    # Three train images repeat number 2; a test image repeats another; two equal train images.
    for i in (9, 4, 20):
        train.images[i] = train.images[2]
    train.labels[[2, 4, 9]], train.groups[[2, 4, 9]] = 0, 0
    train.labels[20] = 1
    test.images[7] = test.images[3]
    test.labels[[3, 7]], test.groups[[3, 7]] = 1, 1
    test.images[0], test.images[11] = train.images[9], train.images[13]

    found = audit(dataset)
    for split, of_split in ((train, found.train), (test, found.test)):
        repeats = conflicts = 0
        for i in range(len(split)):
            alike = [j for j in range(i) if (split.images[i] == split.images[j]).all()]
            repeats += bool(alike)
            conflicts += bool(alike) and (
                (split.labels[i], split.groups[i])
                != (split.labels[alike[0]], split.groups[alike[0]])
            )
        assert (of_split.repeats, of_split.conflicts) == (repeats, conflicts)
    assert (found.train.repeats, found.train.conflicts, found.test.repeats) == (3, 1, 1)
    leaks = [
        (i, j)
        for j in range(len(test))
        for i in range(len(train))
        if (train.images[i] == test.images[j]).all()
    ]
    assert found.leaked == 2
    assert list(found.leaks) == [(2, 0), (13, 11)]
    assert set(found.leaks) <= set(leaks)
    named = {finding.kind: finding.message for finding in found.findings}
    assert "0 is 2, 11 is 13" in named["leaked_test_images"]
    assert named["repeated_train_images"].startswith("3 train images")
    assert named["conflicting_train_images"].startswith("1 train image ")
    assert named["repeated_test_images"].startswith("1 test image ")
    assert "conflicting_test_images" not in named


def test_another_group_alone_is_a_conflict_too():
    dataset = dataset_of([[4, 4], [4, 4]], [[20, 20], [20, 20]])
    test = dataset.test
    test.images[1] = test.images[0]
    test.labels[[0, 1]], test.groups[[0, 1]] = 0, [0, 1]
    found = audit(dataset)
    assert (found.test.repeats, found.test.conflicts, found.leaked) == (1, 1, 0)
    assert {"repeated_test_images", "conflicting_test_images"} <= {f.kind for f in found.findings}


def test_many_leaks_are_counted_and_few_are_kept():
    dataset = dataset_of([[20, 20]], [[20, 20]])
    dataset.test.images[:] = dataset.train.images
    found = audit(dataset)
    assert (found.leaked, len(found.leaks)) == (40, 5)
    assert "and 35 more" in next(f.message for f in found.findings if f.kind.startswith("leaked"))


def test_the_images_may_be_a_memory_map_that_is_read_piece_by_piece(tmp_path, monkeypatch):
    monkeypatch.setattr(audit_module, "_CHUNK_BYTES", 1 << 18)
    shape = (200, 128, 128, 3)  # 10 MB
    images = np.lib.format.open_memmap(tmp_path / "a.npy", "w+", np.uint8, shape)
    images[:] = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    images[150] = images[20]
    turned = images.transpose(0, 2, 1, 3)  # not contiguous: has to be copied, chunk by chunk
    labels = np.arange(200) % 2
    given = Dataset.from_arrays(
        (turned, labels, labels), (turned[:1], [0], [0]), mean=(0.5,) * 3, std=(0.5,) * 3
    )
    tracemalloc.start()
    found = audit(given)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (found.train.repeats, found.leaked) == (1, 1)
    assert peak < images.nbytes / 4


# When it warns

CLEAN = [[4, 4], [4, 4]]
CLEAN_TEST = [[20, 20], [20, 20]]


def test_nothing_to_warn_of():
    assert kinds(CLEAN, CLEAN_TEST, per_cell=4, ipc=8) == []
    assert kinds(CLEAN, CLEAN_TEST, batch_real=2, empty="official") == []


@pytest.mark.parametrize(
    ("train", "options", "expected"),
    [
        ([[4, 4, 4], [4, 4, 0]], {}, ["empty_train_cell"]),
        ([[4, 4, 0], [4, 4, 0]], {}, ["absent_train_group"]),
        ([[4, 4], [4, 0]], {}, ["empty_train_cell", "one_train_group"]),
        ([[4], [4]], {}, ["one_train_group"]),
        ([[4, 4], [4, 3]], {"per_cell": 4}, ["small_train_cell"]),
        ([[4, 4], [4, 3]], {"per_cell": 3}, []),
        ([[9, 1], [4, 4]], {"batch_real": 9}, ["rare_train_cell"]),
        ([[9, 1], [4, 4]], {"batch_real": 10}, []),
        (CLEAN, {"ipc": 9}, ["ipc_above_class"]),
        (CLEAN, {"ipc": 3, "parts": 4}, ["ipc_above_class"]),
        (CLEAN, {"ipc": 2, "parts": 4}, []),
    ],
)
def test_warnings_of_the_training_split(train, options, expected):
    test = np.full_like(train, 20)
    found = kinds(train, test, **options)
    assert [kind for kind in found if "test" not in kind] == expected


@pytest.mark.parametrize(
    ("test", "options", "expected"),
    [
        ([[20, 20, 20], [20, 20, 0]], {}, ["empty_test_cell"]),
        ([[20, 20, 20], [20, 20, 0]], {"empty": "official"}, ["empty_test_cell"]),
        ([[20, 20, 0], [20, 20, 0]], {}, ["absent_test_group"]),
        ([[20, 20], [20, 0]], {}, ["empty_test_cell", "one_test_group"]),
        ([[20, 20], [20, 0]], {"empty": "official"}, ["empty_test_cell"]),
        ([[20, 20], [0, 0]], {}, ["absent_test_class"]),
        ([[20, 20], [20, 19]], {}, ["tiny_test_cell"]),
    ],
)
def test_warnings_of_the_test_split(test, options, expected):
    assert kinds(np.full_like(test, 4), test, **options) == expected


def test_warnings_on_random_counts_against_plain_loops(monkeypatch):
    monkeypatch.setattr(findings, "TINY_TEST_CELL", 2)
    rng = np.random.default_rng(1)
    names = SimpleNamespace(classes=tuple("abc"), groups=tuple("xyz"))
    seen = set()
    for _ in range(200):
        counts = rng.integers(0, 4, (3, 3)) * rng.integers(0, 2, (3, 3))
        ipc, per_cell, batch_real = rng.integers(1, 5, 3)
        cells = [(c, g) for c in range(3) for g in range(3)]
        absent = {g for g in range(3) if not any(counts[c][g] for c in range(3))}
        single = [c for c in range(3) if sum(counts[c][g] > 0 for g in range(3)) == 1]
        gone = [c for c in range(3) if not any(counts[c])]
        expected = {
            "absent_train_group": bool(absent),
            "empty_train_cell": any(not counts[c][g] and g not in absent for c, g in cells),
            "small_train_cell": any(0 < counts[c][g] < per_cell for c, g in cells),
            "rare_train_cell": any(
                counts[c][g] and batch_real * counts[c][g] / sum(counts[c]) < 1 for c, g in cells
            ),
            "one_train_group": bool(single),
            "ipc_above_class": any(sum(counts[c]) < ipc for c in range(3)),
            "absent_test_class": bool(gone),
            "absent_test_group": bool(absent),
            "empty_test_cell": any(
                not counts[c][g] and g not in absent and c not in gone for c, g in cells
            ),
            "one_test_group": bool(single),
            "tiny_test_cell": any(counts[c][g] == 1 for c, g in cells),
        }
        found = findings.of_train(
            names, counts, per_cell=per_cell, batch_real=batch_real, ipc=ipc
        ) + findings.of_test(names, counts)
        assert [finding.kind for finding in found] == [kind for kind in expected if expected[kind]]
        seen |= {finding.kind for finding in found}
    assert seen == set(expected)


def test_what_it_says_of_too_few_images_is_what_a_run_does():
    dataset = dataset_of(CLEAN, CLEAN_TEST)
    for init in ("real", "noise"):
        initial_images(jax.random.key(0), dataset, ipc=3, init=init, factor=2)
        assert audit(dataset, ipc=3, parts=parts_of(init, factor=2)).findings == ()
    with pytest.raises(ConfigError, match="3 with 4 images in each is more than the 8 real"):
        initial_images(jax.random.key(0), dataset, ipc=3, init="mix", factor=2)
    (mixed,) = audit(dataset, ipc=3, parts=parts_of("mix", factor=2)).findings
    assert "than the 12 synthetic ones of a class (3 with 4 images in each): a run is refused" in (
        mixed.message
    )
    (noise,) = audit(dataset, ipc=9, parts=parts_of("noise", factor=2)).findings
    assert "than the 9 synthetic ones of a class: the baseline random" in noise.message


def test_a_warning_names_cells_with_their_counts_and_says_what_happens():
    dataset = dataset_of([[9, 1], [2, 9]], np.full((2, 2), 20))
    (found,) = audit(dataset, per_cell=8).findings
    assert found.message.startswith(
        "2 cells: class 0 / group 1 (1), class 1 / group 0 (2), each of which has fewer"
    )
    assert "the 8 that the stratified sampler draws" in found.message
    assert "weight zero" in found.message
    (found,) = audit(dataset_of(np.full((4, 2), 3), np.full((4, 2), 20)), per_cell=4).findings
    names = [f"class {c} / group {g} (3)" for c in range(3) for g in range(2)][:5]
    assert found.message.startswith(f"8 cells: {', '.join(names)} and 3 more, each of which has")
    dataset = dataset_of(np.full((2, 3), 9), [[20, 0, 20], [20, 20, 20]])
    (skipped,), (counted,) = (
        audit(dataset, empty=empty).findings for empty in ("skip", "official")
    )
    start = "1 cell: class 0 / group 1 (0) has no test image: it "
    assert skipped.message == f"{start}is left out of DEO_M and DEO_A"
    assert counted.message.startswith(f"{start}counts as accuracy 0")


# What it shows


def shown(found, split, title="training", width=160):
    screen = io.StringIO()
    Console(file=screen, width=width).print(audit_report.table(found, split, title))
    return screen.getvalue()


def table_rows(output):
    """Cells of the rows of every table: those below a rule, up to an empty line."""
    tables = re.findall(r"─+\s*\n(.*?)\n\s*\n", output, re.DOTALL)
    return [[re.split(r"\s{2,}", line.strip()) for line in rows.splitlines()] for rows in tables]


def test_the_table_has_every_count():
    found = audit(dataset_of([[1200, 3], [0, 7]], [[1, 1], [0, 0]], side=1))
    output = shown(found, found.train)
    assert table_rows(output) == [
        [["class 0", "1,200", "3", "99.8 %"], ["class 1", "0", "7", "100.0 %"]]
    ]
    assert "training: 1,210 images" in output
    assert "are shown" not in output
    assert table_rows(shown(found, found.test))[0][1] == ["class 1", "0", "0", "none"]


def test_a_large_table_is_cut_and_says_so():
    found = audit(dataset_of(np.ones((200, 13), int), np.ones((200, 13), int), side=2))
    output = shown(found, found.train, width=240)
    (rows,) = table_rows(output)
    assert len(rows) == 20
    assert {len(row) for row in rows} == {1 + 12 + 1}
    assert "the first 20 of 200 classes and 12 of 13 groups are shown" in output


def test_names_are_not_taken_for_markup():
    found = audit(dataset_of([[2, 2]], [[2, 2]], classes=["[red]x[/]"], groups=["[b]", "[/b]"]))
    output = shown(found, found.train)
    for name in ("[red]x[/]", "[b]", "[/b]"):
        assert name in output


def test_the_picture_has_a_row_per_class_and_a_column_per_group():
    counts = np.array([[3, 1, 0], [2, 9, 4]])
    labels, groups = (
        np.repeat(index.ravel(), counts.ravel()) for index in np.indices(counts.shape)
    )
    images = np.empty((len(labels), 32, 32, 3), np.uint8)
    images[:] = np.stack([10 + labels, 20 + groups, 255 + 0 * labels], -1)[:, None, None]
    dataset = Dataset.from_arrays((images, labels, groups), (images, labels, groups))
    pixels = np.asarray(audit_report.picture(dataset))
    places = {}
    for c, g in np.ndindex(counts.shape):
        where = np.argwhere((pixels == [10 + c, 20 + g, 255]).all(-1))
        assert bool(len(where)) == bool(counts[c, g])
        if len(where):
            places[c, g] = where.min(0), where.max(0)
            # As many samples as the cell has, up to five; all at the same scale.
            assert len(where) == min(counts[c, g], 5) * 64 * 64
    for (c, g), (low, high) in places.items():
        for (d, h), (other_low, other_high) in places.items():
            assert c >= d or (high[0] < other_low[0])
            assert g >= h or (high[1] < other_low[1])
            assert c != d or low[0] == other_low[0]
            assert g != h or low[1] == other_low[1]
            assert (other_high >= other_low).all()


def test_grey_images_are_shown_as_they_are():
    images = np.full((1, 32, 32, 1), 77, np.uint8)
    pixels = np.asarray(audit_report.picture(Dataset.from_arrays(*[(images, [0], [0])] * 2)))
    assert (pixels == 77).all(-1).sum() >= 64 * 64


def test_the_picture_stays_readable():
    size = audit_report.picture(dataset_of(np.ones((10, 10), int), np.ones((10, 10), int))).size
    assert max(size) < 2600
    many = [np.ones((n, 2), int) for n in (20, 21, 200)]
    heights = [audit_report.picture(dataset_of(ones, ones)).height for ones in many]
    assert len(set(heights)) == 1
    large = audit_report.picture(dataset_of(np.ones((2, 2), int), np.ones((2, 2), int), side=600))
    assert max(large.size) < 2000


HOSTILE = ["<b>", "</td><script>alert(1)</script>", '"&amp;$name']


def test_the_page_escapes_what_comes_from_the_data():
    dataset = dataset_of([[2, 3], [1, 1], [2, 0]], np.ones((3, 2), int), classes=HOSTILE,
                         groups=["<i>", "&"], notes=["<u>note</u>"])  # fmt: skip
    found = audit(dataset, per_cell=2)
    picture = Image.new("RGB", (3, 2))
    page = Page(audit_report.page(found, picture, "<h1>card</h1> $train"))
    assert not {"b", "i", "u", "script"} & set(page.tags)
    assert page.tags.count("h1") == 1
    train, test = page.tables
    assert train[0] == ["class", "<i>", "&", "largest"]
    assert [row[0] for row in train[1:]] == HOSTILE
    assert [row[1:3] for row in train[1:]] == [["2", "3"], ["1", "1"], ["2", "0"]]
    assert [row[1:3] for row in test[1:]] == [["1", "1"]] * 3
    text = "".join(page.texts)
    assert "<u>note</u>" in text
    assert "<h1>card</h1> $train" in text
    for finding in found.findings:
        assert finding.message in text
    assert [source[:22] for source in page.sources] == ["data:image/png;base64,"]


def test_a_page_with_nothing_to_say_says_so():
    found = audit(dataset_of(CLEAN, CLEAN_TEST))
    page = Page(audit_report.page(found, Image.new("RGB", (3, 2)), "card"))
    assert "Nothing to warn of." in page.texts


# The program


main = runpy.run_path(str(SCRIPT))["main"]


@pytest.fixture(autouse=True)
def own_surroundings(tmp_path, monkeypatch):
    """What a program writes goes to the test's folder, and it sees no data of this machine."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(idx, "SYSTEM_DIR", tmp_path / "system")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))


def test_the_program_on_the_demo(capsys):
    pytest.importorskip("mlxtend")
    assert main(["--config", "demo"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    folder = Path("runs/audit_demo")
    assert {path.name for path in folder.iterdir()} == {"audit.json", "audit.png", "audit.html"}
    written = json.loads((folder / "audit.json").read_text())
    assert (written["name"], written["train"]["images"]) == ("demo", 4500)
    assert written["test"]["counts"] == [[50] * 10] * 10
    # The JSON, the terminal and the page have the same counts.
    page = Page((folder / "audit.html").read_text())
    pages = [[row[1:-1] for row in table[1:]] for table in page.tables]
    for split, rows, of_page in zip(("train", "test"), table_rows(printed.out), pages, strict=True):
        counts = written[split]["counts"]
        assert [[int(cell) for cell in row[1:-1]] for row in rows] == counts
        assert [[int(cell) for cell in row] for row in of_page] == counts
        ratios = [f"{100 * ratio:.1f} %" for ratio in written[split]["bias_ratio"]]
        assert [row[-1] for row in rows] == ratios
    warnings = [line[9:] for line in printed.out.splitlines() if line.startswith("warning: ")]
    assert warnings == [finding["message"] for finding in written["findings"]]
    assert [finding["kind"] for finding in written["findings"]] == ["small_train_cell"]
    assert printed.out.endswith(f"written to {folder}\n")
    png = (folder / "audit.png").read_bytes()
    assert base64.b64decode(page.sources[0].partition(",")[2]) == png
    with Image.open(io.BytesIO(png)) as picture:
        assert picture.format == "PNG"
    assert card("demo") in "".join(page.texts)


def test_the_program_asks_what_the_settings_ask(capsys, tmp_path):
    arguments = ["--config", "cmnist_fg_dm", "--data_dir", str(HEAD), "--workdir", str(tmp_path)]
    found = {}
    for name, changes in {
        "stratified": ["--per_cell", "3"],
        "proportional": ["--sampling", "proportional", "--batch_real", "2", "--ipc", "1"],
        "official": ["--recipe", "official"],
        "several in one": ["--ipc", "1", "--init", "mix", "--factor", "2"],
    }.items():
        assert main([*arguments, *changes]) == 0
        found[name] = json.loads((tmp_path / "audit.json").read_text())["findings"]
    kinds = {name: {finding["kind"] for finding in of_run} for name, of_run in found.items()}
    assert {"small_train_cell", "ipc_above_class", "one_test_group"} <= kinds["stratified"]
    assert not {"small_train_cell", "ipc_above_class"} & kinds["proportional"]
    assert "ipc_above_class" in kinds["several in one"]
    assert "one_test_group" not in kinds["official"]
    messages = {finding["kind"]: finding["message"] for finding in found["official"]}
    assert "accuracy 0" in messages["empty_test_cell"]
    assert capsys.readouterr().err == ""


FACES = ["--data.name", "images", "--data.table", "faces.csv", "--data.test_fraction", "0.25"]


def test_data_flags_suffice(capsys, tmp_path):
    originals.write_images(tmp_path / "faces", per_cell=8, side=8)
    assert main([*FACES, "--data_dir", str(tmp_path / "faces")]) == 0
    assert capsys.readouterr().err == ""
    written = json.loads(Path("runs/audit_images/audit.json").read_text())
    assert written["classes"] == ["cat", "dog", "fox"]
    assert (written["train"]["counts"], written["test"]["counts"]) == ([[6] * 2] * 3, [[2] * 2] * 3)
    findings = {finding["kind"]: finding["message"] for finding in written["findings"]}
    sampler = Config(DataConfig("images"))  # the defaults
    assert f"the {sampler.per_cell} that the stratified" in findings["small_train_cell"]
    assert main([*FACES, "--data_dir", "faces", "--per_cell=6", "--workdir", "other"]) == 0
    written = json.loads(Path("other/audit.json").read_text())
    assert [finding["kind"] for finding in written["findings"]] == ["tiny_test_cell"]


def test_notes_of_the_data_set_are_shown(capsys, monkeypatch):
    noted = dataset_of(CLEAN, CLEAN_TEST, notes=["3 file names were [odd]"])
    monkeypatch.setattr(data, "load", lambda config, **options: noted)
    assert main(["--config", "utkface_dm", "--workdir", "out"]) == 0
    assert "note: 3 file names were [odd]\n" in capsys.readouterr().out
    assert json.loads(Path("out/audit.json").read_text())["notes"] == ["3 file names were [odd]"]
    assert "3 file names were [odd]" in Page(Path("out/audit.html").read_text()).texts


def test_list_and_help(capsys):
    assert main(["--list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(
        presets.names()
    )
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert "Look at a data set before a run" in text
    assert "--data_dir" in text


DEMO = ["--data.name", "demo"]


@pytest.mark.parametrize(
    ("code", "message", "arguments"),
    [
        (2, "--config NAME or --data.name NAME is missing; --list prints", []),
        (2, "--config NAME or --data.name NAME is missing", ["--data.table", "faces.csv"]),
        (2, "unknown data set 'imges'; did you mean 'images'?", ["--data.name", "imges"]),
        (2, "--config NAME is missing, which --recipe and --quick", [*DEMO, "--quick"]),
        (2, "--config NAME is missing", [*DEMO, "--recipe", "official"]),
        (2, "--data.name demo contradicts --config celeba_dm", ["--config=celeba_dm", *DEMO]),
        (2, "--data.table faces.csv means nothing to demo", [*DEMO, "--data.table", "faces.csv"]),
        (2, "did you mean 'per_cell'?", [*DEMO, "--per_cel", "2"]),
        (2, "did you mean 'demo'?", ["--config", "dmeo"]),
        (2, "did you mean 'data.bias_ratio'?", ["--config", "demo", "--data.bias_rati", "1"]),
        (2, "fraction in [0, 1]", ["--config", "demo", "--data.bias_ratio", "9"]),
        (3, "mnist not found", ["--config", "cmnist_fg_dm"]),
        (4, "cannot write", ["--config", "demo", "--workdir", str(SCRIPT)]),
        (2, "--workdir: it is empty; name", ["--config", "demo", "--workdir", ""]),
        (2, "--data_dir: it is empty", ["--config", "images_dm", "--data_dir="]),
        (2, "--cache_dir: it is empty", ["--config", "images_dm", "--cache_dir="]),
    ],
)
def test_mistakes_are_one_line(capsys, code, message, arguments):
    assert main(arguments) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
    assert message in printed.err


def test_an_unknown_name_leaves_no_folder(tmp_path):
    assert main(["--data.name", "imges"]) == 2
    assert list(tmp_path.iterdir()) == []


# Data cards


@pytest.mark.parametrize("name", data.names())
def test_every_data_set_has_a_card_with_all_sections(name):
    text = card(name)
    parts = re.split(r"^## (.*)\n", text, flags=re.MULTILINE)
    assert re.match(r"# .+\n", parts[0])
    assert tuple(parts[1::2]) == SECTIONS
    for section in parts[2::2]:
        assert len(section.split()) > 3
    assert f"`{name}`" in text
    assert max(map(len, text.splitlines())) <= 100


def test_every_card_belongs_to_a_data_set():
    texts = {card(name) for name in data.names()}
    files = [path for path in CARDS.iterdir() if path.name.endswith(".md")]
    assert {path.read_text(encoding="utf-8") for path in files} == texts
    assert len(files) == len(texts) == 9


def test_a_card_of_an_unknown_name():
    with pytest.raises(ConfigError, match="did you mean 'celeba'"):
        card("celebA")
