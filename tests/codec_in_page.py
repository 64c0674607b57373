"""What the tests of the codec in the page do in the browser."""

import base64
import io
from pathlib import Path

import numpy as np
import torch
from browsing import open_page
from PIL import Image

from dgml.images import to_rgb
from dgml.model import DeepAnchor
from dgml.picture_sets import load_images
from dgml.settings import ROOT

VECTORS = ROOT / "tests" / "vectors"
PICTURES = {"astronaut": (0, (100, 20, 356, 220)), "coffee": (1, (0, 0, 230, 300)), "chelsea": (2, None)}
# The integers of a file, found in the page itself and not in its worker, each array as (channel, row, column).
TRACE = """async ({ quality, file, fast }) => {
  const bytes = (base64) => Uint8Array.from(atob(base64), (c) => c.charCodeAt(0))
  if (!dgmlPage.loaded[quality]) await dgmlPage.load(`q${quality}.js`)
  const { text, length } = dgmlPage.loaded[quality]
  const engine = dgmlEngine(fast ? bytes(dgmlBuilt.kernel) : null)
  const model = await dgmlModel(engine, text, length), coder = dgmlCoder()
  const header = coder.read(bytes(file)), places = []
  const found = dgmlCodec(engine, model, coder).latents(header, { trace: (...place) => places.push(place) })
  const flat = (x, c) => Array.from({ length: c }, (_, i) => [...engine.plane(x, i)]).flat()
  const { h, w } = found.y, M = model.M, scales = Array(M * h * w), means = Array(M * h * w)
  for (const [row, column, both] of places)
    for (let c = 0; c < M; c++) [scales, means].forEach((all, i) => { all[(c * h + row) * w + column] = both[i * M + c] })
  return { fast: engine.fast, fingerprint: model.fingerprint, z_hat: flat(found.zHat, model.N),
           hyper: flat(found.hyper, 2 * M), scales, means, y_hat: flat(found.y, M) }
}"""


def open_codec(browser, address: str, script: str = "", **options):
    return open_page(browser, address, "book/codec.html", script, **options)


def settle(page) -> str:
    """The state in which a job ends."""
    page.wait_for_selector("#codec-status[data-state=done], #codec-status[data-state=error]")
    return page.get_attribute("#codec-status", "data-state")


def give(page, name: str, data: bytes) -> str:
    """Choose a file of this name and content, and wait for the end."""
    page.set_input_files("#codec-input", {"name": name, "mimeType": "application/octet-stream", "buffer": data})
    return settle(page)


def download(page, link: str) -> bytes:
    """What a link of the page saves."""
    with page.expect_download() as waiting:
        page.click(link)
    return Path(waiting.value.path()).read_bytes()


def canvas(page, selector: str = "#codec-decoded") -> np.ndarray:
    """The pixels (H, W, 3) of a canvas; it has to be opaque."""
    width, height, data = page.eval_on_selector(
        selector,
        """c => { const { width, height } = c
          const { data } = c.getContext('2d').getImageData(0, 0, width, height)
          let text = ''
          for (let i = 0; i < data.length; i += 30000) text += String.fromCharCode(...data.subarray(i, i + 30000))
          return [width, height, btoa(text)] }""",
    )
    pixels = np.frombuffer(base64.b64decode(data), np.uint8).reshape(height, width, 4)
    assert (pixels[..., 3] == 255).all()
    return pixels[..., :3].astype(int)


def png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def photograph(name: str) -> Image.Image:
    index, box = PICTURES[name]
    picture = to_rgb(load_images("bundled")[index]["image"])
    return picture.crop(box) if box else picture


def trace(page, quality: int, data: bytes, fast: bool = True) -> dict:
    return page.evaluate(TRACE, {"quality": quality, "file": base64.b64encode(data).decode(), "fast": fast})


def random_codec(n: int, m: int) -> DeepAnchor:
    """Untrained, with weights in half precision and latents that are not all zero."""
    torch.manual_seed(0)
    codec = DeepAnchor(n, m)
    with torch.no_grad():
        codec.g_a[-1].weight *= 30
        for parameter in codec.parameters():
            parameter.copy_(parameter.half().float())
    codec.update()
    return codec.eval()
