"""What is imported is declared, and the list for readers tells which chapter needs what."""

import ast
import json
import re
import sys
from functools import cache
from importlib.metadata import packages_distributions

import pytest

from dgml.settings import ROOT

CHAPTERS = sorted((ROOT / "notebooks").glob("*.ipynb"))
CODE = [path for folder in (".", "tools", "tests") for path in sorted((ROOT / folder).glob("*.py"))]
KNOWN = packages_distributions()
OURS = {path.stem for path in CODE}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(name: str) -> dict[str, str]:
    """Package -> the remark beside it, of a list and of those that it takes in."""
    packages = {}
    for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
        if other := re.match(r"-r (\S+)", line):
            packages |= declared(other[1])
        elif package := re.match(r"[\w.-]+", line):
            packages[canonical(package[0])] = line.partition("#")[2].strip()
    return packages


def source(path) -> str:
    """The Python of a file, or of a notebook's cells without the lines that only IPython reads."""
    if path.suffix == ".py":
        return path.read_text(encoding="utf-8")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    return re.sub(r"^( *)[!%].*$", r"\1pass", code, flags=re.M)


@cache
def imported(path) -> frozenset[str]:
    """The modules that a file imports, those of Python and a guarded import's alternative among them."""
    nodes = list(ast.walk(ast.parse(source(path))))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and not node.level}
    return frozenset(name.partition(".")[0] for name in names)


def packages(modules) -> set[str]:
    """The packages that these modules come from; what lies in the tree or in Python has none."""
    foreign = set(modules) - OURS - set(sys.stdlib_module_names)
    return {canonical(KNOWN.get(module, [module])[0]) for module in foreign}


def reached(path) -> set[str]:
    """All that a chapter imports, itself and by way of the modules in the tree."""
    modules, todo = set(), {path}
    while todo:
        found = imported(todo.pop()) - modules
        modules |= found
        todo |= {ROOT / f"{name}.py" for name in found if (ROOT / f"{name}.py").exists()}
    return modules


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_the_code_imports_is_declared(path):
    assert packages(imported(path)) - declared("requirements.txt").keys() == set()


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_what_a_chapter_imports_is_in_the_list_for_readers(path):
    # The builder's glue has a fallback, and a codec's file is read by the command line alone.
    optional = {"myst-nb"}
    assert packages(reached(path)) - declared("requirements-reader.txt").keys() - optional == set()


def chapters_of(remark: str) -> set[int]:
    """'1, 11 to 13: tables' names 1, 11, 12 and 13; 'all' names every chapter."""
    listed = remark.partition(":")[0]
    if listed == "all":
        return {int(path.stem[:2]) for path in CHAPTERS}
    ends = [part.split(" to ") for part in listed.split(", ")]
    return {n for part in ends for n in range(int(part[0]), int(part[-1]) + 1)}


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_the_chapter_stands_beside_what_it_imports(path):
    remarks = declared("requirements-reader.txt")
    lacking = {
        name
        for name in packages(reached(path)) & remarks.keys()
        if int(path.stem[:2]) not in chapters_of(remarks[name])
    }
    assert lacking == set(), f"requirements-reader.txt names other chapters than {path.stem} beside these"


def test_a_chapter_beside_each_line_and_no_line_without_a_use():
    used = set().union(*(packages(reached(path)) for path in CHAPTERS))
    indirect = {"pyarrow", "ipywidgets"}  # their remarks say why
    for name, remark in declared("requirements-reader.txt").items():
        assert chapters_of(remark) and (name in used or name in indirect), name


def test_both_lists_begin_alike():
    assert (ROOT / "requirements.txt").read_text().splitlines()[0] == "-r requirements-reader.txt"
    assert "-r ../requirements-reader.txt" in (ROOT / "binder" / "requirements.txt").read_text()
