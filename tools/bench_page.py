"""How fast the codec in the page is: a table, from a headless Chromium.

    python tools/bench_page.py [FOLDER]

FOLDER has other checkpoints than the bundled ones, q3.safetensors and q6.safetensors, of any widths.
The chapters' photograph at 512x512; each time is the least of seven runs with the weights loaded.
On a busy machine times of the clock say little: on Linux the processor time of the worker's thread stands beside them,
to 10 ms.
"""

import base64
import io
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import codec_page

from dgml import bitstream
from dgml.checkpoints import checkpoint_path, load_trained
from dgml.images import to_rgb
from dgml.picture_sets import load_images
from dgml.settings import ROOT
from helpers import default_index

RUNS, QUALITIES = 7, (3, 6)
TICK = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 0
# Keeps the time from a choice to the end of its job, and the longest time between two frames on the way.
WATCH = """() => {
  const status = document.querySelector('#codec-status')
  let start = 0, last = 0, longest = 0
  const frame = (now) => { longest = Math.max(longest, now - last); last = now; requestAnimationFrame(frame) }
  requestAnimationFrame(frame)
  new MutationObserver(() => {
    const now = performance.now()
    if (status.dataset.state === 'busy' && !start) { start = last = now; longest = 0 }
    if (status.dataset.state === 'done' && start) { window.took = { all: now - start, longest }; start = 0 }
  }).observe(status, { attributes: true, childList: true })
}"""


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    path_of = (lambda quality, _: folder / f"q{quality}.safetensors") if folder else checkpoint_path
    with tempfile.TemporaryDirectory() as site, sync_playwright() as playwright:
        address = make_site(Path(site), path_of)
        chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        load = f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors" if hasattr(os, "getloadavg") else ""
        print(f"Chromium {browser.version}, milliseconds of the clock (of the processor); {load}\n")
        for quality in QUALITIES:
            page = browser.new_page()
            page.set_default_timeout(300_000)
            page.goto(address)
            page.evaluate(WATCH)
            measure(page, quality, load_trained(path_of(quality, "bundled")))
            page.close()


def make_site(folder: Path, path_of) -> str:
    """The page without the book around it."""
    shutil.copytree(ROOT / "book" / "_static", folder / "_static")
    codec_page.write(folder / "_static" / "codec", path_of, QUALITIES)
    (body,) = re.findall(r"```{raw} html\n(.*?)```", (ROOT / "book" / "codec.md").read_text("utf-8"), re.S)
    (folder / "book").mkdir()
    (folder / "book" / "codec.html").write_text(f'<!doctype html><meta charset="utf-8"><body>{body}', "utf-8")
    return (folder / "book" / "codec.html").as_uri()


def measure(page, quality: int, codec) -> None:
    images = load_images()
    picture = to_rgb(images[default_index(images)]["image"])
    data = bitstream.encode(codec, picture, quality)
    decoding = [run(page, "photograph.dgml", data) for _ in range(RUNS)]
    shown = pixels(page)
    page.select_option("#codec-quality", str(quality))
    encoding = [run(page, "photograph.png", png(picture)) for _ in range(RUNS)]
    file = page.evaluate(
        "fetch(document.querySelector('#codec-file').href).then((r) => r.arrayBuffer()).then((b) => [...new Uint8Array(b)])"
    )
    large = [run(page, "large.png", png(picture.resize((1024, 1024)))) for _ in range(3)]
    expected = np.asarray(bitstream.decode(codec, data)).astype(int)
    difference = np.abs(shown - expected)
    print(f"quality {quality}, N = {codec.N}, M = {codec.M}, {picture.width}x{picture.height}")
    for stage in ("entropy decoding", "g_s"):
        print(f"  {stage:<42} {least(decoding, stage):>6}")
    print(f"  {'file to picture':<42} {least(decoding, 'all'):>6} ({least(decoding, 'processor')})")
    for stage in ("g_a", "h_a", "entropy coding"):
        print(f"  {stage:<42} {least(encoding, stage):>6}")
    print(f"  {'photograph to file to picture':<42} {least(encoding, 'all'):>6} ({least(encoding, 'processor')})")
    print(f"  {'one megapixel to file to picture':<42} {least(large, 'all'):>6} ({least(large, 'processor')})")
    print(f"  {'longest time between two frames there':<42} {least(large, 'longest'):>6}")
    print(f"  {'all that the page itself computed there':<42} {'':>6} ({least(large, 'page')})")
    print(f"  levels that differ from Python's picture   {(difference > 0).sum():>6} by at most {difference.max()}")
    print(
        f"  the page's file                            {'the same bytes as' if bytes(file) == data else 'other bytes than'} Python's\n"
    )


def run(page, name: str, data: bytes) -> dict[str, float]:
    """The times of a job in milliseconds: of its stages, of all, of the worker's processor, and between two frames."""
    before = processor_times()
    page.evaluate("window.took = null")
    with tempfile.TemporaryDirectory() as folder:  # a buffer would cost the page's thread time of its own
        path = Path(folder) / name
        path.write_bytes(data)
        page.set_input_files("#codec-input", path)
        page.wait_for_function("window.took || document.querySelector('#codec-status').dataset.state === 'error'")
    took = page.evaluate("window.took")
    if took is None:
        raise RuntimeError(page.inner_text("#codec-status"))
    rows = [row.split("\t") for row in page.inner_text("#codec-times tbody").splitlines()]
    return (
        took | {stage: float(ms) for stage, ms in rows} | dict(zip(("processor", "page"), processor_times() - before))
    )


def least(runs: list[dict[str, float]], key: str) -> str:
    return f"{min(run[key] for run in runs):.0f}"


def processor_times() -> np.ndarray:
    """Milliseconds that the worker's thread and the page's own have run in this browser; 0 where there is no /proc."""
    total = np.zeros(2)
    for path in Path("/proc").glob("[0-9]*/task/*/stat"):
        try:
            if "DedicatedWorker" in path.read_text() and ours(int(path.parts[2])):
                main = path.parents[1] / path.parts[2] / "stat"
                for i, stat in enumerate((path, main)):
                    total[i] += sum(map(int, stat.read_text().rpartition(")")[2].split()[11:13])) * 1000 / TICK
        except OSError:  # it ended meanwhile
            continue
    return total


def ours(process: int) -> bool:
    """Whether a process descends from this one."""
    while process > 1 and process != os.getpid():
        process = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    return process == os.getpid()


def pixels(page) -> np.ndarray:
    png = page.evaluate("document.querySelector('#codec-decoded').toDataURL()")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png.partition(",")[2]))).convert("RGB")).astype(int)


def png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


if __name__ == "__main__":
    main()
