"""Build the book: ``make book``, and on a machine without make ``.venv/Scripts/python tools/make_book.py``.

    python tools/make_book.py [--force] [--workers N]

Executes the chapters that are out of date (``execute.py``), lays out the book's sources in ``_build/book``, each
chapter with the outputs of its run, and has Jupyter Book build them.  The site in ``_build/html`` stays until a new one
is whole.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import time
from importlib.metadata import distributions
from pathlib import Path

import execute

ROOT = Path(__file__).resolve().parent.parent
JUPYTER_BOOK = "from jupyter_book.cli.main import main; main()"
# Sphinx keeps what it read of a page until that page changes; a change of these may show on any.
EVERYWHERE = ("_config.yml", "_toc.yml", "book/references.bib", "book/_ext/*.py")


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the book in _build/html.")
    parser.add_argument("--force", action="store_true", help="execute all chapters")
    parser.add_argument("--workers", type=int, metavar="N", help="chapters at a time, by default one for each core")
    arguments = parser.parse_args()
    runs, failures = execute.update(ROOT, arguments.workers, arguments.force)
    if failures:
        sys.exit("\n" + "\n\n".join(failures) + "\n\nThe site that was there is there still.")
    lay_out(ROOT, ROOT / "_build" / "book", runs)
    build(ROOT)
    print(f"The book: {(ROOT / '_build/html/index.html').as_uri()}")


def lay_out(root: Path, folder: Path, runs: dict[str, Path]) -> None:
    """Make ``folder`` hold the sources; what has not changed is not touched, for Sphinx goes by a file's time."""
    files = {root / "_toc.yml", *root.glob("book/*.*"), *root.glob("book/_static/**/*")}
    wanted = {folder / path.relative_to(root): path.read_bytes() for path in files if path.is_file()}
    for name, run in runs.items():
        wanted[folder / "notebooks" / f"{name}.ipynb"] = with_outputs(root / "notebooks" / f"{name}.ipynb", run)
    for path in [path for path in folder.rglob("*") if path.is_file() and path not in wanted]:
        path.unlink()
    for path, data in wanted.items():
        if not path.exists() or path.read_bytes() != data:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)


def with_outputs(chapter: Path, run: Path) -> bytes:
    """The chapter's cells as they are now, with the outputs of its run."""
    notebook, ran = (json.loads(path.read_text(encoding="utf-8")) for path in (chapter, run))
    codes = [[cell for cell in it["cells"] if cell["cell_type"] == "code"] for it in (notebook, ran)]
    for cell, executed in zip(*codes, strict=True):
        cell.update(outputs=executed["outputs"], execution_count=executed["execution_count"])
    return json.dumps(notebook, ensure_ascii=False).encode()


def build(root: Path) -> None:
    """Have Jupyter Book read what has changed and write all pages, and put the whole site into its place."""
    start, site, work, said = time.monotonic(), root / "_build/html", root / "_build/next", root / "_build/book.log"
    new, state = work / "_build/html", work / "state"
    if not state.exists() or state.read_text() != everywhere(root):
        shutil.rmtree(work, ignore_errors=True)
    shutil.rmtree(new, ignore_errors=True)
    print("The pages, written from that: about half a minute, the first time twice as long", flush=True)
    options = ["--config", root / "_config.yml", "--path-output", work, "-W", "-n", "--keep-going"]
    with said.open("w", encoding="utf-8") as log:
        command = [sys.executable, "-c", JUPYTER_BOOK, "build", root / "_build/book", *options]
        done = subprocess.run(command, cwd=root, stdout=log, stderr=subprocess.STDOUT)
    if done.returncode:
        shutil.rmtree(work, ignore_errors=True)  # the next build reads each page anew, and warns of it again
        told = complaints(said.read_text(encoding="utf-8"))
        sys.exit(f"{told}\nAll that was said is in {said}.  The site that was there is there still.")
    state.write_text(everywhere(root))
    shutil.rmtree(site, ignore_errors=True)
    new.rename(site)
    print(f"  {time.monotonic() - start:.0f} s", flush=True)


def everywhere(root: Path) -> str:
    """The digest of what a change of which may show on any page."""
    files = sorted(path for pattern in EVERYWHERE for path in root.glob(pattern))
    versions = sorted(f"{package.name} {package.version}" for package in distributions())
    return execute.digest(
        repr([sys.version, versions, [(path.name, execute.digest_of(path)) for path in files]]).encode()
    )


def complaints(said: str) -> str:
    """What Sphinx warned of, or, where it broke off, the end of what it said."""
    lines = re.sub(r"\x1b\[[\d;]*m", "", said).splitlines()
    warnings = list(dict.fromkeys(line for line in lines if re.search(r"\b(WARNING|ERROR|CRITICAL)\b:", line)))
    return "\n".join(warnings[:10] or [line for line in lines if line.strip()][-10:])


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("stopped; the site that was there is there still")
