"""The trunk: one long run at a constant rate, whose state is never thrown away; and cooldowns that branch off it.

    python -m dgml.training.trunk --run TRUNK --images PHOTOGRAPHS --steps 1000000
    python -m dgml.training.trunk --run Q6 --images PHOTOGRAPHS --branch TRUNK/state.pt --steps 3000 --lmbda 0.0483

The held-out loss of a codec stands while its rate is high and falls as the rate falls to zero; a run that starts again
from such a codec first loses what that gained (Haegele et al., NeurIPS 2024).  So the trunk keeps its rate, and what
ships are branches: copies of its state, trained on while the rate falls to zero.

The same command, given again, goes on where the last one stopped: noise and patches depend on the seed and the step
alone.  The run's folder holds ``state.pt`` (all that a resume needs), ``log.csv``, ``average-STEP.safetensors`` of a
few steps and, for a branch, ``best.safetensors``: half-precision weights.
"""

import argparse
import csv
import math
import os
import signal
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

from dgml.files import atomic_write
from dgml.training.data import read_photographs
from dgml.training.loss import held_out_losses
from dgml.training.trunk_loss import anatomy
from dgml.training.trunk_state import FIT_PATCHES, Recipe, Run, read_trunk
from dgml.training.whitening import halve, input_moments

LOG_EVERY, HOLD_EVERY, ANATOMY_EVERY = 50, 250, 2000
SAVE_SECONDS = 180
SNAPSHOTS = [0, *(digit * 10**power for power in range(2, 8) for digit in (1, 3))]


def go(run: Run, folder: Path, until: float, enough: Callable[[dict[str, float]], bool] = lambda row: False) -> None:
    """Step until ``until``, an ``enough`` of the last step's figures, or a signal to end.

    Log, snapshots and states go into ``folder``, which may not be there yet.
    """
    stop: list[int] = []
    before = {number: signal.signal(number, lambda n, _: stop.append(n)) for number in (signal.SIGTERM, signal.SIGINT)}
    folder.mkdir(parents=True, exist_ok=True)
    log, rows, saved, last = folder / "log.csv", [], time.monotonic(), time.monotonic()
    forget_lines(log, run.progress.step)
    if run.progress.step == 0:
        snapshot(run, folder / "average-0.safetensors")
        write_line(log, {"step": 0} | measured(run, True))
    while run.progress.step < until and not stop:
        row = run.step()
        rows.append(row)
        now = time.monotonic()
        run.progress.seconds, last = run.progress.seconds + now - last, now
        step, end = run.progress.step, run.progress.step == until
        if step in SNAPSHOTS:
            snapshot(run, folder / f"average-{step}.safetensors")
        if step % LOG_EVERY == 0 or end:
            means = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
            line = {"step": step, "seconds": run.progress.seconds, "skipped": run.progress.skipped} | means
            if step % HOLD_EVERY == 0 or end:
                line |= measured(run, step % ANATOMY_EVERY == 0 or end)
                if run.recipe.cooldown and line["held_out_loss"] < run.progress.best:
                    run.progress.best = line["held_out_loss"]
                    snapshot(run, folder / "best.safetensors")
            write_line(log, line)
            rows = []
        if time.monotonic() - saved > SAVE_SECONDS:
            run.save(folder / "state.pt")
            saved = time.monotonic()
        if enough(row):
            break
    run.save(folder / "state.pt")
    for number, handler in before.items():
        signal.signal(number, handler)
    if stop:
        raise KeyboardInterrupt


def measured(run: Run, closely: bool) -> dict[str, float]:
    """Held-out figures of the averaged weights."""
    row = {f"held_out_{k}": v for k, v in held_out_losses(run.average, run.held_out, run.recipe.lmbda).items()}
    return row | (anatomy(run.average, run.held_out) if closely else {})


COLUMNS = ["step", "seconds", "skipped", "loss", "bpp", "bpp_z", "mse", "norm", "held_out_loss", "held_out_bpp",
           "held_out_bpp_z", "held_out_mse", "mse_unrounded", "unrounded_share", "live_y", "live_z"]  # fmt: skip


def write_line(path: Path, row: dict[str, Any]) -> None:
    """Add a line to the log, below a header if it is the first."""
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow({key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()})


def forget_lines(path: Path, step: int) -> None:
    """Drop the lines of steps that a killed run took after its last state."""
    if path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            lines = [line for line in csv.DictReader(file) if int(line["step"]) <= step and step]
        path.unlink()
        for line in lines:
            write_line(path, line)


def snapshot(run: Run, path: Path) -> None:
    """The averaged parameters in half precision."""
    codec = deepcopy(run.average)
    halve(codec, input_moments(codec, run.patches.batch(0, FIT_PATCHES)))
    atomic_write(path, save({name: p.detach().half().contiguous() for name, p in codec.named_parameters()}))


def open_run(
    folder: Path, given: dict[str, Any], photographs: list[np.ndarray], branch: Path | None = None, cooldown: int = 0
) -> Run:
    """The run in ``folder``, at its last state; or a fresh one, or one that branches off another's state.

    ``given`` are fields of the recipe that a resume or a branch changes.  A branch with a ``cooldown`` of so many steps
    ends at a rate of zero.  Raises ValueError for a damaged state.
    """
    state = folder / "state.pt"
    source = state if state.exists() else branch
    if source is None:
        run = Run(Recipe(**given), photographs)
        run.start()
        return run
    saved = read_trunk(source)
    recipe = Recipe(**saved["recipe"] | given)
    if source is branch:
        recipe.begin, recipe.cooldown = saved["progress"]["step"], cooldown
        saved["progress"] |= {"best": math.inf, "seconds": 0.0}
        saved["average"] = saved["codec"]  # that of the trunk is of another λ
    run = Run(recipe, photographs)
    run.load(saved)
    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", required=True, type=Path, help="folder for state, log and snapshots")
    parser.add_argument("--images", required=True, help="folder of photographs")
    parser.add_argument(
        "--steps", required=True, type=int, help="the run's last step; of a branch, its number of steps"
    )
    parser.add_argument("--branch", type=Path, help="state of a trunk from which to cool down")
    parser.add_argument(
        "--keep-rate", action="store_true", help="branch, but keep the rate: an experiment on the trunk"
    )
    parser.add_argument("--renew-hyperprior", action="store_true", help="begin anew with h_a, h_s and z; once")
    for item in fields(Recipe):
        if item.name not in ("begin", "cooldown"):
            kind = int if item.name == "widths" else type(getattr(Recipe, item.name))
            parser.add_argument(
                f"--{item.name.replace('_', '-')}", type=kind, nargs=4 if item.name == "widths" else None
            )
    args = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
    given = {item.name: getattr(args, item.name, None) for item in fields(Recipe)}
    given = {name: tuple(value) if name == "widths" else value for name, value in given.items() if value is not None}
    photographs = [p for _, p in read_photographs(args.images)]
    run = open_run(args.run, given, photographs, args.branch, 0 if args.keep_rate else args.steps)
    if args.renew_hyperprior:
        run.renew_hyperprior()
    print(f"step {run.progress.step}: {run.recipe}", flush=True)
    go(run, args.run, run.recipe.begin + args.steps)


if __name__ == "__main__":
    main()
