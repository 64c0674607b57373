"""Many files on the command line: found, shared among worker processes, and what comes of them said in order.

torch is imported where files are coded: in the workers, or here if there are none.
"""

import argparse
import sys
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from PIL import Image
from tqdm import tqdm

from dgml.files import COMPARED, compared, error_line, part_of
from dgml.picture_sets import files_below, find_pictures, in_words
from dgml.workers import Begin, cores, crew


class Outcome(NamedTuple):
    """What came of a file: a line on what was written, or on what went wrong."""

    line: str
    failed: bool = False


def run(args: argparse.Namespace) -> int:
    """Encode or decode all files that the arguments name, and return the exit status."""
    if args.out.exists() and not args.out.is_dir():
        raise ValueError(f"{args.out} is no folder, and --out names one")
    Image.MAX_IMAGE_PIXELS = None  # as in convert.prepare
    return run_many(list(pairs(args)), args)


def run_many(todo: list[tuple[Path, Path]], args: argparse.Namespace) -> int:
    """Do all, go on where one fails, and say in the end which did.  The lines come in the order of the files."""
    if not todo:
        raise ValueError(f"{' '.join(map(str, args.paths))}: there is nothing to {args.command}")
    failed, lost = [], []
    try:
        with crew(min(args.workers or cores(), len(todo)), prepare) as begin:
            for source, outcome in tqdm(outcomes(todo, args, begin), total=len(todo), unit="file", disable=None):
                if outcome is None:
                    lost.append(str(source))
                elif outcome.failed:
                    failed.append(outcome.line)
                else:
                    tqdm.write(outcome.line)
    finally:
        remove_parts([target for _, target in todo])
    if failed:
        print("\n  ".join([f"dgml: {len(failed)} of {len(todo)} failed", *failed]), file=sys.stderr)
    if lost:
        print(f"dgml: a worker was killed, or out of memory; not {args.command}d: {', '.join(lost)}", file=sys.stderr)
    return 1 if failed or lost else 0


def outcomes(
    todo: list[tuple[Path, Path]], args: argparse.Namespace, begin: Begin
) -> Iterator[tuple[Path, Outcome | None]]:
    """Source and outcome of each, in order; None of those that were lost with a worker.

    All begin at once but the second of two with one target: it is an error if the first succeeds.
    """
    begun, written = {}, set()
    for source, target in todo:
        if target not in begun:
            begun[target] = begin(attempt, source, target, args)
    for source, target in todo:
        if target in written:
            line = f"{source}: {target} was written from another file: give one of the two another name"
            yield source, Outcome(line, failed=True)
            continue
        try:
            wait = begun.pop(target, None) or begin(attempt, source, target, args)
            outcome = wait()
        except BrokenProcessPool:
            outcome = None
        if outcome and not outcome.failed:
            written.add(target)
        yield source, outcome


def prepare() -> None:
    """What a process does once before it codes files."""
    from dgml import convert

    convert.prepare()


def attempt(source: Path, target: Path, args: argparse.Namespace) -> Outcome:
    """One of many: what goes wrong with it becomes a line that names it."""
    from dgml.convert import convert

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        return Outcome(convert(source, target, args))
    except (OSError, RuntimeError, ValueError, MemoryError) as error:
        line = error_line(error)
        return Outcome(line if str(source) in line else f"{source}: {line}", failed=True)


def remove_parts(targets: list[Path]) -> None:
    """Clear up after workers that were killed while they wrote."""
    for target in targets:
        for path in (target, compared(target)):
            with suppress(OSError, RuntimeError):  # of a target that could not be written
                part_of(path).unlink()


def pairs(args: argparse.Namespace) -> Iterator[tuple[Path, Path]]:
    """(source, target) of every file that is named or lies in a named folder, at whatever depth; folders are kept."""
    suffix = ".png" if args.command == "decode" else ".dgml"
    for path in args.paths:
        for source in sources(path, args) if path.is_dir() else [path]:
            inside = source.relative_to(path) if path.is_dir() else Path(source.name)
            yield source, args.out / inside.with_suffix(suffix)


def sources(folder: Path, args: argparse.Namespace) -> list[Path]:
    """The pictures in a folder, or its .dgml files, without what an earlier run wrote to an output folder in it."""
    if args.command == "decode":
        left_out: dict[str, list[str]] = {}
        found = [path for path in files_below(folder, left_out) if path.suffix == ".dgml" and path.is_file()]
    else:
        found, left_out = find_pictures(folder)
    comparisons = [path.name for path in found if path.name.endswith(COMPARED)]
    if comparisons:
        left_out["named as what --compare writes"] = comparisons
    if left_out:
        tqdm.write(f"left out of {folder}: {in_words(left_out)}", file=sys.stderr)
    found = [path for path in found if not path.name.endswith(COMPARED)]
    out = args.out.resolve()
    inside = folder.resolve() in out.parents
    return [path for path in found if out not in path.resolve().parents] if inside else found
