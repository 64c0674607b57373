"""Chapters run to their end on any picture at any quality: tiny, flat, noise, text, panorama, screenshot, transparent.

By default each chapter runs on one of the pictures; ``make odd`` runs each on all of them.
"""

import gc
import io
import os
import re
import sys

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
from IPython.core.interactiveshell import InteractiveShell
from PIL import Image, ImageDraw

from dgml.settings import QUALITIES, ROOT

CHAPTERS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LONG = {"16_train_your_own"}  # trains for a minute, on the bundled pictures whatever one looks at


def text(size: tuple[int, int]) -> Image.Image:
    page = Image.new("L", size, 255)
    for y in range(4, size[1] - 10, 12):
        ImageDraw.Draw(page).text((4, y), "the quick brown fox jumps over the lazy dog 0123456789" * 3, fill=0)
    return page


def screenshot(size: tuple[int, int]) -> Image.Image:
    image = Image.new("RGB", size, "#f5f5f5")
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, size[0], 24), fill="#2b579a")
    for i in range(6):
        draw.rectangle((20, 40 + 30 * i, 60 + 40 * i, 58 + 30 * i), fill="#ffffff", outline="#c0c0c0")
        draw.text((24, 42 + 30 * i), "File Edit View Help", fill="black")
    return image


def noise(height: int, width: int, channels: int = 3) -> Image.Image:
    levels = np.random.default_rng(0).integers(256, size=(height, width, channels), dtype=np.uint8)
    return Image.fromarray(levels.squeeze())


def ramp(height: int, width: int) -> Image.Image:
    y, x = np.mgrid[:height, :width]
    levels = np.stack((255 * x / width, 255 * y / height, 127 + 60 * np.sin(x / 9)), axis=-1)
    return Image.fromarray(levels.astype(np.uint8))


PICTURES = {
    "tiny": ramp(16, 16),
    "white": Image.new("RGB", (200, 150), "white"),
    "black": Image.new("RGB", (64, 64), "black"),
    "noise": noise(100, 130),
    "text": text((300, 200)),
    "panorama": ramp(48, 900),
    "tower": ramp(700, 40),
    "screenshot": screenshot((400, 300)),
    "grey": ramp(80, 120).convert("L"),
    "sixteen bits": Image.fromarray((257 * np.asarray(ramp(90, 70).convert("L"), np.uint32)).astype(np.uint16)),
    "alpha": Image.merge("RGBA", (*ramp(100, 150).split(), noise(100, 150, 1))),
    "palette": ramp(128, 104).quantize(16),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The pictures as files, in the order of the table above."""
    folder = tmp_path_factory.mktemp("odd pictures")
    for i, (name, picture) in enumerate(PICTURES.items()):
        picture.save(folder / f"{i:02} {name}.png")
    return folder


@pytest.fixture
def shell(folder, monkeypatch):
    """A notebook's shell on the odd pictures; figures are drawn, as a front end draws them."""

    def show() -> None:
        for number in plt.get_fignums():
            plt.figure(number).savefig(io.BytesIO(), bbox_inches="tight")
        plt.close("all")

    monkeypatch.setenv("DGML_IMAGES", str(folder))
    monkeypatch.chdir(ROOT / "notebooks")
    monkeypatch.setattr(plt, "show", show)
    monkeypatch.setattr(sys, "path", [*sys.path])
    shell = InteractiveShell.instance()
    yield shell
    shell.reset(new_session=False)  # else all tensors of all chapters stay until the last has run
    InteractiveShell.clear_instance()
    plt.close("all")
    gc.collect()


def run(shell: InteractiveShell, path, index: int, quality: int) -> None:
    """Run a chapter on another picture and quality than it was written for; what a cell raises is raised."""
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    for cell in cells:
        source = re.sub(r"default_index\(\w*\)", str(index), cell.source)
        source = re.sub(r"^quality = \d", f"quality = {quality}", source, flags=re.MULTILINE)
        result = shell.run_cell(source)
        if "raises-exception" not in cell.metadata.get("tags", []):
            result.raise_error()


def cases():
    """Chapter, picture and quality: each chapter on all pictures if DGML_ODD=all, else on one."""
    for n, path in enumerate(path for path in CHAPTERS if path.stem not in LONG):
        chooses = '"quality = ' in path.read_text("utf-8")  # the other chapters are about one quality
        for i, name in enumerate(PICTURES):
            if os.environ.get("DGML_ODD") == "all" or i == n % len(PICTURES):
                quality = QUALITIES[(n + i + i // 6) % 6] if chooses else 3
                yield pytest.param(path, i, quality, id=f"{path.stem}-{name}-{quality}")


@pytest.mark.parametrize(("path", "index", "quality"), cases())
def test_a_chapter_runs_to_its_end(path, index, quality, shell):
    run(shell, path, index, quality)


PUBLISHED = [p for p in CHAPTERS if p.stem not in LONG and (os.environ.get("DGML_ODD") == "all" or "03" in p.stem)]


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
def test_a_chapter_runs_with_weights_of_the_published_widths(path, shell, zoo, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(zoo))
    monkeypatch.setenv("DGML_WEIGHTS", "published")
    run(shell, path, list(PICTURES).index("grey"), 3)


def test_all_qualities_and_pictures_occur():
    drawn = [case.values for case in cases()]
    assert {quality for *_, quality in drawn} == set(QUALITIES)
    assert {index for _, index, _ in drawn} == set(range(len(PICTURES)))


def test_what_a_chapter_raises_is_noticed(shell, tmp_path):
    cells = [nbformat.v4.new_code_cell(source) for source in ("quality = 3", "1 / (quality - 5)")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "small.ipynb")
    run(shell, tmp_path / "small.ipynb", 0, 4)
    with pytest.raises(ZeroDivisionError):
        run(shell, tmp_path / "small.ipynb", 0, 5)
