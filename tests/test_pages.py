"""The thread through the book: maps, figures, exercises, questions, terms, minutes."""

import json
import re

import here
import pytest

from helpers import ROOT

CHAPTERS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MINUTES = {"ten": 10, "fifteen": 15, "twenty": 20, "twenty-five": 25, "thirty": 30}
chapters = pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)


def cells(path) -> list[dict]:
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def prose(path) -> str:
    return "\n\n".join("".join(cell["source"]) for cell in cells(path) if cell["cell_type"] == "markdown")


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
    labels = re.findall(r":::\{exercise\}\n:label: (\S+)", prose(path))
    solved, label = {}, None
    for cell in cells(path):
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            for start in re.findall(r"\{solution-(?:end\}|start\} (\S+))", source):
                label = start or None
        elif label:
            solved[label] = cell["execution_count"] is not None
    assert len(labels) >= 2 and solved == dict.fromkeys(labels, True)


@chapters
def test_three_questions_with_folded_answers(path):
    section = re.search(r"^## Check yourself\n(.*?)(?=^## )", prose(path), re.M | re.S)
    assert section and len(re.findall(r"^:::\{dropdown\} .+\?\n.+", section[1], re.M)) == 3


@chapters
def test_the_introduction_tells_the_minutes_of_the_box(path):
    words = re.search(r"\*\*It takes\*\* about ([\w-]+) minutes", prose(path))[1]
    line = re.search(rf"\({'../notebooks/' + path.stem}\).*", (ROOT / "book/intro.md").read_text(encoding="utf-8"))[0]
    assert line.endswith(f"({MINUTES[words]} minutes)")


def test_every_term_of_the_glossary_is_linked_from_a_chapter():
    glossary = (ROOT / "book/glossary.md").read_text(encoding="utf-8")
    terms = set(re.findall(r"^(\S.*)\n  \S", glossary, re.M))
    text = "\n".join(map(prose, CHAPTERS))
    linked = {target or name for name, target in re.findall(r"\{term\}`([^`<]+?)(?: <([^>]+)>)?`", text)}
    assert len(terms) > 30 and terms - linked == set()
