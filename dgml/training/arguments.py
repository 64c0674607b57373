"""The arguments of ``python -m dgml train``. Nothing here imports torch."""

import argparse

from dgml.settings import COMPONENTS, PRIORS, QUALITIES

DESCRIPTION = """Train a codec on a folder of photographs.

    python -m dgml train --quality 3 --images PHOTOGRAPHS --minutes 60 --run runs/q3

The same command, given again, goes on where the last one stopped.
On several processors, machines or GPUs: accelerate launch -m dgml train ...

The run folder holds log.csv (a line every 50 steps), photographs.csv (what was trained on), state.pt (everything that
an exact resume needs) and best.safetensors: the averaged weights with the lowest held-out loss so far, in half
precision, which is what checkpoints/ ships.
"""
PATCH, BATCH = 256, 2  # a side of z is a 64th: in patches of 128 pixels no position of z has all its neighbours
LARGEST_PATCH = 256
LOG_EVERY = 50  # steps
CODECS_OWN = ("init", "warm_start", "reinitialize", "lr_scale", "decay", "anneal", "widths", "batch", "patch", "attention")  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
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
    start.add_argument("--init", metavar="CHECKPOINT", help="checkpoint to start from, of a neighbouring quality")
    start.add_argument(
        "--warm-start", metavar="CHECKPOINT", help="checkpoint with a narrower y, whose g_a and g_s are the start"
    )
    add(
        "--reinitialize", action="store_true", help="give the channels of y and z that are dead in --init a fresh start"
    )
    add("--lr-scale", type=positive, default=1.0, help="share of the full learning rates; less for a good start")
    add("--decay", type=float, default=0.5, help="share of the run in which the rates fall to zero; 0 keeps them")
    add("--anneal", type=count, help="steps in which λ comes down from 16 times its value")
    add("--widths", type=count, nargs=2, metavar=("N", "M"), help="if not those of the bundled checkpoint")
    add("--batch", type=count, default=BATCH)
    add("--patch", type=count, default=PATCH, help="side of the square patches in pixels, a multiple of 64")
    add("--attention", action="store_true", help="with the attention blocks of the paper; N and M are equal then")
    head = parser.add_mutually_exclusive_group()
    head.add_argument("--mixture", type=int, choices=COMPONENTS, metavar="K",
                      help="no codec, but a head of K Gaussians on the latents of the bundled one (chapter 14)")  # fmt: skip
    head.add_argument(
        "--head", choices=PRIORS, help="no codec, but a prior variant of chapter 10 for y of the bundled one"
    )
    add("--seed", type=natural, default=0)
    add("--precision", default="auto", choices=("auto", "bf16", "no"),
        help="bf16 for mixed precision, no for float32; by default what a step is faster in here")  # fmt: skip


def check(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """What argparse can't say of how the arguments go together; it ends with exit status 2."""
    if (args.mixture or args.head) and (not args.steps or args.steps < LOG_EVERY):
        parser.error(f"{'--mixture' if args.mixture else '--head'} goes with --steps, at least {LOG_EVERY}")
    codecs_own = [*CODECS_OWN, "precision"] if args.head else CODECS_OWN
    given = [name for name in codecs_own if getattr(args, name) != parser.get_default(name)]
    if (args.mixture or args.head) and given:
        parser.error(f"--{given[0].replace('_', '-')} is for a codec, and a head is trained on the bundled one")
    if args.reinitialize and (args.attention or not args.init):
        parser.error("--reinitialize goes with --init, and not with --attention")
    if args.patch % 64 or args.patch > LARGEST_PATCH:
        parser.error(f"--patch is a multiple of 64 up to {LARGEST_PATCH}, not {args.patch}")
    if args.lr_scale > 10:
        parser.error(f"--lr-scale is a share of the full rates, at most ten times those, not {args.lr_scale:g}")
    if not 0 <= args.decay <= 1:
        parser.error(f"--decay is a share between 0 and 1, not {args.decay}")
    if args.attention and args.widths and args.widths[0] != args.widths[1]:
        parser.error("--attention needs --widths with N = M")


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
