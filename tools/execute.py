"""Execute the chapters whose outputs are out of date; :func:`update` is what the build calls.

A run is kept as ``_build/executed/NAME-KEY.ipynb``.  KEY is the SHA-256 of the chapter's own code and of all that every
chapter sees: modules, checkpoints, packages, settings.  Which other files of the tree a chapter opened as it ran (a
result, the bibliography) is noted in the run, each with its SHA-256.  No file's time plays a part.
"""

import inspect
import json
import os
import platform
import re
import sys
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from traitlets.config import Config

SEEN = ("helpers.py", "dgml/**/*.py", "checkpoints/**/*")
# Beside those of requirements-reader.txt: what runs a cell, and what dgml.training takes where it is installed.
PACKAGES = ("ipykernel", "accelerate", "pytorch-optimizer")
OF_TESTS = ("DGML_BROWSER", "DGML_FUZZ", "DGML_ODD", "DGML_SITE")
TIMEOUT = 600  # seconds for a cell
COVERED = {"helpers.py", "dgml", "checkpoints"}  # by the key
OURS = {"notebooks", "__pycache__", ".venv", "_build"}  # no chapter's material


def update(root: Path, workers: int | None = None, force: bool = False) -> tuple[dict[str, Path], list[str]]:
    """Execute what is out of date, on all cores; returns the file of each chapter's run, and why what failed failed."""
    folder = root / "_build" / "executed"
    folder.mkdir(parents=True, exist_ok=True)
    runs = runs_of(root)
    todo = [name for name in reversed(runs) if force or not is_current(root, runs[name])]
    todo.sort(key=partial(seconds_of_last_run, folder), reverse=True)  # a long one at the end would run alone
    workers = min(workers or cores(), len(todo)) or 1
    print(f"{len(todo)} of {len(runs)} chapters to execute, {workers} at a time, up to two minutes each", flush=True)
    failures = []
    with ProcessPoolExecutor(workers) as pool:
        tasks = {pool.submit(run, root, name, runs[name]): name for name in todo}
        try:
            for left, task in zip(reversed(range(len(todo))), as_completed(tasks)):
                seconds, failure = task.result()
                print(f"  {tasks[task]}: {'failed after ' if failure else ''}{seconds:.0f} s; {left} left", flush=True)
                failures += [failure] if failure else []
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    if not failures:
        for path in {*folder.iterdir()} - {*runs.values()}:
            path.unlink()
    return runs, failures


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# ---------------------------------------------------------------- what a run depends on


def runs_of(root: Path) -> dict[str, Path]:
    """Each chapter's name, and where the run of its present state is or will be."""
    shared = digest(repr(seen_by_all(root)).encode())
    keys = {path.stem: digest(repr((shared, code(path))).encode()) for path in sorted(root.glob("notebooks/*.ipynb"))}
    return {name: root / f"_build/executed/{name}-{key[:20]}.ipynb" for name, key in keys.items()}


def code(chapter: Path) -> list[tuple[str, list[str]]]:
    """The code cells, with the tags that change how one runs; text and captions do not."""
    cells = [cell for cell in nbformat.read(chapter, as_version=4).cells if cell.cell_type == "code"]
    tags = {"raises-exception", "skip-execution"}
    return [(cell.source, sorted(tags & {*cell.metadata.get("tags", ())})) for cell in cells]


def seen_by_all(root: Path) -> list:
    settings = {name: value for name, value in surroundings().items() if name.startswith("DGML_")}
    settings = {name: value for name, value in settings.items() if name not in OF_TESTS}
    patterns = [(root, pattern) for pattern in SEEN]
    if (pictures := root / "notebooks" / settings.get("DGML_IMAGES", "bundled")).is_dir():
        patterns += [(pictures, "**/*")]
    files = {path for folder, pattern in patterns for path in folder.glob(pattern) if path.is_file()}
    listed = re.findall(r"^[\w.-]+", (root / "requirements-reader.txt").read_text(encoding="utf-8"), re.M)
    return [
        sys.platform, platform.machine(), sys.version, sorted(settings.items()), packages([*listed, *PACKAGES]),
        [(os.path.relpath(path, root), digest_of(path)) for path in sorted(files)],
    ]  # fmt: skip


def packages(names: Iterable[str]) -> list[tuple[str, str]]:
    """Names and versions of these packages and of all that they require, as far as they are installed."""
    found, todo = {}, list(names)
    while todo:
        name = re.sub(r"[-_.]+", "-", todo.pop()).lower()
        try:
            package = None if name in found else distribution(name)
        except PackageNotFoundError:
            continue
        if package:
            found[name] = package.version
            todo += [re.match(r"[\w.-]+", line)[0] for line in package.requires or () if "extra ==" not in line]
    return sorted(found.items())


def is_current(root: Path, path: Path) -> bool:
    """Whether the run is there, and all that it opened is as it was."""
    if not path.exists():
        return False
    opened = json.loads(path.read_text(encoding="utf-8"))["metadata"]["run"]["opened"]
    return all(digest_of(root / name) == was for name, was in opened.items())


def digest_of(path: Path) -> str:
    """Of a file's bytes, of the names in a folder, or of nothing."""
    if path.is_dir():
        return digest(repr(sorted(os.listdir(path))).encode())
    return digest(path.read_bytes()) if path.exists() else ""


def digest(data: bytes) -> str:
    return sha256(data).hexdigest()


def seconds_of_last_run(folder: Path, name: str) -> float:
    """Of any earlier state of the chapter; infinite where there is none."""
    paths = list(folder.glob(f"{name}-*.ipynb"))
    return max((json.loads(p.read_text(encoding="utf-8"))["metadata"]["run"]["seconds"] for p in paths), default=1e9)


# ---------------------------------------------------------------- a run


def surroundings() -> dict[str, str]:
    """The environment of a chapter's run: charts as SVG, and one thread, since the chapters share the cores."""
    return {"DGML_FIGURES": "svg"} | os.environ | {"OMP_NUM_THREADS": "1"}


def run(root: Path, name: str, target: Path) -> tuple[float, str]:
    """Execute a chapter and keep the run; the seconds that it took, and what went wrong."""
    path, start = root / "notebooks" / f"{name}.ipynb", time.monotonic()
    chapter = nbformat.read(path, as_version=4)
    for cell in chapter.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    with tempfile.TemporaryDirectory() as scratch:
        try:
            opened = execute(chapter, path.parent, Path(scratch))
        except Exception as error:  # of a cell, or of the kernel, or one that took too long
            return time.monotonic() - start, explained(name, chapter, error)
    seconds = time.monotonic() - start
    if runs_of(root)[name] != target:
        return seconds, f"{name}: what it runs on was changed while it ran; start again"
    chapter.metadata["run"] = {"seconds": round(seconds, 1), "opened": material(root, opened)}
    part = target.with_suffix(".part")
    nbformat.write(chapter, part)
    part.replace(target)
    return seconds, ""


def execute(chapter: nbformat.NotebookNode, folder: Path, scratch: Path) -> set[str]:
    """Execute all cells in ``folder``; returns the files that were opened and the folders that were listed."""
    notes = scratch / "opened"
    first = f"{inspect.getsource(watch)}\nwatch({str(notes)!r})\ndel watch"
    # Two kernels that start at once may choose one TCP port; a socket file of its own is free.
    own_socket = {} if os.name == "nt" else {"transport": "ipc", "ip": str(scratch / "kernel")}
    client = NotebookClient(
        chapter,
        config=Config({"KernelManager": own_socket}),
        timeout=TIMEOUT,
        startup_timeout=TIMEOUT,
        record_timing=False,
        resources={"metadata": {"path": str(folder)}},
        extra_arguments=[f"--IPKernelApp.exec_lines={[first]!r}"],
    )
    client.execute(env=surroundings())
    return {*notes.read_text(encoding="utf-8").splitlines()}


def watch(notes: str) -> None:
    """In a chapter's kernel: note each file that it opens to read, and each folder that it lists."""
    import os
    import sys

    file, seen = os.open(notes, os.O_WRONLY | os.O_CREAT | os.O_APPEND), set()

    def note(event: str, arguments: tuple) -> None:
        if event not in ("open", "os.listdir", "os.scandir") or isinstance(arguments[0], int):
            return
        path = os.path.abspath(os.fsdecode(arguments[0] or "."))
        if path not in seen and not (event == "open" and arguments[2] & os.O_WRONLY):
            seen.add(path)
            os.write(file, f"{path}\n".encode())

    sys.addaudithook(note)


def material(root: Path, opened: Iterable[str]) -> dict[str, str]:
    """The digests of what was opened in the tree, beyond what the key covers."""
    inside = (Path(path).relative_to(root) for path in sorted(opened) if Path(path).is_relative_to(root))
    return {
        path.as_posix(): digest_of(root / path) for path in inside if path.parts and path.parts[0] not in COVERED | OURS
    }


def explained(name: str, chapter: nbformat.NotebookNode, error: Exception) -> str:
    """Where a chapter failed and why, in ten lines."""
    cells = [cell for cell in chapter.cells if cell.cell_type == "code"]
    failed = [any(output.output_type == "error" for output in cell.outputs) for cell in cells]
    lacking = [cell.execution_count is None and bool(cell.source.strip()) for cell in cells]
    number = next((i for signs in (failed, lacking) for i, sign in enumerate(signs) if sign), 0)
    lines = cells[number].source.splitlines()
    said = f"{getattr(error, 'ename', type(error).__name__)}: {getattr(error, 'evalue', error)}"
    frames = re.findall(r"Cell In\[\d+\], line (\d+)", re.sub(r"\x1b\[[\d;]*m", "", getattr(error, "traceback", "")))
    at = int(frames[0]) if frames else 1
    shown = [
        f"  {'>' if i == at and frames else ' '} {line[:110]}" for i, line in enumerate(lines, 1) if abs(i - at) < 3
    ]
    what = [line[:300] for line in said.splitlines() if line.strip()][:3]
    return "\n".join([f"{name}, code cell {number + 1} of {len(cells)}, line {at}:", *shown, *what])
