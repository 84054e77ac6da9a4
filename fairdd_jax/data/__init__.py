"""Data sets with a target label and a protected group per image."""

from fairdd_jax.data.bias import (
    COLOUR_NAMES,
    COLOURS,
    assign_colours,
    colour_images,
    colour_table,
    flip_groups,
    frame,
)
from fairdd_jax.data.dataset import Dataset, Split
from fairdd_jax.data.registry import DataConfig, load, names

__all__ = [
    "COLOURS",
    "COLOUR_NAMES",
    "DataConfig",
    "Dataset",
    "Split",
    "assign_colours",
    "colour_images",
    "colour_table",
    "flip_groups",
    "frame",
    "load",
    "names",
]
