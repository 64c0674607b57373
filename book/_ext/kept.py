"""What takes long to make and seldom changes: kept in ``_build/kept``, which a new build of the site leaves alone."""

import os
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "_build" / "kept"
used: set[Path] = set()


def kept(source: bytes, make: Callable[[Path], object]) -> Path:
    """The file or folder that ``make`` writes at a path that it is given; made once for each ``source``."""
    path = FOLDER / sha256(source).hexdigest()[:32]
    used.add(path)
    if not path.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.{os.getpid()}")
        make(part)
        part.replace(path)
    return path


def files(*patterns: str) -> bytes:
    """What the files of the tree hold that these patterns name."""
    paths = sorted(path for pattern in patterns for path in ROOT.glob(pattern))
    return b"".join(sha256(path.read_bytes()).digest() for path in paths)


def webp(picture, target: Path, **options) -> None:
    """Save a picture as WebP; encoding one without loss takes up to a second."""
    source = repr((picture.mode, picture.size, sorted(options.items()))).encode() + picture.tobytes()
    shutil.copyfile(kept(source, lambda path: picture.save(path, "WEBP", method=6, **options)), target)


def prune() -> None:
    """Drop what this build had no use for."""
    for path in {*FOLDER.glob("*")} - used:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
