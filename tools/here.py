"""Draw the small map at the head of each chapter, and list all figures of the book and, in README, all chapters.

Run by ``make notebooks``; writes ``book/_static/here-NN.svg``, ``book/figures.md`` and the table in ``README.md``.
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "book/_ext"))
from chapters import ROOT, Chapter, chapters

NODES = {  # name: (label, x, y, width)
    "x": ("x", 36, 34, 44), "g_a": ("gₐ", 124, 34, 60), "y": ("y", 214, 34, 44), "code": ("file", 318, 34, 72),
    "y_hat": ("ŷ", 424, 34, 72), "g_s": ("gₛ", 520, 34, 60), "x_hat": ("x̂", 602, 34, 68),
    "h_a": ("hₐ", 36, 122, 60), "z": ("z", 116, 122, 44), "h_s": ("hₛ", 190, 122, 60),
    "entropy parameters": ("parameters", 318, 122, 150), "context model": ("context", 478, 122, 100),
}  # fmt: skip
LEARNED = ("g_a", "g_s", "h_a", "h_s", "context model", "entropy parameters")
ARROWS = (
    "x-g_a g_a-y y-code code-y_hat y_hat-g_s g_s-x_hat y-h_a h_a-z z-h_s "
    "h_s-entropy_parameters y_hat-context_model context_model-entropy_parameters entropy_parameters-code"
)


def drawing(chapter: Chapter) -> str:
    """The data flow as SVG, with what the chapter is about filled, framed and bold."""
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 156" width="640" height="156" '
        'font-family="sans-serif" font-size="20" text-anchor="middle">',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" '
        'orient="auto"><path d="M0 0L8 4L0 8z" fill="#333"/></marker></defs>',
        '<rect width="640" height="156" fill="#fff"/>',
    ]
    for arrow in ARROWS.split():
        (_, x, y, w), (_, x2, y2, w2) = (NODES.get(n) or NODES[n.replace("_", " ")] for n in arrow.split("-"))
        if y == y2:
            side = 1 if x2 > x else -1
            line = f"M{x + side * w / 2} {y}H{x2 - side * (w2 / 2 + 2)}"
        elif x == x2:
            line = f"M{x} {y - 20}V{y2 + 22}"
        else:  # down from the upper row, round one corner or two
            line = f"M{x} {y + 20}V78H{x2}V{y2 - 22}"
        parts.append(f'<path d="{line}" fill="none" stroke="#333" stroke-width="1.5" marker-end="url(#tip)"/>')
    for name, (label, x, y, w) in NODES.items():
        fill, stroke, weight = ("#cfe4f2", 'stroke="#0072B2" stroke-width="4"', "600") if name in chapter.map else ("#fff", 'stroke="#666" stroke-width="1.2"', "normal")  # fmt: skip
        parts.append(
            f'<rect x="{x - w / 2}" y="{y - 19}" width="{w}" height="38" rx="{9 if name in LEARNED else 0}" fill="{fill}" {stroke}/>'
            f'<text x="{x}" y="{y + 6}" font-weight="{weight}" fill="#111">{label}</text>'
        )
    return "\n".join([*parts, "</svg>"]) + "\n"


def alt(chapter: Chapter) -> str:
    """What the map at a chapter's head shows, in words."""
    names = ["the file" if name == "code" else name for name in chapter.map]
    listed = " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
    return f"The codec's data flow from x to x_hat, with {listed} highlighted."


def with_chapters(readme: str) -> str:
    """README's text with the table of chapters as it should be."""
    rows = "".join(f"| {chapter.number} | {chapter.title} |\n" for chapter in chapters())
    return re.sub(r"(?<=\| \| chapter \|\n\|---\|---\|\n)(\| \d+ \|.*\n)*", rows, readme)


def figures() -> str:
    """The page that lists every figure, in the order of the contents, with the first sentence of its caption."""
    lines = ["# All figures", "", "Every figure of the book, in order; a click leads to it.", ""]
    pages = re.findall(
        r"file: ((?:book|notebooks)/\w+)", "root/file: book/intro " + (ROOT / "_toc.yml").read_text(encoding="utf-8")
    )
    for page in pages:
        found = list(figures_of(ROOT / page))
        if found:
            title = re.search(r"^# (.+)", text_of(ROOT / page), re.M)[1]
            lines += [f"## {title}", "", *(f"- {{numref}}`{name}`: {caption}" for name, caption in found), ""]
    return "\n".join(lines)


def figures_of(page: Path) -> Iterator[tuple[str, str]]:
    """(name, first sentence of the caption) of each figure of a page, given without suffix."""
    if page.with_suffix(".md").exists():
        for name, caption in re.findall(r":name: (fig-[\w-]+)\n(?::.*\n)*\n(.+)", text_of(page)):
            yield name, first_sentence(caption)
        return
    for cell in json.loads(page.with_suffix(".ipynb").read_text(encoding="utf-8"))["cells"]:
        figure = cell["metadata"].get("mystnb", {}).get("figure")
        if figure:
            yield figure["name"], first_sentence(figure["caption"])


def text_of(page: Path) -> str:
    if page.with_suffix(".md").exists():
        return page.with_suffix(".md").read_text(encoding="utf-8")
    cells = json.loads(page.with_suffix(".ipynb").read_text(encoding="utf-8"))["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def first_sentence(caption: str) -> str:
    return re.split(r"(?<=[.!?])\s", " ".join(caption.split()), maxsplit=1)[0]


if __name__ == "__main__":
    for chapter in chapters():
        (ROOT / f"book/_static/here-{chapter.number:02}.svg").write_text(drawing(chapter), encoding="utf-8")
    (ROOT / "book/figures.md").write_text(figures(), encoding="utf-8")
    readme = ROOT / "README.md"
    readme.write_text(with_chapters(readme.read_text(encoding="utf-8")), encoding="utf-8")
