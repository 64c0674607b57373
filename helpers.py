"""The small utilities that the chapters share.

Loading (a codec, a set of pictures), going from picture to tensor and back, counting bits, measuring dB, packing
integers into a buffer, and the figures that more than one chapter draws.
"""

import errno
import io
import math
import os
import re
import struct
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.colors import to_rgba
from PIL import Image, ImageCms, ImageOps
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

with warnings.catch_warnings():
    # compressai compiles two functions with torch.jit at import; newer versions of torch warn of it.
    warnings.filterwarnings("ignore", message=".*torch.jit", category=FutureWarning)
    warnings.filterwarnings("ignore", message=".*torch.jit", category=DeprecationWarning)
    from compressai.layers import MaskedConv2d, ResidualBlock, ResidualBlockUpsample, conv3x3
    from compressai.models import Cheng2020Anchor, Cheng2020Attention
    from compressai.zoo import cheng2020_anchor
    from compressai.zoo.image import model_urls

with suppress(ImportError):  # JPEG XL for Pillow
    import pillow_jxl  # noqa: F401
with suppress(ImportError):  # HEIC, what telephones write
    import pillow_heif

    pillow_heif.register_heif_opener()

ROOT = Path(__file__).resolve().parent
QUALITIES = range(1, 7)
# CompressAI's values for mean squared error, loss = lambda * 255**2 * MSE + bpp.
LAMBDA = dict(zip(QUALITIES, (0.0018, 0.0035, 0.0067, 0.0130, 0.0250, 0.0483)))
# N, the width where pixels are many, and M, the width of y.
BUNDLED_WIDTHS = dict(zip(QUALITIES, 3 * [(32, 128)] + 3 * [(48, 192)]))
Z_TABLE = "entropy_bottleneck.frequencies"
CONTEXT = "context_prediction.weight"
CONTEXT_UNIT = "context_prediction.unit"  # of the integers of 8 bits that a file holds of it
HUB_NAME = re.compile(r"[\w.-]*\w/\w[\w.-]*", re.ASCII)  # owner/name
# Formats whose pictures Pillow always draws when it knows their header.
DRAWN = {"PNG", "JPEG", "MPO", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "HEIF", "JXL", "JPEG2000"}
# What the dearest chapter takes for a megapixel, on two cores.
SECONDS, GIGABYTES = 20, 0.7

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


# ---------------------------------------------------------------- the codec


class DeepAnchor(Cheng2020Anchor):
    """The layers of ``cheng2020-anchor`` (Cheng et al., CVPR 2020) with a width for each depth.

    N channels at a half to an eighth of the resolution, where nearly all multiply-adds of the transforms are, and in
    z; M channels in y, in what predicts y, and in g_s up to its first upsampling.  A wide y needs a wide first block
    behind it: with N channels there g_s squeezes whatever y holds into N numbers for 256 pixels.  With N = M it is
    CompressAI's codec.
    """

    def __init__(self, N: int, M: int):
        super().__init__(N)
        self.M = M
        self.g_a[-1] = conv3x3(N, M, stride=2)
        self.g_s[0] = ResidualBlock(M, M)
        self.g_s[1] = ResidualBlockUpsample(M, N, 2)
        self.h_a[0] = conv3x3(M, N)
        self.h_s[-1] = conv3x3(N * 3 // 2, 2 * M)
        self.context_prediction = MaskedConv2d(M, 2 * M, kernel_size=5, padding=2)
        widths = (4 * M, 10 * M // 3, 8 * M // 3, 2 * M)
        for i, layer in enumerate((0, 2, 4)):
            self.entropy_parameters[layer] = nn.Conv2d(widths[i], widths[i + 1], 1)


# ---------------------------------------------------------------- loading


def load_codec(quality: int = 3, weights: str | None = None) -> Cheng2020Anchor:
    """A ``cheng2020-anchor`` codec in eval mode on the CPU, its entropy-coding tables built.

    ``quality`` is 1 (smallest file) to 6.
    ``weights`` is "bundled" (``checkpoints/``) or "published" (CompressAI's model zoo, downloaded once); by default
    what ``DGML_WEIGHTS`` says, else "bundled".
    Raises ValueError for another quality or setting and for a damaged bundled file, and RuntimeError when the
    published weights can't be had.
    """
    weights = weights or setting("WEIGHTS")
    if quality not in QUALITIES:
        raise ValueError(f"quality is 1 to 6, not {quality!r}")
    if weights not in ("bundled", "published"):
        raise ValueError(f"DGML_WEIGHTS is 'bundled' or 'published', not {weights!r}")
    if weights == "bundled":
        codec = DeepAnchor(*BUNDLED_WIDTHS[quality])
        load_checkpoint(codec, checkpoint_path(quality, weights))
    else:
        try:
            codec = cheng2020_anchor(quality, pretrained=True, progress=False)
        except Exception as error:  # no network, or a damaged file in torch's cache, which fails in many ways
            reason = str(error).split("\n")[0].split(". ")[0] or type(error).__name__
            raise RuntimeError(
                f"DGML_WEIGHTS=published: quality {quality} could not be loaded ({reason}). "
                f"Delete {checkpoint_path(quality, weights)} if it is there, and connect to the network once; or set DGML_WEIGHTS=bundled."
            ) from None
    codec.update()
    codec.quality, codec.source = quality, weights
    return codec.eval()


def setting(name: str) -> str:
    """What the environment's ``DGML_WEIGHTS`` or ``DGML_IMAGES`` says, by default "bundled"; ``name`` has no prefix."""
    return os.environ.get(f"DGML_{name}") or "bundled"


def checkpoint_path(quality: int, weights: str | None = None) -> Path:
    """The file that holds the weights of a quality: in ``checkpoints/``, or in torch's download cache."""
    if (weights or setting("WEIGHTS")) == "published":
        url = model_urls["cheng2020-anchor"]["mse"][quality]
        return Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
    return ROOT / "checkpoints" / f"cheng2020-anchor-q{quality}.safetensors"


def load_checkpoint(codec: Cheng2020Anchor, path: Path) -> None:
    """Copy the half-precision weights in ``path`` into ``codec``.

    Raises ValueError if the file is missing, damaged, of other widths, or holds what is no number.
    """
    stored = read_checkpoint(path)
    if widths(stored) != (codec.N, codec.M):
        raise ValueError(f"{path} holds a codec of widths {widths(stored)} (N, M), not {(codec.N, codec.M)}")
    lacking = dict(codec.named_parameters()).keys() - stored.keys()
    if lacking:
        raise ValueError(f"{path} lacks {len(lacking)} parameters, among them {min(lacking)}")
    damaged = [name for name, tensor in stored.items() if not tensor.isfinite().all()]
    if damaged:
        raise ValueError(f"{path} is damaged: {damaged[0]} holds what is no number")
    # The buffers that a file leaves out are constant (masks, bounds) or rebuilt by update() (tables); compressai's own
    # method would ask for them.
    try:
        nn.Module.load_state_dict(codec, stored, strict=False)
    except RuntimeError as error:
        raise ValueError(f"{path} is of another architecture: {' '.join(str(error).split())}") from None
    if Z_TABLE in stored:
        load_z_table(codec, stored[Z_TABLE].int(), path)


def load_z_table(codec: Cheng2020Anchor, frequencies: Tensor, path: Path) -> None:
    """Keep the integers (N, 255) that bitstream.py codes z with; ValueError where they are no table."""
    if frequencies.shape != (codec.N, 255) or frequencies.min() < 1 or (frequencies.sum(1) != 2**24).any():
        raise ValueError(f"{path} is damaged: its table of z does not add up to 2**24")
    codec.entropy_bottleneck.register_buffer("frequencies", frequencies)


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint in float32, the context's kernel with zeros where its mask has them.

    The file holds the kernel's twelve taps alone, (2 * M, M, 12), since the mask zeroes the other thirteen, as integers
    in a unit for each output, or in half precision.
    """
    try:
        stored = {name: tensor.float() for name, tensor in load_file(path).items()}
        taps = stored[CONTEXT] = stored[CONTEXT] * stored.pop(CONTEXT_UNIT, 1.0)
        if taps.ndim == 3:
            stored[CONTEXT] = nn.functional.pad(taps, (0, 13)).reshape(*taps.shape[:2], 5, 5)
        widths(stored)
    except (OSError, KeyError, IndexError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"{path} is no checkpoint of this codec, or not all of it ({error})") from None
    return stored


def widths(parameters: dict[str, Tensor]) -> tuple[int, int]:
    """N and M of a codec with these parameters."""
    return parameters["g_a.0.conv1.weight"].shape[0], parameters["entropy_parameters.4.weight"].shape[0] // 2


def z_medians(codec: Cheng2020Anchor) -> Tensor:
    """The medians of z (1, N, 1, 1): z is coded as round(z - median)."""
    return codec.entropy_bottleneck.quantiles.detach()[:, 0, 1].reshape(1, -1, 1, 1)


def load_trained(path: Path) -> Cheng2020Anchor:
    """The codec in a file that train.py left, of whatever width, with attention blocks or without, in eval mode."""
    stored = read_checkpoint(path)
    attention = "g_a.8.conv_a.0.conv.0.weight" in stored
    codec = Cheng2020Attention(widths(stored)[0]) if attention else DeepAnchor(*widths(stored))
    load_checkpoint(codec, path)
    codec.update()
    return codec.eval()


def load_images(source: str | None = None, megapixels: float | None = None):
    """A ``datasets.Dataset`` with the columns ``image`` (PIL) and ``name``, each decoded when it is asked for.

    ``source`` is "bundled" (three photographs that ship inside scikit-image), a folder of pictures, one picture's file,
    or the name of a data set on the hub such as ``danjacobellis/kodak``; by default what ``DGML_IMAGES`` says, else
    "bundled".  A folder is walked with its subfolders in the order of its names; what is left out of it is printed.
    A picture of more than ``megapixels`` is scaled down to them; by default what ``DGML_MEGAPIXELS`` says, else 2.
    Raises ValueError when it holds no picture or can't be loaded.
    """
    import datasets

    named = "" if source else "DGML_IMAGES="
    source = source or setting("IMAGES")
    limit = 1e6 * (most_megapixels() if megapixels is None else megapixels)
    datasets.disable_progress_bars()
    try:
        images = bundled_pictures() if source == "bundled" else folder_pictures(source) or hub_pictures(source)
    except ValueError as error:
        way_out = "set DGML_IMAGES=bundled" if named else "bundled"
        raise ValueError(
            f"{named}{source}: {error}. Give a folder of pictures, a data set's name on the hub, or {way_out}."
        ) from None

    class Picture(datasets.Image):  # decodes as datasets does, but names a damaged file and keeps to the limit
        def decode_example(self, value: dict, token_per_repo_id=None) -> Image.Image:
            return open_encoded(value, limit)

    # Set, not cast: cast_column would pickle the class for a fingerprint, and with it all that the class can see.
    images.info.features["image"] = Picture()
    return images


def most_megapixels() -> float:
    """The size above which a chapter scales its picture down, in millions of pixels: ``DGML_MEGAPIXELS``, else 2."""
    value = os.environ.get("DGML_MEGAPIXELS") or "2"
    try:
        most = float(value)
    except ValueError:
        most = 0.0
    if not most > 0:
        raise ValueError(f"DGML_MEGAPIXELS is a number of megapixels above 0, or 'inf' for no limit, not {value!r}")
    return most


def bundled_pictures():
    """The three photographs of scikit-image as a data set."""
    import datasets
    from skimage import data

    pictures = {name: Image.fromarray(getattr(data, name)()) for name in ("astronaut", "coffee", "chelsea")}
    columns = {"image": list(pictures.values()), "name": list(pictures)}
    return datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image())


def folder_pictures(source: str):
    """The pictures in a folder and its subfolders as a data set of paths, or None if ``source`` names one on the hub.

    A relative folder counts from the book's own folder, wherever the process runs.  A name on the hub has the form
    owner/name; where a folder "owner" lies in the book or in the working directory, it is a mistyped folder, and
    ``datasets`` would open it with splits guessed from names.
    """
    import datasets

    try:
        path = ROOT / Path(source).expanduser()
    except RuntimeError as error:  # ~ and the name of nobody
        raise ValueError(str(error)) from None
    if not path.exists():
        parts = source.split("/")
        if HUB_NAME.fullmatch(source) and not (ROOT / parts[0]).exists() and not Path(parts[0]).exists():
            return None
        counted = "" if Path(source).expanduser().is_absolute() else f" (relative folders count from {ROOT})"
        here = Path(source).expanduser().absolute()
        raise ValueError(f"there is no {path}{counted}" + (f"; did you mean {here}" if here.exists() else ""))
    pictures, left_out = find_pictures(path)
    if left_out:
        print(f"left out of {path.resolve().name}: {in_words(left_out)}")
    if not pictures:
        raise ValueError("it holds no picture" + (f" ({in_words(left_out)})" if left_out else ""))
    columns = {"image": [{"path": str(p), "bytes": None} for p in pictures], "name": [p.stem for p in pictures]}
    features = datasets.Features({"image": datasets.Image(decode=False), "name": datasets.Value("string")})
    return datasets.Dataset.from_dict(columns, features=features)


def find_pictures(path: Path) -> tuple[list[Path], dict[str, list[str]]]:
    """The pictures in a folder and below, or the one at ``path``, by name; and reason -> what else is there."""
    pictures, left_out = [], {}
    for file in files_below(path, left_out) if path.is_dir() else [path]:
        reason = why_no_picture(file)
        if reason:
            left_out.setdefault(reason, []).append(printable(file.name))
        else:
            pictures.append(file)
    return pictures, left_out


def files_below(folder: Path, left_out: dict[str, list[str]]) -> list[Path]:
    """All files in a folder and its subfolders, each folder once, sorted by the names on the way to them."""
    files, seen = [], set()

    def unreadable(error: OSError) -> None:
        left_out.setdefault("a folder that can't be read", []).append(printable(Path(error.filename).name))

    for where, folders, names in os.walk(folder, onerror=unreadable, followlinks=True):
        if os.path.realpath(where) in seen:  # a link that leads back
            folders.clear()
            continue
        seen.add(os.path.realpath(where))
        hidden = [name for name in (*folders, *names) if name.startswith(".")]
        if hidden:
            left_out.setdefault("hidden", []).extend(map(printable, hidden))
        folders[:] = [name for name in folders if not name.startswith(".")]
        files += [Path(where, name) for name in names if not name.startswith(".")]
    return sorted(files, key=lambda file: file.parts)


def why_no_picture(file: Path) -> str:
    """Why a file is no picture, or "".  Its header is read; pixels only in formats that Pillow may not draw."""
    if printable(file.name) != file.name:
        return "a name that is not UTF-8"
    if not file.is_file():
        return "no file"
    try:
        with Image.open(file) as picture:
            if picture.format not in DRAWN:
                picture.load()  # Pillow knows the header of a film (MPEG) and of formats for which it needs a program
    except Image.UnidentifiedImageError:
        named = file.suffix.lower() in Image.registered_extensions()
        return "empty" if not file.stat().st_size else "damaged" if named else "no picture"
    except PermissionError:
        return "not readable"
    except Image.DecompressionBombError:
        return "too large for Pillow"
    except Exception:  # a damaged header ends in many ways
        return "can't be decoded here"
    return ""


def in_words(left_out: dict[str, list[str]]) -> str:
    """'a.txt, b.txt and 3 more (no picture); c.png (empty)'."""
    parts = []
    for reason, names in left_out.items():
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        parts.append(f"{', '.join(names[:3])}{more} ({reason})")
    return "; ".join(parts)


def printable(name: str) -> str:
    """A file's name in which what is no UTF-8 is replaced by a question mark."""
    return name.encode(errors="replace").decode()


def hub_pictures(name: str):
    """The pictures of a data set on the hub: of its split "validation" if it has one, else of its first."""
    import datasets

    try:
        splits = datasets.load_dataset(name)
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(
            f"there is no folder {ROOT / name}, and as a data set on the hub it could not be loaded ({reason})"
        ) from None
    chosen = "validation" if "validation" in splits else next(iter(splits))
    print(f"{name}: the split {chosen!r} of {', '.join(splits)}")
    split = splits[chosen]
    columns = [column for column, feature in split.features.items() if isinstance(feature, datasets.Image)]
    if not columns or not len(split):
        raise ValueError("it holds no picture")
    images = split.select_columns(columns[0])
    paths = images.cast_column(columns[0], datasets.Image(decode=False))
    names = [Path(row[columns[0]]["path"] or str(i)).stem for i, row in enumerate(paths)]
    return (images if columns[0] == "image" else images.rename_column(columns[0], "image")).add_column("name", names)


def open_encoded(row: dict, limit: float = math.inf) -> Image.Image:
    """The picture of {"bytes", "path"}, upright, scaled down to ``limit`` pixels if it has more.

    ``info["native_size"]`` keeps the size of one that was scaled.  ValueError names a damaged one.
    """
    try:
        picture = Image.open(io.BytesIO(row["bytes"]) if row["bytes"] is not None else row["path"])
        native = picture.size
        if picture.width * picture.height > limit:
            picture.draft("RGB", scaled(native, 4 * limit))  # JPEG alone: decodes fewer coefficients
        picture.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{Path(row['path'] or 'a picture').name} can't be decoded: {error}") from None
    drawn_at, picture = picture.size, upright(picture)
    if native[0] * native[1] > limit:
        native = native if picture.size == drawn_at else native[::-1]
        picture = to_rgb(picture).resize(scaled(picture.size, limit), Image.Resampling.LANCZOS)
        picture.info["native_size"] = native
    return picture


def scaled(size: tuple[int, int], pixels: float) -> tuple[int, int]:
    """The size with at most ``pixels`` pixels that has the same shape."""
    factor = (pixels / (size[0] * size[1])) ** 0.5
    return max(1, int(size[0] * factor)), max(1, int(size[1] * factor))


def default_index() -> int:
    """The picture that the chapters look at: 22 (two macaws) of a Kodak set that has so many, 0 of any other set."""
    if Path(setting("IMAGES")).name.lower() != "kodak":
        return 0
    return 22 if len(load_images()) > 22 else 0


def describe(codec: Cheng2020Anchor, images, img_idx: int) -> str:
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


def opening(codec=None, images=None, img_idx: int = 0, written_for: int = 3) -> Callable[[str, bool], None]:
    """Print what a chapter runs on, and return its ``claim(statement, holds)``.

    A claim is a sentence of the chapter with the condition that makes it true.  Where it fails, the run that the
    page was written for (bundled weights at quality ``written_for``, first bundled picture) raises AssertionError, so
    that a test fails; any other run, and any in an editor, goes on and prints which statement does not hold here.
    """
    if codec is not None:
        print(describe(codec, images, img_idx))
    ours = all(setting(name) == "bundled" for name in ("WEIGHTS", "IMAGES"))
    whole = most_megapixels() >= 2  # so that no bundled photograph was scaled down
    committed = (
        ours and whole and not watched() and img_idx == 0 and getattr(codec, "quality", written_for) == written_for
    )

    def claim(statement: str, holds: bool) -> None:
        if not holds and committed:
            raise AssertionError(statement)
        if not holds:
            print(f"In this run the following does not hold: {statement}")

    return claim


def say(markdown: str, **values: object) -> None:
    """Show a paragraph of Markdown with numbers of this run: ``say("{rate:.2f} bpp", rate=rate)``."""
    from IPython.display import Markdown, display

    display(Markdown(markdown.format(**values)))


def live(draw: Callable[..., None], **sliders: object) -> None:
    """Sliders for what ``draw`` draws, where somebody can move them; anywhere else nothing.

    A figure stands beside each such cell for those who read.  ``sliders`` are what ipywidgets makes a
    control of: (first, last), or a list of choices.
    """
    if not watched():
        return
    import ipywidgets
    from IPython.display import display

    controls = ipywidgets.interactive(draw, **sliders)
    for control in controls.children:
        if hasattr(control, "continuous_update"):
            control.continuous_update = False  # draw when the slider is let go
    display(controls)


def watched() -> bool:
    """Whether this kernel belongs to a notebook that is open in Jupyter, VS Code or Colab; that of a test does not."""
    from IPython import get_ipython

    in_editor = "__vsc_ipynb_file__" in getattr(get_ipython(), "user_ns", {})
    return "JPY_SESSION_NAME" in os.environ or in_editor or "google.colab" in sys.modules


def write_whole(path: Path, data: bytes) -> None:
    """Put ``data`` into a file so that no half file is ever there.

    The mode of a file that was there is kept.  OSError names ``path``.
    """
    target = place_to_write(path)
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        part.write_bytes(data)
        if target.exists():
            part.chmod(target.stat().st_mode & 0o7777)
        os.replace(part, target)
    except OSError as error:  # of the part, or, from a disk that fills up, of no file
        raise type(error)(error.errno, error.strerror, str(path)) from None
    finally:
        part.unlink(missing_ok=True)


def place_to_write(path: Path) -> Path:
    """The file behind a symlink; OSError for what is no regular file, or may not be written."""
    target = Path(path).resolve()
    if target.exists() and not target.is_file():
        raise OSError(errno.EINVAL, "there is something that is no regular file", str(path))
    if not os.access(target if target.exists() else target.parent, os.W_OK):
        raise OSError(errno.EACCES, "it may not be written", str(path))
    return target


# ---------------------------------------------------------------- pictures and tensors


def rgb_pictures(images) -> Iterator[tuple[str, Image.Image]]:
    """Name and picture in RGB of each row of :func:`load_images` that can be decoded; the others are named last."""
    left_out = []
    for i, name in enumerate(images["name"]):
        try:
            picture = to_rgb(images[i]["image"])
        except (OSError, ValueError) as error:
            left_out.append(str(error) if name in str(error) else f"{name}: {error}")
            continue
        yield name, picture
    if left_out:
        print(f"left out: {'; '.join(left_out)}")


def to_rgb(picture: Image.Image) -> Image.Image:
    """The picture upright, in 8-bit sRGB.

    Grey, palette and CMYK are converted, transparency is laid on white, 16-bit grey keeps its upper eight bits.
    A colour profile is converted to sRGB; one that can't be read is passed over, as browsers do.
    Raises ValueError for floating-point pictures, whose range is unknown.
    """
    picture = upright(picture)
    profile = picture.info.get("icc_profile")
    if picture.mode == "F":
        raise ValueError("a floating-point picture has no known range; save it with 8 or 16 bits")
    if picture.mode.startswith("I"):
        levels = np.asarray(picture).astype(np.int64)
        if levels.min() < 0 or levels.max() > 65535:
            raise ValueError(f"grey levels {levels.min()} to {levels.max()} do not fit 16 bits")
        picture = Image.fromarray((levels >> 8).astype(np.uint8))
    if picture.mode == "La":  # Pillow converts it to nothing else
        picture = picture.convert("LA")
    if picture.mode in ("P", "PA", "LA", "RGBa") or picture.has_transparency_data:
        picture = picture.convert("RGBA" if picture.has_transparency_data else "RGB")
    picture = to_srgb(picture, profile)
    if picture.mode == "RGBA":
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture.convert("RGB")


def upright(picture: Image.Image) -> Image.Image:
    """The picture as its EXIF data say that the camera was held."""
    try:
        return ImageOps.exif_transpose(picture)
    except Exception:  # damaged EXIF data fail in many ways, and the pixels are sound
        return picture


def to_srgb(picture: Image.Image, profile: bytes | None) -> Image.Image:
    """The picture in RGB or RGBA with the colours that ``profile`` (ICC) gives, as sRGB; without one, as it is.

    Where the profile is sRGB itself, up to one level, the numbers stay what they are.
    """
    if not profile or picture.mode not in ("L", "RGB", "RGBA", "CMYK"):
        return picture
    to = "RGBA" if picture.mode == "RGBA" else "RGB"
    try:
        change = ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB"), picture.mode, to,
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC, flags=ImageCms.Flags.BLACKPOINTCOMPENSATION)  # fmt: skip
    except (OSError, ImageCms.PyCMSError):
        return picture
    if picture.mode != "CMYK":
        levels = np.stack(np.meshgrid(*3 * [np.arange(0, 256, 15)]), -1).astype(np.uint8).reshape(1, -1, 3)
        colours = Image.fromarray(levels).convert(picture.mode)
        changed = np.asarray(ImageCms.applyTransform(colours, change).convert("RGB"), dtype=int)
        if np.abs(changed - np.asarray(colours.convert("RGB"))).max() <= 1:
            return picture
    return ImageCms.applyTransform(picture, change)


def image_to_tensor(picture: Image.Image) -> Tensor:
    """A picture as float32 of shape (1, 3, H, W) in [0, 1]."""
    levels = torch.from_numpy(np.array(to_rgb(picture)))
    return levels.permute(2, 0, 1)[None].float() / 255


def tensor_to_image(x: Tensor) -> Image.Image:
    """The picture of a tensor (1, 3, H, W), clamped to [0, 1] and rounded to 8 bits."""
    levels = x[0].clamp(0, 1).mul(255).round().byte()
    return Image.fromarray(levels.permute(1, 2, 0).numpy())


def pad(x: Tensor, multiple: int = 64) -> Tensor:
    """Repeat the last column and row of x (B, C, H, W) until H and W are multiples: the codec halves both six times."""
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
