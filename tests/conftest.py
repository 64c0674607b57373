"""What every test starts from: no settings of the reader's, no network, no cache that stays; a browser for some."""

import atexit
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from copy import deepcopy
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

cache = tempfile.mkdtemp()
atexit.register(shutil.rmtree, cache, ignore_errors=True)
for setting in ("DGML_WEIGHTS", "DGML_IMAGES", "DGML_MEGAPIXELS"):
    os.environ.pop(setting, None)
# Read when datasets is imported, so a fixture would come too late.
os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_CACHE=cache, MPLBACKEND="agg")


def pytest_collection_modifyitems(items):
    """Mark as slow what needs a browser or a built site, or runs a notebook; `make check` leaves it out."""
    for item in items:
        if {"browser", "site", "executed", "shell"} & {*item.fixturenames}:
            item.add_marker("slow")


@pytest.fixture(scope="session")
def browser():
    """An installed Chromium or Chrome; without one the test is skipped, unless DGML_BROWSER=required.

    DGML_BROWSER=firefox takes the Firefox that Playwright installed.
    """
    from playwright.sync_api import sync_playwright

    if os.environ.get("DGML_BROWSER") == "firefox":
        with sync_playwright() as playwright:
            yield playwright.firefox.launch()
        return
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
    if not found:
        assert os.environ.get("DGML_BROWSER") != "required", (
            "DGML_BROWSER=required, and no Chromium or Chrome was found"
        )
        pytest.skip("no Chromium or Chrome was found: the pages are not tested")
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The book, built once for all workers from the outputs that the notebooks carry; or what DGML_SITE names."""
    if os.environ.get("DGML_SITE"):
        return Path(os.environ["DGML_SITE"]).resolve()
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "book"
    said = folder.with_suffix(".log")
    try:
        folder.mkdir()
    except FileExistsError:  # another worker builds it
        end = time.monotonic() + 1800
        while not said.exists() and time.monotonic() < end:
            time.sleep(0.5)
    else:
        build_site(folder, said)
    assert said.read_text(encoding="utf-8").startswith("0\n"), said.read_text(encoding="utf-8")[-4000:]
    return folder / "_build" / "html"


def build_site(folder: Path, said: Path) -> None:
    """Build this tree strictly in ``folder``; ``said`` gets the exit status and what the build said, all at once."""
    root = Path(__file__).parents[1]
    ignored = (".git", ".venv", "_build", "runs", "*.part", "__pycache__", ".pytest_cache", ".ruff_cache")
    shutil.copytree(root, folder, ignore=shutil.ignore_patterns(*ignored), dirs_exist_ok=True)
    command = [Path(sys.executable).with_name("jupyter-book"), "build", folder, "-W", "-n", "--keep-going"]
    built = subprocess.run(command, capture_output=True, text=True)
    part = said.with_suffix(".part")
    part.write_text(f"{built.returncode}\n{built.stdout}\n{built.stderr}", encoding="utf-8")
    part.rename(said)


@pytest.fixture(scope="session")
def address(site, serve):
    """The site under an address of this machine."""
    return serve(site)


@pytest.fixture
def local(browser, site):
    """The codec's page from disk; afterwards nothing may have gone wrong on it."""
    yield from codec_page(browser, site.as_uri())


@pytest.fixture(params=["file", "http"])
def anywhere(request, browser, site, serve):
    """The same from disk, and from a host that calls every script UTF-8, as the large ones do."""
    script = {".js": "text/javascript; charset=utf-8"}
    yield from codec_page(browser, site.as_uri() if request.param == "file" else serve(site, script))


def codec_page(browser, address: str):
    from codec_in_page import open_codec

    page = open_codec(browser, address)
    yield page
    assert page.wrong == []
    page.close()


@pytest.fixture(scope="session")
def serve():
    """A function that gives a folder an address of this machine, with content types of its own by suffix."""
    servers = []

    def serve(folder, types: dict[str, str] | None = None) -> str:
        class Static(SimpleHTTPRequestHandler):
            extensions_map = SimpleHTTPRequestHandler.extensions_map | (types or {})

            def log_message(self, *_):
                pass

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), partial(Static, directory=folder)))
        servers[-1].handle_error = lambda *_: None  # a browser that leaves a page half loaded
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}"

    yield serve
    for server in servers:
        server.shutdown()


# The last stands for the published weights (samples.py).
@pytest.fixture(scope="module", params=[*range(1, 7), "random"])
def codec(request):
    from samples import load

    return load(request.param)


@pytest.fixture(scope="session")
def zoo(tmp_path_factory) -> Path:
    """A TORCH_HOME that holds random weights under the published names."""
    from samples import fill_zoo

    home = tmp_path_factory.mktemp("torch")
    fill_zoo(home)
    return home


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        pytest.fail("a test reached for the network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def own_codec():
    """A codec whose weights a test may change."""
    from samples import load

    return deepcopy(load(1))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with a picture, its file and some that are neither."""
    from program import fill

    monkeypatch.chdir(tmp_path)
    fill(tmp_path)
    return tmp_path


@pytest.fixture
def run(monkeypatch, capsys):
    """A function that runs the program and gives its exit status, its output and its complaints."""
    from PIL import Image

    from dgml import cli, folders

    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)  # put back afterwards
    monkeypatch.setattr(folders, "cores", lambda: 1)  # a worker loads torch first: only where a test asks for some

    def run(*arguments):
        try:
            status = cli.main([*map(str, arguments)])
        except SystemExit as stop:  # argparse's
            status = stop.code
        return status, *capsys.readouterr()

    return run
