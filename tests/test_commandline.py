"""The program dgml: what it writes, what it says, and that it changes nothing when it fails."""

import io
import json
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from samples import load, photograph, repaired

from dgml import bitstream, checkpoints, cli, convert, files, images, metrics, settings

ENVIRONMENT = os.environ | {"PYTHONPATH": str(settings.ROOT)}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A picture, its file and some that are neither, in the working folder."""
    monkeypatch.chdir(tmp_path)
    photograph(90, 70).save("cat.png")
    file = bitstream.encode(load(1), photograph(90, 70), 1)
    Path("cat.dgml").write_bytes(file)
    Path("cut.dgml").write_bytes(file[:-4])
    Path("header.dgml").write_bytes(file[:15])
    Path("empty").write_bytes(b"")
    Path("text.txt").write_text("neither a picture nor a file of ours\n")
    Path("cut.png").write_bytes(Path("cat.png").read_bytes()[:5000])
    Path("old.png").write_bytes(b"old")
    Path("old.dgml").write_bytes(b"DGML, old")
    Path("unknown.dgml").write_bytes(repaired(file[:5] + bytes([9]) + file[6:]))
    Path("wrong.dgml").write_bytes(repaired(file[:5] + bytes([2]) + file[6:]))
    Path("folder.png").mkdir()
    return tmp_path


@pytest.fixture
def run(monkeypatch, capsys):
    """A function that runs the program and gives its exit status, its output and its complaints."""

    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)  # put back afterwards

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["dgml", *map(str, arguments)])
        try:
            status = cli.main()
        except SystemExit as stop:  # argparse's
            status = stop.code
        return status, *capsys.readouterr()

    return run


def tree(folder):
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.mark.parametrize("quality", [1, 4])
def test_encode_decode_and_info(folder, run, quality):
    status, output, complaints = run("encode", "cat.png", "new.dgml", "--quality", quality)
    file = Path("new.dgml").read_bytes()
    assert file == bitstream.encode(load(quality), Image.open("cat.png"), quality)
    assert (status, complaints) == (0, "") and f"{len(file)} bytes" in output and " dB" in output

    status, output, complaints = run("decode", "new.dgml", "new.png", "--original", "cat.png")
    assert Image.open("new.png").tobytes() == bitstream.decode(load(quality), file).tobytes()
    error = metrics.psnr(*(images.image_to_tensor(Image.open(name)) for name in ("cat.png", "new.png")))
    assert (status, complaints) == (0, "") and output.endswith(f", {error:.2f} dB\n")

    status, output, complaints = run("info", "new.dgml", "--json")
    facts = json.loads(output)
    expected = {"version": 1, "quality": quality, "height": 70, "width": 90, "file_bytes": len(file)}
    assert (status, complaints) == (0, "") and expected.items() <= facts.items()
    assert facts["fingerprint"] == file[10:14].hex() and facts["stream_bytes"] == len(file) - 22
    assert facts["checksum"] == file[14:18][::-1].hex()

    status, output, complaints = run("info", "new.dgml")
    assert (status, complaints) == (0, "") and dict(line.split() for line in output.splitlines())["width"] == "90"
    assert not list(folder.glob("*.part"))


WRONG = [
    ("encode", "missing.png", "old.dgml"),
    ("encode", "text.txt", "old.dgml"),
    ("encode", "empty", "old.dgml"),
    ("encode", "cut.png", "old.dgml"),
    ("encode", "cat.dgml", "old.dgml"),
    ("encode", "folder.png", "old.dgml"),
    ("encode", "cat.png", "missing/new.dgml"),
    ("encode", "cat.png", "folder.png"),
    ("encode", "cat.png", "."),
    ("decode", "missing.dgml", "old.png"),
    ("decode", "text.txt", "old.png"),
    ("decode", "empty", "old.png"),
    ("decode", "cat.png", "old.png"),
    ("decode", "cut.dgml", "old.png"),
    ("decode", "header.dgml", "old.png"),
    ("decode", "unknown.dgml", "old.png"),
    ("decode", "wrong.dgml", "old.png"),
    ("decode", "folder.png", "old.png"),
    ("decode", "cat.dgml", "new.unknown"),
    ("decode", "cat.dgml", "old.dgml"),
    ("decode", "cat.dgml", "new"),
    ("decode", "cat.dgml", "new.psd"),  # Pillow reads the format only
    ("decode", "cat.dgml", "new.xbm"),  # not in colour
    ("decode", "cat.dgml", "missing/new.png"),
    ("decode", "cat.dgml", "folder.png"),
    ("decode", "cat.dgml", "old.png", "--original", "missing.png"),
    ("decode", "cat.dgml", "old.png", "--original", "text.txt"),
    ("info", "missing.dgml"),
    ("info", "text.txt"),
    ("info", "empty", "--json"),
    ("info", "cut.dgml", "--json"),
    ("info", "folder.png"),
]


@pytest.mark.parametrize("arguments", WRONG, ids=" ".join)
def test_wrong_input_gets_one_line_and_changes_nothing(folder, run, recwarn, arguments):
    before = tree(folder)
    status, output, complaints = run(*arguments)
    assert status == 1 and output == ""
    assert complaints.startswith("dgml: ") and complaints.count("\n") == 1
    assert tree(folder) == before and not list(recwarn)


def test_an_original_of_another_size_is_refused(folder, run):
    photograph(91, 70).save("other.png")
    status, _, complaints = run("decode", "cat.dgml", "old.png", "--original", "other.png")
    assert status == 1 and "91x70" in complaints and complaints.count("\n") == 1
    assert Path("old.png").read_bytes() == b"old"


def test_a_write_that_fails_leaves_nothing(folder, run, monkeypatch):
    def full_disk(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "replace", full_disk)
    before = tree(folder)
    for arguments in (("encode", "cat.png", "old.dgml"), ("decode", "cat.dgml", "old.png")):
        status, _, complaints = run(*arguments)
        assert status == 1 and "No space left" in complaints and complaints.count("\n") == 1
    assert tree(folder) == before


def test_a_disk_that_fills_up_is_one_line_with_the_name(folder, run, monkeypatch):
    def full_disk(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    before = tree(folder)
    for arguments in (("encode", "cat.png", "old.dgml"), ("decode", "cat.dgml", "old.png")):
        assert run(*arguments) == (1, "", f"dgml: {arguments[-1]}: No space left on device\n")
    assert tree(folder) == before


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="Windows has no file without an end")
def test_a_file_without_an_end_is_no_file_of_ours(run):
    for arguments in (("info", "/dev/zero"), ("decode", "/dev/zero", "-")):
        assert run(*arguments) == (1, "", "dgml: this is not a .dgml file\n")


def test_encode_searches_for_a_better_file(folder, run):
    status, output, complaints = run("encode", "cat.png", "new.dgml", "--quality", 6, "--search", 3)
    file = Path("new.dgml").read_bytes()
    assert (status, complaints) == (0, "") and f"{len(file)} bytes" in output
    assert file == bitstream.encode(load(6), Image.open("cat.png"), 6, search=3)
    assert run("decode", "new.dgml", "new.png")[0] == 0


WRONG_USE = [
    (),
    ("encode", "cat.png"),
    ("encode", "cat.png", "new.dgml", "--quality", "7"),
    ("encode", "cat.png", "new.dgml", "--search", "-1"),
    ("encode", "cat.png", "new.dgml", "--search", "many"),
    ("encode", "cat.png", "new.dgml", "--search", "5", "--checkpoint", "mine.safetensors"),
    ("decode", "-", "new.png", "--original", "-"),
]


@pytest.mark.parametrize("arguments", WRONG_USE)
def test_a_wrong_command_is_explained(folder, run, arguments):
    before = tree(folder)
    status, output, complaints = run(*arguments)
    assert status == 2 and output == "" and "usage: dgml" in complaints
    assert tree(folder) == before


# ---------------------------------------------------------------- many files


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
    status, _, complaints = run("encode", "void", "--out", "coded")
    assert status == 1 and complaints == "dgml: void: there is nothing to encode\n"


def test_a_folder_gives_the_pictures_that_chapters_find(folder, run):
    photograph(40, 30).save("folder.png/scan.photo", "png")
    Path("folder.png/film.mpg").write_bytes(b"no film")
    Path("folder.png/.thumbs").mkdir()
    photograph(40, 30).save("folder.png/.thumbs/t.png")
    status, output, complaints = run("encode", "folder.png", "--out", "folder.png", "--quality", "1")
    assert status == 0 and output.startswith(f"{Path('folder.png/scan.dgml')}: ")
    assert complaints == "left out of folder.png: .thumbs (hidden); film.mpg (damaged)\n"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["encode", "cat.png", "text.txt"], "text.txt is there and is no .dgml file: give OUT another name"),
        (["decode", "cat.dgml", "cat.png", "--original", "cat.png"],
         "cat.png is the original, and would be replaced: give OUT another name"),
        (["decode", "cat.dgml", "x.png", "--compare", "--original", "x.compare.png"],
         "x.compare.png is the original, and would be replaced: give OUT another name"),
        (["decode", "cat.dgml", "--out", "."], "1 of 1 failed\n  cat.dgml: cat.png is there already: move it away, "
         "or give another --out"),
    ],
)  # fmt: skip
def test_what_is_no_result_of_ours_is_not_replaced(folder, run, arguments, complaint):
    before = tree(folder)
    assert run(*arguments) == (1, "", f"dgml: {complaint}\n")
    assert tree(folder) == before


# ---------------------------------------------------------------- what else it can do


def test_original_and_decoded_side_by_side(folder, run):
    assert run("decode", "cat.dgml", "new.webp", "--original", "cat.png", "--compare")[0] == 0
    both = np.asarray(Image.open("new.compare.png"))
    decoded = bitstream.decode(load(1), Path("cat.dgml").read_bytes())
    assert both.shape == (70, 188, 3) and (both[:, 90:98] == 255).all()
    assert np.array_equal(both[:, :90], np.asarray(photograph(90, 70)))
    assert np.array_equal(both[:, 98:], np.asarray(decoded))


def test_what_compare_would_replace_stays(folder, run):
    photograph(90, 70).save("new.compare.png")
    before = tree(folder)
    for source in ("cat.png", "new.compare.png"):
        status, _, complaints = run("encode", source, "new.dgml", "--compare")
        assert status == 1 and "new.compare.png" in complaints and complaints.count("\n") == 1
    assert tree(folder) == before


def test_an_output_folder_may_lie_above(folder, run):
    photograph(40, 30).save("folder.png/a.png")
    assert run("encode", "folder.png", "--out", ".", "--quality", "1")[0] == 0
    assert Path("a.dgml").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk that is always full")
def test_an_output_that_is_full_or_has_no_such_letters(folder):
    command = [sys.executable, "-m", "dgml", "info", "cat.dgml"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, env=ENVIRONMENT, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "No space left" in done.stderr
    command[3:] = ["encode", "cat.png", "写真.dgml"]
    done = subprocess.run(command, env=ENVIRONMENT | {"PYTHONIOENCODING": "ascii"}, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "") and Path("写真.dgml").exists()


def test_ones_own_checkpoint(folder, run):
    path = checkpoints.checkpoint_path(2, "bundled")
    assert run("encode", "cat.png", "new.dgml", "--checkpoint", path)[0] == 0
    assert Path("new.dgml").read_bytes() == bitstream.encode(load(2), photograph(90, 70), 0)
    status, _, complaints = run("decode", "new.dgml", "new.png")
    assert status == 1 and "--checkpoint" in complaints
    assert run("decode", "new.dgml", "new.png", "--checkpoint", path)[0] == 0


@pytest.mark.slow
def test_a_process_that_reads_and_writes_pipes(folder):
    def program(*arguments, given=b""):
        command = [sys.executable, "-m", "dgml", *arguments]
        return subprocess.run(command, env=ENVIRONMENT, input=given, capture_output=True)

    coded = program("encode", "-", "-", "--quality", "1", given=Path("cat.png").read_bytes())
    assert coded.returncode == 0 and coded.stdout == Path("cat.dgml").read_bytes()
    assert coded.stderr.count(b"\n") == 1 and b" dB" in coded.stderr
    bad = program("info", "-", given=Path("cut.dgml").read_bytes())
    assert (bad.returncode, bad.stdout) == (1, b"") and bad.stderr.startswith(b"dgml: the file is damaged")


def test_a_picture_for_a_pipe_is_a_png(folder, run, monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(Path("cat.dgml").read_bytes())))
    monkeypatch.setattr(
        convert, "sys", SimpleNamespace(stdout=SimpleNamespace(buffer=written), stderr=sys.stderr, platform="")
    )
    assert run("decode", "-", "-")[:2] == (0, "")
    picture = Image.open(written)
    assert picture.format == "PNG"
    assert picture.tobytes() == bitstream.decode(load(1), Path("cat.dgml").read_bytes()).tobytes()


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["info", "cat.dgml"], ["info", "cut.dgml"], ["encode"]]
)
def test_what_codes_nothing_imports_no_torch(folder, arguments):
    code = (
        "import sys\n"
        "from dgml.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'compressai', 'constriction', 'PIL', 'matplotlib', 'IPython'} & sys.modules.keys()\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_ctrl_c_is_one_line(folder, run, monkeypatch):
    def stop(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(bitstream.FileCodec, "encode", stop)
    before = tree(folder)
    assert run("encode", "cat.png", "new.dgml") == (130, "", "dgml: stopped\n")
    assert tree(folder) == before


def test_a_bad_place_is_noticed_before_anything_is_coded(folder, run, monkeypatch):
    monkeypatch.setattr(bitstream.FileCodec, "encode", None)
    monkeypatch.setattr(bitstream.FileCodec, "decode", None)
    for arguments in (
        ("encode", "cat.png", "missing/new.dgml"),
        ("encode", "cat.png", "old.png"),
        ("decode", "cat.dgml", "missing/new.png"),
        ("decode", "cat.dgml", "old.dgml"),
        ("decode", "cat.dgml", "new.png", "--original", "missing.png"),
    ):
        status, _, complaints = run(*arguments)
        assert status == 1 and complaints.count("\n") == 1


def test_a_format_that_changes_the_size_is_refused(folder, run):
    status, _, complaints = run("decode", "cat.dgml", "new.ico")
    assert status == 1 and "90x70" in complaints and not Path("new.ico").exists()


@pytest.mark.skipif(os.name == "nt", reason="Windows has neither modes nor FIFOs")
def test_what_is_no_regular_file_stays_what_it_is(folder, run):
    os.mkfifo("pipe")
    status, _, complaints = run("encode", "cat.png", "pipe")
    assert status == 1 and "no regular file" in complaints and Path("pipe").is_fifo()
    assert run("encode", "cat.png", "/dev/null")[0] == 1
    Path("link.dgml").symlink_to("old.dgml")
    Path("old.dgml").chmod(0o600)
    assert run("encode", "cat.png", "link.dgml", "--quality", "1")[0] == 0
    assert Path("link.dgml").is_symlink() and Path("old.dgml").read_bytes() == Path("cat.dgml").read_bytes()
    assert Path("old.dgml").stat().st_mode & 0o777 == 0o600


# ---------------------------------------------------------------- large and broken pictures


def png(width, height, pixels=True):
    """A black PNG of one bit a pixel, or one whose pixels break off before a chunk that is not called anything."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    if not pixels:
        return start + chunk(b"IDAT", b"\x78") + chunk(b"I\xfa\xfaT", b"")
    rows = zlib.compress(bytes(((width + 7) // 8 + 1) * height))
    return start + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_a_picture_that_is_too_wide(folder, run, recwarn):
    Path("wide.png").write_bytes(png(65536, 1))
    status, _, complaints = run("encode", "wide.png", "old.dgml")
    assert status == 1 and "65536x1 pixels does not fit" in complaints and not list(recwarn)
    assert Path("old.dgml").read_bytes() == b"DGML, old"


@pytest.mark.parametrize("size", [(14000, 10000), (65535, 65535)])
def test_a_picture_that_is_too_large_is_refused_before_it_is_read(folder, run, recwarn, size):
    Path("large.png").write_bytes(png(*size, pixels=False))
    before = tree(folder)
    status, output, complaints = run("encode", "large.png", "old.dgml")
    assert status == 1 and output == "" and "does not fit" in complaints and complaints.count("\n") == 1
    assert tree(folder) == before and not list(recwarn)


def test_a_picture_that_breaks_off(folder, run):
    Path("broken.png").write_bytes(png(64, 64, pixels=False))
    before = tree(folder)
    status, output, complaints = run("encode", "broken.png", "old.dgml")
    assert status == 1 and output == "" and complaints.count("\n") == 1
    assert tree(folder) == before
