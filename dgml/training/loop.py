"""A run: one codec, trained step by step, whose state survives a kill."""

import argparse
import time
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from tqdm import tqdm

from dgml.checkpoints import load_checkpoint, save_checkpoint
from dgml.model import BUNDLED_WIDTHS, Cheng2020Anchor, Cheng2020Attention, DeepAnchor
from dgml.settings import LAMBDA
from dgml.training.arguments import LOG_EVERY
from dgml.training.data import (
    HELD_OUT_EVERY,
    Patches,
    center_crop,
    hashes_of,
    list_digest,
    read_photographs,
    write_list,
)
from dgml.training.heads import train_mixture, train_prior
from dgml.training.log import log_line
from dgml.training.loss import Objective, held_out_losses
from dgml.training.optimizers import lambda_factor, make_optimizers, set_rates, z_weight
from dgml.training.precision import autocast, faster_precision
from dgml.training.start import reinitialize_y, reinitialize_z, scale_hyperprior, scale_latents, warm_start
from dgml.training.state import Progress, resume, save_state, shape_of

T = TypeVar("T")
HOLD_EVERY = 500
TIMED = 40  # steps after which --minutes becomes a number of steps
DEAD_SEEN = 24  # patches that tell which channels are dead
AVERAGE = 0.999  # of the averaged weights, how much stays at each step


def train(args: argparse.Namespace) -> None:
    """Run, or resume, one training; ``dgml.training.arguments`` says what it leaves behind."""
    accelerator = Accelerator(mixed_precision="no")  # one_step casts
    run, main = Path(args.run), accelerator.is_main_process
    photographs = read_photographs(args.images)
    hashes = hashes_of(photographs)
    digest = list_digest(hashes)
    seen = [p for i, (_, p) in enumerate(photographs) if i % HELD_OUT_EVERY]
    patches = Patches(seen, args.seed, args.patch, accelerator.device)
    held_out = [center_crop(p).to(accelerator.device) for _, p in photographs[::HELD_OUT_EVERY]]

    codec = new_codec(args, patches).to(accelerator.device)
    average, optimizers = deepcopy(codec), make_optimizers(codec)
    rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
    shape = shape_of(args, [codec.N, codec.M], digest, accelerator.num_processes)
    metadata = metadata_of(args, codec, digest)
    progress = resume(run, shape, codec, average, optimizers)
    progress.steps = args.steps or progress.steps
    if main:
        write_list(run / "photographs.csv", photographs, hashes)
    objective = Objective(codec)
    progress.precision = progress.precision or choose_precision(args, objective, patches, main)
    objective, *optimizers = accelerator.prepare(objective, *optimizers)

    rows, last = [], time.monotonic()
    with tqdm(total=progress.steps or None, initial=progress.step, unit="step", disable=not main) as bar:
        while not progress.steps or progress.step < progress.steps:
            set_rates(optimizers, rates, args.lr_scale, args.decay, progress.step, progress.steps)
            x = patches.batch(progress.step, args.batch, accelerator.process_index)
            rows.append(one_step(accelerator, objective, optimizers, x, args, progress))
            move_average(average, codec, progress.step)
            now = time.monotonic()
            progress.step, progress.seconds, last = progress.step + 1, progress.seconds + now - last, now
            if not progress.steps and progress.step == TIMED:
                progress.steps = bar.total = choose_steps(progress, args.minutes)
            bar.update()
            if progress.step % LOG_EVERY == 0 or progress.step == progress.steps:
                means = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
                bar.set_postfix(loss=f"{means['loss']:.3f}", bpp=f"{means['bpp']:.3f}")
                if main:
                    log_and_keep(run, metadata, average, progress, means, held_out)
                    save_state(run, shape, progress, codec, average, optimizers)
                rows = []


def new_codec(args: argparse.Namespace, patches: Patches) -> Cheng2020Anchor:
    """The codec that a run starts from: a checkpoint, or fresh, or fresh around a narrower one's transforms."""
    torch.manual_seed(args.seed)
    n, m = args.widths or BUNDLED_WIDTHS[args.quality]
    codec = Cheng2020Attention(n) if args.attention else DeepAnchor(n, m)
    # The mask does so at the first forward pass, but the averaged weights of most processes never see one.
    codec.context_prediction.weight.data *= codec.context_prediction.mask
    if args.init:
        load_checkpoint(codec, Path(args.init))
        if args.reinitialize:
            x = patches.batch(0, DEAD_SEEN).cpu()
            dead_y, dead_z = reinitialize_y(codec, x), reinitialize_z(codec, x)
            print(f"reinitialized the dead channels: {dead_y} of {m} of y, {dead_z} of {n} of z")
        return codec
    x = patches.batch(0, 2 * args.batch).cpu()
    if args.warm_start:
        warm_start(codec, Path(args.warm_start), x)
        scale_hyperprior(codec, x)
    else:
        scale_latents(codec, x)
    return codec


def one_step(
    accelerator: Accelerator,
    objective: torch.nn.Module,
    optimizers: list[torch.optim.Optimizer],
    x: torch.Tensor,
    args: argparse.Namespace,
    progress: Progress,
) -> dict[str, float]:
    """One step of all optimizers on the batch ``x``; a gradient with NaN or Inf is skipped and counted."""
    # The noise depends on the step, not on the history, so a resumed run draws what it would have drawn.
    random = np.random.default_rng((args.seed, progress.step, accelerator.process_index, 1))
    torch.manual_seed(int(random.integers(2**63)))
    lmbda, weight = weights_of(args, progress.step)
    with autocast(x.device, progress.precision):
        loss, row = objective(x, lmbda, weight)
    for optimizer in optimizers:
        optimizer.zero_grad()
    accelerator.backward(loss)
    row["norm"] = accelerator.clip_grad_norm_(objective.parameters(), 1.0)
    if torch.isfinite(row["norm"]):
        for optimizer in optimizers:
            optimizer.step()
    else:
        progress.skipped += 1
    return {key: float(value.detach()) for key, value in row.items()}


def weights_of(args: argparse.Namespace, step: int) -> tuple[float, float]:
    """λ and how much the bits of z count at a step."""
    lmbda = LAMBDA[args.quality] * lambda_factor(step, args.anneal)
    return lmbda, 1.0 if args.init else z_weight(step)


@torch.no_grad()
def move_average(average: Cheng2020Anchor, codec: Cheng2020Anchor, step: int) -> None:
    """Move the averaged weights a little towards the present ones, further in the first steps of a run."""
    stays = min(AVERAGE, (1 + step) / (10 + step))
    for slow, fast in zip(average.parameters(), codec.parameters()):
        slow.lerp_(fast, 1 - stays)


def choose_steps(progress: Progress, minutes: float) -> int:
    """How many steps fill the minutes: chosen once, by the main process for all, so that all see one schedule."""
    return of_main(max(progress.step + 1, round(60 * minutes * progress.step / progress.seconds)))


def choose_precision(args: argparse.Namespace, objective: Objective, patches: Patches, main: bool) -> str:
    """What ``--precision`` says; for "auto" what is faster on the first batch, timed by the main process for all."""
    if args.precision != "auto":
        return args.precision
    x, weights = patches.batch(0, args.batch), weights_of(args, 0)
    faster = faster_precision(lambda: objective(x, *weights)[0], x.device) if main else ""
    objective.zero_grad()
    return of_main(faster)


def of_main(value: T) -> T:
    """What the main process has there, in all processes."""
    values = [value]
    broadcast_object_list(values)
    return values[0]


# ---------------------------------------------------------------- log and checkpoint


def log_and_keep(
    run: Path,
    metadata: dict[str, Any],
    average: Cheng2020Anchor,
    progress: Progress,
    means: dict[str, float],
    held_out: list[torch.Tensor],
) -> None:
    """Write a line of the log and, where the averaged weights were measured and are the best so far, a checkpoint."""
    measured = {}
    if progress.step % HOLD_EVERY == 0 or progress.step == progress.steps:
        measured = held_out_losses(average, held_out, metadata["lambda"])
        if measured["loss"] < progress.best:
            progress.best = measured["loss"]
            now = {"step": progress.step, "minutes": round(progress.seconds / 60, 1),
                   "held_out_loss": round(progress.best, 5)}  # fmt: skip
            save_checkpoint(average, run / "best.safetensors", metadata | now)
    held_out_columns = {f"held_out_{key}": measured.get(key, "") for key in ("loss", "bpp", "bpp_z", "mse")}
    now = {key: value for key, value in asdict(progress).items() if key not in ("steps", "precision")}
    log_line(run / "log.csv", now | means | held_out_columns)


def metadata_of(args: argparse.Namespace, codec: Cheng2020Anchor, photographs: str) -> dict[str, Any]:
    """What a checkpoint's header says of its training; of files only names, never where they lay."""
    return {
        "quality": args.quality, "architecture": type(codec).__name__, "lambda": LAMBDA[args.quality],
        "N": codec.N, "M": codec.M, "seed": args.seed, "photographs": photographs,
        "init": "/".join(Path(args.init or args.warm_start or "").parts[-2:]),
    }  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """``python -m dgml train``: train what the arguments ask for; the exit status."""
    try:
        if args.mixture:
            train_mixture(args)
        elif args.head:
            train_prior(args)
        else:
            train(args)
    except KeyboardInterrupt:
        begun = (Path(args.run) / "state.pt").exists()
        way = "the same command goes on from the last state" if begun else "there is no state yet"
        raise ValueError(f"stopped; {way}") from None
    return 0
