"""The rules that every chapter keeps, what nbval catches and what it does not, and what may lie in the tree.

A rule is a function that takes a notebook and returns what is wrong with it.
Each is tried twice: on every chapter, where it must find nothing, and on a sound little notebook that has been spoiled,
where it must find something.
"""

import ast
import copy
import re
import subprocess
import sys
from functools import cache, partial
from pathlib import Path

import nbformat
import pytest
import yaml
from nbclient import NotebookClient

from dgml.settings import ROOT

CHAPTERS = sorted((ROOT / "notebooks").glob("*.ipynb"))
CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text())
# The brackets keep this file from matching its own patterns.
MACHINE_PATH = re.compile(r"(?<![\w.~:/-])/(?:root|home|work|Users|tmp|opt)[/]\w|[C-Z]:\\\\?Users|site[-]packages/")
REGISTRY = re.compile(r"pypi[.]org|pythonhosted[.]org|/simple[/]|npmjs[.]|anaconda[.]org|proxy[.]golang", re.IGNORECASE)


def code_cells(nb) -> list:
    return [cell for cell in nb.cells if cell.cell_type == "code"]


def tags(cell) -> set[str]:
    return set(cell.metadata.get("tags", []))


def has_picture(cell) -> bool:
    return any(mime.startswith("image/") for output in cell.outputs for mime in output.get("data", {}))


def name(cell) -> str:
    """What a cell is called in a message: its first line."""
    return repr(cell.source.strip().split("\n")[0][:60])


# ---------------------------------------------------------------- the rules


def not_run_in_order(nb) -> list[str]:
    counts = [cell.execution_count for cell in code_cells(nb)]
    return [] if counts == [*range(1, len(counts) + 1)] else [f"not run once from top to bottom: {counts}"]


def stored_stderr(nb) -> list[str]:
    return [name(cell) for cell in code_cells(nb) for o in cell.outputs if o.get("name") == "stderr"]


def stored_errors(nb) -> list[str]:
    cells = [cell for cell in code_cells(nb) if "raises-exception" not in tags(cell)]
    return [f"{name(cell)}: {o.ename}" for cell in cells for o in cell.outputs if o.output_type == "error"]


def skipped_checks(nb) -> list[str]:
    marked = re.compile(r"NBVAL_(SKIP|IGNORE)|nbval-(skip|ignore)")
    return [name(cell) for cell in code_cells(nb) if marked.search(cell.source + " ".join(tags(cell)))]


def pictures_without_alt_text(nb) -> list[str]:
    wrong = []
    for cell in filter(has_picture, code_cells(nb)):
        alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
        if len(alt) <= 30 or alt.endswith(".png") or not alt.rstrip().endswith("."):
            wrong.append(f"{name(cell)}: alt text {alt!r} is no sentence")
    return wrong


def pictures_without_caption(nb) -> list[str]:
    wrong = []
    for cell in filter(has_picture, code_cells(nb)):
        figure = cell.metadata.get("mystnb", {}).get("figure", {})
        if len(figure.get("caption", "")) < 20 or not figure.get("name", "").startswith("fig-"):
            wrong.append(f"{name(cell)}: figure {dict(figure)} lacks a caption or a name fig-…")
    names = figure_names(nb)
    return wrong + [f"{n} twice" for n in set(names) if names.count(n) > 1]


def figure_names(nb) -> list[str]:
    figures = (cell.metadata.get("mystnb", {}).get("figure", {}) for cell in code_cells(nb))
    return [figure["name"] for figure in figures if "name" in figure]


def several_pictures_in_a_cell(nb) -> list[str]:
    """Their one caption and name would be given twice."""
    pictures = {name(cell): sum("data" in o for o in cell.outputs) for cell in filter(has_picture, code_cells(nb))}
    return [f"{cell}: {count} pictures" for cell, count in pictures.items() if count > 1]


def not_one_title(nb) -> list[str]:
    prose = "\n".join(cell.source for cell in nb.cells if cell.cell_type == "markdown")
    prose = re.sub(r"^(```+|~~~+).*?^\1", "", prose, flags=re.DOTALL | re.MULTILINE)
    titles = re.findall(r"^# .*", prose, re.MULTILINE)
    first = nb.cells[0].source if nb.cells[0].cell_type == "markdown" else ""
    return [] if len(titles) == 1 and first.startswith("# ") else [f"titles: {titles}"]


def long_cells(nb) -> list[str]:
    hidden = {"remove-cell", "remove-input", "hide-input", "hide-cell"}
    lengths = {name(cell): len(cell.source.strip().split("\n")) for cell in code_cells(nb) if not tags(cell) & hidden}
    return [f"{cell}: {length} lines" for cell, length in lengths.items() if length > 10]


def machine_paths(nb) -> list[str]:
    wrong = []
    for cell in code_cells(nb):
        for o in cell.outputs:
            shown = {k: v for k, v in o.get("data", {}).items() if not k.startswith("image/") or k == "image/svg+xml"}
            text = "\n".join([*map(str, shown.values()), o.get("text", ""), *o.get("traceback", [])])
            wrong += [f"{name(cell)}: {found.group()}" for found in MACHINE_PATH.finditer(text)]
    return wrong


def timing(nb) -> list[str]:
    """Timing changes at every run, so it would make every run a change to commit."""
    return [name(cell) for cell in nb.cells if "execution" in cell.metadata] + ["papermill"] * (
        "papermill" in nb.metadata
    )


def raw_roles(nb) -> list[str]:
    """Markup of MyST, which no notebook front end shows: a role, a directive, a label, a definition list."""
    marks = re.compile(r"\{[a-zA-Z:+-]+\}`|^:::+|^```+\{|^\([\w-]+\)=$|^\$\$ \([\w-]+\)$|^: \S", re.MULTILINE)
    texts = [cell.source for cell in nb.cells if cell.cell_type == "markdown"] + [text for _, text in said(nb)]
    return [found.group() for text in texts for found in marks.finditer(text)]


def said(nb) -> list[tuple]:
    """The cells that say something, each with a paragraph that it put out."""
    return [
        (cell, output.data["text/markdown"])
        for cell in code_cells(nb)
        for output in cell.outputs
        if "text/markdown" in output.get("data", {})
    ]


def says_loudly(nb) -> list[str]:
    """A cell that says a paragraph shows nothing else: no source, neither on the site nor in a front end."""
    wrong = []
    for cell in code_cells(nb):
        if re.search(r"^say\(", cell.source, re.MULTILINE):
            folded = tags(cell) == {"remove-input"} and cell.metadata.get("jupyter", {}).get("source_hidden")
            spoken = cell.outputs and all("text/markdown" in output.get("data", {}) for output in cell.outputs)
            wrong += [] if folded and spoken else [name(cell)]
    return wrong


def says_too_many_digits(nb) -> list[str]:
    """A processor that adds in another order changes the last digits; whole numbers have none."""
    wrong = []
    for cell, text in said(nb):
        numbers = re.findall(r"(?<![\w/.(-])\d[\d,]*\.\d+", text)
        wrong += [n for n in numbers if len(re.sub(r"\D", "", n).lstrip("0")) > 6]
        wrong += [name(cell)] * bool(re.search(r"np\.\w+\(|tensor\(", text))
    return wrong


def parsed(cell) -> ast.Module:
    """The code of a cell, its magics left out."""
    return ast.parse(re.sub(r"^(\s*)[%!].*", r"\1pass", cell.source, flags=re.MULTILINE))


def bare_asserts(nb) -> list[str]:
    """A reader's picture must not end the run: claim() checks in its place."""
    nodes = [(cell, node) for cell in code_cells(nb) for node in ast.walk(parsed(cell))]
    return [name(cell) for cell, node in nodes if isinstance(node, ast.Assert)]


def is_removed(cell) -> bool:
    return bool(tags(cell) & {"remove-cell", "remove-input"})


def before_say(cell) -> list[str]:
    """The lines of a cell, without those of what it says."""
    return re.split(r"^say\(", cell.source, flags=re.MULTILINE)[0].strip().split("\n")


def long_removed_cells(nb) -> list[str]:
    lengths = {name(cell): len(before_say(cell)) for cell in code_cells(nb) if is_removed(cell)}
    return [f"{cell}: {length} lines" for cell, length in lengths.items() if length > 12]


def made_and_used(cells) -> tuple[set[str], set[str]]:
    made, used = set(), set()
    for node in (node for cell in cells for node in ast.walk(parsed(cell))):
        if isinstance(node, ast.alias):
            made.add((node.asname or node.name).split(".")[0])
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            made.add(node.name)
        elif isinstance(node, ast.arg):
            made.add(node.arg)
        elif isinstance(node, ast.Name):
            (used if isinstance(node.ctx, ast.Load) else made).add(node.id)
    return made, used


def hidden_names(nb) -> list[str]:
    """What the page uses, it also shows how it is made; and no claim is made in secret."""
    cells = code_cells(nb)
    removed_made, _ = made_and_used(filter(is_removed, cells))
    made, used = made_and_used(cell for cell in cells if not is_removed(cell))
    secret = [name(cell) for cell in cells if is_removed(cell) and "claim(" in cell.source]
    return sorted(removed_made & used - made) + secret


def wide_cells(nb) -> list[str]:
    hidden = {"remove-cell", "remove-input", "hide-input", "hide-cell"}
    cells = [cell for cell in code_cells(nb) if not tags(cell) & hidden]
    return [line for cell in cells for line in cell.source.split("\n") if len(line) > 88]


RULES = [
    not_run_in_order, stored_stderr, stored_errors, skipped_checks, pictures_without_alt_text,
    pictures_without_caption, several_pictures_in_a_cell, not_one_title, long_cells, machine_paths, timing,
    raw_roles, says_loudly, says_too_many_digits, bare_asserts, long_removed_cells, hidden_names, wide_cells,
]  # fmt: skip


read = cache(partial(nbformat.read, as_version=4))


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_chapters_keep_the_rule(chapter, rule):
    assert rule(read(chapter)) == []


def test_figure_names_are_unique_in_the_book():
    names = [n for chapter in CHAPTERS for n in figure_names(nbformat.read(chapter, as_version=4))]
    assert sorted(names) == sorted(set(names))


def test_every_chapter_is_in_the_table_of_contents():
    def files(node):
        if isinstance(node, dict):
            yield from (node[key] for key in ("file", "root") if key in node)
        for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
            yield from files(child)

    listed = list(files(yaml.safe_load((ROOT / "_toc.yml").read_text())))
    assert len(listed) == len(set(listed))
    assert {f"notebooks/{path.stem}" for path in CHAPTERS} <= set(listed)
    assert [f for f in listed if not any((ROOT / f"{f}{end}").is_file() for end in ("", ".md", ".ipynb"))] == []


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
        v4.new_code_cell("rate = 1 / 9\n\nsay(rate)", execution_count=3, metadata=folded,
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


def set_said(text: str):
    return lambda nb: nb.cells[3].outputs[0].data.update({"text/markdown": text})


SPOILED = [
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
    (long_cells, set_source(1, "\n".join("abcdefghijk"))),
    (machine_paths, add_output(1, "stream", text="reading " + "/" + "home/ann/picture.png")),
    (machine_paths, add_output(1, "error", ename="E", evalue="", traceback=["lib/site-" + "packages/torch"])),
    (timing, set_metadata(1, execution={"iopub.status.busy": "2026-01-01"})),
    (timing, lambda nb: nb.metadata.update(papermill={})),
    (raw_roles, set_source(0, "# Title\n\nA {term}`mask`.")),
    (raw_roles, set_source(0, "# Title\n\n:::{note}\nNo.\n:::")),
    (raw_roles, set_source(0, "# Title\n\n```{note}\nNo.\n```")),
    (raw_roles, set_source(0, "# Title\n\n$$\nx\n$$ (eq-x)")),
    (raw_roles, set_source(0, "# Title\n\ng_a\n: a network")),
    (raw_roles, set_said("See {numref}`fig-one`.")),
    (says_loudly, set_metadata(3, tags=["hide-input"])),
    (says_loudly, set_metadata(3, jupyter={})),
    (says_loudly, add_output(3, "stream", text="0.125\n")),
    (says_loudly, lambda nb: nb.cells[3].update(outputs=[])),
    (says_too_many_digits, set_said("At 0.1234567 bpp.")),
    (says_too_many_digits, set_said("At 1,234.5678 bpp.")),
    (says_too_many_digits, set_said("At np.float64(0.5) bpp.")),
    (says_too_many_digits, set_said("At tensor(0.5) bpp.")),
    (bare_asserts, set_source(1, "%matplotlib inline\nif True:\n    assert 1")),
    (long_removed_cells, set_source(3, "x = 1\n" * 13 + "say(x)")),
    (long_removed_cells, lambda nb: nb.cells[3].update(source="x = 1\n" * 13, metadata={"tags": ["remove-cell"]})),
    (hidden_names, set_source(1, "print(rate)")),
    (hidden_names, set_source(1, "print([rate for _ in range(2)])")),
    (hidden_names, set_source(3, "def draw(): pass\n\nsay(1)")),
    (hidden_names, set_source(3, "claim('no', False)\nsay(1)")),
    (wide_cells, set_source(1, "x = 1" + 84 * " ")),
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_sound_notebook_keeps_the_rule(rule):
    assert rule(sound()) == []
    assert rule in [spoilt for spoilt, _ in SPOILED]


@pytest.mark.parametrize(("rule", "spoil"), SPOILED, ids=lambda f: f.__name__ if f in RULES else "")
def test_a_spoiled_notebook_breaks_the_rule(rule, spoil):
    nb = sound()
    spoil(nb)
    assert rule(nb) != []


def test_what_the_rules_allow():
    nb = sound()
    add_output(1, "error", ename="ValueError", evalue="no")(nb)
    set_metadata(1, tags=["raises-exception"])(nb)
    assert stored_errors(nb) == []
    nb.cells[1].update(source="x = 1\n" * 30, metadata={"tags": ["hide-input"]})  # folded, not removed
    nb.cells[3].source = "rate = 1\nsay('' 'a line'" + "\n'more'" * 30 + ")"  # prose has any length
    assert long_cells(nb) == long_removed_cells(nb) == hidden_names(nb) == []
    for value in ("11834176", "417,824", "bundled", "0.000123456", "[a](b.md#c-0.1234567)"):
        set_said(value)(nb)
        assert says_too_many_digits(nb) == []


# ---------------------------------------------------------------- nbval


@pytest.fixture(scope="module")
def executed():
    """Two cells, really run; the second depends on the first."""
    cells = [nbformat.v4.new_code_cell("a = 1 / 8\nprint(a)"), nbformat.v4.new_code_cell("a * 2")]
    nb = nbformat.v4.new_notebook(cells=cells)
    nb.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return NotebookClient(nb, timeout=60, record_timing=False).execute()


def nbval(nb, folder: Path) -> subprocess.CompletedProcess:
    """What `make test` runs, with its own options, on this notebook."""
    nbformat.write(nb, folder / "small.ipynb")
    options = re.search(r"pytest -q (--nbval .*?) -n 2", (ROOT / "Makefile").read_text()).group(1).split()
    command = [sys.executable, "-m", "pytest", "-q", *options, "small.ipynb"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_nbval_passes_a_notebook_as_it_was_run(executed, tmp_path):
    done = nbval(executed, tmp_path)
    assert done.returncode == 0 and "2 passed" in done.stdout


def corrupt_printed(nb):
    nb.cells[0].outputs[0].text = "0.126\n"


def corrupt_returned(nb):
    nb.cells[1].outputs[0].data["text/plain"] = "0.26"


@pytest.mark.parametrize("corrupt", [corrupt_printed, corrupt_returned])
def test_nbval_fails_a_corrupted_number(corrupt, executed, tmp_path):
    nb = copy.deepcopy(executed)
    corrupt(nb)
    done = nbval(nb, tmp_path)
    assert done.returncode == 1 and "1 failed, 1 passed" in done.stdout


def test_our_own_rule_fails_what_nbval_passes(executed, tmp_path):
    """nbval takes a notebook without outputs for one that has nothing to compare."""
    stripped = copy.deepcopy(executed)
    for cell in stripped.cells:
        cell.update(outputs=[], execution_count=None)
    assert nbval(stripped, tmp_path).returncode == 0
    assert not_run_in_order(stripped) != []
    assert not_run_in_order(executed) == []


# ---------------------------------------------------------------- the tree


def committed() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [path for path in map(ROOT.joinpath, listed.stdout.split("\0")) if path.is_file()]


def short_lines(path: Path) -> str:
    """The text of a file without the long lines of stored pictures; nothing of a binary file."""
    try:
        return "\n".join(line for line in path.read_text(encoding="utf-8").splitlines() if len(line) < 2000)
    except UnicodeDecodeError:
        return ""


@pytest.mark.parametrize("pattern", [MACHINE_PATH, REGISTRY], ids=["machine paths", "registries"])
def test_no_file_names_the_machine_it_was_made_on(pattern):
    found = {str(path.relative_to(ROOT)): pattern.findall(short_lines(path)) for path in committed()}
    assert {path: what for path, what in found.items() if what} == {}


def test_the_patterns_find_what_they_are_for():
    for path in ("/" + "root/x", "in /" + "work/main", '"/' + 'tmp/x"', "lib/site-" + "packages/x", "C:\\" + "Users"):
        assert MACHINE_PATH.search(path), path
    for path in ("https://github.com/home/work", "../shared/kodak", "a/home/b", "~/tmp/x"):
        assert not MACHINE_PATH.search(path), path
    assert REGISTRY.search("https://pypi" + ".org/simple") and not REGISTRY.search(
        "https://download.pytorch.org/whl/cpu"
    )


def test_no_file_is_large():
    sizes = {str(path.relative_to(ROOT)): path.stat().st_size for path in committed()}
    assert [path for path, size in sizes.items() if size > 20e6] == []
    pictures = {p: s for p, s in sizes.items() if Path(p).suffix.lower() in (".png", ".jpg", ".jpeg", ".webp")}
    assert [p for p, s in pictures.items() if s > 500e3 and not p.startswith("book/_static/")] == []


# ---------------------------------------------------------------- the repository's address


def test_all_files_agree_on_the_address():
    url = CONFIG["repository"]["url"]
    owner, repository = url.removeprefix("https://github.com/").split("/")
    readme = (ROOT / "README.md").read_text()
    assert set(re.findall(r"mybinder\.org/v2/gh/([^/]+/[^/]+)/", readme)) == {f"{owner}/{repository}"}
    assert set(re.findall(r"github\.com/([^/]+/[^/]+)/actions", readme)) == {f"{owner}/{repository}"}
    assert set(re.findall(r"https://([^/]+)\.github\.io/([\w.-]*\w)", readme)) == {(owner, repository)}
    for page in (readme, (ROOT / "book" / "setup.md").read_text()):
        assert re.findall(r"git clone (\S+)", page) == [url] and re.findall(r"^cd (\S+)", page, re.MULTILINE) == [
            repository
        ]
    assert url in (ROOT / "CONTRIBUTING.md").read_text()
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["repository-code"] == url
    assert citation["url"] == f"https://{owner}.github.io/{repository}"
    assert CONFIG["sphinx"]["config"]["html_baseurl"] == citation["url"]
    for chapter in CHAPTERS:
        source = code_cells(nbformat.read(chapter, as_version=4))[0].source
        assert re.findall(r"git clone .*?(https://\S+)", source) == [url], chapter.name
        assert re.findall(r"%cd (\S+)", source) == [f"{repository}/notebooks"], chapter.name
