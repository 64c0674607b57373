"""The codec's networks: one width is CompressAI's codec, other widths work with its methods."""

import pytest
import torch
from PIL import Image
from samples import random_levels

from dgml.checkpoints import load_codec
from dgml.images import crop, image_to_tensor, pad, tensor_to_image
from dgml.metrics import bpp
from dgml.model import Cheng2020Anchor, DeepAnchor


def test_with_one_width_the_deep_anchor_is_compressai_s_codec():
    ours, theirs = (
        {name: p.shape for name, p in codec.named_parameters()} for codec in (DeepAnchor(32, 32), Cheng2020Anchor(32))
    )
    assert ours == theirs


@pytest.mark.parametrize("inner", [None, (24, 40)])
def test_compressai_s_methods_work_on_other_widths(inner):
    torch.manual_seed(0)
    codec, x = DeepAnchor(16, 32, inner).eval(), torch.rand(1, 3, 64, 128)
    codec.update()
    with torch.no_grad():
        out = codec(x)
        assert out["x_hat"].shape == x.shape
        assert out["likelihoods"]["y"].shape == (1, 32, 4, 8) and out["likelihoods"]["z"].shape == (1, 16, 1, 2)
        packed = codec.compress(x)
        again = codec.decompress(packed["strings"], packed["shape"])["x_hat"]
    assert again.shape == x.shape and torch.isfinite(again).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (65, 130)])
def test_small_and_narrow_pictures_pass_through_the_codec(size):
    codec = load_codec(3, "bundled")
    x = image_to_tensor(Image.fromarray(random_levels(*size, 3)))
    with torch.no_grad():
        out = codec(pad(x))
    x_hat = crop(out["x_hat"], size)
    assert x_hat.shape == x.shape and x_hat.isfinite().all()
    assert bpp(out["likelihoods"], size[0] * size[1]) > 0
    assert tensor_to_image(x_hat).size == size[::-1]
