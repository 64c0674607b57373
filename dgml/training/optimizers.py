"""The optimizers of a codec, and how their rates and the weights in its loss change from step to step."""

import torch
from pytorch_optimizer import SOAP

from dgml.model import Cheng2020Anchor

SOAP_LR, ADAM_LR = 3e-3, 1e-3
WARM_UP = 100  # steps of rising rate
Z_FREE, Z_FULL = 1000, 3000  # until the first step the bits of z count nothing, from the second on fully
ANNEAL = 16  # times λ at the start of a run with --anneal


def make_optimizers(codec: Cheng2020Anchor) -> list[torch.optim.Optimizer]:
    """SOAP for the convolution kernels, Adam for the rest, and a third for the quantiles of z.

    SOAP (Vyas et al., ICLR 2025) is Adam in the eigenbasis of each kernel's gradients, in which its steps hinder each
    other less; Zhang and Zhu (2026) brought it to learned codecs.
    The first and the last layer stay with Adam: their rows and columns are colours, not features.
    """
    ends = {codec.g_a[0].conv1.weight, codec.g_a[0].skip.weight, codec.g_s[-1][0].weight}
    quantiles = codec.entropy_bottleneck.quantiles
    kernels = [p for p in codec.parameters() if p.ndim == 4 and p not in ends]
    taken = {*kernels, quantiles}
    rest = [p for p in codec.parameters() if p not in taken]
    # The mask zeroes the weights of taps that lie in the future, but not their gradients, which would turn the basis.
    context = codec.context_prediction
    context.weight.register_hook(lambda gradient: gradient * context.mask)
    soap = SOAP(kernels, lr=SOAP_LR, weight_decay=0.0)
    # A step along the basis moves those taps all the same.
    soap.register_step_post_hook(lambda *_: context.weight.data.mul_(context.mask))
    return [soap, torch.optim.Adam(rest, lr=ADAM_LR), torch.optim.Adam([quantiles], lr=ADAM_LR)]


def set_rates(
    optimizers: list[torch.optim.Optimizer],
    rates: list[list[float]],
    lr_scale: float,
    decay: float,
    step: int,
    steps: int,
) -> None:
    """The learning rates of this step; the quantiles of z, with the last optimizer, keep theirs."""
    factor = lr_scale * rate_factor(step, steps, decay)
    for optimizer, own in zip(optimizers[:-1], rates):
        for group, rate in zip(optimizer.param_groups, own):
            group["lr"] = rate * factor


def rate_factor(step: int, steps: int, decay: float = 0.5) -> float:
    """Multiplier of the learning rates: a short warm-up, a plateau, a line to zero over the last share ``decay``."""
    falling = (steps - step) / (decay * steps) if decay * steps else 1.0
    return min(1.0, (step + 1) / WARM_UP, falling)


def lambda_factor(step: int, steps: int | None) -> float:
    """Multiplier of λ, which falls from ANNEAL to 1 in ``steps`` steps: where bits count less, new channels of y find
    their use before the rate kills them."""
    return ANNEAL ** max(0.0, 1 - step / steps) if steps else 1.0


def z_weight(step: int) -> float:
    """How much the bits of z count.

    When they count from the start, z may collapse to its prior before h_s has learnt to use it (posterior collapse;
    Bowman et al., CoNLL 2016, raise its price slowly).  Here that alone did not prevent it: results/silent_z.json.
    """
    return min(1.0, max(0.0, (step - Z_FREE) / (Z_FULL - Z_FREE)))
