"""Train a codec on a folder of photographs.

    python train.py --quality 3 --images PHOTOGRAPHS --minutes 60 --run runs/q3

The same command, given again, goes on where the last one stopped.
On several processors, machines or graphics cards: ``accelerate launch train.py ...``.

The run folder holds ``log.csv`` (a line every 50 steps), ``photographs.csv`` (what was trained on), ``state.pt``
(everything that an exact resume needs) and ``best.safetensors``: the averaged weights with the lowest held-out loss so
far, in half precision, which is what ``checkpoints/`` ships.
"""

import argparse
import csv
import hashlib
import io
import math
import time
from copy import deepcopy
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from compressai.ops import quantize_ste
from pytorch_optimizer import SOAP
from safetensors.torch import save
from torch.nn.functional import mse_loss
from tqdm import tqdm

from bitstream import make_z_frequencies
from commandline import reason
from helpers import (
    BUNDLED_WIDTHS,
    CONTEXT,
    CONTEXT_UNIT,
    LAMBDA,
    QUALITIES,
    Z_TABLE,
    Cheng2020Anchor,
    Cheng2020Attention,
    DeepAnchor,
    load_checkpoint,
    load_codec,
    load_images,
    pad,
    rgb_pictures,
    write_whole,
    z_medians,
)
from mixtures import COMPONENTS, latents, likelihoods, new_head
from priors import HEADS, fit
from starts import plant, scale_hyperprior, scale_latents, wake_y, wake_z

PATCH, BATCH = 256, 2  # a side of z is a 64th: in patches of 128 pixels no position of z has all its neighbours
HELD_OUT_EVERY = 16  # one photograph in sixteen is never trained on
HELD_OUT_SIZE = 256  # held-out loss: the central square of each
LOG_EVERY, HOLD_EVERY = 50, 500
STATE = ("facts", "progress", "codec", "average", "optimizers")  # the parts of state.pt
WARM_UP = 100  # steps of rising rate
TIMED = 40  # steps after which --minutes becomes a number of steps
Z_FREE, Z_FULL = 1000, 3000  # until the first step the bits of z count nothing, from the second on fully
ANNEAL = 16  # times λ at the start of a run with --anneal
SEEN_ASLEEP = 24  # patches that tell which channels are idle
AVERAGE = 0.999  # of the averaged weights, how much stays at each step
SOAP_LR, ADAM_LR = 3e-3, 1e-3
HEAD_SIZE, HEAD_BATCH = 512, 4096  # a head's training: the central square of each photograph, positions of y in a step
HEAD_LR = 2e-4  # at ADAM_LR a head of M = 128 forgets in 50 steps what the codec's own layers knew


# ---------------------------------------------------------------- a run


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
        set_rates(optimizers, rates, args, progress)
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


def set_rates(optimizers, rates, args: argparse.Namespace, progress: Progress) -> None:
    """The learning rates of this step; the quantiles of z, with the last optimizer, keep theirs."""
    factor = args.rate * rate_factor(progress.step, progress.steps, args.decay)
    for optimizer, own in zip(optimizers[:-1], rates):
        for group, rate in zip(optimizer.param_groups, own):
            group["lr"] = rate * factor


def rate_factor(step: int, steps: int, decay: float = 0.5) -> float:
    """Multiplier of the learning rates: a short warm-up, a plateau, a line to zero over the last share ``decay``."""
    falling = (steps - step) / (decay * steps) if decay * steps else 1.0
    return min(1.0, (step + 1) / WARM_UP, falling)


def lambda_factor(step: int, steps: int | None) -> float:
    """Multiplier of λ, which falls from ANNEAL to 1 in ``steps`` steps: where bits count less, new channels of y find
    their use before the rate silences them."""
    return ANNEAL ** max(0.0, 1 - step / steps) if steps else 1.0


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
    write_whole(run / "state.pt", state.getvalue())


def facts_of(args: argparse.Namespace, codec: Cheng2020Anchor, hashes: list[str]) -> dict[str, object]:
    """What a checkpoint's header says of its training; of files only names, never where they lay."""
    return {
        "quality": args.quality, "architecture": type(codec).__name__, "lambda": LAMBDA[args.quality],
        "N": codec.N, "M": codec.M, "seed": args.seed, "photographs": list_digest(hashes),
        "init": "/".join(Path(args.init or args.plant or "").parts[-2:]),
    }  # fmt: skip


# ---------------------------------------------------------------- what a step learns from


class Patches:
    """Random square crops of photographs (H, W, 3), flipped and transposed at random.

    The batch of a step depends on ``seed``, the step and the process alone, so a resumed run sees what it would have
    seen.  All pixels lie on ``device`` in one tensor.
    """

    def __init__(self, photographs: list[np.ndarray], seed: int, size: int = PATCH, device="cpu"):
        self.seed, self.size = seed, size
        self.sides = [p.shape[:2] for p in photographs]
        self.starts = np.cumsum([0, *(height * width for height, width in self.sides)])
        self.pixels = torch.cat([torch.tensor(p.reshape(-1, 3)) for p in photographs]).to(device)

    def batch(self, step: int, count: int = BATCH, process: int = 0) -> torch.Tensor:
        """``count`` patches (count, 3, size, size) in [0, 1]."""
        random = np.random.default_rng((self.seed, step, process))
        return torch.stack([self.patch(random) for _ in range(count)])

    def patch(self, random: np.random.Generator) -> torch.Tensor:
        i = random.integers(len(self.sides))
        height, width = self.sides[i]
        photograph = self.pixels[self.starts[i] : self.starts[i + 1]].view(height, width, 3)
        top, left = random.integers(height - self.size + 1), random.integers(width - self.size + 1)
        patch = photograph[top : top + self.size, left : left + self.size].permute(2, 0, 1)
        if random.integers(2):
            patch = patch.transpose(1, 2)
        if random.integers(2):
            patch = patch.flip(2)
        return patch.float() / 255


# ---------------------------------------------------------------- the loss


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
    z = codec.h_a(y)
    with torch.autocast(x.device.type, enabled=False):
        y, z = y.float(), z.float()
        _, z_likelihoods = codec.entropy_bottleneck(z)
        medians = z_medians(codec)
        z_hat = quantize_ste(z - medians) + medians
    hyper = codec.h_s(z_hat)
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
        row = weigh(x_hat.float(), x, {"y": y_likelihoods, "z": z_likelihoods}, lmbda, z_weight)
        if settled:
            # Noise hides how often a symbol is not zero where the scale is small: 1 in 100, where the Gaussian says 1
            # in 100,000.
            coded = gaussian.likelihood_lower_bound(gaussian._likelihood(torch.round(y - means).detach(), scales))
            row["loss"] = row["loss"] - coded.log2().sum() / x[:, 0].numel()
        return row


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


class Objective(torch.nn.Module):
    """The training loss as a module: gradients of several processes are joined only where its forward makes them."""

    def __init__(self, codec: Cheng2020Anchor):
        super().__init__()
        self.codec = codec
        # In channels-last order torch 2.14 corrupts the heap in this one layer: 1x1, stride 2, of three channels, in
        # bfloat16 on a processor.
        codec.g_a[0].skip.register_forward_pre_hook(lambda layer, inputs: inputs[0].contiguous())

    def forward(self, x: torch.Tensor, lmbda: float, z_weight: float) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        # Convolutions in bfloat16 are half as fast again in this order.
        row = losses(self.codec, x.contiguous(memory_format=torch.channels_last), lmbda, z_weight)
        return row["loss"] + self.codec.entropy_bottleneck.loss(), row


def weigh(x_hat, x, likelihoods, lmbda: float, z_weight: float = 1.0) -> dict[str, torch.Tensor]:
    """The terms of the training loss, as :func:`losses` returns them, from a reconstruction and its likelihoods."""
    n_pixels = x.shape[0] * x.shape[2] * x.shape[3]
    bpp_y, bpp_z = (-likelihoods[name].log2().sum() / n_pixels for name in "yz")
    mse = mse_loss(x_hat, x)
    loss = lmbda * 255**2 * mse + bpp_y + z_weight * bpp_z
    return {"loss": loss, "bpp": bpp_y + bpp_z, "bpp_z": bpp_z, "mse": mse}


@torch.no_grad()
def held_out_losses(codec: Cheng2020Anchor, pictures: list[torch.Tensor], lmbda: float) -> dict[str, float]:
    """Mean loss of single pictures (1, 3, H, W) by the codec's own forward pass, rounded, in float32."""
    codec.eval()
    rows = []
    for x in pictures:
        out = codec(x)
        rows.append(weigh(out["x_hat"].clamp(0, 1), x, out["likelihoods"], lmbda))
    codec.train()
    return {key: float(np.mean([float(row[key]) for row in rows])) for key in rows[0]}


# ---------------------------------------------------------------- the optimizers


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


def z_weight(step: int) -> float:
    """How much the bits of z count.

    When they count from the start, z may fall silent before h_s has learnt to use it (posterior collapse; Bowman et
    al., CoNLL 2016, let its price rise slowly).  Here that alone did not keep z alive: results/silent_z.json.
    """
    return min(1.0, max(0.0, (step - Z_FREE) / (Z_FULL - Z_FREE)))


# ---------------------------------------------------------------- a head on a frozen codec


def train_head(args: argparse.Namespace) -> None:
    """Train a head of ``args.mixture`` Gaussians on the latents of the frozen bundled codec, and leave
    ``head.safetensors`` and ``log.csv`` in the run folder.

    The loss is the bits of the symbols as they are, without noise: nothing before them has to learn.
    """
    run, codec, squares, facts = start_head(args)
    seen = [latents(codec, x) for x in tqdm(squares, unit="photograph")]
    held_out = seen[::HELD_OUT_EVERY]
    # Every position of every photograph is one example: channels first, positions along the height, as 1x1 layers see
    # no neighbours.
    features, y_hat = (
        torch.cat([pair[i][0].flatten(1) for j, pair in enumerate(seen) if j % HELD_OUT_EVERY], 1)[None, :, :, None]
        for i in (0, 1)
    )
    torch.manual_seed(args.seed)
    head = new_head(codec, args.mixture)
    optimizer = torch.optim.Adam(head.parameters(), lr=HEAD_LR)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, args.steps)

    def bits_per_position(batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return -likelihoods(head, *batch).log2().sum() / batch[1][:, 0].numel()

    row = []
    for step in tqdm(range(1, args.steps + 1), unit="step"):
        chosen = torch.randint(y_hat.shape[2], (HEAD_BATCH,))
        with torch.autocast("cpu", torch.bfloat16, enabled=args.precision == "bf16"):
            loss = bits_per_position((features[:, :, chosen], y_hat[:, :, chosen]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        row.append(loss.item())
        if step % LOG_EVERY == 0 or step == args.steps:
            with torch.no_grad():
                measured = np.mean([float(bits_per_position(pair)) for pair in held_out])
            log_line(run / "log.csv", {"step": step, "bits": float(np.mean(row)), "held_out_bits": float(measured)})
            row = []
    tensors = {name: p.detach().half().contiguous() for name, p in head.named_parameters()}
    facts |= {"components": args.mixture, "held_out_bits": round(float(measured), 3)}
    save_tensors(tensors, run / "head.safetensors", facts)


def train_prior(args: argparse.Namespace) -> None:
    """Make the rung ``args.head`` of chapter 10 for the frozen bundled codec: ``head.safetensors`` and ``log.csv``."""
    run, codec, squares, facts = start_head(args)
    with torch.no_grad():
        y_hats = [codec.g_a(x).round() for x in squares]
    seen = [y_hat for i, y_hat in enumerate(y_hats) if i % HELD_OUT_EVERY]
    tensors = fit(args.head, seen, y_hats[::HELD_OUT_EVERY], args.steps, args.seed, partial(log_line, run / "log.csv"))
    save_tensors(tensors, run / "head.safetensors", facts | {"head": args.head})


def start_head(args: argparse.Namespace) -> tuple[Path, Cheng2020Anchor, list[torch.Tensor], dict[str, object]]:
    """The run folder, the frozen bundled codec, the padded squares of all photographs, and a head's facts."""
    run = Path(args.run)
    if (run / "state.pt").exists() or (run / "head.safetensors").exists():
        raise ValueError(f"{run} holds another run: choose another folder with --run")
    photographs = read_photographs(args.images, HEAD_SIZE if args.head else HELD_OUT_SIZE)
    hashes = hashes_of(photographs)
    write_list(run / "photographs.csv", photographs, hashes)
    (run / "log.csv").unlink(missing_ok=True)
    squares = [pad(central_square(p, HEAD_SIZE)) for _, p in photographs]
    facts = {"quality": args.quality, "step": args.steps, "seed": args.seed, "photographs": list_digest(hashes)}
    return run, load_codec(args.quality, "bundled"), squares, facts


# ---------------------------------------------------------------- photographs, checkpoints, logs


def read_photographs(source: str, smallest: int = HELD_OUT_SIZE) -> list[tuple[str, np.ndarray]]:
    """Names and pixels (H, W, 3) of a folder or a data set, without those with a side under ``smallest``, which are
    named.

    Raises ValueError where fewer than two are left: one is held out.
    """
    photographs = [(name, np.asarray(picture)) for name, picture in rgb_pictures(load_images(source, math.inf))]
    small = [name for name, photograph in photographs if min(photograph.shape[:2]) < smallest]
    if small:
        print(f"left out, for want of {smallest} pixels a side: {', '.join(small)}")
    photographs = [(name, photograph) for name, photograph in photographs if name not in set(small)]
    if len(photographs) < 2:
        raise ValueError(
            f"{source} holds {len(photographs)} photographs that are large enough: at least two are needed"
        )
    return photographs


def hashes_of(photographs: list[tuple[str, np.ndarray]]) -> list[str]:
    """The SHA-256 of the pixels of each."""
    return [hashlib.sha256(photograph.tobytes()).hexdigest() for _, photograph in photographs]


def write_list(path: Path, photographs: list[tuple[str, np.ndarray]], hashes: list[str]) -> None:
    """List the photographs, of a folder that may not be there yet, with the SHA-256 of their pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    used = ("training" if i % HELD_OUT_EVERY else "held out" for i in range(len(photographs)))
    rows = [("name", "sha256", "used"), *zip((name for name, _ in photographs), hashes, used)]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_whole(path, text.getvalue().encode())


def list_digest(hashes: list[str]) -> str:
    """One SHA-256 for a list of photographs, whatever their order."""
    return hashlib.sha256("\n".join(sorted(hashes)).encode()).hexdigest()


def central_square(photograph: np.ndarray, size: int = HELD_OUT_SIZE) -> torch.Tensor:
    """The middle ``size`` pixels a side, or what there is, as (1, 3, H, W) in [0, 1]."""
    top, left = (max(0, side // 2 - size // 2) for side in photograph.shape[:2])
    square = photograph[top : top + size, left : left + size]
    return torch.from_numpy(square.copy()).permute(2, 0, 1)[None].float() / 255


def save_checkpoint(codec: Cheng2020Anchor, path: Path, facts: dict[str, object]) -> None:
    """Write the codec's parameters in half precision and its table of z, with ``facts`` in the file's header.

    The context's kernel, the largest of all, becomes integers of 8 bits, in a power of two for each output.

    The buffers are left out: masks and bounds are constant, CompressAI's tables are rebuilt by ``codec.update()``.
    """
    tensors = {name: p.detach().half().contiguous() for name, p in codec.named_parameters()}
    taps = codec.context_prediction.weight.detach().flatten(2)[:, :, :12]  # the mask zeroes the other thirteen
    unit = 2.0 ** (taps.abs().amax((1, 2), keepdim=True).clamp(min=2.0**-10) / 127).log2().ceil()
    tensors[CONTEXT], tensors[CONTEXT_UNIT] = (taps / unit).round().to(torch.int8), unit.half()
    # A codec that started from a checkpoint carries that one's table.
    tensors[Z_TABLE] = torch.from_numpy(make_z_frequencies(deepcopy(codec).cpu().half().float()))
    save_tensors(tensors, path, facts)


def save_tensors(tensors: dict[str, torch.Tensor], path: Path, facts: dict[str, object]) -> None:
    """A safetensors file, written whole, with ``facts`` in its header."""
    # Into memory first: the libraries' own answer to a full disk is a traceback.
    write_whole(path, save(tensors, {key: str(value) for key, value in facts.items()}))


def log_line(path: Path, row: dict[str, object]) -> None:
    """Add a line to a CSV file, in place of those of this step and later ones, which a killed run may have left."""
    lines = []
    if path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            lines = [line for line in csv.DictReader(file) if int(line["step"]) < row["step"]]
    lines.append({key: round(value, 5) if isinstance(value, float) else value for key, value in row.items()})
    text = io.StringIO()
    writer = csv.DictWriter(text, row, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    write_whole(path, text.getvalue().encode())


# ---------------------------------------------------------------- command line


def positive(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"more than zero, not {text}")
    return number


def count(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"at least 1, not {text}")
    return int(text)


def natural(text: str) -> int:
    if int(text) < 0:
        raise argparse.ArgumentTypeError(f"at least 0, not {text}")
    return int(text)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--quality", type=int, required=True, choices=QUALITIES)
    add("--images", required=True, help="folder of photographs, or the name of a data set")
    add("--run", required=True, help="folder for the log, the state and the best checkpoint")
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument(
        "--minutes", type=positive, help="length of the run in minutes, by the speed of its first steps"
    )
    length.add_argument("--steps", type=count, help="length of the run in steps")
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--init", help="checkpoint to start from, of a neighbouring quality")
    start.add_argument("--plant", help="checkpoint of a narrower y, whose pictures are the start")
    add("--wake", action="store_true", help="begin anew with those channels of y and z that --init leaves idle")
    add("--rate", type=positive, default=1.0, help="share of the full learning rates; less for a good start")
    add("--decay", type=float, default=0.5, help="share of the run in which the rates fall to zero; 0 keeps them")
    add("--anneal", type=count, help="steps in which λ comes down from 16 times its value")
    add("--widths", type=count, nargs=2, metavar=("N", "M"), help="if not those of the bundled checkpoint")
    add("--batch", type=count, default=BATCH)
    add("--patch", type=count, default=PATCH, help="side of the square patches in pixels, a multiple of 64")
    add("--attention", action="store_true", help="with the attention blocks of the paper; N and M are equal then")
    head = parser.add_mutually_exclusive_group()
    head.add_argument("--mixture", type=int, choices=COMPONENTS, metavar="K",
                      help="no codec, but a head of K Gaussians on the latents of the bundled one (chapter 14)")  # fmt: skip
    head.add_argument("--head", choices=HEADS, help="no codec, but a rung of chapter 10 for y of the bundled one")
    add("--seed", type=natural, default=0)
    add("--precision", default="no", choices=("no", "bf16"), help="mixed precision")
    args = parser.parse_args(arguments)
    check(args, parser)
    return args


def check(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """What argparse can't say of how the arguments go together; it ends with exit status 2."""
    if (args.mixture or args.head) and (not args.steps or args.steps < LOG_EVERY):
        parser.error(f"{'--mixture' if args.mixture else '--head'} goes with --steps, at least {LOG_EVERY}")
    codecs_own = ["init", "plant", "wake", "rate", "decay", "anneal", "widths", "batch", "patch", "attention"]
    codecs_own += ["precision"] if args.head else []
    given = [name for name in codecs_own if getattr(args, name) != parser.get_default(name)]
    if (args.mixture or args.head) and given:
        parser.error(f"--{given[0]} is for a codec, and a head is trained on the bundled one")
    if args.wake and (args.attention or not args.init):
        parser.error("--wake goes with --init, and not with --attention")
    if args.patch % 64 or args.patch > HELD_OUT_SIZE:
        parser.error(f"--patch is a multiple of 64 up to {HELD_OUT_SIZE}, not {args.patch}")
    if args.rate > 10:
        parser.error(f"--rate is a share of the full rates, at most ten times those, not {args.rate:g}")
    if not 0 <= args.decay <= 1:
        parser.error(f"--decay is a share between 0 and 1, not {args.decay}")
    if args.attention and args.widths and args.widths[0] != args.widths[1]:
        parser.error("--attention needs --widths with N = M")


def main() -> None:
    args = parse()
    try:
        train_head(args) if args.mixture else train_prior(args) if args.head else train(args)
    except (ValueError, OSError) as error:
        raise SystemExit(f"train.py: {reason(error)}") from None
    except KeyboardInterrupt:
        begun = (Path(args.run) / "state.pt").exists()
        way = "the same command goes on from the last state" if begun else "there is no state yet"
        raise SystemExit(f"train.py: stopped; {way}") from None


if __name__ == "__main__":
    main()
