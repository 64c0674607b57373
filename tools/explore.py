"""Make what the page explore.md shows: one photograph through all six qualities, as real files.

A Sphinx extension, so that every build of the book makes its own; writes ``book/_static/explore/run/``.
"""

import sys
from pathlib import Path

import matplotlib
import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import bitstream
from helpers import (
    QUALITIES,
    bits,
    default_index,
    describe,
    image_to_tensor,
    load_codec,
    load_images,
    pad,
    psnr,
    to_rgb,
)

RUN = Path(__file__).parents[1] / "book" / "_static" / "explore" / "run"
ROWS, COLUMNS = 6, 10  # of the wavefront's grid
PLOT_WIDTH, PLOT_HEIGHT = 360, 230


def setup(app) -> dict:
    app.connect("builder-inited", lambda app: make())
    return {"parallel_read_safe": True}


@torch.no_grad()
def make() -> None:
    """Encode, decode and write the pictures, and the part of the page that depends on them."""
    RUN.mkdir(parents=True, exist_ok=True)
    images, index = load_images(), default_index()
    picture = to_rgb(images[index]["image"])
    x = image_to_tensor(picture)
    picture.save(RUN / "original.webp", quality=92)
    facts, maps = [], []
    for quality in QUALITIES:
        codec = load_codec(quality)
        data = bitstream.encode(codec, picture, quality)
        decoded = bitstream.decode(codec, data)
        decoded.save(RUN / f"q{quality}.webp", quality=92)
        maps.append(bits(codec(pad(x))["likelihoods"]["y"])[0].sum(0).numpy() / 256)
        rate = 8 * len(data) / (picture.width * picture.height)
        facts.append((quality, len(data), rate, psnr(x, image_to_tensor(decoded))))
    dearest = np.quantile(maps[-1], 0.99)  # one scale for all six, that a single block does not darken
    for quality, block in zip(QUALITIES, maps):
        colours = matplotlib.colormaps["inferno"](np.minimum(block / dearest, 1))[
            : -(-picture.height // 16), : -(-picture.width // 16), :3
        ]
        Image.fromarray(np.uint8(255 * colours)).save(RUN / f"bits{quality}.png")
    weights, shown = describe(load_codec(3), images, index).split("\n")
    what = f"{weights.split(',')[0]}; {shown}"
    text = codec_part(facts, picture.size, float(dearest), what)
    (RUN / "codec.html").write_text(text, encoding="utf-8")
    (RUN / "wavefront.html").write_text(wavefront_part(), encoding="utf-8")


def codec_part(facts: list[tuple], size: tuple[int, int], dearest: float, what: str) -> str:
    """The table of qualities, the pictures and the staircase: whole without a script, and what explore.js works on."""
    rows = "".join(
        f'<tr data-quality="{q}"><th scope="row"><label><input type="radio" name="quality" value="{q}"'
        f"{' checked' if q == 3 else ''}> {q}</label></th><td>{n:,}</td><td>{rate:.3f}</td><td>{db:.2f}</td></tr>"
        for q, n, rate, db in facts
    )
    width, height = size
    shape = f'width="{width}" height="{height}" loading="lazy" decoding="async"'
    here = "../_static/explore/run/"
    return f"""<div class="explore" id="explore-codec">
<p>{what}</p>
<div class="explore-table"><table><caption>Choose a quality</caption><thead><tr><th scope="col">quality</th><th scope="col">bytes of the file</th>
<th scope="col">bits per pixel</th><th scope="col">PSNR in dB</th></tr></thead><tbody>{rows}</tbody></table></div>
<p role="status" id="explore-chosen">Quality 3: {facts[2][1]:,} bytes, {facts[2][2]:.3f} bits per pixel, {facts[2][3]:.2f} dB.</p>
<div class="explore-pair">
<figure><img id="explore-original" src="{here}original.webp" alt="The original photograph." {shape}><figcaption>original</figcaption></figure>
<figure><img id="explore-decoded" src="{here}q3.webp" alt="The photograph decoded from the file of the chosen quality." {shape}>
<figcaption>decoded</figcaption></figure>
</div>
<div class="explore-pair">
<figure>{staircase(facts)}<figcaption>The staircase: a point is a file.</figcaption></figure>
<figure><img id="explore-bits" src="{here}bits3.png" alt="Map of the bits of the chosen quality: a bright block of 16 x 16 pixels is a dear one." {shape}>
<figcaption>Where the bits are: black is 0, white {dearest:.1f} bits per pixel or more.</figcaption></figure>
</div>
</div>
"""


def staircase(facts: list[tuple]) -> str:
    """The rate-distortion curve as SVG; the rate is on a logarithmic axis."""
    rates, dbs = (np.array([row[i] for row in facts]) for i in (2, 3))
    left, right, top, bottom = 52, PLOT_WIDTH - 20, 20, PLOT_HEIGHT - 48
    x = np.interp(np.log(rates), np.log([rates.min(), rates.max()]), (left + 12, right - 8))
    y = np.interp(dbs, [dbs.min(), dbs.max()], (bottom - 12, top + 8))
    line = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y))
    points = "".join(
        f'<g class="point" data-quality="{q}"><circle cx="{a:.1f}" cy="{b:.1f}" r="15" class="reach"/>'
        f'<circle cx="{a:.1f}" cy="{b:.1f}" r="6" class="dot"/><text x="{a:.1f}" y="{b - 10:.1f}" text-anchor="middle">{q}</text></g>'
        for (q, *_), a, b in zip(facts, x, y)
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
