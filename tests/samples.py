"""Pictures, codecs and curves that more than one file of tests starts from."""

import struct
import zlib
from collections.abc import Callable
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from compressai.zoo.image import model_urls
from PIL import Image
from skimage import data as photographs

from dgml import checkpoints, entropy, model, settings
from dgml.evaluation import curves
from dgml.model import Cheng2020Anchor

CODECS = [*settings.QUALITIES, "random"]  # the last stands for the published weights
HEADER_BYTES = 22
PUBLISHED_N = dict(zip(settings.QUALITIES, (128, 128, 128, 192, 192, 192)))


def picture(width: int, height: int, seed: int = 0, noise: float = 20.0) -> Image.Image:
    """A colour gradient with noise: something that a codec can shorten and cannot store exactly."""
    ramp = np.linspace(0, 200, width) + np.linspace(0, 50, height)[:, None]
    levels = ramp[..., None] * [1.0, 0.7, 0.4] + np.random.default_rng(seed).normal(0, noise, (height, width, 3))
    return Image.fromarray(levels.clip(0, 255).round().astype(np.uint8))


def random_codec(n: int = 128) -> Cheng2020Anchor:
    torch.manual_seed(0)
    return Cheng2020Anchor(n).eval()


def made_up(points: list[tuple[float, float]], names=("a", "b")) -> dict:
    """A curve through (bpp, dB) points on which every picture has the mean's values."""
    return {str(q): curves.point({name: [rate, db, 0.9] for name in names}) for q, (rate, db) in enumerate(points, 1)}


CODEC = [(0.1, 28.0), (0.15, 29.5), (0.22, 31.0), (0.33, 32.6), (0.5, 34.3), (0.75, 36.0)]
JPEG = [(0.2, 26.0), (0.3, 28.2), (0.45, 30.1), (0.8, 32.8), (1.4, 35.5)]


@cache
def attention_codec() -> model.Cheng2020Attention:
    """A small codec with attention blocks, whose transforms reach farthest."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return model.Cheng2020Attention(16).eval()


def rows_reached(layer: Callable, x: torch.Tensor, row: int) -> list[int]:
    """The rows of layer(x) that depend on one row of x (1, C, H, W), found by NaN, which nothing hides."""
    x = x.clone()
    x[:, :, row] = float("nan")
    with torch.no_grad():
        return layer(x).isnan().any(3).any(1)[0].nonzero().flatten().tolist()


@cache
def load(name: int | str) -> model.Cheng2020Anchor:
    """A bundled codec, or one of the published width with random weights, whose latents and scales spread widely."""
    if name in settings.QUALITIES:
        return checkpoints.load_codec(name, "bundled")
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        codec = model.Cheng2020Anchor(128).eval()
        y = codec.g_a(torch.rand(1, 3, 128, 128))
        codec.g_a[-1].weight *= 5 / y.std()
        codec.h_a[-1].weight *= 2 / codec.h_a(y).std()
        codec.entropy_parameters[-1].weight *= 10
        codec.entropy_parameters[-1].bias[: codec.M] = torch.logspace(-1.5, 2, codec.M)
    return codec


def fill_zoo(home: Path) -> None:
    """Make ``home`` a TORCH_HOME with random weights under the published names, in half precision to save space."""
    folder, first = home / "hub" / "checkpoints", {}
    folder.mkdir(parents=True)
    for quality, url in model_urls["cheng2020-anchor"]["mse"].items():
        path, n = folder / Path(url).name, PUBLISHED_N[quality]
        if n in first:
            path.symlink_to(first[n])
            continue
        codec = model.Cheng2020Anchor(n)
        codec.update()
        torch.save({k: v.half() if v.is_floating_point() else v for k, v in codec.state_dict().items()}, path)
        first[n] = path


@contextmanager
def recorded(*names):
    """A list of what these functions of entropy.py return within the block."""
    returned = []
    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            real = getattr(entropy, name)
            patch.setattr(entropy, name, lambda *args, real=real: returned.append(real(*args)) or returned[-1])
        yield returned


def random_levels(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def noise(width, height, seed=0):
    return Image.fromarray(random_levels(height, width, 3, seed=seed))


def save_picture(path: Path, seed: int = 0, width: int = 40, height: int = 30, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise(width, height, seed).save(path, **options)


def flat(width, height, seed=0):
    return Image.new("RGB", (width, height), tuple(np.random.default_rng(seed).integers(0, 256, 3).tolist()))


def gradient(width, height, seed=0):
    return noise(2, 2, seed).resize((width, height), Image.BILINEAR)


def photograph(width, height):
    return Image.fromarray(photographs.chelsea()[:height, 150 : 150 + width])


def one_line(raised) -> str:
    """The message of an expected error, which must be one line that says something."""
    message = str(raised.value)
    assert len(message) > 20 and "\n" not in message
    return message


def repaired(file):
    """The file with a checksum that fits its damage."""
    file = bytearray(file[:HEADER_BYTES].ljust(HEADER_BYTES, b"\0") + file[HEADER_BYTES:])
    file += bytes(-(len(file) - HEADER_BYTES) % 4)
    file[18:22] = struct.pack("<I", zlib.crc32(file[:18] + file[HEADER_BYTES:]))
    return bytes(file)
