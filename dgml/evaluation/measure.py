"""Codecs measured on a set of pictures: what fills results/."""

import json
import math
import platform
import re
import sys
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from PIL import AvifImagePlugin, Image, features
from pillow_jxl import JpegXLImagePlugin
from tqdm import tqdm

from dgml import mixtures
from dgml.bitstream import bytes_of_y
from dgml.checkpoints import checkpoint_path, load_codec
from dgml.classical import CLASSICAL, can_write, cwebp_version
from dgml.evaluation.curves import Curve, point
from dgml.evaluation.scores import (
    last_codec,
    last_trained,
    score,
    through_bitstream,
    through_codec,
    through_file,
)
from dgml.files import atomic_write
from dgml.images import crop, image_to_tensor, pad
from dgml.metrics import bpp
from dgml.model import Cheng2020Anchor, z_medians
from dgml.picture_sets import load_images, rgb_pictures
from dgml.settings import COMPONENTS, QUALITIES, ROOT

SEARCHED = range(3, 7)  # qualities that --search measures


def measure_classical(source: str, path: Path) -> None:
    """Measure the classical codecs on every picture of ``source`` and write ``path``."""
    missing = [name for name, (file_format, *_) in CLASSICAL.items() if not can_write(name, file_format)]
    if missing:
        raise RuntimeError(
            f"this machine cannot write {' and '.join(missing)}: install a wheel of Pillow >= 11.3, and cwebp, "
            "which Debian has in the package webp"
        )
    todo = {n: {str(q): partial(through_file, n, q) for q in settings} for n, (*_, settings) in CLASSICAL.items()}
    # The C libraries decide the bytes of a classical file, Pillow only calls them.
    libraries = {name: features.version(name) for name in ("libjpeg_turbo", "jpg_2000", "webp", "avif")}
    libraries |= {"cwebp": cwebp_version()} if "WebP best PSNR" in CLASSICAL else {}
    write_measured(source, todo, path, "whole files", "--classical", ("pillow", "pillow-jxl-plugin"), libraries)


def measure_qualities(source: str, weights: str, path: Path) -> None:
    """Measure the six qualities, forward passes and files, on every picture of ``source`` and write ``path``."""
    missing = [q for q in QUALITIES if weights == "bundled" and not checkpoint_path(q, "bundled").exists()]
    if len(missing) == len(QUALITIES):
        raise RuntimeError("checkpoints/ is empty: train with python -m dgml train, or give --weights published")
    for checkpoint in (checkpoint_path(q, "bundled") for q in missing):
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
    """Measure the files that codecs of ``python -m dgml train`` make, each a curve of one point named by its folder."""
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
    todo = {
        name: {
            str(q): partial(through_bitstream, partial(last_codec, q, "bundled"), quality=q, steps=n) for q in SEARCHED
        }
        for name, n in both.items()
    }
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
    codecs: dict[str, Curve] = {codec: {} for codec in todo}
    with tqdm(total=len(pictures) * sum(map(len, todo.values())), unit="picture") as bar:
        for codec, qualities in todo.items():
            for quality, run in qualities.items():
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
        "MS-SSIM and SSIMULACRA2 of 8-bit RGB, seconds of CPU time: means over the pictures, then "
        "[bpp, psnr, ms_ssim, ssimulacra2] of each",
        "_command": command(source, option),
        "_environment": environment((*packages, "ssimulacra2")) | libraries | {"threads": 1},
        "images": list(pictures),
        "codecs": codecs,
    })  # fmt: skip


def measure_latents(source: str, path: Path) -> None:
    """Measure what y and z of the bundled codecs hold: channels that vary, what z costs and saves, the loss in g_s."""
    torch.set_num_threads(1)
    pictures, qualities = read_pictures(source), {}
    for quality in QUALITIES:
        codec = load_codec(quality, "bundled")
        rows: list[dict[str, float]] = []
        seen: dict[str, list[torch.Tensor]] = {"y": [], "z": []}
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
    inputs = codec.h_s(medians.expand_as(z)), codec.context_prediction(y.round())
    scales, means = codec.entropy_parameters(torch.cat(inputs, 1)).chunk(2, 1)
    without_z = {"y": codec.gaussian_conditional(y, scales, means)[1]}
    rates = {f"bpp_{name}": bpp({name: p}, pixels) for name, p in out["likelihoods"].items()}
    row = rates | {"bpp_y_without_z": bpp(without_z, pixels)}
    for key, x_hat in {"mse": out["x_hat"], "mse_unrounded": codec.g_s(y)}.items():
        row[key] = float((crop(x_hat, x.shape[-2:]).clamp(0, 1) - x).square().mean())
    return row, {"y": y.round(), "z": (z - medians).round()}


def measure_mixtures(source: str, path: Path) -> None:
    """Code the y of every picture under each head of 1, 2 and 3 Gaussians, decode it, and write the numbers of bytes.

    Beside them: the bytes of y in a .dgml file, whose symbols are round(y - mean) and whose Gaussians have heavy tails.
    """
    torch.set_num_threads(1)
    pictures = read_pictures(source)
    qualities: dict[str, dict[str, list[int]]] = {}
    for quality in mixtures.HEAD_QUALITIES:
        codec = load_codec(quality, "bundled")
        heads = {k: mixtures.load_mixture(codec, quality, k) for k in COMPONENTS}
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


# ---------------------------------------------------------------- pictures and results


def read_pictures(source: str) -> dict[str, Image.Image]:
    """Name -> RGB picture; two folders may each hold a picture of one name."""
    pictures = {}
    for i, (name, picture) in enumerate(rgb_pictures(load_images(source, math.inf))):
        pictures[f"{name} ({i})" if name in pictures else name] = picture
    if not pictures:
        raise ValueError(f"{source} holds no picture that can be decoded")
    return pictures


def command(source: str, option: str) -> str:
    """What made a result. Where a folder lies on this machine is of no use to anybody else."""
    name = folder_of(source).name if folder_of(source).is_dir() else source
    return f"python -m dgml evaluate --images {name} {option}".strip()


def folder_of(source: str) -> Path:
    """Where a folder of pictures lies: a relative one counts from the book's own, as in ``load_images``."""
    return (ROOT / Path(source).expanduser()).resolve()


def in_the_book(path: Path) -> str:
    """A file's path from the book's folder, or its folder and name where it lies elsewhere."""
    path = path.resolve()
    return path.relative_to(ROOT if path.is_relative_to(ROOT) else path.parent.parent).as_posix()


def environment(packages: tuple) -> dict[str, str]:
    """The versions of packages, and the CPU."""
    cpu = f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"
    return {name: version(name) for name in packages} | {"processor": cpu}


def write_json(path: Path, content: dict) -> None:
    """Write JSON, a list of plain values on one line, so that an interruption leaves the old file or the new."""
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    innermost = re.compile(r"\[\s+([^\[\]{}]*?)\s+\]")
    text = innermost.sub(lambda found: "[" + re.sub(r"\n *", " ", found[1]) + "]", text)
    atomic_write(path, f"{text}\n".encode())
