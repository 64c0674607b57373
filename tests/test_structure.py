"""The package's walls: imports run one way, and an installation carries what the package needs."""

import ast
import re
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from importlib import import_module
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from program import ENVIRONMENT

from dgml.settings import QUALITIES, ROOT

MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "dgml").rglob("*.py"))
}
FOR_CHAPTERS = {"helpers", "IPython", "matplotlib", "ipywidgets"}  # and not for the package


def imports(path: Path, everywhere: bool = False) -> set[str]:
    """The modules that a file imports as it is loaded itself, or also within functions."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = set()
    for node in ast.walk(tree) if everywhere else top_level(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            inside = {f"{node.module}.{alias.name}" for alias in node.names} & MODULES.keys()
            names |= inside or {node.module}
    return names


def top_level(tree: ast.AST):
    """All statements that run as a module is loaded: not those of functions and of what is for a type checker."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from top_level(node)


def order(graph: dict[str, set[str]]) -> list[str]:
    """The modules, each after those that it imports; CycleError for a circle."""
    return [*TopologicalSorter(graph).static_order()]


def test_no_circle():
    assert {"dgml.cli", "dgml.training.loop", "dgml.evaluation.measure"} <= MODULES.keys()
    order({name: imports(path) & MODULES.keys() for name, path in MODULES.items()})
    with pytest.raises(CycleError):
        order({"a": {"b"}, "b": {"c"}, "c": {"a"}})


@pytest.mark.parametrize("name", MODULES)
def test_the_package_knows_neither_helpers_nor_what_chapters_draw_with(name):
    assert not {module.partition(".")[0] for module in imports(MODULES[name], everywhere=True)} & FOR_CHAPTERS


def test_no_module_brings_what_chapters_draw_with():
    """Not even by way of another package."""
    code = f"import sys\nfor name in {[*MODULES]}: __import__(name)\nsys.exit(str(sys.modules.keys() & {FOR_CHAPTERS}))"
    done = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == "set()"


# ---------------------------------------------------------------- pip install .


@pytest.fixture(scope="module")
def project():
    """What pyproject.toml says, once setuptools has found it valid."""
    pytest.importorskip("setuptools", "77")
    from setuptools.config.pyprojecttoml import read_configuration

    return read_configuration(ROOT / "pyproject.toml")


def test_all_packages_are_installed(project):
    found = {".".join(path.parent.relative_to(ROOT).parts) for path in MODULES.values()}
    assert {*project["tool"]["setuptools"]["packages"]} == found | {"dgml.checkpoints"}


def test_the_checkpoints_are_installed_and_nothing_else(project):
    setuptools = project["tool"]["setuptools"]
    (package,) = setuptools["package-dir"]
    folder = ROOT / setuptools["package-dir"][package]
    patterns = setuptools["package-data"][package]
    names = {path.name for pattern in patterns for path in folder.glob(pattern)}
    expected = {f"cheng2020-anchor-q{quality}.safetensors" for quality in QUALITIES}
    assert names == expected | {"gaussian_tables.safetensors"}
    assert (setuptools["package-data"].keys(), setuptools["include-package-data"]) == ({package}, False)


def test_the_command_is_there(project):
    module, _, name = project["project"]["scripts"]["dgml"].partition(":")
    assert callable(getattr(import_module(module), name))


def test_what_the_package_imports_is_declared(project):
    """What a module loads at once, in the dependencies or, for training and evaluation, in the extras."""
    extras = project["project"]["optional-dependencies"]
    core = {*map(name_of, project["project"]["dependencies"])}
    for name, path in MODULES.items():
        allowed = set(core)
        for extra, packages in extras.items():
            if name.startswith({"train": "dgml.training", "evaluate": "dgml.evaluation"}[extra]):
                allowed |= {*map(name_of, packages)}
        assert packages_of(imports(path)) <= allowed, name
    everything = packages_of(set.union(*(imports(path, everywhere=True) for path in MODULES.values())))
    assert everything <= core.union(*(map(name_of, packages) for packages in extras.values()))


def test_versions_are_those_of_the_requirements(project):
    listed = [line.partition("#")[0].strip() for path in ROOT.glob("requirements*.txt")
              for line in path.read_text(encoding="utf-8").splitlines()]  # fmt: skip
    extras = project["project"]["optional-dependencies"].values()
    for packages in (project["project"]["dependencies"], *extras):
        assert {*packages} <= {*listed}


def name_of(requirement: str) -> str:
    return re.match(r"[\w-]+", requirement)[0]


def packages_of(modules: set[str]) -> set[str]:
    """The packages that these modules come from; what lies in the tree or in Python has none."""
    foreign = {name.partition(".")[0] for name in modules} - {"dgml"} - {*sys.stdlib_module_names}
    known = packages_distributions()
    return {known[name][0].lower().replace("_", "-") for name in foreign}
