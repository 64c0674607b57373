"""The thread through the book: maps, figures, exercises, questions, terms, minutes."""

import json
import re

import cards
import here
import pytest
import yaml
from sphinx.util.nodes import _make_id

from dgml.settings import ROOT

CHAPTERS = sorted((ROOT / "notebooks").glob("*.ipynb"))
chapters = pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)


def cells(path) -> list[dict]:
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def prose(path) -> str:
    """The text of a chapter in its order: its Markdown, and what its cells say."""
    texts = []
    for cell in cells(path):
        said = [o["data"]["text/markdown"] for o in cell.get("outputs", []) if "text/markdown" in o.get("data", {})]
        texts += [cell["source"]] if cell["cell_type"] == "markdown" else said
    return "\n\n".join(map("".join, texts))


@chapters
def test_the_map_at_its_head_is_that_of_the_chapter(path):
    n = int(path.stem[:2])
    assert f"![{here.alt(n)}](../book/_static/here-{n:02}.svg)" in "".join(cells(path)[0]["source"])
    drawn = (ROOT / f"book/_static/here-{n:02}.svg").read_text(encoding="utf-8")
    assert drawn == here.drawing(here.HERE[n]), "python tools/here.py draws it anew"


def test_every_figure_is_listed():
    listed = (ROOT / "book/figures.md").read_text(encoding="utf-8")
    assert listed == here.figures(), "python tools/here.py lists them anew"
    assert listed.count("{numref}") > 40


@chapters
def test_every_exercise_has_a_solution_that_ran(path):
    numbers, solved = [], set()
    for cell in cells(path):
        if cell["cell_type"] == "markdown":
            numbers += re.findall(r"^### Exercise (\d)$", "".join(cell["source"]), re.M)
        elif "hide-cell" in cell["metadata"].get("tags", []) and cell["metadata"]["jupyter"]["source_hidden"]:
            assert numbers and cell["execution_count"]
            solved.add(numbers[-1])
    assert len(numbers) >= 2 and numbers == [str(n + 1) for n in range(len(numbers))] == sorted(solved)


@chapters
def test_three_questions_with_folded_answers(path):
    section = re.search(r"^## Check yourself\n(.*?)(?=^## )", prose(path), re.M | re.S)
    answered = r"^<details><summary>.+\?</summary>\n\n(?:.+\n)+\n</details>$"
    assert section and len(re.findall(answered, section[1], re.M)) == 3


@chapters
def test_every_chapter_has_a_card_in_its_part(path):
    n = int(path.stem[:2])
    _, minutes = cards.facts_of(path)
    card = cards.card(n, path, "")
    assert f"{n}. " in card and f"{minutes} minutes" in card and minutes in range(5, 61) and len(cards.CARDS[n][0]) > 20
    (part,) = (name for name, numbers in cards.PARTS.items() if n in numbers)
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    assert {"file": f"notebooks/{path.stem}"} in next(p for p in toc["parts"] if p["caption"] == part)["chapters"]


def test_every_term_of_the_glossary_is_linked_from_a_chapter():
    glossary = (ROOT / "book/glossary.md").read_text(encoding="utf-8")
    terms = {_make_id(f"term-{term}") for term in re.findall(r"^(\S.*)\n  \S", glossary, re.M)}
    linked = set(re.findall(r"\]\(\.\./book/glossary\.md#(term-[\w-]+)\)", "\n".join(map(prose, CHAPTERS))))
    assert len(terms) > 30 and terms - linked == set()


@chapters
def test_links_of_a_chapter_lead_to_files_and_figures_of_the_book(path):
    """The strict build finds what is missing on the site; a front end needs the file's own name."""
    figures = {n for c in CHAPTERS for n in re.findall(r'"name": "(fig-[\w-]+)"', c.read_text(encoding="utf-8"))}
    links = re.findall(r"(?<!!)\[[^\]]*\]\((?!https?:)([^)\s]+)\)", prose(path))
    for target in links:
        file, _, place = target.partition("#")
        assert (path.parent / file).is_file() if file else place.startswith("eq-") or place in figures, target
    assert len(links) >= 3
