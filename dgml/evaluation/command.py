"""``python -m dgml evaluate``: which measurement, and where its result goes."""

import argparse
from pathlib import Path

from dgml.evaluation.measure import (
    folder_of,
    measure_checkpoints,
    measure_classical,
    measure_latents,
    measure_mixtures,
    measure_qualities,
    measure_search,
)
from dgml.evaluation.report import SUFFIX, report
from dgml.files import check_writable
from dgml.settings import RESULTS


def run(args: argparse.Namespace) -> int:
    """Measure, or report; the exit status, 1 where a staircase is broken."""
    if args.images:
        write_result(args)
        return 0
    text, good = report(RESULTS)
    print(text)
    return 0 if good else 1


def write_result(args: argparse.Namespace) -> None:
    """Measure what the arguments ask for, and say where the result lies."""
    chosen = (kind for kind in ("classical", "latents", "mixtures", "search") if getattr(args, kind))
    kind = args.name or "checkpoints" if args.checkpoints else next(chosen, SUFFIX[args.weights])
    path = result_path(args.images, kind, args.output)
    if args.latents:
        measure_latents(args.images, path)
    elif args.mixtures:
        measure_mixtures(args.images, path)
    elif args.checkpoints:
        measure_checkpoints(args.images, args.checkpoints, args.name, path)
    elif args.search:
        measure_search(args.images, args.search, path)
    elif args.classical:
        measure_classical(args.images, path)
    else:
        measure_qualities(args.images, args.weights, path)
    print(f"wrote {args.output or f'results/{path.name}'}")


def result_path(source: str, kind: str, output: Path | None) -> Path:
    """Where a result goes: to ``output``, or to results/<set>_<kind>.json if there is none yet."""
    path = output or RESULTS / f"{folder_of(source).name}_{kind}.json"
    if output is None and path.exists():
        raise ValueError(f"results/{path.name} is there already; --output FILE says where to write, or over what")
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise ValueError(f"{path} is a folder, or lies in none")
    check_writable(path)
    return path
