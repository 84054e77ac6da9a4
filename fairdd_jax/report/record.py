"""A run as its folder tells it."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairdd_jax import workdir
from fairdd_jax.distilled import DistilledSet, load_distilled
from fairdd_jax.errors import ConfigError, DataError, one_line
from fairdd_jax.report.analysis import Analysis

_REQUIRED = (
    *("config", "dataset", "evaluations", "evaluations_uint8", "baselines"),
    *("environment", "peak_memory_bytes", "seed", "timing"),
)


@dataclass(frozen=True, eq=False)
class Record:
    """A run and what it is called.

    Attributes:
      name: of its row in tables.
      results: the content of results.json.
      log: the lines of metrics.jsonl.
      distilled: its images.
      analysis: what only the real images could tell; None of a run that was stopped before.
    """

    name: str
    results: dict[str, Any]
    log: list[dict[str, Any]]
    distilled: DistilledSet
    analysis: Analysis | None

    @property
    def scores(self) -> dict[str, Any] | None:
        """The scores of the last images with the first architecture, the latest if there are
        several; None before there are any."""
        evaluations: list[dict[str, Any]] = self.results["evaluations"]
        last = [s for s in evaluations if s["step"] == evaluations[-1]["step"]]
        return [s for s in last if s["arch"] == last[0]["arch"]][-1] if last else None

    @property
    def scored_on_the_way(self) -> list[dict[str, Any]]:
        """All scores with that architecture, the latest of every step, in the order of steps."""
        final = self.scores
        arch = final and final["arch"]
        return list(
            {s["step"]: s for s in self.results["evaluations"] if s["arch"] == arch}.values()
        )


def read(folder: str | Path, *, name: str | None = None) -> Record:
    """Read the folder of a run.

    Args:
      folder: that `fairdd_jax.run.Run.save` or the runner wrote.
      name: what it is to be called; by default as its folder.

    Raises:
      DataError: there is no run in it, or it is damaged.

    """
    folder = Path(folder)
    path = folder / "results.json"
    if not path.is_file():
        raise DataError(
            f"no run in {folder}: it has no results.json; pass the output folder of a run"
        )
    results = read_results(path)
    return Record(
        name or folder.resolve().name,
        results,
        _lines(folder / "metrics.jsonl"),
        load_distilled(folder),
        Analysis.read(folder, step=results.get("step", -1)),
    )


def read_results(path: Path) -> dict[str, Any]:
    """The content of a results.json.

    Raises:
      DataError: it is damaged, or something else.
    """
    results = workdir.read_json(path)
    if missing := [key for key in _REQUIRED if key not in results]:
        raise DataError(f"{path} lacks {', '.join(missing)}, as runs have; remove it or run again")
    return results


def named(folders: Iterable[str | Path]) -> list[Record]:
    """Read several folders, each called by the last parts of its path that tell it from the others.

    Raises:
      ConfigError: one is named twice. DataError: as `read`.
    """
    paths = [Path(folder).resolve() for folder in folders]
    twice = next((path for path in paths if paths.count(path) > 1), None)
    if twice:
        raise ConfigError(f"{twice} is named twice; pass each run once")
    depth = 1
    while len({path.parts[-depth:] for path in paths}) < len(paths):
        depth += 1
    return [read(path, name="/".join(path.parts[-depth:])) for path in paths]


def _lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a log; a torn last one, and a missing file, are no lines."""
    lines = []
    try:
        text = path.read_text()
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is damaged ({one_line(error)}); remove it or run again") from None
    for line in text.splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            break
    return lines
