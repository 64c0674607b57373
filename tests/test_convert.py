"""One picture or file on the command line: what is written and said, and that nothing changes when it fails."""

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
from program import ENVIRONMENT, tree
from samples import load, photograph

from dgml import bitstream, checkpoints, convert, files, images, metrics


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
    metadata = json.loads(output)
    expected = {"version": 1, "quality": quality, "height": 70, "width": 90, "file_bytes": len(file)}
    assert (status, complaints) == (0, "") and expected.items() <= metadata.items()
    assert metadata["fingerprint"] == file[10:14].hex() and metadata["stream_bytes"] == len(file) - 22
    assert metadata["checksum"] == file[14:18][::-1].hex()

    status, output, complaints = run("info", "new.dgml")
    assert (status, complaints) == (0, "") and dict(line.split() for line in output.splitlines())["width"] == "90"
    assert not list(folder.glob("*.part"))


# What is wrong -> what the one line says, after "dgml: ".
WRONG = {
    "encode missing.png old.dgml": "missing.png: No such file or directory",
    "encode text.txt old.dgml": "text.txt is no picture that Pillow reads",
    "encode empty old.dgml": "empty is no picture that Pillow reads",
    "encode cut.png old.dgml": "cut.png: image file is truncated",
    "encode cat.dgml old.dgml": "cat.dgml is no picture that Pillow reads",
    "encode folder.png old.dgml": "folder.png is a folder: give --out FOLDER to encode what is in it",
    "encode cat.png missing/new.dgml": "missing/new.dgml: there is no folder missing",
    "encode cat.png folder.png": "folder.png is a picture's name, and what is written is none: call it folder.dgml",
    "encode cat.png .": ". is a folder: name a file in it, or give --out .",
    "decode missing.dgml old.png": "missing.dgml: No such file or directory",
    "decode text.txt old.png": "this is not a .dgml file",
    "decode empty old.png": "this is not a .dgml file",
    "decode cat.png old.png": "this is not a .dgml file",
    "decode cut.dgml old.png": "the file is damaged: its checksum does not fit its content",
    "decode header.dgml old.png": "the file is cut short: 15 bytes, the header alone has 22",
    "decode unknown.dgml old.png": "the file names quality 9, there are checkpoints for 1 to 6; --checkpoint loads",
    "decode wrong.dgml old.png": "the file was written with other weights (fingerprint",
    "decode folder.png old.png": "folder.png is a folder: give --out FOLDER to decode what is in it",
    "decode cat.dgml new.unknown": "new.unknown: no picture format has the suffix '.unknown'; try .png",
    "decode cat.dgml old.dgml": "old.dgml: no picture format has the suffix '.dgml'; try .png",
    "decode cat.dgml new": "new: no picture format has the suffix ''; try .png",
    "decode cat.dgml new.psd": "new.psd: no picture format has the suffix '.psd'; try .png",  # Pillow only reads it
    "decode cat.dgml new.xbm": "new.xbm: cannot write mode RGB as XBM",
    "decode cat.dgml missing/new.png": "missing/new.png: there is no folder missing",
    "decode cat.dgml folder.png": "folder.png is a folder: name a file in it, or give --out folder.png",
    "decode cat.dgml old.png --original missing.png": "missing.png: No such file or directory",
    "decode cat.dgml old.png --original text.txt": "text.txt is no picture that Pillow reads",
    "info missing.dgml": "missing.dgml: No such file or directory",
    "info text.txt": "this is not a .dgml file",
    "info empty --json": "this is not a .dgml file",
    "info cut.dgml --json": "the file is damaged: its checksum does not fit its content",
    "info folder.png": "folder.png: Is a directory",
}


@pytest.mark.parametrize("arguments", WRONG)
def test_wrong_input_gets_one_line_and_changes_nothing(folder, run, recwarn, arguments):
    before = tree(folder)
    status, output, complaints = run(*arguments.split())
    assert (status, output) == (1, "")
    assert complaints.startswith(f"dgml: {WRONG[arguments]}") and complaints.count("\n") == 1
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


def test_encode_searches_for_a_better_file(folder, run):
    status, output, complaints = run("encode", "cat.png", "new.dgml", "--quality", 6, "--search", 3)
    file = Path("new.dgml").read_bytes()
    assert (status, complaints) == (0, "") and f"{len(file)} bytes" in output
    assert file == bitstream.encode(load(6), Image.open("cat.png"), 6, search=3)
    assert run("decode", "new.dgml", "new.png")[0] == 0


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
