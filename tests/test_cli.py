"""The command line itself: its help, what it imports and how long it takes, and what it says to a wrong command."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from program import ENVIRONMENT, tree

from dgml import cli

COMMANDS = [*cli.COMMANDS]


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], ["info", "cat.dgml"], ["info", "cut.dgml"], ["encode"],
     *([name, "--help"] for name in COMMANDS)],
    ids=" ".join,
)  # fmt: skip
def test_what_codes_nothing_takes_half_a_second_and_imports_no_torch(folder, arguments):
    code = (
        "import sys, time\n"
        "from dgml.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'compressai', 'constriction', 'PIL', 'matplotlib', 'IPython'} & sys.modules.keys()\n"
        "seconds = time.process_time()  # of this process, whatever else the machine does\n"
        "sys.exit(f'imported {heavy}, {seconds} s' if heavy or seconds > 0.5 else 0)"
    )
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(run, name):
    status, output, complaints = run(name, "--help")
    assert (status, complaints) == (0, "") and output.startswith(f"usage: dgml {name} ")
    assert re.search(rf"^ +{name}\s+[a-z]", run("--help")[1], re.M)


# What a first-time reader types -> what the last line says after "dgml: " or "dgml COMMAND: ".
WRONG_USE = {
    "": "error: the following arguments are required: COMMAND",
    "cat.png new.dgml": "error: argument COMMAND: invalid choice: 'cat.png' (choose from",
    "help": "error: argument COMMAND: invalid choice: 'help' (choose from",
    "encode": "error: the following arguments are required: IN",
    "encode cat.png": "error: give IN and OUT, or files and folders with --out FOLDER",
    "encode cat.png cat.png new.dgml": "error: give IN and OUT, or files and folders with --out FOLDER",
    "encode --out new": "error: the following arguments are required: IN",
    "encode cat.png new.dgml -q 3": "error: unrecognized arguments: -q 3",
    "encode cat.png new.dgml --quality 7": "error: argument --quality: invalid choice: 7 (choose from",
    "encode cat.png new.dgml --quality high": "error: argument --quality: invalid int value: 'high'",
    "encode cat.png new.dgml --search -1": "error: --search takes a number of steps, 0 or more",
    "encode cat.png new.dgml --search many": "error: argument --search: invalid int value: 'many'",
    "encode cat.png new.dgml --search 5 --checkpoint mine.safetensors": "error: --search",
    "encode cat.png new.dgml --quality 3 --checkpoint mine.safetensors": "error: --quality chooses among the codecs",
    "encode cat.png new.dgml --workers 2": "error: --workers share the files of --out FOLDER",
    "encode cat.png --out new --workers 0": "error: argument --workers: at least 1, not 0",
    "encode cat.png --out new --workers all": "error: argument --workers: invalid count value: 'all'",
    "decode cat.dgml new.png --quality 3": "error: unrecognized arguments: --quality 3",
    "decode cat.dgml new.png --compare": "error: --compare needs --original",
    "decode - new.png --original -": "error: - is the file or the original, and not both",
    "decode - --out new": "error: - has no name that --out or --compare could take",
    "info": "error: the following arguments are required: FILE",
    "info cat.dgml cut.dgml": "error: unrecognized arguments: cut.dgml",
}


@pytest.mark.parametrize("arguments", WRONG_USE)
def test_a_wrong_command_is_explained(folder, run, arguments):
    before = tree(folder)
    status, output, complaints = run(*arguments.split())
    assert (status, output) == (2, "") and complaints.startswith("usage: dgml")
    program, _, line = complaints.splitlines()[-1].partition(": ")
    assert program in ("dgml", f"dgml {arguments.split(' ')[0]}") and line.startswith(WRONG_USE[arguments])
    assert tree(folder) == before


def test_a_package_that_is_not_installed_is_named_with_what_brings_it(run, monkeypatch):
    for name, module in (("train", "accelerate"), ("evaluate", "pytorch_msssim")):
        for loaded in [key for key in sys.modules if key.startswith(("dgml.training", "dgml.evaluation"))]:
            monkeypatch.delitem(sys.modules, loaded)
        monkeypatch.setitem(sys.modules, module, None)  # importing it fails
        given = {"train": "--quality 3 --images x --run y --steps 50", "evaluate": "--report"}[name]
        expected = f"dgml: {name} needs the package {module}: pip install 'dgml[{name}]'\n"
        assert run(name, *given.split()) == (1, "", expected)


def test_ctrl_c_is_one_line(folder, run, monkeypatch):
    def stop(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "read_dgml", stop)
    assert run("info", "cat.dgml") == (130, "", "dgml: stopped\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk that is always full")
def test_an_output_that_is_full_or_has_no_such_letters(folder):
    command = [sys.executable, "-m", "dgml", "info", "cat.dgml"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, env=ENVIRONMENT, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "No space left" in done.stderr
    command[3:] = ["encode", "cat.png", "写真.dgml"]
    done = subprocess.run(command, env=ENVIRONMENT | {"PYTHONIOENCODING": "ascii"}, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "") and Path("写真.dgml").exists()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such pipes")
def test_a_reader_that_has_seen_enough_is_no_error(folder):
    command = f"{sys.executable} -m dgml info cat.dgml | true"
    done = subprocess.run(["bash", "-c", command], env=ENVIRONMENT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
