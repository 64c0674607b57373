"""Photographs to train on, and runs of a few steps."""

import numpy as np
import pytest
from PIL import Image

from dgml.training import heads, loop


@pytest.fixture
def photographs(tmp_path):
    folder = tmp_path / "photographs"
    folder.mkdir()
    random = np.random.default_rng(0)
    for i in range(3):
        smooth = Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize((260, 300), Image.BICUBIC)
        smooth.save(folder / f"{i}.png")
    return folder


@pytest.fixture
def small(monkeypatch):
    """Runs of a few steps that log each and save every other one."""
    for module in (loop, heads):
        monkeypatch.setattr(module, "LOG_EVERY", 1)
    monkeypatch.setattr(loop, "HOLD_EVERY", 2)
