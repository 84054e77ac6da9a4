"""Results of the official PyTorch programs, of which nothing is run.

FairDD's programs, and COBRA's but for IDC, save ``{"data": [[images, labels], ...], ...}``, a pair
per experiment. COBRA's IDC saves the pair of the last experiment in place of the list, and its
images are coded: each holds several (`fairdd_jax.formation`). Images are ``[N, C, H, W]``,
normalised as ours are.

PyTorch's safe reader (``weights_only=True``) knows tensors, numbers, texts, lists and dicts alone.
The accuracies beside the images are NumPy's numbers, which it refuses; what they are made of is
given a stand-in that does nothing, so that no function of NumPy need be trusted.
"""

import dataclasses
import re
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from fairdd_jax import environment
from fairdd_jax.config import Config, without_paths
from fairdd_jax.data import Dataset
from fairdd_jax.distilled import DistilledSet
from fairdd_jax.errors import ConfigError, DataError
from fairdd_jax.matching import decoded

_LONGEST = 200  # letters of a library's message
# What a number of NumPy is made of, under the names that its versions have.
_NUMBERS = ("numpy.dtype", "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")


class _StandIn:
    """Takes what a number would be made of, and makes nothing of it."""

    def __init__(self, *parts: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        pass


class Saved(NamedTuple):
    """One experiment of a file."""

    images: np.ndarray
    """``[N, H, W, C]`` float32, normalised."""
    labels: np.ndarray
    """``[N]`` integers."""
    of_idc: bool
    """Whether COBRA's IDC saved it."""


def read(path: Path) -> list[Saved]:
    """Read a result, an entry per experiment.

    Raises:
      DataError: it is none, holds what is not read safely, or PyTorch is missing.
    """
    try:
        import torch
    except ImportError:
        raise DataError(
            'reading a .pt file takes PyTorch: pip install "fairdd-jax[torch]"'
        ) from None
    if not path.is_file():
        raise DataError(f"no file at {path}; pass the res_....pt that the official program saved")
    try:
        with torch.serialization.safe_globals([(_StandIn, name) for name in _NUMBERS]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes raise nearly anything
        raise DataError(f"{path} {_why_not(error)}") from None
    data = content.get("data") if isinstance(content, dict) else None
    of_idc = isinstance(data, list) and any(isinstance(part, torch.Tensor) for part in data)
    pairs = [data] if of_idc else data
    if not isinstance(pairs, list) or not pairs or not all(_is_pair(pair) for pair in pairs):
        raise DataError(
            f"{path} is no result of the official programs: 'data' must be a list of [images, "
            "labels], tensors [N, C, H, W] of finite floats and [N] of integers"
        )
    return [
        Saved(
            images.detach().permute(0, 2, 3, 1).float().contiguous().numpy(), labels.numpy(), of_idc
        )
        for images, labels in pairs
    ]


def _is_pair(pair: Any) -> bool:
    """Whether these are images and their labels."""
    import torch

    if not isinstance(pair, list | tuple) or len(pair) != 2:
        return False
    images, labels = pair
    return (
        isinstance(images, torch.Tensor)
        and isinstance(labels, torch.Tensor)
        and images.is_floating_point()
        and images.ndim == 4
        and images.numel() > 0
        and bool(images.isfinite().all())
        and labels.dtype in (torch.uint8, torch.int32, torch.int64)
        and labels.shape == images.shape[:1]
    )


def _why_not(error: Exception) -> str:
    """What is wrong with a file, and what to do."""
    # What comes before is advice to read the file unsafely.
    said = str(error).rpartition("WeightsUnpickler error: ")[2].strip()
    if found := re.search(r"nsupported (?:global: )?GLOBAL (\S+)", said):
        return (
            f"holds {found[1]}, which is not read because a file could run any program with such "
            "things; where the file was made, save its 'data' alone, as tensors"
        )
    why = ": ".join([type(error).__name__, *said.splitlines()[:1]])[:_LONGEST]
    return f"is not a readable file of PyTorch ({why}); copy it again"


def convert(saved: Saved, config: Config, dataset: Dataset) -> DistilledSet:
    """The set, ordered by class, its images decoded if the configuration says that they are coded.

    Args:
      saved: an experiment.
      config: a resolved configuration of the method that made it.
      dataset: the data set that it was made of, which gives names and normalisation.

    Raises:
      ConfigError: images of another size, labels that the data set has not, or coded images
        (COBRA's IDC) by a configuration without, and the other way round.
    """
    if saved.of_idc and (config.factor == 1 or config.interpolation != "corners"):
        raise ConfigError(
            "the file is of COBRA's IDC, whose images are coded; choose the preset of IDC with "
            "--recipe cobra"
        )
    if config.factor > 1 and not saved.of_idc:
        raise ConfigError(
            "the images of the file are not coded, as those of the configuration are (factor "
            f"{config.factor}); choose the preset of the method that made it"
        )
    shape = saved.images.shape[1:]
    if shape != dataset.image_shape:
        raise ConfigError(
            f"the file has images of {shape}, {dataset.name} of {dataset.image_shape} (height, "
            "width, channels); choose the data set that they were made of"
        )
    if not np.array_equal(np.unique(saved.labels), np.arange(dataset.num_classes)):
        raise ConfigError(
            f"the file has labels {saved.labels.min()} to {saved.labels.max()}, {dataset.name} has "
            f"{dataset.num_classes} classes; choose the data set that they were made of"
        )
    order = np.argsort(saved.labels, kind="stable")
    coded, labels = saved.images[order], saved.labels[order].astype(np.int32)
    images = coded
    if config.factor > 1:
        parts = [
            decoded(config, dataset, jnp.asarray(coded[labels == c])) for c in np.unique(labels)
        ]
        images, labels = np.concatenate(parts), np.repeat(labels, config.factor**2)
    config = dataclasses.replace(config, ipc=len(coded) // dataset.num_classes)
    return DistilledSet(
        dataset.to_pixels(images),
        images,
        labels,
        dataset.mean,
        dataset.std,
        dataset.classes,
        {
            "config": without_paths(config),
            "dataset": dataset.name,
            "versions": environment.versions(),
        },
        coded if config.factor > 1 else None,
    )
