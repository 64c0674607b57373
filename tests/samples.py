"""Pictures, codecs and curves that more than one file of tests starts from."""

import numpy as np
import torch
from PIL import Image

import curves
from helpers import Cheng2020Anchor


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
