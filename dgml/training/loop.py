"""A run: one codec, trained step by step, whose state survives a kill."""

import argparse
import io
import time
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from tqdm import tqdm

from dgml.checkpoints import load_checkpoint, save_checkpoint
from dgml.files import atomic_write
from dgml.model import BUNDLED_WIDTHS, Cheng2020Anchor, Cheng2020Attention, DeepAnchor
from dgml.settings import LAMBDA
from dgml.training.arguments import LOG_EVERY
from dgml.training.data import (
    HELD_OUT_EVERY,
    Patches,
    central_square,
    hashes_of,
    list_digest,
    read_photographs,
    write_list,
)
from dgml.training.heads import train_mixture, train_prior
from dgml.training.log import log_line
from dgml.training.loss import Objective, held_out_losses
from dgml.training.optimizers import lambda_factor, make_optimizers, set_rates, z_weight
from dgml.training.start import plant, scale_hyperprior, scale_latents, wake_y, wake_z

HOLD_EVERY = 500
STATE = ("facts", "progress", "codec", "average", "optimizers")  # the parts of state.pt
TIMED = 40  # steps after which --minutes becomes a number of steps
SEEN_ASLEEP = 24  # patches that tell which channels are idle
AVERAGE = 0.999  # of the averaged weights, how much stays at each step


@dataclass
class Progress:
    """Where a run stands: what its log says and its next step needs."""

    step: int = 0
    steps: int = 0  # of the whole run; 0 while --minutes has not chosen it
    seconds: float = 0.0
    best: float = float("inf")
    skipped: int = 0


def train(args: argparse.Namespace) -> None:
    """Run, or resume, one training; the module's docstring says what it leaves behind."""
    accelerator = Accelerator(mixed_precision=args.precision)
    run = Path(args.run)
    photographs = read_photographs(args.images)
    hashes = hashes_of(photographs)
    main = accelerator.is_main_process
    seen = [p for i, (_, p) in enumerate(photographs) if i % HELD_OUT_EVERY]
    patches = Patches(seen, args.seed, args.patch, accelerator.device)
    held_out = [central_square(p).to(accelerator.device) for _, p in photographs[::HELD_OUT_EVERY]]

    codec = new_codec(args, patches).to(accelerator.device)
    average, optimizers = deepcopy(codec), make_optimizers(codec)
    rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
    facts = facts_of(args, codec, hashes)
    progress = resume(run, facts, codec, average, optimizers)
    progress.steps = args.steps or progress.steps
    if main:
        write_list(run / "photographs.csv", photographs, hashes)
    objective, *optimizers = accelerator.prepare(Objective(codec), *optimizers)

    rows, last = [], time.monotonic()
    bar = tqdm(total=progress.steps or None, initial=progress.step, unit="step", disable=not main)
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
                log_and_save(run, facts, codec, average, optimizers, progress, means, held_out)
            rows = []


def new_codec(args: argparse.Namespace, patches: "Patches") -> Cheng2020Anchor:
    """The codec that a run starts from: a checkpoint, or fresh, or fresh around a narrower one's transforms."""
    torch.manual_seed(args.seed)
    n, m = args.widths or BUNDLED_WIDTHS[args.quality]
    codec = Cheng2020Attention(n) if args.attention else DeepAnchor(n, m)
    # The mask does so at the first forward pass, but the averaged weights of most processes never see one.
    codec.context_prediction.weight.data *= codec.context_prediction.mask
    if args.init:
        load_checkpoint(codec, Path(args.init))
        if args.wake:
            x = patches.batch(0, SEEN_ASLEEP).cpu()
            print(f"{wake_y(codec, x)} of {m} channels of y and {wake_z(codec, x)} of {n} of z began anew")
        return codec
    x = patches.batch(0, 2 * args.batch).cpu()
    if args.plant:
        plant(codec, Path(args.plant), x)
        scale_hyperprior(codec, x)
    else:
        scale_latents(codec, x)
    return codec


def one_step(accelerator, objective, optimizers, x: torch.Tensor, args, progress: Progress) -> dict[str, float]:
    """One step of all optimizers on the batch ``x``; a gradient that is no number is skipped and counted."""
    # The noise depends on the step, not on the history, so a resumed run draws what it would have drawn.
    random = np.random.default_rng((args.seed, progress.step, accelerator.process_index, 1))
    torch.manual_seed(int(random.integers(2**63)))
    weight = 1.0 if args.init else z_weight(progress.step)
    lmbda = LAMBDA[args.quality] * lambda_factor(progress.step, args.anneal)
    with accelerator.autocast():
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


@torch.no_grad()
def move_average(average: Cheng2020Anchor, codec: Cheng2020Anchor, step: int) -> None:
    """Move the averaged weights a little towards the present ones, further in the first steps of a run."""
    stays = min(AVERAGE, (1 + step) / (10 + step))
    for slow, fast in zip(average.parameters(), codec.parameters()):
        slow.lerp_(fast, 1 - stays)


def choose_steps(progress: Progress, minutes: float) -> int:
    """How many steps fill the minutes: chosen once, by the main process for all, so that all see one schedule."""
    steps = [max(progress.step + 1, round(60 * minutes * progress.step / progress.seconds))]
    broadcast_object_list(steps)
    return steps[0]


# ---------------------------------------------------------------- state and log


def resume(run: Path, facts: dict[str, object], codec, average, optimizers) -> Progress:
    """Load the state in the run folder, if there is one; ValueError where it is of another run than ``facts`` say."""
    if (run / "head.safetensors").exists():
        raise ValueError(f"{run} holds a head: choose another folder with --run")
    if not (run / "state.pt").exists():
        return Progress()
    saved = read_state(run / "state.pt")
    for key, value in facts.items():
        if saved["facts"].get(key) != value:
            theirs, ours = (str(fact)[:16] or "none" for fact in (saved["facts"].get(key), value))
            raise ValueError(f"{run} holds a run with {key} {theirs}, not {ours}: choose another folder with --run")
    torch.nn.Module.load_state_dict(codec, saved["codec"])
    torch.nn.Module.load_state_dict(average, saved["average"])
    for optimizer, state in zip(optimizers, saved["optimizers"]):
        optimizer.load_state_dict(state)
    return Progress(**saved["progress"])


def read_state(path: Path) -> dict[str, object]:
    """What :func:`log_and_save` keeps for a resume; ValueError where a part is missing or unreadable."""
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        return {part: saved[part] for part in STATE}
    except Exception as error:  # torch has many, and long ones
        raise ValueError(f"{path} is damaged ({type(error).__name__}): choose another folder") from None


def log_and_save(run: Path, facts, codec, average, optimizers, progress: Progress, means, held_out) -> None:
    """Write a line of the log, having measured the averaged weights if it is time, and save the state.

    ``facts`` go into the header of the best checkpoint.
    """
    measured = {}
    if progress.step % HOLD_EVERY == 0 or progress.step == progress.steps:
        measured = held_out_losses(average, held_out, facts["lambda"])
        if measured["loss"] < progress.best:
            progress.best = measured["loss"]
            stands = {"step": progress.step, "minutes": round(progress.seconds / 60, 1)}
            save_checkpoint(
                average, run / "best.safetensors", facts | stands | {"held_out_loss": round(progress.best, 5)}
            )
    held_out_columns = {f"held_out_{key}": measured.get(key, "") for key in ("loss", "bpp", "bpp_z", "mse")}
    stands = {key: value for key, value in asdict(progress).items() if key != "steps"}
    log_line(run / "log.csv", stands | means | held_out_columns)
    state = io.BytesIO()
    torch.save({"facts": facts, "progress": asdict(progress), "codec": codec.state_dict(), "average": average.state_dict(),
                "optimizers": [optimizer.state_dict() for optimizer in optimizers]}, state)  # fmt: skip
    atomic_write(run / "state.pt", state.getvalue())


def facts_of(args: argparse.Namespace, codec: Cheng2020Anchor, hashes: list[str]) -> dict[str, object]:
    """What a checkpoint's header says of its training; of files only names, never where they lay."""
    return {
        "quality": args.quality, "architecture": type(codec).__name__, "lambda": LAMBDA[args.quality],
        "N": codec.N, "M": codec.M, "seed": args.seed, "photographs": list_digest(hashes),
        "init": "/".join(Path(args.init or args.plant or "").parts[-2:]),
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
