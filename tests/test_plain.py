"""book/_ext/plain.py: what plain Markdown becomes on the site, on a small book of its own."""

import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml
from bs4 import BeautifulSoup

from dgml.settings import ROOT

PROSE = """# One

> **In this chapter**
>
> **You will learn** nothing.

> A quotation is no box.

[bpp](../book/glossary.md#term-bpp) and [lambda](../book/glossary.md#term-lambda),
after Shannon ([Shannon, 1948](../book/references.md#shannon1948)), as [Ballé et al. (2018)](../book/references.md#balle2018) do.

<a id="eq-half"></a>

$$
x = 1/2
$$

As [the equation](#eq-half) says and [the figure](#fig-dot) shows, [two](two.md) follows.

<details><summary>Why?</summary>

For *fun*.

</details>
"""
SAID = "Here are *two* dB, [bpp](../book/glossary.md#term-bpp), [the figure](#fig-dot), [the equation](#eq-half)."
FOLDED = "<details><summary>How?</summary>\n\nBy *hand*.\n\n</details>"
DOT = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="


def output(kind: str, data: str):
    return nbformat.v4.new_output("display_data", {kind: data, "text/plain": "<an object>"})


def first_page():
    v4, folded = nbformat.v4, {"tags": ["remove-input"], "jupyter": {"source_hidden": True}}
    figure = {"mystnb": {"figure": {"caption": "A dot.", "name": "fig-dot"}, "image": {"alt": "One dot."}}}
    printed = [v4.new_output("stream", text="not here"), output("text/markdown", "And *more*.")]
    return [
        v4.new_markdown_cell(PROSE),
        v4.new_code_cell("draw()", metadata=figure, outputs=[output("image/png", DOT)]),
        v4.new_code_cell("say()", metadata=folded, outputs=[output("text/markdown", SAID)]),
        v4.new_code_cell("say()", metadata=folded, outputs=[output("text/markdown", FOLDED)]),
        v4.new_code_cell("say()", metadata=folded, outputs=printed),
    ]


def build(folder: Path, cells: list) -> subprocess.CompletedProcess:
    """A strict build of two chapters with the book's glossary, references and settings."""
    for name in ("glossary.md", "references.md", "references.bib"):
        (folder / "book").mkdir(exist_ok=True)
        shutil.copy(ROOT / "book" / name, folder / "book")
    (folder / "book/_ext").symlink_to(ROOT / "book/_ext")
    (folder / "notebooks").mkdir()
    (folder / "notebooks/two.md").write_text("# Two\n\nSee [it](one.ipynb#fig-dot), [that](#eq-half).\n")
    lexer = {"language_info": {"name": "python", "pygments_lexer": "ipython3"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=lexer), folder / "notebooks/one.ipynb")
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    config["sphinx"]["local_extensions"] = dict.fromkeys(("plain", "bibliography"), "book/_ext")
    for setting in ("html_static_path", "html_css_files", "html_js_files", "html_favicon"):
        config["sphinx"]["config"].pop(setting, None)
    (folder / "_config.yml").write_text(yaml.safe_dump(config))
    parts = [{"caption": "A", "numbered": True, "chapters": [{"file": "notebooks/one"}, {"file": "notebooks/two"}]},
             {"caption": "B", "chapters": [{"file": "book/references"}]}]  # fmt: skip
    (folder / "_toc.yml").write_text(yaml.safe_dump({"format": "jb-book", "root": "book/glossary", "parts": parts}))
    command = [Path(sys.executable).with_name("jupyter-book"), "build", folder, "-W", "-n", "--keep-going"]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    done = build(folder, first_page())
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-1500:]
    paths = [folder / f"_build/html/notebooks/{name}.html" for name in ("one", "two")]
    return [BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser").article for path in paths]


def text(page) -> str:
    return " ".join(page.get_text().split())


def test_links_become_numbered_references(pages):
    assert "As (1.1) says and Fig. 1.1 shows, two follows." in text(pages[0])
    assert "Here are two dB, bpp, Fig. 1.1, (1.1)." in text(pages[0])
    assert "See Fig. 1.1, (1.1)." in text(pages[1])
    assert pages[1].select_one("a[href='one.html#equation-eq-half']") and pages[0].select_one("#equation-eq-half .eqno")
    assert pages[0].select_one("a[href='two.html']")


def test_links_become_terms_and_citations(pages):
    assert [a["href"] for a in pages[0].select("a[href*=glossary]")] == [
        "../book/glossary.html#term-bpp", "../book/glossary.html#term-lambda", "../book/glossary.html#term-bpp"]  # fmt: skip
    assert "after Shannon (Shannon, 1948), as Ballé et al. [2018] do" in text(pages[0])
    assert len(pages[0].select(".bibtex-citation a[href^='../book/references.html#']")) == 2


def test_boxes_and_folds(pages):
    (box,) = pages[0].select(".admonition.note")
    assert text(box) == "In this chapter You will learn nothing."
    assert text(pages[0].blockquote) == "A quotation is no box."
    assert text(pages[0].details) == "Why? For fun." and pages[0].details.em


def test_what_a_cell_says_is_a_paragraph_and_loses_nothing_printed(pages):
    said = next(p for p in pages[0].select("p") if p.get_text().startswith("Here are"))
    assert said.parent.name == "section" and said.em
    how = pages[0].select("details")[-1]
    assert how.parent.name == "section" and text(how) == "How? By hand."
    assert "not here" in text(pages[0]) and "And more." in text(pages[0])


def test_a_link_that_leads_nowhere_fails_the_build(tmp_path):
    links = ["../book/glossary.md#term-nothing", "../book/references.md#nobody", "#fig-none", "#eq-none", "none.ipynb"]
    cells = first_page()
    cells[0].source += "".join(f"\n[this]({link})" for link in links)
    done = build(tmp_path, cells)
    assert done.returncode
    for name in ("term-nothing", "nobody", "fig-none", "eq-none", "none.ipynb"):
        assert name in done.stderr
