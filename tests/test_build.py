"""What `make book` executes: exactly the chapters whose outputs are out of date; in a book of three small chapters."""

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import execute
import make_book
import nbformat
import pytest

READS = "import pathlib, helpers\nprint(helpers.NAME, pathlib.Path('../results/one.json').read_text())"
LISTS = "import os\nprint(sorted(os.listdir('../results')))"
ALL = ["1_plain", "2_reads", "3_lists"]


def write_chapter(root: Path, name: str, *code: str, said: str = "A sentence.") -> None:
    cells = [nbformat.v4.new_markdown_cell(said), *map(nbformat.v4.new_code_cell, code)]
    (root / "notebooks").mkdir(exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=cells), root / "notebooks" / f"{name}.ipynb")


def release(root: Path, package: str, version: str, *requires: str) -> None:
    """Install a package that has nothing but a name, a version and what it requires."""
    for old in root.glob(f"site/{package}-*"):
        shutil.rmtree(old)
    folder = root / "site" / f"{package}-{version}.dist-info"
    folder.mkdir(parents=True)
    lines = [f"Name: {package}", f"Version: {version}", *(f"Requires-Dist: {name}" for name in requires)]
    (folder / "METADATA").write_text("\n".join(["Metadata-Version: 2.1", *lines, ""]))


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """The book with all chapters run; what a second look at it finds is nothing."""
    root = tmp_path_factory.mktemp("book").resolve()
    write_chapter(root, "1_plain", "print(6 * 7)")
    write_chapter(root, "2_reads", "import sys\nsys.path.insert(0, '..')", READS)
    write_chapter(root, "3_lists", LISTS)
    for path in ("helpers.py", "dgml/deep/er.py", "checkpoints/logs/one.csv", "results/one.json"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text("NAME = 'first'\n")
    release(root, "direct", "1.0", "indirect>=1", "fortests; extra == 'test'")
    release(root, "indirect", "1.0")
    release(root, "fortests", "1.0")
    (root / "requirements-reader.txt").write_text("# nothing but\ndirect>=1  # all\n")
    with pytest.MonkeyPatch.context() as patch:
        settle(patch, root)
        failures = execute.update(root, workers=3)[1]
        assert failures == [] and stale(root) == []
    return root


def settle(patch: pytest.MonkeyPatch, root: Path) -> None:
    for name in [name for name in os.environ if name.startswith("DGML_")]:
        patch.delenv(name)
    patch.syspath_prepend(str(root / "site"))


@pytest.fixture
def book(executed, tmp_path, monkeypatch):
    """A copy of it for a test, with its runs."""
    root = tmp_path.resolve() / "book"
    shutil.copytree(executed, root)
    settle(monkeypatch, root)
    assert stale(root) == []
    return root


def stale(root: Path) -> list[str]:
    return [name for name, run in execute.runs_of(root).items() if not execute.is_current(root, run)]


def rewrite(path: str, text: str = "NAME = 'second'\n"):
    return lambda root, patch: (root / path).write_text(text)


def add_cell(root, patch):
    write_chapter(root, "1_plain", "print(6 * 7)", "pass")


def tag(name: str):
    def change(root, patch):
        path = root / "notebooks/1_plain.ipynb"
        chapter = nbformat.read(path, as_version=4)
        chapter.cells[1].metadata["tags"] = [name]
        nbformat.write(chapter, path)

    return change


CHANGES = {
    "a helper": (rewrite("helpers.py"), ALL),
    "a module": (rewrite("dgml/deep/er.py"), ALL),
    "a new module": (rewrite("dgml/deep/new.py"), ALL),
    "a checkpoint": (rewrite("checkpoints/logs/one.csv"), ALL),
    "a checkpoint less": (lambda root, patch: (root / "checkpoints/logs/one.csv").unlink(), ALL),
    "a result": (rewrite("results/one.json"), ["2_reads"]),
    "a result less": (lambda root, patch: (root / "results/one.json").unlink(), ["2_reads", "3_lists"]),
    "a result more": (rewrite("results/two.json"), ["3_lists"]),
    "a package": (lambda root, patch: release(root, "direct", "1.1", "indirect>=1"), ALL),
    "a package's package": (lambda root, patch: release(root, "indirect", "1.1"), ALL),
    "a package of the tests": (lambda root, patch: release(root, "fortests", "1.1"), []),
    "Python": (lambda root, patch: patch.setattr(execute.sys, "version", "3.99"), ALL),
    "a setting": (lambda root, patch: patch.setenv("DGML_WEIGHTS", "published"), ALL),
    "charts in PNG": (lambda root, patch: patch.setenv("DGML_FIGURES", "png"), ALL),
    "a setting of the tests": (lambda root, patch: patch.setenv("DGML_BROWSER", "required"), []),
    "a code cell": (lambda root, patch: write_chapter(root, "1_plain", "print(6 * 8)"), ["1_plain"]),
    "a code cell more": (add_cell, ["1_plain"]),
    "a tag that runs": (tag("raises-exception"), ["1_plain"]),
    "a tag that shows": (tag("hide-input"), []),
    "a chapter more": (lambda root, patch: write_chapter(root, "4_new", "1"), ["4_new"]),
    "a sentence": (lambda root, patch: write_chapter(root, "1_plain", "print(6 * 7)", said="Another."), []),
    "a file's time": (lambda root, patch: os.utime(root / "helpers.py", (1, 1)), []),
    "a file that nobody opens": (rewrite("README.md"), []),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_makes_these_chapters_stale(what, book, monkeypatch):
    change, chapters = CHANGES[what]
    change(book, monkeypatch)
    assert stale(book) == chapters


def test_photographs_of_ones_own_count_by_their_content(book, monkeypatch):
    monkeypatch.setenv("DGML_IMAGES", "../album")
    (book / "album").mkdir()
    (book / "album/one.png").write_bytes(b"a picture")
    before = execute.runs_of(book)
    (book / "album/one.png").write_bytes(b"another")
    assert not {*before.values()} & {*execute.runs_of(book).values()}


def test_what_is_stale_is_executed_and_nothing_else(book, capsys):
    before = times(execute.runs_of(book))
    (book / "results/one.json").write_text("changed")
    write_chapter(book, "1_plain", "print(6 * 7)", said="Another sentence.")
    runs, failures = execute.update(book, workers=2)
    assert failures == [] and stale(book) == []
    assert [name for name, time in times(runs).items() if time != before[name]] == ["2_reads"]
    said = capsys.readouterr().out.splitlines()
    assert (
        said[0].startswith("1 of 3 chapters to execute, 1 at a time") and "2_reads: " in said[1] and "0 left" in said[1]
    )
    plain, reads = (
        json.loads(make_book.with_outputs(book / f"notebooks/{name}.ipynb", runs[name]))["cells"]
        for name in ("1_plain", "2_reads")
    )
    assert "".join(plain[0]["source"]) == "Another sentence." and "42" in str(plain[1]["outputs"])
    assert "first changed" in str(reads[2]["outputs"])


def times(runs: dict[str, Path]) -> dict[str, int]:
    return {name: path.stat().st_mtime_ns for name, path in runs.items()}


def test_force_executes_all_and_the_longest_first(book, monkeypatch, capsys):
    for seconds, path in zip((20, 30, 10), execute.runs_of(book).values()):
        run = nbformat.read(path, as_version=4)
        run.metadata["run"]["seconds"] = seconds
        nbformat.write(run, path)
    monkeypatch.setattr(execute, "ProcessPoolExecutor", ThreadPoolExecutor)
    monkeypatch.setattr(execute, "run", lambda root, name, target: (1.0, ""))
    execute.update(book, workers=1, force=True)
    assert [line.split(":")[0].strip() for line in capsys.readouterr().out.splitlines()[1:]] == [
        "2_reads",
        "1_plain",
        "3_lists",
    ]


def test_a_chapter_that_fails_is_told_in_ten_lines_and_the_site_stays(book, monkeypatch, capsys):
    write_chapter(book, "1_plain", "print('so far')", "def f(x):\n    return 1 / x\n\nf(0)")
    write_chapter(book, "3_lists", "print(1)")
    old = book / "_build/html/index.html"
    old.parent.mkdir()
    old.write_text("yesterday")
    monkeypatch.setattr(make_book, "ROOT", book)
    monkeypatch.setattr(make_book.sys, "argv", ["make_book.py"])
    with pytest.raises(SystemExit) as ended:
        make_book.main()
    said = str(ended.value)
    assert (
        "1_plain, code cell 2 of 2, line 4:" in said
        and "> f(0)" in said
        and "ZeroDivisionError: division by zero" in said
    )
    assert len(said.strip().splitlines()) <= 10
    assert old.read_text() == "yesterday" and stale(book) == ["1_plain"]
    assert [path.name for path in (book / "_build/executed").glob("1_plain*")] != []  # the last that ran is not pruned


def test_what_changes_while_a_chapter_runs_is_not_kept(book):
    write_chapter(book, "1_plain", "open('../helpers.py', 'a').write('# more')")
    failures = execute.update(book)[1]
    assert len(failures) == 1 and "1_plain" in failures[0] and "changed while it ran" in failures[0]
    assert "1_plain" in stale(book)


def test_runs_that_nothing_needs_are_pruned(book):
    write_chapter(book, "1_plain", "print(1)")
    runs, _ = execute.update(book)
    assert {*(book / "_build/executed").iterdir()} == {*runs.values()}


def test_sources_are_laid_out_by_content(book):
    runs = execute.runs_of(book)
    (book / "_toc.yml").write_text("format: jb-book")
    (book / "book/_static").mkdir(parents=True)
    (book / "book/_static/a.css").write_text("a")
    (book / "book/one.md").write_text("One")
    laid = book / "_build/book"
    make_book.lay_out(book, laid, runs)
    before = times({path.name: path for path in laid.rglob("*.*")})
    (book / "book/one.md").write_text("Two")
    os.utime(book / "book/one.md", (1, 1))
    (book / "book/_static/a.css").unlink()
    make_book.lay_out(book, laid, runs)
    after = times({path.name: path for path in laid.rglob("*.*")})
    assert [name for name in after if after[name] != before[name]] == ["one.md"]
    assert before.keys() - after.keys() == {"a.css"}
    assert (laid / "book/one.md").read_text() == "Two"


def jupyter_book(monkeypatch, status: int):
    """A build that writes one page and one complaint."""

    def build(command, **options):
        html = Path(command[command.index("--path-output") + 1]) / "_build/html"
        html.mkdir(parents=True)
        (html / "index.html").write_text("today")
        (html.parent / "read").touch()
        options["stdout"].write("\x1b[91mone.md:7: WARNING: no such page\x1b[0m\nTraceback\n")
        return SimpleNamespace(returncode=status)

    monkeypatch.setattr(make_book.subprocess, "run", build)


def test_a_build_that_warns_leaves_the_site_and_is_read_anew(book, monkeypatch):
    (book / "_build/html").mkdir()
    (book / "_build/html/index.html").write_text("yesterday")
    jupyter_book(monkeypatch, status=1)
    with pytest.raises(SystemExit, match=r"^one.md:7: WARNING: no such page\n"):
        make_book.build(book)
    assert (book / "_build/html/index.html").read_text() == "yesterday"
    assert not (book / "_build/next").exists()


@pytest.mark.parametrize("path", [None, "_config.yml", "_toc.yml", "book/references.bib", "book/_ext/light.py"])
def test_a_build_keeps_what_was_read_until_all_pages_change(path, book, monkeypatch):
    (book / "book/_ext").mkdir(parents=True)
    (book / "book/_ext/light.py").touch()
    jupyter_book(monkeypatch, status=0)
    make_book.build(book)
    kept = book / "_build/next/_build/kept"
    kept.touch()
    if path:
        (book / path).write_text("changed")
    make_book.build(book)
    assert kept.exists() == (path is None)
    assert (book / "_build/html/index.html").read_text() == "today"
