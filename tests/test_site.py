"""The built site as files: links, references, what pages say of themselves, typeset prose, sizes."""

import re
import unicodedata
from functools import cache
from urllib.parse import unquote, urldefrag

import pytest
from browsing import PAGES
from bs4 import BeautifulSoup

from dgml.settings import ROOT

parsed = cache(lambda page: BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser"))  # who changes it reads anew
NAMES = r"(?<![\w.])(?:[xyz]_hat|[gh]_[as])(?!\w)"


def test_each_figure_is_shown_where_all_are_listed(site):
    text = parsed(site / "book/figures.html")
    entries = text.select("article a.reference[href*='#fig-']:not([aria-hidden])")
    shown = {tag["src"] for tag in text.select("article .small-figure img:not(.only-dark)")}
    assert len(entries) > 40 and len(shown) == len(entries) - 1  # the journey of the front page is no notebook's
    assert all((site / "book" / src).resolve().exists() for src in shown)


@pytest.mark.parametrize("path", [path for path in PAGES if "/" in path])
def test_symbols_have_hats_and_names_of_code_stand_in_code(path, site):
    page = BeautifulSoup((site / path).read_text(), "html.parser")
    article = page.select_one("article")
    for tag in article.select("pre, code, .math, svg title, .codec, .text_html"):
        tag.decompose()
    for place in (article, page.title, page.select_one(".bd-sidebar-primary")):
        assert re.findall(NAMES, place.get_text(" ")) == []
    read_out = " ".join(
        tag.get("alt") or tag.get("aria-label") or "" for tag in page.select("article :is(img[alt], svg[aria-label])")
    )
    assert re.findall(NAMES, read_out) == []


def test_references_are_labelled_by_author_and_year(site):
    text = parsed(site / "book/references.html")
    labels = [tag.get_text().strip("[]") for tag in text.select(".citation .label")]
    assert len(labels) > 10 and all(re.fullmatch(r"[^\\{}]+, \d{4}[a-h]?", label) for label in labels)
    assert "Ballé et al., 2018" in labels
    plain = [unicodedata.normalize("NFKD", label).encode("ascii", "ignore").decode().lower() for label in labels]
    assert plain == sorted(plain, key=lambda label: label.rsplit(", ", 1))
    assert len(text.select(".citation a[href^='https://doi.org/']")) > 10


def test_pages_say_what_they_are(site):
    said = {}
    for path in [*PAGES, "index.html"]:
        head = parsed(site / path).head
        metas = {tag.get("property") or tag.get("name"): tag["content"] for tag in head.select("meta[content]")}
        assert metas["og:image"].endswith("/_static/explore/run/share.jpg") and metas["og:title"]
        assert "favicon" in str(head) or path == "index.html"
        said[path] = metas["description"]
    assert said["index.html"] == said["book/intro.html"]
    assert (site / "_static/explore/run/share.jpg").exists() and all(len(text) > 20 for text in said.values())
    assert len({text for path, text in said.items() if "notebooks" in path}) == len(
        list((ROOT / "notebooks").glob("[0-9]*.ipynb"))
    )


def test_prose_is_typeset(site):
    """No symbol by its name in code, no hyphen for a minus, no break between a number and its sign."""
    for path in sorted((site / "notebooks").glob("*.html")):
        page = BeautifulSoup(path.read_text(), "html.parser").article
        for code in page.select("pre, code, script, svg, .math"):
            code.decompose()
        assert (
            re.findall(r"\d %|\d x \d|\bFig\. \d|[\s(]-\d\S*|\b[xyz]_hat\b|\b[gh]_[as]\b", page.get_text(" ")) == []
        ), path.name


def test_links_inside_the_book_lead_somewhere(site):
    pages = {path: parsed(path) for path in site.rglob("*.html")}
    anchors = {path: {tag["id"] for tag in text.select("[id]")} for path, text in pages.items()}
    broken = []
    for path, text in pages.items():
        if "_static" in path.parts:
            continue
        for tag in text.select("a[href]"):
            target, anchor = urldefrag(unquote(tag["href"]))
            if ":" in target or tag["href"] == "#":
                continue
            to = (path.parent / target).resolve() if target else path
            if not to.exists() or (anchor and to in anchors and anchor not in anchors[to]):
                broken.append(f"{path.relative_to(site)}: {tag['href']}")
    assert len(pages) >= len(PAGES) and broken == []


def test_pages_and_site_are_light(site):
    """Scripts, styles and fonts are the same for all pages, and loaded once."""
    for path in PAGES:
        page = site / path
        tags = parsed(page).select("img[src], svg image")
        images = {page.parent / (tag.get("src") or tag["href"]) for tag in tags}
        assert page.stat().st_size + sum(image.stat().st_size for image in images) < 1.5e6, path
        assert "_static/codec" not in page.read_text() or path == "book/codec.html"
    sizes = {path: path.stat().st_size for path in site.rglob("*") if path.is_file()}
    weights = sum(size for path, size in sizes.items() if path.parent.name == "codec")  # loaded on a click, one quality
    assert sum(sizes.values()) - weights < 25e6 and sum(sizes.values()) < 60e6
