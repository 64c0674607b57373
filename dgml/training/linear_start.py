"""A linear start: before its first step, g_a is a cascade of Karhunen-Loeve transforms and g_s its inverse.

A random start spends its first hours on finding a linear transform.  There is a closed form for a good one: squares of
2x2 pixels, 12 numbers, turned onto their principal axes; squares of 2x2 of those, 48 numbers, and so on, each depth
keeping as many as it has channels.  What is left for training is what no linear transform can do.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from compressai.layers import GDN
from torch import Tensor

from dgml.model import DeepAnchor

SMALL = 0.01  # what is multiplied into the branches that a linear transform does not need
CURVATURE = 1e-4  # of GDN: at one standard deviation it bends by half of this
CLIPPED = 0.002  # energy, in squared bins of y, that a LeakyReLU may cut from a coefficient


def bin_width(lmbda: float) -> float:
    """Width of the bins of an orthonormal transform at which a little more of it costs as much as it saves.

    At high rates one bit less in a coefficient quadruples its error, bin**2 / 12; in lmbda * 255**2 * MSE, with MSE the
    mean over 3 numbers a pixel, the two slopes are equal here.
    """
    return math.sqrt(12 * 3 / (2 * math.log(2) * lmbda * 255**2))


@dataclass
class Level:
    """One KLT of the cascade: ``basis`` (k, 4 c) of squares of c channels, and the scales before and after it.

    A feature is a coefficient, in units of pixels, times the scale of its channel.
    """

    basis: Tensor
    before: Tensor
    after: Tensor


@torch.no_grad()
def linear_start(codec: DeepAnchor, x: Tensor, lmbda: float) -> None:
    """Make g_a and g_s of a fresh codec the best cascade for pictures ``x`` (B, 3, H, W), sides multiples of 16.

    Features have the square root of a coefficient's standard deviation, counted in bins: with equal weight errors
    everywhere, as the first steps of training make them, this scale costs the least in y.
    """
    g_a: Any = codec.g_a
    g_s: Any = codec.g_s
    unit = bin_width(lmbda)
    mean = x.mean((0, 2, 3))
    coefficients, scale, levels = x - mean.reshape(1, -1, 1, 1), torch.ones(3), []
    for depth in range(4):
        layer = g_a[2 * depth]
        width = (layer if depth == 3 else layer.conv1).weight.shape[0]
        rows = squares(coefficients)
        basis = torch.linalg.eigh(rows.T @ rows / len(rows)).eigenvectors.flip(1).T[:width]
        b, _, h, w = coefficients.shape
        coefficients = (rows @ basis.T).reshape(b, h // 2, w // 2, -1).permute(0, 3, 1, 2)
        deviation = coefficients.std((0, 2, 3)).clamp(min=0.01 * unit)
        after = torch.full_like(deviation, 1 / unit)
        if depth < 3:
            gain = deviation.sqrt()
            after = gain / gain.square().mean().sqrt() / deviation
        levels.append(Level(basis, scale, after))
        offset = mean if depth == 0 else torch.zeros(len(scale))
        if depth == 3:
            layer.weight.zero_()[: len(basis)] = forward_taps(levels[-1], layer.weight.shape[1])
            layer.bias.zero_()
        else:
            guard = headroom(coefficients, unit) * after
            set_strided_block(layer, levels[-1], offset, guard)
            soften(g_a[2 * depth + 1])
        scale = after
    for level, block in zip(reversed(levels), (g_s[1], g_s[3], g_s[5], g_s[7])):
        last = block is g_s[7]
        set_upsampling(block[0] if last else block.upsample[0], level)
        if last:
            block[0].bias.copy_(mean.repeat_interleave(4))
        else:
            block.conv.weight *= SMALL
            block.conv.bias.zero_()
    for i in (0, 2, 4, 6):
        soften(g_s[i])


def squares(features: Tensor) -> Tensor:
    """(B, C, H, W) to one row of 4 C numbers for each square of 2x2: channel first, then row, then column."""
    return torch.nn.functional.pixel_unshuffle(features, 2).permute(0, 2, 3, 1).flatten(0, 2)


def forward_taps(level: Level, inputs: int) -> Tensor:
    """The KLT as the lower right 2x2 of kernels (k, inputs, 3, 3): with stride 2 and padding 1 they see a square."""
    k, c = len(level.basis), len(level.before)
    taps = torch.zeros(k, inputs, 3, 3)
    taps[:, :c, 1:, 1:] = level.basis.reshape(k, c, 2, 2) * (level.after[:, None] / level.before)[:, :, None, None]
    return taps


def headroom(coefficients: Tensor, unit: float) -> Tensor:
    """How far below zero the coefficients (B, C, H, W) of each channel must pass a LeakyReLU uncut.

    The smallest of some multiples of the deviation below which lies little energy.  A wide headroom is no free choice:
    it is a constant in the next layer's input, and multiplies what an error of its weights does.
    """
    flat = coefficients.transpose(0, 1).flatten(1)
    deviation = flat.std(1)
    chosen = 16.0 * deviation
    for multiple in (12.0, 9.0, 7.0, 5.5, 4.5, 3.5, 2.5):
        cut = (-flat - multiple * deviation[:, None]).clamp(min=0).square().mean(1)
        chosen = torch.where(cut < CLIPPED * unit**2, multiple * deviation, chosen)
    return chosen


def set_strided_block(block: Any, level: Level, offset: Tensor, guard: Tensor) -> None:
    """One KLT in a block of g_a, past its LeakyReLU and its GDN; ``offset`` is the mean of the input's channels.

    A bias keeps the values on the linear side of the LeakyReLU, and the second convolution takes it away.  Channels
    that the KLT does not need hold random features, which nothing reads yet.
    """
    k, first, second = len(level.basis), block.conv1, block.conv2
    taps = forward_taps(level, first.weight.shape[1])
    first.weight[:k] = taps
    first.bias.zero_()
    first.bias[:k] = guard - (taps.sum((2, 3))[:, : len(offset)] * offset).sum(1)
    second.weight[:k], second.weight[k:, :k] = 0, 0
    second.weight[range(k), range(k), 1, 1] = 1
    second.bias.zero_()
    second.bias[:k] = -guard
    straighten(block.gdn)
    block.skip.weight.zero_()
    block.skip.bias.zero_()


def straighten(gdn: GDN) -> None:
    """Make GDN all but the identity."""
    count = len(gdn.beta)
    gdn.beta.copy_(gdn.beta_reparam.init(torch.ones(count)))
    gdn.gamma.copy_(gdn.gamma_reparam.init(CURVATURE * torch.eye(count)))


def set_upsampling(conv: Any, level: Level) -> None:
    """The inverse of a KLT in the middle of 3x3 kernels that make 4 numbers of each channel, for a pixel shuffle."""
    k, c = len(level.basis), len(level.before)
    inverse = level.basis.T.reshape(c, 2, 2, k) / level.after * level.before[:, None, None, None]
    conv.weight[: 4 * c] = 0
    conv.weight[4 * c :] *= SMALL
    conv.weight[: 4 * c, :k, 1, 1] = inverse.reshape(4 * c, k)
    conv.bias.zero_()


def soften(block: Any) -> None:
    """Let a residual block begin as next to nothing beside its identity."""
    block.conv2.weight *= SMALL
    block.conv2.bias.zero_()


@torch.no_grad()
def start_entropy_model(codec: DeepAnchor, x: Tensor) -> None:
    """Fit fresh layers around y of the pictures ``x``.

    Channels of a transform differ a hundredfold in spread, so what reads y divides by it, channel by channel, and the
    scale predicted for a channel begins as its standard deviation.
    """
    deviation = codec.g_a(x).std((0, 2, 3)).clamp(min=0.1)
    codec.context_prediction.weight /= deviation.reshape(1, -1, 1, 1)
    start_hyperprior(codec, x)
    predicted = codec.entropy_parameters[-1]
    predicted.weight *= deviation.sqrt().repeat(2).reshape(-1, 1, 1, 1)
    predicted.bias[: codec.M] += deviation


@torch.no_grad()
def start_hyperprior(codec: DeepAnchor, x: Tensor, z_std: float = 2.0) -> None:
    """Let the first half of z begin as the energy of groups of y, and the first half of what h_s says as z, enlarged.

    A hyperprior tells where y is large.  One that has yet to find out what to tell costs bits and saves none; the rate
    silences it before it has learnt.  Half the sum of a LeakyReLU of u and of one of -u is about |u| / 2: so pairs of
    channels take the absolute value of sums of y with random signs, and strided averages make z of it.
    """
    y = codec.g_a(x)
    half, m = codec.N // 2, codec.M
    deviation = y.std((0, 2, 3)).clamp(min=0.1)
    group = torch.arange(m) * half // m
    signs = (torch.randint(2, (m,), generator=torch.Generator().manual_seed(0)) * 2 - 1) / deviation / (m / half) ** 0.5
    first, second, third, fourth, last = codec.h_a[::2]
    first.weight /= deviation.reshape(1, -1, 1, 1)
    first.weight[: 2 * half] = 0
    first.bias.zero_()
    first.weight[2 * group, range(m), 1, 1] = signs
    first.weight[2 * group + 1, range(m), 1, 1] = -signs
    pairs = torch.eye(half).repeat_interleave(2, 1)
    for layer, mixing in (
        (second, pairs),
        (third, torch.eye(half)),
        (fourth, torch.eye(half)),
        (last, torch.eye(half)),
    ):
        layer.weight[:half] = 0
        layer.weight[:half, : mixing.shape[1]] = mixing[:, :, None, None] / 9
        layer.bias.zero_()
    z = codec.h_a(y)
    factor = z_std / z.std((0, 2, 3))
    factor[half:] /= 4  # nobody reads these yet
    last.weight *= factor.reshape(-1, 1, 1, 1)
    last.bias -= factor * z.mean((0, 2, 3))
    fit_densities(codec, codec.h_a(y))
    # Back to the size of y: a bias keeps the values on the linear side of each LeakyReLU.
    guard = 4 * z_std
    first, _, second, _, third, _, fourth, _, last = codec.h_s
    for layer, times in ((first, 1), (second[0], 4), (third, 1), (fourth[0], 4)):
        count = times * half
        layer.weight[:count] = 0
        layer.weight[range(count), [i // times for i in range(count)], 1, 1] = 1
        layer.bias.zero_()
    first.bias[:half] = guard
    last.weight[:m], last.bias[:m] = 0, -guard / z_std
    last.weight[range(m), group, 1, 1] = 1 / z_std
    rest = codec.h_s(codec.h_a(y))[:, m:]
    last.weight[m:] /= rest.std()
    last.bias[m:] -= rest.mean((0, 2, 3)) / rest.std()


@torch.enable_grad()
def fit_densities(codec: DeepAnchor, z: Tensor, steps: int = 300, rate: float = 0.03) -> None:
    """Fit the densities of z to centred samples: the library's fresh ones charge two bits a symbol too many."""
    bottleneck = codec.entropy_bottleneck
    bottleneck.quantiles.data[:] = torch.tensor([-10.0, 0.0, 10.0])
    fitted = [p for p in bottleneck.parameters() if p is not bottleneck.quantiles]
    optimizer = torch.optim.Adam(fitted, lr=rate)
    z = z.detach()
    for _ in range(steps):
        optimizer.zero_grad()
        (-bottleneck(z, training=True)[1].log2().mean()).backward()
        optimizer.step()
    optimizer.zero_grad()
