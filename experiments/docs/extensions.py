"""What the pages need beside Sphinx: formulas as MathML, and the settings as they are."""

import dataclasses
import importlib
import json
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

import docstring_parser
from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.writers.html5 import HTML5Translator


def _inline(translator: HTML5Translator, node: nodes.math) -> None:
    translator.body.append(convert(node.astext()))
    raise nodes.SkipNode


def _block(translator: HTML5Translator, node: nodes.math_block) -> None:
    translator.body.append(translator.starttag(node, "div", CLASS="math"))
    translator.body.append(convert(node.astext(), display="block"))
    translator.body.append("</div>\n")
    raise nodes.SkipNode


class Settings(SphinxDirective):
    """Every field of a configuration as the command line names it, with type, default and words.

    The argument is the class, as ``fairdd_jax.config.Config``.
    """

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """The nodes that stand in its place."""
        module, _, name = self.arguments[0].rpartition(".")
        lines = _fields(getattr(importlib.import_module(module), name), "")
        return self.parse_text_to_nodes("\n\n".join(lines), allow_section_headings=True)


def _fields(config: Any, prefix: str) -> Iterator[str]:
    words = {p.arg_name: p.description or "" for p in docstring_parser.parse(config.__doc__).params}
    nested = []
    for field in dataclasses.fields(config):
        if dataclasses.is_dataclass(field.type):
            nested.append(field)
            continue
        default = "no default"
        if field.default is not dataclasses.MISSING:
            default = f"default ``{_written(field.default)}``"
        text = " ".join(words[field.name].split())
        yield f"``--{prefix}{field.name}`` : {_kind(field.type)}, {default}\n   {text}"
    for field in nested:
        title = f"``--{field.name}.*``: {words[field.name].rstrip('.')}"
        yield f"{title}\n{'-' * len(title)}"
        yield from _fields(field.type, f"{field.name}.")


def _kind(hint: Any) -> str:
    """A type in words, without the null that every unset value is."""
    choices = [choice for choice in get_args(hint) if choice is not type(None)]
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(f"``{choice}``" for choice in choices)
    return " or ".join(f"``{choice.__name__}``" for choice in choices or [hint])


def _written(value: Any) -> str:
    """A value as the command line has it; an empty text shows as its quotes."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return str(value) or "''"


def setup(app: Sphinx) -> dict[str, bool]:
    """Tell Sphinx of it."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    app.add_directive("settings", Settings)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
