"""Show each figure small on the page that lists them all; a Sphinx extension.

The pictures are the PNG outputs of the notebooks as they were run for this build, or as they are stored.
"""

import base64
import io
import json
import re
from functools import cache
from html import escape
from pathlib import Path

from PIL import Image
from sphinx.application import Sphinx

SIDE = 480  # pixels: twice what is shown
ENTRY = re.compile(r'<li><p>(<a class="reference internal" href="\.\./((?:notebooks|book)/\w+)\.html#(fig-[\w-]+)">)')


def fill(app: Sphinx, pagename: str, templatename: str, context: dict, doctree) -> None:
    """Put a picture before each entry of the list of figures."""
    if pagename != "book/figures":
        return

    def with_picture(entry) -> str:
        link, page, name = entry.groups()
        png, alt = figures_of(Path(app.srcdir), Path(app.outdir).parent / "jupyter_execute", page).get(name, (None, ""))
        if png is None:
            return entry[0]
        picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
        picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
        target = Path(app.outdir) / "_images" / f"small-{name}.webp"
        target.parent.mkdir(exist_ok=True)
        picture.save(target, quality=75, method=6)
        shape = f'width="{picture.width // 2}" height="{picture.height // 2}" loading="lazy" decoding="async"'
        image = f'<img src="../_images/{target.name}" alt="{escape(alt)}" {shape}>'
        return f'<li class="small-figure"><p>{link.replace(">", " tabindex=-1 aria-hidden=true>")}{image}</a>{link}'

    context["body"] = ENTRY.sub(with_picture, context["body"])


@cache
def figures_of(source: Path, executed: Path, page: str) -> dict[str, tuple[str, str]]:
    """PNG (in base64) and alt text of each figure of a notebook, by name."""
    path = next((p for p in (executed / f"{page}.ipynb", source / f"{page}.ipynb") if p.exists()), None)
    found = {}
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if path else []:
        about = cell["metadata"].get("mystnb", {})
        pngs = [out["data"]["image/png"] for out in cell.get("outputs", []) if "image/png" in out.get("data", {})]
        if pngs and "figure" in about:
            found[about["figure"]["name"]] = "".join(pngs[0]), about.get("image", {}).get("alt", "")
    return found


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("html-page-context", fill)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
