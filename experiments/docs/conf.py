"""How the guide and the API reference are built, offline: no page loads anything from elsewhere.

python -m sphinx -W -n experiments/docs OUT
"""

import sys
from importlib.metadata import version as version_of
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

project = "fairdd_jax"
release = version_of("fairdd-jax")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "extensions"]
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = project
html_static_path = ["_static"]
html_css_files = ["wide.css"]
html_copy_source = False
html_show_copyright = False
html_math_renderer = "mathml"

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

# A name in single backticks is one of this package, as everywhere in its docstrings.
default_role = "py:obj"
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints_format = "short"
napoleon_attr_annotations = False  # the signature has them
# Names of other packages, whose references lie elsewhere, and what the loop keeps to itself.
nitpick_ignore_regex = [
    ("py:class", r"fairdd_jax\.loop\.LoopState"),
    ("py:class", r"Figure"),
    ("py:.*", r"(jax|jaxlib|numpy|flax|PIL|rich|collections\.abc|pathlib)\..*"),
]
