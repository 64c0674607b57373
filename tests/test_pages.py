"""The thread through the book: what a chapter says of itself, maps, figures, exercises, questions, terms."""

import json
import re
from collections import Counter

import cards
import here
import pytest
from chapters import chapters
from sphinx.util.nodes import _make_id

CHAPTERS = [chapter.path for chapter in chapters()]
of_each_path = pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
of_each_chapter = pytest.mark.parametrize("chapter", chapters(), ids=lambda chapter: chapter.path.stem)
WORDS = {"ten": 10, "fifteen": 15, "twenty": 20, "twenty-five": 25, "thirty": 30, "thirty-five": 35, "forty": 40}


def cells(path) -> list[dict]:
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def prose(path) -> str:
    """The text of a chapter in its order: its Markdown, and what its cells say."""
    texts = []
    for cell in cells(path):
        said = [o["data"]["text/markdown"] for o in cell.get("outputs", []) if "text/markdown" in o.get("data", {})]
        texts += [cell["source"]] if cell["cell_type"] == "markdown" else said
    return "\n\n".join(map("".join, texts))


def test_every_notebook_is_in_the_contents_under_its_number():
    assert sorted(here.ROOT.glob("notebooks/*.ipynb")) == CHAPTERS
    assert [int(path.stem[:2]) for path in CHAPTERS] == list(range(1, len(CHAPTERS) + 1))


@of_each_chapter
def test_a_chapters_box_and_map_say_what_its_metadata_does(chapter):
    assert f"![{here.alt(chapter)}](../book/_static/here-{chapter.number:02}.svg)" in "".join(
        cells(chapter.path)[0]["source"]
    )
    (minutes,) = re.findall(r"^> \*\*It takes\*\* about ([\w-]+) minutes to read\.", prose(chapter.path), re.M)
    assert WORDS[minutes] == chapter.minutes and set(chapter.map) <= set(here.NODES)


@of_each_chapter
def test_a_chapter_has_its_own_card(chapter):
    card = cards.card(chapter, "")
    assert f"{chapter.number}. " in card and f"{chapter.minutes} minutes" in card and chapter.promise in card
    assert (chapter.card in cards.PIXELS) != (chapter.card in cards.CHARTS)
    assert len(chapter.promise) > 20 and chapter.promise.endswith(".") and chapter.shown.endswith(".")
    assert Counter(other.card for other in chapters())[chapter.card] == 1


@of_each_chapter
def test_the_map_at_its_head_is_that_of_the_chapter(chapter):
    drawn = (here.ROOT / f"book/_static/here-{chapter.number:02}.svg").read_text(encoding="utf-8")
    assert drawn == here.drawing(chapter), "python tools/here.py draws it anew"


def test_the_readme_lists_the_chapters():
    readme = (here.ROOT / "README.md").read_text(encoding="utf-8")
    assert readme == here.with_chapters(readme), "python tools/here.py lists them anew"
    assert readme.count("\n| 1 | ") == 1


def test_every_figure_is_listed():
    listed = (here.ROOT / "book/figures.md").read_text(encoding="utf-8")
    assert listed == here.figures(), "python tools/here.py lists them anew"
    assert listed.count("{numref}") > 40


@of_each_path
def test_every_exercise_has_a_solution_that_ran(path):
    numbers, solved = [], set()
    for cell in cells(path):
        if cell["cell_type"] == "markdown":
            numbers += re.findall(r"^### Exercise (\d)$", "".join(cell["source"]), re.M)
        elif "hide-cell" in cell["metadata"].get("tags", []) and cell["metadata"]["jupyter"]["source_hidden"]:
            assert numbers and cell["execution_count"]
            solved.add(numbers[-1])
    assert len(numbers) >= 2 and numbers == [str(n + 1) for n in range(len(numbers))] == sorted(solved)


@of_each_path
def test_three_questions_with_folded_answers(path):
    section = re.search(r"^## Check yourself\n(.*?)(?=^## )", prose(path), re.M | re.S)
    answered = r"^<details><summary>.+\?</summary>\n\n(?:.+\n)+\n</details>$"
    assert section and len(re.findall(answered, section[1], re.M)) == 3


def test_every_term_of_the_glossary_is_linked_from_a_chapter():
    glossary = (here.ROOT / "book/glossary.md").read_text(encoding="utf-8")
    terms = {_make_id(f"term-{term}") for term in re.findall(r"^(\S.*)\n  \S", glossary, re.M)}
    linked = set(re.findall(r"\]\(\.\./book/glossary\.md#(term-[\w-]+)\)", "\n".join(map(prose, CHAPTERS))))
    assert len(terms) > 30 and terms - linked == set()


@of_each_path
def test_links_of_a_chapter_lead_to_files_and_figures_of_the_book(path):
    """The strict build finds what is missing on the site; a front end needs the file's own name."""
    figures = {n for c in CHAPTERS for n in re.findall(r'"name": "(fig-[\w-]+)"', c.read_text(encoding="utf-8"))}
    links = re.findall(r"(?<!!)\[[^\]]*\]\((?!https?:)([^)\s]+)\)", prose(path))
    for target in links:
        file, _, place = target.partition("#")
        assert (path.parent / file).is_file() if file else place.startswith("eq-") or place in figures, target
    assert len(links) >= 3
