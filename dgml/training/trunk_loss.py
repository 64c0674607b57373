"""What a training step minimizes: the rate of latents with noise and the error of rounded ones."""

import numpy as np
import torch
from compressai.ops import quantize_ste
from torch import Tensor
from torch.nn.functional import unfold

from dgml.likelihoods import bounded, gaussian_likelihood
from dgml.metrics import DEAD
from dgml.model import DeepAnchor
from dgml.training.loss import loss_terms, through_hyperprior


def losses(codec: DeepAnchor, x: Tensor, lmbda: float, z_weight: float = 1.0, offset: str = "half",
           floor: float = 0.0, rate_only: bool = False, blind: bool = False) -> dict[str, Tensor]:  # fmt: skip
    """Rate and distortion of a training batch ``x`` (B, 3, H, W) in [0, 1].

    Returns ``bpp`` (bits per pixel of y and z), ``bpp_z`` (of z alone), ``mse`` and ``loss`` = lmbda * 255**2 * mse +
    bpp (Minnen et al., NeurIPS 2018, eq. 1), in which the bits of z count ``z_weight`` times, and to which the bits of
    the rounded symbols are added, from which the scales alone learn.
    The rate is that of latents with uniform noise, a differentiable stand-in for rounding (Balle et al., ICLR 2017);
    h_s and g_s see rounded latents, whose gradient is passed straight through, and the context is what a decoder has.
    g_s learns from round(y - mean) + mean, what a file holds, in the ``offset`` "half" or "all" of the batch, and from
    round(y) in the rest; ``floor`` is the least scale of the noise term.
    With ``blind`` the first half of the batch is predicted without its context, from z alone: a context model learns
    faster than a hyperprior, and z, whose bits then buy nothing, collapses before h_s can use it.
    With ``rate_only`` the transforms stand still, which saves two thirds of the work, and ``mse`` is zero.
    """
    gaussian = codec.gaussian_conditional
    with torch.set_grad_enabled(torch.is_grad_enabled() and not rate_only):
        y = codec.g_a(x)
    y, hyper, z_likelihoods = through_hyperprior(codec, y)
    taps = context_taps(codec)
    sighted = (torch.arange(len(y)) >= len(y) // 2).float().reshape(-1, 1, 1, 1) if blind else None
    with torch.no_grad():
        seen = torch.round(y)
        for _ in range(2):  # the means depend on what is decoded with them: two passes come close
            means = predict(codec, taps, hyper, seen, sighted)[1]
            seen = torch.round(y - means) + means
    scales, means = predict(codec, taps, hyper, y + (seen - y).detach(), sighted)
    with torch.autocast(x.device.type, enabled=False):
        _, y_likelihoods = gaussian(y, scales.detach().clamp(min=floor), means)
        shift = means.detach()
        if offset == "half":
            shift = shift * (torch.arange(len(y), device=y.device) % 2).reshape(-1, 1, 1, 1)
        y_hat = quantize_ste(y - shift) + shift
    x_hat = x if rate_only else codec.g_s(y_hat).float()
    with torch.autocast(x.device.type, enabled=False):
        row = loss_terms(x_hat, x, {"y": y_likelihoods, "z": z_likelihoods}, lmbda, z_weight)
        # Noise hides how often a symbol is not zero where the scale is small: 1 in 100, where the Gaussian says 1 in
        # 100,000.
        coded = bounded(gaussian_likelihood(torch.round(y - means).detach(), scales))
        row["loss"] = row["loss"] - coded.log2().sum() / x[:, 0].numel()
        return row


def context_taps(codec: DeepAnchor) -> Tensor:
    """The twelve taps of the context's kernel that its mask leaves, as a matrix (2 M, 12 M) for :func:`predict`."""
    return codec.context_prediction.weight.flatten(2)[:, :, :12].flatten(1)


def predict(
    codec: DeepAnchor, taps: Tensor, hyper: Tensor, seen: Tensor, sighted: Tensor | None = None
) -> tuple[Tensor, ...]:
    """Scales and means of y, in float32, from what h_s says and the y that a decoder has seen.

    ``sighted`` (B, 1, 1, 1) multiplies the context: zero hides it.

    The masked convolution as one matrix product: half the work of the 5x5 kernel, thirteen of whose taps are zero.
    """
    m, h, w = seen.shape[1:]
    # Two rows of padding above and two columns on both sides; the last row of y is above nothing.
    columns = unfold(torch.nn.functional.pad(seen, (2, 2, 2, 0)), (3, 5)).unflatten(1, (m, 15))[:, :, :12]
    context = (taps @ columns.flatten(1, 2)).unflatten(2, (h, w)) + codec.context_prediction.bias.reshape(1, -1, 1, 1)
    context = context if sighted is None else context * sighted
    parameters = codec.entropy_parameters(torch.cat((hyper, context.to(hyper.dtype)), dim=1)).float()
    return parameters.chunk(2, 1)


@torch.no_grad()
def anatomy(codec: DeepAnchor, pictures: list[Tensor]) -> dict[str, float]:
    """The error without rounding, its share of that with it, and how many channels of y and z are live."""
    codec.eval()
    errors, unrounded = [], []
    costs: dict[str, list[Tensor]] = {"y": [], "z": []}
    for x in pictures:
        out = codec(x)
        errors.append(float((out["x_hat"].clamp(0, 1) - x).square().mean()))
        unrounded.append(float((codec.g_s(codec.g_a(x)).clamp(0, 1) - x).square().mean()))
        for name, cost in costs.items():
            cost.append(-out["likelihoods"][name].log2().mean((0, 2, 3)))
    codec.train()
    live = {f"live_{name}": int((torch.stack(cost).mean(0) > DEAD).sum()) for name, cost in costs.items()}
    mse, mse_unrounded = float(np.mean(errors)), float(np.mean(unrounded))
    return {"mse_unrounded": mse_unrounded, "unrounded_share": mse_unrounded / mse, **live}
