"""How a codec begins its training: fresh, around the transforms of a narrower one, or with its idle channels awake."""

from copy import deepcopy
from pathlib import Path

import torch
from compressai.entropy_models import EntropyBottleneck
from compressai.layers import AttentionBlock

from dgml.checkpoints import read_checkpoint, widths
from dgml.model import Cheng2020Anchor, z_medians

ASLEEP = 0.1  # a channel of y or z is idle if its symbols differ more rarely than this from their commonest


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
    """Rescale fresh layers around y of the batch ``x``: z has a standard deviation of ``z_std``, h_s hands it on, and
    the scale predicted for a channel of y is its standard deviation."""
    y = codec.g_a(x)
    for reader in (codec.h_a[0], codec.context_prediction):
        reader.weight /= y.std()
    factor = z_std / codec.h_a(y).std()
    codec.h_a[-1].weight *= factor
    codec.h_a[-1].bias *= factor
    codec.h_s[0].weight /= factor
    # Five fresh layers would hand on a fortieth of what z says: z would fall silent before they have grown.
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
def plant(codec: Cheng2020Anchor, path: Path, x: torch.Tensor, y_std: float = 2.0) -> None:
    """Begin with the pictures of a codec of narrower y: put g_a and g_s of its checkpoint into this one's.

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
def wake_y(codec: Cheng2020Anchor, x: torch.Tensor, y_std: float = 2.0) -> int:
    """Give the channels of y that are all but constant on ``x`` a fresh start, and return how many they are.

    Rate pressure has silenced them.  Each gets fresh features with a standard deviation of ``y_std``, which the entropy
    model expects.  As in :func:`plant` nothing reads them yet.
    """
    idle = asleep(codec.g_a(x))
    if not idle.any():
        return 0
    begin_anew(codec.g_a, x, idle, y_std)
    second = codec.g_s[1]
    # The second block too: the first adds to y, and hands it on.
    readers = (codec.g_s[0].conv1, second.subpel_conv[0], second.upsample[0], codec.h_a[0], codec.context_prediction)
    for reader in readers:
        reader.weight[:, idle] = 0
    predicted = codec.entropy_parameters[-1]
    for weight, bias, value in zip(predicted.weight.chunk(2), predicted.bias.chunk(2), (y_std, 0.0)):  # scales, means
        weight[idle], bias[idle] = 0, value
    return int(idle.sum())


@torch.no_grad()
def wake_z(codec: Cheng2020Anchor, x: torch.Tensor, z_std: float = 1.0) -> int:
    """As :func:`wake_y`, for the channels of z: h_s does not read the fresh ones yet, and their densities are fresh."""
    bottleneck, reader = codec.entropy_bottleneck, codec.h_s[0]
    medians = z_medians(codec)
    idle = asleep(codec.h_a(codec.g_a(x)) - medians)
    if not idle.any():
        return 0
    reader.bias += (reader.weight.sum((2, 3)) * medians.flatten())[:, idle].sum(1)
    reader.weight[:, idle] = 0
    begin_anew(codec.h_a, codec.g_a(x), idle, z_std)
    density = EntropyBottleneck(len(idle), init_scale=2 * z_std)
    for own, new in zip(bottleneck.parameters(), density.parameters()):
        own[idle] = new[idle]
    return int(idle.sum())


def begin_anew(transform: torch.nn.Sequential, x: torch.Tensor, idle: torch.Tensor, std: float) -> None:
    """Make the channels ``idle`` of g_a or h_a fresh features of ``x``, with a mean of 0 and a deviation of ``std``."""
    last = transform[-1]
    fresh = deepcopy(last)
    fresh.reset_parameters()
    last.weight[idle], last.bias[idle] = fresh.weight[idle], 0.0
    features = transform(x)[:, idle]
    factor = std / features.std((0, 2, 3))
    last.weight[idle] *= factor.reshape(-1, 1, 1, 1)
    last.bias[idle] = -factor * features.mean((0, 2, 3))


def asleep(latents: torch.Tensor) -> torch.Tensor:
    """Which channels of ``latents`` (B, C, H, W) are all but constant once rounded: a mask (C,)."""
    symbols = latents.round().transpose(0, 1).flatten(1)
    return (symbols != symbols.mode(dim=1, keepdim=True).values).float().mean(1) < ASLEEP
