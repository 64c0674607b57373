"""How the tests of dgml/evaluation run its commands."""

import pytest
import torch

from dgml import cli
from dgml.evaluation import command


@pytest.fixture
def results(tmp_path, monkeypatch):
    """An empty folder in place of results/."""
    monkeypatch.setattr(command, "RESULTS", tmp_path)
    return tmp_path


@pytest.fixture
def dgml(monkeypatch):
    """A function that does what ``python -m dgml`` does with its arguments, and returns the exit status."""
    monkeypatch.setattr(torch, "set_num_threads", lambda n: None)  # the other tests of this process go on with theirs
    monkeypatch.setenv("HF_HUB_VERBOSITY", "critical")

    def run(*arguments: str) -> int:
        try:
            return cli.main([*arguments])
        except SystemExit as stopped:  # argparse
            return stopped.code

    return run


@pytest.fixture
def failure(dgml, capsys):
    """The same for a command that must fail with one line; it returns the line."""

    def run(*arguments: str) -> str:
        capsys.readouterr()
        status = dgml(*arguments)
        line = capsys.readouterr().err
        assert status == 1 and line.startswith("dgml: ") and line.count("\n") == 1, line
        return line

    return run
