"""The training script: what it learns from, that it resumes exactly, and what it refuses."""

import argparse
import csv
import json
from pathlib import Path

import constriction
import numpy as np
import pytest
import torch
from compressai.models import Cheng2020Anchor
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

import bitstream
import helpers
import train

CHECKPOINTS = sorted((helpers.ROOT / "checkpoints").glob("cheng2020-anchor-q*.safetensors"))
KODAK = set(json.loads((helpers.ROOT / "tests" / "kodak_hashes.json").read_text())["pixels"].values())


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
    for name, value in {"BATCH": 2, "LOG_EVERY": 1, "HOLD_EVERY": 2}.items():
        monkeypatch.setattr(train, name, value)


def arguments(folder, run, **changed):
    given = {"quality": 1, "images": str(folder), "run": str(run), "minutes": None, "steps": 4, "seed": 0, "init": None}
    return argparse.Namespace(
        **given | {"precision": "no", "rate": 1.0, "channels": None, "attention": False} | changed
    )


def test_six_checkpoints_are_bundled():
    assert len(CHECKPOINTS) == 6
    assert sum(path.stat().st_size for path in CHECKPOINTS) <= 16e6


@pytest.mark.parametrize("checkpoint", CHECKPOINTS, ids=lambda path: path.stem)
def test_no_checkpoint_saw_an_evaluation_picture(checkpoint):
    hashes = listed(helpers.ROOT / "checkpoints" / "photographs.csv")
    assert named_list(checkpoint) == train.list_digest(hashes)
    assert len(hashes) > 100 and not KODAK & set(hashes)


@pytest.mark.parametrize("checkpoint", CHECKPOINTS, ids=lambda path: path.stem)
def test_a_checkpoint_names_no_machine_path(checkpoint):
    with safe_open(checkpoint, "pt") as file:
        assert not any(value.startswith(("/", "~")) for value in file.metadata().values())


def test_the_check_on_evaluation_pictures_can_fail():
    hashes = listed(helpers.ROOT / "checkpoints" / "photographs.csv")
    poisoned = [*hashes, next(iter(KODAK))]
    assert KODAK & set(poisoned)
    assert train.list_digest(poisoned) != named_list(CHECKPOINTS[0])


def test_a_killed_run_resumes_exactly(photographs, tmp_path, small, monkeypatch):
    train.train(arguments(photographs, tmp_path / "whole"))

    real = train.rate_factor
    monkeypatch.setattr(train, "rate_factor", lambda progress, step: 1 / 0 if step == 3 else real(progress, step))
    with pytest.raises(ZeroDivisionError):
        train.train(arguments(photographs, tmp_path / "killed"))
    monkeypatch.setattr(train, "rate_factor", real)
    train.train(arguments(photographs, tmp_path / "killed"))

    whole, resumed = (
        torch.load(tmp_path / run / "state.pt", weights_only=True)["codec"] for run in ("whole", "killed")
    )
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_what_a_run_leaves_behind(photographs, tmp_path, small):
    run = tmp_path / "run"
    train.train(arguments(photographs, run))
    with (run / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [1, 2, 3, 4]
    assert rows[1]["held_out_loss"] and not rows[0]["held_out_loss"]
    hashes = listed(run / "photographs.csv")
    assert named_list(run / "best.safetensors") == train.list_digest(hashes)
    codec = Cheng2020Anchor(32)
    helpers.load_checkpoint(codec, run / "best.safetensors")
    assert not list(run.glob("*.part"))


def test_photographs_smaller_than_needed_are_named(tmp_path):
    Image.new("RGB", (100, 300)).save(tmp_path / "tiny.png")
    with pytest.raises(ValueError, match="tiny is 100x300"):
        train.read_photographs(str(tmp_path))


def test_a_folder_without_photographs(tmp_path):
    with pytest.raises(ValueError, match=r"no picture|any data file"):
        train.read_photographs(str(tmp_path))


def test_a_checkpoint_of_another_width(photographs, tmp_path, small):
    train.save_checkpoint(Cheng2020Anchor(48), tmp_path / "wide.safetensors", {})
    with pytest.raises(ValueError, match=r"widths \(48, 48\)"):
        train.train(arguments(photographs, tmp_path / "run", init=str(tmp_path / "wide.safetensors")))


def test_a_run_of_another_quality(photographs, tmp_path, small):
    train.train(arguments(photographs, tmp_path / "run", steps=2))
    with pytest.raises(ValueError, match="run of quality 1"):
        train.train(arguments(photographs, tmp_path / "run", quality=2))


def test_a_gradient_that_is_not_finite_is_skipped(photographs, tmp_path, small, monkeypatch):
    real = train.losses

    def poisoned(*args):
        row = real(*args)
        return {**row, "loss": row["loss"] * float("nan")}

    monkeypatch.setattr(train, "losses", poisoned)
    train.train(arguments(photographs, tmp_path / "run", steps=2))
    saved = torch.load(tmp_path / "run" / "state.pt", weights_only=True)
    assert saved["state"]["skipped"] == 2
    assert all(torch.isfinite(value).all() for value in saved["codec"].values())


def test_patches_depend_on_seed_and_index_alone():
    photographs = [np.random.default_rng(0).integers(0, 256, (200, 150, 3), dtype=np.uint8)]
    one, same, other = (train.Patches(photographs, seed, length=10) for seed in (0, 0, 1))
    assert torch.equal(one[3], same[3]) and not torch.equal(one[3], other[3])
    assert one[3].shape == (3, 128, 128) and one[3].min() >= 0 and one[3].max() <= 1


def test_scaled_latents_survive_rounding():
    torch.manual_seed(0)
    codec, x = Cheng2020Anchor(32), torch.rand(2, 3, 128, 128)
    train.scale_latents(codec, x)
    with torch.no_grad():
        y = codec.g_a(x)
        assert y.std().item() == pytest.approx(5, rel=1e-3)
        assert codec.h_a(y).std().item() == pytest.approx(2, rel=1e-3)


@torch.no_grad()
def test_two_passes_come_closer_to_what_a_decoder_sees():
    codec = helpers.load_codec(3, "bundled")
    x = helpers.pad(helpers.image_to_tensor(helpers.load_images("bundled")[2]["image"]))
    y = codec.g_a(x)
    medians = codec.entropy_bottleneck._get_medians().reshape(1, -1, 1, 1)
    z_hat = torch.round(codec.h_a(y) - medians) + medians
    model, encoder = bitstream.entropy_model(codec), constriction.stream.queue.RangeEncoder()
    exact = bitstream.encode_y(model, bitstream.encode_z(model, codec.h_a(y)[0].double().numpy(), encoder),
                               y[0].double().numpy(), encoder) / bitstream.ONE  # fmt: skip

    def apart(y_hat):
        return np.abs(y_hat[0].numpy() - exact).mean()

    assert apart(train.as_decoded(codec, y, codec.h_s(z_hat))) < 0.6 * apart(torch.round(y))


@pytest.mark.parametrize("z_weight", [0.5, 1.0])
def test_every_part_learns(z_weight):
    torch.manual_seed(0)
    codec, x = Cheng2020Anchor(32), torch.rand(2, 3, 128, 128)
    train.scale_latents(codec, x)
    row = train.losses(codec, x, 0.01, z_weight)
    row["loss"].backward()
    parts = (codec.g_a, codec.h_a, codec.h_s, codec.g_s, codec.context_prediction, codec.entropy_parameters)
    assert all(parameter.grad.abs().sum() > 0 for part in parts for parameter in part.parameters())


def test_scales_learn_from_the_symbols_once_z_counts():
    torch.manual_seed(0)
    codec, x = Cheng2020Anchor(32), torch.rand(2, 3, 128, 128)
    train.scale_latents(codec, x)
    early, late = (train.losses(codec, x, 0.0, weight) for weight in (0.999, 1.0))
    # Without distortion the early loss is the rate of noisy latents; later that of the coded symbols is added.
    assert early["loss"].item() == pytest.approx(early["bpp"].item(), rel=0.01)
    assert late["loss"].item() == pytest.approx(2 * late["bpp"].item(), rel=0.1)


def test_a_codec_with_attention_trains_and_loads(photographs, tmp_path, small):
    train.train(arguments(photographs, tmp_path / "run", attention=True, channels=16))
    codec = helpers.load_trained(tmp_path / "run" / "best.safetensors")
    assert type(codec).__name__ == "Cheng2020Attention" and codec.N == 16


def test_a_head_trains_from_the_codec_s_own(photographs, tmp_path, small):
    train.train_head(arguments(photographs, tmp_path, mixture=2, steps=2, quality=3))
    log = (tmp_path / "log.csv").read_text().splitlines()
    assert log[0] == "step,bits,held_out_bits" and len(log) == 3
    head = load_file(tmp_path / "head.safetensors")
    assert head["4.weight"].shape[0] == 3 * 2 * 32
