"""Probabilities of rounded symbols, from which every rate of the book follows.

CompressAI computes them in methods that are not public; this is the only module that knows.
"""

import torch
from compressai.entropy_models import EntropyBottleneck
from compressai.ops import LowerBound
from torch import Tensor

SMALLEST_SCALE = 0.11  # of a Gaussian, as in CompressAI
SMALLEST_LIKELIHOOD = 1e-9  # as in CompressAI: no symbol costs more than 30 bits


def gaussian_likelihood(symbols: Tensor, scales: Tensor, means: Tensor | float = 0.0) -> Tensor:
    """The integral of N(mean, scale) from symbol - 1/2 to symbol + 1/2, elementwise (Balle et al., ICLR 2018, eq. 6).

    A scale below 0.11 counts as 0.11; its gradient passes where a step would raise it.
    """
    distance = (symbols - means).abs()
    scales = bounded(scales, SMALLEST_SCALE)
    # erfc keeps its precision in the tail, where 1 - erf has none.
    upper, lower = (0.5 * torch.erfc(-(2**-0.5) * ((edge - distance) / scales)) for edge in (0.5, -0.5))
    return upper - lower


def factorized_likelihood(bottleneck: EntropyBottleneck, z: Tensor) -> Tensor:
    """The same under the learned density of each channel of z, for z (C, 1, n) (Balle et al., ICLR 2018, app. 6.1)."""
    return bottleneck._likelihood(z)[0]


def bounded(x: Tensor, smallest: float = SMALLEST_LIKELIHOOD) -> Tensor:
    """max(x, smallest), whose gradient passes below the bound too where a step would raise x."""
    return LowerBound(smallest).to(x.device)(x)
