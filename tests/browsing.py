"""Pages of the built site, opened in a real browser that keeps what goes wrong on them."""

from dgml.settings import ROOT

PAGES = [f"notebooks/{path.stem}.html" for path in sorted((ROOT / "notebooks").glob("*.ipynb"))]
PAGES += [f"book/{path.stem}.html" for path in sorted((ROOT / "book").glob("*.md"))] + ["search.html", "genindex.html"]
THEMES_OWN = "Got invalid theme mode: . Resetting to auto."  # the theme says so at the first visit to a host
# After a change of theme or width: ends transitions, and lets the page notice and move its boxes.
SETTLE = """async () => {
    for (let i = 0; i < 3; i++) {
        await new Promise(requestAnimationFrame)
        for (const a of document.getAnimations()) if (isFinite(a.effect.getComputedTiming().endTime)) a.finish()
    }
}"""


def open_page(browser, address: str, path: str, script: str = "", **options):
    """The page, loaded with every other host out of reach; ``page.asked`` has all requests, ``page.wrong`` all errors.

    ``script`` runs before the page's own; the options are those of Playwright's ``new_page``.
    """
    page = browser.new_page(**({"viewport": {"width": 1280, "height": 900}} | options))
    page.set_default_timeout(180_000)  # a busy machine is no fault of the page
    page.asked, page.wrong = [], []

    def other_host(route):
        page.wrong.append(f"asks {route.request.url}")
        route.abort()

    def console(message):
        if message.type == "error" and not message.text.startswith(THEMES_OWN):
            page.wrong.append(message.text)

    page.on("console", console)
    page.on("pageerror", lambda error: page.wrong.append(str(error)))
    page.on("request", lambda request: page.asked.append(request.url))
    page.on("requestfailed", lambda request: page.wrong.append(f"failed {request.url}"))
    page.on("response", lambda r: page.wrong.append(f"{r.status} {r.url}") if r.status >= 400 else None)
    page.route(lambda url: not url.startswith((address, "data:", "blob:")), other_host)
    page.add_init_script(script)
    page.goto(f"{address}/{path}", wait_until="load")
    return page


def open_whole(browser, address: str, path: str, theme: str = "light", width: int = 1280):
    """The same, loaded to its end: pictures that would come late, and formulas."""
    page = open_page(browser, address, path, viewport={"width": width, "height": 900}, color_scheme=theme)
    page.evaluate("() => { for (const image of document.images) image.loading = 'eager' }")
    page.wait_for_function("() => [...document.images].every(image => image.complete)")
    if page.locator(".math").count():
        page.wait_for_function(
            "() => [...document.querySelectorAll('.math')].every(m => m.querySelector('mjx-container'))"
        )
    return page


def look(page, theme: str, width: int = 1280) -> None:
    """Show a loaded page in a theme and a width, as a reader does who changes the system's theme or turns the phone."""
    page.emulate_media(color_scheme=theme)
    page.set_viewport_size({"width": width, "height": 900})
    page.wait_for_function("theme => document.documentElement.dataset.theme === theme", arg=theme)
    page.evaluate(SETTLE)
