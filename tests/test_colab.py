"""The first cell of every chapter is one and the same, and what it installs on Colab is what the reader's list pins."""

import re
from importlib.metadata import requires
from pathlib import Path

import colab
import nbformat
import pytest

from dgml.settings import ROOT

CHAPTERS = sorted((ROOT / "notebooks").glob("*.ipynb"))
FIRST = """\
import sys
from pathlib import Path

if not Path("../helpers.py").exists():  # on Colab the notebook arrives alone
    if not Path("book").exists():
        !git clone --quiet --depth 1 https://github.com/inside-a-learned-codec/book
    %cd book/notebooks
    %run ../tools/colab.py
sys.path.insert(0, "..")"""


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_the_first_cell_is_the_same_in_every_chapter(path):
    first = next(cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code")
    assert first.source == FIRST
    assert first.metadata["cellView"] == "form" and first.metadata["jupyter"] == {"source_hidden": True}


def test_numpy_stays_and_compressai_comes_without_its_dependencies():
    text = colab.READER.read_text(encoding="utf-8")
    alone, others = colab.requirements(text)
    assert alone == [re.search(r"^compressai[^ #\n]*", text, re.M)[0]]
    names = {re.match(r"[\w.-]+", line)[0].lower() for line in (*others, *colab.ITS_OWN)}
    assert not names & {"numpy", "compressai"}
    pinned = [line.partition("#")[0].strip() for line in text.splitlines() if line and not line.startswith("#")]
    assert sorted(others + alone) == sorted(line for line in pinned if not line.startswith("numpy"))
    # All that compressai imports is there; the others build it or are of Python's own.
    needed = {re.match(r"[\w.-]+", line)[0] for line in requires("compressai") if "extra" not in line}
    assert needed - names <= {"numpy", "pybind11", "setuptools", "wheel", "tomli", "typing-extensions"}


def test_installing_runs_pip_twice_and_keeps_the_loaded_numpy(monkeypatch):
    commands = []
    monkeypatch.setattr(colab.subprocess, "run", lambda command, check: commands.append(command))
    colab.main()
    assert f"numpy=={colab.version('numpy')}" in commands[0] and "--no-deps" not in commands[0]
    assert commands[1][-2] == "--no-deps" and commands[1][-1].startswith("compressai")
    assert Path(commands[0][0]).name.startswith("python")
