"""What a training step minimizes: every part learns, and the context is nearly that of a decoder."""

import numpy as np
import pytest
import torch
from compressai.models import Cheng2020Anchor

from dgml import bitstream, checkpoints, entropy, images, picture_sets, tables
from dgml.training import loss, start


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
