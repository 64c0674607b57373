"""What may lie in the tree, and that all files agree on the repository's address."""

import re
import subprocess
from pathlib import Path

import nbformat
import pytest
import yaml
from chapter_rules import MACHINE_PATH, code_cells

from dgml.settings import ROOT

CHAPTERS = sorted((ROOT / "notebooks").glob("*.ipynb"))
CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text())
# The brackets keep this file from matching its own pattern.
REGISTRY = re.compile(r"pypi[.]org|pythonhosted[.]org|/simple[/]|npmjs[.]|anaconda[.]org|proxy[.]golang", re.IGNORECASE)


def test_every_page_of_the_contents_is_a_file():
    def files(node):
        if isinstance(node, dict):
            yield from (node[key] for key in ("file", "root") if key in node)
        for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
            yield from files(child)

    listed = list(files(yaml.safe_load((ROOT / "_toc.yml").read_text())))
    assert len(listed) == len(set(listed))
    assert [f for f in listed if not any((ROOT / f"{f}{end}").is_file() for end in ("", ".md", ".ipynb"))] == []


def committed() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [path for path in map(ROOT.joinpath, listed.stdout.split("\0")) if path.is_file()]


def short_lines(path: Path) -> str:
    """The text of a file without the long lines of stored pictures; nothing of a binary file."""
    try:
        return "\n".join(line for line in path.read_text(encoding="utf-8").splitlines() if len(line) < 2000)
    except UnicodeDecodeError:
        return ""


@pytest.mark.parametrize("pattern", [MACHINE_PATH, REGISTRY], ids=["machine paths", "registries"])
def test_no_file_names_the_machine_it_was_made_on(pattern):
    found = {str(path.relative_to(ROOT)): pattern.findall(short_lines(path)) for path in committed()}
    assert {path: what for path, what in found.items() if what} == {}


def test_the_patterns_find_what_they_are_for():
    for path in ("/" + "root/x", "in /" + "work/main", '"/' + 'tmp/x"', "lib/site-" + "packages/x", "C:\\" + "Users"):
        assert MACHINE_PATH.search(path), path
    for path in ("https://github.com/home/work", "../shared/kodak", "a/home/b", "~/tmp/x"):
        assert not MACHINE_PATH.search(path), path
    assert REGISTRY.search("https://pypi" + ".org/simple") and not REGISTRY.search(
        "https://download.pytorch.org/whl/cpu"
    )


def test_no_file_is_large():
    sizes = {str(path.relative_to(ROOT)): path.stat().st_size for path in committed()}
    assert [path for path, size in sizes.items() if size > 20e6] == []
    pictures = {p: s for p, s in sizes.items() if Path(p).suffix.lower() in (".png", ".jpg", ".jpeg", ".webp")}
    assert [p for p, s in pictures.items() if s > 500e3 and not p.startswith("book/_static/")] == []


# ---------------------------------------------------------------- the repository's address


def test_all_files_agree_on_the_address():
    url = CONFIG["repository"]["url"]
    owner, repository = url.removeprefix("https://github.com/").split("/")
    readme = (ROOT / "README.md").read_text()
    assert set(re.findall(r"mybinder\.org/v2/gh/([^/]+/[^/]+)/", readme)) == {f"{owner}/{repository}"}
    assert set(re.findall(r"github\.com/([^/]+/[^/]+)/actions", readme)) == {f"{owner}/{repository}"}
    assert set(re.findall(r"https://([^/]+)\.github\.io/([\w.-]*\w)", readme)) == {(owner, repository)}
    for page in (readme, (ROOT / "book" / "setup.md").read_text()):
        assert re.findall(r"git clone --depth 1 (\S+)", page) == [url] and re.findall(
            r"^cd (\S+)", page, re.MULTILINE
        ) == [repository]
    assert url in (ROOT / "CONTRIBUTING.md").read_text()
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["repository-code"] == url
    assert citation["url"] == f"https://{owner}.github.io/{repository}"
    assert CONFIG["sphinx"]["config"]["html_baseurl"] == citation["url"]
    for chapter in CHAPTERS:
        source = code_cells(nbformat.read(chapter, as_version=4))[0].source
        assert re.findall(r"git clone .*?(https://\S+)", source) == [url], chapter.name
        assert re.findall(r"%cd (\S+)", source) == [f"{repository}/notebooks"], chapter.name
