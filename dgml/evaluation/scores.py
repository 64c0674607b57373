"""What a codec makes of one picture, and how good that is."""

import io
import math
import os
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, TypeVar
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image
from pytorch_msssim import ms_ssim
from scipy.ndimage import correlate1d
from ssimulacra2 import ssimulacra2 as metric

from dgml.bitstream import FileCodec
from dgml.checkpoints import load_codec, load_trained
from dgml.classical import classical_file, read_classical
from dgml.images import crop, image_to_tensor, pad, tensor_to_image
from dgml.metrics import bpp, psnr

T = TypeVar("T")
GAUSSIAN = (0.264621105, 0.212928592, 0.109335373, 0.036011115, 0.009414368)
MS_SSIM_SIDE = 161  # five scales of an 11x11 window need more than 160 pixels
SSIMULACRA2_SIDE = 8


class Coded(NamedTuple):
    """What a codec made of a picture. The seconds are CPU time of all threads; a forward pass has none."""

    bpp: float  # over native pixels
    picture: Image.Image
    seconds_encode: float | None = None
    seconds_decode: float | None = None


def through_codec(quality: int, weights: str, picture: Image.Image) -> Coded:
    """Estimated bits, and the reconstruction rounded to 8 bits, of one forward pass."""
    x = image_to_tensor(picture)
    with torch.no_grad():
        out = last_codec(quality, weights).codec(pad(x))
    rate = bpp(out["likelihoods"], picture.width * picture.height)
    return Coded(rate, tensor_to_image(crop(out["x_hat"], x.shape[-2:])))


def through_bitstream(
    codec_of: Callable[[], FileCodec], picture: Image.Image, quality: int = 0, steps: int = 0
) -> Coded:
    """Bits of the whole .dgml file, header included, and the picture that it decodes to.

    With ``steps`` the encoder searches with the lambda of ``quality``.
    """
    codec = codec_of()
    return through_bytes(picture, lambda: codec.encode(picture, quality, steps), codec.decode)


@lru_cache(maxsize=1)
def last_codec(quality: int, weights: str) -> FileCodec:
    return FileCodec(load_codec(quality, weights))


@lru_cache(maxsize=1)
def last_trained(path: Path) -> FileCodec:
    return FileCodec(load_trained(path))


def through_file(name: str, setting: int, picture: Image.Image) -> Coded:
    """Bits of the whole file that Pillow writes, headers included, and the picture that it reads back."""
    return through_bytes(picture, lambda: classical_file(name, setting, picture), read_classical)


def through_bytes(picture: Image.Image, encode: Callable[[], bytes], decode: Callable[[bytes], Image.Image]) -> Coded:
    """Bits and seconds of a file, and the picture that it decodes to."""
    data, encoding = timed(encode)
    decoded, decoding = timed(lambda: decode(data))
    return Coded(8 * len(data) / (picture.width * picture.height), decoded, encoding, decoding)


def timed(run: Callable[[], T]) -> tuple[T, float]:
    """What ``run`` gives, and the seconds of CPU time that it took, with those of the programs that it called."""
    start = cpu_seconds()
    result = run()
    return result, cpu_seconds() - start


def cpu_seconds() -> float:
    """The CPU time of this process, all threads together, and of the programs that it called and that ended."""
    called = os.times()
    return time.process_time() + called.children_user + called.children_system


# ---------------------------------------------------------------- measures


def score(rate: float, picture: Image.Image, decoded: Image.Image) -> list[float | None]:
    """[bpp, PSNR in dB, MS-SSIM, SSIMULACRA2] of two RGB pictures of one size, as ``curves.MEASURES`` lists them.

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
    with patch.object(metric, "blur_image", blur):
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
