"""README and guide: their links lead somewhere, their commands parse, their Python runs."""

import contextlib
import re
import shlex
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import jax.numpy as jnp
import numpy as np
import pytest
from test_loop import SIDE, toy

from fairdd_jax import api, command_line, losses, methods, presets
from fairdd_jax.data import SOURCES
from fairdd_jax.distilled import DistilledSet
from fairdd_jax.models import registry
from fairdd_jax.models.networks import ConvNet

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "experiments"))

import reproduce  # noqa: E402

PAGES = [ROOT / "README.md", *sorted((ROOT / "experiments/docs").glob("*.md"))]
SHELLS = "run|audit|prepare|evaluate|convert_pt|compare|export|reproduce"
# What stands before the options; a program without options of ours takes nothing else.
PLACES = {"evaluate": ["SET"], "convert_pt": ["FILE.pt", "OUT.npz"], "export": ["RUN", "FOLDER"]}
WITHOUT_CONFIG = {"compare", "export", "reproduce"}


def of_page(page):
    return str(page.relative_to(ROOT))


def commands(page):
    """Programs and what is typed after their names, where it is no placeholder."""
    text = re.sub(r" *\\\n *", " ", page.read_text())
    for program, line in re.findall(rf"python experiments/({SHELLS})\.py ([^`\"&\n]*)", text):
        arguments = shlex.split(line, comments=True)
        if "NAME" not in arguments:
            yield program, [argument for argument in arguments if argument != "--help"]


def test_there_are_commands():
    assert sum(len(list(commands(page))) for page in PAGES) > 15


@pytest.mark.parametrize("page", PAGES, ids=of_page)
def test_commands_parse(page, monkeypatch):
    monkeypatch.setitem(sys.modules, "mynets", SimpleNamespace(mynet=ConvNet))
    for program, arguments in commands(page):
        if program in PLACES and arguments:
            _, arguments = command_line.places(arguments, *PLACES[program])
        if program == "reproduce":
            assert reproduce.chosen_jobs(reproduce.read_options(arguments))
        elif program in WITHOUT_CONFIG:
            assert not [word for word in arguments if word.startswith("-")]
        else:  # evaluate.py knows the settings of the set
            command = command_line.read_command(
                arguments,
                description=None,
                is_run=program == "run",
                settings=presets.compose("cmnist_fg_dm"),
            )
            assert "--list" in arguments or command.config.data.name in SOURCES


@pytest.mark.parametrize("page", PAGES, ids=of_page)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        assert link.startswith("https://") or (page.parent / link).exists(), link


@pytest.mark.parametrize("page", PAGES, ids=of_page)
def test_bounds_of_packages_are_in_pyproject_alone(page):
    bounds = re.findall(r'"[\w-]+>=([\d.]+)"', (ROOT / "pyproject.toml").read_text())
    assert len(bounds) > 20
    for bound in bounds:
        assert not re.search(rf"\b{re.escape(bound)}\s+(on|or\s+(newer|later))\b", page.read_text())


def blocks(page):
    return re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)


@pytest.fixture
def _quick(monkeypatch, tmp_path):
    """In an empty folder, with a small network and few steps whatever the page says."""
    small = {
        "steps": 1,
        "per_cell": 2,
        "dsa_strategy": "none",
        "evaluate.epochs": 0,
        "evaluate.uint8_networks": 0,
    }
    distill = api.distill

    def quick(dataset, **settings):
        return distill(dataset, **{"model": "ConvNetD1W8"} | settings | small)

    dry_run = api.dry_run

    def of_toy(dataset, **settings):
        return dry_run(toy(), **{"model": "ConvNetD1W8"} | settings | small)

    monkeypatch.setattr(api, "distill", quick)
    monkeypatch.setattr(api, "dry_run", of_toy)
    monkeypatch.chdir(tmp_path)
    tables = (registry._OWN, SOURCES, methods.METHODS, losses.FAIRNESS, losses.FEATURE_DISTANCES)
    with contextlib.ExitStack() as stack:
        for table in tables:
            stack.enter_context(mock.patch.dict(table))
        yield


def given():
    """The names and the files that a page takes for granted."""
    dataset = toy()
    folder = Path("runs/cmnist_fg_dm_fairdd_ipc10_seed0")
    folder.mkdir(parents=True)
    DistilledSet.of_classes(
        np.zeros((2, 1, SIDE, SIDE, 3)), mean=(0.5,) * 3, std=(0.5,) * 3, class_names="ab", meta={}
    ).save(folder / "distilled.npz")
    rng = np.random.default_rng(0)
    features = jnp.asarray(rng.normal(size=(20, 4)), jnp.float32)
    arrays = dataset.train.images, dataset.train.labels, dataset.train.groups % 2
    names = {"features": features, "groups": jnp.arange(20) % 10, "synthetic_features": features}
    for split in ("train", "test"):
        kinds = (f"{split}_{kind}" for kind in ("images", "labels", "groups"))
        names |= dict(zip(kinds, arrays, strict=True))
    return names | {"my_reader": lambda data_dir, seed: (arrays, arrays)}


# That of takeaway.md runs in test_folder_readers.py, where its packages are.
RUNNABLE = [page for page in PAGES if blocks(page) and page.name != "takeaway.md"]


@pytest.mark.slow
@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize("page", RUNNABLE, ids=of_page)
def test_python_runs(page):
    names = given()
    known = len(names)
    for block in blocks(page):
        exec(compile(block, of_page(page), "exec"), names)
    assert len(names) > known
