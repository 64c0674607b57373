"""From a folder of photographs to six checkpoints, in a number of minutes.

    make checkpoints IMAGES=PHOTOGRAPHS RUN=runs/six MINUTES=600

Half of the minutes go into a trunk at the λ of quality 6, whose rate is constant (``trunk.py``); the rest into a
cooldown for each quality, which branches off the trunk's last state.  The same command, given again, goes on where the
last one stopped, whatever stopped it; with PIECE=10 it stops by itself after ten minutes, as on a borrowed GPU.

RUN holds a folder for the trunk and for each quality, with log and state, and in the end
``cheng2020-anchor-q1.safetensors`` to ``q6``, as ``checkpoints/`` ships them.
"""

import argparse
import csv
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch.nn import Module
from tqdm import tqdm

from dgml.checkpoints import save_checkpoint
from dgml.files import atomic_write
from dgml.settings import LAMBDA, QUALITIES
from dgml.training.arguments import natural, positive
from dgml.training.data import hashes_of, list_digest, read_photographs, write_list
from dgml.training.state import check_same
from dgml.training.trunk import go, open_run
from dgml.training.trunk_state import WIDTHS, pyramid, read_trunk

TRUNK_SHARE = 0.5  # of the minutes; the cooldowns share the rest
SHORTEST = 10  # steps of a cooldown
GPU_BATCH, GPU_BYTES_PER_PATCH = 32, 2**29  # at most so many patches in a step, as memory allows
HOME = "trunk"


@dataclass
class Piece:
    """The bar, and when a piece of the work is over: ``minutes`` after its begin."""

    bar: tqdm
    minutes: float
    begin: float

    def over(self) -> bool:
        return time.monotonic() - self.begin > 60 * self.minutes

    def show(self, seconds: float, row: dict[str, float], what: str) -> None:
        self.bar.set_description(what, refresh=False)
        self.bar.set_postfix(loss=f"{row['loss']:.3f}", bpp=f"{row['bpp']:.3f}", refresh=False)
        self.bar.update(min(seconds / 60, self.bar.total) - self.bar.n)


def make_six(args: argparse.Namespace) -> bool:
    """Train until all six are there, or the piece is over; whether all are there."""
    named = read_photographs(args.images)
    photographs, hashes = [pixels for _, pixels in named], hashes_of(named)
    digest = list_digest(hashes)
    keep_arguments(args, digest)
    write_list(args.run / "photographs.csv", named, hashes)
    given = {"widths": tuple(args.widths), "seed": args.seed, "batch": args.batch or batch_size(), "lmbda": LAMBDA[6]}
    with tqdm(total=args.minutes, unit="min", bar_format="{l_bar}{bar}| {n:.1f} of {total:.0f} min{postfix}") as bar:
        piece = Piece(bar, args.piece or float("inf"), time.monotonic())
        spent = train_trunk(args, given, photographs, piece)
        if spent is None:
            return False
        for quality in reversed(QUALITIES):
            seconds = cool_down(args, quality, photographs, piece, spent)
            if seconds is None:
                return False
            keep_checkpoint(args, quality, digest, spent + seconds)
            spent += seconds
    return True


def train_trunk(
    args: argparse.Namespace, given: dict[str, Any], photographs: list[np.ndarray], piece: Piece
) -> float | None:
    """Train the trunk for its share of the minutes; its seconds, or None where the piece ended before."""
    folder, budget = args.run / HOME, 60 * TRUNK_SHARE * args.minutes
    if (args.run / "q6").exists():
        return float(read_trunk(folder / "state.pt")["progress"]["seconds"])
    run = open_run(folder, given, photographs)

    def enough(row: dict[str, float]) -> bool:
        piece.show(run.progress.seconds, row, "trunk")
        return run.progress.seconds >= budget or piece.over()

    if run.progress.seconds < budget:
        go(run, folder, float("inf"), enough)
    return run.progress.seconds if run.progress.seconds >= budget else None


def cool_down(
    args: argparse.Namespace, quality: int, photographs: list[np.ndarray], piece: Piece, spent: float
) -> float | None:
    """Branch off the trunk, the rate falling to zero; the branch's seconds, or None where the piece ended before."""
    folder, home = args.run / f"q{quality}", args.run / HOME / "state.pt"
    if piece.over() and not finished(folder):
        return None
    run = open_run(folder, {"lmbda": LAMBDA[quality]}, photographs, home, cooldown_steps(args, home))
    until = run.recipe.begin + run.recipe.cooldown

    def enough(row: dict[str, float]) -> bool:
        piece.show(spent + run.progress.seconds, row, f"quality {quality}")
        return piece.over()

    if run.progress.step < until:
        go(run, folder, until, enough)
    return run.progress.seconds if run.progress.step == until else None


def cooldown_steps(args: argparse.Namespace, home: Path) -> int:
    """How many steps fill a sixth of what is left after the trunk, at the trunk's speed."""
    progress = read_trunk(home)["progress"]
    seconds = 60 * (1 - TRUNK_SHARE) * args.minutes / len(QUALITIES)
    return max(SHORTEST, round(seconds * progress["step"] / progress["seconds"]))


def finished(folder: Path) -> bool:
    """Whether a branch has taken its last step."""
    if not (folder / "state.pt").exists():
        return False
    saved = read_trunk(folder / "state.pt")
    return bool(saved["progress"]["step"] == saved["recipe"]["begin"] + saved["recipe"]["cooldown"])


def keep_checkpoint(args: argparse.Namespace, quality: int, photographs: str, seconds: float) -> None:
    """Write the best weights of a branch as a checkpoint."""
    path = checkpoint(args, quality)
    if path.exists():
        return
    codec = pyramid(tuple(args.widths))
    Module.load_state_dict(codec, {k: v.float() for k, v in load_file(best(args, quality)).items()}, strict=False)
    line = best_line(args, quality)
    save_checkpoint(codec, path, {
        "quality": quality, "architecture": type(codec).__name__, "lambda": LAMBDA[quality], "N": codec.N, "M": codec.M,
        "seed": args.seed, "photographs": photographs, "step": line["step"], "minutes": round(seconds / 60, 1),
        "held_out_loss": line["held_out_loss"]})  # fmt: skip


def checkpoint(args: argparse.Namespace, quality: int) -> Path:
    return Path(args.run) / f"cheng2020-anchor-q{quality}.safetensors"


def best(args: argparse.Namespace, quality: int) -> Path:
    return Path(args.run) / f"q{quality}" / "best.safetensors"


def best_line(args: argparse.Namespace, quality: int) -> dict[str, str]:
    """The line of a branch's log with the lowest held-out loss: that of the weights that are kept."""
    with (args.run / f"q{quality}" / "log.csv").open(newline="", encoding="utf-8") as file:
        measured = [line for line in csv.DictReader(file) if line["held_out_loss"]]
    return min(measured, key=lambda line: float(line["held_out_loss"]))


def table(args: argparse.Namespace) -> str:
    """What came out: a line for each quality."""
    lines = ["quality  λ       steps  held-out loss  bpp     MSE       MB"]
    for quality in QUALITIES:
        row, size = best_line(args, quality), checkpoint(args, quality).stat().st_size / 1e6
        lines.append(f"{quality:<8} {LAMBDA[quality]:<7} {row['step']:<6} {float(row['held_out_loss']):<14.4f} "
                     f"{float(row['held_out_bpp']):<7.4f} {float(row['held_out_mse']):.3e} {size:.1f}")  # fmt: skip
    return "\n".join(lines)


def keep_arguments(args: argparse.Namespace, photographs: str) -> None:
    """Note what shapes the work in RUN; ValueError where it began with something else."""
    shape = {
        "--minutes": args.minutes,
        "--seed": args.seed,
        "--widths": list(args.widths),
        "photographs": photographs[:16],
    }
    path = args.run / "arguments.json"
    if path.exists():
        check_same(args.run, json.loads(path.read_text(encoding="utf-8")), shape)
    args.run.mkdir(parents=True, exist_ok=True)
    atomic_write(path, (json.dumps(shape, indent=1) + "\n").encode())


def batch_size() -> int:
    """Two patches on a CPU, whose steps are few; on a GPU as many as memory allows."""
    if not torch.cuda.is_available():
        return 2
    return max(2, min(GPU_BATCH, torch.cuda.mem_get_info()[0] // GPU_BYTES_PER_PATCH))


def parse(line: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make checkpoints", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--images", required=True, help="folder of photographs, or the name of a data set")
    add("--run", required=True, type=Path, help="folder for all that is made")
    add("--minutes", required=True, type=positive, help="for all six together")
    add("--piece", type=positive, help="stop after so many minutes; the same command goes on")
    add("--widths", type=natural, nargs=4, default=WIDTHS, help="channels at a half to a sixteenth of the resolution")
    add("--batch", type=natural, help="patches in a step; by default 2, on a GPU as many as memory allows")
    add("--seed", type=natural, default=0)
    return parser.parse_args(line)


def main(line: list[str] | None = None) -> int:
    args = parse(line)
    try:
        complete = make_six(args)
    except KeyboardInterrupt:
        complete = False
    except (ValueError, OSError) as error:
        print(f"make checkpoints: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    print(table(args) if complete else "stopped; the same command goes on from the last state")
    return 0


if __name__ == "__main__":
    sys.exit(main())
