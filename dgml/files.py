"""Files that are written whole or not at all, and errors as one line; nothing but the standard library."""

import errno
import os
import stat
import sys
from contextlib import AbstractContextManager, nullcontext
from multiprocessing import parent_process
from pathlib import Path
from typing import BinaryIO

from dgml.container import MAGIC

COMPARED = ".compare.png"  # what --compare adds to a name
MOST = 2**30  # bytes that are read of what may have no end


def atomic_write(path: Path, data: bytes) -> None:
    """Put ``data`` into a file so that no half file is ever there.

    The mode of a file that was there is kept.  OSError names ``path``.
    """
    target, part = check_writable(path), part_of(path)
    try:
        part.write_bytes(data)
        if target.exists():
            part.chmod(target.stat().st_mode & 0o7777)
        os.replace(part, target)
    except OSError as error:  # of the part, or, from a disk that fills up, of no file
        raise type(error)(error.errno, error.strerror, str(path)) from None
    finally:
        part.unlink(missing_ok=True)


def part_of(path: Path) -> Path:
    """Where a file is written before it gets its name.

    A process and its workers have one name for it, so that the process can clear up after a worker that was killed.
    """
    parent = parent_process()
    target = Path(path).resolve()
    return target.with_name(f"{target.name}.{parent.pid if parent else os.getpid()}.part")


def compared(target: Path) -> Path:
    """Where --compare puts the original and what was decoded, side by side."""
    return target.with_name(target.stem + COMPARED)


def check_writable(path: Path) -> Path:
    """The file behind a symlink; OSError for what is no regular file, or may not be written."""
    target = Path(path).resolve()
    if target.exists() and not target.is_file():
        raise OSError(errno.EINVAL, "there is something that is no regular file", str(path))
    if not os.access(target if target.exists() else target.parent, os.W_OK):
        raise OSError(errno.EACCES, "it may not be written", str(path))
    return target


def error_line(error: Exception) -> str:
    """One line on what went wrong; of the system's errors the name of the file and what is wrong with it."""
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


def is_pipe(path: Path) -> bool:
    """Whether the name stands for the standard input or output."""
    return str(path) == "-"


def open_source(path: Path) -> AbstractContextManager[BinaryIO]:
    """A file, a FIFO or the standard input, open for reading; ValueError for a device, which may have no end."""
    if is_pipe(path):
        return nullcontext(sys.stdin.buffer)
    mode = path.stat().st_mode
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        raise ValueError(f"{path} is a device, and no file")
    return path.open("rb")


def read_rest(file: BinaryIO) -> bytes:
    """What is left of a file; ValueError where that is more than 1 GiB."""
    data = file.read(MOST + 1)
    if len(data) > MOST:
        raise ValueError("the input is larger than 1 GiB, the most that is read")
    return data


def read_dgml(path: Path) -> bytes:
    """The bytes of a .dgml file; of any other, which may be a video, the first four alone."""
    with open_source(path) as file:
        start = file.read(len(MAGIC))
        return start + read_rest(file) if start == MAGIC else start
