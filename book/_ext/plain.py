"""Let chapters be written in plain Markdown, which every notebook front end shows, and lose nothing on the site.

A Sphinx extension.  It turns

- a link to ``#fig-name`` or ``#eq-name``, on this page or another, into a numbered reference,
- a link to ``glossary.md#term-…`` into a link to the term, one to ``references.md#key`` into a citation,
- a formula below ``<a id="eq-name"></a>`` into a numbered one,
- a block quote that begins with a line in bold into a box,
- the output of a cell of which only Markdown is shown into an ordinary paragraph.
"""

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging
from sphinx.util.nodes import make_refnode
from sphinxcontrib.bibtex.citation_target import CitationTarget
from sphinxcontrib.bibtex.roles import CitationRef

GLOSSARY, REFERENCES = "book/glossary", "book/references"


class Links(SphinxTransform):
    """Numbered references and citations, as a page is read; before MyST looks for the targets (879)."""

    default_priority = 200

    def apply(self) -> None:
        for link in list(self.document.findall(lambda n: isinstance(n, (nodes.reference, pending_xref)))):
            page, target = destination(link)
            if target.startswith(("fig-", "eq-")):
                link.replace_self(self.pointing(link, *NUMBERED[target.split("-")[0]], target))
            elif page == REFERENCES and target:
                link.replace_self(self.citation(link, target))

    def pointing(self, link: nodes.Element, domain: str, kind: str, target: str) -> pending_xref:
        names = {"refdomain": domain, "reftype": kind, "reftarget": target, "refdoc": self.env.docname}
        text = nodes.inline("", "", *link.children)
        node = pending_xref("", text, refexplicit=False, refwarn=True, **names)
        node.source, node.line = link.source, link.line
        return node

    def citation(self, link: nodes.Element, key: str) -> pending_xref:
        """The role that reads as the link's text does: "Ballé et al. (2018)", or "Ballé et al., 2018"."""
        node = self.pointing(link, "cite", "t" if "(" in link.astext() else "alp", key)
        self.document.note_explicit_target(node, node)  # the list of references points back to it
        targets = [CitationTarget(key=key, pre="", post="")]
        cites = self.env.get_domain("cite").citation_refs
        cites.append(CitationRef(node["ids"][0], self.env.docname, link.line or 0, targets))
        return node


NUMBERED = {"fig": ("std", "numref"), "eq": ("math", "eq")}


def destination(link: nodes.Element) -> tuple[str, str]:
    """The page and the place on it that a Markdown link leads to, empty where it names none."""
    if link.get("id_link"):
        return "", link["refuri"][1:]
    if link.get("reftype") == "myst" and link.get("refdomain") == "doc":
        return link["reftarget"], link["reftargetid"] or ""
    return "", ""


class Boxes(SphinxTransform):
    """Boxes and numbered formulas, as a page is read."""

    default_priority = 201

    def apply(self) -> None:
        for quote in list(self.document.findall(nodes.block_quote)):
            first = quote.children[0]
            words = [n for n in first.children if n.astext()] if isinstance(first, nodes.paragraph) else []
            if [type(n) for n in words] == [nodes.strong]:
                title = nodes.title("", "", *words[0].children)
                quote.replace_self(nodes.admonition("", title, *quote.children[1:], classes=["note"]))
        for formula in list(self.document.findall(nodes.math_block)):
            above = formula.previous_sibling()
            anchor = above.rawsource if isinstance(above, nodes.paragraph) else ""
            if anchor.startswith('<a id="eq-'):
                self.number(formula, anchor.split('"')[1])
                above.parent.remove(above)

    def number(self, formula: nodes.math_block, label: str) -> None:
        math = self.env.get_domain("math")
        math.note_equation(self.env.docname, label, location=formula)
        number = math.get_equation_number_for(label)
        formula.update_basic_atts({"ids": [nodes.make_id(f"equation-{label}")]})
        formula.attributes.update(label=label, number=number, docname=self.env.docname, nowrap=False)


class Paragraphs(SphinxPostTransform):
    """Terms, and paragraphs that a cell said: before MyST-NB chooses among its outputs (4), and MyST resolves (9)."""

    default_priority = 3

    def run(self) -> None:
        places = {place for (kind, _), place in self.env.domains["std"].objects.items() if kind == "term"}
        for link in list(self.document.findall(pending_xref)):
            page, target = destination(link)
            if page == GLOSSARY and target.startswith("term-"):
                self.term(link, target, places)
        for cell in list(self.document.findall(nodes.container)):
            if "tag_remove-input" in cell["classes"]:
                said = [paragraphs(output) for output in cell.children[-1].children]
                if all(said):
                    cell["classes"] = []
                    cell.replace_self([node for one in said for node in one])

    def term(self, link: pending_xref, target: str, places: set[tuple[str, str]]) -> None:
        if (GLOSSARY, target) not in places:
            logging.getLogger(__name__).warning(f"the glossary has no {target!r}", location=link, type="plain")
        text = nodes.inline("", "", *link.children[0].children, classes=["xref", "std", "std-term"])
        link.replace_self(make_refnode(self.app.builder, self.env.docname, GLOSSARY, target, text))


def paragraphs(output: nodes.Element) -> list[nodes.Node]:
    """What an output has in Markdown; nothing where it has none."""
    kinds = {child.get("mime_type"): child for child in output.children if isinstance(child, nodes.container)}
    return list(kinds["text/markdown"].children) if "text/markdown" in kinds else []


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_transform(Links)
    app.add_transform(Boxes)
    app.add_post_transform(Paragraphs)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
