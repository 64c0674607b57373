"""Many files on the command line: in one process or several, with the same files and the same words."""

import os
import signal
import subprocess
import sys
import threading
import time
from multiprocessing import active_children
from pathlib import Path

import pytest
from PIL import Image
from program import ENVIRONMENT, tree
from samples import load, photograph

from dgml import bitstream, convert, folders, workers


@pytest.fixture(autouse=True)
def main_as_python_starts_it(monkeypatch):
    """The main module of a pytest-xdist worker lacks what a new process asks for."""
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None, raising=False)


not_windows = pytest.mark.skipif(os.name == "nt", reason="Windows has other signals")


def test_a_folder_is_encoded_and_decoded_and_what_fails_is_told(folder, run, capsys):
    Path("in/deep").mkdir(parents=True)
    for name in ("in/one.png", "in/deep/two.jpg"):
        photograph(40, 30).save(name)
    for name in ("in/notes.txt", "in/bad.png", "text.png"):
        Path(name).write_text("no picture")
    arguments = ("in", "text.png", "cat.png", "--out", "coded", "--quality", "1", "--compare")
    status, output, complaints = run("encode", *arguments)
    assert status == 1 and complaints.splitlines() == [
        "left out of in: bad.png (damaged); notes.txt (no picture)",
        "dgml: 1 of 4 failed",
        "  text.png is no picture that Pillow reads",
    ]
    assert [line.split(": ")[0] for line in output.splitlines()] == [
        str(Path(f"coded/{name}.dgml")) for name in ("deep/two", "one", "cat")
    ]
    assert Path("coded/cat.dgml").read_bytes() == Path("cat.dgml").read_bytes()
    assert Image.open("coded/deep/two.compare.png").size == (88, 30)
    status, output, complaints = run("decode", "coded", "--out", "decoded")
    assert (status, complaints) == (0, "")
    assert sorted(path.as_posix() for path in Path("decoded").rglob("*.png")) == [
        "decoded/cat.png",
        "decoded/deep/two.png",
        "decoded/one.png",
    ]
    decoded = bitstream.decode(load(1), Path("cat.dgml").read_bytes())
    assert Image.open("decoded/cat.png").tobytes() == decoded.tobytes()


def test_two_pictures_of_one_name_do_not_overwrite_each_other(folder, run):
    photograph(40, 30).save("cat.bmp")
    status, output, complaints = run("encode", "cat.png", "cat.bmp", "--out", "coded", "--quality", "1")
    assert status == 1 and "was written from another file" in complaints and output.count("\n") == 1
    assert Path("coded/cat.dgml").read_bytes() == Path("cat.dgml").read_bytes()


def test_a_second_run_does_not_take_its_own_results_for_pictures(folder, run):
    Path("in").mkdir()
    photograph(40, 30).save("in/one.png")
    for _ in range(2):
        assert run("encode", "in", "--out", "in/coded", "--quality", "1", "--compare")[0] == 0
    assert sorted(path.name for path in Path("in/coded").rglob("*")) == ["one.compare.png", "one.dgml"]


def test_the_codec_is_loaded_once(folder, run, monkeypatch):
    loaded = []
    convert.codec_of.cache_clear()
    monkeypatch.setattr(convert, "load_codec", lambda quality: loaded.append(quality) or load(quality))
    photograph(40, 30).save("dog.png")
    assert run("encode", "cat.png", "dog.png", "--out", "coded", "--quality", "2")[0] == 0
    convert.codec_of.cache_clear()
    assert loaded == [2]


def test_nothing_to_do_is_an_error(folder, run):
    Path("void").mkdir()
    for command in ("encode", "decode"):
        assert run(command, "void", "--out", "coded") == (1, "", f"dgml: void: there is nothing to {command}\n")


def test_a_folder_gives_the_pictures_that_chapters_find(folder, run):
    photograph(40, 30).save("folder.png/scan.photo", "png")
    Path("folder.png/film.mpg").write_bytes(b"no film")
    Path("folder.png/.thumbs").mkdir()
    photograph(40, 30).save("folder.png/.thumbs/t.png")
    status, output, complaints = run("encode", "folder.png", "--out", "folder.png", "--quality", "1")
    assert status == 0 and output.startswith(f"{Path('folder.png/scan.dgml')}: ")
    assert complaints == "left out of folder.png: .thumbs (hidden); film.mpg (damaged)\n"


def test_an_output_folder_may_lie_above(folder, run):
    photograph(40, 30).save("folder.png/a.png")
    assert run("encode", "folder.png", "--out", ".", "--quality", "1")[0] == 0
    assert Path("a.dgml").exists()


# ---------------------------------------------------------------- worker processes


def test_two_workers_write_and_say_what_one_does(folder, run):
    """Among the files one that can't be read, two of one name, and two of one name of which only the second is good."""
    Path("in").mkdir()
    for name in ("in/a.png", "in/a.bmp", "in/c.png", "in/d.jpg"):
        photograph(40, 30).save(name)
    Path("c.png").write_bytes(b"no picture")
    command = ("encode", "missing.png", "c.png", "in", "text.txt", "--quality", "1", "--compare", "--out")
    one = run(*command, "out", "--workers", "1")
    files = tree(folder / "out")
    Path("out").rename("before")
    assert one[0] == 1 and one[1].count("\n") == 3 and one[2].count("\n") == 5
    assert run(*command, "out", "--workers", "2") == one
    assert tree(folder / "out") == files and not active_children()
    one = run("decode", "out", "cut.dgml", "--out", "one", "--workers", "1")
    assert one[0] == 1 and "cut.dgml: the file is damaged" in one[2]
    status, output, complaints = run("decode", "out", "cut.dgml", "--out", "two", "--workers", "2")
    assert (status, output.replace("two", "one"), complaints) == one
    assert [*tree(folder / "two").values()] == [*tree(folder / "one").values()]


@not_windows
def test_a_worker_that_is_killed(folder, run):
    """What the worker does not finish is named in one line, what others have done stays, nothing half is left."""
    many_pictures("in", 12)

    def kill_one():
        # With three files from two workers one has handed in a result: a kill right after a first file may precede it.
        while len(list(folder.glob("out/*.dgml"))) < 3:
            time.sleep(0.01)
        os.kill(active_children()[0].pid, signal.SIGKILL)

    killer = threading.Thread(target=kill_one)
    killer.start()
    status, output, complaints = run("encode", "in", "--out", "out", "--quality", "1", "--search", "20", "--workers", 2)
    killer.join()
    done = [line.split(":")[0] for line in output.splitlines()]
    assert status == 1 and 1 <= len(done) < 12 and not list(Path("out").glob("*.part"))
    assert all(bitstream.decode(load(1), Path(name).read_bytes()).size == (64, 64) for name in done)
    start, _, names = complaints.partition("not encoded: ")
    assert start == "dgml: a worker was killed, or out of memory; " and complaints.count("\n") == 1
    assert names.strip().split(", ") == [str(path) for path in sorted(Path("in").iterdir())][len(done) :]


@not_windows
@pytest.mark.parametrize("moment", ["starting", "coding"])
def test_ctrl_c_ends_all_workers_in_one_line(tmp_path, moment):
    process = coding(tmp_path, moment)
    pressed = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    _, complaints = process.communicate()
    assert time.monotonic() - pressed < 10
    assert (process.returncode, complaints) == (130, "dgml: stopped\n")
    assert ends(process.pid)
    for path in (tmp_path / "out").glob("*"):
        assert bitstream.decode(load(1), path.read_bytes()).size == (64, 64)  # a .part is none


@not_windows
def test_workers_end_with_the_process_that_started_them(tmp_path):
    process = coding(tmp_path, "coding")
    process.kill()
    process.communicate()
    assert ends(process.pid)


def many_pictures(folder, count: int) -> None:
    Path(folder).mkdir()
    for i in range(count):
        photograph(64, 64).rotate(90 * i).save(Path(folder, f"{i:02}.png"))


def coding(folder: Path, moment: str) -> subprocess.Popen:
    """A process, first of its group, whose two workers are starting, or have coded the first of many pictures."""
    many_pictures(folder / "in", 40)
    command = [sys.executable, "-m", "dgml", "encode", "in", "--out", "out", "--quality", "1", "--search", "20"]
    process = subprocess.Popen([*command, "--workers", "2"], cwd=folder, env=ENVIRONMENT, start_new_session=True,
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)  # fmt: skip
    # This process and the one that watches over semaphores are the first two.
    ready = (lambda: len(left_of(process.pid)) > 2) if moment == "starting" else lambda: [*folder.glob("out/*.dgml")]
    while not ready():
        assert process.poll() is None
        time.sleep(0.02)
    return process


def ends(group: int) -> bool:
    """Whether all processes of a group end within ten seconds."""
    return any(not left_of(group) or time.sleep(0.1) for _ in range(100))


def left_of(group: int) -> list[str]:
    """The processes of a group that have not ended."""
    listed = subprocess.run(["ps", "-A", "-o", "pgid=,stat=,args="], capture_output=True, text=True).stdout
    return [line for line in listed.splitlines() if line.split()[0] == str(group) and line.split()[1][0] != "Z"]


def test_a_worker_has_one_thread_leaves_ctrl_c_alone_and_says_things_in_turn(capsys, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    says = "import sys; print('{}', file=sys.stderr)"
    with workers.crew(2, int) as begin:  # jobs of the standard library: a worker would load torch for this file's
        last, threads, handler = (begin(exec, says.format("last")), begin(os.getenv, "OMP_NUM_THREADS"),
                                  begin(signal.getsignal, signal.SIGINT))  # fmt: skip
        begin(exec, says.format("first"))()
        last()
        assert (threads(), handler()) == ("1", signal.SIG_IGN)
    assert capsys.readouterr().err == "first\nlast\n"
    assert os.environ["OMP_NUM_THREADS"] == "7" and signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_processes_are_no_more_than_the_files(folder, run, monkeypatch):
    asked = []
    crew = folders.crew
    monkeypatch.setattr(folders, "crew", lambda count, prepare: asked.append(count) or crew(1, prepare))
    photograph(40, 30).save("dog.png")
    for given in (["--workers", "5"], ["--workers", "1"], []):
        assert run("encode", "cat.png", "dog.png", "--out", "coded", "--quality", "1", *given)[0] == 0
    assert asked == [2, 1, 1]  # the fixture has one core
