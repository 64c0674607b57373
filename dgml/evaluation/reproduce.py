"""Walk through the book's first part with published weights, and compare each number with the reference.

    python -m dgml reproduce

The reference is ``results/reference_kodak22.json``; any miss makes the exit status 1.
DGML_IMAGES names a folder of the Kodak pictures; by default they are downloaded once, like the weights.
"""

import argparse
import io
import json
import math
import os
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

import torch
from PIL import Image
from tqdm import tqdm

from dgml.checkpoints import load_codec
from dgml.images import crop, image_to_tensor, pad, to_rgb
from dgml.metrics import bits, bpp, psnr
from dgml.model import Cheng2020Anchor
from dgml.naive import pack, unpack
from dgml.picture_sets import load_images
from dgml.settings import QUALITIES, RESULTS

REFERENCE = RESULTS / "reference_kodak22.json"
# What counts as the same number, by its name in the reference: absolute and relative tolerance; the first that matches.
TOLERANCES = (
    ("zlib9_bytes|bpp_zlib", 0, 0.01),  # deflate has more than one implementation
    ("over_theoretical", 0.1, 0),
    ("bpp|top_y_channels . 2", 0.0005, 0),
    ("psnr_db|range", 0.02, 0),
    ("", 0, 0),
)


@torch.no_grad()
def reference_numbers(
    codec_for_quality: Callable[[int], Cheng2020Anchor], picture: Image.Image, qualities: Sequence[int] = QUALITIES
) -> dict:
    """The numbers of the book's first part for one picture, in the form and to the digits of the reference file.

    The staircase has a step for each of ``qualities``; quality 3 is taken apart. PSNR is of floats, not of 8 bits.
    """
    x, n_pixels = image_to_tensor(picture), picture.width * picture.height
    got: dict[str, Any] = {
        "image": {"width": picture.width, "height": picture.height, "n_pixels": n_pixels},
        "staircase": [],
    }
    for quality in tqdm(qualities, unit="quality", disable=None, leave=False):
        codec = codec_for_quality(quality)
        out = codec(pad(x))
        rate, db = bpp(out["likelihoods"], n_pixels), psnr(x, crop(out["x_hat"], x.shape[-2:]))
        got["staircase"].append({"quality": quality, "N": codec.N, "bpp": round(rate, 4), "psnr_db": round(db, 2)})
        if quality == 3:
            per_channel = bits(out["likelihoods"]["y"]).sum((0, 2, 3), dtype=torch.float64) / n_pixels
            top = per_channel.topk(5)
            got |= {
                "quality": quality,
                "N": codec.N,
                "params_millions": round(sum(p.numel() for p in codec.parameters()) / 1e6, 2),
                "bpp_theoretical": round(rate, 4),
                "top_y_channels": [[i, round(b, 5)] for i, b in zip(top.indices.tolist(), top.values.tolist())],
                "naive": naive_buffer(codec, x, rate),
            }
    return got


def naive_buffer(codec: Cheng2020Anchor, x: torch.Tensor, rate: float) -> dict:
    """Pack x (1, 3, H, W) in [0, 1] with means that never saw the context model, cast to int16, and decode it.

    ``rate`` is the forward pass's, in bits per pixel, that both sizes of the buffer are compared with.
    """
    size = x.shape[-2:]
    y = codec.g_a(pad(x))
    z_hat, _ = codec.entropy_bottleneck(codec.h_a(y))
    scales, means = codec.h_s(z_hat).chunk(2, 1)
    y_hat, _ = codec.gaussian_conditional(y, scales, means=means)
    buffer = pack(y_hat, z_hat)
    packed = zlib.compress(buffer, 9)
    raw_bpp, zlib_bpp = (8 * len(b) / (size[0] * size[1]) for b in (buffer, packed))
    decoded = crop(codec.g_s(unpack(zlib.decompress(packed))[0]), size).clamp(0, 1)
    return {
        "y_hat_shape": list(y_hat.shape),
        "y_hat_range": [round(y_hat.min().item(), 2), round(y_hat.max().item(), 2)],
        "z_hat_shape": list(z_hat.shape),
        "z_hat_range": [round(z_hat.min().item(), 2), round(z_hat.max().item(), 2)],
        "buffer_bytes": len(buffer),
        "zlib9_bytes": len(packed),
        "bpp_raw": round(raw_bpp, 4),
        "bpp_zlib": round(zlib_bpp, 4),
        "raw_over_theoretical": round(raw_bpp / rate, 1),
        "zlib_over_theoretical": round(zlib_bpp / rate, 1),
        "psnr_db": round(psnr(x, decoded), 2),
    }


def compare(reference: dict, got: dict) -> list[tuple[str, float, float | None, str]]:
    """(name, expected, got, "ok" or "MISS") of every number in ``reference``; None where ``got`` lacks it."""
    rows, found = [], dict(numbers(got))
    for name, expected in numbers(reference):
        absolute, relative = next((a, r) for pattern, a, r in TOLERANCES if re.search(pattern, name))
        value = found.get(name, math.nan)
        # The last digit of a sum in binary is not a miss.
        same = math.isclose(value, expected, rel_tol=0, abs_tol=absolute + relative * abs(expected) + 1e-9)
        rows.append((name, expected, found.get(name), "ok" if same else "MISS"))
    return rows


def numbers(value: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """(name, number) of everything inside nested dicts and lists; list items count from 1, remarks are left out."""
    if isinstance(value, dict | list):
        parts = value.items() if isinstance(value, dict) else enumerate(value, 1)
        for key, part in parts:
            if not str(key).startswith("_"):
                yield from numbers(part, f"{name} {key}".lstrip())
    else:
        yield name, value


def reproduce() -> bool:
    """Walk with published weights, print each reference number beside what came out, and say whether all agree."""
    torch.set_num_threads(1)
    # Without a network the hub's client retries, and complains each time; the error that it ends with says enough.
    os.environ.setdefault("HF_HUB_VERBOSITY", "critical")
    reference = json.loads(REFERENCE.read_text(encoding="utf-8"))
    index = reference["image"]["index"]
    published_codec(3)  # before the pictures: it fails at once where there is no network
    source = os.environ.get("DGML_IMAGES") or "danjacobellis/kodak"
    try:
        images = load_images(source, math.inf)
    except ValueError as error:
        why = str(error).partition(" Give ")[0].removeprefix(f"{source}: ")
        raise ValueError(f"DGML_IMAGES={source}: {why} Set it to a folder with the 24 Kodak pictures.") from None
    if len(images) <= index:
        raise ValueError(
            f"DGML_IMAGES={source}: it holds {len(images)} pictures; the reference is index {index} of Kodak"
        )
    got = reference_numbers(published_codec, to_rgb(images[index]["image"]))
    got["image"]["index"] = index
    rows = compare(reference, got)
    for name, expected, value, verdict in [("number", "reference", "got", "verdict"), *rows]:
        print(f"{name:<32} {expected!s:>10} {value!s:>10}  {verdict}")
    misses = sum(verdict == "MISS" for *_, verdict in rows)
    print(f"{len(rows) - misses} of {len(rows)} numbers agree")
    return not misses


def published_codec(quality: int) -> Cheng2020Anchor:
    """The published codec, without the address that torch.hub prints (versions differ in where to)."""
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        return load_codec(quality, "published")


def run(args: argparse.Namespace) -> int:
    """``python -m dgml reproduce``; the exit status, 1 where a number differs."""
    return 0 if reproduce() else 1
