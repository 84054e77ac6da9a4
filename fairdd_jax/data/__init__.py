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
from fairdd_jax.data.config import DataConfig
from fairdd_jax.data.dataset import Dataset, Split
from fairdd_jax.data.listing import Listed, Listing, Source
from fairdd_jax.data.registry import SOURCES, load, names, resolved

__all__ = [
    "COLOURS",
    "COLOUR_NAMES",
    "SOURCES",
    "DataConfig",
    "Dataset",
    "Listed",
    "Listing",
    "Source",
    "Split",
    "assign_colours",
    "colour_images",
    "colour_table",
    "flip_groups",
    "frame",
    "load",
    "names",
    "resolved",
]
