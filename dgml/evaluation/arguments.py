"""The arguments of ``python -m dgml evaluate``. Nothing here imports torch."""

import argparse
from pathlib import Path

from dgml.settings import setting

DESCRIPTION = """Measure the codec, and the classical codecs, on a set of pictures.

    python -m dgml evaluate --images PICTURES               all six qualities -> results/<set>_bundled.json
    python -m dgml evaluate --images PICTURES --classical   JPEG and its successors -> results/<set>_classical.json
    python -m dgml evaluate --images PICTURES --checkpoints FILES   one's own -> results/<set>_checkpoints.json, or --name's
    python -m dgml evaluate --images PICTURES --latents     what y and z hold and lose -> results/<set>_latents.json
    python -m dgml evaluate --images PICTURES --mixtures    y under 1, 2 and 3 Gaussians -> results/<set>_mixtures.json
    python -m dgml evaluate --images PICTURES --search 100  files with and without a search -> results/<set>_search.json
    python -m dgml evaluate --report                        tables from what results/ holds

PICTURES is a folder, a data set's name, or "bundled"; a relative folder counts from the book's own.
A result that is there already is kept: --output FILE writes elsewhere, or over it.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    task = parser.add_mutually_exclusive_group(required=True)
    task.add_argument("--images", metavar="PICTURES", help="measure on these")
    task.add_argument("--report", action="store_true", help="print tables; exit status 1 if a staircase is broken")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write there, also over a result that is there")
    parser.add_argument("--name", help="of the result of --checkpoints, by default checkpoints")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--classical", action="store_true", help="measure the classical codecs")
    what.add_argument("--latents", action="store_true", help="measure what y and z hold and lose")
    what.add_argument("--mixtures", action="store_true", help="measure the heads of chapter 14")
    what.add_argument(
        "--checkpoints", nargs="+", type=Path, metavar="FILE", help="measure these, of python -m dgml train"
    )
    what.add_argument("--search", type=int, metavar="STEPS", help="measure what a search of the encoder brings")
    what.add_argument(
        "--weights", choices=("bundled", "published"), help="by default what DGML_WEIGHTS says, else bundled"
    )


def check(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """What argparse can't say of how the arguments go together, and what DGML_WEIGHTS says where they don't."""
    kinds = (args.classical, args.latents, args.mixtures, args.checkpoints, args.search, args.weights)
    if (any(kinds) or args.output) and not args.images:
        parser.error("all other options go with --images")
    if args.name and not args.checkpoints:
        parser.error("--name goes with --checkpoints")
    if args.search is not None and args.search < 1:
        parser.error("--search takes a number of steps, at least 1")
    args.weights = args.weights or setting("WEIGHTS")
    if args.weights not in ("bundled", "published"):
        parser.error(f"DGML_WEIGHTS is 'bundled' or 'published', not {args.weights!r}")
