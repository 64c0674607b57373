"""What a training saves, and what is bundled: sizes, precision, and the photographs that were learnt from."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from compressai.models import Cheng2020Anchor
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from training.runs import listed, named_list

from dgml import checkpoints, settings
from dgml.training import data

CHECKPOINTS = sorted((settings.ROOT / "checkpoints").glob("cheng2020-anchor-q*.safetensors"))
KODAK = set(json.loads((settings.ROOT / "tests" / "kodak_hashes.json").read_text())["pixels"].values())


def test_six_checkpoints_are_bundled():
    assert len(CHECKPOINTS) == 6
    sizes = [path.stat().st_size for path in CHECKPOINTS]
    assert max(sizes) <= 10e6 and sum(sizes) <= 40e6


@pytest.mark.parametrize("checkpoint", CHECKPOINTS, ids=lambda path: path.stem)
def test_no_checkpoint_saw_an_evaluation_picture(checkpoint):
    hashes = listed(settings.ROOT / "checkpoints" / "photographs.csv")
    assert named_list(checkpoint) == data.list_digest(hashes)
    assert len(hashes) > 100 and not KODAK & set(hashes)


def test_an_evaluation_picture_would_be_found(photographs, tmp_path):
    """Its hash, made by Pillow alone as those of Kodak were, is the one that a run lists."""
    evaluation = hashlib.sha256(Image.open(photographs / "1.png").convert("RGB").tobytes()).hexdigest()
    read = data.read_photographs(str(photographs))
    data.write_list(tmp_path / "photographs.csv", read, data.hashes_of(read))
    assert listed(tmp_path / "photographs.csv")[1] == evaluation
    assert len(set(listed(tmp_path / "photographs.csv"))) == 3


def test_the_digest_of_a_list_tells_any_other_list_and_no_other_order():
    hashes = listed(settings.ROOT / "checkpoints" / "photographs.csv")
    digest = data.list_digest(hashes)
    assert data.list_digest(hashes[::-1]) == digest
    assert digest not in {
        data.list_digest(other) for other in ([*hashes, "0" * 64], hashes[1:], ["0" * 64, *hashes[1:]])
    }


@pytest.mark.parametrize("checkpoint", CHECKPOINTS, ids=lambda path: path.stem)
def test_a_checkpoint_names_no_machine_path(checkpoint):
    with safe_open(checkpoint, "pt") as file:
        assert not any(value.startswith(("/", "~")) for value in file.metadata().values())


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
