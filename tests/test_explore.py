"""The page whose pieces are touched, driven in a real browser, opened as a file like a reader's copy."""

import re

import pytest
from browsing import open_page


@pytest.fixture
def page(site, browser):
    """The page, loaded; afterwards nothing may have gone wrong on it, and the pieces have asked no other host."""
    page = open_page(browser, site.as_uri(), "book/explore.html", viewport={"width": 390, "height": 900})
    page.wait_for_selector("#explore-wavefront.live")
    yield page
    assert page.wrong == [] and any("_static/explore/run" in url for url in page.asked)
    page.close()


def table(page) -> dict[str, list[str]]:
    rows = page.locator("#explore-codec tbody tr").all()
    return {row.get_attribute("data-quality"): row.locator("td").all_inner_texts() for row in rows}


def shown(page) -> tuple[str, ...]:
    """The quality of the decoded picture and of the map, and what the page says of them."""
    sources = (page.locator(f"#explore-{name}").get_attribute("src") for name in ("decoded", "bits"))
    return (*(re.search(r"(\d)\.\w+$", source)[1] for source in sources), page.inner_text("#explore-chosen"))


def is_chosen(page, quality: str) -> bool:
    numbers = table(page)[quality]
    decoded, bits, text = shown(page)
    drawn = page.evaluate("img => img.decode().then(() => img.naturalWidth)", page.query_selector("#explore-decoded"))
    return decoded == bits == quality and all(n in text for n in numbers) and f"Quality {quality}" in text and drawn > 0


def test_the_table_lists_real_files(page):
    rows = table(page)
    assert list(rows) == list("123456")
    sizes = [int(row[0].replace(",", "")) for row in rows.values()]
    rates = [float(row[1]) for row in rows.values()]
    assert sizes == sorted(sizes) and [float(row[2]) for row in rows.values()] == sorted(
        float(r[2]) for r in rows.values()
    )
    assert all(abs(8 * size / 512**2 - rate) < 1e-3 for size, rate in zip(sizes, rates))


def test_a_row_chooses_the_picture_the_map_and_the_numbers(page):
    assert is_chosen(page, "3")
    page.check("input[value='6']")
    assert is_chosen(page, "6")


def test_the_keyboard_alone_chooses(page):
    page.focus("input[value='3']")
    page.keyboard.press("ArrowDown")
    assert is_chosen(page, "4")


def test_a_point_of_the_staircase_chooses(page):
    page.locator(".point[data-quality='1'] .reach").click()
    assert is_chosen(page, "1") and page.is_checked("input[value='1']")
    page.keyboard.press("ArrowRight")
    assert is_chosen(page, "2")
    assert page.locator(".point[aria-pressed='true']").get_attribute("data-quality") == "2"


def test_arrow_keys_move_the_border_of_the_slider(page):
    slider = page.locator("img-comparison-slider")
    slider.focus()
    before = page.evaluate("s => s.value", slider.element_handle())
    page.keyboard.down("ArrowRight")
    page.wait_for_function("([s, before]) => s.value > before + 2", arg=[slider.element_handle(), before])
    page.keyboard.up("ArrowRight")


def positions(page, name: str) -> set[tuple[int, int]]:
    cells = page.locator(f"#explore-wavefront td.{name}").all()
    return {(int(cell.get_attribute("data-h")), int(cell.get_attribute("data-w"))) for cell in cells}


def test_each_step_decodes_w_plus_3h_and_reads_only_what_is_done(page):
    every = [(h, w) for h in range(6) for w in range(10)]
    for t in range(25):
        assert positions(page, "now") == {(h, w) for h, w in every if w + 3 * h == t}
        done = positions(page, "done")
        assert done == {(h, w) for h, w in every if w + 3 * h < t}
        ((h, w),) = positions(page, "focused")
        taps = {(h + i, w + j) for i in (-2, -1, 0) for j in range(-2, 3) if (i, j) < (0, 0)}
        assert positions(page, "read") == taps & set(every) <= done
        page.click("button[name=next]")
    page.click("button[name=previous]")
    assert positions(page, "now") == {(5, 8)}
    page.locator("#explore-wavefront input").fill("4")
    assert positions(page, "now") == {(0, 4), (1, 1)}
    page.click("button[name=play]")
    page.wait_for_function("document.querySelector('#explore-wavefront input').value > 5")


def test_without_scripts_the_page_shows_pictures_and_numbers(site, browser):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{site.as_uri()}/book/explore.html", wait_until="load")
    assert len(table(page)) == 6 and "Quality 3" in page.inner_text("#explore-chosen")
    for name in ("original", "decoded", "bits"):
        assert page.locator(f"#explore-{name}").is_visible()
    assert not page.locator("input[name=quality]").first.is_visible()
    assert page.locator("#explore-staircase").is_visible() and page.locator(".wavefront td").count() == 60
    context.close()
