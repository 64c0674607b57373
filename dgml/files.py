"""Files that are written whole or not at all, and errors as one line; nothing but the standard library."""

import errno
import os
import sys
from contextlib import nullcontext
from pathlib import Path

from dgml.container import MAGIC


def atomic_write(path: Path, data: bytes) -> None:
    """Put ``data`` into a file so that no half file is ever there.

    The mode of a file that was there is kept.  OSError names ``path``.
    """
    target = check_writable(path)
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        part.write_bytes(data)
        if target.exists():
            part.chmod(target.stat().st_mode & 0o7777)
        os.replace(part, target)
    except OSError as error:  # of the part, or, from a disk that fills up, of no file
        raise type(error)(error.errno, error.strerror, str(path)) from None
    finally:
        part.unlink(missing_ok=True)


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
    named = isinstance(error, OSError) and error.filename and error.strerror
    return f"{error.filename}: {error.strerror}" if named else " ".join(str(error).split())


def read_file(path: Path) -> bytes:
    """The bytes of a file, or of the standard input for "-"."""
    return sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()


def read_dgml(path: Path) -> bytes:
    """The same of a .dgml file; of any other, which may be a video or have no end, the first four bytes alone."""
    with nullcontext(sys.stdin.buffer) if str(path) == "-" else path.open("rb") as file:
        start = file.read(len(MAGIC))
        return start + file.read() if start == MAGIC else start
