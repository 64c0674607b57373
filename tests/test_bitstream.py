"""What is encoded is what is decoded, whatever the picture: sizes, modes, strips, other weights."""

import hashlib
import io
import os
import random
from types import SimpleNamespace

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from samples import attention_codec, flat, gradient, load, noise, photograph, recorded, rows_reached

from dgml import bitstream, container, entropy, images, metrics, settings
from dgml.container import BitstreamError

pictures = st.builds(
    lambda draw, *args: draw(*args),
    st.sampled_from([noise, flat, gradient]),
    st.integers(1, 200),
    st.integers(1, 200),
    st.integers(0, 2**32 - 1),
)
narrow, wide, tiny, whole, one_more = flat(1, 200), noise(200, 1), noise(1, 1), gradient(64, 64), noise(65, 64)


@pytest.mark.slow
@hypothesis.settings(max_examples=8, deadline=None, derandomize=True, database=None)
@given(picture=pictures)
@example(picture=tiny)
@example(picture=narrow)
@example(picture=wide)
@example(picture=whole)
@example(picture=one_more)
def test_the_latents_that_decode_are_those_that_were_encoded(codec, picture):
    with recorded("encode_y", "decode_y") as latents:
        file = bitstream.encode(codec, picture)
        first, second = bitstream.decode(codec, file), bitstream.decode(codec, file)
    encoded, decoded, again = latents
    assert encoded.shape == (codec.M, -(-picture.height // 64) * 4, -(-picture.width // 64) * 4)
    assert np.array_equal(encoded, decoded) and np.array_equal(encoded, again)
    assert first.size == picture.size and first.mode == "RGB"
    assert first.tobytes() == second.tobytes()


def test_latents_beyond_the_tables_are_clamped(own_codec):
    with torch.no_grad():
        own_codec.g_a[-1].weight *= 1e4
        own_codec.h_a[-1].weight *= 1e2
        kernel = own_codec.entropy_parameters[-1].weight  # as large as exact sums bear: below 2**12 in each row
        kernel *= 0.99 * 2**12 / kernel.abs().sum((1, 2, 3)).max()
    with recorded("encode_z", "encode_y", "decode_z", "decode_y") as latents:
        bitstream.decode(own_codec, bitstream.encode(own_codec, noise(100, 70)))
    z, y, z_decoded, y_decoded = latents
    assert np.abs(z - entropy.entropy_model(own_codec).medians[:, None, None]).max() == 127 * 1024
    assert np.array_equal(z, z_decoded) and np.array_equal(y, y_decoded)


def test_a_better_quality_is_larger_and_closer():
    picture = photograph(192, 128)
    files = [bitstream.encode(load(quality), picture, quality) for quality in settings.QUALITIES]
    decoded = [bitstream.decode(load(quality), file) for quality, file in zip(settings.QUALITIES, files)]
    errors = [np.abs(np.subtract(picture, other, dtype=float)).mean() for other in decoded]
    sizes = [len(file) for file in files]
    assert sizes == sorted(set(sizes)) and errors == sorted(set(errors), reverse=True)
    assert errors[-1] < 8 and sizes[-1] < 192 * 128 * 3 / 20


def test_a_file_costs_what_the_floating_point_codec_estimates():
    codec, picture = load(3), photograph(256, 256)
    with torch.no_grad():
        likelihoods = codec(images.image_to_tensor(picture))["likelihoods"]
    estimate = metrics.bpp(likelihoods, 1) / 8
    assert len(bitstream.encode(codec, picture)) == pytest.approx(estimate, rel=0.05)


@pytest.mark.parametrize("name", [1, 6])
@pytest.mark.parametrize("size", [(60, 300), (150, 257)])
def test_strips_fit_together(name, size, monkeypatch):
    """Both transforms in strips of 64 rows, against both in one piece."""
    codec, x = load(name), images.pad(images.image_to_tensor(noise(*size)))
    y = torch.from_numpy(
        np.random.default_rng(0).normal(0, 3, (1, codec.M, x.shape[2] // 16, x.shape[3] // 16))
    ).float()
    for transform, a, unit in ((codec.g_a, x, 1), (codec.h_a, y, 16), (codec.g_s, y, 16)):
        monkeypatch.setattr(bitstream, "AT_ONCE", 2**23)
        whole = bitstream.apply_in_strips(transform, a, unit)
        monkeypatch.setattr(bitstream, "AT_ONCE", 1)
        strips = bitstream.apply_in_strips(transform, a, unit)
        assert whole.shape == strips.shape
        torch.testing.assert_close(strips, whole, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [1, "attention"])
def test_a_strip_sees_all_that_its_rows_depend_on(name):
    """A row of the result that depends on a row of the input lies less than 192 pixels, a strip's halo, from it."""
    codec = attention_codec() if name == "attention" else load(name)
    y, x = torch.zeros(1, codec.M, 40, 4), torch.zeros(1, 3, 1024, 64)
    for transform, a, row, unit, made in ((codec.g_a, x, 512, 1, 16), (codec.h_a, y, 20, 16, 64), (codec.g_s, y, 20, 16, 1)):  # fmt: skip
        reached = rows_reached(transform, a, row)
        assert row * unit - made * (reached[0] + 1) < 192 and made * reached[-1] - unit * (row + 1) < 192


def test_two_runs_write_the_same_bytes(codec):
    assert bitstream.encode(codec, noise(100, 70)) == bitstream.encode(codec, noise(100, 70))


def test_nothing_global_changes():
    codec, picture = load(1), photograph(64, 64)

    def state():
        weights = hashlib.sha256(b"".join(value.numpy().tobytes() for value in codec.state_dict().values()))
        generators = torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()
        modes = torch.is_grad_enabled(), torch.get_default_dtype(), np.geterr(), codec.training, os.environ.copy()
        return weights.hexdigest(), picture.tobytes(), torch.get_num_threads(), generators, modes

    before = state()
    bitstream.decode(codec, bitstream.encode(codec, picture))
    assert state() == before


def test_grey():
    grey = noise(50, 40).convert("L")
    assert bitstream.encode(load(1), grey) == bitstream.encode(load(1), Image.merge("RGB", [grey] * 3))


def test_black_and_white():
    picture = noise(50, 40).convert("1")
    levels = np.where(np.asarray(picture), 255, 0).astype(np.uint8)
    assert bitstream.encode(load(1), picture) == bitstream.encode(load(1), Image.fromarray(np.dstack([levels] * 3)))


def test_transparency_is_laid_on_white():
    picture = noise(50, 40)
    picture.putalpha(0)
    assert bitstream.encode(load(1), picture) == bitstream.encode(load(1), Image.new("RGB", (50, 40), "white"))


def test_palette():
    picture = noise(50, 40).quantize(16)
    colours = np.array(picture.getpalette()).reshape(-1, 3).astype(np.uint8)
    expected = Image.fromarray(colours[np.asarray(picture)])
    assert bitstream.encode(load(1), picture) == bitstream.encode(load(1), expected)


def test_cmyk():
    picture = noise(50, 40)
    inks = Image.merge("CMYK", [*(channel.point(lambda v: 255 - v) for channel in picture.split()), flat(50, 40).getchannel(0).point(lambda v: 0)])  # fmt: skip
    assert bitstream.encode(load(1), inks) == bitstream.encode(load(1), picture)


def test_sixteen_bits():
    grey = np.asarray(noise(50, 40).convert("L"))
    picture = Image.fromarray(grey.astype(np.uint16) * 256 + 17)
    assert picture.mode == "I;16"
    assert bitstream.encode(load(1), picture) == bitstream.encode(load(1), Image.fromarray(np.dstack([grey] * 3)))


def test_a_camera_held_sideways():
    upright, file, exif = noise(50, 40), io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(file, "png", exif=exif)
    sideways = Image.open(file)
    assert sideways.size == (40, 50)
    assert bitstream.encode(load(1), sideways) == bitstream.encode(load(1), upright)


@pytest.mark.parametrize("size", [(65536, 1), (1, 65536), (0, 5), (5, 0)])
def test_a_side_that_does_not_fit_is_refused(size):
    with pytest.raises(ValueError, match=f"{size[0]}x{size[1]} pixels does not fit"):
        bitstream.encode(load(1), Image.new("1", size))


def test_too_many_pixels_are_refused_before_they_are_read():
    with pytest.raises(ValueError, match="does not fit"):
        bitstream.encode(load(1), SimpleNamespace(size=(2**14, 2**13 + 1)))


def test_the_largest_picture_is_not_refused(monkeypatch):
    monkeypatch.setattr(container, "MAX_PIXELS", 64 * 32)
    file = bitstream.encode(load(1), noise(64, 32))
    assert bitstream.decode(load(1), file).size == (64, 32)
    monkeypatch.setattr(container, "MAX_PIXELS", 64 * 32 - 1)
    with pytest.raises(ValueError, match="does not fit"):
        bitstream.encode(load(1), noise(64, 32))
    with pytest.raises(BitstreamError, match="64x32 pixels"):
        bitstream.decode(load(1), file)


def test_other_weights_are_refused(own_codec):
    file = bitstream.encode(load(1), noise(50, 40), 1)
    with pytest.raises(BitstreamError, match="written with other weights"):
        bitstream.decode(load(2), file)
    with torch.no_grad():
        own_codec.g_s[-1][0].weight[0, 0, 0, 0] += 1e-6
    with pytest.raises(BitstreamError, match="written with other weights"):
        bitstream.decode(own_codec, file)
