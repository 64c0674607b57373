"""Heads on a frozen codec: what they learn, leave behind and refuse."""

import numpy as np
from PIL import Image
from safetensors.torch import load_file
from training.runs import args_for, refused

from dgml import model
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
