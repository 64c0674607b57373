"""What the command line does with a file: a picture becomes a .dgml file, or that a picture."""

import argparse
import ctypes
import io
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from dgml.bitstream import FileCodec
from dgml.checkpoints import load_codec, load_trained
from dgml.container import MAGIC, BitstreamError, check_size, read
from dgml.files import atomic_write, check_writable, compared, error_line, is_pipe, open_source, read_dgml, read_rest
from dgml.images import image_to_tensor, to_rgb
from dgml.metrics import psnr
from dgml.settings import QUALITIES

LARGE = 4e6  # pixels: above it, coding takes long enough to say so first


def run(args: argparse.Namespace) -> int:
    """Encode or decode the one file that the arguments name, and return the exit status."""
    prepare()
    source, target = args.paths
    print(convert(source, target, args), file=sys.stderr if is_pipe(target) else sys.stdout)
    return 0


def prepare() -> None:
    """What a process does once, before it reads and writes pictures."""
    Image.MAX_IMAGE_PIXELS = None  # Pillow's own limit warns of what is allowed here
    Image.init()
    keep_memory()


def convert(source: Path, target: Path, args: argparse.Namespace) -> str:
    """Write the target, and say how large it is."""
    return (encode_file if args.command == "encode" else decode_file)(source, target, args)


def encode_file(source: Path, target: Path, args: argparse.Namespace) -> str:
    """Write the file, having decoded it once, and say how large and how good it is."""
    if target.suffix.lower() in Image.registered_extensions():
        raise ValueError(f"{target} is a picture's name, and what is written is none: call it {target.stem}.dgml")
    check_targets(source, target, args)
    if target.is_file() and target.stat().st_size and not read_dgml(target).startswith(MAGIC):
        raise ValueError(f"{target} is there and is no .dgml file: give OUT another name")
    picture = read_picture(source)
    quality = 0 if args.checkpoint else args.quality or 3
    codec = codec_of(quality, args.checkpoint)
    data = codec.encode(picture, quality, args.search)
    decoded = codec.decode(data)
    write_file(target, data)
    if args.compare:
        write_picture(compared(target), side_by_side(picture, decoded))
    return f"{target}: {size_line(data)}, {psnr(image_to_tensor(picture), image_to_tensor(decoded)):.2f} dB"


def decode_file(source: Path, target: Path, args: argparse.Namespace) -> str:
    """Write the picture of a file in the format that the target's suffix names."""
    format_of(target)
    check_targets(source, target, args)
    if args.out and target.exists():
        raise ValueError(f"{target} is there already: move it away, or give another --out")
    replaced = [target, compared(target)] if args.compare else [target]
    if args.original and args.original.resolve() in [path.resolve() for path in replaced]:
        raise ValueError(f"{args.original} is the original, and would be replaced: give OUT another name")
    original = read_picture(args.original) if args.original else None
    data = read_dgml(source)
    header = read(data)
    if original and original.size != (header.width, header.height):
        raise ValueError(f"{args.original} has {original.width}x{original.height} pixels, {source} "
                         f"{header.width}x{header.height}: it is another picture")  # fmt: skip
    if not args.checkpoint and header.quality not in QUALITIES:
        raise BitstreamError(
            f"the file names quality {header.quality}, there are checkpoints for 1 to 6; --checkpoint loads one's own"
        )
    announce(source, header.width * header.height)
    picture = codec_of(0 if args.checkpoint else header.quality, args.checkpoint).decode(data)
    write_picture(target, picture)
    line = f"{target}: {header.width}x{header.height}, from {size_line(data)}"
    if original is None:
        return line
    if args.compare:
        write_picture(compared(target), side_by_side(original, picture))
    return f"{line}, {psnr(image_to_tensor(original), image_to_tensor(picture)):.2f} dB"


@lru_cache(maxsize=len(QUALITIES))
def codec_of(quality: int, checkpoint: Path | None) -> FileCodec:
    return FileCodec(load_trained(checkpoint) if checkpoint else load_codec(quality))


def check_targets(source: Path, target: Path, args: argparse.Namespace) -> None:
    """Errors that are better known before anything is coded than after."""
    if source.is_dir():
        raise ValueError(f"{source} is a folder: give --out FOLDER to {args.command} what is in it")
    check_target(source, target)
    if args.compare:
        check_target(source, compared(target))
        if compared(target).exists() and not target.exists():
            raise ValueError(f"{compared(target)} is there, and not from an earlier run: give OUT another name")


def check_target(source: Path, target: Path) -> None:
    if is_pipe(target):
        return
    if source.resolve() == target.resolve():
        raise ValueError(f"{source} can't be read and written at once: give OUT another name")
    if target.is_dir():
        raise ValueError(f"{target} is a folder: name a file in it, or give --out {target}")
    if not target.resolve().parent.is_dir():
        raise ValueError(f"{target}: there is no folder {target.parent}")
    check_writable(target)


def announce(source: Path, pixels: int) -> None:
    if pixels > LARGE:
        tqdm.write(f"{source}: {pixels / 1e6:.0f} megapixels, which take a while", file=sys.stderr)


# ---------------------------------------------------------------- pictures


def read_picture(path: Path) -> Image.Image:
    """A file that Pillow reads, in RGB; an error names it. What is too large is refused before its pixels are read."""
    with open_source(path) as source:
        try:
            file = source if path.is_file() and not is_pipe(path) else io.BytesIO(read_rest(source))
            with Image.open(file) as image:
                check_size(*image.size)
                announce(path, image.width * image.height)
                return to_rgb(image)
        except UnidentifiedImageError:
            raise ValueError(f"{path} is no picture that Pillow reads") from None
        except Exception as error:  # a broken picture fails in many ways
            raise ValueError(f"{path}: {error_line(error)}") from None


def write_picture(target: Path, picture: Image.Image) -> None:
    """Write it whole: into memory first, since not every encoder notices that a disk is full."""
    file, file_format = io.BytesIO(), format_of(target)
    try:
        picture.save(file, file_format)
    except (OSError, ValueError) as error:  # a format without colours, for instance
        raise ValueError(f"{target}: {error_line(error)}") from None
    if file_format in Image.OPEN:
        with Image.open(file) as written:
            if written.size != picture.size:  # an icon, for instance
                raise ValueError(f"{target}: this format can't hold {picture.width}x{picture.height} pixels; try .png")
    write_file(target, file.getvalue())


def format_of(target: Path) -> str:
    """What Pillow calls the format that the suffix names; ValueError for one that it can't write."""
    if is_pipe(target):
        return "PNG"
    file_format = Image.registered_extensions().get(target.suffix.lower())
    if file_format not in Image.SAVE:
        raise ValueError(f"{target}: no picture format has the suffix {target.suffix!r}; try .png")
    return file_format


def write_file(target: Path, data: bytes) -> None:
    if is_pipe(target):
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    atomic_write(target, data)


def side_by_side(original: Image.Image, decoded: Image.Image) -> Image.Image:
    """Both pictures, the original on the left, with eight white pixels between them."""
    both = Image.new("RGB", (2 * original.width + 8, original.height), "white")
    both.paste(original, (0, 0))
    both.paste(decoded, (original.width + 8, 0))
    return both


def size_line(data: bytes) -> str:
    header = read(data)
    rate = 8 * len(data) / (header.height * header.width)
    return f"{len(data)} bytes, {rate:.4f} bpp, quality {header.quality or 'unknown'}"


def keep_memory() -> None:
    """Make Linux's allocator keep large blocks for this process.

    By default it hands them back to the system as soon as they are free, and gets the next layer's page by page: a
    third of the time of g_a.
    """
    libc: Any = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(libc, "mallopt"):
        m_trim_threshold, m_mmap_threshold = -1, -3  # malloc.h
        # Older C libraries refuse more than half of a heap, and then the other setting alone would do harm.
        if libc.mallopt(m_mmap_threshold, 2**30) or libc.mallopt(m_mmap_threshold, 2**25):
            libc.mallopt(m_trim_threshold, 2**31 - 1)
