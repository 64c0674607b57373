"""What book/_ext/drawings.py makes of a chart: text in the page's font, colours of its theme, pictures as they are."""

import io
import re
from xml.etree import ElementTree

import drawings
import matplotlib.pyplot as plt
import numpy as np
import pytest
from bs4 import BeautifulSoup
from PIL import Image

from dgml.settings import ROOT
from helpers import COLOUR, WIDTH

SETTINGS = {
    "svg.fonttype": "none", "svg.hashsalt": "x", "image.interpolation": "none", "image.composite_image": False,
    "font.size": 11,
}  # fmt: skip

# In a browser: the height in pixels of each text; not of those that were set letter by letter (powers of ten).
SIZES = """() => [...document.querySelectorAll('svg.drawing text')].filter(t => !t.querySelector('tspan')).map(t => {
    const drawing = t.ownerSVGElement
    return parseFloat(getComputedStyle(t).fontSize) * drawing.getBoundingClientRect().width / drawing.viewBox.baseVal.width
})"""


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(256, size=(20, 30, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def small_site(tmp_path_factory, pixels):
    """A site of one page with a chart and a picture, and the page's text after drawings.place."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "_images").mkdir()
    (folder / "notebooks").mkdir()
    with plt.rc_context(SETTINGS):
        figure, (chart, photograph) = plt.subplots(1, 2, figsize=(WIDTH, 2.6))
        chart.plot([1, 2, 3], [3, 1, 2], color=COLOUR["y"], label="y")
        chart.plot([1.5], [1.5], "D", color="black")
        chart.bar(2.5, 1, color="black")
        chart.set(xlabel="bits per pixel", ylabel="dB")
        chart.text(2, 2, "short\na longer line", ha="center", fontsize=8)
        chart.text(2.5, 1, " 1.0 kB")
        photograph.imshow(pixels)
        photograph.text(15, 10, "inside", color="white")
        photograph.plot([-0.5, 29], [10, 12], color="white")
        photograph.set_title("a title")
        file = io.StringIO()
        figure.savefig(file, format="svg", bbox_inches="tight")
        plt.close(figure)
    (folder / "_images/chart.svg").write_text(file.getvalue(), encoding="utf-8")
    path = folder / "notebooks/page.html"
    css = (ROOT / "book/_static/custom.css").read_text(encoding="utf-8")
    source = f"<!DOCTYPE html><html><head><style>body{{margin:0}}{css}</style></head><body><article><figure style='margin:0'>"
    page = BeautifulSoup(f'{source}<img alt="A &amp; B" src="../_images/chart.svg"></figure></article></body></html>', "html.parser")  # fmt: skip
    placed = drawings.place(page, path, folder / "_images")
    html = str(page)
    for mark, drawing in placed.items():
        html = html.replace(mark, drawing)
    path.write_text(html, encoding="utf-8")
    return folder


def test_pictures_keep_their_own_pixels(small_site, pixels):
    (file,) = (small_site / "_images").glob("*.webp")
    with Image.open(file) as picture:
        assert np.array_equal(np.asarray(picture), pixels)
    assert f'href="../_images/{file.name}"' in (small_site / "notebooks/page.html").read_text(encoding="utf-8")


def test_nothing_of_a_drawing_leaks_into_its_page(small_site):
    html = (small_site / "notebooks/page.html").read_text(encoding="utf-8")
    svg = html[html.index("<svg") :]
    assert "@@" not in html and "<style" not in svg and "metadata" not in svg and "font-family" not in svg
    assert 'aria-label="A &amp; B"' in svg
    ids = re.findall(r'\bid="([^"]+)"', svg)
    pointed = re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', svg)
    assert (
        len(ids) == len(set(ids)) and {a or b for a, b in pointed} <= set(ids) and all(i.startswith("d0-") for i in ids)
    )


def test_colours_follow_the_theme_except_on_a_picture(small_site):
    html = (small_site / "notebooks/page.html").read_text(encoding="utf-8")
    texts = {re.sub("<[^>]+>", "", t): t for t in re.findall(r"<text.*?</text>", html, re.S)}
    assert "var(--c000000" in texts["bits per pixel"] and "var(--c000000" in texts["a title"]
    assert "var(" not in texts["inside"].replace("var(--text", "") and "#ffffff" in texts["inside"]
    assert f"stroke: var(--c{COLOUR['y'][1:].lower()}" in html
    for mark in ("use", "path"):  # a black diamond and a black bar, of which matplotlib says no colour
        assert any("fill:var(--c000000" in found for found in re.findall(f"<{mark} [^>]*>", html)), mark
    assert "stroke: #ffffff" in html  # a line that begins on the edge of the picture


def test_a_space_before_a_word_stays(small_site):
    html = (small_site / "notebooks/page.html").read_text(encoding="utf-8")
    assert ">\u00a01.0\u00a0kB</text>" in html


def test_lines_of_one_text_keep_their_middle(small_site):
    html = (small_site / "notebooks/page.html").read_text(encoding="utf-8")
    short, long = (re.search(rf"<text ([^>]*)>{line}</text>", html)[1] for line in ("short", "a longer line"))
    assert "text-anchor:middle" in short and "text-anchor:middle" in long
    x = [float(re.search(r"translate\(([\d.]+)", line)[1]) for line in (short, long)]
    assert abs(x[0] - x[1]) < 1


@pytest.mark.parametrize("colour", [*COLOUR.values(), "#000000", "#ffffff", "#cfe4f2", "#333333"])
def test_the_dark_page_has_contrast(colour):
    dark = drawings.in_the_dark(colour[1:].lower())
    rgb = tuple(int(dark[i : i + 2], 16) / 255 for i in (1, 3, 5))
    light_ground = colour in ("#ffffff", "#cfe4f2")
    contrast = drawings.contrast(rgb, [part / 255 for part in drawings.PAPER])
    assert contrast < 2 if light_ground else contrast >= 4.4


@pytest.mark.parametrize("colour", [*COLOUR.values(), "#8a8a8a", "#b8860b", "#5b8c5a", "#000000"])
def test_words_can_be_read_on_either_page(colour):
    words = drawings.legible(colour[1:].lower())
    light, dark = (
        tuple(int(c[i : i + 2], 16) / 255 for i in (0, 2, 4)) for c in (words, drawings.in_the_dark(words)[1:])
    )
    assert drawings.contrast(light, (1, 1, 1)) >= 4.4
    assert drawings.contrast(dark, [part / 255 for part in drawings.PAPER]) >= 4.4
    assert drawings.legible("ffffff") == "ffffff"  # on a dark ground


def test_text_is_legible_on_a_phone(small_site, browser):
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.goto((small_site / "notebooks/page.html").as_uri())
    sizes = page.evaluate(SIZES)
    assert len(sizes) > 10 and min(sizes) >= 11
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    light, dark = (fill(page, theme) for theme in ("light", "dark"))
    assert light == "rgb(0, 0, 0)" and dark == "rgb({}, {}, {})".format(*drawings.INK)
    page.close()


def fill(page, theme: str) -> str:
    return page.evaluate(
        "theme => { document.documentElement.dataset.theme = theme;"
        "return getComputedStyle([...document.querySelectorAll('svg text')].find(t => t.textContent === 'dB')).fill }",
        theme,
    )


def test_the_ends_of_a_colour_bar_belong_to_its_map(pixels):
    with plt.rc_context(SETTINGS):
        figure, axis = plt.subplots(figsize=(4, 3))
        figure.colorbar(axis.imshow(pixels[..., 0], cmap="gray"), extend="both")
        file = io.StringIO()
        figure.savefig(file, format="svg")
        plt.close(figure)
    root = ElementTree.fromstring(file.getvalue())
    boxes = [drawings.box(picture) for picture in root.iter(f"{drawings.SVG}image")]
    drawings.recolour(root, boxes, set())
    ends = [path for path in root.iter(f"{drawings.SVG}path") if len(re.findall("[ML]", path.get("d"))) == 3]
    assert len(ends) == 2 and not any("var(" in end.get("style", "") for end in ends)


@pytest.mark.parametrize("interpolation", ["none", "nearest"])
def test_where_a_picture_lies(pixels, interpolation):
    with plt.rc_context(SETTINGS):
        figure, axis = plt.subplots(figsize=(4, 3))
        axis.imshow(pixels, interpolation=interpolation)
        file = io.StringIO()
        figure.savefig(file, format="svg")
        inches = axis.get_window_extent().transformed(figure.dpi_scale_trans.inverted())
        plt.close(figure)
    (picture,) = ElementTree.fromstring(file.getvalue()).iter("{http://www.w3.org/2000/svg}image")
    expected = 72 * inches.x0, 72 * (3 - inches.y1), 72 * inches.x1, 72 * (3 - inches.y0)
    assert drawings.box(picture) == pytest.approx(expected, abs=1.5)
