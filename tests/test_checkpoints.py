"""Loading a codec: the bundled checkpoints, published ones, and files that are no checkpoint."""

import urllib.request

import pytest
import torch
from safetensors.torch import save_file
from samples import PUBLISHED_N, one_line

from dgml import checkpoints, model
from dgml.checkpoints import checkpoint_path, load_checkpoint, load_codec, load_trained, save_checkpoint
from dgml.model import Cheng2020Anchor, DeepAnchor


@pytest.mark.parametrize("quality", range(1, 7))
def test_bundled_codecs_load(quality):
    codec = load_codec(quality, "bundled")
    assert model.BUNDLED_WIDTHS[quality] == (codec.N, codec.M)
    assert not codec.training
    assert codec.entropy_bottleneck._quantized_cdf.numel() > 0  # update() has run


@pytest.mark.parametrize("quality", [0, 7, -1, "3", 2.5, None])
@pytest.mark.parametrize("weights", ["bundled", "published"])
def test_an_unknown_quality_is_refused(quality, weights):
    with pytest.raises(ValueError, match="quality is 1 to 6") as raised:
        load_codec(quality, weights)
    one_line(raised)


def test_an_unknown_setting_is_refused(monkeypatch):
    with pytest.raises(ValueError, match="DGML_WEIGHTS is 'bundled' or 'published', not 'best'"):
        load_codec(3, "best")
    monkeypatch.setenv("DGML_WEIGHTS", "Bundled")
    with pytest.raises(ValueError, match="not 'Bundled'") as raised:
        load_codec(3)
    one_line(raised)


def test_a_checkpoint_of_another_width_is_refused():
    with pytest.raises(ValueError, match=r"widths \(32, 128\) \(N, M\), not \(48, 48\)") as raised:
        load_checkpoint(Cheng2020Anchor(48), checkpoint_path(3, "bundled"))
    one_line(raised)


@pytest.mark.parametrize("corrupt", [lambda table: table[:5], lambda table: 0 * table, lambda table: table + 1])
def test_a_table_of_z_that_is_none_is_refused(corrupt):
    codec = load_codec(1, "bundled")
    with pytest.raises(ValueError, match="is damaged: its table of z"):
        checkpoints.load_z_table(codec, corrupt(codec.entropy_bottleneck.frequencies), "a.safetensors")


@pytest.mark.parametrize("length", [None, 0, 5, 1000, 1_000_000])
def test_a_damaged_or_missing_checkpoint_is_refused(length, monkeypatch, tmp_path):
    stored = checkpoint_path(3, "bundled").read_bytes()
    monkeypatch.setattr(checkpoints, "CHECKPOINTS", tmp_path)
    damaged = checkpoint_path(3, "bundled")
    if length is not None:
        damaged.write_bytes(stored[:length])
    with pytest.raises(ValueError) as raised:
        load_codec(3, "bundled")
    assert damaged.name in one_line(raised)


@pytest.mark.parametrize(("name", "corrupt", "says"), [
    ("h_a.0.bias", lambda t: t.fill_(float("nan")), "contains NaN or Inf"),
    ("g_s.0.conv2.weight", lambda t: t.fill_(float("inf")), "contains NaN or Inf"),
    (checkpoints.CONTEXT, lambda t: t[:, :, :11].contiguous(), "no checkpoint of this codec"),
    (checkpoints.CONTEXT, lambda t: torch.zeros(256, 128, 30), "no checkpoint of this codec"),
])  # fmt: skip
def test_a_checkpoint_with_one_wrong_tensor_is_refused(name, corrupt, says, tmp_path):
    tensors = checkpoints.read_checkpoint(checkpoint_path(3, "bundled"))
    tensors[checkpoints.CONTEXT] = tensors[checkpoints.CONTEXT].flatten(2)[:, :, :12].contiguous()
    save_file(tensors, tmp_path / "sound.safetensors")
    load_checkpoint(DeepAnchor(32, 128), tmp_path / "sound.safetensors")
    save_file(tensors | {name: corrupt(tensors[name])}, tmp_path / "corrupted.safetensors")
    with pytest.raises(ValueError, match=says) as raised:
        load_checkpoint(DeepAnchor(32, 128), tmp_path / "corrupted.safetensors")
    assert "corrupted.safetensors" in one_line(raised)


def test_a_file_of_something_else_is_refused(tmp_path):
    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError) as raised:
        load_checkpoint(Cheng2020Anchor(32), tmp_path / "other.safetensors")
    assert "other.safetensors" in one_line(raised)


# ---------------------------------------------------------------- published weights


@pytest.mark.parametrize("quality", [3, 6])
def test_published_weights_are_those_of_the_published_file(quality, zoo, monkeypatch, no_network):
    monkeypatch.setenv("TORCH_HOME", str(zoo))
    path = checkpoint_path(quality, "published")
    assert path.is_relative_to(zoo) and path.is_file()
    stored = torch.load(path, weights_only=True)
    codec = load_codec(quality, "published")
    assert codec.N == codec.M == PUBLISHED_N[quality]
    loaded = codec.state_dict()
    for name in ("g_a.0.conv1.weight", "h_s.2.0.bias", "g_s.7.0.weight", "entropy_parameters.4.weight"):
        assert torch.equal(loaded[name], stored[name].float()), name


def test_the_published_name_of_quality_3():
    assert checkpoint_path(3, "published").name == "cheng2020-anchor-3-e49be189.pth.tar"


def test_weights_are_bundled_unless_set(monkeypatch):
    assert load_codec(3).N == 32
    monkeypatch.setenv("DGML_WEIGHTS", "")
    assert load_codec(3).N == 32


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"PK\3\4" + bytes(1000)])
def test_a_damaged_download_is_one_clear_line(content, tmp_path, monkeypatch, no_network):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    path = checkpoint_path(3, "published")
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(RuntimeError, match="DGML_WEIGHTS=published") as raised:
        load_codec(3, "published")
    assert path.name in one_line(raised) and "DGML_WEIGHTS=bundled" in one_line(raised)


def test_published_weights_without_network_are_one_clear_line(tmp_path, monkeypatch):
    def unreachable(*args, **kwargs):
        raise urllib.request.URLError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "urlopen", unreachable)
    with pytest.raises(RuntimeError, match="DGML_WEIGHTS=published: quality 3") as raised:
        load_codec(3, "published")
    assert "set DGML_WEIGHTS=bundled" in one_line(raised)


def test_a_pyramid_of_widths_is_read_off_its_file(tmp_path):
    codec = DeepAnchor(8, 32, (16, 24))
    codec.update()
    save_checkpoint(codec, tmp_path / "pyramid.safetensors", {})
    assert load_trained(tmp_path / "pyramid.safetensors").widths == (8, 16, 24, 32)
