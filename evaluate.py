"""Measure the codec, and the classical codecs, on a set of pictures.

    python evaluate.py --images PICTURES               all six qualities -> results/<set>_bundled.json
    python evaluate.py --images PICTURES --classical   JPEG and its successors -> results/<set>_classical.json
    python evaluate.py --images PICTURES --checkpoints FILES   one's own -> results/<set>_checkpoints.json, or --name's
    python evaluate.py --images PICTURES --latents     what y and z hold and lose -> results/<set>_latents.json
    python evaluate.py --images PICTURES --mixtures    y under 1, 2 and 3 Gaussians -> results/<set>_mixtures.json
    python evaluate.py --images PICTURES --search 100  files with and without a search -> results/<set>_search.json
    python evaluate.py --report                        tables from what results/ holds

PICTURES is a folder, a data set's name, or "bundled"; a relative folder counts from the book's own.
A result that is there already is kept: --output FILE writes elsewhere, or over it.
"""

import argparse
import io
import json
import math
import platform
import re
import sys
import time
from collections.abc import Callable
from functools import lru_cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import constriction
import numpy as np
import torch
from PIL import AvifImagePlugin, Image, features
from pillow_jxl import JpegXLImagePlugin
from pytorch_msssim import ms_ssim
from scipy.ndimage import correlate1d
from ssimulacra2 import ssimulacra2 as metric
from tqdm import tqdm

import bitstream
import helpers
import mixtures
from commandline import reason
from curves import CLASSICAL, classical_file, point, read_classical
from helpers import (
    QUALITIES,
    Cheng2020Anchor,
    bpp,
    crop,
    image_to_tensor,
    load_codec,
    load_trained,
    pad,
    place_to_write,
    psnr,
    rgb_pictures,
    setting,
    write_whole,
    z_medians,
)
from report import SUFFIX, report

RESULTS = helpers.ROOT / "results"
GAUSSIAN = (0.264621105, 0.212928592, 0.109335373, 0.036011115, 0.009414368)
SEARCHED = range(3, 7)  # qualities that --search measures
MS_SSIM_SIDE = 161  # five scales of an 11x11 window need more than 160 pixels
SSIMULACRA2_SIDE = 8


# ---------------------------------------------------------------- measuring


class Coded(NamedTuple):
    """What a codec made of a picture. The seconds are the processor's, of all threads; a forward pass has none."""

    bpp: float  # over native pixels
    picture: Image.Image
    seconds_encode: float | None = None
    seconds_decode: float | None = None


def through_codec(quality: int, weights: str, picture: Image.Image) -> Coded:
    """Estimated bits, and the reconstruction rounded to 8 bits, of one forward pass."""
    x = image_to_tensor(picture)
    with torch.no_grad():
        out = last_codec(quality, weights)(pad(x))
    rate = bpp(out["likelihoods"], picture.width * picture.height)
    return Coded(rate, helpers.tensor_to_image(crop(out["x_hat"], x.shape[-2:])))


def through_bitstream(codec_of: Callable[[], Cheng2020Anchor], picture: Image.Image) -> Coded:
    """Bits of the whole .dgml file, header included, and the picture that it decodes to."""
    codec = codec_of()
    return through_bytes(picture, lambda: bitstream.encode(codec, picture), partial(bitstream.decode, codec))


def through_search(quality: int, steps: int, picture: Image.Image) -> Coded:
    """The same of a bundled codec whose encoder searches for ``steps`` steps."""
    codec = last_codec(quality, "bundled")
    encode = partial(bitstream.encode, codec, picture, quality, steps)
    return through_bytes(picture, encode, partial(bitstream.decode, codec))


last_codec = lru_cache(maxsize=1)(load_codec)
last_trained = lru_cache(maxsize=1)(load_trained)


def through_file(name: str, setting: int, picture: Image.Image) -> Coded:
    """Bits of the whole file that Pillow writes, headers included, and the picture that it reads back."""
    return through_bytes(picture, lambda: classical_file(name, setting, picture), read_classical)


def through_bytes(picture: Image.Image, encode: Callable[[], bytes], decode: Callable[[bytes], Image.Image]) -> Coded:
    data, encoding = timed(encode)
    decoded, decoding = timed(lambda: decode(data))
    return Coded(8 * len(data) / (picture.width * picture.height), decoded, encoding, decoding)


def timed(run: Callable) -> tuple[object, float]:
    """What ``run`` gives, and the seconds of processor time that it took, all threads together."""
    start = time.process_time()
    result = run()
    return result, time.process_time() - start


def score(rate: float, picture: Image.Image, decoded: Image.Image) -> list[float | None]:
    """[bpp, PSNR in dB, MS-SSIM, SSIMULACRA2] of two RGB pictures of one size, as ``curves.MEASURES`` names them.

    PSNR over all three colours; None where the pictures are equal, since JSON has no infinity.
    MS-SSIM (Wang et al., Asilomar 2003) is 0 to 1; None for a picture with a side under 161 pixels.
    SSIMULACRA2 is at most 100; None for a side under 8 pixels, of which it says 100 whatever they show.
    """
    x, x_hat = image_to_tensor(picture), image_to_tensor(decoded)
    db = psnr(x, x_hat)
    large = min(picture.size) >= MS_SSIM_SIDE
    similarity = round(ms_ssim(255 * x, 255 * x_hat, data_range=255).item(), 5) if large else None
    seen = round(ssimulacra2(picture, decoded), 3) if min(picture.size) >= SSIMULACRA2_SIDE else None
    return [round(rate, 5), round(db, 4) if math.isfinite(db) else None, similarity, seen]


def ssimulacra2(picture: Image.Image, decoded: Image.Image) -> float:
    """How near to the original an RGB picture looks: 90 can't be told from it, 70 is high quality, 30 low; at most 100.

    SSIMULACRA2 (Sneyers, 2022; version 2.1 of April 2023) was fitted to the judgements of people on compressed
    pictures.
    All of the package ssimulacra2 is used but its blur, see :func:`blur`.
    """
    files = io.BytesIO(), io.BytesIO()
    for file, shown in zip(files, (picture, decoded)):
        shown.save(file, "BMP")
    return float(metric.compute_ssimulacra2(*files))


def blur(planes: np.ndarray) -> np.ndarray:
    """(H, W, 3) blurred with the kernel of SSIMULACRA2's reference, and as there with zeros beyond all four borders.

    The package reflects two of the borders, and is 0.1 to 3.8 points away from the reference's own program; with this
    kernel, the impulse response of libjxl's recursive Gaussian at a sigma of 1.5, it is within 0.11 of it.
    """
    kernel = np.array(GAUSSIAN[:0:-1] + GAUSSIAN)
    for axis in (0, 1):
        planes = correlate1d(planes, kernel, axis=axis, mode="constant")
    return planes


metric.blur_image = blur


def measure_classical(source: str, path: Path) -> None:
    """Measure the classical codecs on every picture of ``source`` and write ``path``."""
    Image.init()
    missing = [name for name, (file_format, *_) in CLASSICAL.items() if file_format not in Image.SAVE]
    if missing:
        raise RuntimeError(f"this Pillow cannot write {' and '.join(missing)}: install a wheel of Pillow >= 11.3")
    todo = {n: {str(q): partial(through_file, n, q) for q in ladder} for n, (*_, ladder) in CLASSICAL.items()}
    # The C libraries decide the bytes of a classical file, Pillow only calls them.
    libraries = {name: features.version(name) for name in ("libjpeg_turbo", "jpg_2000", "webp", "avif")}
    write_measured(source, todo, path, "whole files", "--classical", ("pillow", "pillow-jxl-plugin"), libraries)


def measure_qualities(source: str, weights: str, path: Path) -> None:
    """Measure the six qualities, forward passes and files, on every picture of ``source`` and write ``path``."""
    missing = [q for q in QUALITIES if weights == "bundled" and not helpers.checkpoint_path(q, "bundled").exists()]
    if len(missing) == len(QUALITIES):
        raise RuntimeError("checkpoints/ is empty: train with train.py, or give --weights published")
    for checkpoint in (helpers.checkpoint_path(q, "bundled") for q in missing):
        print(f"left out: checkpoints/{checkpoint.name} is missing", file=sys.stderr)
    present = [q for q in QUALITIES if q not in missing]
    codecs = {q: partial(last_codec, q, weights) for q in present}
    todo = {
        f"cheng2020-anchor {weights}, forward pass": {str(q): partial(through_codec, q, weights) for q in present},
        f"cheng2020-anchor {weights}, files": {str(q): partial(through_bitstream, codecs[q]) for q in present},
    }
    what = "estimated by forward passes, and of whole .dgml files"
    option = "--weights published" if weights == "published" else ""
    write_measured(source, todo, path, what, option, ("torch", "compressai"), {})


def measure_checkpoints(source: str, paths: list[Path], name: str | None, path: Path) -> None:
    """Measure the files that checkpoints of train.py make, each a codec of one point named by its folder."""
    names = [path.resolve().parent.name for path in paths]
    if len(set(names)) < len(names):
        raise ValueError("two checkpoints lie in folders of one name")
    for checkpoint in paths:
        last_trained(checkpoint)  # a file that is none stops here, not after minutes
    todo = {n: {"1": partial(through_bitstream, partial(last_trained, p))} for n, p in zip(names, paths)}
    option = "--checkpoints " + " ".join(map(in_the_book, paths))
    option += f" --name {name}" if name else ""
    write_measured(source, todo, path, "whole .dgml files", option, ("torch", "compressai"), {})


def measure_search(source: str, steps: int, path: Path) -> None:
    """Measure the files of an encoder that searches beside those of one that does not."""
    both = {"plain": 0, f"search of {steps} steps": steps}
    todo = {name: {str(q): partial(through_search, q, n) for q in SEARCHED} for name, n in both.items()}
    option = f"--search {steps}"
    write_measured(source, todo, path, "whole .dgml files", option, ("torch", "compressai"), {})


def write_measured(
    source: str, todo: dict, path: Path, what: str, option: str, packages: tuple, libraries: dict
) -> None:
    """Take every picture of ``source`` through every coder of ``todo``, and write ``path``, whole or not at all."""
    # One thread everywhere, so that times compare.
    torch.set_num_threads(1)
    AvifImagePlugin.DEFAULT_MAX_THREADS, JpegXLImagePlugin.DECODE_THREADS = 1, 0
    pictures = read_pictures(source)
    codecs = {codec: {} for codec in todo}
    with tqdm(total=len(pictures) * sum(map(len, todo.values())), unit="picture") as bar:
        for codec, ladder in todo.items():
            for quality, run in ladder.items():
                scores, seconds = {}, []
                for name, picture in pictures.items():
                    coded = run(picture)
                    scores[name] = score(coded.bpp, picture, coded.picture)
                    if coded.seconds_encode is not None:
                        seconds.append(coded[2:])
                    bar.update()
                codecs[codec][quality] = point(scores, seconds)
    write_json(path, {
        "_what": f"bpp ({what}, over native pixels), PSNR in dB, "
        "MS-SSIM and SSIMULACRA2 of 8-bit RGB, seconds of processor time: means over the pictures, then "
        "[bpp, psnr, ms_ssim, ssimulacra2] of each",
        "_command": command(source, option),
        "_environment": environment((*packages, "ssimulacra2")) | libraries | {"threads": 1},
        "images": list(pictures),
        "codecs": codecs,
    })  # fmt: skip


def measure_latents(source: str, path: Path) -> None:
    """Measure what y and z of the bundled codecs hold: channels that vary, z's price and its worth, the loss in g_s."""
    torch.set_num_threads(1)
    pictures, qualities = read_pictures(source), {}
    for quality in QUALITIES:
        codec = load_codec(quality, "bundled")
        rows, seen = [], {"y": [], "z": []}
        for picture in tqdm(pictures.values(), desc=f"quality {quality}", unit="picture"):
            row, symbols = latent_row(codec, picture)
            rows.append(row)
            for name, values in symbols.items():
                seen[name].append(torch.stack([values.amin((0, 2, 3)), values.amax((0, 2, 3))]))
        live = {name: torch.stack(ranges) for name, ranges in seen.items()}
        qualities[str(quality)] = {
            "N": codec.N, "M": codec.M,
            **{f"live_{name}": int((r[:, 0].amin(0) < r[:, 1].amax(0)).sum()) for name, r in live.items()},
            **{key: round(float(np.mean([row[key] for row in rows])), 8) for key in rows[0]},
        }  # fmt: skip
    write_json(path, {
        "_what": "of forward passes, means over the pictures: channels whose rounded values vary, bits per pixel of y, of "
        "z, and of y when h_s sees the medians of z instead; MSE of [0, 1] with y rounded and as it is",
        "_command": command(source, "--latents"),
        "_environment": environment(("torch", "compressai")),
        "images": list(pictures),
        "qualities": qualities,
    })  # fmt: skip


@torch.no_grad()
def latent_row(codec: Cheng2020Anchor, picture: Image.Image) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    """One picture's numbers for :func:`measure_latents`, and the rounded y and z (1, C, h, w)."""
    x, pixels = image_to_tensor(picture), picture.width * picture.height
    padded = pad(x)
    out, y = codec(padded), codec.g_a(padded)
    z = codec.h_a(y)
    medians = z_medians(codec)
    hints = codec.h_s(medians.expand_as(z)), codec.context_prediction(y.round())
    scales, means = codec.entropy_parameters(torch.cat(hints, 1)).chunk(2, 1)
    without_z = {"y": codec.gaussian_conditional(y, scales, means)[1]}
    rates = {f"bpp_{name}": bpp({name: p}, pixels) for name, p in out["likelihoods"].items()}
    row = rates | {"bpp_y_without_z": bpp(without_z, pixels)}
    for key, x_hat in {"mse": out["x_hat"], "mse_unrounded": codec.g_s(y)}.items():
        row[key] = float((crop(x_hat, x.shape[-2:]).clamp(0, 1) - x).square().mean())
    return row, {"y": y.round(), "z": (z - medians).round()}


def measure_mixtures(source: str, path: Path) -> None:
    """Code the y of every picture under each head of 1, 2 and 3 Gaussians, decode it, and write down the bytes.

    Beside them: the bytes of y in a .dgml file, whose symbols are round(y - mean) and whose Gaussians have heavy tails.
    """
    torch.set_num_threads(1)
    pictures, qualities = read_pictures(source), {}
    for quality in mixtures.HEAD_QUALITIES:
        codec = load_codec(quality, "bundled")
        heads = {k: mixtures.load_mixture(codec, quality, k) for k in mixtures.COMPONENTS}
        sizes = qualities[str(quality)] = {}
        for name, picture in tqdm(pictures.items(), desc=f"quality {quality}", unit="picture"):
            x = pad(image_to_tensor(picture))
            y, z_hat = mixtures.y_and_z_hat(codec, x)
            sizes[name] = []
            for head in heads.values():
                words, y_hat, _ = mixtures.encode_mixtures(codec, head, y, z_hat)
                if not torch.equal(mixtures.decode_mixtures(codec, head, words, z_hat), y_hat):
                    raise RuntimeError(f"{name}: the symbols did not come back")
                sizes[name].append(words.nbytes)
            sizes[name].append(bytes_of_y(codec, x))
    write_json(path, {
        "_what": "bytes of y, really coded: round(y - mean) under heads of 1, 2 and 3 Gaussians, then as a .dgml file codes it",
        "_command": command(source, "--mixtures"),
        "_environment": environment(("torch", "compressai", "constriction")),
        "qualities": qualities,
    })  # fmt: skip


def bytes_of_y(codec: Cheng2020Anchor, x: torch.Tensor) -> int:
    """The size of the y of padded pixels ``x`` in a .dgml file, without its z and its header."""
    model, (y, z) = bitstream.entropy_model(codec), bitstream.analysis(codec, x)
    z_hat = bitstream.encode_z(model, z, constriction.stream.queue.RangeEncoder())
    encoder = constriction.stream.queue.RangeEncoder()
    bitstream.encode_y(model, z_hat, y, encoder)
    return encoder.get_compressed().nbytes


def read_pictures(source: str) -> dict[str, Image.Image]:
    """Name -> RGB picture; two folders may each hold a picture of one name."""
    pictures = {}
    for i, (name, picture) in enumerate(rgb_pictures(helpers.load_images(source, math.inf))):
        pictures[f"{name} ({i})" if name in pictures else name] = picture
    if not pictures:
        raise ValueError(f"{source} holds no picture that can be decoded")
    return pictures


def command(source: str, option: str) -> str:
    """What made a result. Where a folder lies on this machine is of no use to anybody else."""
    name = folder_of(source).name if folder_of(source).is_dir() else source
    return f"python evaluate.py --images {name} {option}".strip()


def folder_of(source: str) -> Path:
    """Where a folder of pictures lies: a relative one counts from the book's own, as in ``load_images``."""
    return (helpers.ROOT / Path(source).expanduser()).resolve()


def in_the_book(path: Path) -> str:
    """A file's path from the book's folder, or its folder and name where it lies elsewhere."""
    path = path.resolve()
    return path.relative_to(helpers.ROOT if path.is_relative_to(helpers.ROOT) else path.parent.parent).as_posix()


def environment(packages: tuple) -> dict[str, str]:
    processor = f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"
    return {name: version(name) for name in packages} | {"processor": processor}


def write_json(path: Path, content: dict) -> None:
    """Write JSON, a list of plain values on one line, so that an interruption leaves the old file or the new."""
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    innermost = re.compile(r"\[\s+([^\[\]{}]*?)\s+\]")
    text = innermost.sub(lambda found: "[" + re.sub(r"\n *", " ", found[1]) + "]", text)
    write_whole(path, f"{text}\n".encode())


# ---------------------------------------------------------------- command line


def result_path(source: str, kind: str, output: Path | None) -> Path:
    """Where a result goes: to ``output``, or to results/<set>_<kind>.json if there is none yet."""
    path = output or RESULTS / f"{folder_of(source).name}_{kind}.json"
    if output is None and path.exists():
        raise ValueError(f"results/{path.name} is there already; --output FILE says where to write, or over what")
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise ValueError(f"{path} is a folder, or lies in none")
    place_to_write(path)
    return path


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    task = parser.add_mutually_exclusive_group(required=True)
    task.add_argument("--images", metavar="PICTURES", help="measure on these")
    task.add_argument("--report", action="store_true", help="print tables; exit status 1 if a staircase is broken")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write there, also over a result that is there")
    parser.add_argument("--name", help="of the result of --checkpoints, by default checkpoints")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--classical", action="store_true", help="measure the classical codecs")
    what.add_argument("--latents", action="store_true", help="measure what y and z hold and lose")
    what.add_argument("--mixtures", action="store_true", help="measure the heads of chapter 14")
    what.add_argument("--checkpoints", nargs="+", type=Path, metavar="FILE", help="measure these, of train.py")
    what.add_argument("--search", type=int, metavar="STEPS", help="measure what a search of the encoder brings")
    what.add_argument("--weights", choices=tuple(SUFFIX), help="by default what DGML_WEIGHTS says, else bundled")
    args = parser.parse_args()
    check(args, parser)
    return args


def check(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """What argparse can't say of how the arguments go together, and what DGML_WEIGHTS says where they don't."""
    kinds = (args.classical, args.latents, args.mixtures, args.checkpoints, args.search, args.weights)
    if (any(kinds) or args.output) and not args.images:
        parser.error("all other options go with --images")
    if args.name and not args.checkpoints:
        parser.error("--name goes with --checkpoints")
    if args.search is not None and args.search < 1:
        parser.error("--search takes a number of steps, at least 1")
    args.weights = args.weights or setting("WEIGHTS")
    if args.weights not in SUFFIX:
        parser.error(f"DGML_WEIGHTS is 'bundled' or 'published', not {args.weights!r}")


def write_result(args: argparse.Namespace) -> None:
    """Measure what the arguments ask for, and say where the result lies."""
    chosen = (kind for kind in ("classical", "latents", "mixtures", "search") if getattr(args, kind))
    kind = args.name or "checkpoints" if args.checkpoints else next(chosen, SUFFIX[args.weights])
    path = result_path(args.images, kind, args.output)
    if args.latents:
        measure_latents(args.images, path)
    elif args.mixtures:
        measure_mixtures(args.images, path)
    elif args.checkpoints:
        measure_checkpoints(args.images, args.checkpoints, args.name, path)
    elif args.search:
        measure_search(args.images, args.search, path)
    elif args.classical:
        measure_classical(args.images, path)
    else:
        measure_qualities(args.images, args.weights, path)
    print(f"wrote {args.output or f'results/{path.name}'}")


def main() -> None:
    args, good = parse(), True
    try:
        if args.images:
            write_result(args)
        else:
            text, good = report(RESULTS)
            print(text)
    except KeyboardInterrupt:
        sys.exit("evaluate.py: stopped; nothing was written")
    except (OSError, RuntimeError, ValueError) as error:
        sys.exit(f"evaluate.py: {reason(error)}")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
