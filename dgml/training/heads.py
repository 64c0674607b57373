"""Heads on the latents of a frozen codec: the mixtures of chapter 14 and the prior variants of chapter 10."""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from dgml.checkpoints import load_codec, save_tensors
from dgml.images import pad
from dgml.likelihoods import SMALLEST_SCALE, bounded, factorized_likelihood
from dgml.mixtures import Head, coded, features_of, likelihoods, new_head, y_and_z_hat
from dgml.model import Cheng2020Anchor
from dgml.priors import RAREST, Z_CHANNELS, Hyperprior
from dgml.training.arguments import LOG_EVERY
from dgml.training.data import (
    HELD_OUT_EVERY,
    HELD_OUT_SIZE,
    center_crop,
    hashes_of,
    list_digest,
    read_photographs,
    write_list,
)
from dgml.training.log import log_line
from dgml.training.precision import autocast, faster_precision

HEAD_SIZE, HEAD_BATCH = 512, 4096  # a head's training: the center crop of each photograph, positions of y in a step
PRIOR_BATCH, PRIOR_LR = 8, 2e-3  # maps of y in a step, learning rate of Adam
HEAD_LR = 2e-4  # at ADAM_LR a head of M = 128 forgets in 50 steps what the codec's own layers knew


def train_mixture(args: argparse.Namespace) -> None:
    """Train a head of ``args.mixture`` Gaussians on the latents of the frozen bundled codec, and leave
    ``head.safetensors`` and ``log.csv`` in the run folder.

    The loss is the bits of what is coded, round(y - m), where m is the mean of the head's own mixture; so each step
    rounds by the head that it finds.  There is no noise: nothing before the symbols has to learn.
    The context is that of the first head, which has the codec's own means.
    """
    run, codec, crops, metadata = start_head(args)
    torch.manual_seed(args.seed)
    head = new_head(codec, args.mixture)
    seen = [y_and_hyper(codec, x) for x in tqdm(crops, unit="photograph")]
    held_out = seen[::HELD_OUT_EVERY]
    # Every position of every photograph is one example: channels first, positions along the height, as 1x1 layers see
    # no neighbours.
    examples = [(as_decoded(codec, head, *pair)[0], pair[0]) for i, pair in enumerate(seen) if i % HELD_OUT_EVERY]
    features, y = (torch.cat([example[i][0].flatten(1) for example in examples], 1)[None, :, :, None] for i in (0, 1))
    optimizer = torch.optim.Adam(head.parameters(), lr=HEAD_LR)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, args.steps)

    first = features[:, :, :HEAD_BATCH], y[:, :, :HEAD_BATCH]
    precision = args.precision
    if precision == "auto":
        precision = faster_precision(lambda: bits_per_position(head, *first), y.device)
    row = []
    for step in tqdm(range(1, args.steps + 1), unit="step"):
        chosen = torch.randint(y.shape[2], (HEAD_BATCH,))
        with autocast(y.device, precision):
            loss = bits_per_position(head, features[:, :, chosen], y[:, :, chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        row.append(loss.item())
        if step % LOG_EVERY == 0 or step == args.steps:
            measured = np.mean([held_out_bits(codec, head, *pair) for pair in held_out])
            log_line(run / "log.csv", {"step": step, "bits": float(np.mean(row)), "held_out_bits": float(measured)})
            row = []
    tensors = {name: p.detach().half().contiguous() for name, p in head.named_parameters()}
    metadata |= {"components": args.mixture, "symbols": "round(y - m)", "held_out_bits": round(float(measured), 3)}
    save_tensors(tensors, run / "head.safetensors", metadata)


def y_and_hyper(codec: Cheng2020Anchor, x: Tensor) -> tuple[Tensor, Tensor]:
    """y (1, M, H/16, W/16) of a padded picture (1, 3, H, W), and what h_s makes of its rounded z (1, 2M, ...)."""
    y, z_hat = y_and_z_hat(codec, x)
    with torch.no_grad():
        return y, codec.h_s(z_hat)


@torch.no_grad()
def as_decoded(codec: Cheng2020Anchor, head: Head, y: Tensor, hyper: Tensor) -> tuple[Tensor, Tensor]:
    """The features (B, 4M, h, w) that a decoder has, and y_hat (B, M, h, w), in two passes over all positions at once.

    See ``loss.as_decoded``, which does this for the codec's own layers: a few symbols differ from the decoder's.
    """
    features = features_of(codec, hyper, torch.round(y))
    for _ in range(2):
        y_hat = coded(head, features, y)
        features = features_of(codec, hyper, y_hat)
    return features, y_hat


def bits_per_position(head: Head, features: Tensor, y: Tensor) -> Tensor:
    """Mean bits of all channels of y (B, M, h, w) at a position, as they are coded: round(y - m)."""
    return -likelihoods(head, features, coded(head, features, y)).log2().sum() / y[:, 0].numel()


@torch.no_grad()
def held_out_bits(codec: Cheng2020Anchor, head: Head, y: Tensor, hyper: Tensor) -> float:
    """The same for a whole y, with the context that this head leaves."""
    return float(bits_per_position(head, as_decoded(codec, head, y, hyper)[0], y))


def train_prior(args: argparse.Namespace) -> None:
    """Fit the prior variant ``args.head`` of chapter 10 to the frozen bundled codec, and leave ``head.safetensors`` and
    ``log.csv`` in the run folder."""
    run, codec, crops, metadata = start_head(args)
    with torch.no_grad():
        y_hats = [codec.g_a(x).round() for x in crops]
    seen = [y_hat for i, y_hat in enumerate(y_hats) if i % HELD_OUT_EVERY]
    tensors = fit(args.head, seen, y_hats[::HELD_OUT_EVERY], args.steps, args.seed, partial(log_line, run / "log.csv"))
    save_tensors(tensors, run / "head.safetensors", metadata | {"head": args.head})


def start_head(args: argparse.Namespace) -> tuple[Path, Cheng2020Anchor, list[Tensor], dict[str, object]]:
    """The run folder, the frozen bundled codec, the padded center crops of all photographs, and a head's metadata."""
    run = Path(args.run)
    if (run / "state.pt").exists() or (run / "head.safetensors").exists():
        raise ValueError(f"{run} holds another run: choose another folder with --run")
    photographs = read_photographs(args.images, HEAD_SIZE if args.head else HELD_OUT_SIZE)
    hashes = hashes_of(photographs)
    write_list(run / "photographs.csv", photographs, hashes)
    (run / "log.csv").unlink(missing_ok=True)
    crops = [pad(center_crop(p, HEAD_SIZE)) for _, p in photographs]
    metadata = {"quality": args.quality, "step": args.steps, "seed": args.seed, "photographs": list_digest(hashes)}
    return run, load_codec(args.quality, "bundled"), crops, metadata


# ---------------------------------------------------------------- the prior variants of chapter 10


def bits_of_counts(y_hats: list[Tensor]) -> Tensor:
    """Bits (M, 2 R + 1) of the integers -R to R in each channel, from maps y_hat (1, M, h, w) of many photographs.

    Each count starts at a hundredth, so that no symbol is impossible.
    """
    integers = torch.cat([y_hat[0].flatten(1) for y_hat in y_hats], 1).long()
    largest = int(integers.abs().max())
    counts = torch.stack([torch.bincount(row + largest, minlength=2 * largest + 1) for row in integers]) + 0.01
    return -(counts / counts.sum(1, keepdim=True)).log2().clamp(min=-RAREST)


def costs(head: Hyperprior, y_hat: Tensor) -> tuple[Tensor, Tensor]:
    """Bits of y and of z at each position of y; in training z is noisy for its own bits and rounded for h_s."""
    z = head.z(y_hat)
    if head.training:
        _, p = head.entropy_bottleneck(z)
        z_hat = z + (z.round() - z).detach()
    else:
        z_hat = head.z_hat(y_hat)
        p = bounded(factorized_likelihood(head.entropy_bottleneck, z_hat.transpose(0, 1).reshape(Z_CHANNELS, 1, -1)))
    positions = y_hat[:, 0].numel()
    return head.bits(y_hat, *head.gaussians_of(z_hat)).sum() / positions, -p.log2().sum() / positions


def fit(
    name: str, seen: list[Tensor], held_out: list[Tensor], steps: int, seed: int, log: Callable[[dict], None]
) -> dict[str, Tensor]:
    """The tensors of the prior variant ``name`` from maps y_hat (1, M, 32, 32); ``log`` takes a row every 50 steps."""
    if name == "histograms":
        return {"bits": bits_of_counts(seen).half()}
    torch.manual_seed(seed)
    head = Hyperprior(seen[0].shape[1], name == "means")
    maps = torch.cat(seen)
    head.centre.data = maps.mean((0, 2, 3), keepdim=True)
    head.spread.data = maps.std((0, 2, 3), keepdim=True).clamp(min=SMALLEST_SCALE)
    optimizer = torch.optim.Adam(head.parameters(), lr=PRIOR_LR)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
    for step in range(1, steps + 1):
        y_bits, z_bits = costs(head, maps[torch.randint(len(maps), (PRIOR_BATCH,))])
        # Were the bits of z not free at first, z would collapse before h_s has learnt to read it.
        loss = y_bits + min(1.0, step / (0.3 * steps)) * z_bits
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(head.parameters(), 10.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0 or step == steps:
            head.eval()
            with torch.no_grad():
                measured = np.mean([[float(cost) for cost in costs(head, y_hat)] for y_hat in held_out], axis=0)
            head.train()
            log({"step": step, "bits_y": y_bits.item(), "bits_z": z_bits.item(),
                 "held_out_bits_y": float(measured[0]), "held_out_bits_z": float(measured[1])})  # fmt: skip
    return {key: p.detach().half().contiguous() for key, p in head.named_parameters() if "quantiles" not in key}
