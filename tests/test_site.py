"""The built site: what tools/light.py makes of it, and every page in a real browser, in both themes and widths."""

import io
import os
import re
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote, urldefrag

import nbformat
import numpy as np
import pytest
from bs4 import BeautifulSoup
from drawings import PAPER
from gallery import turned
from light import lighten
from PIL import Image
from test_drawings import SIZES

from dgml.settings import ROOT


def test_a_built_site_becomes_lighter_and_shows_the_same(tmp_path):
    pixels = np.random.default_rng(0).integers(256, size=(30, 40, 3), dtype=np.uint8)
    for folder in (
        "_images",
        "_sources",
        "notebooks",
        "_static/mathjax/output/chtml/fonts",
        "_static/mathjax/output/svg",
    ):
        (tmp_path / folder).mkdir(parents=True)
    Image.fromarray(pixels).save(tmp_path / "_images/figure.png")
    (tmp_path / "_static/scripts").mkdir()
    (tmp_path / "_static/scripts/fontawesome.js").write_text(
        'x={bars:[448,512,["navicon"],"f0c9","M0 96"],xmark:[1,1,[],"f00d","M1"]}'
    )
    for script in ("tex-chtml.js", "tex-svg.js", "output/chtml/fonts/a.woff", "output/svg/b.js"):
        (tmp_path / "_static/mathjax" / script).write_text("x")
    nbformat.write(run_notebook(), tmp_path / "_sources/page.ipynb")
    page = tmp_path / "notebooks/page.html"
    source = '<link rel="stylesheet" href="../_static/custom.css?v=1"/><script src="../_static/scripts/fontawesome.js"></script><i class="fa-solid fa-bars"></i>'
    source += '<code class="literal"><span class="pre">results/&lt;set&gt;_bundled.json</span></code>'
    source += '<p>a &lt; b</p><img alt="A figure." src="../_images/figure.png"/><img src="../_static/logo.png"/>'
    page.write_text(source)

    lighten(SimpleNamespace(builder=SimpleNamespace(name="html"), outdir=tmp_path), None)

    with Image.open(tmp_path / "_images/figure.webp") as picture:
        assert np.array_equal(np.asarray(picture), pixels)
    assert not (tmp_path / "_images/figure.png").exists()
    text = page.read_text()
    assert 'src="../_images/figure.webp"' in text and 'width="40"' in text and 'height="30"' in text
    assert 'loading="lazy"' in text and "a &lt; b" in text and 'src="../_static/logo.png"' in text
    assert "results/&lt;set&gt;_<wbr/>bundled.<wbr/>json<" in text
    icons = (tmp_path / "_static/icons.css").read_text()
    assert "fontawesome" not in text and "../_static/icons.css" in text and not list(tmp_path.rglob("fontawesome.js"))
    assert ".fa-bars{" in icons and "M0 96" in icons and ".fa-xmark{" in icons
    left = {path.name for path in (tmp_path / "_static/mathjax").rglob("*") if path.is_file()}
    assert left == {"tex-chtml.js", "a.woff"}
    (cell,) = nbformat.read(tmp_path / "_sources/page.ipynb", as_version=4).cells
    assert cell.source == "print(1)" and cell.outputs == [] and cell.execution_count is None


def run_notebook():
    v4 = nbformat.v4
    return v4.new_notebook(
        cells=[v4.new_code_cell("print(1)", execution_count=1, outputs=[v4.new_output("stream", text="1")])]
    )


def test_a_small_figure_goes_dark_around_its_pictures():
    figure = Image.new("RGB", (80, 40), "white")
    figure.paste((200, 0, 0), (30, 20, 60, 25))  # half of it inside of the picture
    svg = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 40 20"><image transform="matrix(5 0 0 5 5 5)" width="3" height="2"/></svg>'
    dark = turned(figure, svg)
    assert dark.getpixel((0, 0)) == dark.getpixel((79, 39)) == PAPER
    assert dark.getpixel((15, 12)) == (255, 255, 255) and dark.getpixel((35, 22)) == (200, 0, 0)
    red, *others = dark.getpixel((50, 22))
    assert red > 200 and max(others) < 80


def test_a_failed_build_is_left_as_it_is(tmp_path):
    (tmp_path / "_images").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "_images/figure.png")
    lighten(SimpleNamespace(builder=SimpleNamespace(name="html"), outdir=tmp_path), ValueError("broken"))
    assert (tmp_path / "_images/figure.png").exists()


# ---------------------------------------------------------------- the whole site

NAMES = r"(?<![\w.])(?:[xyz]_hat|[gh]_[as])(?!\w)"
PAGES = [f"notebooks/{path.stem}.html" for path in sorted((ROOT / "notebooks").glob("*.ipynb"))]
PAGES += [f"book/{path.stem}.html" for path in sorted((ROOT / "book").glob("*.md"))] + ["search.html", "genindex.html"]
VIEWS = [(theme, width) for theme in ("light", "dark") for width in (1280, 390)]
NOT_OURS = {  # rule of axe-core: (what it may find, whose it is)
    "region": ("sidebar-primary-item", "the theme puts the book's title outside of every landmark"),
    "aria-allowed-role": ("doc-biblioentry", "docutils marks references so"),
    "aria-deprecated-role": ("doc-biblioentry", "docutils marks references so"),
    "aria-required-children": ("citation-list", "docutils marks the list of references so"),
    "empty-table-header": ("<th></th>", "pandas leaves the corner of a table with a named index empty"),
}
STRETCHED = """() => [...document.querySelectorAll('article img')].filter(i => {
    if (getComputedStyle(i).objectFit !== 'fill') return false
    // The dark theme sets a frame of padding around a picture.
    const s = getComputedStyle(i), n = side => parseFloat(s['padding' + side])
    const width = i.clientWidth - n('Left') - n('Right'), height = i.clientHeight - n('Top') - n('Bottom')
    return Math.abs(width / height / (i.naturalWidth / i.naturalHeight) - 1) > 0.03
}).map(i => `stretched ${i.src}`)"""
# What is wider than a phone lies in a box that scrolls, and that says so.
CUT = """() => [...document.querySelectorAll('article *')].filter(e => {
    if (e.closest('svg, mjx-container *, .visually-hidden') || !e.getClientRects().length) return false
    const scrolls = box => /auto|scroll/.test(getComputedStyle(box).overflowX) && box.scrollWidth > box.clientWidth + 1
    const told = box => box.matches('.fades-right, .fades-left') && box.tabIndex === 0
    if (scrolls(e)) return !told(e)
    if (e.getBoundingClientRect().right <= innerWidth + 1) return false
    for (let box = e.parentElement; box.tagName !== 'ARTICLE'; box = box.parentElement) if (scrolls(box)) return !told(box)
    return true
}).map(e => `cut ${e.tagName} ${e.className} ${e.textContent.slice(0, 40)}`).slice(0, 5)"""
# Words of a drawing that reach beyond it.
CUT_WORDS = """() => [...document.querySelectorAll('svg.drawing text')].filter(word => {
    const whole = word.ownerSVGElement.getBoundingClientRect(), own = word.getBoundingClientRect()
    return Math.max(whole.left - own.left, own.right - whole.right) > 2.5
}).map(word => `cut ${word.textContent}`)"""
INKS = """() => [['article section > p', 'color'], ['figcaption', 'color'], ['.admonition p', 'color'],
    ['svg.drawing text', 'fill']].map(([place, kind]) => getComputedStyle(document.querySelector(place))[kind])"""
THEME_ERRORS = (
    "Got invalid theme mode: . Resetting to auto.",  # the theme's first visit to a host
)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The book, built strictly from the outputs that the notebooks carry; or the folder that DGML_SITE names."""
    if os.environ.get("DGML_SITE"):
        return Path(os.environ["DGML_SITE"]).resolve()
    folder = tmp_path_factory.mktemp("book") / "tree"
    ignored = shutil.ignore_patterns(
        ".git", ".venv", "_build", "runs", "*.part", "__pycache__", ".pytest_cache", ".ruff_cache"
    )
    shutil.copytree(ROOT, folder, ignore=ignored)
    config = (folder / "_config.yml").read_text()
    assert "execute_notebooks: force" in config
    (folder / "_config.yml").write_text(config.replace("execute_notebooks: force", 'execute_notebooks: "off"'))
    command = [Path(sys.executable).with_name("jupyter-book"), "build", folder, "-W", "-n", "--keep-going"]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout[-2000:] + built.stderr[-2000:]
    return folder / "_build" / "html"


@pytest.fixture(scope="module")
def address(site, serve):
    """The site under an address of this machine."""
    return serve(site)


def open_page(browser, address: str, path: str, theme: str = "light", width: int = 1280):
    """The page, loaded to its end with every other host out of reach, and a list that keeps what goes wrong."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=theme)
    page.set_default_timeout(120_000)  # a busy machine is no fault of the page
    wrong = []

    def stranger(route):
        wrong.append(f"asks {route.request.url}")
        route.abort()

    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("requestfailed", lambda request: wrong.append(f"failed {request.url}"))
    page.on(
        "response",
        lambda response: wrong.append(f"{response.status} {response.url}") if response.status >= 400 else None,
    )
    page.route(lambda url: not url.startswith((address, "data:", "blob:")), stranger)
    page.goto(f"{address}/{path}", wait_until="load")
    page.evaluate("() => { for (const image of document.images) image.loading = 'eager' }")
    page.wait_for_function("() => [...document.images].every(image => image.complete)")
    if page.locator(".math").count():
        page.wait_for_function(
            "() => [...document.querySelectorAll('.math')].every(m => m.querySelector('mjx-container'))"
        )
    return page, wrong


@pytest.mark.xdist_group("site")
@pytest.mark.parametrize("path", PAGES)
def test_a_page_reads_offline_and_is_accessible(path, browser, address):
    from axe_playwright_python.sync_playwright import Axe

    found = []
    for theme, width in VIEWS:
        page, wrong = open_page(browser, address, path, theme, width)
        wrong += page.evaluate("() => [...document.images].filter(i => !i.naturalWidth).map(i => 'empty ' + i.src)")
        wrong += page.evaluate("() => [...document.images].filter(i => !i.alt).map(i => 'no alt text ' + i.src)")
        wrong += page.evaluate(STRETCHED)
        if width == 390:
            wrong += page.evaluate(CUT) + page.evaluate(CUT_WORDS)
            wrong += [f"text of {size:.1f} pixels" for size in page.evaluate(SIZES) if size < 11]
        wide = page.evaluate("() => document.documentElement.scrollWidth - innerWidth")
        wrong += [f"{wide} pixels too wide"] if wide > 0 else []
        for violation in Axe().run(page, options={"preload": False}).response["violations"]:
            theirs, _ = NOT_OURS.get(violation["id"], ("nothing", ""))
            nodes = [node for node in violation["nodes"] if theirs not in node["html"]]
            wrong += [f"{violation['id']}: {node['target']} {node['html'][:200]}" for node in nodes]
        wrong = [what for what in wrong if not what.startswith(THEME_ERRORS)]
        found += [f"{theme}, {width}: {what}" for what in wrong]
        page.close()
    assert found == []


@pytest.mark.xdist_group("site")
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_theme_changes_a_pixel_of_a_picture(theme, browser, address, site):
    page, _ = open_page(browser, address, "book/explore.html", theme)
    shown = page.locator("#explore-decoded")
    page.evaluate("""() => {
        const picture = document.querySelector('#explore-decoded'), bare = document.createElement('div')
        picture.removeAttribute('slot'); picture.style.cssText = 'width: 512px; height: 512px; max-width: none'
        bare.style.cssText = 'position: fixed; left: 0; top: 0; z-index: 9999'
        bare.append(picture); document.querySelector('article').append(bare)
    }""")
    screen = np.asarray(Image.open(io.BytesIO(shown.screenshot())).convert("RGB"))
    with Image.open(site / "_static/explore/run/q3.webp") as picture:
        assert screen.shape == (512, 512, 3) and np.array_equal(screen, np.asarray(picture.convert("RGB")))
    page.close()


@pytest.mark.xdist_group("site")
def test_the_dark_theme_neither_filters_nor_frames(browser, address):
    for path in ("notebooks/02_prepare_an_image.html", "notebooks/07_decode.html", "book/figures.html"):
        page, _ = open_page(browser, address, path, "dark")
        styles = page.evaluate("""() => [...document.querySelectorAll('article img, article svg image')].map(i => {
            const s = getComputedStyle(i); return [s.filter, s.padding, s.borderRadius].join(' ') })""")
        assert len(styles) > 0 and set(styles) == {"none 0px 0px"}, (path, set(styles))
        page.close()


@pytest.mark.xdist_group("site")
def test_the_front_page_compares_and_leads_on(browser, address, site):
    page, _ = open_page(browser, address, "book/intro.html")
    decoded = page.locator(".explore-front img[slot=second]")
    assert decoded.get_attribute("src").endswith("q3.webp")
    page.locator(".explore-front input").nth(1).check()
    assert decoded.get_attribute("src").endswith("jpeg.jpg")
    told = [int(n.replace(",", "")) for n in re.findall(r"([\d,]+) bytes,", page.inner_text(".explore-front fieldset"))]
    assert told[1] == (site / "_static/explore/run/jpeg.jpg").stat().st_size <= told[0] < 20_000
    chapters = len(list((ROOT / "notebooks").glob("[0-9]*.ipynb")))
    assert page.locator("ul.cards li").count() == chapters
    page.locator("ul.cards a").first.click()
    page.wait_for_url("**/01_load_the_codec.html")
    page.close()


@pytest.mark.xdist_group("site")
def test_each_figure_is_shown_where_all_are_listed(site):
    text = BeautifulSoup((site / "book/figures.html").read_text(), "html.parser")
    entries = text.select("article a.reference[href*='#fig-']:not([aria-hidden])")
    shown = {tag["src"] for tag in text.select("article .small-figure img:not(.only-dark)")}
    assert len(entries) > 40 and len(shown) == len(entries) - 1  # the journey of the front page is no notebook's
    assert all((site / "book" / src).resolve().exists() for src in shown)


@pytest.mark.xdist_group("site")
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


@pytest.mark.xdist_group("site")
def test_references_are_labelled_by_author_and_year(site):
    text = BeautifulSoup((site / "book/references.html").read_text(), "html.parser")
    labels = [tag.get_text().strip("[]") for tag in text.select(".citation .label")]
    assert len(labels) > 10 and all(re.fullmatch(r"[^\\{}]+, \d{4}[a-h]?", label) for label in labels)
    assert "Ballé et al., 2018" in labels
    plain = [unicodedata.normalize("NFKD", label).encode("ascii", "ignore").decode().lower() for label in labels]
    assert plain == sorted(plain, key=lambda label: label.rsplit(", ", 1))
    assert len(text.select(".citation a[href^='https://doi.org/']")) > 10


@pytest.mark.xdist_group("site")
def test_pages_say_what_they_are(site):
    said = {}
    for path in [*PAGES, "index.html"]:
        head = BeautifulSoup((site / path).read_text(), "html.parser").head
        metas = {tag.get("property") or tag.get("name"): tag["content"] for tag in head.select("meta[content]")}
        assert metas["og:image"].endswith("/_static/explore/run/share.jpg") and metas["og:title"]
        assert "favicon" in str(head) or path == "index.html"
        said[path] = metas["description"]
    assert said["index.html"] == said["book/intro.html"]
    assert (site / "_static/explore/run/share.jpg").exists() and all(len(text) > 20 for text in said.values())
    assert len({text for path, text in said.items() if "notebooks" in path}) == len(
        list((ROOT / "notebooks").glob("[0-9]*.ipynb"))
    )


@pytest.mark.xdist_group("site")
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_on_paper_answers_are_open_and_the_title_has_its_number(theme, browser, address):
    page, _ = open_page(browser, address, "notebooks/03_the_forward_pass.html", theme)
    page.emulate_media(media="print")
    page.evaluate("() => dispatchEvent(new Event('beforeprint'))")
    assert page.locator("article h1").is_visible() and page.inner_text("article h1").startswith("3.")
    answers = page.locator("article details:not(.hide)")
    assert answers.count() >= 3 and all(answers.nth(i).locator("p").first.is_visible() for i in range(answers.count()))
    assert not page.locator("#jb-print-docs-body").is_visible() and not page.locator(".bd-sidebar-primary").is_visible()
    inks = page.evaluate(INKS)
    assert len(inks) == 4 and all(max(map(int, re.findall(r"\d+", ink)[:3])) < 130 for ink in inks), "dark on white"
    page.evaluate("() => dispatchEvent(new Event('afterprint'))")
    assert page.evaluate("() => document.documentElement.dataset.theme") == theme
    assert page.locator("article details[open]:not(.hide)").count() == 0
    page.close()


def reach(page, opener: str, closed: str, link: str, keyboard: bool) -> None:
    """Follow ``link``, a CSS selector; behind a shut dialog press ``opener`` first. By click, or by keys alone."""
    if not page.locator(link).first.is_visible():
        button = page.locator(f"{opener}:visible").first
        button.focus() if keyboard else button.click()
        if keyboard:
            page.keyboard.press("Enter")
        page.wait_for_selector(f"{closed}[open]", timeout=5_000)
    target = page.locator(link).first
    if not keyboard:
        return target.click()
    for _ in range(300):
        if page.evaluate("link => document.activeElement === document.querySelector(link)", link):
            return page.keyboard.press("Enter")
        page.keyboard.press("Tab")
    raise AssertionError(f"no Tab leads to {link}")


@pytest.mark.xdist_group("site")
@pytest.mark.parametrize("keyboard", [False, True], ids=["click", "keyboard"])
@pytest.mark.parametrize("width", [390, 768, 1024, 1280])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_menu_and_contents_lead_to_a_page(theme, width, keyboard, browser, address):
    page, _ = open_page(browser, address, "notebooks/01_load_the_codec.html", theme, width)
    reach(page, ".secondary-toggle", "#pst-secondary-sidebar-modal", ".page-toc a[href='#summary']", keyboard)
    page.wait_for_url("**/01_load_the_codec.html#summary", timeout=10_000)
    page.wait_for_selector("#pst-secondary-sidebar-modal", state="hidden", timeout=10_000)  # it lay over the page
    page.goto(f"{address}/notebooks/01_load_the_codec.html", wait_until="load")
    reach(page, ".primary-toggle", "#pst-primary-sidebar-modal", ".bd-sidenav a[href^='03_']", keyboard)
    page.wait_for_url("**/03_the_forward_pass.html", timeout=10_000)
    page.close()


@pytest.mark.xdist_group("site")
def test_prose_is_typeset(site):
    """No symbol by its name in code, no hyphen for a minus, no break between a number and its sign."""
    for path in sorted((site / "notebooks").glob("*.html")):
        page = BeautifulSoup(path.read_text(), "html.parser").article
        for code in page.select("pre, code, script, svg, .math"):
            code.decompose()
        assert (
            re.findall(r"\d %|\d x \d|\bFig\. \d|[\s(]-\d\S*|\b[xyz]_hat\b|\b[gh]_[as]\b", page.get_text(" ")) == []
        ), path.name


@pytest.mark.xdist_group("site")
def test_a_spoiled_page_is_noticed(browser, address, site):
    """What the test above holds to be good must not be what it can't see."""
    page = (site / "book/notation.html").read_text()
    spoiled = '<img src="none.png"/><script src="https://example.org/x.js"></script><script>nothing()</script>'
    (site / "book/spoiled.html").write_text(page.replace("</article>", spoiled + "</article>"))
    try:
        page, wrong = open_page(browser, address, "book/spoiled.html")
    finally:
        (site / "book/spoiled.html").unlink()
    assert any("404" in what and "none.png" in what for what in wrong)
    assert any("asks https://example.org" in what for what in wrong)
    assert any("nothing is not defined" in what for what in wrong)
    page.close()


@pytest.mark.xdist_group("site")
@pytest.mark.parametrize("term", ["hyperprior", "wavefront", "BD-rate", "mask", "attention", "straight-through"])
def test_search_finds_the_terms(term, browser, address):
    page, _ = open_page(browser, address, f"search.html?q={term}")
    page.wait_for_selector("ul.search li a", timeout=20_000)
    assert page.locator("ul.search li a").count() > 0
    page.wait_for_function("() => document.querySelectorAll('ul.search p.context').length > 0")
    page.wait_for_load_state("networkidle")
    quoted = page.locator("ul.search p.context").all_inner_texts()
    buttons = ("Open issue", "Repository", ".ipynb", "Contents", "xgₐ")
    assert quoted and [text for text in quoted if any(word in text for word in buttons)] == []
    page.close()


@pytest.mark.xdist_group("site")
def test_an_edge_fades_no_further_than_what_it_hides(browser, address):
    page, _ = open_page(browser, address, "book/notation.html", width=390)
    page.evaluate("""() => {
        const box = document.createElement('pre')
        box.innerHTML = '<div style="height: 1px">&nbsp;</div>'; box.id = 'scrolls'; box.style.overflowX = 'auto'
        document.querySelector('article').append(box)
        box.firstChild.style.width = `${box.clientWidth + 4}px`
    }""")
    page.wait_for_selector("#scrolls.fades-right")
    hidden = page.evaluate(
        "() => { const b = document.querySelector('#scrolls'); return b.scrollWidth - b.clientWidth }"
    )
    width = page.evaluate("() => document.querySelector('#scrolls').style.getPropertyValue('--right')")
    assert 0 < hidden < 40 and width == f"{hidden}px"
    page.close()


@pytest.mark.xdist_group("site")
def test_the_notation_fits_a_phone(browser, address):
    page, _ = open_page(browser, address, "book/notation.html", width=390)
    table = page.locator(".notation table")
    assert table.evaluate("t => Math.max(t.scrollWidth, t.getBoundingClientRect().right)") <= 390
    assert table.locator("td:visible").count() > 60
    page.close()


@pytest.mark.xdist_group("site")
def test_links_inside_the_book_lead_somewhere(site):
    pages = {path: BeautifulSoup(path.read_text(), "html.parser") for path in site.rglob("*.html")}
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


@pytest.mark.xdist_group("site")
def test_pages_and_site_are_light(site):
    """Scripts, styles and fonts are the same for all pages, and loaded once."""
    for path in PAGES:
        page = site / path
        tags = BeautifulSoup(page.read_text(), "html.parser").select("img[src], svg image")
        images = {page.parent / (tag.get("src") or tag["href"]) for tag in tags}
        assert page.stat().st_size + sum(image.stat().st_size for image in images) < 1.5e6, path
        assert "_static/codec" not in page.read_text() or path == "book/codec.html"
    sizes = {path: path.stat().st_size for path in site.rglob("*") if path.is_file()}
    weights = sum(size for path, size in sizes.items() if path.parent.name == "codec")  # loaded on a click, one quality
    assert sum(sizes.values()) - weights < 25e6 and sum(sizes.values()) < 60e6
