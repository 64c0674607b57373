"""Rate and distortion against libraries and by hand."""

import math

import numpy as np
import pytest
import torch
from samples import CODEC, JPEG, made_up, one_line
from skimage.metrics import peak_signal_noise_ratio

from dgml.metrics import bd_rate_over, bits, bpp, psnr


@pytest.mark.parametrize("seed", range(5))
def test_psnr_is_that_of_scikit_image(seed):
    a, b = np.random.default_rng(seed).random((2, 1, 3, 17, 23), dtype=np.float32)
    expected = peak_signal_noise_ratio(a, b, data_range=1)
    assert psnr(torch.from_numpy(a), torch.from_numpy(b)) == pytest.approx(expected, abs=1e-5)


def test_psnr_of_a_known_error():
    x = torch.full((1, 3, 8, 8), 0.5)
    assert psnr(x, x + 0.1) == pytest.approx(20, abs=1e-4)  # MSE = 0.01


def test_psnr_of_equal_pictures_is_infinite():
    x = torch.rand(1, 3, 8, 8)
    assert psnr(x, x.clone()) == math.inf


def test_psnr_clamps_both():
    black, white = torch.zeros(1, 3, 8, 8), torch.ones(1, 3, 8, 8)
    assert psnr(black, black - 3) == math.inf
    assert psnr(white + 3, white) == math.inf
    assert psnr(black - 3, white + 3) == pytest.approx(0)


def test_psnr_refuses_other_shapes():
    with pytest.raises(ValueError, match="shapes differ") as raised:
        psnr(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 1))  # would broadcast
    one_line(raised)


def test_two_pictures_report_two_values():
    x = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    values = {round(psnr(x, (x + error).clamp(0, 1)), 6) for error in (0.01, 0.02, 0.05, 0.1)}
    assert len(values) == 4


def test_bits_by_hand():
    likelihoods = torch.tensor([[1.0, 0.5], [0.25, 2**-10]])
    assert bits(likelihoods).tolist() == [[0, 1], [2, 10]]


def test_bpp_by_hand():
    y, z = torch.tensor([0.5, 0.25, 0.125]), torch.tensor([0.0625])
    assert bpp({"y": y}, 3) == 2
    assert bpp({"y": y, "z": z}, 4) == 2.5  # 1 + 2 + 3 + 4 bits over 4 pixels
    assert isinstance(bpp({"y": y, "z": z}, 4), float)


def test_bpp_adds_many_symbols_exactly():
    assert bpp({"y": torch.full((5_000_000,), 0.5)}, 5_000_000) == 1


# ---------------------------------------------------------------- BD-rate


def test_no_bd_rate_without_a_common_range():
    assert bd_rate_over(made_up([(0.1, 20), (0.2, 22)]), made_up(CODEC)) is None
    assert bd_rate_over(made_up(JPEG), made_up([(0.1, 28), (0.2, 33), (0.3, 32)])) is None
    assert bd_rate_over(made_up(JPEG), made_up([(0.1, 30)])) is None
