"""A run: that it resumes exactly, what it leaves behind, and what it refuses."""

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from compressai.models import Cheng2020Anchor
from PIL import Image
from training.runs import args_for, listed, named_list, refused, stopped_at

from dgml import checkpoints, cli, model, settings
from dgml.training import data, loop, loss


@pytest.mark.parametrize("log_every", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_killed_run_resumes_exactly(photographs, tmp_path, small, monkeypatch, log_every):
    monkeypatch.setattr(loop, "LOG_EVERY", log_every)
    loop.train(args_for(photographs, tmp_path / "whole"))

    stopped_at(3, args_for(photographs, tmp_path / "killed"), monkeypatch)
    # Killed between the log and the state: the log knows more steps than the state.
    (tmp_path / "killed" / "log.csv").write_text((tmp_path / "whole" / "log.csv").read_text())
    loop.train(args_for(photographs, tmp_path / "killed"))

    whole, resumed = (torch.load(tmp_path / run / "state.pt", weights_only=True) for run in ("whole", "killed"))
    for part in ("codec", "average"):
        assert whole[part].keys() == resumed[part].keys()
        assert all(torch.equal(whole[part][name], resumed[part][name]) for name in whole[part])
    rows = [list(csv.DictReader((tmp_path / run / "log.csv").open())) for run in ("whole", "killed")]
    assert [row["step"] for row in rows[0]] == [str(i) for i in range(log_every, 5, log_every)]
    for row in (row for log in rows for row in log):
        del row["seconds"]
    assert rows[0] == rows[1]


@pytest.mark.slow
def test_two_processes_end_with_identical_weights(photographs, tmp_path):
    """Each has its own patches and noise; gradients are joined, and schedule and precision are those of the first."""
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1",
               "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0",
               "-m", "training.one_of_two", photographs, tmp_path]  # fmt: skip
    path = os.pathsep.join(map(str, (settings.ROOT, settings.ROOT / "tests")))
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first, second = (torch.load(tmp_path / f"rank{i}.pt", weights_only=True) for i in (0, 1))
    assert first["weights"].keys() == second["weights"].keys()
    assert all(torch.equal(first["weights"][name], second["weights"][name]) for name in first["weights"])
    assert first["steps"] == second["steps"] > 2
    assert first["precision"] == second["precision"] == "bf16"
    assert not torch.equal(first["patch"], second["patch"])


def test_what_a_run_leaves_behind(photographs, tmp_path, small):
    run = tmp_path / "run"
    loop.train(args_for(photographs, run))
    with (run / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [1, 2, 3, 4]
    assert rows[1]["held_out_loss"] and not rows[0]["held_out_loss"]
    hashes = listed(run / "photographs.csv")
    assert named_list(run / "best.safetensors") == data.list_digest(hashes)
    codec = model.DeepAnchor(*model.BUNDLED_WIDTHS[1])
    checkpoints.load_checkpoint(codec, run / "best.safetensors")
    assert not list(run.glob("*.part"))


def test_a_checkpoint_of_another_width(photographs, tmp_path, small):
    checkpoints.save_checkpoint(Cheng2020Anchor(48), tmp_path / "wide.safetensors", {})
    with pytest.raises(ValueError, match=r"widths \(48, 48\)"):
        loop.train(args_for(photographs, tmp_path / "run", init=str(tmp_path / "wide.safetensors")))


def test_a_run_leaves_another_runs_folder_as_it_is(photographs, tmp_path, small):
    run = tmp_path / "run"
    loop.train(args_for(photographs, run, steps=2))
    before = {path: path.read_bytes() for path in run.iterdir()}
    others = tmp_path / "others"
    shutil.copytree(photographs, others)
    Image.new("RGB", (300, 300), "red").save(others / "red.png")
    for changed in (
        {"quality": 2},
        {"mixture": 1},
        {"head": "scales"},
        {"images": str(others)},
        {"init": checkpoints.checkpoint_path(1, "bundled")},
    ):
        refused(args_for(photographs, run, **changed))
    assert {path: path.read_bytes() for path in run.iterdir()} == before


def test_a_gradient_that_is_not_finite_is_skipped(photographs, tmp_path, small, monkeypatch):
    real = loss.losses

    def poisoned(*args):
        row = real(*args)
        return {**row, "loss": row["loss"] * float("nan")}

    monkeypatch.setattr(loss, "losses", poisoned)
    loop.train(args_for(photographs, tmp_path / "run", steps=2))
    saved = torch.load(tmp_path / "run" / "state.pt", weights_only=True)
    assert saved["progress"]["skipped"] == 2
    assert all(torch.isfinite(value).all() for value in saved["codec"].values())


def test_a_codec_with_attention_trains_and_loads(photographs, tmp_path, small):
    loop.train(args_for(photographs, tmp_path / "run", attention=True, widths=(16, 16)))
    codec = checkpoints.load_trained(tmp_path / "run" / "best.safetensors")
    assert type(codec).__name__ == "Cheng2020Attention" and codec.N == 16


def test_a_full_disk_ends_a_run_with_one_line(photographs, tmp_path, monkeypatch, capsys):
    real = Path.write_bytes

    def write_bytes(path, content):
        if path.name.startswith("state.pt"):
            raise OSError(28, "No space left on device")
        return real(path, content)

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    line = f"train --quality 1 --images {photographs} --run {tmp_path / 'run'} --steps 1 --precision no --widths 8 8 --patch 64"
    assert cli.main(line.split()) == 1
    assert capsys.readouterr().err.splitlines()[-1] == f"dgml: {tmp_path / 'run' / 'state.pt'}: No space left on device"
    assert not list((tmp_path / "run").glob("*.part"))


def test_photographs_that_are_too_small_are_one_line(tmp_path, capsys):
    for i in range(5):
        Image.new("RGB", (300, 255)).save(tmp_path / f"{i}.png")
    assert cli.main(f"train --quality 1 --images {tmp_path} --run {tmp_path / 'run'} --steps 1".split()) == 1
    out, err = capsys.readouterr()
    assert out == "left out: 0, 1, 2 and 2 more (smaller than 256 pixels)\n"
    assert (
        err == f"dgml: {tmp_path} holds 0 photographs that are not smaller than 256 pixels: at least two are needed\n"
    )
    assert not (tmp_path / "run").exists()
