"""What the tests of training share: the arguments of a short run, and how a run is refused."""

import argparse
import csv
from pathlib import Path

import pytest
from safetensors import safe_open

from dgml import cli
from dgml.training import heads, loop, optimizers


def args_for(folder: Path, run: Path, **changed) -> argparse.Namespace:
    """What the command line gives for a run of four steps, with ``changed`` fields."""
    line = ["train", "--quality", "1", "--images", folder, "--run", run, "--steps", "4", "--precision", "no"]
    return argparse.Namespace(**vars(cli.parse([str(part) for part in line])) | changed)


def refused(args: argparse.Namespace) -> None:
    with pytest.raises(ValueError, match="choose another folder"):
        heads.train_mixture(args) if args.mixture else heads.train_prior(args) if args.head else loop.train(args)


def listed(path: Path) -> list[str]:
    with path.open(newline="") as file:
        return [row["sha256"] for row in csv.DictReader(file)]


def named_list(checkpoint: Path) -> str:
    with safe_open(checkpoint, "pt") as file:
        return file.metadata()["photographs"]


def stopped_at(step: int, args: argparse.Namespace, monkeypatch) -> None:
    """Train until a step that fails."""
    real = optimizers.rate_factor
    with monkeypatch.context() as patch:
        patch.setattr(optimizers, "rate_factor", lambda now, *rest: 1 / 0 if now == step else real(now, *rest))
        with pytest.raises(ZeroDivisionError):
            loop.train(args)
