"""Set the book's SVG drawings into their pages: text in the page's font, colours that follow its theme.

``light.py`` calls :func:`place` for each page.  A chart of a chapter is SVG where the chapter was run with
``DGML_FIGURES=svg`` (``helpers.py``), which a build of the site does; photographs inside keep their own pixels.
"""

import base64
import colorsys
import hashlib
import io
import math
import os
import re
import xml.etree.ElementTree as ET
from functools import cache, partial
from html import escape
from pathlib import Path

import kept
import numpy as np
from bs4 import BeautifulSoup
from matplotlib import font_manager
from notation import typeset
from PIL import Image, ImageFont
from sphinx.application import Sphinx

SVG, HREF = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}href"
PAPER, INK = (0x12, 0x12, 0x12), (0xE3, 0xE6, 0xEA)  # of the dark theme
SMALLEST = 11.4  # units: 11 pixels on a phone, where the style sheet lets a drawing shrink to 0.966 pixels for a unit
LARGEST = 5 / 3  # pixels for a unit on a wide screen: 5.4 inches, helpers.WIDTH, fill the column
NBSP = "\u00a0"
SHARP_FROM = 2  # pixels of the screen for one of a raster: from there on its squares stay squares


def place(page: BeautifulSoup, path: Path, images: Path) -> dict[str, str]:
    """Put a mark where a drawing of ``images`` stands in the article, and return what belongs at each mark."""
    placed, colours = {}, set()
    for tag in page.select("article img[src$='.svg']"):
        source = (path.parent / tag["src"]).resolve()
        if not source.exists() or not {images.name, "_static"} & set(source.parts):
            continue
        name = f"d{len(placed)}-"
        drawing = drawn(source.read_text(encoding="utf-8"), name, images, os.path.relpath(images, path.parent), colours)
        label = escape(tag.get("alt") or "")
        kind = " here" if source.name.startswith("here-") else ""
        placed[f"@@{name}@@"] = drawing.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1).replace(
            'class="drawing"', f'class="drawing{kind}"', 1
        )
        (tag.parent if tag.parent.name == "a" else tag).replace_with(f"@@{name}@@")
    if colours:
        dark = "".join(f"--c{colour}:{in_the_dark(colour)};" for colour in sorted(colours))
        page.head.append("@@colours@@")
        placed["@@colours@@"] = f'<style>html[data-theme="dark"]{{{dark}}}</style>'
    return placed


def drawn(svg: str, name: str, images: Path, to_images: str, colours: set[str]) -> str:
    """The drawing for the inside of a page: ids of its own, no styles that leak, rasters as files, colours as
    variables.
    """
    root = ET.fromstring(svg)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.endswith("metadata") or child.tag == f"{SVG}style":
                parent.remove(child)
    width, height = [float(n) for n in root.get("viewBox").split()[2:]]
    used = set(re.findall(r"(?:url\(#|href=\"#)([^)\"]+)", svg))
    pictures = list(root.iter(f"{SVG}image"))
    boxes = [box(picture) for picture in pictures]
    for picture in pictures:
        to_file(picture, images, to_images)
    recolour(root, boxes, colours)
    for words in root.iter(f"{SVG}g"):
        anchor(words)
    for element in root.iter():
        if element.get("id") and element.get("id") not in used:
            del element.attrib["id"]
        for key, value in list(element.attrib.items()):
            if key == "id" or (key == HREF and value.startswith("#")):
                element.set(key, value.replace("#", f"#{name}") if value[0] == "#" else name + value)
            elif "url(#" in value:
                element.set(key, value.replace("url(#", f"url(#{name}"))
            elif key == "d":
                element.set(key, re.sub(r"-?\d+\.\d{3,}", lambda n: f"{float(n[0]):.2f}", " ".join(value.split())))
        if element.tag.endswith(("}text", "}tspan")) or "font-size" in element.get("style", ""):
            letter(element, element.tag.endswith("}tspan") or element.tag.endswith("}g"))
    for key in ("width", "height", "version"):
        root.attrib.pop(key, None)
    root.set("class", "drawing")
    root.set("style", f"--units:{width:.0f}px;aspect-ratio:{width:.0f}/{height:.0f}")
    ET.register_namespace("", SVG[1:-1])
    ET.register_namespace("xlink", HREF[1:-5])
    text = re.sub(r">\s+<", "><", ET.tostring(root, encoding="unicode"))
    return f'<span class="drawing-frame">{text}</span>'


def letter(element: ET.Element, spaced: bool) -> None:
    """The page's font at a size that the style sheet may scale; letters that were set one by one keep their size."""
    if element.text and element.text.strip():
        words = typeset(element.text)
        # XML drops spaces at the ends of a text; some keep a label away from its bar.
        inner = words.strip(" ")
        before = len(words) - len(words.lstrip(" "))
        element.text = NBSP * before + inner + NBSP * (len(words) - before - len(inner))
    style = element.get("style", "")
    style = re.sub(r"font-family:[^;]*(?:;\s*|$)", "", style)
    if not spaced:
        style = re.sub(
            r"font-size:\s*([\d.]+)px",
            lambda m: f"font-size:calc(var(--text,1)*{max(float(m[1]), SMALLEST):g}px)",
            style,
        )
    if style:
        element.set("style", style.strip())


def anchor(words: ET.Element) -> None:
    """Hold the lines of a text of several at the side, or the middle, in which they agree.

    Matplotlib places each at its left end, which is right in its own font alone.
    """
    lines = [line for line in words if line.tag == f"{SVG}text" and "translate" in line.get("transform", "")]
    if len(lines) < 2 or not words.get("id", "").startswith("text_"):
        return
    lefts, widths = [], []
    for line in lines:
        size = float(re.search(r"font-size:\s*([\d.]+)", line.get("style"))[1])
        bold = re.search(r"font-weight:\s*(?:bold|[6-9]00)", line.get("style"))
        widths.append(font(bool(bold)).getlength(line.text or "") * size / 100)
        lefts.append(
            [float(n) for n in re.search(r"translate\((-?[\d.]+)[ ,]+(-?[\d.]+)", line.get("transform")).groups()]
        )
    turn = re.search(r"rotate\((-?[\d.]+)", lines[0].get("transform"))
    angle = math.radians(float(turn[1])) if turn else 0
    along = [x * math.cos(angle) + y * math.sin(angle) for x, y in lefts]
    spread = {part: np.ptp([a + part * w for a, w in zip(along, widths)]) for part in (0, 0.5, 1)}
    part = min(spread, key=spread.get)
    for line, (x, y), width in zip(lines, lefts, widths):
        x, y = x + part * width * math.cos(angle), y + part * width * math.sin(angle)
        turned = f" rotate({math.degrees(angle):.4g})" if angle else ""
        line.set("transform", f"translate({x:.2f} {y:.2f}){turned}")
        line.set("style", f"text-anchor:{ {0: 'start', 0.5: 'middle', 1: 'end'}[part] };{line.get('style')}")


@cache
def font(bold: bool):
    """Matplotlib's own font at 100 units, to measure with."""
    return ImageFont.truetype(font_manager.findfont(f"DejaVu Sans:{'bold' if bold else 'normal'}"), 100)


# ---------------------------------------------------------------- rasters


def box(picture: ET.Element) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a picture that matplotlib drew, in units of the drawing."""
    w, h = float(picture.get("width", 0)), float(picture.get("height", 0))
    matrix = re.search(r"matrix\(([^)]*)\)", picture.get("transform", ""))
    if matrix:
        a, b, c, d, e, f = (float(n) for n in re.split(r"[ ,]+", matrix[1].strip()))
        xs, ys = (e, e + a * w + c * h), (f, f + b * w + d * h)
    else:  # scale(1 -1) translate(0 -h)
        x, y = float(picture.get("x", 0)), -float(picture.get("y", 0))
        xs, ys = (x, x + w), (y, y + h)
    return min(xs), min(ys), max(xs), max(ys)


def to_file(picture: ET.Element, images: Path, to_images: str) -> None:
    """Move a picture's pixels from the drawing to a WebP file beside the others, without loss."""
    data = picture.get(HREF, "")
    if not data.startswith("data:image/png;base64,"):
        return
    raster = Image.open(io.BytesIO(base64.b64decode(data.split(",", 1)[1])))
    raster = raster.convert("RGB") if raster.mode == "RGBA" and raster.getextrema()[3] == (255, 255) else raster
    target = images / f"{hashlib.sha256(raster.tobytes() + repr(raster.size).encode()).hexdigest()[:24]}.webp"
    if not target.exists():
        kept.webp(raster, target, lossless=True)
    left, _, right, _ = box(picture)
    squares = (right - left) * LARGEST / raster.width >= SHARP_FROM
    picture.set("style", "image-rendering:pixelated" if squares else "")
    picture.set("preserveAspectRatio", "none")
    picture.attrib.pop("id", None)
    del picture.attrib[HREF]
    picture.set("href", f"{to_images}/{target.name}")


# ---------------------------------------------------------------- colours


def recolour(root: ET.Element, boxes: list[tuple], colours: set[str]) -> None:
    """Colours become variables with the colour itself as fallback, except on top of a picture: that has no theme."""

    def variable(match, words: bool) -> str:
        colour = match[2].lower().lstrip("#")
        colour = "".join(2 * c for c in colour) if len(colour) == 3 else colour
        colour = legible(colour) if words else colour
        colours.add(colour)
        return f"{match[1]}var(--c{colour},#{colour})"

    def recolour_below(element: ET.Element, kept: bool, filled: bool) -> None:
        kept = kept or on_a_picture(element, boxes) or "QuadMesh" in element.get("id", "")
        for key in () if kept else ("style", "fill", "stroke"):
            if key in element.attrib:
                put = partial(variable, words=element.tag == f"{SVG}text")
                value = re.sub(r"((?:fill|stroke): ?)(#[0-9a-fA-F]{3,6})\b", put, f"{key}:{element.get(key)}")
                value = value.removeprefix(f"{key}:")
                if key == "style":
                    element.set(key, value)
                elif value.startswith("var("):
                    del element.attrib[key]
                    element.set("style", f"{key}:{value};{element.get('style', '')}")
        # What names no fill is filled with black; a marker in <defs> is filled by who uses it.
        own = "fill" in element.attrib or re.search(r"\bfill ?:", element.get("style", ""))
        filled = filled or element.tag == f"{SVG}defs" or bool(own)
        if not kept and not filled and element.tag in (f"{SVG}text", f"{SVG}path", f"{SVG}use"):
            colours.add("000000")
            element.set("style", f"{element.get('style', '')};fill:var(--c000000,#000)".lstrip(";"))
        for child in element:
            recolour_below(child, kept, filled)

    recolour_below(root, False, False)


def on_a_picture(element: ET.Element, boxes: list[tuple]) -> bool:
    """Whether a word begins, or the middle between the ends of a mark lies, inside of a picture.

    A triangle may also stand on its edge: matplotlib's end of a colour bar.
    """
    d = re.findall(r"(-?[\d.]+)[ ,]+(-?[\d.]+)", element.get("d", ""))
    moved = re.search(r"translate\((-?[\d.]+)[ ,]+(-?[\d.]+)", element.get("transform", ""))
    if d:
        x, y = ((float(first) + float(last)) / 2 for first, last in zip(d[0], d[-1]))
    elif element.tag in (f"{SVG}text", f"{SVG}use") and element.get("x"):
        x, y = element.get("x"), element.get("y")
    elif moved and element.tag in (f"{SVG}text", f"{SVG}g"):
        x, y = moved.groups()
    elif element.get("id", "").startswith("text_"):  # a word with its box is judged as a whole
        return any(on_a_picture(child, boxes) for child in element.iter(f"{SVG}text"))
    else:
        return False
    edge = -1 if len(d) == 3 else 1
    return any(
        left + edge < float(x) < right - edge and top + edge < float(y) < bottom - edge
        for left, top, right, bottom in boxes
    )


def legible(colour: str) -> str:
    """The colour of words (rrggbb): that of their line, darkened until it can be read on white.

    What is lighter than any line, words on a dark ground, stays as it is.
    """
    hue, light, saturation = colorsys.rgb_to_hls(*(int(colour[i : i + 2], 16) / 255 for i in (0, 2, 4)))
    if contrast((1, 1, 1), colorsys.hls_to_rgb(hue, light, saturation)) < 2:
        return colour
    while contrast((1, 1, 1), colorsys.hls_to_rgb(hue, light, saturation)) < 4.5:
        light -= 0.01
    return "".join(f"{round(255 * c):02x}" for c in colorsys.hls_to_rgb(hue, light, saturation))


def in_the_dark(colour: str) -> str:
    """The colour that stands for ``colour`` (rrggbb) on the dark page: greys and tints turned, the rest lightened."""
    rgb = [int(colour[i : i + 2], 16) for i in (0, 2, 4)]
    if max(rgb) - min(rgb) < 24:
        part = sum(rgb) / 3 / 255
        return "#" + "".join(f"{round(ink + (paper - ink) * part):02x}" for ink, paper in zip(INK, PAPER))
    hue, light, saturation = colorsys.rgb_to_hls(*(c / 255 for c in rgb))
    if light > 0.8:
        light, saturation = 1.06 - light, min(saturation, 0.55)
    else:
        while contrast(colorsys.hls_to_rgb(hue, light, saturation), [c / 255 for c in PAPER]) < 4.5:
            light += 0.01
    return "#" + "".join(f"{round(255 * c):02x}" for c in colorsys.hls_to_rgb(hue, light, saturation))


def contrast(one: tuple[float, float, float], other: tuple[float, float, float]) -> float:
    """Contrast of two colours in [0, 1], whichever is the lighter (WCAG 2)."""

    def luminance(channels) -> float:
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def setup(app: Sphinx) -> dict[str, bool]:
    # Chapters run in processes that inherit this; an edition in PNG sets it to png.
    app.connect(
        "builder-inited", lambda app: app.builder.format == "html" and os.environ.setdefault("DGML_FIGURES", "svg")
    )
    return {"parallel_read_safe": True, "parallel_write_safe": True}
