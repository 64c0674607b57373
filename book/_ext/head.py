"""What a page says of itself to search engines and to those who are sent its address; a Sphinx extension."""

import re
from html import escape
from pathlib import Path

from bs4 import BeautifulSoup
from chapters import chapters
from docutils import nodes
from sphinx.application import Sphinx

BOOK = "A learned image codec, opened: from a photograph to a file of a few kilobytes and back, in notebooks that run."

INDEX = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta http-equiv="refresh" content="0; url={first}"><link rel="canonical" href="{address}/{first}">
{said}
</head><body><a href="{first}">{title}</a></body></html>
"""


def add_tags(app: Sphinx, pagename: str, templatename: str, context: dict, doctree) -> None:
    """Description and Open Graph tags; the picture needs the site's address, ``html_baseurl``."""
    title = re.sub("<[^>]+>", "", context.get("title") or app.config.html_title)
    address = app.config.html_baseurl.rstrip("/")
    tags = {
        "og:title": title, "og:type": "article", "og:site_name": app.config.html_title or app.config.project,
        "og:description": description_of(pagename, doctree), "og:image": f"{address}/_static/explore/run/share.jpg",
        "og:image:alt": "A face three times: the photograph, the codec's file, a JPEG of as many bytes.",
        "og:image:width": "1200", "og:image:height": "630", "og:url": f"{address}/{pagename}.html",
    }  # fmt: skip
    lines = [f'<meta name="description" content="{escape(tags["og:description"])}">']
    lines += [f'<meta property="{key}" content="{escape(value)}">' for key, value in tags.items()]
    lines += ['<meta name="twitter:card" content="summary_large_image">']
    context["metatags"] = context.get("metatags", "") + "\n".join(lines)


def description_of(pagename: str, doctree) -> str:
    """The promise of a chapter, the first paragraph of another page."""
    promises = {f"notebooks/{chapter.path.stem}": chapter.promise for chapter in chapters()}
    if pagename in promises:
        return promises[pagename]
    first = next(doctree.findall(nodes.paragraph), None) if doctree is not None else None
    text = " ".join(first.astext().split()) if first is not None else ""
    if pagename == "book/intro" or not text:
        return BOOK
    return text if len(text) < 200 else text[:200].rsplit(" ", 1)[0] + " …"


def write_index(app: Sphinx, exception: Exception | None) -> None:
    """``index.html``, the site's address, leads to the first page and says of itself what that page says."""
    if exception or app.builder.name != "html":
        return
    first = f"{app.config.root_doc}.html"
    page = BeautifulSoup((Path(app.outdir) / first).read_text(encoding="utf-8"), "html.parser")
    metas = page.select("meta[name=description], meta[property^='og:'], meta[name^='twitter:']")
    said = "\n".join(map(str, metas))
    title = escape(app.config.html_title or app.config.project)
    index = Path(app.outdir) / "index.html"
    index.write_text(
        INDEX.format(first=first, title=title, said=said, address=app.config.html_baseurl.rstrip("/")), encoding="utf-8"
    )


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("html-page-context", add_tags)
    app.connect("build-finished", write_index)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
