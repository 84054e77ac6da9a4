"""What people look at: grids of images, plots, and a page for a run or for several side by side."""

from fairdd_jax.report.analysis import FILE as ANALYSIS
from fairdd_jax.report.analysis import Analysis, analyse
from fairdd_jax.report.grids import grid, png_bytes, side_by_side
from fairdd_jax.report.page import FILE as PAGE
from fairdd_jax.report.page import environment, fragment, page
from fairdd_jax.report.plots import images_by_class, overview
from fairdd_jax.report.record import Record, named, read

__all__ = [
    "ANALYSIS",
    "PAGE",
    "Analysis",
    "Record",
    "analyse",
    "environment",
    "fragment",
    "grid",
    "images_by_class",
    "named",
    "overview",
    "page",
    "png_bytes",
    "read",
    "side_by_side",
]
