"""What nbval catches, and what it does not: notebooks without outputs, which the rules of chapters find."""

import copy
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from chapter_rules import not_run_in_order
from nbclient import NotebookClient

from dgml.settings import ROOT


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
