"""What the tests of the command line share: a folder with good and bad files, and how it looks."""

import os
from pathlib import Path

from samples import load, photograph, repaired

from dgml import bitstream, settings

ENVIRONMENT = os.environ | {"PYTHONPATH": str(settings.ROOT)}  # of a process that runs elsewhere


def fill(folder: Path) -> None:
    """A picture, its file and some that are neither."""
    photograph(90, 70).save(folder / "cat.png")
    file = bitstream.encode(load(1), photograph(90, 70), 1)
    contents = {
        "cat.dgml": file,
        "cut.dgml": file[:-4],
        "header.dgml": file[:15],
        "empty": b"",
        "text.txt": b"neither a picture nor a file of ours\n",
        "cut.png": (folder / "cat.png").read_bytes()[:5000],
        "old.png": b"old",
        "old.dgml": b"DGML, old",
        "unknown.dgml": repaired(file[:5] + bytes([9]) + file[6:]),
        "wrong.dgml": repaired(file[:5] + bytes([2]) + file[6:]),
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    (folder / "folder.png").mkdir()


def tree(folder: Path) -> dict[Path, bytes | None]:
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}
