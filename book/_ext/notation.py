"""Prose as it is printed: ŷ and gₐ, where ``y_hat`` and ``g_a`` are names in code; a minus before a number; 16 × 16; no
line that breaks inside of that, of 5 %, of 31 dB, of N = 32, of y − μ or of Fig. 7.1.

A Sphinx extension.  Notebooks are edited where such signs are hard to type, so their prose may say y_hat and -5 %.
"""

import re

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

SYMBOLS = {"y_hat": "ŷ", "z_hat": "ẑ", "x_hat": "x̂", "g_a": "gₐ", "g_s": "gₛ", "h_a": "hₐ", "h_s": "hₛ"}
NAME = re.compile(rf"(?<![\w.])({'|'.join(SYMBOLS)})(?!\w)")
MINUS = re.compile(r"(?<![^\s(])-(?=\d)")
TIMES = re.compile(r"(?<=\d) x (?=\d)")
TOGETHER = re.compile(
    r"(?<=\d) (?=%|×)|(?<=×) (?=\d)|(?<=\b[NMK]) (?== \d)|(?<=\b[NMK] =) (?=\d)|(?<=\bFig\.) (?=\d)"
    r"|(?<=\d) (?=(?:dB|kB|MB|GB|bpp|bits?|bytes)\b)|(?<=\by) (?=− [μm]\b)|(?<=\by −) (?=[μm]\b)|(?<=\S) (?=· )"
)
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
    named = NAME.sub(lambda name: SYMBOLS[name[1]], text)
    return TOGETHER.sub("\N{NO-BREAK SPACE}", TIMES.sub(" × ", MINUS.sub("−", named)))


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
