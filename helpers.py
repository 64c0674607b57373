"""The small utilities that the chapters share.

Loading (a codec, a set of pictures), going from picture to tensor and back, counting bits, measuring dB, packing integers into a buffer, and the figures that more than one chapter draws.
"""

import os
import struct
import warnings
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image, ImageOps
from safetensors.torch import load_file
from torch import Tensor

with warnings.catch_warnings():
    # compressai compiles two functions with torch.jit at import; newer versions of torch warn of it.
    warnings.filterwarnings("ignore", message=".*torch.jit", category=FutureWarning)
    warnings.filterwarnings("ignore", message=".*torch.jit", category=DeprecationWarning)
    from compressai.models import Cheng2020Anchor
    from compressai.zoo import cheng2020_anchor

try:
    from myst_nb import glue  # carries a number from a chapter's run into its prose
except ImportError:

    def glue(name: str, value: object, display: bool = False) -> None:
        """Do nothing where the book's builder is not installed (Colab)."""


ROOT = Path(__file__).resolve().parent
QUALITIES = range(1, 7)
# CompressAI's values for mean squared error, loss = lambda * 255**2 * MSE + bpp.
LAMBDA = dict(zip(QUALITIES, (0.0018, 0.0035, 0.0067, 0.0130, 0.0250, 0.0483)))
BUNDLED_N = dict(zip(QUALITIES, (32, 32, 32, 48, 48, 48)))
STRIDE = 64  # g_a halves the picture four times and h_a twice more

# One colour for one thing, in all chapters (Okabe and Ito's palette, safe for colour-blind readers).
COLOUR = {
    "y": "#0072B2", "z": "#E69F00", "pixels": "#555555", "parameters": "#009E73",
    "naive": "#D55E00", "sound": "#009E73", "bundled": "#0072B2", "published": "#CC79A7",
}  # fmt: skip
plt.rcParams.update({"figure.dpi": 110, "font.size": 11, "axes.spines.top": False, "axes.spines.right": False})


# ---------------------------------------------------------------- loading


def load_codec(quality: int = 3, weights: str | None = None) -> Cheng2020Anchor:
    """A ``cheng2020-anchor`` codec in eval mode on the CPU, its entropy-coding tables built.

    ``quality`` is 1 (smallest file) to 6.
    ``weights`` is "bundled" (``checkpoints/``) or "published" (CompressAI's model zoo, downloaded once); by default what ``DGML_WEIGHTS`` says, else "bundled".
    Raises ValueError for another quality or setting, and RuntimeError when the weights can't be had.
    """
    weights = weights or os.environ.get("DGML_WEIGHTS") or "bundled"
    if quality not in QUALITIES:
        raise ValueError(f"quality is 1 to 6, not {quality!r}")
    if weights == "bundled":
        codec = Cheng2020Anchor(BUNDLED_N[quality])
        load_checkpoint(codec, checkpoint_path(quality))
    elif weights == "published":
        try:
            codec = cheng2020_anchor(quality, pretrained=True, progress=False)
        except OSError as error:
            raise RuntimeError(
                f"DGML_WEIGHTS=published: quality {quality} could not be downloaded ({error}). "
                "Connect to the network once, or set DGML_WEIGHTS=bundled."
            ) from None
    else:
        raise ValueError(f"DGML_WEIGHTS is 'bundled' or 'published', not {weights!r}")
    codec.update()
    return codec.eval()


def checkpoint_path(quality: int) -> Path:
    """Where the bundled weights of a quality lie."""
    return ROOT / "checkpoints" / f"cheng2020-anchor-q{quality}.safetensors"


def load_checkpoint(codec: Cheng2020Anchor, path: Path) -> None:
    """Copy the half-precision weights in ``path`` into ``codec``; ValueError if they are of another width."""
    stored = {name: tensor.float() for name, tensor in load_file(path).items()}
    width = stored["g_a.0.conv1.weight"].shape[0]
    if width != codec.N:
        raise ValueError(f"{path} holds a codec of width N = {width}, not {codec.N}")
    lacking = dict(codec.named_parameters()).keys() - stored.keys()
    if lacking:
        raise ValueError(f"{path} lacks {len(lacking)} parameters, among them {min(lacking)}")
    # The buffers that a file leaves out are constant (masks, bounds) or rebuilt by update() (tables); compressai's own method would ask for them.
    torch.nn.Module.load_state_dict(codec, stored, strict=False)


def load_images(source: str | None = None):
    """A ``datasets.Dataset`` of pictures with the columns ``image`` (PIL) and ``name``.

    ``source`` is "bundled" (three photographs that ship inside scikit-image) or whatever ``datasets.load_dataset`` takes: a folder of pictures, or a name such as ``danjacobellis/kodak``; by default what ``DGML_IMAGES`` says, else "bundled".
    Raises ValueError when it holds no picture or can't be loaded.
    """
    import datasets

    source = source or os.environ.get("DGML_IMAGES") or "bundled"
    if source == "bundled":
        from skimage import data

        pictures = {name: Image.fromarray(getattr(data, name)()) for name in ("astronaut", "coffee", "chelsea")}
        columns = {"image": list(pictures.values()), "name": list(pictures)}
        return datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image())

    way_out = "Give a folder of pictures or a data set's name, or set DGML_IMAGES=bundled."
    if Path(source).is_dir():
        known = Image.registered_extensions()
        if not any(path.suffix.lower() in known for path in Path(source).rglob("*")):
            raise ValueError(f"DGML_IMAGES={source}: the folder holds no picture. {way_out}")
    datasets.disable_progress_bars()
    try:
        loaded = datasets.load_dataset(source)
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(f"DGML_IMAGES={source}: could not be loaded ({reason}). {way_out}") from None
    split = next(iter(loaded.values()))
    columns = [name for name, feature in split.features.items() if isinstance(feature, datasets.Image)]
    if not columns or not len(split):
        raise ValueError(f"DGML_IMAGES={source}: the data set holds no picture. {way_out}")
    paths = split.select_columns(columns[0]).cast_column(columns[0], datasets.Image(decode=False))
    names = [Path(row[columns[0]]["path"] or str(i)).stem for i, row in enumerate(paths)]
    images = split.select_columns(columns[0])
    if columns[0] != "image":
        images = images.rename_column(columns[0], "image")
    return images.add_column("name", names)


def default_index() -> int:
    """The picture that the chapters look at: 22 of Kodak (two macaws), 0 of any other set."""
    return 22 if Path(os.environ.get("DGML_IMAGES") or "bundled").name.lower() == "kodak" else 0


def describe(codec: Cheng2020Anchor, images, img_idx: int, quality: int = 3) -> str:
    """One line that says which weights and which picture a chapter runs on."""
    weights = os.environ.get("DGML_WEIGHTS") or "bundled"
    source = os.environ.get("DGML_IMAGES") or "bundled"
    width, height = images[img_idx]["image"].size
    return (f"weights: {weights}, quality {quality}, N = {codec.N}\n"
            f"image: {images[img_idx]['name']}, index {img_idx} of {Path(source).name}, {width}x{height}")  # fmt: skip


# ---------------------------------------------------------------- pictures and tensors


def to_rgb(picture: Image.Image) -> Image.Image:
    """The picture upright, in 8-bit RGB.

    Grey, palette and CMYK are converted, transparency is laid on white, 16-bit grey keeps its upper eight bits.
    Raises ValueError for floating-point pictures, whose range is unknown.
    """
    picture = ImageOps.exif_transpose(picture)
    if picture.mode == "F":
        raise ValueError("a floating-point picture has no known range; save it with 8 or 16 bits")
    if picture.mode.startswith("I"):
        levels = np.asarray(picture).astype(np.int64)
        if levels.min() < 0 or levels.max() > 65535:
            raise ValueError(f"grey levels {levels.min()} to {levels.max()} do not fit 16 bits")
        picture = Image.fromarray((levels >> 8).astype(np.uint8))
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture.convert("RGB")


def image_to_tensor(picture: Image.Image) -> Tensor:
    """A picture as float32 of shape (1, 3, H, W) in [0, 1]."""
    levels = torch.from_numpy(np.array(to_rgb(picture)))
    return levels.permute(2, 0, 1)[None].float() / 255


def tensor_to_image(x: Tensor) -> Image.Image:
    """The picture of a tensor (1, 3, H, W), clamped to [0, 1] and rounded to 8 bits."""
    levels = x[0].clamp(0, 1).mul(255).round().byte()
    return Image.fromarray(levels.permute(1, 2, 0).numpy())


def pad(x: Tensor, multiple: int = STRIDE) -> Tensor:
    """Repeat the last column and row of x (B, C, H, W) until H and W are multiples of ``multiple``."""
    height, width = x.shape[-2:]
    return torch.nn.functional.pad(x, (0, -width % multiple, 0, -height % multiple), mode="replicate")


def crop(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Undo :func:`pad`: the upper left (height, width) of x (B, C, H, W)."""
    return x[..., : size[0], : size[1]]


# ---------------------------------------------------------------- measures


def bits(likelihoods: Tensor) -> Tensor:
    """Information content in bits of symbols with these likelihoods, elementwise: -log2 p (Shannon, 1948)."""
    return -likelihoods.log2()


def bpp(likelihoods: dict[str, Tensor], n_pixels: int) -> float:
    """Bits per native pixel of a forward pass: all bits of y and z over ``n_pixels`` (before padding)."""
    return sum(bits(p).sum(dtype=torch.float64).item() for p in likelihoods.values()) / n_pixels


def psnr(x: Tensor, x_hat: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of two tensors of one shape: 10 log10(1 / MSE), both clamped to [0, 1].

    Infinite where they are equal; ValueError where the shapes differ.
    """
    if x.shape != x_hat.shape:
        raise ValueError(f"shapes differ: {tuple(x.shape)} and {tuple(x_hat.shape)}")
    mse = (x.clamp(0, 1).double() - x_hat.clamp(0, 1).double()).square().mean()
    return float(10 * torch.log10(1 / mse))


# ---------------------------------------------------------------- the buffer of chapters 6 and 7


def pack(y_hat: Tensor, z_hat: Tensor) -> bytes:
    """Eight little-endian int32 (the shapes of y_hat and z_hat, each (1, C, H, W)), then both arrays as int16.

    The cast drops whatever follows the decimal point: hand over integers.
    """
    header = struct.pack("<8i", *y_hat.shape, *z_hat.shape)
    return header + b"".join(a.numpy().astype("<i2").tobytes() for a in (y_hat, z_hat))


def unpack(buffer: bytes) -> tuple[Tensor, Tensor]:
    """The two arrays of :func:`pack` as float32; ValueError for a buffer that is cut short or has absurd shapes."""
    if len(buffer) < 32:
        raise ValueError(f"the buffer is cut short: {len(buffer)} bytes, the header alone has 32")
    sides = struct.unpack("<8i", buffer[:32])
    shapes = sides[:4], sides[4:]
    if min(sides) < 1 or sides[0] != 1 or sides[4] != 1:
        raise ValueError(f"the buffer's header is damaged: shapes {shapes[0]} and {shapes[1]}")
    counts = [shape[1] * shape[2] * shape[3] for shape in shapes]
    if len(buffer) != 32 + 2 * sum(counts):
        raise ValueError(f"the buffer has {len(buffer)} bytes, its shapes need {32 + 2 * sum(counts)}")
    values = torch.from_numpy(np.frombuffer(buffer, "<i2", offset=32).astype(np.float32))
    return values[: counts[0]].reshape(shapes[0]), values[counts[0] :].reshape(shapes[1])


# ---------------------------------------------------------------- figures


def show_pictures(pictures: dict[str, Image.Image | Tensor], columns: int = 2, width: float = 6.0) -> None:
    """Draw pictures (PIL, or tensors in [0, 1]) in a grid, each under its title, one pixel grid for all."""
    drawn = {title: tensor_to_image(p) if isinstance(p, Tensor) else p for title, p in pictures.items()}
    rows = -(-len(drawn) // columns)
    w, h = next(iter(drawn.values())).size
    side = width / columns
    figure, axes = plt.subplots(rows, columns, figsize=(width, rows * (side * h / w + 0.35)), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, (title, picture) in zip(axes.flat, drawn.items()):
        axis.imshow(picture)
        axis.set_title(title, fontsize=10)
    figure.tight_layout(pad=0.3)
    plt.show()


def shapes_of(codec: Cheng2020Anchor, x: Tensor) -> dict[str, Sequence[int]]:
    """The shape of what each part of the codec puts out for x (1, 3, H, W), read off a forward pass."""
    parts = ("g_a", "h_a", "h_s", "context_prediction", "entropy_parameters", "g_s")
    shapes = {}
    hooks = [getattr(codec, part).register_forward_hook(
        lambda module, inputs, output, part=part: shapes.update({part: tuple(output.shape)})
    ) for part in parts]  # fmt: skip
    with torch.no_grad():
        codec(x)
    for hook in hooks:
        hook.remove()
    return shapes
