"""Train a small Cheng2020Anchor codec on a folder of photographs.

    python train.py --quality 3 --images PHOTOGRAPHS --minutes 60 --run runs/q3

The same command, given again, goes on where the last one stopped.
On several processors or machines: ``accelerate launch train.py ...``.

The run folder holds ``log.csv`` (one line every 50 steps), ``state.pt`` (everything that an exact resume needs) and ``best.safetensors`` (the weights with the lowest held-out loss so far, in half precision: what ``checkpoints/`` ships).
"""

import argparse
import csv
import hashlib
import os
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from compressai.models import Cheng2020Anchor
from compressai.ops import quantize_ste
from safetensors.torch import save_file
from timm.optim import Muon
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader, Dataset, Subset
from tqdm import tqdm

from helpers import BUNDLED_N, LAMBDA, load_checkpoint, load_images, to_rgb

PATCH, BATCH = 128, 8
HELD_OUT_EVERY = 16  # one photograph in sixteen is never trained on
HELD_OUT_SIZE = 256  # held-out loss: the central square of each
LOG_EVERY, HOLD_EVERY = 50, 500
WARM_UP, DECAY = 100, 0.5  # steps of rising rate; share of the run in which it falls to zero
MUON = {"lr": 0.01, "weight_decay": 0.05, "momentum": 0.95, "nesterov": True, "adjust_lr_fn": "original"}
ADAM_LR = 1e-3


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


def losses(codec: Cheng2020Anchor, x: torch.Tensor, lmbda: float) -> dict[str, torch.Tensor]:
    """Rate and distortion of a training batch ``x`` (B, 3, H, W) in [0, 1].

    Returns ``bpp`` (bits per pixel), ``mse`` and ``loss`` = lmbda * 255**2 * mse + bpp (Minnen et al., NeurIPS 2018, eq. 1).
    The rate is that of latents with uniform noise, a differentiable stand-in for rounding (Balle et al., ICLR 2017); h_s and g_s see rounded latents, whose gradient is passed straight through.
    """
    y = codec.g_a(x)
    z = codec.h_a(y)
    with torch.autocast(x.device.type, enabled=False):
        y, z = y.float(), z.float()
        _, z_likelihoods = codec.entropy_bottleneck(z)
        medians = codec.entropy_bottleneck._get_medians().reshape(1, -1, 1, 1)
        z_hat = quantize_ste(z - medians) + medians
        y_noisy = codec.gaussian_conditional.quantize(y, "noise")
    context = codec.context_prediction(y_noisy)
    parameters = codec.entropy_parameters(torch.cat((codec.h_s(z_hat), context), dim=1))
    with torch.autocast(x.device.type, enabled=False):
        scales, means = parameters.float().chunk(2, 1)
        _, y_likelihoods = codec.gaussian_conditional(y, scales, means)
        # Half of the batch is rounded as forward() does it, half as compress() does: g_s must serve both.
        offset = means.detach() * (torch.arange(len(y), device=y.device) % 2).reshape(-1, 1, 1, 1)
        y_hat = quantize_ste(y - offset) + offset
    x_hat = codec.g_s(y_hat)
    with torch.autocast(x.device.type, enabled=False):
        return weigh(x_hat.float(), x, (y_likelihoods, z_likelihoods), lmbda)


def weigh(x_hat: torch.Tensor, x: torch.Tensor, likelihoods, lmbda: float) -> dict[str, torch.Tensor]:
    """Bits per pixel, mean squared error, and their sum with the weight of the training loss."""
    bpp = -sum(p.log2().sum() for p in likelihoods) / (x.shape[0] * x.shape[2] * x.shape[3])
    mse = mse_loss(x_hat, x)
    return {"loss": lmbda * 255**2 * mse + bpp, "bpp": bpp, "mse": mse}


@torch.no_grad()
def scale_latents(codec: Cheng2020Anchor, x: torch.Tensor, y_std: float = 5.0, z_std: float = 2.0) -> None:
    """Rescale a fresh codec so that y and z start with a spread that rounding cannot erase.

    The last layer of each analysis transform is multiplied, the first layers that read its latent are divided, and the predicted scales start at ``y_std``.
    """

    def rescale(writer, readers, factor):
        writer.weight *= factor
        writer.bias *= factor
        for reader in readers:
            reader.weight /= factor

    y_factor = y_std / codec.g_a(x).std()
    rescale(codec.g_a[-1], (codec.g_s[0].conv1, codec.h_a[0], codec.context_prediction), y_factor)
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
        rows.append(weigh(out["x_hat"].clamp(0, 1), x, out["likelihoods"].values(), lmbda))
    codec.train()
    return {key: float(np.mean([float(row[key]) for row in rows])) for key in rows[0]}


def train(args: argparse.Namespace) -> None:
    """Run, or resume, one training; see the module's docstring for what it leaves behind."""
    accelerator = Accelerator(mixed_precision=args.precision)
    lmbda, n = LAMBDA[args.quality], BUNDLED_N[args.quality]
    names, photographs = read_photographs(args.images)
    held_out = photographs[::HELD_OUT_EVERY]
    trained_on = [p for i, p in enumerate(photographs) if i % HELD_OUT_EVERY]
    run = Path(args.run)
    run.mkdir(parents=True, exist_ok=True)

    torch.manual_seed(args.seed)
    codec = Cheng2020Anchor(n)
    patches = Patches(trained_on, args.seed, length=10**9)
    if args.init:
        load_checkpoint(codec, Path(args.init))
    else:
        scale_latents(codec, torch.stack([patches[i] for i in range(BATCH)]))
    optimizers = make_optimizers(codec)
    base_rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
    state = {"step": 0, "seconds": 0.0, "best": float("inf"), "skipped": 0}
    if (run / "state.pt").exists():
        saved = torch.load(run / "state.pt", map_location="cpu", weights_only=True)
        state = saved["state"]
        codec.load_state_dict(saved["codec"])
        for optimizer, saved_optimizer in zip(optimizers, saved["optimizers"]):
            optimizer.load_state_dict(saved_optimizer)
    pictures = [central_square(p).to(accelerator.device) for p in held_out]
    start = state["step"] * BATCH * accelerator.num_processes
    loader = DataLoader(Subset(patches, range(start, len(patches))), batch_size=BATCH)
    codec, loader, *optimizers = accelerator.prepare(codec, loader, *optimizers)
    inner = accelerator.unwrap_model(codec)

    def progress() -> float:
        return state["step"] / args.steps if args.steps else state["seconds"] / (60 * args.minutes)

    def save(measured: dict[str, float]) -> None:
        if not accelerator.is_main_process:
            return
        if measured["loss"] < state["best"]:
            state["best"] = measured["loss"]
            save_checkpoint(
                inner,
                run / "best.safetensors",
                {
                    "quality": args.quality,
                    "lambda": lmbda,
                    "N": n,
                    "step": state["step"],
                    "minutes": round(state["seconds"] / 60, 1),
                    "seed": args.seed,
                    "init": args.init or "",
                    "held_out_loss": round(measured["loss"], 5),
                    "photographs": list_digest(names),
                },
            )
        with written_whole(run / "state.pt") as part:
            torch.save(
                {"state": state, "codec": inner.state_dict(), "optimizers": [o.state_dict() for o in optimizers]}, part
            )

    bar = tqdm(
        total=args.steps, initial=state["step"], unit="step", disable=not accelerator.is_main_process, mininterval=5
    )
    sums, last = {}, time.monotonic()
    for x in loader:
        if progress() >= 1:
            break
        torch.manual_seed(hash((args.seed, state["step"], accelerator.process_index)) % 2**63)
        factor = rate_factor(progress(), state["step"])
        for optimizer, rates in zip(optimizers, base_rates):
            for group, rate in zip(optimizer.param_groups, rates):
                group["lr"] = rate * (factor if optimizer is not optimizers[-1] else 1.0)
            optimizer.zero_grad()
        with accelerator.autocast():
            row = losses(inner if accelerator.num_processes == 1 else codec.module, x, lmbda)
        accelerator.backward(row["loss"] + inner.entropy_bottleneck.loss())
        norm = accelerator.clip_grad_norm_(inner.parameters(), 1.0)
        if torch.isfinite(norm):
            for optimizer in optimizers:
                optimizer.step()
        else:
            state["skipped"] += 1
        state["step"] += 1
        now = time.monotonic()
        state["seconds"], last = state["seconds"] + now - last, now
        for key, value in row.items():
            sums[key] = sums.get(key, 0.0) + value.item() / LOG_EVERY
        bar.update()
        if state["step"] % LOG_EVERY == 0:
            measured = {}
            if state["step"] % HOLD_EVERY == 0:
                measured = held_out_losses(inner, pictures, lmbda)
                save(measured)
            if accelerator.is_main_process:
                log_line(
                    run / "log.csv",
                    {
                        **state,
                        "factor": factor,
                        "norm": float(norm),
                        **sums,
                        **{f"held_out_{k}": measured.get(k, "") for k in sums},
                    },
                )
            bar.set_postfix(loss=f"{sums['loss']:.3f}", bpp=f"{sums['bpp']:.3f}")
            sums = {}
    save(held_out_losses(inner, pictures, lmbda))


def central_square(photograph):
    h, w = (side // 2 - HELD_OUT_SIZE // 2 for side in photograph.shape[:2])
    square = photograph[h : h + HELD_OUT_SIZE, w : w + HELD_OUT_SIZE]
    return torch.from_numpy(square.copy()).permute(2, 0, 1)[None].float() / 255


def read_photographs(source):
    rows = load_images(source)
    photographs = [np.asarray(to_rgb(row["image"])) for row in rows]
    return [hashlib.sha256(p.tobytes()).hexdigest() for p in photographs], photographs


def list_digest(names):
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()


def save_checkpoint(codec: Cheng2020Anchor, path: Path, facts: dict[str, object]) -> None:
    """Write the codec's parameters in half precision, with ``facts`` in the file's header.

    The buffers are left out: masks and bounds are constant, tables are rebuilt by ``codec.update()``.
    """
    parameters = {name: p.detach().half().contiguous() for name, p in codec.named_parameters()}
    with written_whole(path) as part:
        save_file(parameters, part, {key: str(value) for key, value in facts.items()})


@contextmanager
def written_whole(path: Path):
    """Give a path beside ``path`` to write to, and rename it when the block ends well."""
    part = path.with_name(path.name + ".part")
    yield part
    os.replace(part, path)


def log_line(path, row):
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, row, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow({k: round(v, 5) if isinstance(v, float) else v for k, v in row.items()})


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--quality", type=int, required=True)
    p.add_argument("--images", required=True)
    p.add_argument("--run", required=True)
    p.add_argument("--minutes", type=float)
    p.add_argument("--steps", type=int)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--init")
    p.add_argument("--precision", default="no")
    train(p.parse_args())


if __name__ == "__main__":
    main()
