"""Take from the built pages what readers do not need: the theme's icon script of 1.5 MB, and Thebe, which no page uses.

The icons that pages show are masks in ``_static/icons.css``, cut from that script (Font Awesome Free, CC BY 4.0).
"""

import re
from pathlib import Path

from bs4 import BeautifulSoup

ICON = re.compile(r"\bfa-([a-z-]+)")
# The theme's own scripts put this one into a page.
ALWAYS = {"xmark"}


def page(text: BeautifulSoup) -> None:
    """Drop the scripts, and ask for the icons' style sheet."""
    for script in text.select("script"):
        if re.search("fontawesome|thebe", script.get("src", "") + script.text, re.I):
            script.decompose()
    for link in text.select("link[rel=stylesheet][href*=thebe]"):
        link.decompose()
    custom = text.select_one("link[rel=stylesheet][href*='custom.css']")
    if custom:
        custom.insert_before(
            text.new_tag("link", rel="stylesheet", href=re.sub(r"custom\.css.*", "icons.css", custom["href"]))
        )


def site(folder: Path) -> None:
    """Write the icons that the pages name, and remove the script and its fonts."""
    script = folder / "_static/scripts/fontawesome.js"
    if not script.exists():
        return
    names = set(ALWAYS)
    for path in folder.rglob("*.html"):
        names |= {
            name
            for classes in re.findall(r'class="([^"]*)"', path.read_text(encoding="utf-8"))
            for name in ICON.findall(classes)
        }
    (folder / "_static/icons.css").write_text(icons(script.read_text(encoding="utf-8"), names), encoding="utf-8")
    for path in (*folder.glob("_static/scripts/fontawesome.*"), *folder.glob("_static/vendor/fontawesome/webfonts/*")):
        path.unlink()
    for path in (folder / "_static").rglob("*.map"):
        path.unlink()


def icons(script: str, names: set[str]) -> str:
    """A style sheet that draws each icon in the colour of the text around it."""
    rules = [
        "/* Icons: Font Awesome Free by @fontawesome, https://fontawesome.com, CC BY 4.0. */",
        ".fas,.fab,.fa-solid,.fa-brands{display:inline-block;width:1.1em;height:1em;vertical-align:-.125em;"
        "background:currentColor;-webkit-mask:var(--icon) center/contain no-repeat;mask:var(--icon) center/contain no-repeat}",
        ".fas::before,.fab::before,.fa-solid::before,.fa-brands::before{content:none!important}",
        ".fa-lg{font-size:1.2em}",
        "a.github::before,a.gitlab::before{content:none!important}",  # the theme's sign, from a font that is not shipped
    ]
    for name in sorted(names):
        # Solid icons come after brands and outlines, where one name has several.
        found = re.findall(rf'[{{,]"?{re.escape(name)}"?:\[(\d+),(\d+),\[[^]]*\],"\w+","([^"]+)"', script)
        if found:
            width, height, path = found[-1]
            drawing = f"%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}'%3E%3Cpath d='{path}'/%3E%3C/svg%3E"
            rules.append(f'.fa-{name}{{--icon:url("data:image/svg+xml,{drawing}")}}')
    return "\n".join(rules) + "\n"
