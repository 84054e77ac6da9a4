"""The scores that the papers print, for a run to stand beside."""

import csv
import dataclasses
from importlib import resources
from typing import Any

from fairdd_jax.data import SOURCES, DataConfig, resolved
from fairdd_jax.schema import completed

_SCORES = ("accuracy", "deo_max", "deo_mean", "worst_group_accuracy")
_TITLES = {"fairdd": " + FairDD", "cobra": " + COBRA", "vanilla": ""}


def rows(config: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What the papers print for the data set, method, fairness mode and IPC of a run; of one that
    updates nothing, for the random images that it starts from.

    The numbers are from FairDD (NeurIPS 2025), Tables 1, 2 and 4; those of COBRA (ICML 2026) are
    second-hand, from figures and notes, and lack most gaps.

    Args:
      config: the configuration, as in results.json.

    Returns:
      Rows of a table of scores by name; none if no table has this data set, with these attributes
      and this bias, in this size.

    >>> from fairdd_jax.config import make
    >>> config = dataclasses.asdict(make({"data.name": "cmnist_fg", "ipc": 10}))
    >>> found = rows(config)["paper: DM + FairDD"]
    >>> found["accuracy"]["mean"], found["deo_max"]["mean"]
    (0.9461, 0.1704)
    """
    if config["steps"] == 0:
        random = baseline(config, "random") if config["init"] == "real" else None
        return {"paper: Random": random} if random else {}
    wanted = (str(config["ipc"]), config["method"], config["fairness"])
    return {_title(line): _row(line) for line in _lines(config, wanted)}


def baseline(config: dict[str, Any], name: str) -> dict[str, Any] | None:
    """What the papers print for real images of the data set of a run, as a row of `rows`.

    Args:
      config: the configuration, as in results.json.
      name: ``random``, as many as in the run, or ``full``.

    >>> from fairdd_jax.config import make
    >>> baseline(dataclasses.asdict(make({"data.name": "bffhq"})), "full")["deo_max"]["mean"]
    0.664
    """
    ipc = str(config["ipc"]) if name == "random" else ""
    return next(map(_row, _lines(config, (ipc, name, ""))), None)


def _lines(config: dict[str, Any], wanted: tuple[str, str, str]) -> list[dict[str, str]]:
    """The lines of that IPC, method and fairness mode, if the data set is as in the papers."""
    name = config["data"]["name"]
    if name not in SOURCES:
        return []
    own = dataclasses.asdict(resolved(DataConfig(name))) | {"seed": config["data"]["seed"]}
    if completed(config)["data"] != own:
        return []
    text = resources.files("fairdd_jax").joinpath("published.csv").read_text()
    return [
        line
        for line in csv.DictReader(text.splitlines())
        if (line["dataset"], line["ipc"], line["method"], line["fairness"]) == (name, *wanted)
    ]


def _title(line: dict[str, str]) -> str:
    return f"paper: {line['method'].upper()}{_TITLES[line['fairness']]}"


def _row(line: dict[str, str]) -> dict[str, Any]:
    """As an entry of results.json, with None for what is not printed."""
    row: dict[str, Any] = {
        "source": line["source"],
        "num_networks": None,
        "optimiser_steps": None,
        "deo_max_floor": None,
        "deo_mean_floor": None,
        "empty_cells": [],
    }
    for score in _SCORES:
        value = float(line[score]) if line.get(score) else None
        row[score] = {"mean": value, "std": None, "values": [value]}
    return row
