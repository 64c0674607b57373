"""Rate, distortion, and the losses made of them."""

from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor

Number = TypeVar("Number", float, Tensor)
DEAD = 0.01  # bits a symbol: a channel of y or z whose symbols say less on average is dead


def bits(likelihoods: Tensor) -> Tensor:
    """Information content in bits of symbols with these likelihoods, elementwise: -log2 p (Shannon, 1948)."""
    return -likelihoods.log2()


def bpp(likelihoods: dict[str, Tensor], n_pixels: int) -> float:
    """Bits per native pixel of a forward pass: all bits of y and z over ``n_pixels`` (before padding)."""
    return sum(bits(p).sum(dtype=torch.float64).item() for p in likelihoods.values()) / n_pixels


def dead_channels(likelihoods: Tensor) -> Tensor:
    """Which channels of a latent are dead, as a mask (C,): a symbol there costs less than 0.01 bit on average.

    ``likelihoods`` (B, C, h, w) are those of the rounded symbols under the codec's own entropy model.
    """
    return bits(likelihoods).mean((0, 2, 3)) < DEAD


def psnr(x: Tensor, x_hat: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of two tensors of one shape: 10 log10(1 / MSE), both clamped to [0, 1].

    Infinite where they are equal; ValueError where the shapes differ.
    """
    if x.shape != x_hat.shape:
        raise ValueError(f"shapes differ: {tuple(x.shape)} and {tuple(x_hat.shape)}")
    mse = (x.clamp(0, 1).double() - x_hat.clamp(0, 1).double()).square().mean()
    return float(10 * torch.log10(1 / mse))


def rd_loss(bpp: Number, mse: Number, lmbda: float) -> Number:
    """lambda * 255**2 * MSE + bpp (Minnen et al., NeurIPS 2018, eq. 1), the MSE of pixels in [0, 1]."""
    return lmbda * 255**2 * mse + bpp


def bd_rate_over(reference: dict, test: dict) -> tuple[float, float, float] | None:
    """BD-rate in % of the mean curves, and both ends in dB of the PSNR range that they share.

    Negative: ``test`` needs fewer bits than ``reference`` for the same PSNR (Bjontegaard, VCEG-M33, 2001; by PCHIP).
    None where it is not defined: no shared range, or a PSNR that is not monotonic in the rate.
    """
    from bjontegaard import bd_rate  # and with it scipy and matplotlib, which take a second

    points = [sorted((p["bpp"], p["psnr"]) for p in c.values() if p["psnr"] is not None) for c in (reference, test)]
    (rates, dbs), (test_rates, test_dbs) = ([list(column) for column in zip(*curve)] or ([], []) for curve in points)
    if any(len(column) < 2 or any(b <= a for a, b in pairwise(column)) for column in (dbs, test_dbs)):
        return None
    low, high = max(dbs[0], test_dbs[0]), min(dbs[-1], test_dbs[-1])
    if low >= high:
        return None
    # The library warns of curves that share less than 75 % of their range; the report prints the range instead.
    change = bd_rate(rates, dbs, test_rates, test_dbs, method="pchip", require_matching_points=False, min_overlap=0)
    return float(change), low, high
