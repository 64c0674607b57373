"""The bitstream: exact round trips, also between processes; a second decoder; damaged files; the command line."""

import hashlib
import io
import json
import math
import os
import random
import struct
import subprocess
import sys
import time
import zlib
from contextlib import contextmanager
from copy import deepcopy
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import constriction
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage import data as photographs

import bitstream
import helpers
from bitstream import BitstreamError

SCRIPT = helpers.ROOT / "bitstream.py"
CODECS = [*helpers.QUALITIES, "random"]  # the last stands for the published weights
HEADER_BYTES = 22
FUZZ = int(os.environ.get("DGML_FUZZ", 2000))  # damaged files; `make fuzz` tries more
SIZES = [
    (1, 1),
    (1, 9),
    (9, 1),
    (2, 2),
    (2, 7),
    (7, 2),
    (4, 4),
    (5, 16),
    (16, 5),
    (32, 48),
]  # of latents, (height, width)


@cache
def load(name: int | str) -> helpers.Cheng2020Anchor:
    """A bundled codec, or one of the published width with random weights, whose latents and scales are spread widely."""
    if name in helpers.QUALITIES:
        return helpers.load_codec(name, "bundled")
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        codec = helpers.Cheng2020Anchor(128).eval()
        y = codec.g_a(torch.rand(1, 3, 128, 128))
        codec.g_a[-1].weight *= 5 / y.std()
        codec.h_a[-1].weight *= 2 / codec.h_a(y).std()
        codec.entropy_parameters[-1].weight *= 10
        codec.entropy_parameters[-1].bias[: codec.M] = torch.logspace(-1.5, 2, codec.M)
    return codec


@pytest.fixture(scope="module", params=CODECS)
def codec(request):
    return load(request.param)


@pytest.fixture
def spoiled():
    """A codec whose weights a test may change."""
    return deepcopy(load(1))


@contextmanager
def recorded(*names):
    """A list of what these functions of bitstream.py return within the block."""
    returned = []
    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            real = getattr(bitstream, name)
            patch.setattr(bitstream, name, lambda *args, real=real: returned.append(real(*args)) or returned[-1])
        yield returned


def noise(width, height, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def flat(width, height, seed=0):
    return Image.new("RGB", (width, height), tuple(np.random.default_rng(seed).integers(0, 256, 3).tolist()))


def gradient(width, height, seed=0):
    return noise(2, 2, seed).resize((width, height), Image.BILINEAR)


def photograph(width, height):
    return Image.fromarray(photographs.chelsea()[:height, 150 : 150 + width])


pictures = st.builds(
    lambda draw, *args: draw(*args),
    st.sampled_from([noise, flat, gradient]),
    st.integers(1, 200),
    st.integers(1, 200),
    st.integers(0, 2**32 - 1),
)
narrow, wide, tiny, whole, one_more = flat(1, 200), noise(200, 1), noise(1, 1), gradient(64, 64), noise(65, 64)


# ---------------------------------------------------------------- round trips


@settings(max_examples=8, deadline=None, derandomize=True, database=None)
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


def test_latents_beyond_the_tables_are_clamped(spoiled):
    with torch.no_grad():
        spoiled.g_a[-1].weight *= 1e4
        spoiled.h_a[-1].weight *= 1e2
        spoiled.entropy_parameters[-1].weight *= 100
    with recorded("encode_z", "encode_y", "decode_z", "decode_y") as latents:
        bitstream.decode(spoiled, bitstream.encode(spoiled, noise(100, 70)))
    z, y, z_decoded, y_decoded = latents
    assert np.abs(z - bitstream.entropy_model(spoiled).medians[:, None, None]).max() == 127 * 1024
    assert np.array_equal(z, z_decoded) and np.array_equal(y, y_decoded)


def test_a_better_quality_is_larger_and_closer():
    picture = photograph(192, 128)
    files = [bitstream.encode(load(quality), picture, quality) for quality in helpers.QUALITIES]
    decoded = [bitstream.decode(load(quality), file) for quality, file in zip(helpers.QUALITIES, files)]
    errors = [np.abs(np.subtract(picture, other, dtype=float)).mean() for other in decoded]
    sizes = [len(file) for file in files]
    assert sizes == sorted(set(sizes)) and errors == sorted(set(errors), reverse=True)
    assert errors[-1] < 8 and sizes[-1] < 192 * 128 * 3 / 20


def test_a_file_costs_what_the_floating_point_codec_estimates():
    codec, picture = load(3), photograph(256, 256)
    with torch.no_grad():
        likelihoods = codec(helpers.image_to_tensor(picture))["likelihoods"]
    estimate = helpers.bpp(likelihoods, 1) / 8
    assert len(bitstream.encode(codec, picture)) == pytest.approx(estimate, rel=0.05)


@pytest.mark.parametrize("name", [1, 6])
@pytest.mark.parametrize("size", [(60, 300), (150, 257)])
def test_strips_fit_together(name, size, monkeypatch):
    """Both transforms in strips of 64 rows, against both in one piece."""
    codec, x = load(name), helpers.pad(helpers.image_to_tensor(noise(*size)))
    y = torch.from_numpy(
        np.random.default_rng(0).normal(0, 3, (1, codec.M, x.shape[2] // 16, x.shape[3] // 16))
    ).float()
    for transform, a, unit in ((codec.g_a, x, 1), (codec.h_a, y, 16), (codec.g_s, y, 16)):
        monkeypatch.setattr(bitstream, "AT_ONCE", 2**23)
        whole = bitstream.apply(transform, a, unit)
        monkeypatch.setattr(bitstream, "AT_ONCE", 1)
        strips = bitstream.apply(transform, a, unit)
        assert whole.shape == strips.shape
        torch.testing.assert_close(strips, whole, rtol=1e-4, atol=1e-4)


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


# ---------------------------------------------------------------- odd pictures


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
    monkeypatch.setattr(bitstream, "MAX_PIXELS", 64 * 32)
    file = bitstream.encode(load(1), noise(64, 32))
    assert bitstream.decode(load(1), file).size == (64, 32)
    monkeypatch.setattr(bitstream, "MAX_PIXELS", 64 * 32 - 1)
    with pytest.raises(ValueError, match="does not fit"):
        bitstream.encode(load(1), noise(64, 32))
    with pytest.raises(BitstreamError, match="64x32 pixels"):
        bitstream.decode(load(1), file)


def test_other_weights_are_refused(spoiled):
    file = bitstream.encode(load(1), noise(50, 40), 1)
    with pytest.raises(BitstreamError, match="written with other weights"):
        bitstream.decode(load(2), file)
    with torch.no_grad():
        spoiled.g_s[-1][0].weight[0, 0, 0, 0] += 1e-6
    with pytest.raises(BitstreamError, match="written with other weights"):
        bitstream.decode(spoiled, file)


# ---------------------------------------------------------------- another process

OTHER_PROCESS = """
import sys
from pathlib import Path
import numpy as np, torch
from PIL import Image
import bitstream
print(torch.get_num_threads(), torch.backends.cpu.get_cpu_capability())
for file in sorted(Path(sys.argv[1]).glob("*.dgml")):
    codec = torch.load(file.with_suffix(".pt"), weights_only=False)
    data = file.read_bytes()
    latents = bitstream.decode_latents(bitstream.entropy_model(codec), bitstream.read(data))
    np.savez(file.with_suffix(".npz"), latents=latents, pixels=np.asarray(bitstream.decode(codec, data)))
    file.with_suffix(".theirs").write_bytes(bitstream.encode(codec, Image.open(file.parent / "picture.png")))
"""


def test_another_process_decodes_the_same(tmp_path):
    """With other kernels: other instructions for torch and both BLAS libraries, another number of threads."""
    picture = photograph(120, 60)
    picture.save(tmp_path / "picture.png")
    expected = {}
    for name in CODECS:
        codec = load(name)
        with recorded("encode_y") as latents:
            file = bitstream.encode(codec, picture)
        (tmp_path / f"{name}.dgml").write_bytes(file)
        torch.save(codec, tmp_path / f"{name}.pt")
        expected[name] = latents[0], np.asarray(bitstream.decode(codec, file), int)
    threads = "2" if torch.get_num_threads() == 1 else "1"
    other = {"OMP_NUM_THREADS": threads, "ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "AVX2",
             "OPENBLAS_CORETYPE": "Nehalem", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2", "PYTHONPATH": str(helpers.ROOT)}  # fmt: skip
    run = subprocess.run(
        [sys.executable, "-c", OTHER_PROCESS, str(tmp_path)], env=os.environ | other, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == [threads, "DEFAULT"]
    for name, (latents, pixels) in expected.items():
        theirs = np.load(tmp_path / f"{name}.npz")
        assert np.array_equal(theirs["latents"], latents), name
        assert np.abs(theirs["pixels"] - pixels).max() <= 1, name
        ours = bitstream.decode(load(name), (tmp_path / f"{name}.theirs").read_bytes())
        assert ours.size == picture.size


# ---------------------------------------------------------------- exact arithmetic


def large_layer(rng, *shape, axis):
    """A layer whose sums reach as near to 2**53 as fixed_point lets them, and an input as large as a layer may see."""
    weight = rng.standard_normal(shape)
    others = tuple(i for i in range(weight.ndim) if i != axis)
    weight = np.trunc(weight / np.abs(weight).sum(others, keepdims=True) * (2**26 - 2**10))
    return bitstream.Layer(weight, np.rint(rng.uniform(-(2**30), 2**30, shape[axis])))


def large_input(rng, weight, *shape):
    """Integers up to 2**27, some with the sign of the weights they meet."""
    return np.rint(rng.uniform(-(2**27), 2**27, shape)) * rng.integers(0, 2, shape)


@pytest.mark.parametrize("seed", range(3))
def test_linear_counts_as_integers_do(seed):
    rng = np.random.default_rng(seed)
    layer = large_layer(rng, 70, 900, axis=0)
    a = large_input(rng, layer.weight, 33, 900)
    a[0] = np.sign(layer.weight[0]) * 2**27  # the largest sum there is
    a[1] = a[0] - (np.arange(900) == 7)  # and its neighbour
    expected = a.astype(int).astype(object) @ layer.weight.T.astype(int).astype(object) + layer.bias.astype(int)
    assert expected.max() > 2**52.9
    assert (bitstream.linear(layer, a).astype(int) == expected).all()


@pytest.mark.parametrize("seed", range(3))
def test_convolve_counts_as_integers_do(seed):
    rng = np.random.default_rng(seed)
    layer = large_layer(rng, 3, 3, 20, 90, axis=2)
    a = large_input(rng, layer.weight, 90, 6, 7)
    a[:, 1:4, 1:4] = np.sign(layer.weight[:, :, 0]).transpose(2, 0, 1) * 2**27
    weight, padded = layer.weight.astype(int), np.pad(a.astype(int), ((0, 0), (1, 1), (1, 1)))
    expected = np.array(
        [[np.einsum("ijoc,cij->o", weight, padded[:, h : h + 3, w : w + 3]) for w in range(7)] for h in range(6)]
    ).transpose(2, 0, 1) + layer.bias.astype(int).reshape(-1, 1, 1)
    assert expected.max() > 2**52.9
    assert (bitstream.convolve(layer, a).astype(int) == expected).all()


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_summation_does_not_matter(seed):
    rng = np.random.default_rng(seed)
    order = rng.permutation(333)
    layer, a = large_layer(rng, 50, 333, axis=0), large_input(rng, None, 20, 333)
    permuted = layer._replace(weight=layer.weight[:, order])
    assert np.array_equal(bitstream.linear(layer, a), bitstream.linear(permuted, a[:, order]))
    layer, a = large_layer(rng, 3, 3, 50, 333, axis=2), large_input(rng, None, 333, 5, 9)
    permuted = layer._replace(weight=layer.weight[..., order])
    assert np.array_equal(bitstream.convolve(layer, a), bitstream.convolve(permuted, a[order]))


def test_the_bound_on_sums_is_tight():
    layer = torch.nn.Conv2d(64, 1, 1, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.fill_(2**20 / 2**14)  # 64 * 2**20 * 2**27 = 2**53
        layer.bias.fill_(0)
        with pytest.raises(ValueError, match=r"2\*\*53"):
            bitstream.fixed_point(layer)
        layer.weight[0, 0] -= 1 / 2**14
        assert bitstream.fixed_point(layer).weight.sum() == 2**26 - 1
        layer.bias.fill_(2**27 / 2**24)
        with pytest.raises(ValueError, match=r"2\*\*53"):
            bitstream.fixed_point(layer)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e6])
@pytest.mark.parametrize("name", ["h_s.0", "h_s.2.0", "h_s.8", "context_prediction", "entropy_parameters.4"])
@pytest.mark.parametrize("parameter", ["weight", "bias"])
def test_weights_too_large_for_exact_sums_are_refused(spoiled, name, parameter, value):
    with torch.no_grad():
        getattr(spoiled.get_submodule(name), parameter).view(-1)[0] = value * (1e6 if parameter == "bias" else 1)
    with pytest.raises(ValueError, match=r"2\*\*53"):
        bitstream.entropy_model(spoiled)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("value", [math.nan, math.inf, 1e6])
def test_medians_too_large_for_exact_sums_are_refused(spoiled, value):
    with torch.no_grad():
        spoiled.entropy_bottleneck.quantiles[0, 0, 1] = value
    with pytest.raises(ValueError):
        bitstream.entropy_model(spoiled)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", ["g_a", "h_a"])
def test_latents_that_are_not_numbers_are_refused(spoiled, name):
    with torch.no_grad():
        next(getattr(spoiled, name).parameters())[:] = math.nan
    with pytest.raises(ValueError):
        bitstream.encode(spoiled, noise(64, 64))


@pytest.mark.parametrize("quality", [-1, 7, 256])
def test_a_quality_that_does_not_fit_is_refused(quality):
    with pytest.raises(ValueError):
        bitstream.encode(load(1), noise(64, 64), quality)


def test_the_grid_rounds_halves_up_and_saturates():
    total = np.array([-3.0, -1, 0, 1, 2, 3]) * 2**13
    assert bitstream.to_grid(total, activate=False).tolist() == [-1, 0, 0, 1, 1, 2]
    assert bitstream.to_grid(np.array([-100.0, -150, -50]) * 2**14).tolist() == [-1, -1, 0]
    assert bitstream.to_grid(np.array([2.0**52, -(2.0**52)]), activate=False).tolist() == [2**26, -(2**26)]


def test_pixel_shuffle_is_that_of_torch():
    a = np.random.default_rng(0).integers(-9, 9, (12, 3, 5))
    expected = torch.nn.functional.pixel_shuffle(torch.from_numpy(a), 2)
    assert np.array_equal(bitstream.pixel_shuffle(a), expected)


def test_fixed_point_is_close_to_floating_point(codec):
    """All means and scales of a picture, against the codec's own layers run on the same latents."""
    visited = {}

    def symbols_at(rows, columns, means, scales):
        for row, column, *both in zip(rows, columns, means, scales):
            visited[row, column] = np.concatenate(both[::-1]) / 1024
        return np.rint(3 * rng.standard_normal(means.shape))

    model, rng = bitstream.entropy_model(codec), np.random.default_rng(0)
    z_hat = 1024 * np.rint(3 * rng.standard_normal((codec.N, 2, 3)))
    y_hat = bitstream.walk(model, z_hat, symbols_at)
    with torch.no_grad():
        z, y = (torch.from_numpy(a / 1024)[None].float() for a in (z_hat, y_hat))
        seen = torch.cat((codec.h_s(z), codec.context_prediction(y)), dim=1)
        expected = codec.entropy_parameters(seen)[0].permute(1, 2, 0).numpy()
    fixed = np.array([[visited[row, column] for column in range(12)] for row in range(8)])
    assert np.abs(fixed - expected).max() < 0.01 * (1 + np.abs(expected).max())


# ---------------------------------------------------------------- wavefronts


@pytest.mark.parametrize("height, width", SIZES)
def test_wavefronts_visit_every_position_once(height, width):
    visited = [position for rows, columns in bitstream.wavefronts(height, width) for position in zip(rows, columns)]
    assert sorted(visited) == list(np.ndindex(height, width))


@pytest.mark.parametrize("height, width", SIZES)
def test_what_a_position_sees_lies_in_earlier_wavefronts(height, width):
    taps = [(i, j) for i in (-2, -1, 0) for j in (-2, -1, 0, 1, 2) if i < 0 or j < 0]
    assert len(taps) == 12
    earlier = set()
    for rows, columns in bitstream.wavefronts(height, width):
        wavefront = list(zip(rows.tolist(), columns.tolist()))
        assert wavefront == sorted(wavefront)
        for row, column in wavefront:
            neighbours = {(row + i, column + j) for i, j in taps}
            assert {(i, j) for i, j in neighbours if 0 <= i < height and 0 <= j < width} <= earlier
        earlier.update(wavefront)


def integers(module):
    """Weights in units of 2**-14 and biases in units of 2**-24, as 64-bit integers."""
    return (
        np.rint(module.weight.detach().double().numpy() * 2**14).astype(int),
        np.rint(module.bias.detach().double().numpy() * 2**24).astype(int),
    )


def rescaled(total, slope=0.01):
    """LeakyReLU and the way back to units of 2**-10, one Python number at a time."""
    values = (math.floor((v if v >= 0 else slope * v) / 2**14 + 0.5) for v in total.tolist())
    return np.array([max(-(2**26), min(2**26, v)) for v in values])


def serial_walk(codec, hyper, y):
    """Position after position, row after row, as compress() of CompressAI does it."""
    _, height, width = y.shape
    context_weight, context_bias = integers(codec.context_prediction)
    layers = [integers(codec.entropy_parameters[i]) for i in (0, 2, 4)]
    y_hat = np.zeros((codec.M, height + 4, width + 4), int)
    for row, column in np.ndindex(height, width):
        total = context_bias.copy()
        for i, j in np.ndindex(5, 5):
            if i < 2 or (i == 2 and j < 2):
                total += context_weight[:, :, i, j] @ y_hat[:, row + i, column + j]
        a = np.concatenate((hyper[row, column].astype(int), rescaled(total, slope=1)))
        for i, (weight, bias) in enumerate(layers):
            a = rescaled(weight[:, :, 0, 0] @ a + bias, slope=1 if i == 2 else 0.01)
        means = a[codec.M :]
        symbols = np.rint(y[:, row, column] - means / 1024).clip(-511, 511)
        y_hat[:, row + 2, column + 2] = symbols.astype(int) * 1024 + means
    return y_hat[:, 2:-2, 2:-2]


@pytest.mark.parametrize("name, size", [(1, (1, 1)), (1, (3, 1)), (3, (1, 3)), (6, (2, 2)), ("random", (1, 2))])
def test_wavefronts_give_what_a_serial_walk_gives(name, size):
    codec, rng = load(name), np.random.default_rng(0)
    model = bitstream.entropy_model(codec)
    z_hat = 1024 * np.rint(3 * rng.standard_normal((codec.N, *size)))
    y = 20 * rng.standard_normal((codec.M, 4 * size[0], 4 * size[1]))
    y_hat = bitstream.encode_y(model, z_hat, y, constriction.stream.queue.RangeEncoder())
    assert np.array_equal(y_hat, serial_walk(codec, bitstream.hyper_synthesis(model, z_hat), y))


# ---------------------------------------------------------------- a second decoder


class RangeDecoder:
    """The range coder's decoder in Python's integers. ``lower`` and ``point`` are 64-bit numbers, ``size`` is the range."""

    def __init__(self, words):
        self.words = iter(words)
        self.lower, self.size = 0, 2**64 - 1
        self.point = (next(self.words, 0) << 32) | next(self.words, 0)

    def read(self, frequencies):
        """The next symbol: an index into frequencies that add up to 2**24."""
        scale = self.size >> 24
        quantile = (self.point - self.lower) % 2**64 // scale
        symbol, below = 0, 0
        while quantile >= below + frequencies[symbol]:
            below += frequencies[symbol]
            symbol += 1
        self.lower = (self.lower + scale * below) % 2**64
        self.size = scale * frequencies[symbol]
        if self.size < 2**32:
            self.lower = (self.lower << 32) % 2**64
            self.size <<= 32
            self.point = (self.point << 32) % 2**64 | next(self.words, 0)
        return symbol


def second_decoder(codec, file):
    """y_hat of a file. Of bitstream.py only the means, the scales and the tables are used."""
    magic, version, _, height, width, _, checksum, _ = struct.unpack("<4sBBHHIII", file[:22])
    assert (magic, version) == (b"DGML", 1)
    decoder = RangeDecoder([word for (word,) in struct.iter_unpack("<I", file[22:])])
    z_table = bitstream.z_frequencies(codec).tolist()
    stored = bitstream.load_file(helpers.ROOT / "checkpoints" / "gaussian_tables.safetensors")
    y_table = [half[:0:-1] + half for half in stored["frequencies"].tolist()]
    thresholds = stored["thresholds"].tolist()

    z_height, z_width = (height + 63) // 64, (width + 63) // 64
    z = [[decoder.read(frequencies) - 127 for _ in range(z_height * z_width)] for frequencies in z_table]
    medians = [round(1024 * median) for median in codec.entropy_bottleneck.quantiles[:, 0, 1].tolist()]
    z_hat = [[1024 * symbol + median for symbol in channel] for channel, median in zip(z, medians)]

    def symbols_at(rows, columns, means, scales):
        symbols = np.zeros(scales.shape)
        tables = [sum(t <= scale for t in thresholds) for scale in scales.ravel().tolist()]
        for i, place in sorted(zip(tables, np.ndindex(scales.shape))):
            symbols[place] = decoder.read(y_table[i]) - 511
        return symbols

    z_hat = np.array(z_hat, float).reshape(-1, z_height, z_width)
    y_hat = bitstream.walk(bitstream.entropy_model(codec), z_hat, symbols_at)
    assert zlib.crc32(file[:14] + y_hat.astype("<i4").tobytes()) == checksum
    return y_hat


@pytest.mark.parametrize("name, size", [(1, (64, 64)), (2, (1, 1)), (6, (100, 60)), ("random", (30, 40))])
@pytest.mark.parametrize("picture", [noise, flat])
def test_a_second_decoder_reads_the_same(name, size, picture):
    codec = load(name)
    with recorded("encode_y") as latents:
        file = bitstream.encode(codec, picture(*size))
    assert np.array_equal(second_decoder(codec, file), latents[0])


def test_the_bytes_of_the_header():
    file = bitstream.encode(load(4), noise(200, 100), 4)
    assert file[:10] == b"DGML" + bytes([1, 4, 100, 0, 200, 0])
    assert file[10:14] == bitstream.entropy_model(load(4)).fingerprint
    assert struct.unpack("<I", file[18:22])[0] == zlib.crc32(file[:18] + file[22:])
    assert len(file) % 4 == 22 % 4
    header = bitstream.read(file)
    assert (header.version, header.quality, header.height, header.width) == (1, 4, 100, 200)
    assert header.stream.tobytes() == file[22:]


# ---------------------------------------------------------------- tables


def y_frequencies():
    return bitstream.load_file(helpers.ROOT / "checkpoints" / "gaussian_tables.safetensors")["frequencies"].astype(int)


def test_frequencies_add_up(codec):
    y, z = y_frequencies(), bitstream.z_frequencies(codec)
    assert y.shape == (128, 512) and z.shape == (codec.N, 255)
    assert y.min() >= 1 and z.min() >= 1
    assert (y[:, 0] + 2 * y[:, 1:].sum(1) == 2**24).all()
    assert (z.sum(1, dtype=int) == 2**24).all()


def test_tables_are_a_gaussian_with_a_share_of_a_wider_one():
    """All that lies within 0.5, 1.5, ... 511.5 of the mean, against the error function; what lies beyond goes to symbol 0."""
    scales = 0.11 * (256 / 0.11) ** (np.arange(128) / 127)
    for i, (frequencies, scale) in enumerate(zip(y_frequencies(), scales)):
        assert (np.diff(frequencies) <= 0).all()
        share = 2**-7 if i else 2**-11

        def within(k, scale=scale, share=share):
            narrow, wide = (math.erf((k + 0.5) / s / math.sqrt(2)) for s in (scale, 3 * scale + 0.5))
            return (1 - share) * narrow + share * wide

        found = (frequencies[0] + 2 * np.cumsum([0, *frequencies[1:]])) / 2**24
        assert np.abs(found - [within(k) + 1 - within(511) for k in range(512)]).max() < 1e-4


def test_thresholds_lie_between_the_scales():
    thresholds = bitstream.gaussian_tables()["thresholds"]
    scales = 1024 * 0.11 * (256 / 0.11) ** (np.arange(128) / 127)
    assert (scales[:-1] < thresholds).all() and (thresholds < scales[1:]).all()


def test_stored_gaussian_tables_are_those_of_the_code():
    stored = bitstream.load_file(helpers.ROOT / "checkpoints" / "gaussian_tables.safetensors")
    made = bitstream.gaussian_tables()
    assert stored.keys() == made.keys()
    assert all(np.array_equal(stored[name], made[name]) for name in made)


@pytest.mark.parametrize("quality", helpers.QUALITIES)
def test_stored_z_tables_are_those_of_the_weights(quality):
    codec = deepcopy(load(quality))
    stored = bitstream.z_frequencies(codec).astype(int)
    del codec.entropy_bottleneck.frequencies
    made = bitstream.z_frequencies(codec).astype(int)
    largest = np.arange(len(made)), made.argmax(1)  # takes what rounding leaves
    assert np.abs(stored - made)[largest].max() <= 255
    stored[largest] = made[largest]
    assert np.abs(stored - made).max() <= 1


def test_frequencies_are_taken_exactly():
    """The first and the last number that each symbol of a table owns, read by the library."""
    y = [np.concatenate((half[:0:-1], half)) for half in y_frequencies()[[0, 40, 80, 127]]]
    for frequencies in (*y, *bitstream.z_frequencies(load(1))[:4].astype(int)):
        distribution = bitstream.categorical(frequencies)
        ends = np.cumsum(frequencies).tolist()
        scale = (2**64 - 1) >> 24
        for symbol, (start, end) in enumerate(zip([0, *ends], ends)):
            for point in (start * scale, end * scale - 1):
                words = np.array([point >> 32, point & 0xFFFFFFFF], np.uint32)
                assert constriction.stream.queue.RangeDecoder(words).decode(distribution) == symbol


# ---------------------------------------------------------------- damage


def repaired(file):
    """The file with a checksum that fits its damage."""
    file = bytearray(file[:HEADER_BYTES].ljust(HEADER_BYTES, b"\0") + file[HEADER_BYTES:])
    file += bytes(-(len(file) - HEADER_BYTES) % 4)
    file[18:22] = struct.pack("<I", zlib.crc32(file[:18] + file[HEADER_BYTES:]))
    return bytes(file)


def damage(file, other, rng):
    """A file damaged in one of eight ways."""
    broken = bytearray(file)
    kind, place = rng.integers(8), rng.integers(len(file))
    if kind == 0:  # bits
        for i in rng.integers(0, 8 * len(file), rng.integers(1, 4)):
            broken[i // 8] ^= 1 << i % 8
    elif kind == 1:  # bytes
        for i in rng.integers(0, len(file), rng.integers(1, 20)):
            broken[i] = rng.integers(256)
    elif kind == 2:  # a cut
        del broken[place:]
    elif kind == 3:  # the end of another file
        broken = broken[:place] + other[rng.integers(len(other)) :]
    elif kind == 4:  # a field of the header
        at, length = [(0, 4), (4, 1), (5, 1), (6, 2), (8, 2), (6, 4), (10, 4), (14, 4), (18, 4)][rng.integers(9)]
        broken[at : at + length] = rng.bytes(length)
    elif kind == 5:  # a tail
        broken += rng.bytes(rng.integers(1, 40))
    elif kind == 6:  # another stream
        broken[HEADER_BYTES:] = rng.bytes(rng.integers(0, 2 * len(file)))
    else:  # another size, some of them absurd
        height, width = rng.integers(1, 513, 2) if rng.random() < 0.8 else (65535, rng.integers(2049, 65536))
        broken[6:10] = struct.pack("<HH", height, width)
    return bytes(broken) if rng.random() < 0.97 else rng.bytes(rng.integers(0, 400))


def of_a_size_to_try(broken, file):
    """The damaged file, or with its size put back if it claims so many pixels that decoding takes long, but not so many that it is refused."""
    height, width = struct.unpack("<HH", broken[6:10].ljust(4, b"\0"))
    return broken[:6] + file[6:10] + broken[10:] if 512 * 512 < height * width <= 2**27 else broken


def test_a_damaged_file_is_refused_or_decodes_to_the_same():
    refused, passed_the_checksum, survived, slowest = 0, 0, 0, 0
    files = {quality: bitstream.encode(load(quality), photograph(64, 64), quality) for quality in (1, 6)}
    models = {quality: bitstream.entropy_model(load(quality)) for quality in files}
    latents = {quality: bitstream.decode_latents(models[quality], bitstream.read(files[quality])) for quality in files}
    decoded = {quality: bitstream.decode(load(quality), files[quality]) for quality in files}
    for seed in range(FUZZ):
        rng = np.random.default_rng(seed)
        quality, repair = (1, 6)[seed % 2], seed // 2 % 2
        file, other = files[quality], files[7 - quality]
        broken = damage(file, other, rng)
        if repair:
            broken = repaired(of_a_size_to_try(broken, file))
        start = time.process_time()
        try:
            header = bitstream.read(broken)
            assert repair or broken == file, seed
            passed_the_checksum += 1
            y_hat = bitstream.decode_latents(models[quality], header)
        except BitstreamError:
            refused += 1
            if seed % 20 < 4:
                with pytest.raises(BitstreamError):
                    bitstream.decode(load(quality), broken)
        else:
            survived += 1
            assert np.array_equal(y_hat, latents[quality]), seed
            assert bitstream.decode(load(quality), broken) == decoded[quality], seed
        slowest = max(slowest, time.process_time() - start)
    assert refused + survived == FUZZ
    assert passed_the_checksum > FUZZ / 4 and 0 < survived < FUZZ / 10
    assert slowest < 10


def test_any_single_bit_is_noticed():
    file = bitstream.encode(load(1), photograph(64, 64), 1)
    for i in range(8 * len(file)):
        broken = bytearray(file)
        broken[i // 8] ^= 1 << i % 8
        with pytest.raises(BitstreamError):
            bitstream.read(bytes(broken))


def test_a_stream_of_the_largest_words_is_refused():
    file = bitstream.encode(load(1), photograph(64, 64), 1)
    with pytest.raises(BitstreamError, match="can't be decoded"):
        bitstream.decode(load(1), repaired(file[:HEADER_BYTES] + b"\xff" * 40))


def test_a_file_without_a_stream_is_refused():
    file = bitstream.encode(load(1), photograph(64, 64), 1)
    with pytest.raises(BitstreamError, match="not those that were encoded"):
        bitstream.decode(load(1), repaired(file[:HEADER_BYTES]))


@pytest.mark.parametrize("height, width", [(0, 64), (64, 0), (65535, 65535), (2049, 65535), (65535, 2049)])
def test_absurd_sizes_are_refused_at_once(height, width):
    file = bytearray(bitstream.encode(load(1), photograph(64, 64), 1))
    file[6:10] = struct.pack("<HH", height, width)
    with pytest.raises(BitstreamError, match=f"{width}x{height} pixels"):
        bitstream.read(repaired(file))


def test_another_size_of_the_same_latents_is_refused():
    file = bytearray(bitstream.encode(load(1), photograph(64, 64), 1))
    file[6:10] = struct.pack("<HH", 63, 64)
    with pytest.raises(BitstreamError):
        bitstream.decode(load(1), repaired(file))


def test_another_version_is_refused():
    file = bytearray(bitstream.encode(load(1), photograph(64, 64), 1))
    file[4] = 2
    with pytest.raises(BitstreamError, match="version 2"):
        bitstream.read(repaired(file))


# ---------------------------------------------------------------- command line


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A picture, its file and some that are neither, in the working folder."""
    monkeypatch.chdir(tmp_path)
    photograph(90, 70).save("cat.png")
    file = bitstream.encode(load(1), photograph(90, 70), 1)
    Path("cat.dgml").write_bytes(file)
    Path("cut.dgml").write_bytes(file[:-4])
    Path("header.dgml").write_bytes(file[:15])
    Path("empty").write_bytes(b"")
    Path("text.txt").write_text("neither a picture nor a file of ours\n")
    Path("cut.png").write_bytes(Path("cat.png").read_bytes()[:5000])
    Path("old.png").write_bytes(b"old")
    Path("old.dgml").write_bytes(b"old")
    Path("unknown.dgml").write_bytes(repaired(file[:5] + bytes([9]) + file[6:]))
    Path("wrong.dgml").write_bytes(repaired(file[:5] + bytes([2]) + file[6:]))
    Path("folder.png").mkdir()
    return tmp_path


@pytest.fixture
def run(monkeypatch, capsys):
    """A function that runs the program and gives its exit status, its output and its complaints."""

    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)  # put back afterwards

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["bitstream.py", *map(str, arguments)])
        status = 0
        try:
            bitstream.main()
        except SystemExit as stop:  # Python prints a message and exits with 1
            status, message = (1, f"{stop.code}\n") if isinstance(stop.code, str) else (stop.code, "")
            return status, *(text + more for text, more in zip(capsys.readouterr(), ("", message)))
        return status, *capsys.readouterr()

    return run


def tree(folder):
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.mark.parametrize("quality", [1, 4])
def test_encode_decode_and_info(folder, run, quality):
    status, output, complaints = run("encode", "cat.png", "new.dgml", "--quality", quality)
    file = Path("new.dgml").read_bytes()
    assert file == bitstream.encode(load(quality), Image.open("cat.png"), quality)
    assert (status, complaints) == (0, "") and f"{len(file)} bytes" in output and " dB" in output

    status, output, complaints = run("decode", "new.dgml", "new.png", "--original", "cat.png")
    assert Image.open("new.png").tobytes() == bitstream.decode(load(quality), file).tobytes()
    error = helpers.psnr(*(helpers.image_to_tensor(Image.open(name)) for name in ("cat.png", "new.png")))
    assert (status, complaints) == (0, "") and output.endswith(f", {error:.2f} dB\n")

    status, output, complaints = run("info", "new.dgml", "--json")
    facts = json.loads(output)
    expected = {"version": 1, "quality": quality, "height": 70, "width": 90, "file_bytes": len(file)}
    assert (status, complaints) == (0, "") and expected.items() <= facts.items()
    assert facts["fingerprint"] == file[10:14].hex() and facts["stream_bytes"] == len(file) - 22
    assert facts["checksum"] == file[14:18][::-1].hex()

    status, output, complaints = run("info", "new.dgml")
    assert (status, complaints) == (0, "") and dict(line.split() for line in output.splitlines())["width"] == "90"
    assert not list(folder.glob("*.part"))


def test_the_program_as_a_process(folder):
    def program(*arguments):
        command = [sys.executable, str(SCRIPT), *arguments]
        return subprocess.run(command, capture_output=True, text=True)

    good = program("decode", "cat.dgml", "new.png")
    assert (good.returncode, good.stderr) == (0, "")
    assert Image.open("new.png").size == (90, 70)
    bad = program("decode", "cut.dgml", "other.png")
    assert bad.returncode == 1 and bad.stdout == "" and len(bad.stderr.splitlines()) == 1
    assert not Path("other.png").exists()


WRONG = [
    ("encode", "missing.png", "old.dgml"),
    ("encode", "text.txt", "old.dgml"),
    ("encode", "empty", "old.dgml"),
    ("encode", "cut.png", "old.dgml"),
    ("encode", "cat.dgml", "old.dgml"),
    ("encode", "folder.png", "old.dgml"),
    ("encode", "cat.png", "missing/new.dgml"),
    ("encode", "cat.png", "folder.png"),
    ("encode", "cat.png", "."),
    ("decode", "missing.dgml", "old.png"),
    ("decode", "text.txt", "old.png"),
    ("decode", "empty", "old.png"),
    ("decode", "cat.png", "old.png"),
    ("decode", "cut.dgml", "old.png"),
    ("decode", "header.dgml", "old.png"),
    ("decode", "unknown.dgml", "old.png"),
    ("decode", "wrong.dgml", "old.png"),
    ("decode", "folder.png", "old.png"),
    ("decode", "cat.dgml", "new.unknown"),
    ("decode", "cat.dgml", "old.dgml"),
    ("decode", "cat.dgml", "new"),
    ("decode", "cat.dgml", "new.psd"),  # Pillow reads the format only
    ("decode", "cat.dgml", "new.xbm"),  # not in colour
    ("decode", "cat.dgml", "missing/new.png"),
    ("decode", "cat.dgml", "folder.png"),
    ("decode", "cat.dgml", "old.png", "--original", "missing.png"),
    ("decode", "cat.dgml", "old.png", "--original", "text.txt"),
    ("info", "missing.dgml"),
    ("info", "text.txt"),
    ("info", "empty", "--json"),
    ("info", "cut.dgml", "--json"),
    ("info", "folder.png"),
]


@pytest.mark.parametrize("arguments", WRONG, ids=" ".join)
def test_wrong_input_gets_one_line_and_changes_nothing(folder, run, recwarn, arguments):
    before = tree(folder)
    status, output, complaints = run(*arguments)
    assert status == 1 and output == ""
    assert complaints.startswith("bitstream.py: ") and complaints.count("\n") == 1
    assert tree(folder) == before and not list(recwarn)


def test_an_original_of_another_size_is_refused(folder, run):
    photograph(91, 70).save("other.png")
    status, _, complaints = run("decode", "cat.dgml", "old.png", "--original", "other.png")
    assert status == 1 and "shapes differ" in complaints and complaints.count("\n") == 1
    assert Path("old.png").read_bytes() == b"old"


def test_a_write_that_fails_leaves_nothing(folder, run, monkeypatch):
    def full_disk(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(helpers.os, "replace", full_disk)
    before = tree(folder)
    for arguments in (("encode", "cat.png", "old.dgml"), ("decode", "cat.dgml", "old.png")):
        status, _, complaints = run(*arguments)
        assert status == 1 and "No space left" in complaints and complaints.count("\n") == 1
    assert tree(folder) == before


@pytest.mark.parametrize("arguments", [(), ("encode", "cat.png"), ("encode", "cat.png", "new.dgml", "--quality", "7")])
def test_a_wrong_command_is_explained(folder, run, arguments):
    before = tree(folder)
    status, output, complaints = run(*arguments)
    assert status == 2 and output == "" and "usage: bitstream.py" in complaints
    assert tree(folder) == before


def png(width, height, pixels=True):
    """A black PNG of one bit a pixel, or one whose pixels break off and are followed by a chunk that is not called anything."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    if not pixels:
        return start + chunk(b"IDAT", b"\x78") + chunk(b"I\xfa\xfaT", b"")
    rows = zlib.compress(bytes(((width + 7) // 8 + 1) * height))
    return start + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_a_picture_that_is_too_wide(folder, run, recwarn):
    Path("wide.png").write_bytes(png(65536, 1))
    status, _, complaints = run("encode", "wide.png", "old.dgml")
    assert status == 1 and "65536x1 pixels does not fit" in complaints and not list(recwarn)
    assert Path("old.dgml").read_bytes() == b"old"


@pytest.mark.parametrize("size", [(14000, 10000), (65535, 65535)])
def test_a_picture_that_is_too_large_is_refused_before_it_is_read(folder, run, recwarn, size):
    Path("large.png").write_bytes(png(*size, pixels=False))
    before = tree(folder)
    status, output, complaints = run("encode", "large.png", "old.dgml")
    assert status == 1 and output == "" and "does not fit" in complaints and complaints.count("\n") == 1
    assert tree(folder) == before and not list(recwarn)


def test_a_picture_that_breaks_off(folder, run):
    Path("broken.png").write_bytes(png(64, 64, pixels=False))
    before = tree(folder)
    status, output, complaints = run("encode", "broken.png", "old.dgml")
    assert status == 1 and output == "" and complaints.count("\n") == 1
    assert tree(folder) == before
