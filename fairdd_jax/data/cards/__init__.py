"""Data cards: where a data set comes from, what may be done with it, and what a score on it means.

A Markdown file per origin; several data sets made from the same images share one.
"""

from importlib import resources

from fairdd_jax.data.registry import SOURCES
from fairdd_jax.errors import unknown_name

SECTIONS = (
    "Origin",
    "Files",
    "Licence",
    "Splits and groups",
    "Known harms",
    "What a fairness score means",
)

# The file of every name that starts so; a name that is not here has a file of its own.
_SHARED = {
    "demo": "mnist",
    "cmnist": "mnist",
    "cfmnist": "fashion_mnist",
    "imagenet": "imagenet_s",
}


def card(name: str) -> str:
    """The data card of a data set.

    Args:
      name: a name of `fairdd_jax.data.names`.

    Returns:
      Markdown, a title and a section for each of ``SECTIONS``.

    Raises:
      ConfigError: an unknown name.

    >>> print(card("cmnist_fg").splitlines()[0])
    # MNIST in ten colours (C-MNIST, demo)
    """
    if name not in SOURCES:
        raise unknown_name("data set", name, SOURCES)
    file = _SHARED.get(name.partition("_")[0], name)
    return resources.files(__name__).joinpath(f"{file}.md").read_text(encoding="utf-8")
