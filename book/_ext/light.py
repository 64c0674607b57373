"""Make the built site lighter: of MathJax only what the pages load, pictures in WebP, with their size and loaded late,
notebooks to download without outputs, long names in code with places where a narrow line may end.

A Sphinx extension; it works on what lies in the output folder once a build has ended.
"""

import re
import shutil
from pathlib import Path

import drawings
import kept
import nbformat
import trim
from bs4 import BeautifulSoup
from notation import typeset
from PIL import Image
from sphinx.application import Sphinx

MATHJAX = ("tex-chtml.js", "output/chtml/fonts", "input/tex/extensions")
LONG = 12  # letters of a name in code that a narrow screen may break
SEAM = re.compile(r"(?<=[\w>][/_.=(-])(?=\w\w)")


def lighten(app: Sphinx, exception: Exception | None) -> None:
    """Prune MathJax, and rewrite the pages for the WebP files that replace their PNG files."""
    if exception or app.builder.name != "html":
        return
    site = Path(app.outdir)
    prune(site / "_static" / "mathjax", MATHJAX)
    for png in (site / "_images").glob("*.png"):
        with Image.open(png) as picture:
            # Without loss: what the book shows of a codec's faults must be the codec's.
            kept.webp(picture, png.with_suffix(".webp"), lossless=True)
    shown = ""
    for page in site.rglob("*.html"):
        text = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")
        for tag in text.select("img[src], a[href]"):
            key = "src" if tag.name == "img" else "href"
            path = (page.parent / tag[key]).resolve().with_suffix(".webp")
            if path.parent == (site / "_images").resolve() and path.exists() and tag[key].endswith(".png"):
                tag[key] = tag[key][: -len("png")] + "webp"
                if tag.name == "img":
                    set_size(tag, path)
        for tag in text.select("img[alt]"):
            tag["alt"] = typeset(tag["alt"])
        for name in text.select("code.literal .pre"):
            let_break(text, name)
        placed = drawings.place(text, page, site / "_images")
        trim.page(text)
        html = str(text)
        for mark, drawing in placed.items():
            html = html.replace(mark, drawing)
        page.write_text(html, encoding="utf-8")
        shown += html
    trim.site(site)
    # PNG files have become WebP, and drawings stand in their pages with their photographs beside them.
    for path in (site / "_images").iterdir():
        if path.name not in shown:
            path.unlink()
    for path in (site / "_sources").rglob("*.ipynb"):
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
        nbformat.write(notebook, path)
    kept.prune()


def set_size(tag, path: Path) -> None:
    """Give a picture its shape, so that the page does not move when it comes, and let it come late."""
    with Image.open(path) as picture:
        width, height = picture.size
    style = tag.get("style", "")
    if "width" not in style and "height" not in style:
        tag["width"], tag["height"] = str(width), str(height)
    tag["loading"], tag["decoding"] = "lazy", "async"


def let_break(page: BeautifulSoup, name) -> None:
    """Let a line end inside of a long name, where the name itself has a seam."""
    parts = SEAM.split(name.string or "")
    if len("".join(parts)) > LONG:
        name.clear()
        for i, part in enumerate(parts):
            name.extend([page.new_tag("wbr"), part] if i else [part])


def prune(folder: Path, needed: tuple[str, ...]) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not any(name == keep or name.startswith(keep + "/") for keep in needed):
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            shutil.rmtree(path)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("build-finished", lighten)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
