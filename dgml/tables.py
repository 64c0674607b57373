"""The tables of frequencies that the range coder codes y and z with: made once, then stored."""

from copy import deepcopy

import constriction
import numpy as np
import torch
from safetensors.numpy import load_file

from dgml.likelihoods import factorized_likelihood
from dgml.model import Cheng2020Anchor
from dgml.settings import CHECKPOINTS

Array = np.ndarray

WEIGHT_BITS, ACTIVATION_BITS = 14, 10  # binary digits behind the point
ONE = 2**ACTIVATION_BITS
Z_RANGE, Y_RANGE = 127, 511  # largest absolute values of the symbols of z and y; the encoder clamps
PRECISION = 24  # frequencies of a table add up to 2**24, as constriction wants them
# The symbols of y: Gaussians of 128 scales in equal ratios, and the share of each that comes from one of three times
# its scale and 0.5.
N_SCALES, SMALLEST, LARGEST = 128, 0.11, 256.0
TAIL, TAIL_OF_SMALLEST = 2.0**-7, 2.0**-11


def categorical(frequencies: Array) -> constriction.stream.model.Categorical:
    """constriction's model of a table of frequencies >= 1 that add up to 2**24, taken over exactly.

    With perfect=False the library scales weights to 2**24 - n and adds 1 to each of n; these need no scaling.
    """
    return constriction.stream.model.Categorical((frequencies - 1).astype(np.float64), perfect=False)


def to_frequencies(pmf: Array) -> Array:
    """Integers >= 1 that add up to 2**24 in each row of a pmf (rows, n); the largest takes what rounding leaves."""
    n = pmf.shape[1]
    frequencies = 1 + np.floor(pmf / pmf.sum(1, keepdims=True) * (2**PRECISION - n)).astype(np.int64)
    frequencies[np.arange(len(pmf)), pmf.argmax(1)] += 2**PRECISION - frequencies.sum(1)
    return frequencies.astype(np.int32)


# ---------------------------------------------------------------- z


def z_frequencies(codec: Cheng2020Anchor) -> Array:
    """The table of z (N, 255): as it is stored in a checkpoint, or made from the entropy bottleneck."""
    if hasattr(codec.entropy_bottleneck, "frequencies"):
        return codec.entropy_bottleneck.frequencies.numpy()
    return make_z_frequencies(codec)


def make_z_frequencies(codec: Cheng2020Anchor) -> Array:
    """The table of z (N, 255) of the entropy bottleneck.

    It takes exponentials, whose last digit may differ between machines: then fingerprints do, and files are refused.
    """
    bottleneck = deepcopy(codec.entropy_bottleneck).double()
    symbols = torch.arange(-Z_RANGE, Z_RANGE + 1, dtype=torch.float64) + bottleneck.quantiles[:, :, 1:2]
    with torch.inference_mode():
        likelihood = factorized_likelihood(bottleneck, symbols)
    return to_frequencies(likelihood[:, 0].numpy())


# ---------------------------------------------------------------- y


def y_tables() -> dict[str, Array]:
    """``frequencies`` and ``thresholds`` of :func:`gaussian_tables`, as they are stored."""
    return load_file(CHECKPOINTS / "gaussian_tables.safetensors")


def gaussian_tables() -> dict[str, Array]:
    """What ``checkpoints/gaussian_tables.safetensors`` stores: one table for each of 128 scales.

    ``frequencies`` (128, 512) of the symbols 0 to 511 (negative ones are as frequent), and ``thresholds`` (127,)
    between neighbouring scales in units of 2**-10.
    One symbol in 128 comes from a Gaussian that is more than three times as wide: real symbols stray further than
    the model says.
    At the smallest scale, that of dead channels, it is one in 2048.
    The shares were chosen on held-out photographs of the training set, where they saved 1.5 % of the bytes of the
    codec of that time.
    """
    steps = np.arange(N_SCALES)[:, None]
    scales = SMALLEST * (LARGEST / SMALLEST) ** (steps / (N_SCALES - 1))
    share = np.where(steps > 0, TAIL, TAIL_OF_SMALLEST)
    pmf = (1 - share) * gaussian_pmf(scales) + share * gaussian_pmf(3 * scales + 0.5)
    thresholds = np.rint(np.sqrt(scales[1:, 0] * scales[:-1, 0]) * ONE).astype(np.int32)
    return {"frequencies": to_frequencies(pmf)[:, Y_RANGE:].copy(), "thresholds": thresholds}


def gaussian_pmf(scale: Array) -> Array:
    """Probabilities (rows, 1023) of the symbols -511 to 511 under Gaussians of mean 0 and ``scale`` (rows, 1)."""
    edges = np.arange(-Y_RANGE, Y_RANGE + 2) - 0.5
    pmf = torch.special.ndtr(torch.from_numpy(-np.abs(edges) / scale)).diff().abs().numpy()
    pmf[:, Y_RANGE] = 1 - pmf[:, :Y_RANGE].sum(1) - pmf[:, Y_RANGE + 1 :].sum(1)
    return pmf
