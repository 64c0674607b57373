"""The state of a run: what it needs to go on exactly, and whether a command is the one that began it."""

import argparse
import io
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import Module
from torch.optim import Optimizer

from dgml.files import atomic_write

PARTS = ("arguments", "progress", "codec", "average", "optimizers")  # of state.pt
ELSEWHERE = {"command", "images", "run", "mixture", "head"}  # arguments that shape no run of a codec
FILES = ("init", "warm_start")  # arguments that name a file


@dataclass
class Progress:
    """Where a run stands: what its log says and its next step needs."""

    step: int = 0
    steps: int = 0  # of the whole run; 0 while --minutes has not chosen it
    seconds: float = 0.0
    best: float = float("inf")
    skipped: int = 0
    precision: str = ""  # "no" or "bf16"; empty while --precision auto has not chosen it


def shape_of(args: argparse.Namespace, widths: list[int], photographs: str, processes: int) -> dict[str, Any]:
    """All that shapes a run: the arguments, the digest of the photographs and how many processes share a step.

    Of files only the folder and the name, never where they lie.
    """
    shape = {name: value for name, value in vars(args).items() if name not in ELSEWHERE}
    names = {name: "/".join(Path(shape[name]).parts[-2:]) for name in FILES if shape[name]}
    shape |= names | {"widths": list(widths)}
    shape = {f"--{name.replace('_', '-')}": value for name, value in shape.items()}
    return shape | {"photographs": photographs[:16], "--num_processes": processes}  # the latter is accelerate's


def resume(run: Path, shape: dict[str, Any], codec: Module, average: Module, optimizers: list[Optimizer]) -> Progress:
    """Load the state in the run folder, if there is one; ValueError where it is damaged or of another run."""
    if (run / "head.safetensors").exists():
        raise ValueError(f"{run} holds a head: choose another folder with --run")
    if not (run / "state.pt").exists():
        return Progress()
    saved = read_state(run / "state.pt")
    check_same(run, saved["arguments"], shape)
    Module.load_state_dict(codec, saved["codec"])
    Module.load_state_dict(average, saved["average"])
    for optimizer, state in zip(optimizers, saved["optimizers"]):
        optimizer.load_state_dict(state)
    return Progress(**saved["progress"])


def read_state(path: Path) -> dict[str, Any]:
    """What :func:`save_state` keeps; ValueError where a part is missing or unreadable."""
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        lacking = [part for part in PARTS if part not in saved]
    except Exception as error:  # torch has many, and long ones
        raise ValueError(f"{path} is damaged ({type(error).__name__}): choose another folder with --run") from None
    if lacking == ["arguments"]:
        raise ValueError(f"{path} is of an earlier version and lacks the arguments: choose another folder with --run")
    if lacking:
        raise ValueError(f"{path} is damaged (it lacks {lacking[0]}): choose another folder with --run")
    return saved


def check_same(run: Path, saved: dict[str, Any], given: dict[str, Any]) -> None:
    """ValueError names the first argument of the run in the folder that is not as it is given now."""
    for name in given | saved:
        theirs, ours = saved.get(name), given.get(name)
        if theirs != ours:
            raise ValueError(f"{run} holds a run {with_value(name, theirs)}, not {with_value(name, ours)}: "
                             "choose another folder with --run")  # fmt: skip


def with_value(name: str, value: object) -> str:
    """ "with --batch 2", "with --attention", "without --anneal"."""
    if value is None or value is False:
        return f"without {name}"
    shown = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    return f"with {name}" if value is True else f"with {name} {shown}"


def save_state(
    run: Path, shape: dict[str, Any], progress: Progress, codec: Module, average: Module, optimizers: list[Optimizer]
) -> None:
    """Write ``state.pt``, whole or not at all."""
    state = io.BytesIO()
    torch.save({"arguments": shape, "progress": asdict(progress), "codec": codec.state_dict(), "average": average.state_dict(),
                "optimizers": [optimizer.state_dict() for optimizer in optimizers]}, state)  # fmt: skip
    atomic_write(run / "state.pt", state.getvalue())
