"""The training script: what it learns from, that it resumes exactly, and what it refuses."""

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from compressai.layers import AttentionBlock
from compressai.models import Cheng2020Anchor
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from dgml import bitstream, checkpoints, cli, entropy, images, metrics, model, picture_sets, settings, tables
from dgml.training import arguments, data, heads, loop, loss, optimizers, start

CHECKPOINTS = sorted((settings.ROOT / "checkpoints").glob("cheng2020-anchor-q*.safetensors"))
KODAK = set(json.loads((settings.ROOT / "tests" / "kodak_hashes.json").read_text())["pixels"].values())


def listed(path: Path) -> list[str]:
    with path.open(newline="") as file:
        return [row["sha256"] for row in csv.DictReader(file)]


def named_list(checkpoint: Path) -> str:
    with safe_open(checkpoint, "pt") as file:
        return file.metadata()["photographs"]


@pytest.fixture
def photographs(tmp_path):
    folder = tmp_path / "photographs"
    folder.mkdir()
    random = np.random.default_rng(0)
    for i in range(3):
        smooth = Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize((260, 300), Image.BICUBIC)
        smooth.save(folder / f"{i}.png")
    return folder


@pytest.fixture
def small(monkeypatch):
    """Runs of a few steps that save every other one."""
    for name, value in {"LOG_EVERY": 1, "HOLD_EVERY": 2}.items():
        monkeypatch.setattr(train, name, value)


def arguments(folder, run, **changed):
    """What the command line gives for a run of four steps, with ``changed`` fields."""
    args = cli.parse(["--quality", "1", "--images", str(folder), "--run", str(run), "--steps", "4", "--batch", "2"])
    return argparse.Namespace(**vars(args) | changed)


def test_six_checkpoints_are_bundled():
    assert len(CHECKPOINTS) == 6
    sizes = [path.stat().st_size for path in CHECKPOINTS]
    assert max(sizes) <= 10e6 and sum(sizes) <= 40e6


@pytest.mark.parametrize("checkpoint", CHECKPOINTS, ids=lambda path: path.stem)
def test_no_checkpoint_saw_an_evaluation_picture(checkpoint):
    hashes = listed(settings.ROOT / "checkpoints" / "photographs.csv")
    assert named_list(checkpoint) == data.list_digest(hashes)
    assert len(hashes) > 100 and not KODAK & set(hashes)


@pytest.mark.parametrize("checkpoint", CHECKPOINTS, ids=lambda path: path.stem)
def test_a_checkpoint_names_no_machine_path(checkpoint):
    with safe_open(checkpoint, "pt") as file:
        assert not any(value.startswith(("/", "~")) for value in file.metadata().values())


def test_the_check_on_evaluation_pictures_can_fail():
    hashes = listed(settings.ROOT / "checkpoints" / "photographs.csv")
    poisoned = [*hashes, next(iter(KODAK))]
    assert KODAK & set(poisoned)
    assert data.list_digest(poisoned) != named_list(CHECKPOINTS[0])


@pytest.mark.parametrize("log_every", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_killed_run_resumes_exactly(photographs, tmp_path, small, monkeypatch, log_every):
    monkeypatch.setattr(arguments, "LOG_EVERY", log_every)
    loop.train(arguments(photographs, tmp_path / "whole"))

    real = optimizers.rate_factor
    monkeypatch.setattr(optimizers, "rate_factor", lambda step, *rest: 1 / 0 if step == 3 else real(step, *rest))
    with pytest.raises(ZeroDivisionError):
        loop.train(arguments(photographs, tmp_path / "killed"))
    # Killed between the log and the state: the log knows more steps than the state.
    (tmp_path / "killed" / "log.csv").write_text((tmp_path / "whole" / "log.csv").read_text())
    monkeypatch.setattr(optimizers, "rate_factor", real)
    loop.train(arguments(photographs, tmp_path / "killed"))

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
    """Each has its own patches and noise; gradients are joined, and the schedule is that of one process."""
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1",
               "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0", Path(__file__), photographs, tmp_path]  # fmt: skip
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(settings.ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first, second = (torch.load(tmp_path / f"rank{i}.pt", weights_only=True) for i in (0, 1))
    assert first["weights"].keys() == second["weights"].keys()
    assert all(torch.equal(first["weights"][name], second["weights"][name]) for name in first["weights"])
    assert first["steps"] == second["steps"] > 2
    assert not torch.equal(first["patch"], second["patch"])


def one_of_two_processes(photographs: str, out: str) -> None:
    """What the test above runs twice: a run by --minutes, so short that the clocks would disagree."""
    rank, kept = int(os.environ["RANK"]), {}
    real_average, real_batch = loop.move_average, data.Patches.batch
    loop.TIMED = 2

    def move_average(average, codec, step):
        real_average(average, codec, step)
        kept.update(weights={f"{name}{part}": p for part, c in (("", codec), (" average", average))
                             for name, p in c.named_parameters()}, steps=step + 3)  # fmt: skip

    def batch(self, step, count, process=0):
        time.sleep(0.2 * rank)
        kept["patch"] = real_batch(self, 0, 1, process)
        return real_batch(self, step, count, process)

    loop.move_average, data.Patches.batch = move_average, batch
    loop.train(arguments(photographs, Path(out) / "run", steps=None, minutes=0.03, widths=(8, 8), patch=64))
    torch.save(kept, Path(out) / f"rank{rank}.pt")


def test_what_a_run_leaves_behind(photographs, tmp_path, small):
    run = tmp_path / "run"
    loop.train(arguments(photographs, run))
    with (run / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [1, 2, 3, 4]
    assert rows[1]["held_out_loss"] and not rows[0]["held_out_loss"]
    hashes = listed(run / "photographs.csv")
    assert named_list(run / "best.safetensors") == data.list_digest(hashes)
    codec = model.DeepAnchor(*model.BUNDLED_WIDTHS[1])
    checkpoints.load_checkpoint(codec, run / "best.safetensors")
    assert not list(run.glob("*.part"))


def test_photographs_smaller_than_needed_are_left_out_and_named(photographs, capsys):
    Image.new("RGB", (100, 300)).save(photographs / "tiny.png")
    assert len(data.read_photographs(str(photographs))) == 3
    assert capsys.readouterr().out == "left out, for want of 256 pixels a side: tiny\n"
    for i in range(2):
        (photographs / f"{i}.png").unlink()
    with pytest.raises(ValueError, match="holds 1 photographs that are large enough"):
        data.read_photographs(str(photographs))


@pytest.mark.parametrize(
    "wrong",
    ["--steps 0", "--steps -5", "--minutes 0", "--minutes nan", "--steps 20 --mixture 3", "--minutes 1 --mixture 3",
     "--steps 9 --patch 100", "--steps 9 --decay 2", "--steps 9 --rate 1e308", "--steps 9 --precision fp16", "--steps 9 --attention --widths 8 16",
     "--steps 100 --mixture 3 --rate 0.5", "--steps 100 --head scales --batch 4", "--steps 100 --head means --precision bf16"],
)  # fmt: skip
def test_arguments_out_of_bounds_are_one_line(wrong, capsys):
    with pytest.raises(SystemExit):
        cli.parse(["--quality", "1", "--images", "x", "--run", "y", *wrong.split()])
    assert "error: " in capsys.readouterr().err.splitlines()[-1]


def test_a_folder_without_photographs(tmp_path):
    with pytest.raises(ValueError, match=r"no picture|any data file"):
        data.read_photographs(str(tmp_path))


def test_a_checkpoint_of_another_width(photographs, tmp_path, small):
    checkpoints.save_checkpoint(Cheng2020Anchor(48), tmp_path / "wide.safetensors", {})
    with pytest.raises(ValueError, match=r"widths \(48, 48\)"):
        loop.train(arguments(photographs, tmp_path / "run", init=str(tmp_path / "wide.safetensors")))


def test_a_run_of_another_quality(photographs, tmp_path, small):
    loop.train(arguments(photographs, tmp_path / "run", steps=2))
    with pytest.raises(ValueError, match="a run with quality 1, not 2"):
        loop.train(arguments(photographs, tmp_path / "run", quality=2))


def test_a_run_leaves_another_runs_folder_as_it_is(photographs, tmp_path, small):
    run = tmp_path / "run"
    loop.train(arguments(photographs, run, steps=2))
    before = {path: path.read_bytes() for path in run.iterdir()}
    others = tmp_path / "others"
    shutil.copytree(photographs, others)
    Image.new("RGB", (300, 300), "red").save(others / "red.png")
    for changed in (
        {"quality": 2},
        {"mixture": 1},
        {"head": "scales"},
        {"images": str(others)},
        {"init": CHECKPOINTS[0]},
    ):
        refused(arguments(photographs, run, **changed))
    assert {path: path.read_bytes() for path in run.iterdir()} == before


def test_a_head_stays_what_it_is(photographs, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/head.safetensors").write_bytes(b"a head")
    for changed in ({}, {"mixture": 1}, {"head": "scales"}):
        refused(arguments(photographs, tmp_path / "run", **changed))
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["head.safetensors"]


def refused(args):
    with pytest.raises(ValueError, match="choose another folder"):
        heads.train_mixture(args) if args.mixture else heads.train_prior(args) if args.head else loop.train(args)


def test_a_rung_leaves_out_what_is_smaller_than_its_maps(tmp_path, small, capsys):
    random = np.random.default_rng(0)
    for i, side in enumerate((512, 520, 600, 400)):
        Image.fromarray(random.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(tmp_path / f"{i}.png")
    heads.train_prior(arguments(tmp_path, tmp_path / "run", head="scales", steps=2))
    assert "left out, for want of 512 pixels a side: 3" in capsys.readouterr().out
    assert (tmp_path / "run/head.safetensors").exists()


def test_a_damaged_state_is_one_line(photographs, tmp_path, small):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/state.pt").write_bytes(b"no state")
    with pytest.raises(ValueError, match=r"state\.pt is damaged"):
        loop.train(arguments(photographs, tmp_path / "run"))


@pytest.mark.parametrize("state", [[1], {"kind": "another", "codec": {}}])
def test_a_state_that_lacks_a_part_is_damaged(tmp_path, state):
    torch.save(state, tmp_path / "state.pt")
    with pytest.raises(ValueError, match=r"state\.pt is damaged"):
        loop.read_state(tmp_path / "state.pt")


def test_a_full_disk_is_one_line(tmp_path, monkeypatch):
    def full_disk(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(OSError, match=r"No space left on device: .*best\.safetensors'$"):
        checkpoints.save_checkpoint(Cheng2020Anchor(8), tmp_path / "best.safetensors", {})
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_holds_the_context_in_eight_bits_and_all_else_in_half_precision(tmp_path):
    codec = checkpoints.load_trained(checkpoints.checkpoint_path(3, "bundled"))
    torch.nn.init.normal_(codec.context_prediction.weight, std=0.1)
    codec.context_prediction.weight.data *= codec.context_prediction.mask
    codec.context_prediction.weight.data[7] = 0  # an output that hears nothing
    checkpoints.save_checkpoint(codec, tmp_path / "best.safetensors", {})
    stored, read = load_file(tmp_path / "best.safetensors"), checkpoints.read_checkpoint(tmp_path / "best.safetensors")
    kernel, unit = stored[checkpoints.CONTEXT], stored[checkpoints.CONTEXT_UNIT].float()
    assert kernel.dtype == torch.int8 and kernel.abs().max() > 63
    assert torch.equal(unit.log2(), unit.log2().round()), "a power of two, so that the products are exact"
    wanted = dict(codec.named_parameters())
    assert read.keys() == wanted.keys() | {checkpoints.Z_TABLE}
    apart = (read.pop(checkpoints.CONTEXT) - wanted[checkpoints.CONTEXT]).abs()
    assert (apart.flatten(2) <= unit / 2).all()
    assert all(torch.equal(tensor, wanted[name].half().float()) for name, tensor in read.items() if name in wanted)


def test_only_a_narrower_codec_is_planted(photographs, tmp_path, small):
    checkpoints.save_checkpoint(Cheng2020Anchor(48), tmp_path / "wide.safetensors", {})
    with pytest.raises(ValueError, match="is no narrower than"):
        loop.train(arguments(photographs, tmp_path / "run", plant=str(tmp_path / "wide.safetensors"), widths=(16, 32)))
    attention = settings.ROOT / "checkpoints" / "attention" / "attention-s0" / "best.safetensors"
    with pytest.raises(ValueError, match="is of another architecture"):
        loop.train(arguments(photographs, tmp_path / "run", plant=str(attention), widths=(16, 32)))


def test_a_gradient_that_is_not_finite_is_skipped(photographs, tmp_path, small, monkeypatch):
    real = loss.losses

    def poisoned(*args):
        row = real(*args)
        return {**row, "loss": row["loss"] * float("nan")}

    monkeypatch.setattr(loss, "losses", poisoned)
    loop.train(arguments(photographs, tmp_path / "run", steps=2))
    saved = torch.load(tmp_path / "run" / "state.pt", weights_only=True)
    assert saved["progress"]["skipped"] == 2
    assert all(torch.isfinite(value).all() for value in saved["codec"].values())


def test_patches_depend_on_seed_step_and_process_alone():
    photographs = [np.random.default_rng(0).integers(0, 256, (200, 150, 3), dtype=np.uint8)]
    one, same, other = (data.Patches(photographs, seed, 128) for seed in (0, 0, 1))
    assert torch.equal(one.batch(3), same.batch(3))
    assert not torch.equal(one.batch(3), other.batch(3)) and not torch.equal(one.batch(3), one.batch(3, process=1))
    assert one.batch(3).shape == (arguments.BATCH, 3, 128, 128) and one.batch(3).min() >= 0 and one.batch(3).max() <= 1


def test_patches_are_cut_from_the_photographs():
    """A photograph whose pixels count upwards tells where a patch comes from."""
    photograph = np.arange(140 * 130 * 3, dtype=np.uint32).reshape(140, 130, 3)
    patches = data.Patches([np.zeros((150, 160, 3), np.uint8), (photograph // 220).astype(np.uint8)], 0, 128)
    found = [x for step in range(8) for x in patches.batch(step, 8) * 255 if x.max() > 0]
    rows = np.lib.stride_tricks.sliding_window_view((photograph // 220).astype(np.uint8)[:, :, 0], (128, 128))
    assert found
    for x in found:
        turned = [
            f(x[0].round().byte().numpy()) for f in (lambda a: a, np.fliplr, np.transpose, lambda a: np.fliplr(a).T)
        ]
        assert any((rows == patch).all((2, 3)).any() for patch in turned)


@torch.no_grad()
def test_idle_channels_of_y_wake_without_a_change_of_the_picture(monkeypatch):
    monkeypatch.setattr(start, "ASLEEP", 1e-6)  # those that never say anything: nothing is lost with them
    x = images.image_to_tensor(picture_sets.load_images()[0]["image"])[..., :256, :256]
    codec = checkpoints.load_trained(checkpoints.checkpoint_path(3, "bundled"))
    silenced = slice(5, 9)
    codec.g_a[-1].weight[silenced], codec.g_a[-1].bias[silenced] = 0, 0.2
    y, before = codec.g_a(x), codec(x)["x_hat"]
    woken = start.wake_y(codec, x)
    again, after = codec.g_a(x), codec(x)
    idle = (again != y).any(dim=3).any(dim=2).any(dim=0)
    assert 4 <= woken == int(idle.sum()) < codec.M and idle[silenced].all()
    assert torch.allclose(again[:, silenced].std((0, 2, 3)), torch.tensor(2.0), rtol=1e-3)
    unread = codec.g_s(again.round().masked_fill(idle[None, :, None, None], 0))
    assert torch.allclose(after["x_hat"], unread, atol=1e-4)
    assert metrics.psnr(x, after["x_hat"]) == pytest.approx(metrics.psnr(x, before), abs=0.1)
    assert -after["likelihoods"]["y"][:, silenced].log2().mean() < 5
    assert start.wake_y(codec, x) == 0


@torch.no_grad()
def test_idle_channels_of_z_wake_without_a_change_of_the_picture(monkeypatch):
    monkeypatch.setattr(start, "ASLEEP", 1e-6)  # those that never say anything
    x = images.image_to_tensor(picture_sets.load_images()[0]["image"])[..., :512, :512]
    codec = checkpoints.load_trained(checkpoints.checkpoint_path(3, "bundled"))
    silenced = slice(5, 9)
    medians = codec.entropy_bottleneck._get_medians().reshape(1, -1, 1, 1)
    codec.h_a[-1].weight[silenced], codec.h_a[-1].bias[silenced] = 0, medians[0, silenced, 0, 0]
    z, before = codec.h_a(codec.g_a(x)), codec(x)
    idle = start.asleep(z - medians)
    woken = start.wake_z(codec, x)
    again, after = codec.h_a(codec.g_a(x)), codec(x)
    assert 4 <= woken == int(idle.sum()) < codec.N and idle[silenced].all()
    assert torch.allclose(again[:, idle].std((0, 2, 3)), torch.tensor(1.0), rtol=1e-3)
    assert torch.equal(again[:, ~idle], z[:, ~idle])
    assert metrics.psnr(x, after["x_hat"]) == pytest.approx(metrics.psnr(x, before["x_hat"]), abs=0.1)
    bits_y = [-out["likelihoods"]["y"].log2().sum().item() for out in (before, after)]
    assert bits_y[1] == pytest.approx(bits_y[0], rel=0.01)  # nothing reads the fresh channels yet
    assert 1 < -after["likelihoods"]["z"][:, idle].log2().mean() < 5
    assert start.wake_z(codec, x) == 0


def test_a_planted_codec_makes_the_narrow_ones_pictures():
    torch.manual_seed(0)
    path, x = checkpoints.checkpoint_path(3, "bundled"), torch.rand(2, 3, 64, 64)
    narrow = checkpoints.load_trained(path)
    codec = model.DeepAnchor(narrow.N, narrow.M + 64)
    start.plant(codec, path, x)
    with torch.no_grad():
        y, y_narrow = codec.g_a(x), narrow.g_a(x)
        assert torch.allclose(y[:, : narrow.M], y_narrow, atol=1e-4)
        assert y[:, narrow.M :].std().item() == pytest.approx(2, rel=1e-3)
        assert torch.allclose(codec.g_s(y.round()), narrow.g_s(y_narrow.round()), atol=1e-4)


def test_masked_taps_get_no_gradient_and_stay_zero():
    args = argparse.Namespace(
        seed=0, widths=(16, 16), quality=3, attention=False, init=None, plant=None, wake=False, batch=1
    )
    codec = loop.new_codec(args, data.Patches([np.full((64, 64, 3), 90, np.uint8)], 0, 64))
    soap, *_ = optimizers.make_optimizers(codec)
    kernel, masked = codec.context_prediction.weight, codec.context_prediction.mask == 0
    before = kernel.clone()
    for _ in range(2):  # the first only measures
        soap.zero_grad()
        loss.Objective(codec)(torch.rand(1, 3, 64, 64), 0.01, 1.0)[0].backward()
        assert not kernel.grad[masked].any() and kernel.grad[~masked].all()
        soap.step()
    assert not kernel[masked].any() and not torch.equal(kernel, before)


def test_the_schedule_counts_steps():
    assert [optimizers.rate_factor(step, 1000) for step in (0, 99, 499, 750, 1000)] == [0.01, 1, 1, 0.5, 0]
    assert optimizers.rate_factor(50_000, 100_000, decay=0) == 1
    assert optimizers.rate_factor(40, 0) == 0.41  # --minutes has not chosen the number of steps yet


def test_lambda_comes_down_to_its_value():
    factors = [optimizers.lambda_factor(step, 1000) for step in (0, 500, 1000, 5000)]
    assert factors == pytest.approx([16, 4, 1, 1]) and optimizers.lambda_factor(0, None) == 1


def test_an_attention_block_with_a_wider_input_does_what_it_did():
    torch.manual_seed(0)
    block, x = AttentionBlock(16), torch.randn(1, 16, 12, 12)
    with torch.no_grad():
        before = 5 * block(x)
        start.widen(block, 5.0)
        assert torch.allclose(block(5 * x), before, atol=1e-5)


def test_scaled_latents_survive_rounding():
    torch.manual_seed(0)
    codec, x = Cheng2020Anchor(32), torch.rand(2, 3, 128, 128)
    start.scale_latents(codec, x)
    with torch.no_grad():
        y = codec.g_a(x)
        assert y.std().item() == pytest.approx(5, rel=1e-3)
        assert codec.h_a(y).std().item() == pytest.approx(2, rel=1e-3)
        assert codec.h_s(codec.h_a(y)).std().item() == pytest.approx(1, rel=1e-3)


@torch.no_grad()
def test_two_passes_come_closer_to_what_a_decoder_sees():
    codec = checkpoints.load_codec(3, "bundled")
    x = images.pad(images.image_to_tensor(picture_sets.load_images("bundled")[2]["image"]))
    y = codec.g_a(x)
    medians = codec.entropy_bottleneck._get_medians().reshape(1, -1, 1, 1)
    z_hat = torch.round(codec.h_a(y) - medians) + medians
    _, y_hat = entropy.encode_latents(entropy.entropy_model(codec), *bitstream.analysis(codec, x))
    exact = y_hat / tables.ONE

    def apart(y_hat):
        return np.abs(y_hat[0].numpy() - exact).mean()

    assert apart(loss.as_decoded(codec, y, codec.h_s(z_hat))) < 0.6 * apart(torch.round(y))


@pytest.mark.parametrize("z_weight", [0.5, 1.0])
def test_every_part_learns(z_weight):
    torch.manual_seed(0)
    codec, x = Cheng2020Anchor(32), torch.rand(2, 3, 128, 128)
    start.scale_latents(codec, x)
    row = loss.losses(codec, x, 0.01, z_weight)
    row["loss"].backward()
    parts = (codec.g_a, codec.h_a, codec.h_s, codec.g_s, codec.context_prediction, codec.entropy_parameters)
    assert all(parameter.grad.abs().sum() > 0 for part in parts for parameter in part.parameters())


def test_scales_learn_from_the_symbols_once_z_counts():
    torch.manual_seed(0)
    codec, x = Cheng2020Anchor(32), torch.rand(2, 3, 128, 128)
    start.scale_latents(codec, x)
    early, late = (loss.losses(codec, x, 0.0, weight) for weight in (0.999, 1.0))
    # Without distortion the early loss is the rate of noisy latents; later that of the coded symbols is added.
    assert early["loss"].item() == pytest.approx(early["bpp"].item(), rel=0.01)
    assert late["loss"].item() == pytest.approx(2 * late["bpp"].item(), rel=0.1)


def test_a_codec_with_attention_trains_and_loads(photographs, tmp_path, small):
    loop.train(arguments(photographs, tmp_path / "run", attention=True, widths=(16, 16)))
    codec = checkpoints.load_trained(tmp_path / "run" / "best.safetensors")
    assert type(codec).__name__ == "Cheng2020Attention" and codec.N == 16


def test_a_head_trains_from_the_codec_s_own(photographs, tmp_path, small):
    heads.train_mixture(arguments(photographs, tmp_path, mixture=2, steps=2, quality=3))
    log = (tmp_path / "log.csv").read_text().splitlines()
    assert log[0] == "step,bits,held_out_bits" and len(log) == 3
    head = load_file(tmp_path / "head.safetensors")
    assert head["4.weight"].shape[0] == 3 * 2 * model.BUNDLED_WIDTHS[3][1]


if __name__ == "__main__":
    one_of_two_processes(*sys.argv[1:])
