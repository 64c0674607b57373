"""Photographs to train on, and the patches that are cut from them."""

import numpy as np
import pytest
import torch
from PIL import Image

from dgml.training import arguments, data


def test_photographs_smaller_than_needed_are_left_out_and_named(photographs, capsys):
    Image.new("RGB", (100, 300)).save(photographs / "tiny.png")
    assert len(data.read_photographs(str(photographs))) == 3
    assert capsys.readouterr().out == "left out: tiny (smaller than 256 pixels)\n"
    for i in range(2):
        (photographs / f"{i}.png").unlink()
    with pytest.raises(
        ValueError, match="holds 1 photographs that are not smaller than 256 pixels: at least two are needed"
    ):
        data.read_photographs(str(photographs))


def test_a_folder_without_photographs(tmp_path):
    with pytest.raises(ValueError, match=r"no picture|any data file"):
        data.read_photographs(str(tmp_path))


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
