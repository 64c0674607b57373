"""Every page of the site in a real browser, in both themes and widths: errors, other hosts, axe-core, menus, paper."""

import io
import re

import numpy as np
import pytest
from browsing import PAGES, look, open_page, open_whole
from PIL import Image
from test_drawings import SIZES

from dgml.settings import ROOT

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
    const says_so = box => box.matches('.fades-right, .fades-left') && box.tabIndex === 0
    if (scrolls(e)) return !says_so(e)
    if (e.getBoundingClientRect().right <= innerWidth + 1) return false
    for (let box = e.parentElement; box.tagName !== 'ARTICLE'; box = box.parentElement) if (scrolls(box)) return !says_so(box)
    return true
}).map(e => `cut ${e.tagName} ${e.className} ${e.textContent.slice(0, 40)}`).slice(0, 5)"""
# Words of a drawing that reach beyond it.
CUT_WORDS = """() => [...document.querySelectorAll('svg.drawing text')].filter(word => {
    const whole = word.ownerSVGElement.getBoundingClientRect(), own = word.getBoundingClientRect()
    return Math.max(whole.left - own.left, own.right - whole.right) > 2.5
}).map(word => `cut ${word.textContent}`)"""
INKS = """() => [['article section > p', 'color'], ['figcaption', 'color'], ['.admonition p', 'color'],
    ['svg.drawing text', 'fill']].map(([place, kind]) => getComputedStyle(document.querySelector(place))[kind])"""


@pytest.mark.parametrize("path", PAGES)
def test_a_page_reads_offline_and_is_accessible(path, browser, address):
    page = open_whole(browser, address, path)
    found = page.evaluate("() => [...document.images].filter(i => !i.naturalWidth).map(i => 'empty ' + i.src)")
    found += page.evaluate("() => [...document.images].filter(i => !i.alt).map(i => 'no alt text ' + i.src)")
    for theme in ("light", "dark"):
        for width in (1280, 390):
            look(page, theme, width)
            found += [f"{theme}, {width}: {what}" for what in wrong_in_this_view(page, width)]
    assert page.wrong + found == []
    page.close()


def wrong_in_this_view(page, width: int) -> list[str]:
    from axe_playwright_python.sync_playwright import Axe

    wrong = page.evaluate(STRETCHED)
    if width == 390:
        wrong += page.evaluate(CUT) + page.evaluate(CUT_WORDS)
        wrong += [f"text of {size:.1f} pixels" for size in page.evaluate(SIZES) if size < 11]
    wide = page.evaluate("() => document.documentElement.scrollWidth - innerWidth")
    wrong += [f"{wide} pixels too wide"] if wide > 0 else []
    options = {"preload": False, "resultTypes": ["violations"]}
    for violation in Axe().run(page, options=options).response["violations"]:
        theirs, _ = NOT_OURS.get(violation["id"], ("nothing", ""))
        nodes = [node for node in violation["nodes"] if theirs not in node["html"]]
        wrong += [f"{violation['id']}: {node['target']} {node['html'][:200]}" for node in nodes]
    return wrong


def test_no_theme_changes_a_pixel_of_a_picture(browser, address, site):
    page = open_whole(browser, address, "book/explore.html")
    shown = page.locator("#explore-decoded")
    page.evaluate("""() => {
        const picture = document.querySelector('#explore-decoded'), bare = document.createElement('div')
        picture.removeAttribute('slot'); picture.style.cssText = 'width: 512px; height: 512px; max-width: none'
        bare.style.cssText = 'position: fixed; left: 0; top: 0; z-index: 9999'
        bare.append(picture); document.querySelector('article').append(bare)
    }""")
    with Image.open(site / "_static/explore/run/q3.webp") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    for theme in ("light", "dark"):
        look(page, theme)
        screen = np.asarray(Image.open(io.BytesIO(shown.screenshot())).convert("RGB"))
        assert screen.shape == (512, 512, 3) and np.array_equal(screen, pixels)
    page.close()


def test_the_dark_theme_neither_filters_nor_frames(browser, address):
    for path in ("notebooks/02_prepare_an_image.html", "notebooks/07_decode.html", "book/figures.html"):
        page = open_whole(browser, address, path, "dark")
        styles = page.evaluate("""() => [...document.querySelectorAll('article img, article svg image')].map(i => {
            const s = getComputedStyle(i); return [s.filter, s.padding, s.borderRadius].join(' ') })""")
        assert len(styles) > 0 and set(styles) == {"none 0px 0px"}, (path, set(styles))
        page.close()


def test_the_front_page_compares_and_leads_on(browser, address, site):
    page = open_whole(browser, address, "book/intro.html")
    decoded = page.locator(".explore-front img[slot=second]")
    assert decoded.get_attribute("src").endswith("q3.webp")
    page.locator(".explore-front input").nth(1).check()
    assert decoded.get_attribute("src").endswith("jpeg.jpg")
    sizes = [
        int(n.replace(",", "")) for n in re.findall(r"([\d,]+) bytes,", page.inner_text(".explore-front fieldset"))
    ]
    assert sizes[1] == (site / "_static/explore/run/jpeg.jpg").stat().st_size <= sizes[0] < 20_000
    chapters = len(list((ROOT / "notebooks").glob("[0-9]*.ipynb")))
    assert page.locator("ul.cards li").count() == chapters
    page.locator("ul.cards a").first.click()
    page.wait_for_url("**/01_load_the_codec.html")
    page.close()


def test_on_paper_answers_are_open_and_the_title_has_its_number(browser, address):
    page = open_whole(browser, address, "notebooks/03_the_forward_pass.html")
    for theme in ("light", "dark"):
        look(page, theme)
        page.emulate_media(media="print")
        look_at_paper(page, theme)
        page.emulate_media(media="screen")
    page.close()


def look_at_paper(page, theme: str) -> None:
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


@pytest.mark.parametrize("keyboard", [False, True], ids=["click", "keyboard"])
@pytest.mark.parametrize("width", [390, 768, 1024, 1280])
def test_menu_and_contents_lead_to_a_page(width, keyboard, browser, address):
    theme = "dark" if keyboard else "light"
    page = open_whole(browser, address, "notebooks/01_load_the_codec.html", theme, width)
    reach(page, ".secondary-toggle", "#pst-secondary-sidebar-modal", ".page-toc a[href='#summary']", keyboard)
    page.wait_for_url("**/01_load_the_codec.html#summary", timeout=10_000)
    page.wait_for_selector("#pst-secondary-sidebar-modal", state="hidden", timeout=10_000)  # it lay over the page
    page.goto(f"{address}/notebooks/01_load_the_codec.html", wait_until="load")
    reach(page, ".primary-toggle", "#pst-primary-sidebar-modal", ".bd-sidenav a[href^='03_']", keyboard)
    page.wait_for_url("**/03_the_forward_pass.html", timeout=10_000)
    page.close()


def test_a_corrupted_page_is_noticed(browser, address, site):
    """What the test above holds to be good must not be what it can't see."""
    page = (site / "book/notation.html").read_text()
    corrupted = '<img src="none.png"/><script src="https://example.org/x.js"></script><script>nothing()</script>'
    (site / "book/corrupted.html").write_text(page.replace("</article>", corrupted + "</article>"))
    try:
        page = open_whole(browser, address, "book/corrupted.html")
    finally:
        (site / "book/corrupted.html").unlink()
    assert any("404" in what and "none.png" in what for what in page.wrong)
    assert any("asks https://example.org" in what for what in page.wrong)
    assert any("nothing is not defined" in what for what in page.wrong)
    page.close()


@pytest.mark.parametrize("term", ["hyperprior", "wavefront", "BD-rate", "mask", "attention", "straight-through"])
def test_search_finds_the_terms(term, browser, address):
    page = open_page(browser, address, f"search.html?q={term}")
    page.wait_for_selector("ul.search li a", timeout=20_000)
    assert page.locator("ul.search li a").count() > 0
    page.wait_for_function("() => document.querySelectorAll('ul.search p.context').length > 0")
    page.wait_for_load_state("networkidle")
    quoted = page.locator("ul.search p.context").all_inner_texts()
    buttons = ("Open issue", "Repository", ".ipynb", "Contents", "xgₐ")
    assert quoted and [text for text in quoted if any(word in text for word in buttons)] == []
    page.close()


def test_an_edge_fades_no_further_than_what_it_hides(browser, address):
    page = open_whole(browser, address, "book/notation.html", width=390)
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


def test_the_notation_fits_a_phone(browser, address):
    page = open_whole(browser, address, "book/notation.html", width=390)
    table = page.locator(".notation table")
    assert table.evaluate("t => Math.max(t.scrollWidth, t.getBoundingClientRect().right)") <= 390
    assert table.locator("td:visible").count() > 60
    page.close()
