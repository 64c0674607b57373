"""Photographs to train on: their patches, and the list of what was trained on."""

import csv
import hashlib
import io
import math
from pathlib import Path

import numpy as np
import torch

from dgml.files import atomic_write
from dgml.picture_sets import in_words, load_images, rgb_pictures
from dgml.training.arguments import BATCH, PATCH

HELD_OUT_EVERY = 16  # one photograph in sixteen is never trained on
HELD_OUT_SIZE = 256  # held-out loss: the center crop of each


class Patches:
    """Random square crops of photographs (H, W, 3), flipped and transposed at random.

    The batch of a step depends on ``seed``, the step and the process alone, so a resumed run sees what it would have
    seen.  All pixels lie on ``device`` in one tensor.
    """

    def __init__(self, photographs: list[np.ndarray], seed: int, size: int = PATCH, device: str | torch.device = "cpu"):
        self.seed, self.size = seed, size
        self.sides = [p.shape[:2] for p in photographs]
        self.starts = np.cumsum([0, *(height * width for height, width in self.sides)])
        self.pixels = torch.cat([torch.tensor(p.reshape(-1, 3)) for p in photographs]).to(device)

    def batch(self, step: int, count: int = BATCH, process: int = 0) -> torch.Tensor:
        """``count`` patches (count, 3, size, size) in [0, 1]."""
        random = np.random.default_rng((self.seed, step, process))
        return torch.stack([self.patch(random) for _ in range(count)])

    def patch(self, random: np.random.Generator) -> torch.Tensor:
        i = random.integers(len(self.sides))
        height, width = self.sides[i]
        photograph = self.pixels[self.starts[i] : self.starts[i + 1]].view(height, width, 3)
        top, left = random.integers(height - self.size + 1), random.integers(width - self.size + 1)
        patch = photograph[top : top + self.size, left : left + self.size].permute(2, 0, 1)
        if random.integers(2):
            patch = patch.transpose(1, 2)
        if random.integers(2):
            patch = patch.flip(2)
        return patch.float() / 255


def read_photographs(source: str, smallest: int = HELD_OUT_SIZE) -> list[tuple[str, np.ndarray]]:
    """Names and pixels (H, W, 3) of a folder or a data set, without those with a side under ``smallest``.

    Raises ValueError where fewer than two are left: one is held out.
    """
    photographs = [(name, np.asarray(picture)) for name, picture in rgb_pictures(load_images(source, math.inf))]
    large = [(name, photograph) for name, photograph in photographs if min(photograph.shape[:2]) >= smallest]
    small = [name for name, photograph in photographs if min(photograph.shape[:2]) < smallest]
    reason = f"smaller than {smallest} pixels"
    if small:
        print(f"left out: {in_words({reason: small})}")
    if len(large) < 2:
        raise ValueError(f"{source} holds {len(large)} photographs that are not {reason}: at least two are needed")
    return large


def center_crop(photograph: np.ndarray, size: int = HELD_OUT_SIZE) -> torch.Tensor:
    """The middle ``size`` pixels a side, or what there is, as (1, 3, H, W) in [0, 1]."""
    top, left = (max(0, side // 2 - size // 2) for side in photograph.shape[:2])
    crop = photograph[top : top + size, left : left + size]
    return torch.from_numpy(crop.copy()).permute(2, 0, 1)[None].float() / 255


def hashes_of(photographs: list[tuple[str, np.ndarray]]) -> list[str]:
    """The SHA-256 of the pixels of each."""
    return [hashlib.sha256(photograph.tobytes()).hexdigest() for _, photograph in photographs]


def write_list(path: Path, photographs: list[tuple[str, np.ndarray]], hashes: list[str]) -> None:
    """List the photographs, of a folder that may not be there yet, with the SHA-256 of their pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    used = ("training" if i % HELD_OUT_EVERY else "held out" for i in range(len(photographs)))
    rows = [("name", "sha256", "used"), *zip((name for name, _ in photographs), hashes, used)]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    atomic_write(path, text.getvalue().encode())


def list_digest(hashes: list[str]) -> str:
    """One SHA-256 for a list of photographs, whatever their order."""
    return hashlib.sha256("\n".join(sorted(hashes)).encode()).hexdigest()
