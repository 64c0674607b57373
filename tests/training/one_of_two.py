"""What test_loop.py runs twice side by side: a run by --minutes, so short that the clocks would disagree."""

import os
import sys
import time
from pathlib import Path

import torch
from training.runs import args_for

from dgml.training import data, loop


def main(photographs: str, out: str) -> None:
    rank, kept = int(os.environ["RANK"]), {}
    real_average, real_batch, real_step = loop.move_average, data.Patches.batch, loop.one_step
    loop.TIMED = 2

    def move_average(average, codec, step):
        real_average(average, codec, step)
        kept.update(weights={f"{name}{part}": p for part, c in (("", codec), (" average", average))
                             for name, p in c.named_parameters()}, steps=step + 3)  # fmt: skip

    def batch(self, step, count, process=0):
        time.sleep(0.2 * rank)
        kept["patch"] = real_batch(self, 0, 1, process)
        return real_batch(self, step, count, process)

    def one_step(*args):
        kept["precision"] = args[-1].precision
        return real_step(*args)

    loop.move_average, data.Patches.batch, loop.one_step = move_average, batch, one_step
    loop.faster_precision = lambda *_: "no" if rank else "bf16"
    short = {"steps": None, "minutes": 0.03, "widths": (8, 8), "patch": 64, "precision": "auto"}
    loop.train(args_for(photographs, Path(out) / "run", **short))
    torch.save(kept, Path(out) / f"rank{rank}.pt")


if __name__ == "__main__":
    main(*sys.argv[1:])
