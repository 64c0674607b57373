"""What is imported is declared, and the list for readers tells which chapter needs what."""

import ast
import json
import re
import sys
from functools import cache
from importlib.metadata import packages_distributions, version
from pathlib import Path, PurePath

import pytest
from packaging.requirements import Requirement

import dgml
from dgml.settings import ROOT


def ours(path) -> bool:
    parts = path.relative_to(ROOT).parts
    return len(parts) == 1 or parts[0] in ("book", "dgml", "tests", "tools")


CHAPTERS = sorted((ROOT / "notebooks").glob("*.ipynb"))
READER = (ROOT / "requirements-reader.txt").read_text(encoding="utf-8").splitlines()
BOOK = {"tools/install.py", "tools/colab.py", "tools/execute.py", "tools/make_book.py"}
CODE = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.py") if ours(path))
KNOWN = packages_distributions()
OURS = {part for path in CODE for part in PurePath(path).with_suffix("").parts}


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
    """What a file imports, by dotted names: modules of Python and a guarded import's alternative among them."""
    nodes = list(ast.walk(ast.parse(source(path))))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and not node.level:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(names)


def packages(modules) -> set[str]:
    """The packages that these modules come from; what lies in the tree or in Python has none."""
    foreign = {module.partition(".")[0] for module in modules} - OURS - set(sys.stdlib_module_names)
    return {canonical(KNOWN.get(module, [module])[0]) for module in foreign}


def reached(path) -> set[str]:
    """All that a chapter imports, itself and by way of the modules in the tree."""
    modules, todo = set(), {path}
    while todo:
        found = imported(todo.pop()) - modules
        modules |= found
        todo |= {file for name in found for file in files_of(name)}
    return modules


def files_of(module: str) -> list[Path]:
    """The file of a module in the tree, or of the one that dgml takes a name from."""
    package, _, name = module.partition(".")
    home = dgml._HOMES.get(name) if package == "dgml" else None
    path = ROOT / (f"dgml/{home}" if home else module.replace(".", "/"))
    return [file for file in (path.with_suffix(".py"), path / "__init__.py") if file.exists()]


@pytest.mark.parametrize("path", CODE)
def test_what_the_code_imports_is_declared(path):
    """What readers import is on their list, what builds the book on its own, the rest on that of the tests."""
    if path.startswith("dgml/") or path == "helpers.py":
        allowed = {*declared("requirements-reader.txt"), "accelerate"}  # train says which package it lacks
    elif path.startswith("book/") or path in BOOK:
        allowed = declared("requirements.txt").keys()
    else:
        allowed = declared("requirements-dev.txt").keys()
    assert packages(imported(ROOT / path)) - allowed == set()


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


def test_a_list_takes_in_the_smaller_one():
    for name, first in {
        "requirements.txt": "requirements-reader.txt",
        "requirements-dev.txt": "requirements.txt",
    }.items():
        assert (ROOT / name).read_text().splitlines()[0] == f"-r {first}"
    binder = (ROOT / "binder" / "requirements.txt").read_text().splitlines()
    assert {"-r ../requirements-reader.txt", "-c ../constraints.txt"} <= {*binder}


def test_the_lock_has_one_version_of_each_package_on_each_python_inside_its_range():
    lock = [Requirement(line) for line in (ROOT / "constraints.txt").read_text().splitlines() if line[:1] != "#"]
    ranges = {}
    for name in ("requirements-reader.txt", "requirements.txt", "requirements-dev.txt"):
        lines = [line.partition("#")[0].strip() for line in (ROOT / name).read_text().splitlines()]
        ranges |= {canonical(r.name): r for r in (Requirement(line) for line in lines if line and line[0] != "-")}
    for python in ("3.10", "3.11", "3.12", "3.13"):
        here = {"python_version": python, "python_full_version": f"{python}.9"}
        pins = [(canonical(pin.name), pin) for pin in lock if not pin.marker or pin.marker.evaluate(here)]
        names = [name for name, _ in pins]
        assert len(names) == len({*names}) and ranges.keys() <= {*names}
        for name, pin in pins:
            (exact,) = pin.specifier
            assert exact.operator == "==" and (name not in ranges or exact.version in ranges[name].specifier), name


def test_the_lock_names_nothing_but_packages():
    """No address of an index and no path of a machine."""
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        assert line.startswith("#") or re.match(r"[\w.-]+==[\w.]+( ; [\w.<>=!'()* ]+)?$", line), line


def test_compressai_is_the_one_whose_private_calls_are_known():
    (pin,) = Requirement(next(line for line in READER if line.startswith("compressai")).partition("#")[0]).specifier
    assert str(pin) == "==1.2.8" and version("compressai") == pin.version
