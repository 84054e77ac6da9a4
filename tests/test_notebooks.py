"""The notebooks as they are committed: with all outputs, small, and silent about the machine."""

import json
import re
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parent.parent / "experiments/notebooks").glob("*.ipynb"))
LARGEST = 350_000  # bytes
# Paths of a machine, addresses, and what tells a person or a host.
PRIVATE = re.compile(
    r"(?<![\w.])/(home|root|tmp|usr|opt|work|Users|content)/|\d+\.\d+\.\d+\.\d+|\w@\w"
)


def cells(path):
    return [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]


def test_there_are_three():
    assert [path.stem for path in NOTEBOOKS] == ["own_images", "own_loss", "quickstart"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_there_and_show_nothing_of_the_machine(path):
    assert path.stat().st_size < LARGEST
    counts = [cell["execution_count"] for cell in cells(path)]
    assert counts == list(range(1, len(counts) + 1))
    outputs = [output for cell in cells(path) for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} <= {
        "stream",
        "display_data",
        "execute_result",
    }
    assert all(output.get("name") != "stderr" for output in outputs)
    texts = [json.dumps(o["text"] if "text" in o else o["data"]["text/plain"]) for o in outputs]
    assert not [text for text in texts if PRIVATE.search(text)]
    assert sum("image/jpeg" in output.get("data", {}) for output in outputs) > 2


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_package_is_installed_by_one_cell_that_holds_jax(path):
    sources = ["".join(cell["source"]) for cell in cells(path)]
    installing = [source for source in sources if "pip" in source]
    assert len(installing) == 1
    assert '"-c"' in installing[0]
    assert "find_spec" in installing[0]
