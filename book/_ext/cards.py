"""The cards of the front page: each chapter's picture, drawn from the codec, its promise and its minutes."""

import re
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
import torch
from chapters import Chapter, chapters
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from notation import typeset
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from dgml.images import image_to_tensor, pad
from dgml.metrics import bits
from dgml.model import Cheng2020Anchor
from dgml.naive import pack
from dgml.settings import ROOT
from helpers import COLOUR

SIZE = (480, 270)  # pixels: twice what a card shows
NEAREST = Image.Resampling.NEAREST


def shelf(run: str) -> str:
    """The cards of the chapters by part; ``run`` is where their pictures lie."""
    parts = groupby(chapters(), lambda chapter: chapter.part)
    return "".join(
        f'<h3 class="cards-part">{part}</h3><ul class="cards">{"".join(card(chapter, run) for chapter in inside)}</ul>'
        for part, inside in parts
    )


def card(chapter: Chapter, run: str) -> str:
    themes = {"": ""} if chapter.card in PIXELS else {"-light": ' class="only-light"', "-dark": ' class="only-dark"'}
    pictures = "".join(
        f'<img{when} src="{run}card-{chapter.number:02}{theme}.webp" width="{SIZE[0] // 2}" height="{SIZE[1] // 2}" '
        f'alt="{escape(chapter.shown)}" loading="lazy" decoding="async">'
        for theme, when in themes.items()
    )
    return (
        f'<li><a href="../notebooks/{chapter.path.stem}.html">{pictures}'
        f'<span class="card-title">{chapter.number}. {escape(typeset(chapter.title))}</span></a>'
        f'<span class="card-promise">{chapter.promise}</span>'
        f'<span class="card-minutes">{chapter.minutes} minutes</span></li>'
    )


# ---------------------------------------------------------------- their pictures


class Measured(NamedTuple):
    """What was measured of a file: quality, size, rate in bits per pixel, and the PSNR of its picture in dB."""

    quality: int
    n_bytes: int
    bpp: float
    psnr: float


@dataclass
class Run:
    """A photograph and what the codec made of it: all that a card may be drawn from."""

    picture: Image.Image
    measured: list[Measured]  # of each quality
    codec: Cheng2020Anchor
    data: bytes  # the file
    decoded: Image.Image
    likelihoods: dict
    jpeg: Image.Image  # of as many bytes

    @torch.no_grad()
    def __post_init__(self) -> None:
        self.y = self.codec.g_a(pad(image_to_tensor(self.picture)))
        self.z = self.codec.h_a(self.y)
        self.cost = bits(self.likelihoods["y"])[0]
        self.ranked = self.cost.sum(dim=(1, 2)).argsort(descending=True)


def draw(folder: Path, run: Run) -> None:
    """Write ``card-NN.webp``, or of a chart one for each theme, for all chapters, and ``share.jpg``."""
    dark = {name: tuple(0.4 + 0.6 * part for part in to_rgb(colour)) for name, colour in COLOUR.items()}
    for chapter in chapters():
        path = folder / f"card-{chapter.number:02}"
        if chapter.card in PIXELS:
            Image.fromarray(PIXELS[chapter.card](run)).convert("RGB").save(f"{path}.webp", quality=80, method=6)
        else:
            for theme, colours in {"light": COLOUR, "dark": dark}.items():
                drawn(CHARTS[chapter.card], colours, run).save(f"{path}-{theme}.webp", lossless=True)
    share(run).save(folder / "share.jpg", quality=85)


def drawn(chart: Callable, colours: dict, run: Run) -> Image.Image:
    figure = Figure(figsize=(SIZE[0] / 100, SIZE[1] / 100), dpi=100, facecolor="none")  # the card's ground
    canvas = FigureCanvasAgg(figure)
    axis = figure.add_axes((0.06, 0.1, 0.88, 0.8))
    axis.axis("off")
    chart(axis, colours, run)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba()))


def share(run: Run) -> Image.Image:
    """What a link to the book shows elsewhere, 1200 x 630: the photograph, the codec's file, a JPEG of equal bytes."""
    canvas = Image.new("RGB", (1200, 630), "white")
    for i, shown in enumerate((run.picture, run.decoded, run.jpeg)):
        side = min(shown.size)
        part = shown.crop((0, 0, side, side)).resize((630, 630), Image.Resampling.LANCZOS).crop((115, 0, 511, 630))
        canvas.paste(part, (i * 402, 0))
    return canvas


def by_name(*functions: Callable) -> dict[str, Callable]:
    return {function.__name__: function for function in functions}


# ---------------------------------------------------------------- of pixels, each an array of SIZE


def gridded(run: Run) -> np.ndarray:
    photograph = wide(run.picture)
    photograph[:: SIZE[1] // 5], photograph[:, :: SIZE[1] // 5] = 255, 255
    return photograph


def where_bits_go(run: Run) -> np.ndarray:
    return wide(heat(run.cost.sum(0).numpy(), "inferno"), NEAREST)


def latent_maps(run: Run) -> np.ndarray:
    maps = [stretched(m) for m in run.y[0, run.ranked[:8]].round().numpy()]
    return wide(np.vstack([np.hstack(maps[:4]), np.hstack(maps[4:])]), NEAREST)


def packed(run: Run) -> np.ndarray:
    noise = np.frombuffer(zlib.compress(pack(run.y.round(), run.z.round()), 9), np.uint8)
    return wide(noise[: 54 * 96].reshape(54, 96), NEAREST)


def difference(run: Run) -> np.ndarray:
    return wide(np.uint8(np.abs(np.int16(run.picture) - np.int16(run.decoded)).clip(0, 31) * 8))


def cosines(run: Run) -> np.ndarray:
    """The first 4 x 7 of the DCT's 8 x 8 patterns, each in a frame."""
    waves = [np.cos((np.arange(8) + 0.5) * k * np.pi / 8) for k in range(8)]
    tiles = [
        [np.pad(stretched(np.outer(waves[v], waves[u])), 1, constant_values=255) for u in range(7)] for v in range(4)
    ]
    return wide(np.vstack([np.hstack(row) for row in tiles]), NEAREST)


@torch.no_grad()
def scales(run: Run) -> np.ndarray:
    mean = run.codec.h_s(run.z.round()).chunk(2, 1)[0].abs().mean(1)[0].numpy()
    return wide(heat(np.log(mean + 0.05), "viridis"), NEAREST)


def halves(run: Run) -> np.ndarray:
    left = run.picture.width * 2 // 5
    return wide(np.hstack([np.array(run.decoded)[:, :left], np.array(run.jpeg)[:, left:]]))


def wide(pixels: Image.Image | np.ndarray, how: Image.Resampling = Image.Resampling.LANCZOS) -> np.ndarray:
    """The upper part of a picture in the shape of a card."""
    picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    width = min(picture.width, picture.height * SIZE[0] // SIZE[1])
    height = max(1, width * SIZE[1] // SIZE[0])
    return np.array(picture.crop((0, 0, width, height)).resize(SIZE, how))


def stretched(m: np.ndarray) -> np.ndarray:
    return np.uint8(255 * (m - m.min()) / max(m.max() - m.min(), 1e-6))


def heat(values: np.ndarray, colours: str) -> np.ndarray:
    values = np.float64(values)
    top = np.quantile(values, 0.99)
    return np.uint8(
        255 * matplotlib.colormaps[colours]((values.clip(max=top) - values.min()) / (top - values.min()))[..., :3]
    )


# ---------------------------------------------------------------- charts


def sizes(axis, colour: dict, run: Run) -> None:
    heights = np.array([1, 0.6, 0.36, 0.2, 0.2, 0.36, 0.6, 1])
    colours = [colour["pixels"], *6 * [colour["y"]], colour["pixels"]]
    axis.bar(range(8), heights, bottom=-heights / 2, width=0.62, color=colours)


def bars(axis, colour: dict, run: Run) -> None:
    costs = run.cost.sum(dim=(1, 2))[run.ranked].numpy()
    axis.bar(range(len(costs)), costs, color=colour["y"], width=0.8)


def climb(axis, colour: dict, run: Run) -> None:
    rates, dbs = [file.bpp for file in run.measured], [file.psnr for file in run.measured]
    axis.plot(np.log(rates), dbs, "o-", color=colour["bundled"], lw=4, ms=14)


def fronts(axis, colour: dict, run: Run) -> None:
    """The positions that are decoded in one step, of every eighth step."""
    h, w = np.mgrid[:9, :16]
    marked = (w + 3 * h) % 8 == 0
    axis.bar(w[marked], 0.94, 0.94, bottom=8 - h[marked], color=colour["y"])
    axis.bar(w[~marked], 0.94, 0.94, bottom=8 - h[~marked], color=colour["pixels"], alpha=0.25)


def intervals(axis, colour: dict, run: Run) -> None:
    """A real order of symbols: each keeps the share of the interval that its likelihood is."""
    p = run.likelihoods["y"].flatten().numpy()
    p = p[(p > 0.3) & (p < 0.7)][:5]
    low, width = 0.0, 1.0
    for i, share_of in enumerate(p):
        axis.barh(-i, width, left=low, height=0.55, color=colour["sound"], alpha=0.25)
        low, width = low + width * (1 - share_of) / 2, width * share_of
        axis.barh(-i, width, left=low, height=0.55, color=colour["sound"])


def in_hex(axis, colour: dict, run: Run) -> None:
    rows = [run.data[i : i + 8].hex(" ") for i in range(0, 40, 8)]
    axis.text(0.5, 0.5, "\n".join(rows), ha="center", va="center", family="monospace", fontsize=19, color=colour["sound"], transform=axis.transAxes)  # fmt: skip


def bells(axis, colour: dict, run: Run) -> None:
    t = np.linspace(-4, 4, 300)
    parts = [w * np.exp(-(((t - m) / s) ** 2) / 2) / s for w, m, s in ((0.5, -1, 0.5), (0.3, 0.8, 0.8), (0.2, 1.5, 2))]
    axis.plot(t, sum(parts), color=colour["y"], lw=4)
    for part in parts:
        axis.plot(t, part, color=colour["z"], lw=2.5)


def gate(axis, colour: dict, run: Run) -> None:
    t = np.linspace(-6, 6, 200)
    axis.fill_between(t, 1 / (1 + np.exp(-t)), color=colour["z"], alpha=0.3)
    axis.plot(t, 1 / (1 + np.exp(-t)), color=colour["z"], lw=4)


def fall(axis, colour: dict, run: Run) -> None:
    """The training loss of the codec of quality 3, from its first log."""
    logs = sorted((ROOT / "checkpoints/logs").glob("q3*.csv"))
    rows = np.genfromtxt(logs[0], delimiter=",", names=True)
    loss = rows["loss"][3:]
    axis.plot(np.log(np.arange(len(loss)) + 5), np.log(loss), color=colour["bundled"], lw=3)


def search(axis, colour: dict, run: Run) -> None:
    u, v = np.meshgrid(np.linspace(-2, 2, 120), np.linspace(-1.2, 1.2, 80))
    axis.contour(u, v, u**2 / 2 + 2 * v**2 + u * v, levels=7, colors=colour["pixels"], linewidths=1)
    at, path = np.array([-1.7, 1.0]), []
    for _ in range(14):
        path.append(at)
        at = at - 0.17 * np.array([at[0] + at[1], 4 * at[1] + at[0]])
    axis.plot(*np.array(path).T, "o-", color=colour["naive"], lw=2.5, ms=8)


def years(axis, colour: dict, run: Run) -> None:
    """When what the book cites since this codec's ancestors appeared."""
    text = (ROOT / "book/references.bib").read_text(encoding="utf-8")
    found = [int(year) for year in re.findall(r"year\s*=\s*\{(\d{4})\}", text) if int(year) >= 2016]
    for year in sorted(set(found)):
        axis.plot([year] * found.count(year), range(found.count(year)), "o", color=colour["y"], ms=13)
    axis.set_ylim(-1, max(map(found.count, found)) + 1)


# What a chapter's metadata may name: of these a card shows pixels, of the others a chart, in light and in dark.
PIXELS = by_name(gridded, where_bits_go, latent_maps, packed, difference, cosines, scales, halves)
CHARTS = by_name(sizes, bars, climb, intervals, fronts, in_hex, bells, gate, fall, search, years)
