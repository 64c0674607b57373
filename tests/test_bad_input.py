"""Sources and targets that are no plain files, or may not be used: one clear line, and nothing is overwritten."""

import os
import subprocess
import sys
import tempfile
import threading
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from program import ENVIRONMENT, fill, tree

from dgml import files

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has neither these devices and modes nor FIFOs")


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null"])
@pytest.mark.parametrize("command", ["encode {} old.dgml", "decode {} old.png", "info {}",
                                     "decode cat.dgml old.png --original {}"])  # fmt: skip
def test_a_device_is_refused_before_it_is_read(folder, run, command, device):
    before = tree(folder)
    assert run(*command.format(device).split()) == (1, "", f"dgml: {device} is a device, and no file\n")
    assert tree(folder) == before


def test_devices_among_many_files(folder, run):
    status, output, complaints = run("encode", "/dev/zero", "cat.png", "--out", "coded", "--quality", "1")
    assert status == 1 and output.startswith("coded/cat.dgml: ") and output.count("\n") == 1
    assert complaints == "dgml: 1 of 2 failed\n  /dev/zero is a device, and no file\n"


@contextmanager
def fifo(data: bytes):
    """The name of a FIFO that someone writes ``data`` into."""

    def write():
        with suppress(BrokenPipeError):  # who reads has seen enough
            Path("pipe").write_bytes(data)

    os.mkfifo("pipe")
    writer = threading.Thread(target=write)
    writer.start()
    yield "pipe"
    writer.join()
    os.unlink("pipe")


def test_a_fifo_gives_a_picture_or_a_file(folder, run):
    with fifo(Path("cat.png").read_bytes()) as source:
        assert run("encode", source, "new.dgml", "--quality", "1")[0] == 0
    assert Path("new.dgml").read_bytes() == Path("cat.dgml").read_bytes()
    for command in (["info"], ["decode", "new.png"]):
        with fifo(Path("cat.dgml").read_bytes()) as source:
            assert run(command[0], source, *command[1:])[0] == 0
    assert Path("new.png").exists()


@pytest.mark.parametrize("command", ["encode pipe old.dgml", "decode pipe old.png", "info pipe"])
def test_what_has_no_end_is_read_to_a_bound(folder, run, monkeypatch, command):
    monkeypatch.setattr(files, "MOST", 2**18)
    before = tree(folder)
    with fifo(b"DGML" + bytes(2**20)):
        status, output, complaints = run(*command.split())
    assert (status, output) == (1, "") and complaints.count("\n") == 1
    assert complaints.endswith("the input is larger than 1 GiB, the most that is read\n")
    assert tree(folder) == before


def test_a_huge_file_that_is_no_picture_is_not_read(folder, run):
    """A terabyte without content, which no memory holds."""
    with open("huge.png", "wb") as file:
        file.truncate(2**40)
    for command, line in (("encode huge.png old.dgml", "huge.png is no picture that Pillow reads"),
                          ("info huge.png", "this is not a .dgml file")):  # fmt: skip
        assert run(*command.split()) == (1, "", f"dgml: {line}\n")
    assert Path("old.dgml").read_bytes() == b"DGML, old"


def test_an_out_that_is_a_file(folder, run):
    before = tree(folder)
    for command in ("encode", "decode"):
        assert run(command, "cat.dgml", "--out", "old.png") == (
            1, "", "dgml: old.png is no folder, and --out names one\n")  # fmt: skip
        status, _, complaints = run(command, "cat.dgml", "--out", "old.png/new")
        assert status == 1 and complaints.endswith("cat.dgml: old.png/new: Not a directory\n")
    assert tree(folder) == before


# ---------------------------------------------------------------- what may not be read or written


@pytest.fixture
def no_rights(monkeypatch):
    """The working folder of one who is not root, with a file, a folder and a target that are closed to him."""
    with tempfile.TemporaryDirectory() as name:  # pytest's own folder is closed to others as a whole
        os.chmod(name, 0o777)
        monkeypatch.chdir(name)
        fill(Path(name))
        for closed in ("closed", "shut", "shut/deep"):
            Path(closed).mkdir()
            Path(closed, "cat.dgml").write_bytes(Path("cat.dgml").read_bytes())
            Path(closed, "cat.png").write_bytes(Path("cat.png").read_bytes())
        modes = {"closed": 0o000, "shut/deep": 0o000, "shut": 0o755, "cut.png": 0o000, "old.dgml": 0o444}
        for path, mode in modes.items():
            os.chmod(path, mode)
        root = os.getuid() == 0
        if root:
            os.setresuid(65534, 65534, 0)
        try:
            yield
        finally:
            if root:
                os.setresuid(0, 0, 0)
            for path in modes:
                os.chmod(path, 0o700)


def test_what_may_not_be_read_or_written(no_rights, run):
    assert run("encode", "cut.png", "new.dgml") == (1, "", "dgml: cut.png: Permission denied\n")
    assert run("info", "closed/cat.dgml") == (1, "", "dgml: closed/cat.dgml: Permission denied\n")
    assert run("encode", "cat.png", "old.dgml") == (1, "", "dgml: old.dgml: it may not be written\n")
    assert run("encode", "cat.png", "shut/new.dgml") == (1, "", "dgml: shut/new.dgml: it may not be written\n")
    for command in ("encode", "decode"):
        assert run(command, "closed", "--out", "new") == (
            1, "", "left out of closed: closed (a folder that can't be read)\n"
                   f"dgml: closed: there is nothing to {command}\n")  # fmt: skip
        status, output, complaints = run(command, "shut", "--out", "new")
        assert (status, output.count("\n")) == (0, 1)
        assert complaints.startswith("left out of shut: deep (a folder that can't be read)")
    status, _, complaints = run("decode", "cat.dgml", "--out", "shut/new")
    assert (status, complaints) == (1, "dgml: 1 of 1 failed\n  cat.dgml: shut/new: Permission denied\n")
    assert not Path("new.dgml").exists()


@contextmanager
def small_disk(most: int):
    """No file can grow beyond so many bytes, as on a disk that is full; the write itself fails."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_is_full_in_the_middle_of_a_file(folder, run):
    Path("cat.bmp").write_bytes(Path("cat.png").read_bytes())
    before = tree(folder)
    with small_disk(100):
        assert run("encode", "cat.png", "old.dgml") == (1, "", "dgml: old.dgml: File too large\n")
        assert run("decode", "cat.dgml", "old.png") == (1, "", "dgml: old.png: File too large\n")
    assert tree(folder) == before
    with small_disk(100):
        status, output, complaints = run("decode", "cat.dgml", "--out", "new")
    assert (status, output) == (1, "") and complaints.endswith("  cat.dgml: new/cat.png: File too large\n")
    assert not [*Path("new").iterdir()]


def test_two_writers_of_one_file(tmp_path):
    """A reader finds the one's file or the other's, whole; and nothing else is left."""
    code = "import sys, pathlib; from dgml.files import atomic_write\n"
    code += "for _ in range(200): atomic_write(pathlib.Path('file'), sys.argv[1].encode() * 2**20)"
    writers = [subprocess.Popen([sys.executable, "-c", code, name], env=ENVIRONMENT, cwd=tmp_path) for name in "ab"]
    found = set()
    while any(writer.poll() is None for writer in writers):
        if (tmp_path / "file").exists():
            found.add((tmp_path / "file").read_bytes())
    assert [writer.returncode for writer in writers] == [0, 0]
    assert found <= {b"a" * 2**20, b"b" * 2**20} and [path.name for path in tmp_path.iterdir()] == ["file"]
