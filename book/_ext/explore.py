"""Make what the pages let one touch, and the pictures of the front page: one photograph through all six qualities.

A Sphinx extension.  A page says ``<div class="explore-part" data-part="NAME"></div>``, which shows nothing where a
notebook is opened elsewhere; here it is filled.  What is shown is made once for each change of what it is made from,
in ``_build/explore``, which a new build of the site leaves alone, and copied into the site.
"""

import hashlib
import io
import os
import shutil
import sys
from pathlib import Path

import cards
import matplotlib
import numpy as np
import torch
from chapters import chapters
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from dgml import bitstream
from dgml.checkpoints import load_codec
from dgml.files import atomic_write
from dgml.images import image_to_tensor, pad, to_rgb
from dgml.metrics import bits, psnr
from dgml.picture_sets import load_images
from dgml.settings import QUALITIES, ROOT
from helpers import default_index, describe

INPUTS = ("helpers.py", "dgml/*.py", "book/_ext/explore.py", "book/_ext/cards.py", "book/references.bib",
          "checkpoints/*.safetensors", "checkpoints/logs/q3*.csv")  # fmt: skip
SETTINGS = ("DGML_WEIGHTS", "DGML_IMAGES", "DGML_MEGAPIXELS")
CACHE = ROOT / "_build" / "explore"
PARTS = ("codec", "wavefront", "front")
ROWS, COLUMNS = 6, 10  # of the wavefront's grid
PLOT_WIDTH, PLOT_HEIGHT = 360, 230
KEPT = 3  # the quality of the chapters


def setup(app) -> dict:
    app.connect("builder-inited", prepare)
    app.connect("html-page-context", fill)
    app.connect("build-finished", copy)
    return {"parallel_read_safe": True}


def prepare(app) -> None:
    """Make the parts, unless they were made from the same files, settings, cards and photograph."""
    if app.builder.format != "html":
        return
    images = load_images()
    index = default_index(images)
    picture = to_rgb(images[index]["image"])
    settings = [os.environ.get(name) for name in SETTINGS], [chapter.card for chapter in chapters()]
    digest = hashlib.sha256(repr(settings).encode() + picture.tobytes())
    for path in sorted(path for pattern in INPUTS for path in ROOT.glob(pattern)):
        digest.update(path.read_bytes())
    app.explore = CACHE / digest.hexdigest()[:16]
    if not (app.explore / "front.html").exists():
        shutil.rmtree(CACHE, ignore_errors=True)  # what an earlier state of the tree showed
        make(app.explore, images, index)


def fill(app, pagename, templatename, context, doctree) -> None:
    """Put the parts where a page asks for them, with what they need."""
    body = context.get("body", "")
    if 'class="explore-part"' not in body:
        return
    static = context["pathto"]("_static/explore/", 1)
    for name in PARTS:
        part = (app.explore / f"{name}.html").read_text(encoding="utf-8").replace("@run@", f"{static}run/")
        body = body.replace(f'<div class="explore-part" data-part="{name}"></div>', part)
    shelf = cards.shelf(f"{static}run/") if 'data-part="cards"' in body else ""
    body = body.replace('<div class="explore-part" data-part="cards"></div>', shelf)
    context["body"] = body + (
        f'<link rel="stylesheet" href="{static}explore.css">'
        f'<script defer src="{static}img-comparison-slider.js"></script><script defer src="{static}explore.js"></script>'
    )


def copy(app, exception) -> None:
    if not exception and app.builder.format == "html":
        shutil.copytree(app.explore, Path(app.outdir) / "_static" / "explore" / "run", dirs_exist_ok=True)


def make(folder: Path, images, index: int) -> None:
    """Encode, decode and write the pictures, and the parts of pages that depend on them."""
    folder.mkdir(parents=True, exist_ok=True)
    picture = to_rgb(images[index]["image"])
    picture.save(folder / "original.webp", quality=95, method=6)
    measured, maps, kept = [], [], {}
    for quality in QUALITIES:
        codec = load_codec(quality)
        file, decoded, likelihoods, data = code(codec, picture)
        decoded.save(folder / f"q{quality}.webp", lossless=True, method=6)  # its faults are the subject
        measured.append(file)
        maps.append(bits(likelihoods["y"])[0].sum(0).numpy() / 256)
        if quality == KEPT:
            kept = {"codec": codec, "data": data, "decoded": decoded, "likelihoods": likelihoods}
    brightest = draw_maps(folder, maps, picture.size)
    jpeg = jpeg_of_bytes(picture, len(kept["data"]))
    (folder / "jpeg.jpg").write_bytes(jpeg)
    kept["jpeg"] = to_rgb(Image.open(io.BytesIO(jpeg)))
    cards.draw(folder, cards.Run(picture, measured, **kept))
    weights, shown = describe(kept["codec"], images, index).split("\n")
    jpeg_db = psnr(image_to_tensor(picture), image_to_tensor(kept["jpeg"]))
    texts = {
        "codec": codec_part(measured, picture.size, brightest, f"{weights.split(',')[0]}; {shown}"),
        "wavefront": wavefront_part(),
        "front": front_part(measured[KEPT - 1], jpeg, jpeg_db, picture.size),
    }
    for name, text in texts.items():  # the front comes last: where it is, all is
        atomic_write(folder / f"{name}.html", text.encode())


@torch.no_grad()
def code(codec, picture: Image.Image) -> tuple[cards.Measured, Image.Image, dict[str, torch.Tensor], bytes]:
    """What was measured of the file, the picture that it decodes to, the likelihoods of a forward pass, the file."""
    data = bitstream.encode(codec, picture, codec.quality)
    decoded = bitstream.decode(codec, data)
    x = image_to_tensor(picture)
    rate = 8 * len(data) / (picture.width * picture.height)
    file = cards.Measured(codec.quality, len(data), rate, psnr(x, image_to_tensor(decoded)))
    return file, decoded, codec(pad(x))["likelihoods"], data


def draw_maps(folder: Path, maps: list[np.ndarray], size: tuple[int, int]) -> float:
    """Write a picture of each quality's bits, all on one scale; returns its end, in bits per pixel."""
    brightest = float(np.quantile(maps[-1], 0.99))  # a single block does not darken the others
    width, height = (-(-side // 16) for side in size)
    for quality, block in zip(QUALITIES, maps):
        colours = matplotlib.colormaps["inferno"](np.minimum(block / brightest, 1))[:height, :width, :3]
        Image.fromarray(np.uint8(255 * colours)).save(folder / f"bits{quality}.png")
    return brightest


def jpeg_of_bytes(picture: Image.Image, size: int) -> bytes:
    """The best JPEG of ``picture`` that has at most ``size`` bytes, or the smallest that there is."""
    best = None
    for quality in range(1, 96):
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=quality, optimize=True, progressive=True, subsampling="4:2:0")
        if best and file.tell() > size:
            break
        best = file.getvalue()
    return best


def front_part(file: cards.Measured, jpeg: bytes, jpeg_db: float, size: tuple[int, int]) -> str:
    """The photograph beside the file that the book ends with, and beside a JPEG of as many bytes."""
    width, height = size
    shape = f'width="{width}" height="{height}" decoding="async"'
    return f"""<div class="explore explore-front">
<div class="explore-pair">
<figure><img class="front-original" src="@run@original.webp" alt="The original photograph." {shape}><figcaption>the photograph: {3 * width * height:,} bytes of pixels</figcaption></figure>
<figure><img class="front-codec" src="@run@q{KEPT}.webp" alt="The photograph decoded from the file of the book's codec." {shape}>
<figcaption>the file of this book: {file.n_bytes:,} bytes, {file.psnr:.1f} dB</figcaption></figure>
<figure><img class="front-jpeg" src="@run@jpeg.jpg" alt="The photograph as a JPEG of as many bytes, or of as few as JPEG can." {shape}>
<figcaption>a JPEG: {len(jpeg):,} bytes, {jpeg_db:.1f} dB</figcaption></figure>
</div></div>
"""


def codec_part(measured: list[cards.Measured], size: tuple[int, int], brightest: float, what: str) -> str:
    """The table of qualities, the pictures and the staircase: whole without a script, and what explore.js works on."""
    rows = "".join(
        f'<tr data-quality="{q}"><th scope="row"><label><input type="radio" name="quality" value="{q}"'
        f"{' checked' if q == KEPT else ''}> {q}</label></th><td>{n:,}</td><td>{rate:.3f}</td><td>{db:.2f}</td></tr>"
        for q, n, rate, db in measured
    )
    width, height = size
    chosen = measured[KEPT - 1]
    shape = f'width="{width}" height="{height}" loading="lazy" decoding="async"'
    here = "@run@"
    return f"""<div class="explore" id="explore-codec">
<p>{what}</p>
<div class="explore-table"><table><caption>Choose a quality</caption><thead><tr><th scope="col">quality</th><th scope="col">bytes of the file</th>
<th scope="col">bits per pixel</th><th scope="col">PSNR in dB</th></tr></thead><tbody>{rows}</tbody></table></div>
<p role="status" id="explore-chosen">Quality {KEPT}: {chosen.n_bytes:,} bytes, {chosen.bpp:.3f} bits per pixel, {chosen.psnr:.2f} dB.</p>
<div class="explore-pair">
<figure><img id="explore-original" src="{here}original.webp" alt="The original photograph." {shape}><figcaption>original</figcaption></figure>
<figure><img id="explore-decoded" src="{here}q{KEPT}.webp" alt="The photograph decoded from the file of the chosen quality." {shape}>
<figcaption>decoded</figcaption></figure>
</div>
<div class="explore-pair">
<figure>{curve_svg(measured)}<figcaption>The staircase: a point is a file.</figcaption></figure>
<figure><img id="explore-bits" src="{here}bits{KEPT}.png" alt="Map of the bits of the chosen quality: a bright block of 16 x 16 pixels is an expensive one." {shape}>
<figcaption>Where the bits are: black is 0, pale yellow {brightest:.1f} bits per pixel or more.</figcaption></figure>
</div>
</div>
"""


def curve_svg(measured: list[cards.Measured]) -> str:
    """The rate-distortion curve as SVG; the rate is on a logarithmic axis."""
    rates, dbs = np.array([file.bpp for file in measured]), np.array([file.psnr for file in measured])
    left, right, top, bottom = 52, PLOT_WIDTH - 20, 20, PLOT_HEIGHT - 48
    x = np.interp(np.log(rates), np.log([rates.min(), rates.max()]), (left + 12, right - 8))
    y = np.interp(dbs, [dbs.min(), dbs.max()], (bottom - 12, top + 16))
    line = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y))
    points = "".join(
        f'<g class="point" data-quality="{q}"><circle cx="{a:.1f}" cy="{b:.1f}" r="15" class="reach"/>'
        f'<circle cx="{a:.1f}" cy="{b:.1f}" r="6" class="dot"/><text x="{a:.1f}" y="{b - 16:.1f}" text-anchor="middle">{q}</text></g>'
        for (q, *_), a, b in zip(measured, x, y)
    )
    ticks = f'<text x="{left}" y="{bottom + 18}">{rates.min():.2f}</text><text x="{right}" y="{bottom + 18}" text-anchor="end">{rates.max():.2f}</text>'
    ticks += f'<text x="{left - 6}" y="{bottom - 8}" text-anchor="end">{dbs.min():.1f}</text><text x="{left - 6}" y="{top + 12}" text-anchor="end">{dbs.max():.1f}</text>'
    return (
        f'<svg id="explore-staircase" viewBox="0 0 {PLOT_WIDTH} {PLOT_HEIGHT}" role="img" aria-label="The rate-distortion curve: PSNR rises with the bits per pixel from quality 1 to 6.">'
        f'<path class="axis" d="M{left} {top}V{bottom}H{right}"/>{ticks}<text x="{(left + right) / 2}" y="{bottom + 40}" text-anchor="middle">bits per pixel</text>'
        f'<text x="14" y="{(top + bottom) / 2}" text-anchor="middle" transform="rotate(-90 14 {(top + bottom) / 2})">dB</text>'
        f'<polyline class="curve" points="{line}"/>{points}</svg>'
    )


def wavefront_part() -> str:
    """A table with the step w + 3h of each position; explore.js paints it step by step."""
    rows = "".join(
        "<tr>" + "".join(f'<td data-h="{h}" data-w="{w}">{w + 3 * h}</td>' for w in range(COLUMNS)) + "</tr>"
        for h in range(ROWS)
    )
    steps = COLUMNS + 3 * (ROWS - 1)
    return f"""<div class="explore" id="explore-wavefront" data-steps="{steps}">
<div class="explore-table"><table class="wavefront"><caption>{ROWS * COLUMNS} positions, {steps} steps: each number is the step that decodes its position</caption>
<tbody>{rows}</tbody></table></div>
</div>
"""
