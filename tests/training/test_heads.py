"""Heads on a frozen codec: what they learn, leave behind and refuse."""

import csv

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from training.runs import args_for, refused

from dgml import mixtures, model
from dgml.checkpoints import load_codec
from dgml.images import image_to_tensor
from dgml.picture_sets import load_images
from dgml.training import heads


def test_a_head_stays_what_it_is(photographs, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/head.safetensors").write_bytes(b"a head")
    for changed in ({}, {"mixture": 1}, {"head": "scales"}):
        refused(args_for(photographs, tmp_path / "run", **changed))
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["head.safetensors"]


def test_a_prior_variant_leaves_out_what_is_smaller_than_its_maps(tmp_path, small, capsys):
    random = np.random.default_rng(0)
    for i, side in enumerate((512, 520, 600, 400)):
        Image.fromarray(random.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(tmp_path / f"{i}.png")
    heads.train_prior(args_for(tmp_path, tmp_path / "run", head="scales", steps=2))
    assert "left out: 3 (smaller than 512 pixels)" in capsys.readouterr().out
    assert (tmp_path / "run/head.safetensors").exists()


def test_a_head_trains_from_the_codec_s_own(photographs, tmp_path, small):
    heads.train_mixture(args_for(photographs, tmp_path, mixture=2, steps=2, quality=3))
    log = (tmp_path / "log.csv").read_text().splitlines()
    assert log[0] == "step,bits,held_out_bits" and len(log) == 3
    head = load_file(tmp_path / "head.safetensors")
    assert head["4.weight"].shape[0] == 3 * 2 * model.BUNDLED_WIDTHS[3][1]
    with safe_open(tmp_path / "head.safetensors", "pt") as file:
        assert file.metadata()["symbols"] == "round(y - m)"


def test_training_lowers_the_bits_of_what_is_coded(photographs, tmp_path, small):
    heads.train_mixture(args_for(photographs, tmp_path, mixture=1, steps=20, quality=3))
    rows = [*csv.DictReader((tmp_path / "log.csv").open())]
    bits = [float(row["bits"]) for row in rows]
    assert np.mean(bits[-5:]) < np.mean(bits[:5])


@pytest.mark.parametrize("k", [1, 3])
def test_the_loss_of_a_head_is_the_bits_that_are_coded(k):
    codec = load_codec(3, "bundled")
    head = mixtures.load_mixture(codec, 3, k)
    x = image_to_tensor(load_images("bundled")[2]["image"])[..., :192, :256]
    y, z_hat = mixtures.y_and_z_hat(codec, x)
    _, y_hat, bits = mixtures.encode_mixtures(codec, head, y, z_hat)
    with torch.no_grad():
        features = mixtures.features_of(codec, codec.h_s(z_hat), y_hat[None])
        loss = float(heads.bits_per_position(head, features, y))
    positions = bits[0].numel()
    assert loss == pytest.approx(float(bits.sum()) / positions, rel=1e-3)
    _, hyper = heads.y_and_hyper(codec, x)
    assert heads.held_out_bits(codec, head, y, hyper) == pytest.approx(loss, rel=0.02)  # two passes, not a scan
