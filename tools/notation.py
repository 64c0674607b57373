"""Prose as it is printed: ŷ and gₐ, where ``y_hat`` and ``g_a`` are names in code; a minus before a number, and no line
that breaks between a number and its per cent sign or in N = 32.

A Sphinx extension.  Notebooks are edited where such signs are hard to type, so their prose may say y_hat and -5 %.
"""

import re

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

SYMBOLS = {"y_hat": "ŷ", "z_hat": "ẑ", "x_hat": "x̂", "g_a": "gₐ", "g_s": "gₛ", "h_a": "hₐ", "h_s": "hₛ"}
NAME = re.compile(rf"(?<![\w.])({'|'.join(SYMBOLS)})(?!\w)")
MINUS = re.compile(r"(?<![^\s(])-(?=\d)")
TOGETHER = re.compile(r"(?<=\d) (?=%)|(?<=\b[NMK]) (?== \d)|(?<=\b[NMK] =) (?=\d)")
CODE = (
    nodes.literal,
    nodes.literal_block,
    nodes.FixedTextElement,
    nodes.math,
    nodes.math_block,
    nodes.raw,
    nodes.comment,
)


def typeset(text: str) -> str:
    """``text``, which is prose, with its symbols, minus signs and spaces as they are printed."""
    return TOGETHER.sub("\N{NO-BREAK SPACE}", MINUS.sub("−", NAME.sub(lambda name: SYMBOLS[name[1]], text)))


class Typeset(SphinxTransform):
    """As a page is read, before its titles are collected for the table of contents."""

    default_priority = 870  # Sphinx collects titles at 880

    def apply(self) -> None:
        for text in list(self.document.findall(nodes.Text)):
            if (printed := typeset(text)) != text and not in_code(text):
                text.parent.replace(text, nodes.Text(printed))
        for raw in self.document.findall(nodes.raw):  # the questions of folded answers
            if raw.astext().startswith("<details><summary>"):
                raw.children = [nodes.Text(typeset(raw.astext()))]


def in_code(node: nodes.Node) -> bool:
    while node is not None:
        if isinstance(node, CODE) or "code" in (node.get("classes", ()) if isinstance(node, nodes.Element) else ()):
            return True
        node = node.parent
    return False


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_transform(Typeset)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
