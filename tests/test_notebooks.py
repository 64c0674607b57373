"""Every chapter keeps every rule, and each rule finds what it is for in a sound little notebook that was broken."""

import copy
from functools import cache, partial

import nbformat
import pytest
from chapter_rules import (
    RULES,
    bare_asserts,
    figure_names,
    hidden_names,
    long_cells,
    long_removed_cells,
    machine_paths,
    not_one_title,
    not_run_in_order,
    pictures_without_alt_text,
    pictures_without_caption,
    prose_beside_other_output,
    prose_with_too_many_digits,
    raw_roles,
    several_pictures_in_a_cell,
    skipped_checks,
    stored_errors,
    stored_stderr,
    timing,
    wide_cells,
)

from dgml.settings import ROOT

CHAPTERS = sorted((ROOT / "notebooks").glob("*.ipynb"))
read = cache(partial(nbformat.read, as_version=4))


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_chapters_keep_the_rule(chapter, rule):
    assert rule(read(chapter)) == []


def test_figure_names_are_unique_in_the_book():
    names = [n for chapter in CHAPTERS for n in figure_names(nbformat.read(chapter, as_version=4))]
    assert sorted(names) == sorted(set(names))


# ---------------------------------------------------------------- each rule finds what it is for


def sound() -> nbformat.NotebookNode:
    """A notebook that keeps every rule, as if it had been run: a printed number, a picture, a paragraph."""
    v4 = nbformat.v4
    caption = {"figure": {"caption": "One black pixel and no more.", "name": "fig-one"}}
    alt = {"image": {"alt": "A square that holds a single black pixel."}}
    folded = {"tags": ["remove-input"], "jupyter": {"source_hidden": True}}
    paragraph = {"text/markdown": "At 0.123456 bpp, [the figure](#fig-one).", "text/plain": "<Markdown object>"}
    cells = [
        v4.new_markdown_cell("# Title\n\n## Part\n\n```python\n# no title\n```\n\n[bpp](glossary.md#term-bpp), {x}"),
        v4.new_code_cell("print(1 / 8)", execution_count=1, outputs=[v4.new_output("stream", text="0.125\n")]),
        v4.new_code_cell("draw()", execution_count=2, metadata={"mystnb": {**caption, **alt}},
                         outputs=[v4.new_output("display_data", {"image/png": "AA=="})]),
        v4.new_code_cell("rate = 1 / 9\n\ndisplay_markdown(rate)", execution_count=3, metadata=folded,
                         outputs=[v4.new_output("display_data", paragraph)]),
    ]  # fmt: skip
    return v4.new_notebook(cells=cells)


def add_output(cell: int, output_type: str, **fields):
    return lambda nb: nb.cells[cell].outputs.append(nbformat.v4.new_output(output_type, **fields))


def set_source(cell: int, source: str):
    return lambda nb: nb.cells[cell].update(source=source)


def set_metadata(cell: int, **fields):
    return lambda nb: nb.cells[cell].metadata.update(fields)


def set_mystnb(part: str, **fields):
    return lambda nb: nb.cells[2].metadata["mystnb"][part].update(fields)


def set_prose(text: str):
    return lambda nb: nb.cells[3].outputs[0].data.update({"text/markdown": text})


BROKEN = [
    (not_run_in_order, lambda nb: nb.cells[1].update(execution_count=None)),
    (not_run_in_order, lambda nb: nb.cells[1].update(execution_count=7)),
    (not_run_in_order, lambda nb: nb.cells.reverse()),
    (stored_stderr, add_output(1, "stream", name="stderr", text="a warning")),
    (stored_errors, add_output(1, "error", ename="ValueError", evalue="no")),
    (skipped_checks, set_source(1, "# NBVAL_SKIP\nprint(1)")),
    (skipped_checks, set_source(1, "# NBVAL_IGNORE_OUTPUT\nprint(1)")),
    (skipped_checks, set_metadata(1, tags=["nbval-skip"])),
    (pictures_without_alt_text, set_mystnb("image", alt="")),
    (pictures_without_alt_text, set_mystnb("image", alt="A picture.")),
    (pictures_without_alt_text, set_mystnb("image", alt="_images/0123456789abcdef0123456789abcdef.png")),
    (pictures_without_alt_text, lambda nb: nb.cells[2].metadata.clear()),
    (pictures_without_caption, set_mystnb("figure", caption="")),
    (pictures_without_caption, set_mystnb("figure", name="one")),
    (pictures_without_caption, lambda nb: nb.cells.append(copy.deepcopy(nb.cells[2]))),
    (several_pictures_in_a_cell, add_output(2, "display_data", data={"image/png": "AA=="})),
    (not_one_title, set_source(0, "## Part")),
    (not_one_title, set_source(0, "# Title\n\n# Another")),
    (not_one_title, lambda nb: nb.cells.insert(0, nb.cells.pop(1))),
    (long_cells, set_source(1, "\n".join("abcdefghijklmnopqrstu"))),
    (machine_paths, add_output(1, "stream", text="reading " + "/" + "home/ann/picture.png")),
    (machine_paths, add_output(1, "error", ename="E", evalue="", traceback=["lib/site-" + "packages/torch"])),
    (timing, set_metadata(1, execution={"iopub.status.busy": "2026-01-01"})),
    (timing, lambda nb: nb.metadata.update(papermill={})),
    (raw_roles, set_source(0, "# Title\n\nA {term}`mask`.")),
    (raw_roles, set_source(0, "# Title\n\n:::{note}\nNo.\n:::")),
    (raw_roles, set_source(0, "# Title\n\n```{note}\nNo.\n```")),
    (raw_roles, set_source(0, "# Title\n\n$$\nx\n$$ (eq-x)")),
    (raw_roles, set_source(0, "# Title\n\ng_a\n: a network")),
    (raw_roles, set_prose("See {numref}`fig-one`.")),
    (prose_beside_other_output, set_metadata(3, tags=["hide-input"])),
    (prose_beside_other_output, set_metadata(3, jupyter={})),
    (prose_beside_other_output, add_output(3, "stream", text="0.125\n")),
    (prose_beside_other_output, lambda nb: nb.cells[3].update(outputs=[])),
    (prose_with_too_many_digits, set_prose("At 0.1234567 bpp.")),
    (prose_with_too_many_digits, set_prose("At 1,234.5678 bpp.")),
    (prose_with_too_many_digits, set_prose("At np.float64(0.5) bpp.")),
    (prose_with_too_many_digits, set_prose("At tensor(0.5) bpp.")),
    (bare_asserts, set_source(1, "%matplotlib inline\nif True:\n    assert 1")),
    (long_removed_cells, set_source(3, "x = 1\n" * 13 + "display_markdown(x)")),
    (long_removed_cells, lambda nb: nb.cells[3].update(source="x = 1\n" * 13, metadata={"tags": ["remove-cell"]})),
    (hidden_names, set_source(1, "print(rate)")),
    (hidden_names, set_source(1, "print([rate for _ in range(2)])")),
    (hidden_names, set_source(3, "def draw(): pass\n\ndisplay_markdown(1)")),
    (hidden_names, set_source(3, "claim('no', False)\ndisplay_markdown(1)")),
    (wide_cells, set_source(1, "x = 1" + 84 * " ")),
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_sound_notebook_keeps_the_rule(rule):
    assert rule(sound()) == []
    assert rule in [broken for broken, _ in BROKEN]


@pytest.mark.parametrize(("rule", "break_it"), BROKEN, ids=lambda f: f.__name__ if f in RULES else "")
def test_a_broken_notebook_breaks_the_rule(rule, break_it):
    nb = sound()
    break_it(nb)
    assert rule(nb) != []


def test_what_the_rules_allow():
    nb = sound()
    add_output(1, "error", ename="ValueError", evalue="no")(nb)
    set_metadata(1, tags=["raises-exception"])(nb)
    assert stored_errors(nb) == []
    nb.cells[1].update(source="x = 1\n" * 30, metadata={"tags": ["hide-input"]})  # folded, not removed
    nb.cells[3].source = "rate = 1\ndisplay_markdown('' 'a line'" + "\n'more'" * 30 + ")"  # prose has any length
    assert long_cells(nb) == long_removed_cells(nb) == hidden_names(nb) == []
    for value in ("11834176", "417,824", "bundled", "0.000123456", "[a](b.md#c-0.1234567)"):
        set_prose(value)(nb)
        assert prose_with_too_many_digits(nb) == []
