"""What a training step minimizes: rate and distortion with differentiable stand-ins for rounding."""

import numpy as np
import torch
from compressai.ops import quantize_ste
from torch.nn.functional import mse_loss

from dgml.likelihoods import bounded, gaussian_likelihood
from dgml.metrics import rd_loss
from dgml.model import Cheng2020Anchor, z_medians
from dgml.training.precision import contiguous_skips


def losses(codec: Cheng2020Anchor, x: torch.Tensor, lmbda: float, z_weight: float = 1.0) -> dict[str, torch.Tensor]:
    """Rate and distortion of a training batch ``x`` (B, 3, H, W) in [0, 1].

    Returns ``bpp`` (bits per pixel of y and z), ``bpp_z`` (of z alone), ``mse`` and ``loss`` = lmbda * 255**2 * mse +
    bpp (Minnen et al., NeurIPS 2018, eq. 1), in which the bits of z count ``z_weight`` times.  Once they count fully,
    the bits of the rounded symbols are added, from which the scales learn.
    The rate is that of latents with uniform noise, a differentiable stand-in for rounding (Balle et al., ICLR 2017);
    h_s and g_s see rounded latents, whose gradient is passed straight through.
    Once the bits of z count fully, the context is what a decoder will have.
    """
    gaussian, settled = codec.gaussian_conditional, z_weight == 1
    y = codec.g_a(x)
    y, hyper, z_likelihoods = through_hyperprior(codec, y)
    seen = y + (as_decoded(codec, y, hyper) - y).detach() if settled else gaussian.quantize(y, "noise")
    context = codec.context_prediction(seen)
    scales, means = codec.entropy_parameters(torch.cat((hyper, context), dim=1)).float().chunk(2, 1)
    with torch.autocast(x.device.type, enabled=False):
        _, y_likelihoods = gaussian(y, scales.detach() if settled else scales, means)
        # Half of the batch is rounded as forward() does it, half as compress() does: g_s must serve both.
        offset = means.detach() * (torch.arange(len(y), device=y.device) % 2).reshape(-1, 1, 1, 1)
        y_hat = quantize_ste(y - offset) + offset
    x_hat = codec.g_s(y_hat)
    with torch.autocast(x.device.type, enabled=False):
        row = loss_terms(x_hat.float(), x, {"y": y_likelihoods, "z": z_likelihoods}, lmbda, z_weight)
        if settled:
            # Noise hides how often a symbol is not zero where the scale is small: 1 in 100, where the Gaussian says 1
            # in 100,000.
            coded = bounded(gaussian_likelihood(torch.round(y - means).detach(), scales))
            row["loss"] = row["loss"] - coded.log2().sum() / x[:, 0].numel()
        return row


def through_hyperprior(codec: Cheng2020Anchor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """y (B, M, h, w) in float32, what h_s makes of its rounded z (B, 2M, h, w), and the likelihoods of z with noise."""
    z = codec.h_a(y)
    with torch.autocast(y.device.type, enabled=False):
        y, z = y.float(), z.float()
        _, z_likelihoods = codec.entropy_bottleneck(z)
        medians = z_medians(codec)
        z_hat = quantize_ste(z - medians) + medians
    return y, codec.h_s(z_hat), z_likelihoods


@torch.no_grad()
def as_decoded(codec: Cheng2020Anchor, y: torch.Tensor, hyper: torch.Tensor) -> torch.Tensor:
    """y (B, M, H, W) as the context model will see it, round(y - mean) + mean, without a gradient.

    The means depend on the result, which a decoder therefore finds position by position.
    Two passes over all positions at once differ from it in about every twelfth symbol, but are as far from y, and that
    is what counts.
    """
    y_hat = torch.round(y)
    for _ in range(2):
        parameters = codec.entropy_parameters(torch.cat((hyper, codec.context_prediction(y_hat)), dim=1))
        means = parameters.float().chunk(2, 1)[1]
        y_hat = torch.round(y - means) + means
    return y_hat


def loss_terms(
    x_hat: torch.Tensor, x: torch.Tensor, likelihoods: dict[str, torch.Tensor], lmbda: float, z_weight: float = 1.0
) -> dict[str, torch.Tensor]:
    """The terms of the training loss, as :func:`losses` returns them, from a reconstruction and its likelihoods."""
    n_pixels = x.shape[0] * x.shape[2] * x.shape[3]
    bpp_y, bpp_z = (-likelihoods[name].log2().sum() / n_pixels for name in "yz")
    mse = mse_loss(x_hat, x)
    loss = rd_loss(bpp_y + z_weight * bpp_z, mse, lmbda)
    return {"loss": loss, "bpp": bpp_y + bpp_z, "bpp_z": bpp_z, "mse": mse}


class Objective(torch.nn.Module):
    """The training loss as a module: gradients of several processes are joined only where its forward makes them."""

    def __init__(self, codec: Cheng2020Anchor):
        super().__init__()
        self.codec = codec
        contiguous_skips(codec.g_a)

    def forward(self, x: torch.Tensor, lmbda: float, z_weight: float) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        # Convolutions in bfloat16 are half as fast again in this order.
        row = losses(self.codec, x.contiguous(memory_format=torch.channels_last), lmbda, z_weight)
        return row["loss"] + self.codec.entropy_bottleneck.loss(), row


@torch.no_grad()
def held_out_losses(codec: Cheng2020Anchor, pictures: list[torch.Tensor], lmbda: float) -> dict[str, float]:
    """Mean loss of single pictures (1, 3, H, W) by the codec's own forward pass, rounded, in float32."""
    codec.eval()
    rows = []
    for x in pictures:
        out = codec(x)
        rows.append(loss_terms(out["x_hat"].clamp(0, 1), x, out["likelihoods"], lmbda))
    codec.train()
    return {key: float(np.mean([float(row[key]) for row in rows])) for key in rows[0]}
