"""What the chapters share: how one starts, sentences with numbers, sliders, and the figures that recur.

Everything that makes the codec is in the package ``dgml``, and a chapter finds it here too:

- ``dgml/checkpoints.py`` loads a codec, ``dgml/picture_sets.py`` a set of pictures,
- ``dgml/images.py`` goes from picture to tensor and back, ``dgml/metrics.py`` counts bits and dB,
- ``dgml/naive.py`` packs the buffer of chapters 6 and 7,
- ``dgml/bitstream.py`` is the real file (``from dgml import FileCodec``), ``dgml/entropy.py`` what makes it exact.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
from matplotlib.colors import to_rgba
from PIL import Image
from torch import Tensor

from dgml.checkpoints import checkpoint_path, load_codec, load_trained
from dgml.images import crop, image_to_tensor, pad, tensor_to_image, to_rgb
from dgml.metrics import bd_rate_over, bits, bpp, psnr
from dgml.model import Cheng2020Anchor, Cheng2020Attention
from dgml.naive import pack, unpack
from dgml.picture_sets import load_images
from dgml.settings import LAMBDA, QUALITIES, ROOT, most_megapixels, setting

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = [
    "COLOUR", "LAMBDA", "QUALITIES", "ROOT", "WIDTH", "Cheng2020Anchor", "Cheng2020Attention", "bd_rate_over", "bits", "bpp",
    "checkpoint_path", "crop", "default_index", "display_markdown", "draw_data_flow", "image_to_tensor", "inches_high",
    "interact", "load_codec", "load_images", "load_trained", "pack", "pad", "psnr", "show_pictures", "start_chapter",
    "tensor_to_image", "to_rgb", "unpack",
]  # fmt: skip

# One colour for one thing, in all chapters (Okabe and Ito's palette, safe for colour-blind readers).
COLOUR = {
    "y": "#0072B2", "z": "#E69F00", "pixels": "#555555",
    "naive": "#D55E00", "sound": "#009E73", "bundled": "#6A3D9A", "published": "#CC79A7", "compressai": "#882255",
}  # fmt: skip
WIDTH = 5.4  # inches: text of 11 points stays legible where the page is a phone's width
plt.rcParams.update({"figure.dpi": 120, "font.size": 11, "axes.spines.top": False, "axes.spines.right": False})
if os.environ.get("DGML_FIGURES") == "svg":  # what the site's build asks for; stored outputs are PNG
    from matplotlib_inline.config import InlineBackend

    InlineBackend.instance().figure_formats = {"svg", "png"}
    plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "dgml", "image.interpolation": "none",
                         "image.composite_image": False})  # fmt: skip
# What the slowest chapter takes for a megapixel, on two cores.
SECONDS, GIGABYTES = 20, 0.7


# ---------------------------------------------------------------- starting a chapter


def start_chapter(
    codec: Cheng2020Anchor | None = None, images: "Dataset | None" = None, img_idx: int = 0, written_for: int = 3
) -> Callable[[str, bool], None]:
    """Print what a chapter runs on, and return its ``claim(statement, holds)``.

    A claim is a sentence of the chapter with the condition that makes it true.  Where it fails, the run that the
    page was written for (bundled weights at quality ``written_for``, first bundled picture) raises AssertionError, so
    that a test fails; any other run, and any in an editor, goes on and prints which statement does not hold here.
    """
    if codec is not None:
        print(describe(codec, images, img_idx))
    bundled = all(setting(name) == "bundled" for name in ("WEIGHTS", "IMAGES"))
    whole = most_megapixels() >= 2  # so that no bundled photograph was scaled down
    committed = (
        bundled
        and whole
        and not is_interactive()
        and img_idx == 0
        and getattr(codec, "quality", written_for) == written_for
    )

    def claim(statement: str, holds: bool) -> None:
        if not holds and committed:
            raise AssertionError(statement)
        if not holds:
            print(f"In this run the following does not hold: {statement}")

    return claim


def default_index(images: "Dataset") -> int:
    """The picture that the chapters look at: 22 (two macaws) of a Kodak set that has so many, 0 of any other set."""
    return 22 if Path(setting("IMAGES")).name.lower() == "kodak" and len(images) > 22 else 0


def describe(codec: Cheng2020Anchor, images: "Dataset", img_idx: int) -> str:
    """Two lines that say which weights and which picture a chapter runs on."""
    weights = getattr(codec, "source", setting("WEIGHTS"))
    source = setting("IMAGES")
    row = images[img_idx]
    return (f"weights: {weights}, quality {getattr(codec, 'quality', 'unknown')}, N = {codec.N}, M = {codec.M}\n"
            f"image: {row['name']}, index {img_idx} of {Path(source).name}, {size_in_words(row['image'])}")  # fmt: skip


def size_in_words(picture: Image.Image) -> str:
    """ "512x512"; of a large picture also what was done to it and what a chapter's run on it takes."""
    width, height = picture.size
    text = f"{width}x{height}"
    if "native_size" in picture.info:
        native = "{}x{}".format(*picture.info["native_size"])
        text += f", scaled down from {native} (set DGML_MEGAPIXELS=inf to keep it whole)"
    if width * height >= 1e6:
        megapixels = width * height / 1e6
        text += f"; the run may take {SECONDS * megapixels:.0f} s and {GIGABYTES * megapixels:.1f} GB"
    return text


# ---------------------------------------------------------------- prose and sliders


def display_markdown(markdown: str, **values: object) -> None:
    """Show a paragraph of Markdown with numbers of this run: ``display_markdown("{rate:.2f} bpp", rate=rate)``."""
    from IPython.display import Markdown, display

    display(Markdown(markdown.format(**values)))


def interact(draw: Callable[..., None], **sliders: object) -> None:
    """Sliders for what ``draw`` draws, where somebody can move them; anywhere else nothing.

    A figure stands beside each such cell for those who read.  ``sliders`` are what ipywidgets makes a
    control of: (first, last), or a list of choices.
    """
    if not is_interactive():
        return
    import ipywidgets
    from IPython.display import display

    controls = ipywidgets.interactive(draw, **sliders)
    for control in controls.children:
        if hasattr(control, "continuous_update"):
            control.continuous_update = False  # draw when the slider is let go
    display(controls)


def is_interactive() -> bool:
    """Whether this kernel belongs to a notebook that is open in Jupyter, VS Code or Colab; that of a test does not."""
    from IPython import get_ipython

    in_editor = "__vsc_ipynb_file__" in getattr(get_ipython(), "user_ns", {})
    return "JPY_SESSION_NAME" in os.environ or in_editor or "google.colab" in sys.modules


# ---------------------------------------------------------------- figures


def inches_high(height: int, width: int, inches: float = WIDTH) -> float:
    """How high a picture is drawn that is ``inches`` wide: as its pixels say, but a fifth to twice its width."""
    return inches * min(max(height / width, 0.2), 2)


def show_pictures(pictures: dict[str, Image.Image | Tensor], columns: int = 2) -> None:
    """Draw pictures (PIL, or tensors in [0, 1]) in a grid, each under its title, one pixel grid for all."""
    drawn = {title: tensor_to_image(p) if isinstance(p, Tensor) else p for title, p in pictures.items()}
    rows = -(-len(drawn) // columns)
    w, h = next(iter(drawn.values())).size
    high = inches_high(h, w, WIDTH / columns)
    figure, axes = plt.subplots(rows, columns, figsize=(WIDTH, rows * (high + 0.35)), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, (title, picture) in zip(axes.flat, drawn.items()):
        axis.imshow(picture)
        axis.set_title(title, fontsize=10)
    figure.tight_layout(pad=0.3)
    plt.show()


def draw_data_flow(shapes: dict[str, str] | None = None, here: list[str] | tuple[()] = ()) -> None:
    """Draw how tensors run through the codec (Minnen et al., NeurIPS 2018, fig. 1, in our notation).

    ``shapes`` adds a line of text to a node, ``here`` names the nodes to fill.
    """
    nodes = {  # name: (label, x, y)
        "x": ("photograph x", 0.17, 0.96), "g_a": ("gₐ", 0.17, 0.80), "y": ("y", 0.17, 0.64),
        "y_hat": ("round: ŷ", 0.17, 0.43), "g_s": ("gₛ", 0.17, 0.22), "x_hat": ("reconstruction x̂", 0.17, 0.05),
        "h_a": ("hₐ", 0.83, 0.96), "z": ("z", 0.83, 0.80), "z_hat": ("round: ẑ", 0.83, 0.64),
        "h_s": ("hₛ", 0.83, 0.43), "context_prediction": ("context\nmodel", 0.5, 0.43),
        "entropy_parameters": ("entropy\nparameters", 0.83, 0.22), "p": ("means and scales\nof ŷ", 0.83, 0.05),
    }  # fmt: skip
    arrows = ["x g_a", "g_a y", "y y_hat", "y_hat g_s", "g_s x_hat", "y h_a", "h_a z", "z z_hat", "z_hat h_s", "y_hat context_prediction",
              "context_prediction entropy_parameters", "h_s entropy_parameters", "entropy_parameters p"]  # fmt: skip
    corners = {"y h_a": [(0.5, 0.64), (0.5, 0.96)], "context_prediction entropy_parameters": [(0.5, 0.22)]}
    _, axis = plt.subplots(figsize=(WIDTH, 5.2), layout="constrained")
    for arrow in arrows:
        start, end = (nodes[name][1:] for name in arrow.split())
        way = [start, *corners.get(arrow, ()), end]
        axis.plot(*zip(*way), color="#333333", linewidth=1.2, zorder=0)
        (x0, y0), (x1, y1) = way[-2:]
        axis.annotate(
            "",
            ((x0 + x1) / 2, (y0 + y1) / 2),
            (x0, y0),
            arrowprops={"arrowstyle": "-|>", "color": "#333333", "shrinkA": 0, "shrinkB": 0},
        )
    for name, (label, x, y) in nodes.items():
        colour = COLOUR["z" if name in ("h_a", "z", "z_hat", "h_s") else "pixels" if name[0] in "xg" else "y"]
        learned = name in ("g_a", "g_s", "h_a", "h_s", "context_prediction", "entropy_parameters")
        text = label + (f"\n{shapes[name]}" if shapes and name in shapes else "")
        ground = "white" if name not in here else tuple(1 - 0.3 * (1 - part) for part in to_rgba(colour)[:3])
        box = {"boxstyle": "round,pad=0.35" if learned else "square,pad=0.25", "edgecolor": colour,
               "facecolor": ground, "linewidth": 2.2 if learned else 0.8}  # fmt: skip
        axis.text(x, y, text, ha="center", va="center", bbox=box, weight="bold" if learned else "normal")
    axis.set(xlim=(0, 1), ylim=(0, 1))
    axis.axis("off")
    plt.show()
