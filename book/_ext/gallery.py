"""Show each figure small on the page that lists them all; a Sphinx extension.

The pictures are the PNG outputs of the notebooks as they were run for this build, or as they are stored.
Where the run gave SVG as well, it tells what in a figure is a picture, and a second one is made for the dark theme.
"""

import base64
import io
import json
import re
import xml.etree.ElementTree as ET
from functools import cache
from html import escape
from pathlib import Path

import kept
import numpy as np
from drawings import INK, PAPER, SVG, box
from PIL import Image
from sphinx.application import Sphinx

LARGEST = (480, 352)  # pixels: twice what is shown
ENTRY = re.compile(r'<li><p>(<a class="reference internal" href="\.\./((?:notebooks|book)/\w+)\.html#(fig-[\w-]+)">)')


def fill(app: Sphinx, pagename: str, templatename: str, context: dict, doctree) -> None:
    """Put a picture before each entry of the list of figures."""
    if pagename != "book/figures":
        return

    def with_picture(entry) -> str:
        link, page, name = entry.groups()
        found = figures_of(Path(app.srcdir) / f"{page}.ipynb")
        png, svg, alt = found.get(name, (None, None, ""))
        if png is None:
            return entry[0]
        picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
        kinds = {"": ("", picture)}
        if svg:
            kinds = {"": (' class="only-light"', picture), "-dark": (' class="only-dark"', turned(picture, svg))}
        images = ""
        for kind, (when, shown) in kinds.items():
            shown.thumbnail(LARGEST, Image.Resampling.LANCZOS)
            target = Path(app.outdir) / "_images" / f"small-{name}{kind}.webp"
            target.parent.mkdir(exist_ok=True)
            kept.webp(shown, target, quality=60)
            shape = f'width="{shown.width // 2}" height="{shown.height // 2}" loading="lazy" decoding="async"'
            images += f'<img{when} src="../_images/{target.name}" alt="{escape(alt)}" {shape}>'
        return f'<li class="small-figure"><p>{link.replace(">", " tabindex=-1 aria-hidden=true>")}{images}</a>{link}'

    context["body"] = ENTRY.sub(with_picture, context["body"])


def turned(picture: Image.Image, svg: str) -> Image.Image:
    """A figure on the paper of the dark theme: light becomes dark and hues stay, except inside of its pictures."""
    root = ET.fromstring(svg)
    width, height = (float(n) for n in root.get("viewBox").split()[2:])
    pixels = np.asarray(picture)
    paper, ink = np.float64(PAPER), np.float64(INK)
    # The channels keep their distances from each other, which make the hue; black is 0, white -1.
    mirrored = (np.float64(pixels) - pixels.max(2, keepdims=True) - pixels.min(2, keepdims=True)) / 255
    dark = np.uint8(np.rint(ink + (ink - paper) * mirrored))
    for raster in root.iter(f"{SVG}image"):
        left, top, right, bottom = box(raster)
        rows = slice(round(top / height * picture.height), round(bottom / height * picture.height))
        columns = slice(round(left / width * picture.width), round(right / width * picture.width))
        dark[rows, columns] = pixels[rows, columns]
    return Image.fromarray(dark)


@cache
def figures_of(path: Path) -> dict[str, tuple[str, str | None, str]]:
    """PNG (in base64), SVG and alt text of each figure of a notebook, by name."""
    found = {}
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if path.exists() else []:
        about = cell["metadata"].get("mystnb", {})
        drawn = next((out["data"] for out in cell.get("outputs", []) if "image/png" in out.get("data", {})), None)
        if drawn and "figure" in about:
            svg = "".join(drawn["image/svg+xml"]) if "image/svg+xml" in drawn else None
            alt = about.get("image", {}).get("alt", "")
            found[about["figure"]["name"]] = "".join(drawn["image/png"]), svg, alt
    return found


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("html-page-context", fill)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
