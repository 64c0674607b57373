"""The buffer of chapters 6 and 7: every integer comes back, and a damaged buffer is refused."""

import struct
import tracemalloc

import numpy as np
import pytest
import torch
from PIL import Image
from samples import one_line, random_levels

from dgml.images import image_to_tensor
from dgml.model import Cheng2020Anchor
from dgml.naive import pack, unpack


def random_latents(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    random = np.random.default_rng(seed)
    y, z = random.integers(-32768, 32768, (1, 4, 6, 5)), random.integers(-9, 10, (1, 3, 2, 2))
    return torch.from_numpy(y).float(), torch.from_numpy(z).float()


def test_pack_and_unpack_keep_every_integer():
    y, z = random_latents()
    y[0, 0, 0, :3] = torch.tensor([-32768, -1, 32767])
    y_back, z_back = unpack(pack(y, z))
    assert torch.equal(y_back, y) and torch.equal(z_back, z)
    assert y_back.dtype == z_back.dtype == torch.float32


def test_the_layout_of_the_buffer():
    y, z = torch.tensor([1.0, -2.0]).reshape(1, 1, 1, 2), torch.tensor([300.0, -32768.0]).reshape(1, 2, 1, 1)
    assert pack(y, z) == struct.pack("<8i4h", 1, 1, 1, 2, 1, 2, 1, 1, 1, -2, 300, -32768)


def test_a_slice_of_a_latent_is_packed_in_order():
    y, z = random_latents()
    assert pack(y.transpose(2, 3), z) == pack(y.transpose(2, 3).contiguous(), z)


def test_the_buffer_of_a_kodak_sized_picture():
    codec = Cheng2020Anchor(128).eval()
    with torch.no_grad():
        y = codec.g_a(image_to_tensor(Image.fromarray(random_levels(512, 768, 3))))
        z = codec.h_a(y)
    assert y.shape == (1, 128, 32, 48) and z.shape == (1, 128, 8, 12)
    buffer = pack(y.round(), z.round())
    assert len(buffer) == 417_824
    assert torch.equal(unpack(buffer)[0], y.round())


@pytest.mark.parametrize("length", range(32 + 2 * 2 + 2 * 1))
def test_a_buffer_cut_short_is_refused(length):
    buffer = pack(torch.ones(1, 1, 1, 2), torch.ones(1, 1, 1, 1))
    with pytest.raises(ValueError) as raised:
        unpack(buffer[:length])
    one_line(raised)


def test_a_buffer_with_a_tail_is_refused():
    with pytest.raises(ValueError) as raised:
        unpack(pack(*random_latents()) + b"\0\0")
    one_line(raised)


HUGE = 2**31 - 1


@pytest.mark.parametrize("place", range(8))
@pytest.mark.parametrize("side", [0, -1, -HUGE - 1, HUGE])
def test_absurd_shapes_are_refused_before_anything_is_allocated(place, side):
    sides = [1, 1, 1, 2, 1, 1, 1, 1]
    sides[place] = side
    buffer = struct.pack("<8i3h", *sides, 1, 2, 3)
    tracemalloc.start()
    with pytest.raises(ValueError) as raised:
        unpack(buffer)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    one_line(raised)
    assert peak < 100_000


def test_two_negative_sides_do_not_make_a_count():
    with pytest.raises(ValueError) as raised:
        unpack(struct.pack("<8i3h", 1, 1, -1, -2, 1, 1, 1, 1, 1, 2, 3))
    one_line(raised)


def test_huge_shapes_do_not_overflow():
    with pytest.raises(ValueError) as raised:
        unpack(struct.pack("<8i", 1, HUGE, HUGE, HUGE, 1, HUGE, HUGE, HUGE))
    one_line(raised)
