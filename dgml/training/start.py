"""How a codec starts its training: fresh, around the transforms of a narrower one, or with its dead channels fresh."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from compressai.entropy_models import EntropyBottleneck
from compressai.layers import AttentionBlock

from dgml.checkpoints import read_checkpoint, widths
from dgml.metrics import dead_channels
from dgml.model import Cheng2020Anchor, z_medians


def scale_latents(codec: Cheng2020Anchor, x: torch.Tensor) -> None:
    """Rescale a fresh codec so that y and z of the batch ``x`` start with a spread that rounding cannot erase."""
    scale_y(codec, x)
    scale_hyperprior(codec, x)


@torch.no_grad()
def scale_y(codec: Cheng2020Anchor, x: torch.Tensor, y_std: float = 5.0) -> None:
    """Give y of the batch ``x`` a standard deviation of ``y_std``, and g_s what it read before.

    The last layer of g_a is multiplied, the first that reads y in g_s is divided.
    An attention block next to y goes on doing what it did: with a wider input its mask would saturate at once.
    """
    last = [layer for layer in codec.g_a if hasattr(layer, "weight")][-1]
    first = next(layer for layer in codec.g_s if hasattr(layer, "conv1"))
    factor = y_std / codec.g_a(x).std()
    last.weight *= factor
    last.bias *= factor
    first.conv1.weight /= factor
    for block in (codec.g_a[-1], codec.g_s[0]):
        if isinstance(block, AttentionBlock):
            widen(block, float(factor))


@torch.no_grad()
def scale_hyperprior(codec: Cheng2020Anchor, x: torch.Tensor, z_std: float = 2.0) -> None:
    """Rescale fresh layers around y of the batch ``x``: z has a standard deviation of ``z_std``, h_s passes it on,
    and the scale predicted for a channel of y is its standard deviation."""
    y = codec.g_a(x)
    for reader in (codec.h_a[0], codec.context_prediction):
        reader.weight /= y.std()
    factor = z_std / codec.h_a(y).std()
    codec.h_a[-1].weight *= factor
    codec.h_a[-1].bias *= factor
    codec.h_s[0].weight /= factor
    # Five fresh layers would pass on a fortieth of what z says: it would collapse before they have grown.
    spread = codec.h_s(codec.h_a(y)).std()
    codec.h_s[-1].weight /= spread
    codec.h_s[-1].bias /= spread
    codec.entropy_parameters[-1].bias[: codec.M] += y.std(dim=(0, 2, 3))


@torch.no_grad()
def widen(block: AttentionBlock, factor: float) -> None:
    """Make block(factor * x) equal to factor times what block(x) was: x + a(x) * sigmoid(b(x)).

    Both branches are ReLUs and convolutions, so with wider biases they follow a wider input; the mask must not.
    """
    for name, parameter in block.named_parameters():
        if name.endswith("bias"):
            parameter *= factor
    block.conv_b[-1].weight /= factor
    block.conv_b[-1].bias /= factor


@torch.no_grad()
def warm_start(codec: Cheng2020Anchor, path: Path, x: torch.Tensor, y_std: float = 2.0) -> None:
    """Start from the pictures of a codec with a narrower y: put g_a and g_s of its checkpoint into this one's.

    The new channels of y carry fresh features of ``x`` with a standard deviation of ``y_std``, so that rounding leaves
    them a signal.  Nothing reads them yet: those weights are zero, but their gradients are not.
    """
    own, narrow = codec.state_dict(), read_checkpoint(path)
    if widths(narrow)[0] > codec.N or widths(narrow)[1] >= codec.M:
        raise ValueError(f"{path} is no narrower than N = {codec.N}, M = {codec.M}: --init starts from such a one")
    if not {name for name in narrow if name.startswith(("g_a.", "g_s."))} <= own.keys():
        raise ValueError(f"{path} is of another architecture")
    for name, small in narrow.items():
        if name.startswith(("g_a.", "g_s.")):
            part = own[name][: len(small)]
            part.zero_()[(slice(None), *map(slice, small.shape[1:2]))] = small
    last, m = codec.g_a[-1], widths(narrow)[1]
    factor = y_std / codec.g_a(x)[:, m:].std()
    last.weight[m:] *= factor
    last.bias[m:] *= factor


@torch.no_grad()
def reinitialize_y(codec: Cheng2020Anchor, x: torch.Tensor, y_std: float = 2.0) -> int:
    """Give the channels of y that are dead on ``x`` a fresh start, and return how many they are.

    Each gets fresh features with a standard deviation of ``y_std``, which the entropy model expects.  As in
    :func:`warm_start` nothing reads them yet.
    """
    dead = dead_on(codec, x, "y")
    if not dead.any():
        return 0
    reinitialize(codec.g_a, x, dead, y_std)
    second = codec.g_s[1]
    # The second block too: the first adds to y, and passes it on.
    readers = (codec.g_s[0].conv1, second.subpel_conv[0], second.upsample[0], codec.h_a[0], codec.context_prediction)
    for reader in readers:
        reader.weight[:, dead] = 0
    predicted = codec.entropy_parameters[-1]
    for weight, bias, value in zip(predicted.weight.chunk(2), predicted.bias.chunk(2), (y_std, 0.0)):  # scales, means
        weight[dead], bias[dead] = 0, value
    return int(dead.sum())


@torch.no_grad()
def reinitialize_z(codec: Cheng2020Anchor, x: torch.Tensor, z_std: float = 1.0) -> int:
    """As :func:`reinitialize_y`, for z: h_s does not read the fresh channels yet, and their densities are fresh."""
    bottleneck, reader = codec.entropy_bottleneck, codec.h_s[0]
    medians = z_medians(codec)
    dead = dead_on(codec, x, "z")
    if not dead.any():
        return 0
    reader.bias += (reader.weight.sum((2, 3)) * medians.flatten())[:, dead].sum(1)
    reader.weight[:, dead] = 0
    reinitialize(codec.h_a, codec.g_a(x), dead, z_std)
    density = EntropyBottleneck(len(dead), init_scale=2 * z_std)
    for own, new in zip(bottleneck.parameters(), density.parameters()):
        own[dead] = new[dead]
    return int(dead.sum())


def reinitialize(transform: torch.nn.Sequential, x: torch.Tensor, dead: torch.Tensor, std: float) -> None:
    """Make the channels ``dead`` of g_a or h_a fresh features of ``x``, with a mean of 0 and a deviation of ``std``."""
    last: Any = transform[-1]
    fresh = deepcopy(last)
    fresh.reset_parameters()
    last.weight[dead], last.bias[dead] = fresh.weight[dead], 0.0
    features = transform(x)[:, dead]
    factor = std / features.std((0, 2, 3))
    last.weight[dead] *= factor.reshape(-1, 1, 1, 1)
    last.bias[dead] = -factor * features.mean((0, 2, 3))


def dead_on(codec: Cheng2020Anchor, x: torch.Tensor, latent: str) -> torch.Tensor:
    """Which channels of "y" or "z" are dead on the pictures ``x`` (B, 3, H, W): a mask (C,)."""
    mode = codec.training
    likelihoods = codec.eval()(x)["likelihoods"]  # of rounded symbols, where training would add noise
    codec.train(mode)
    return dead_channels(likelihoods[latent])
