"""The program that packs images: what it refuses. test_data_builders.py has what it makes."""

import runpy
from pathlib import Path

import originals
import pytest

from fairdd_jax.console import exit_code
from fairdd_jax.data import tfds_prepare

PROGRAM = Path(__file__).parents[1] / "experiments" / "prepare.py"
run = runpy.run_path(str(PROGRAM))["run"]


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("--config=celeba_dm", 2, "celeba needs no preparing: its files are read as they are"),
        ("--config=utkfaec_dm", 2, "did you mean 'utkface_dm'?"),
        ("--data.name=utkfaec", 2, "did you mean 'utkface'?"),
        ("--data.name=utkface", 3, "has no images of utkface"),
        ("--config=images_dm", 3, "has no image"),
    ],
)
def test_what_cannot_be_packed(name, code, message, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    places = ["--data_dir", str(tmp_path / "empty"), "--workdir", str(tmp_path / "copies")]
    assert exit_code(run, [name, *places]) == code
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("column", ["image", "name"])
def test_columns_that_a_copy_has_itself(column, tmp_path, capsys):
    originals.write_images(tmp_path)
    table = (tmp_path / "faces.csv").read_text().replace("protected", column, 1)
    (tmp_path / "faces.csv").write_text(table)
    arguments = ["--data.name", "images", "--data.table", "faces.csv", "--data.protected", column]
    places = ["--data_dir", str(tmp_path), "--workdir", str(tmp_path / "copies")]
    assert exit_code(run, [*arguments, *places]) == 2
    assert f"a packed copy has a column '{column}' of its own" in capsys.readouterr().err


def test_both_places_are_needed(capsys):
    assert exit_code(run, ["--config", "utkface_dm"]) == 2
    assert "--data_dir, --workdir" in capsys.readouterr().err


def test_packing_needs_tensorflow(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(tfds_prepare, "has_tensorflow", lambda: False)
    originals.write_bffhq(tmp_path, per_cell=1, side=8)
    arguments = ["--config", "bffhq_dm", "--data_dir", str(tmp_path), "--workdir", str(tmp_path)]
    assert exit_code(run, arguments) == 3
    assert 'pip install "fairdd-jax[tfds]"' in capsys.readouterr().err
