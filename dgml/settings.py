"""The two settings of the book, and where its files lie."""

import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
ROOT = PACKAGE.parent  # of the clone
# An installed package carries its checkpoints inside, a clone beside.
CHECKPOINTS = next((d for d in (PACKAGE / "checkpoints", ROOT / "checkpoints") if d.is_dir()), ROOT / "checkpoints")
RESULTS = ROOT / "results"
QUALITIES = range(1, 7)
# CompressAI's values for mean squared error, loss = lambda * 255**2 * MSE + bpp.
LAMBDA = dict(zip(QUALITIES, (0.0018, 0.0035, 0.0067, 0.0130, 0.0250, 0.0483)))
COMPONENTS = (1, 2, 3)  # Gaussians of the bundled mixtures (chapter 14)
PRIORS = ("histograms", "scales", "means")  # the bundled prior variants (chapter 10)


def setting(name: str) -> str:
    """What the environment's ``DGML_WEIGHTS`` or ``DGML_IMAGES`` says, by default "bundled"; ``name`` has no prefix."""
    return os.environ.get(f"DGML_{name}") or "bundled"


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
