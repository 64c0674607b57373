"""Train a small Cheng2020Anchor codec on a folder of photographs.

    python train.py --quality 3 --images PHOTOGRAPHS --minutes 60 --run runs/q3

The same command, given again, goes on where the last one stopped.
On several processors or machines: ``accelerate launch train.py ...``.

The run folder holds ``log.csv`` (one line every 50 steps), ``photographs.csv`` (what was trained on), ``state.pt`` (everything that an exact resume needs) and ``best.safetensors`` (the weights with the lowest held-out loss so far, in half precision: what ``checkpoints/`` ships).
"""

import argparse
import csv
import hashlib
import time
from copy import deepcopy
from functools import partial
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from compressai.ops import quantize_ste
from safetensors.torch import save_file
from timm.optim import Muon, muon
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader, Dataset, Subset
from tqdm import tqdm

from bitstream import make_z_frequencies
from helpers import (
    BUNDLED_WIDTHS,
    CONTEXT,
    LAMBDA,
    QUALITIES,
    Z_TABLE,
    Cheng2020Anchor,
    Cheng2020Attention,
    load_checkpoint,
    load_codec,
    load_images,
    pad,
    to_rgb,
    written_whole,
)
from mixtures import COMPONENTS, latents, likelihoods, new_head

PATCH, BATCH = 128, 8
HELD_OUT_EVERY = 16  # one photograph in sixteen is never trained on
HELD_OUT_SIZE = 256  # held-out loss: the central square of each
LOG_EVERY, HOLD_EVERY = 50, 500
WARM_UP, DECAY = 100, 0.5  # steps of rising rate; share of the run in which it falls to zero
Z_FREE, Z_FULL = 1000, 3000  # until the first step the bits of z count nothing, from the second on fully
MUON = {"lr": 0.01, "weight_decay": 0.05, "momentum": 0.95, "nesterov": True, "adjust_lr_fn": "original"}
ADAM_LR = 1e-3
HEAD_SIZE, HEAD_BATCH = 512, 4096  # a head's training: the central square of each photograph, positions of y in a step

# timm orthogonalizes in bfloat16, which a processor without AVX-512 emulates, forty times slower than float32.
muon.zeropower_via_newtonschulz = partial(muon.zeropower_via_newtonschulz, dtype=torch.float32)


class Patches(Dataset):
    """Random 128x128 crops, flipped and transposed at random.

    Item ``i`` depends on ``seed`` and ``i`` alone, so a resumed run sees the patches that it would have seen.
    """

    def __init__(self, photographs: list[np.ndarray], seed: int, length: int):
        self.photographs, self.seed, self.length = photographs, seed, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, i: int) -> torch.Tensor:
        random = np.random.default_rng((self.seed, i))
        photograph = self.photographs[random.integers(len(self.photographs))]
        top, left = (random.integers(side - PATCH + 1) for side in photograph.shape[:2])
        patch = photograph[top : top + PATCH, left : left + PATCH]
        if random.integers(2):
            patch = patch.transpose(1, 0, 2)
        if random.integers(2):
            patch = patch[:, ::-1]
        return torch.from_numpy(np.ascontiguousarray(patch.transpose(2, 0, 1))).float() / 255


def losses(codec: Cheng2020Anchor, x: torch.Tensor, lmbda: float, z_weight: float = 1.0) -> dict[str, torch.Tensor]:
    """Rate and distortion of a training batch ``x`` (B, 3, H, W) in [0, 1].

    Returns ``bpp`` (bits per pixel of y and z), ``bpp_z`` (of z alone), ``mse`` and ``loss`` = lmbda * 255**2 * mse + bpp (Minnen et al., NeurIPS 2018, eq. 1), in which the bits of z count ``z_weight`` times.
    The rate is that of latents with uniform noise, a differentiable stand-in for rounding (Balle et al., ICLR 2017); h_s and g_s see rounded latents, whose gradient is passed straight through.
    Once z counts fully, the context is what a decoder will have, and the scales learn from the symbols that are really coded.
    """
    gaussian, settled = codec.gaussian_conditional, z_weight == 1
    y = codec.g_a(x)
    z = codec.h_a(y)
    with torch.autocast(x.device.type, enabled=False):
        y, z = y.float(), z.float()
        _, z_likelihoods = codec.entropy_bottleneck(z)
        medians = codec.entropy_bottleneck._get_medians().reshape(1, -1, 1, 1)
        z_hat = quantize_ste(z - medians) + medians
    hyper = codec.h_s(z_hat)
    seen = y + (as_decoded(codec, y, hyper) - y).detach() if settled else gaussian.quantize(y, "noise")
    scales, means = (
        codec.entropy_parameters(torch.cat((hyper, codec.context_prediction(seen)), dim=1)).float().chunk(2, 1)
    )
    with torch.autocast(x.device.type, enabled=False):
        _, y_likelihoods = gaussian(y, scales.detach() if settled else scales, means)
        # Half of the batch is rounded as forward() does it, half as compress() does: g_s must serve both.
        offset = means.detach() * (torch.arange(len(y), device=y.device) % 2).reshape(-1, 1, 1, 1)
        y_hat = quantize_ste(y - offset) + offset
    x_hat = codec.g_s(y_hat)
    with torch.autocast(x.device.type, enabled=False):
        row = weigh(x_hat.float(), x, {"y": y_likelihoods, "z": z_likelihoods}, lmbda, z_weight)
        if settled:
            # Noise hides how often a symbol is not zero where the scale is small: 1 in 100, where the Gaussian says 1 in 100,000.
            coded = gaussian.likelihood_lower_bound(gaussian._likelihood(torch.round(y - means).detach(), scales))
            row["loss"] = row["loss"] - coded.log2().sum() / x[:, 0].numel()
        return row


@torch.no_grad()
def as_decoded(codec: Cheng2020Anchor, y: torch.Tensor, hyper: torch.Tensor) -> torch.Tensor:
    """y (B, M, H, W) as the context model will see it, round(y - mean) + mean, without a gradient.

    The means depend on the result, which a decoder therefore finds position by position.
    Two passes over all positions at once differ from it in about every twelfth symbol, but are as far from y, and that is what counts.
    """
    y_hat = torch.round(y)
    for _ in range(2):
        parameters = codec.entropy_parameters(torch.cat((hyper, codec.context_prediction(y_hat)), dim=1))
        means = parameters.float().chunk(2, 1)[1]
        y_hat = torch.round(y - means) + means
    return y_hat


class Objective(torch.nn.Module):
    """The training loss as a module: gradients of several processes are joined only when its forward pass makes them."""

    def __init__(self, codec: Cheng2020Anchor, lmbda: float):
        super().__init__()
        self.codec, self.lmbda = codec, lmbda

    def forward(self, x: torch.Tensor, z_weight: float) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        row = losses(self.codec, x, self.lmbda, z_weight)
        return row["loss"] + self.codec.entropy_bottleneck.loss(), row


def weigh(x_hat, x, likelihoods, lmbda: float, z_weight: float = 1.0) -> dict[str, torch.Tensor]:
    """The terms of the training loss, as :func:`losses` returns them, from a reconstruction and its likelihoods."""
    n_pixels = x.shape[0] * x.shape[2] * x.shape[3]
    bpp_y, bpp_z = (-likelihoods[name].log2().sum() / n_pixels for name in "yz")
    mse = mse_loss(x_hat, x)
    loss = lmbda * 255**2 * mse + bpp_y + z_weight * bpp_z
    return {"loss": loss, "bpp": bpp_y + bpp_z, "bpp_z": bpp_z, "mse": mse}


@torch.no_grad()
def scale_latents(codec: Cheng2020Anchor, x: torch.Tensor, y_std: float = 5.0, z_std: float = 2.0) -> None:
    """Rescale a fresh codec so that y and z start with a spread that rounding cannot erase.

    The last layer of each analysis transform is multiplied, the first layers that read its latent are divided, and the predicted scales start at ``y_std``.
    Attention blocks before and behind y are passed over: they add to what they read, so its spread survives them.
    """
    last = [layer for layer in codec.g_a if hasattr(layer, "weight")][-1]
    first = next(layer for layer in codec.g_s if hasattr(layer, "conv1"))

    def rescale(writer, readers, factor):
        writer.weight *= factor
        writer.bias *= factor
        for reader in readers:
            reader.weight /= factor

    y_factor = y_std / codec.g_a(x).std()
    rescale(last, (first.conv1, codec.h_a[0], codec.context_prediction), y_factor)
    z_factor = z_std / codec.h_a(codec.g_a(x)).std()
    rescale(codec.h_a[-1], (codec.h_s[0],), z_factor)
    codec.entropy_parameters[-1].bias[: codec.M] += y_std


def make_optimizers(codec: Cheng2020Anchor) -> list[torch.optim.Optimizer]:
    """Muon for the convolution kernels, Adam for the rest, and a third for the quantiles of z.

    The first and the last layer stay with Adam: their rows and columns are colours, not features.
    """
    ends = {codec.g_a[0].conv1.weight, codec.g_a[0].skip.weight, codec.g_s[-1][0].weight}
    quantiles = codec.entropy_bottleneck.quantiles
    kernels = [p for p in codec.parameters() if p.ndim == 4 and p not in ends]
    taken = {*kernels, quantiles}
    rest = [p for p in codec.parameters() if p not in taken]
    # The mask zeroes the weights of taps that lie in the future, but not their gradients, which would share in the orthogonalization.
    context = codec.context_prediction
    context.weight.register_hook(lambda gradient: gradient * context.mask)
    return [Muon(kernels, **MUON), torch.optim.Adam(rest, lr=ADAM_LR), torch.optim.Adam([quantiles], lr=ADAM_LR)]


def z_weight(step: int) -> float:
    """How much the bits of z count.

    When they count from the start, z falls silent before h_s has learnt to use it, and stays so (posterior collapse; Bowman et al., CoNLL 2016, found the remedy).
    """
    return min(1.0, max(0.0, (step - Z_FREE) / (Z_FULL - Z_FREE)))


def rate_factor(progress: float, step: int) -> float:
    """Multiplier of the learning rates: a short warm-up, a plateau, then a straight line to zero."""
    return min(1.0, (step + 1) / WARM_UP, (1 - progress) / DECAY)


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


def train(args: argparse.Namespace) -> None:
    """Run, or resume, one training; the module's docstring says what it leaves behind."""
    accelerator = Accelerator(mixed_precision=args.precision)
    lmbda, n = LAMBDA[args.quality], args.channels or BUNDLED_WIDTHS[args.quality][0]
    architecture = Cheng2020Attention if args.attention else Cheng2020Anchor
    kind = [args.quality, architecture.__name__, n]
    run = Path(args.run)
    run.mkdir(parents=True, exist_ok=True)
    photographs = read_photographs(args.images)
    hashes = write_list(run / "photographs.csv", photographs)
    pictures = [central_square(p).to(accelerator.device) for _, p in photographs[::HELD_OUT_EVERY]]
    patches = Patches([p for i, (_, p) in enumerate(photographs) if i % HELD_OUT_EVERY], args.seed, length=10**9)

    torch.manual_seed(args.seed)
    codec = architecture(n)
    if args.init:
        load_checkpoint(codec, Path(args.init))
    else:
        scale_latents(codec, torch.stack([patches[i] for i in range(BATCH)]))
    optimizers = make_optimizers(codec)
    base_rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
    state = {"step": 0, "seconds": 0.0, "best": float("inf"), "skipped": 0}
    if (run / "state.pt").exists():
        saved = torch.load(run / "state.pt", map_location="cpu", weights_only=True)
        if saved["kind"] != kind:
            quality, name, width = saved["kind"]
            raise ValueError(
                f"{run} holds a run of quality {quality} ({name}, N = {width}): choose another folder with --run"
            )
        state = saved["state"]
        torch.nn.Module.load_state_dict(codec, saved["codec"])
        for optimizer, saved_optimizer in zip(optimizers, saved["optimizers"]):
            optimizer.load_state_dict(saved_optimizer)
    start = state["step"] * BATCH * accelerator.num_processes
    loader = DataLoader(Subset(patches, range(start, len(patches))), batch_size=BATCH)
    objective, loader, *optimizers = accelerator.prepare(Objective(codec, lmbda), loader, *optimizers)

    def progress() -> float:
        return state["step"] / args.steps if args.steps else state["seconds"] / (60 * args.minutes)

    def measure_and_save() -> dict[str, float]:
        measured = held_out_losses(codec, pictures, lmbda)
        if not accelerator.is_main_process:
            return measured
        if measured["loss"] < state["best"]:
            state["best"] = measured["loss"]
            facts = {"quality": args.quality, "architecture": architecture.__name__, "lambda": lmbda, "N": n, "step": state["step"],
                     "minutes": round(state["seconds"] / 60, 1), "seed": args.seed, "init": "/".join(Path(args.init or "").parts[-2:]),
                     "held_out_loss": round(measured["loss"], 5), "photographs": list_digest(hashes)}  # fmt: skip
            save_checkpoint(codec, run / "best.safetensors", facts)
        with written_whole(run / "state.pt") as part:
            torch.save({"kind": kind, "state": state, "codec": codec.state_dict(),
                        "optimizers": [o.state_dict() for o in optimizers]}, part)  # fmt: skip
        return measured

    bar = tqdm(total=args.steps, initial=state["step"], unit="step", disable=not accelerator.is_main_process)
    sums, last = {}, time.monotonic()
    for x in loader:
        if progress() >= 1:
            break
        # The noise depends on the step, not on the history, so a resumed run draws what it would have drawn.
        torch.manual_seed(hash((args.seed, state["step"], accelerator.process_index)) % 2**63)
        factor = args.rate * rate_factor(progress(), state["step"])
        for optimizer, rates in zip(optimizers, base_rates):
            for group, rate in zip(optimizer.param_groups, rates):
                group["lr"] = rate * (factor if optimizer is not optimizers[-1] else 1.0)
            optimizer.zero_grad()
        with accelerator.autocast():
            loss, row = objective(x, 1.0 if args.init else z_weight(state["step"]))
        accelerator.backward(loss)
        norm = accelerator.clip_grad_norm_(objective.parameters(), 1.0)
        if torch.isfinite(norm):
            for optimizer in optimizers:
                optimizer.step()
        else:
            state["skipped"] += 1
        now = time.monotonic()
        state["step"], state["seconds"], last = state["step"] + 1, state["seconds"] + now - last, now
        for key, value in row.items():
            sums[key] = sums.get(key, 0.0) + value.item() / LOG_EVERY
        bar.update()
        if state["step"] % LOG_EVERY == 0:
            measured = measure_and_save() if state["step"] % HOLD_EVERY == 0 else {}
            if accelerator.is_main_process:
                held_out = {f"held_out_{key}": measured.get(key, "") for key in sums}
                log_line(run / "log.csv", {**state, "factor": factor, "norm": norm.item(), **sums, **held_out})
            bar.set_postfix(loss=f"{sums['loss']:.3f}", bpp=f"{sums['bpp']:.3f}")
            sums = {}
    measure_and_save()


def train_head(args: argparse.Namespace) -> None:
    """Train a head of ``args.mixture`` Gaussians on the latents of the frozen bundled codec, and leave ``head.safetensors`` and ``log.csv`` in the run folder.

    The loss is the bits of the symbols as they are, without noise: nothing before them has to learn.
    """
    run = Path(args.run)
    run.mkdir(parents=True, exist_ok=True)
    (run / "log.csv").unlink(missing_ok=True)
    codec = load_codec(args.quality, "bundled")
    photographs = read_photographs(args.images)
    hashes = write_list(run / "photographs.csv", photographs)
    squares = [central_square(p, HEAD_SIZE) for _, p in photographs]
    seen = [latents(codec, pad(x)) for x in tqdm(squares, unit="photograph")]
    held_out = seen[::HELD_OUT_EVERY]
    # Every position of every photograph is one example: channels first, positions along the height, as 1x1 layers see no neighbours.
    features, y_hat = (
        torch.cat([pair[i][0].flatten(1) for j, pair in enumerate(seen) if j % HELD_OUT_EVERY], 1)[None, :, :, None]
        for i in (0, 1)
    )
    torch.manual_seed(args.seed)
    head = new_head(codec, args.mixture)
    optimizer = torch.optim.Adam(head.parameters(), lr=ADAM_LR)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, args.steps)

    def bits_per_position(batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return -likelihoods(head, *batch).log2().sum() / batch[1][:, 0].numel()

    sums = 0.0
    for step in tqdm(range(1, args.steps + 1), unit="step"):
        chosen = torch.randint(y_hat.shape[2], (HEAD_BATCH,))
        loss = bits_per_position((features[:, :, chosen], y_hat[:, :, chosen]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        sums += loss.item() / LOG_EVERY
        if step % LOG_EVERY == 0:
            with torch.no_grad():
                measured = np.mean([float(bits_per_position(pair)) for pair in held_out])
            log_line(run / "log.csv", {"step": step, "bits": sums, "held_out_bits": float(measured)})
            sums = 0.0
    facts = {"quality": args.quality, "components": args.mixture, "step": args.steps, "seed": args.seed,
             "held_out_bits": round(float(measured), 3), "photographs": list_digest(hashes)}  # fmt: skip
    with written_whole(run / "head.safetensors") as part:
        tensors = {name: p.detach().half().contiguous() for name, p in head.named_parameters()}
        save_file(tensors, part, {key: str(value) for key, value in facts.items()})


def read_photographs(source: str) -> list[tuple[str, np.ndarray]]:
    """Names and pixels (H, W, 3) of a folder or a data set; ValueError for none, or for one smaller than a patch."""
    photographs = [(row["name"], np.asarray(to_rgb(row["image"]))) for row in load_images(source)]
    for name, photograph in photographs:
        if min(photograph.shape[:2]) < max(PATCH, HELD_OUT_SIZE):
            height, width = photograph.shape[:2]
            raise ValueError(f"{name} is {width}x{height}: at least {HELD_OUT_SIZE} pixels a side are needed")
    if len(photographs) < 2:
        raise ValueError(f"{source} holds one picture: one is held out, so at least two are needed")
    return photographs


def write_list(path: Path, photographs: list[tuple[str, np.ndarray]]) -> list[str]:
    """List the photographs with the SHA-256 of their pixels, and return the hashes."""
    hashes = [hashlib.sha256(p.tobytes()).hexdigest() for _, p in photographs]
    with written_whole(path) as part, part.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("name", "sha256", "used"))
        for i, ((name, _), digest) in enumerate(zip(photographs, hashes)):
            writer.writerow((name, digest, "training" if i % HELD_OUT_EVERY else "held out"))
    return hashes


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

    The buffers are left out: masks and bounds are constant, CompressAI's tables are rebuilt by ``codec.update()``.
    """
    tensors = {name: p.detach().half().contiguous() for name, p in codec.named_parameters()}
    tensors[CONTEXT] = tensors[CONTEXT].flatten(2)[:, :, :12].contiguous()  # the mask zeroes the other thirteen taps
    # A codec that started from a checkpoint carries that one's table.
    tensors[Z_TABLE] = torch.from_numpy(make_z_frequencies(deepcopy(codec).half().float()))
    with written_whole(path) as part:
        save_file(tensors, part, {key: str(value) for key, value in facts.items()})


def log_line(path: Path, row: dict[str, object]) -> None:
    """Append one line to a CSV file, with a header if it is the first."""
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, row, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow({key: round(value, 5) if isinstance(value, float) else value for key, value in row.items()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quality", type=int, required=True, choices=QUALITIES)
    parser.add_argument("--images", required=True, help="folder of photographs, or the name of a data set")
    parser.add_argument("--run", required=True, help="folder for the log, the state and the best checkpoint")
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--minutes", type=float, help="length of the run in minutes")
    length.add_argument("--steps", type=int, help="length of the run in steps")
    parser.add_argument("--init", help="checkpoint to start from, of a neighbouring quality")
    parser.add_argument(
        "--rate", type=float, default=1.0, help="share of the full learning rates; less for a good start"
    )
    parser.add_argument("--channels", type=int, help="N, if not that of the bundled checkpoint of this quality")
    parser.add_argument("--attention", action="store_true", help="with the attention blocks of the paper")
    parser.add_argument(
        "--mixture", type=int, choices=COMPONENTS, metavar="K",
        help="no codec, but a head of K Gaussians on the latents of the bundled one (chapter 14); needs --steps",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--precision", default="no", choices=("no", "bf16", "fp16"), help="mixed precision")
    args = parser.parse_args()
    if args.mixture and not args.steps:
        parser.error("--mixture goes with --steps")
    try:
        train_head(args) if args.mixture else train(args)
    except (ValueError, OSError) as error:
        raise SystemExit(f"train.py: {error}") from None


if __name__ == "__main__":
    main()
