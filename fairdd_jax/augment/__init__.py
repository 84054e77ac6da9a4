"""Differentiable siamese augmentation (DSA).

Reference: Zhao & Bilen, "Dataset Condensation with Differentiable Siamese Augmentation",
ICML 2021.
"""

from fairdd_jax.augment.cutmix import Box, cutmix, sample_box
from fairdd_jax.augment.ops import (
    BRIGHTNESS,
    CONTRAST,
    CROP_PAD,
    CUTOUT,
    FLIP_PROBABILITY,
    ROTATE,
    SATURATION,
    SCALE,
    brightness,
    color,
    contrast,
    crop,
    cutout,
    flip,
    rotate,
    saturation,
    scale,
)
from fairdd_jax.augment.siamese import (
    ALL,
    NONE,
    Parameters,
    apply,
    augment_batch,
    operations,
    sample,
)

__all__ = [
    "ALL",
    "BRIGHTNESS",
    "CONTRAST",
    "CROP_PAD",
    "CUTOUT",
    "FLIP_PROBABILITY",
    "NONE",
    "ROTATE",
    "SATURATION",
    "SCALE",
    "Box",
    "Parameters",
    "apply",
    "augment_batch",
    "brightness",
    "color",
    "contrast",
    "crop",
    "cutmix",
    "cutout",
    "flip",
    "operations",
    "rotate",
    "sample",
    "sample_box",
    "saturation",
    "scale",
]
