"""How a codec starts: scaled, around a narrower one, or with fresh channels in the place of dead ones."""

import pytest
import torch
from compressai.layers import AttentionBlock
from compressai.models import Cheng2020Anchor
from training.runs import args_for

from dgml import checkpoints, images, metrics, model, picture_sets, settings
from dgml.training import loop, start


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


def test_only_a_narrower_codec_is_planted(photographs, tmp_path, small):
    checkpoints.save_checkpoint(Cheng2020Anchor(48), tmp_path / "wide.safetensors", {})
    with pytest.raises(ValueError, match="is no narrower than"):
        loop.train(args_for(photographs, tmp_path / "run", plant=str(tmp_path / "wide.safetensors"), widths=(16, 32)))
    attention = settings.ROOT / "checkpoints" / "attention" / "attention-s0" / "best.safetensors"
    with pytest.raises(ValueError, match="is of another architecture"):
        loop.train(args_for(photographs, tmp_path / "run", plant=str(attention), widths=(16, 32)))


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
