"""How a codec starts: scaled, around a narrower one, or with fresh channels in the place of dead ones."""

import pytest
import torch
from compressai.layers import AttentionBlock
from compressai.models import Cheng2020Anchor
from training.runs import args_for

from dgml import checkpoints, images, metrics, model, picture_sets, settings
from dgml.model import z_medians
from dgml.training import loop, start


@torch.no_grad()
def test_dead_channels_of_y_are_reinitialized_without_a_change_of_the_picture(monkeypatch):
    monkeypatch.setattr(metrics, "DEAD", 1e-4)  # those that never say anything: nothing is lost with them
    x = images.image_to_tensor(picture_sets.load_images()[0]["image"])[..., :256, :256]
    codec = checkpoints.load_trained(checkpoints.checkpoint_path(3, "bundled"))
    constant = slice(5, 9)
    codec.g_a[-1].weight[constant], codec.g_a[-1].bias[constant] = 0, 0.2
    assert not start.dead_on(codec, x, "y")[constant].any()  # constant, and still expensive: the scales are as before
    predicted = codec.entropy_parameters[-1]
    scales, means = predicted.bias.chunk(2)
    for weight in predicted.weight.chunk(2):
        weight[constant] = 0
    scales[constant], means[constant] = 0, 0.2
    y, before = codec.g_a(x), codec(x)["x_hat"]
    fresh = start.reinitialize_y(codec, x)
    again, after = codec.g_a(x), codec(x)
    dead = (again != y).any(dim=3).any(dim=2).any(dim=0)
    assert 4 <= fresh == int(dead.sum()) < codec.M and dead[constant].all()
    assert torch.allclose(again[:, constant].std((0, 2, 3)), torch.tensor(2.0), rtol=1e-3)
    unread = codec.g_s(again.round().masked_fill(dead[None, :, None, None], 0))
    assert torch.allclose(after["x_hat"], unread, atol=1e-4)
    assert metrics.psnr(x, after["x_hat"]) == pytest.approx(metrics.psnr(x, before), abs=0.1)
    assert -after["likelihoods"]["y"][:, constant].log2().mean() < 5
    assert start.reinitialize_y(codec, x) == 0


@torch.no_grad()
def test_dead_channels_of_z_are_reinitialized_without_a_change_of_the_picture():
    x = images.image_to_tensor(picture_sets.load_images()[0]["image"])[..., :512, :512]
    codec = checkpoints.load_trained(checkpoints.checkpoint_path(3, "bundled"))
    constant = slice(5, 9)
    one_dead = int(start.dead_on(codec, x, "z").nonzero()[0])
    for parameter in codec.entropy_bottleneck.parameters():
        parameter[constant] = parameter[one_dead]
    medians = z_medians(codec)
    codec.h_a[-1].weight[constant], codec.h_a[-1].bias[constant] = 0, medians[0, constant, 0, 0]
    z, before = codec.h_a(codec.g_a(x)), codec(x)
    dead = start.dead_on(codec, x, "z")
    fresh = start.reinitialize_z(codec, x)
    again, after = codec.h_a(codec.g_a(x)), codec(x)
    assert 4 <= fresh == int(dead.sum()) < codec.N and dead[constant].all()
    assert torch.allclose(again[:, dead].std((0, 2, 3)), torch.tensor(1.0), rtol=1e-3)
    assert torch.equal(again[:, ~dead], z[:, ~dead])
    assert metrics.psnr(x, after["x_hat"]) == pytest.approx(metrics.psnr(x, before["x_hat"]), abs=0.1)
    bits_y = [-out["likelihoods"]["y"].log2().sum().item() for out in (before, after)]
    assert bits_y[1] == pytest.approx(bits_y[0], rel=0.01)  # nothing reads the fresh channels yet
    assert 1 < -after["likelihoods"]["z"][:, dead].log2().mean() < 5
    assert start.reinitialize_z(codec, x) == 0


def test_a_warm_started_codec_makes_the_narrow_ones_pictures():
    torch.manual_seed(0)
    path, x = checkpoints.checkpoint_path(3, "bundled"), torch.rand(2, 3, 64, 64)
    narrow = checkpoints.load_trained(path)
    codec = model.DeepAnchor(narrow.N, narrow.M + 64)
    start.warm_start(codec, path, x)
    with torch.no_grad():
        y, y_narrow = codec.g_a(x), narrow.g_a(x)
        assert torch.allclose(y[:, : narrow.M], y_narrow, atol=1e-4)
        assert y[:, narrow.M :].std().item() == pytest.approx(2, rel=1e-3)
        assert torch.allclose(codec.g_s(y.round()), narrow.g_s(y_narrow.round()), atol=1e-4)


def test_only_a_narrower_codec_is_a_warm_start(photographs, tmp_path, small):
    checkpoints.save_checkpoint(Cheng2020Anchor(48), tmp_path / "wide.safetensors", {})
    with pytest.raises(ValueError, match="is no narrower than"):
        loop.train(
            args_for(photographs, tmp_path / "run", warm_start=str(tmp_path / "wide.safetensors"), widths=(16, 32))
        )
    attention = settings.ROOT / "checkpoints" / "attention" / "attention-s0" / "best.safetensors"
    with pytest.raises(ValueError, match="is of another architecture"):
        loop.train(args_for(photographs, tmp_path / "run", warm_start=str(attention), widths=(16, 32)))


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


def test_a_channel_is_dead_by_what_its_symbols_cost_on_average():
    p = torch.ones(2, 3, 4, 5)
    p[0, 0, 0, 0] = 2**-0.39  # a fortieth of this is under a hundredth of a bit
    p[0, 1, 0, 0] = 2**-0.41
    p[:, 2] = 0.5
    assert metrics.dead_channels(p).tolist() == [True, False, False]


def test_dead_channels_are_those_of_rounded_symbols_in_training_too():
    codec, x = checkpoints.load_trained(checkpoints.checkpoint_path(3, "bundled")), torch.rand(1, 3, 64, 64)
    dead = start.dead_on(codec, x, "y")
    assert dead.any() and torch.equal(start.dead_on(codec.train(), x, "y"), dead) and codec.training
