"""What all tests share: strict JAX settings and access to the golden numbers."""

import gc
import json
import os
import signal
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

# Compiling takes most of the time of most tests: do it fast rather than well. XLA_FLAGS= runs
# the tests on the code that users get.
os.environ.setdefault(
    "XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
)
# And once: for all tests, and the processes that they start. A size makes JAX lock the folder.
# JAX 0.5 crashes on some of what it reads back.
if tuple(map(int, version("jax").split(".")[:2])) < (0, 10):
    os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)
elif "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    _cache = tempfile.TemporaryDirectory(prefix="fairdd_jax_tests_")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _cache.name
os.environ.setdefault("JAX_COMPILATION_CACHE_MAX_SIZE", str(2**30))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")

import jax
import numpy as np
import pytest

from fairdd_jax import outputs

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.devices()  # one, fixed before a test of the runner makes every core a device

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in what a shell started with &
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def without_pages(request, monkeypatch):
    """Runs of single tests make no page, which takes a second; those of whole modules do, and
    those of tests marked `pages`."""
    if request.node.get_closest_marker("pages") is None:
        monkeypatch.setattr(outputs, "save", outputs.save_state)


def forget_programs():
    """Each compiled program maps some pages of memory, and Linux allows a process 65530 maps:
    beyond them it crashes."""
    jax.clear_caches()
    gc.collect()


@pytest.fixture(autouse=True, scope="module")
def programs_of_one_module():
    yield
    forget_programs()


GOLDEN_DIR = Path(os.environ.get("FAIRDD_GOLDEN_DIR", Path(__file__).parent / "golden"))

# The tolerances of tests/golden/README.md: max|a - b| <= atol + rtol * max|b|.
FIRST_ORDER = {"atol": 1e-6, "rtol": 2e-5}
SECOND_ORDER = {"atol": 1e-9, "rtol": 1e-4}
METRIC = {"atol": 1e-6, "rtol": 0.0}


def golden(name: str) -> Any:
    """The arrays of a golden .npz as a dict, or the content of a golden .json."""
    path = GOLDEN_DIR / name
    if path.suffix == ".json":
        return json.loads(path.read_text())
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def golden_files(pattern: str) -> list[str]:
    """Names of the golden files that match a pattern."""
    return sorted(path.name for path in GOLDEN_DIR.glob(pattern))


def assert_close(actual: Any, expected: Any, *, atol: float, rtol: float) -> None:
    """Assert max|actual - expected| <= atol + rtol * max|expected|, and equal shapes."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape, f"shape {actual.shape}, expected {expected.shape}"
    scale = np.max(np.abs(expected), initial=0.0)
    error = np.max(np.abs(actual - expected), initial=0.0)
    assert error <= atol + rtol * scale, f"error {error:.3g} at scale {scale:.3g}"
