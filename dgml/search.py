"""The encoder may search: gradient descent on the y of one picture, with the decoder as it is.

g_a was trained to be good on the mean of many photographs.  A file only needs a y from which g_s makes *this* picture,
and nothing in the format says where that y comes from.  So the encoder starts at y = g_a(x) and goes downhill on the
codec's own loss, lambda * 255**2 * MSE + bpp (Campos et al., CVPR workshops 2019; Yang, Bamler and Mandt, NeurIPS
2020).

Rounding has no gradient.  The descent sees soft rounding instead (Agustsson and Theis, NeurIPS 2020), whose slope is
small near an integer and large halfway between two.
"""

from collections.abc import Callable
from typing import cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from dgml.images import image_to_tensor
from dgml.metrics import rd_loss
from dgml.model import Cheng2020Anchor, z_medians
from dgml.tables import LARGEST, N_SCALES, SMALLEST, TAIL, TAIL_OF_SMALLEST

STEP = 0.025  # the root mean square of a full step, in units of y; it falls in a straight line to zero
MOMENTUM = 0.8
SHARPNESS = 2.5  # of soft rounding: as it grows, it becomes rounding, and its gradient useless
STRIP = 2**20  # pixels that have their gradients in memory at once
RESTART = 10  # steps between two real files
SHORTEST = 1 / 8  # of a full step: where steps this long gain nothing, the search ends
# Rows of y that a strip sees more, above and below, than it keeps: beyond the reach of g_s, also with attention.
HALO = 12


def best_file(codec: Cheng2020Anchor, x: Tensor, y: np.ndarray, z: np.ndarray, coded: Callable[[np.ndarray], tuple[bytes, np.ndarray, float]], lmbda: float, steps: int) -> bytes:  # fmt: skip
    """The best file for the picture ``x`` (1, 3, height, width) in [0, 1], before padding, in ``steps`` steps.

    ``y`` and ``z`` are what g_a and h_a make of the padded picture, (M, H/16, W/16) and (N, H/64, W/64).
    ``coded`` gives the file of a y, the y_hat that a decoder reads from it, in units of y, and its :func:`file_loss`.
    The descent lowers the loss under soft rounding, and the file's loss need not follow, so it restarts every few steps
    from the best y so far; where the file is no better, the next steps are half as long.
    """
    data, y_hat, lowest = coded(y)
    share = 1.0
    with tqdm(total=steps, desc="search", unit="step", disable=None, leave=False) as bar:
        for done in range(0, steps, RESTART):
            moved = descend(codec, x, y, z, y_hat, lmbda, min(RESTART, steps - done), share, bar.update)
            found, seen, reached = coded(moved)
            if reached < lowest:
                data, y, y_hat, lowest = found, moved, seen, reached
            elif share > SHORTEST:
                share /= 2
            else:
                break
    return data


def descend(codec: Cheng2020Anchor, x: Tensor, y: np.ndarray, z: np.ndarray, y_hat: np.ndarray, lmbda: float, steps: int, share: float = 1.0, made: Callable[[], object] = lambda: None) -> np.ndarray:  # fmt: skip
    """A y (M, H/16, W/16) whose soft loss is lower, after ``steps`` steps of ``share`` times STEP.

    The rest is as in :func:`best_file`; ``made`` is called after each step.
    Memory grows with the picture only by y itself, in a few copies.
    """
    moved, side, rounded = (torch.from_numpy(latent)[None].float() for latent in (y, z, y_hat))
    moved.requires_grad_()
    medians = z_medians(codec)
    with torch.no_grad():
        hyper = codec.h_s(torch.round(side - medians) + medians)  # z stays as it is
        _, means = prediction(codec, rounded, hyper)
    velocity, size = torch.zeros_like(moved), 0.0
    for step in range(steps):
        # The means depend on y_hat, and y_hat on the means: those of the last step will do.
        seen = soft_round(moved - means) + means
        gradient, means = loss_gradient(codec, x, seen.detach(), hyper, lmbda)
        (gradient,) = torch.autograd.grad(seen, moved, gradient)
        velocity = MOMENTUM * velocity + gradient
        # One length for all of y, and not Adam's one for each number: what hardly matters then hardly moves.
        size = max(size, gradient.square().mean().sqrt().item())
        moved = (moved - share * STEP * (1 - step / steps) * velocity / max(size, 1e-30)).detach().requires_grad_()
        made()
    return moved.detach()[0].double().numpy()


def soft_round(v: Tensor) -> Tensor:
    """A smooth stand-in for rounding: integers stay, halves stay, and between them it follows a tanh."""
    middle = v.detach().floor() + 0.5
    return middle + torch.tanh(SHARPNESS * (v - middle)) / (2 * np.tanh(SHARPNESS / 2))


def loss_gradient(codec: Cheng2020Anchor, x: Tensor, y_hat: Tensor, hyper: Tensor, lmbda: float) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The gradient of the loss at ``y_hat`` (1, M, h, w), and the means predicted from it; strip by strip.

    ``hyper`` is the output of h_s, and ``x`` the picture (1, 3, height, width), which y_hat covers with its padding.
    """
    y_hat, means = y_hat.clone().requires_grad_(), torch.empty_like(y_hat)
    (height, width), (h, w) = x.shape[-2:], y_hat.shape[-2:]
    rows = max(1, STRIP // (256 * w))
    for top in range(0, h, rows):
        first, last = max(0, top - HALO), min(h, top + rows + HALO)
        kept = slice(top - first, min(top + rows, h) - first)
        part = y_hat[:, :, first:last]
        with bfloat16():
            x_hat = codec.g_s(part)[:, :, 16 * kept.start : 16 * kept.stop]
        scales, found = (p[:, :, kept] for p in prediction(codec, part, hyper[:, :, first:last]))
        original = x[:, :, 16 * top : 16 * min(top + rows, h)]
        error = (x_hat.float()[:, :, : original.shape[2], :width] - original).square().sum() / (3 * height * width)
        rate = symbol_bits(part[:, :, kept] - found, scales).sum() / (height * width)
        (lmbda * 255**2 * error + rate).backward(inputs=[y_hat])
        means[:, :, top : top + rows] = found.detach()
    return cast(Tensor, y_hat.grad), means


def prediction(codec: Cheng2020Anchor, y_hat: Tensor, hyper: Tensor) -> tuple[Tensor, Tensor]:
    """Scales and means of the symbols, each (1, M, h, w), from ``y_hat`` around them and from h_s, ``hyper``."""
    with bfloat16():
        context = torch.cat((hyper, codec.context_prediction(y_hat)), 1)
        scales, means = codec.entropy_parameters(context).float().chunk(2, 1)
    return scales, means


def symbol_bits(symbols: Tensor, scales: Tensor) -> Tensor:
    """The bits of symbols of any value, with the heavy tails of the tables (tables.gaussian_tables).

    Not by :func:`gaussian_likelihood`, whose last digits differ: a search would find other files.
    """
    scales = scales.clamp(SMALLEST, LARGEST)
    # Half a step above the lowest scale the second table takes over from the first.
    second = SMALLEST * (LARGEST / SMALLEST) ** (0.5 / (N_SCALES - 1))
    share = torch.where(scales > second, TAIL, TAIL_OF_SMALLEST)
    near, far = (torch.special.ndtr((0.5 - symbols.abs()) / s) - torch.special.ndtr((-0.5 - symbols.abs()) / s)
                 for s in (scales, 3 * scales + 0.5))  # fmt: skip
    return -((1 - share) * near + share * far + 1e-12).log2()


def bfloat16() -> torch.autocast:
    """bfloat16 where this CPU multiplies it in hardware, in half the time; emulated, it would be far slower."""
    multiplies = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    return torch.autocast("cpu", torch.bfloat16, enabled=multiplies)


def file_loss(picture: Image.Image, decoded: Image.Image, n_bytes: int, lmbda: float) -> float:
    """lambda * 255**2 * MSE + bpp of a whole file, the errors in the 8-bit picture that it decodes to."""
    mse = (image_to_tensor(picture) - image_to_tensor(decoded)).double().square().mean().item()
    return rd_loss(8 * n_bytes / (picture.width * picture.height), mse, lmbda)
