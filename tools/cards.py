"""The cards of the front page: each chapter's picture, drawn from the codec, its promise and its minutes."""

import json
import re
import sys
import zlib
from html import escape
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.colors import to_rgb
from notation import typeset
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from helpers import COLOUR, ROOT, bits, image_to_tensor, pack, pad

SIZE = (480, 270)  # pixels: twice what a card shows
MINUTES = {"ten": 10, "fifteen": 15, "twenty": 20, "twenty-five": 25, "thirty": 30, "thirty-five": 35, "forty": 40}
PARTS = {
    "I. Opening the codec": range(1, 9), "II. How it compresses": range(9, 11), "III. A real file": range(11, 14),
    "IV. The paper's ideas": range(14, 16), "V. In context": range(16, 20),
}  # fmt: skip
CARDS = {  # chapter: (promise, what its picture shows)
    1: ("Its parts, its data flow, its six qualities.", "Bars that grow shorter and longer again: the sizes of the tensors."),
    2: ("From pixels to a tensor, and what padding costs.", "A photograph under a grid of squares."),
    3: ("How probabilities become bits, and where in the picture they go.", "A map of bits, bright where the photograph has detail."),
    4: ("Which numbers carry the rate.", "Bars, from the dearest channel to the cheapest."),
    5: ("What the numbers mean, and what the decoder paints with them.", "Eight grey maps of latents."),
    6: ("The obvious way to write bytes, why it fails twice, and how to mend it.", "Packed bytes as grey noise."),
    7: ("From bytes back to a photograph.", "What the codec changed in the photograph, eight times enlarged."),
    8: ("Six qualities, and where this codec stands.", "Six points that climb."),
    9: ("What a cosine transform does, and what a network does in its place.", "Patterns of cosines."),
    10: ("How a few numbers tell the decoder what to expect.", "A map of predicted scales."),
    11: ("An entropy coder at work, and a whole file against every promise.", "An interval, divided again and again."),
    12: ("Why the decoder is slow, and how it becomes fast.", "Slanted fronts over a grid of positions."),
    13: ("How floating point breaks a decoder, and arithmetic that cannot.", "The first bytes of a file."),
    14: ("What the three Gaussians of the paper's title save, in bytes.", "Three bell curves and their sum."),
    15: ("A gate that goes by the name of attention, where it looks, what it costs and buys.", "The curve of a gate, from shut to open."),
    16: ("A codec trained before your eyes, and how to train one that lasts.", "A loss that falls."),
    17: ("An encoder may look for better numbers; the decoder never notices.", "A path of short steps towards a minimum."),
    18: ("The same photographs in five other formats, at equal bytes and at equal PSNR.", "A face, left from the codec's file, right from a JPEG of as many bytes."),
    19: ("What came after this codec, and what was given up.", "Dots on a line of years."),
}  # fmt: skip
PICTURES = (2, 3, 5, 6, 7, 9, 10, 18)  # of these a card shows pixels, of the others a chart, in light and in dark


def shelf(run: str) -> str:
    """The cards of the chapters that there are, by part; ``run`` is where their pictures lie."""
    found = {int(path.stem[:2]): path for path in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))}
    sections = []
    for part, numbers in PARTS.items():
        inside = "".join(card(n, found[n], run) for n in numbers if n in found)
        if inside:
            sections.append(f'<h3 class="cards-part">{part}</h3><ul class="cards">{inside}</ul>')
    return "".join(sections)


def card(n: int, path: Path, run: str) -> str:
    promise, shown = CARDS[n]
    title, minutes = facts_of(path)
    kinds = {"": ""} if n in PICTURES else {"-light": ' class="only-light"', "-dark": ' class="only-dark"'}
    pictures = "".join(
        f'<img{when} src="{run}card-{n:02}{kind}.webp" width="{SIZE[0] // 2}" height="{SIZE[1] // 2}" '
        f'alt="{escape(shown)}" loading="lazy" decoding="async">'
        for kind, when in kinds.items()
    )
    return (
        f'<li><a href="../notebooks/{path.stem}.html">{pictures}'
        f'<span class="card-title">{n}. {escape(title)}</span></a><span class="card-promise">{promise}</span>'
        f'<span class="card-minutes">{minutes} minutes</span></li>'
    )


def facts_of(path: Path) -> tuple[str, int]:
    """Title and minutes of a chapter, as it tells them itself."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    word = re.search(r"about ([\w-]+)\s+minutes", text)[1]
    return typeset(re.search(r"^# (.+)", text, re.M)[1]), int(MINUTES.get(word, word))


# ---------------------------------------------------------------- their pictures


@torch.no_grad()
def draw(folder: Path, picture: Image.Image, facts: list, codec, data: bytes, decoded, likelihoods: dict, jpeg) -> None:
    """Write ``card-NN.webp``, or of a chart one for each theme, for all chapters."""
    y = codec.g_a(pad(image_to_tensor(picture)))
    z = codec.h_a(y)
    cost = bits(likelihoods["y"])[0]
    dearest = cost.sum(dim=(1, 2)).argsort(descending=True)
    photograph = wide(picture)
    gridded = np.array(photograph)
    gridded[:: SIZE[1] // 5], gridded[:, :: SIZE[1] // 5] = 255, 255
    latents = [stretched(m) for m in y[0, dearest[:8]].round().numpy()]
    packed = np.frombuffer(zlib.compress(pack(y.round(), z.round()), 9), np.uint8)
    difference = np.abs(np.int16(picture) - np.int16(decoded)).clip(0, 31) * 8
    scales = codec.h_s(z.round()).chunk(2, 1)[0].abs().mean(1)[0].numpy()
    halves = np.hstack([np.array(decoded)[:, : picture.width * 2 // 5], np.array(jpeg)[:, picture.width * 2 // 5 :]])
    pixels = {
        2: gridded, 3: heat(cost.sum(0).numpy(), "inferno"), 5: np.vstack([np.hstack(latents[:4]), np.hstack(latents[4:])]),
        6: packed[: 54 * 96].reshape(54, 96), 7: np.uint8(difference), 9: cosines(), 10: heat(np.log(scales + 0.05), "viridis"),
        18: halves,
    }  # fmt: skip
    for n, array in pixels.items():
        smooth = n in (2, 7, 18)
        fitted = wide(
            Image.fromarray(array).convert("RGB"), Image.Resampling.LANCZOS if smooth else Image.Resampling.NEAREST
        )
        fitted.save(folder / f"card-{n:02}.webp", quality=80, method=6)
    charts = {
        1: sizes, 4: lambda a, c: bars(a, c, cost.sum(dim=(1, 2))[dearest].numpy()), 8: lambda a, c: climb(a, c, facts),
        11: lambda a, c: intervals(a, c, likelihoods["y"].flatten().numpy()), 12: fronts, 13: lambda a, c: in_hex(a, c, data),
        14: bells, 15: gate, 16: fall, 17: search, 19: years,
    }  # fmt: skip
    dark = {name: tuple(0.4 + 0.6 * part for part in to_rgb(colour)) for name, colour in COLOUR.items()}
    for n, chart in charts.items():
        for kind, colours in (("light", COLOUR), ("dark", dark)):
            figure = plt.figure(figsize=(SIZE[0] / 100, SIZE[1] / 100), dpi=100, facecolor="none")  # the card's ground
            axis = figure.add_axes((0.06, 0.1, 0.88, 0.8))
            axis.axis("off")
            chart(axis, colours)
            figure.canvas.draw()
            drawn = Image.fromarray(np.asarray(figure.canvas.buffer_rgba()))
            drawn.save(folder / f"card-{n:02}-{kind}.webp", lossless=True)
            plt.close(figure)
    share(folder, picture, jpeg, decoded)


def share(folder: Path, picture, jpeg, decoded) -> None:
    """What a link to the book shows elsewhere, 1200 x 630: the photograph, the codec's file, a JPEG of equal bytes."""
    canvas = Image.new("RGB", (1200, 630), "white")
    for i, shown in enumerate((picture, decoded, jpeg)):
        side = min(shown.size)
        part = shown.crop((0, 0, side, side)).resize((630, 630), Image.Resampling.LANCZOS).crop((115, 0, 511, 630))
        canvas.paste(part, (i * 402, 0))
    canvas.save(folder / "share.jpg", quality=85)


def wide(picture: Image.Image, how=Image.Resampling.LANCZOS) -> Image.Image:
    """The upper part of a picture in the shape of a card."""
    width = min(picture.width, picture.height * SIZE[0] // SIZE[1])
    height = max(1, width * SIZE[1] // SIZE[0])
    return picture.crop((0, 0, width, height)).resize(SIZE, how)


def stretched(m: np.ndarray) -> np.ndarray:
    return np.uint8(255 * (m - m.min()) / max(m.max() - m.min(), 1e-6))


def heat(values: np.ndarray, colours: str) -> np.ndarray:
    values = np.float64(values)
    top = np.quantile(values, 0.99)
    return np.uint8(255 * plt.get_cmap(colours)((values.clip(max=top) - values.min()) / (top - values.min()))[..., :3])


def cosines() -> np.ndarray:
    """The first 4 x 7 of the DCT's 8 x 8 patterns, each in a frame."""
    waves = [np.cos((np.arange(8) + 0.5) * k * np.pi / 8) for k in range(8)]
    tiles = [
        [np.pad(stretched(np.outer(waves[v], waves[u])), 1, constant_values=255) for u in range(7)] for v in range(4)
    ]
    return np.vstack([np.hstack(row) for row in tiles])


def sizes(axis, colour: dict) -> None:
    heights = np.array([1, 0.6, 0.36, 0.2, 0.2, 0.36, 0.6, 1])
    colours = [colour["pixels"], *6 * [colour["y"]], colour["pixels"]]
    axis.bar(range(8), heights, bottom=-heights / 2, width=0.62, color=colours)


def bars(axis, colour: dict, costs: np.ndarray) -> None:
    axis.bar(range(len(costs)), costs, color=colour["y"], width=0.8)


def climb(axis, colour: dict, facts: list) -> None:
    axis.plot(np.log([f[2] for f in facts]), [f[3] for f in facts], "o-", color=colour["bundled"], lw=4, ms=14)


def fronts(axis, colour: dict) -> None:
    """The positions that are decoded in one step, of every eighth step."""
    h, w = np.mgrid[:9, :16]
    marked = (w + 3 * h) % 8 == 0
    axis.bar(w[marked], 0.94, 0.94, bottom=8 - h[marked], color=colour["y"])
    axis.bar(w[~marked], 0.94, 0.94, bottom=8 - h[~marked], color=colour["pixels"], alpha=0.25)


def intervals(axis, colour: dict, p: np.ndarray) -> None:
    """A real order of symbols: each keeps the share of the interval that its likelihood is."""
    p = p[(p > 0.3) & (p < 0.7)][:5]
    low, width = 0.0, 1.0
    for i, share_of in enumerate(p):
        axis.barh(-i, width, left=low, height=0.55, color=colour["sound"], alpha=0.25)
        low, width = low + width * (1 - share_of) / 2, width * share_of
        axis.barh(-i, width, left=low, height=0.55, color=colour["sound"])


def in_hex(axis, colour: dict, data: bytes) -> None:
    rows = [data[i : i + 8].hex(" ") for i in range(0, 40, 8)]
    axis.text(0.5, 0.5, "\n".join(rows), ha="center", va="center", family="monospace", fontsize=19, color=colour["sound"], transform=axis.transAxes)  # fmt: skip


def bells(axis, colour: dict) -> None:
    t = np.linspace(-4, 4, 300)
    parts = [w * np.exp(-(((t - m) / s) ** 2) / 2) / s for w, m, s in ((0.5, -1, 0.5), (0.3, 0.8, 0.8), (0.2, 1.5, 2))]
    axis.plot(t, sum(parts), color=colour["y"], lw=4)
    for part in parts:
        axis.plot(t, part, color=colour["z"], lw=2.5)


def gate(axis, colour: dict) -> None:
    t = np.linspace(-6, 6, 200)
    axis.fill_between(t, 1 / (1 + np.exp(-t)), color=colour["z"], alpha=0.3)
    axis.plot(t, 1 / (1 + np.exp(-t)), color=colour["z"], lw=4)


def fall(axis, colour: dict) -> None:
    """The training loss of the codec of quality 3, from its first log."""
    logs = sorted((ROOT / "checkpoints/logs").glob("q3*.csv"))
    rows = np.genfromtxt(logs[0], delimiter=",", names=True)
    loss = rows["loss"][3:]
    axis.plot(np.log(np.arange(len(loss)) + 5), np.log(loss), color=colour["bundled"], lw=3)


def search(axis, colour: dict) -> None:
    u, v = np.meshgrid(np.linspace(-2, 2, 120), np.linspace(-1.2, 1.2, 80))
    axis.contour(u, v, u**2 / 2 + 2 * v**2 + u * v, levels=7, colors=colour["pixels"], linewidths=1)
    at, path = np.array([-1.7, 1.0]), []
    for _ in range(14):
        path.append(at)
        at = at - 0.17 * np.array([at[0] + at[1], 4 * at[1] + at[0]])
    axis.plot(*np.array(path).T, "o-", color=colour["naive"], lw=2.5, ms=8)


def years(axis, colour: dict) -> None:
    """When what the book cites since this codec's ancestors appeared."""
    text = (ROOT / "book/references.bib").read_text(encoding="utf-8")
    found = [int(year) for year in re.findall(r"year\s*=\s*\{(\d{4})\}", text) if int(year) >= 2016]
    for year in sorted(set(found)):
        axis.plot([year] * found.count(year), range(found.count(year)), "o", color=colour["y"], ms=13)
    axis.set_ylim(-1, max(map(found.count, found)) + 1)
