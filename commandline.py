"""The command line of bitstream.py. It imports torch only where something is encoded or decoded."""

import argparse
import json
import os
import sys
from contextlib import nullcontext
from pathlib import Path

import dgml

USAGE = """A photograph as a file, and back.

    python bitstream.py encode PHOTOGRAPH FILE.dgml --quality 3
    python bitstream.py encode PHOTOGRAPH FILE.dgml --search 10  slower, and a better file
    python bitstream.py encode PHOTOGRAPHS ... --out FOLDER      files or folders of them, all that can be read
    python bitstream.py decode FILE.dgml PICTURE.png
    python bitstream.py decode FILES ... --out FOLDER
    python bitstream.py info FILE.dgml

A single - as IN or OUT stands for the standard input or output; a picture is then a PNG.
DGML_WEIGHTS=published codes with CompressAI's checkpoints instead of the bundled ones.
"""
TWO_WAYS = """bitstream.py {0} [options] IN OUT
       bitstream.py {0} [options] IN [IN ...] --out FOLDER"""


def main() -> int:
    """Do what the arguments say, and return the exit status: 0, or 1 where something failed."""
    args = parse()
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name that this terminal can't show is no failure
    try:
        status = run(args)
        sys.stdout.flush()  # a full disk shows here, and not as the interpreter ends
        return status
    except KeyboardInterrupt:
        print("bitstream.py: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # who reads the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (OSError, RuntimeError, ValueError) as error:
        print(f"bitstream.py: {reason(error)}", file=sys.stderr)
    return 1


def run(args: argparse.Namespace) -> int:
    if args.command == "info":
        print(facts(read_dgml(args.source), args.json))
        return 0
    import convert  # and with it torch

    return convert.run(args)


def reason(error: Exception) -> str:
    """One line on what went wrong; of the system's errors the name of the file and what is wrong with it."""
    named = isinstance(error, OSError) and error.filename and error.strerror
    return f"{error.filename}: {error.strerror}" if named else " ".join(str(error).split())


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bitstream.py", description=USAGE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"bitstream.py, version {dgml.VERSION} of the format")
    commands = parser.add_subparsers(dest="command", required=True)
    encode = commands.add_parser("encode", help="write pictures as .dgml files", usage=TWO_WAYS.format("encode"))
    encode.add_argument("paths", nargs="+", metavar="IN", type=Path,
                        help="a picture that Pillow reads, and OUT.dgml; with --out many, or folders of them")  # fmt: skip
    encode.add_argument("--quality", type=int, choices=range(1, 7), help="1 (small) to 6 (good), by default 3")
    encode.add_argument("--search", type=int, default=0, metavar="STEPS",
                        help="look for a better file for so many steps, half a second to a second each for 768x512 pixels; try 10")  # fmt: skip
    decode = commands.add_parser("decode", help="write the pictures of .dgml files", usage=TWO_WAYS.format("decode"))
    decode.add_argument("paths", nargs="+", metavar="IN", type=Path,
                        help="a .dgml file, and OUT.png or another format; with --out many, or folders of them")  # fmt: skip
    decode.add_argument("--original", type=Path, help="the picture that was encoded, to measure the PSNR")
    for command, suffix in ((encode, "dgml"), (decode, "png")):
        command.add_argument(
            "--out", metavar="FOLDER", type=Path, help=f"folder for the results, each named as its IN with .{suffix}"
        )
        command.add_argument("--compare", action="store_true", help="also write original and decoded side by side")
        command.add_argument("--checkpoint", metavar="FILE", type=Path, help="a codec of your own, from train.py")
    info = commands.add_parser("info", help="print what a .dgml file says of itself")
    info.add_argument("source", metavar="FILE", type=Path)
    info.add_argument("--json", action="store_true", help="as JSON")
    args = parser.parse_args()
    if args.command != "info":
        check(args, commands.choices[args.command])
    return args


def check(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """What argparse can't say of how the arguments go together; it ends with exit status 2."""
    if not args.out and len(args.paths) != 2:
        parser.error("give IN and OUT, or files and folders with --out FOLDER")
    if "-" in map(str, args.paths) and (args.out or args.compare):
        parser.error("- has no name that --out or --compare could take")
    if args.command == "encode" and args.checkpoint and args.quality:
        parser.error("--quality chooses among the codecs of the book, --checkpoint is one of your own")
    if args.command == "encode" and args.search < 0:
        parser.error("--search takes a number of steps, 0 or more")
    if args.command == "encode" and args.search and args.checkpoint:
        parser.error("--search weighs bytes against errors by the lambda of a --quality, and --checkpoint names none")
    if args.command == "decode" and args.out and (args.original or args.compare):
        parser.error("--original and --compare go with one file")
    if args.command == "decode" and [str(path) for path in (*args.paths[:1], args.original)] == ["-", "-"]:
        parser.error("- is the file or the original, and not both")
    if args.command == "decode" and args.compare and not args.original:
        parser.error("--compare needs --original")


def read_file(path: Path) -> bytes:
    """The bytes of a file, or of the standard input for "-"."""
    return sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()


def read_dgml(path: Path) -> bytes:
    """The same of a .dgml file; of any other, which may be a film or have no end, the first four bytes alone."""
    with nullcontext(sys.stdin.buffer) if str(path) == "-" else path.open("rb") as file:
        start = file.read(len(dgml.MAGIC))
        return start + file.read() if start == dgml.MAGIC else start


def facts(data: bytes, as_json: bool) -> str:
    """The header of a file and its sizes."""
    header = dgml.read(data)._asdict()
    stream, _ = header.pop("stream"), header.pop("start")
    header["checksum"] = f"{header['checksum']:08x}"
    header |= {"stream_bytes": stream.nbytes, "file_bytes": len(data)}
    header["bpp"] = round(8 * len(data) / (header["height"] * header["width"]), 5)
    return json.dumps(header) if as_json else "\n".join(f"{name:<13} {value}" for name, value in header.items())
