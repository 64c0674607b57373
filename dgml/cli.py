"""The command line: arguments and messages. torch is imported only where a command needs it."""

import argparse
import json
import os
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from dgml.container import VERSION, read
from dgml.evaluation import arguments as evaluation
from dgml.files import error_line, read_dgml
from dgml.settings import QUALITIES
from dgml.training import arguments as training

DESCRIPTION = """A photograph as a file, and back.

    python -m dgml encode PHOTOGRAPH FILE.dgml --quality 3
    python -m dgml encode PHOTOGRAPH FILE.dgml --search 10  slower, and a better file
    python -m dgml encode PHOTOGRAPHS ... --out FOLDER      files or folders of them, all that can be read
    python -m dgml decode FILE.dgml PICTURE.png
    python -m dgml decode FILES ... --out FOLDER
    python -m dgml info FILE.dgml

A single - as IN or OUT stands for the standard input or output; a picture is then a PNG.
DGML_WEIGHTS=published codes with CompressAI's checkpoints instead of the bundled ones.
"""
TWO_WAYS = """dgml {0} [options] IN OUT
       dgml {0} [options] IN [IN ...] --out FOLDER"""
RUNS = {"encode": "convert", "decode": "convert", "train": "training.loop", "evaluate": "evaluation.command",
        "reproduce": "evaluation.reproduce"}  # fmt: skip
EXTRAS = {"train": "dgml[train]", "evaluate": "dgml[evaluate]", "reproduce": "dgml[evaluate]"}


def main(arguments: list[str] | None = None) -> int:
    """Do what the arguments say, and return the exit status: 0, or 1 where something failed."""
    args = parse(arguments)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name that this terminal can't show is no failure
    try:
        status = run(args)
        sys.stdout.flush()  # a full disk shows here, and not as the interpreter ends
        return status
    except KeyboardInterrupt:
        print("dgml: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # who reads the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (OSError, RuntimeError, ValueError, MemoryError) as error:
        print(f"dgml: {error_line(error)}", file=sys.stderr)
    return 1


def run(args: argparse.Namespace) -> int:
    if args.command == "info":
        print(metadata(read_dgml(args.source), args.json))
        return 0
    module = "folders" if getattr(args, "out", None) else RUNS[args.command]
    try:
        return import_module(f"dgml.{module}").run(args)
    except ModuleNotFoundError as error:
        install = f"pip install {EXTRAS.get(args.command, 'dgml')!r}"
        raise RuntimeError(f"{args.command} needs the package {error.name}: {install}") from None


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="dgml", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"dgml, version {VERSION} of the format")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    check = {name: add(commands) for name, add in COMMANDS.items()}
    args = parser.parse_args(arguments)
    check[args.command](args, commands.choices[args.command])
    return args


Commands = argparse._SubParsersAction  # argparse has no public name for it
Check = Callable[[argparse.Namespace, argparse.ArgumentParser], None]


def add_encode(commands: Commands) -> Check:
    parser = commands.add_parser("encode", help="write pictures as .dgml files", usage=TWO_WAYS.format("encode"))
    parser.add_argument("paths", nargs="+", metavar="IN", type=Path,
                        help="a picture that Pillow reads, and OUT.dgml; with --out many, or folders of them")  # fmt: skip
    parser.add_argument("--quality", type=int, choices=QUALITIES, help="1 (small) to 6 (good), by default 3")
    parser.add_argument("--search", type=int, default=0, metavar="STEPS",
                        help="look for a better file for so many steps, half a second to a second each for 768x512 pixels; try 10")  # fmt: skip
    add_conversion(parser, "dgml")
    return check_encode


def add_decode(commands: Commands) -> Check:
    parser = commands.add_parser("decode", help="write the pictures of .dgml files", usage=TWO_WAYS.format("decode"))
    parser.add_argument("paths", nargs="+", metavar="IN", type=Path,
                        help="a .dgml file, and OUT.png or another format; with --out many, or folders of them")  # fmt: skip
    parser.add_argument("--original", type=Path, help="the picture that was encoded, to measure the PSNR")
    add_conversion(parser, "png")
    return check_decode


def add_conversion(parser: argparse.ArgumentParser, suffix: str) -> None:
    add = parser.add_argument
    add("--out", metavar="FOLDER", type=Path, help=f"folder for the results, each named as its IN with .{suffix}")
    add("--workers", metavar="N", type=training.count,
        help="processes that share the files of --out, by default as many as there are cores")  # fmt: skip
    add("--compare", action="store_true", help="also write original and decoded side by side")
    add("--checkpoint", metavar="FILE", type=Path, help="a codec of your own, from python -m dgml train")


def add_info(commands: Commands) -> Check:
    parser = commands.add_parser("info", help="print what a .dgml file says of itself")
    parser.add_argument("source", metavar="FILE", type=Path)
    parser.add_argument("--json", action="store_true", help="as JSON")
    return lambda args, parser: None


def add_train(commands: Commands) -> Check:
    training.add_arguments(described(commands, "train", "train a codec on photographs", training.DESCRIPTION))
    return training.check


def add_evaluate(commands: Commands) -> Check:
    evaluation.add_arguments(described(commands, "evaluate", "measure codecs on pictures", evaluation.DESCRIPTION))
    return evaluation.check


def add_reproduce(commands: Commands) -> Check:
    text = "compare each number of the first part with the reference, with published weights"
    described(commands, "reproduce", text, f"{text.capitalize()}: results/reference_kodak22.json.")
    return lambda args, parser: None


def described(commands: Commands, name: str, line: str, description: str) -> argparse.ArgumentParser:
    how = argparse.RawDescriptionHelpFormatter
    return commands.add_parser(name, help=line, description=description, formatter_class=how)


COMMANDS = {"encode": add_encode, "decode": add_decode, "info": add_info, "train": add_train, "evaluate": add_evaluate,
            "reproduce": add_reproduce}  # fmt: skip


def check_encode(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """What argparse can't say of how the arguments go together; it ends with exit status 2."""
    check_paths(args, parser)
    if args.checkpoint and args.quality:
        parser.error("--quality chooses among the codecs of the book, --checkpoint is one of your own")
    if args.search < 0:
        parser.error("--search takes a number of steps, 0 or more")
    if args.search and args.checkpoint:
        parser.error("--search weighs bytes against errors by the lambda of a --quality, and --checkpoint names none")


def check_decode(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    check_paths(args, parser)
    if args.out and (args.original or args.compare):
        parser.error("--original and --compare go with one file")
    if [str(path) for path in (*args.paths[:1], args.original)] == ["-", "-"]:
        parser.error("- is the file or the original, and not both")
    if args.compare and not args.original:
        parser.error("--compare needs --original")


def check_paths(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    if not args.out and len(args.paths) != 2:
        parser.error("give IN and OUT, or files and folders with --out FOLDER")
    if args.workers and not args.out:
        parser.error("--workers share the files of --out FOLDER")
    if "-" in map(str, args.paths) and (args.out or args.compare):
        parser.error("- has no name that --out or --compare could take")


def metadata(data: bytes, as_json: bool) -> str:
    """The header of a file and its sizes."""
    header = read(data)._asdict()
    stream, _ = header.pop("stream"), header.pop("start")
    header["checksum"] = f"{header['checksum']:08x}"
    header |= {"stream_bytes": stream.nbytes, "file_bytes": len(data)}
    header["bpp"] = round(8 * len(data) / (header["height"] * header["width"]), 5)
    return json.dumps(header) if as_json else "\n".join(f"{name:<13} {value}" for name, value in header.items())
