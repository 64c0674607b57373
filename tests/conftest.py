"""What every test starts from: no settings of the reader's, no network, no cache that stays; a browser for some."""

import atexit
import os
import shutil
import tempfile
import threading
from copy import deepcopy
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

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
    """An installed Chromium or Chrome; without one the test is skipped, unless DGML_BROWSER=required."""
    from playwright.sync_api import sync_playwright

    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
    if not found:
        assert os.environ.get("DGML_BROWSER") != "required", (
            "DGML_BROWSER=required, and no Chromium or Chrome was found"
        )
        pytest.skip("no Chromium or Chrome was found: the pages are not tested")
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])


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


@pytest.fixture
def spoiled():
    """A codec whose weights a test may change."""
    from samples import load

    return deepcopy(load(1))
