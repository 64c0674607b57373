"""The same integers on every machine: fixed-point layers, the bound on their sums, a process with other kernels."""

import math
import os
import subprocess
import sys

import constriction
import numpy as np
import pytest
import torch
from samples import CODECS, load, noise, photograph, recorded

from dgml import bitstream, entropy, model, settings


def large_layer(rng, *shape, axis):
    """A layer whose sums reach as near to 2**53 as fixed_point lets them, and an input as large as a layer may see."""
    weight = rng.standard_normal(shape)
    others = tuple(i for i in range(weight.ndim) if i != axis)
    weight = np.trunc(weight / np.abs(weight).sum(others, keepdims=True) * (2**26 - 2**10))
    return entropy.Layer(weight, np.rint(rng.uniform(-(2**30), 2**30, shape[axis])))


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
    expected = a.astype(np.int64).astype(object) @ layer.weight.T.astype(np.int64).astype(object) + layer.bias.astype(
        np.int64
    )
    assert expected.max() > 2**52.9
    assert (entropy.linear(layer, a).astype(np.int64) == expected).all()


@pytest.mark.parametrize("seed", range(3))
def test_convolve_counts_as_integers_do(seed):
    rng = np.random.default_rng(seed)
    layer = large_layer(rng, 3, 3, 20, 90, axis=2)
    a = large_input(rng, layer.weight, 90, 6, 7)
    a[:, 1:4, 1:4] = np.sign(layer.weight[:, :, 0]).transpose(2, 0, 1) * 2**27
    weight, padded = layer.weight.astype(np.int64), np.pad(a.astype(np.int64), ((0, 0), (1, 1), (1, 1)))
    expected = np.array(
        [[np.einsum("ijoc,cij->o", weight, padded[:, h : h + 3, w : w + 3]) for w in range(7)] for h in range(6)]
    ).transpose(2, 0, 1) + layer.bias.astype(np.int64).reshape(-1, 1, 1)
    assert expected.max() > 2**52.9
    assert (entropy.convolve(layer, a).astype(np.int64) == expected).all()


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_summation_does_not_matter(seed):
    rng = np.random.default_rng(seed)
    order = rng.permutation(333)
    layer, a = large_layer(rng, 50, 333, axis=0), large_input(rng, None, 20, 333)
    permuted = layer._replace(weight=layer.weight[:, order])
    assert np.array_equal(entropy.linear(layer, a), entropy.linear(permuted, a[:, order]))
    layer, a = large_layer(rng, 3, 3, 50, 333, axis=2), large_input(rng, None, 333, 5, 9)
    permuted = layer._replace(weight=layer.weight[..., order])
    assert np.array_equal(entropy.convolve(layer, a), entropy.convolve(permuted, a[order]))


def test_the_bound_on_sums_is_tight():
    layer = torch.nn.Conv2d(64, 1, 1, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.fill_(2**20 / 2**14)  # 64 * 2**20 * 2**27 = 2**53
        layer.bias.fill_(0)
        with pytest.raises(ValueError, match=r"2\*\*53"):
            entropy.fixed_point(layer)
        layer.weight[0, 0] -= 1 / 2**14
        assert entropy.fixed_point(layer).weight.sum() == 2**26 - 1
        layer.bias.fill_(2**27 / 2**24)
        with pytest.raises(ValueError, match=r"2\*\*53"):
            entropy.fixed_point(layer)


def test_the_widest_codec_keeps_far_below_the_bound():
    """192 channels, of which the context model sees twelve positions each: an output sums 2,304 products."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        codec = model.DeepAnchor(48, 192).eval()
    exact = entropy.entropy_model(codec)
    assert exact.context.weight.shape == (2 * 192, 12 * 192)
    layers = [exact.context, *exact.parameters]
    largest = max((np.abs(weight).sum(1) * 2.0**27 + np.abs(bias)).max() for weight, bias in layers)
    assert largest < 2**53 / 64
    file = bitstream.encode(codec, noise(70, 40))
    assert bitstream.decode(codec, file).size == (70, 40)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e6])
@pytest.mark.parametrize("name", ["h_s.0", "h_s.2.0", "h_s.8", "context_prediction", "entropy_parameters.4"])
@pytest.mark.parametrize("parameter", ["weight", "bias"])
def test_weights_too_large_for_exact_sums_are_refused(own_codec, name, parameter, value):
    with torch.no_grad():
        getattr(own_codec.get_submodule(name), parameter).view(-1)[0] = value * (1e6 if parameter == "bias" else 1)
    with pytest.raises(ValueError, match=r"2\*\*53"):
        entropy.entropy_model(own_codec)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("value", [math.nan, math.inf, 1e6])
def test_medians_too_large_for_exact_sums_are_refused(own_codec, value):
    with torch.no_grad():
        own_codec.entropy_bottleneck.quantiles[0, 0, 1] = value
    with pytest.raises(ValueError):
        entropy.entropy_model(own_codec)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", ["g_a", "h_a"])
def test_latents_that_are_not_numbers_are_refused(own_codec, name):
    with torch.no_grad():
        next(getattr(own_codec, name).parameters())[:] = math.nan
    with pytest.raises(ValueError):
        bitstream.encode(own_codec, noise(64, 64))


@pytest.mark.parametrize("quality", [-1, 7, 256])
def test_a_quality_that_does_not_fit_is_refused(quality):
    with pytest.raises(ValueError):
        bitstream.encode(load(1), noise(64, 64), quality)


def test_the_grid_rounds_halves_up_and_saturates():
    total = np.array([-3.0, -1, 0, 1, 2, 3]) * 2**13
    assert entropy.requantize(total, activate=False).tolist() == [-1, 0, 0, 1, 1, 2]
    assert entropy.requantize(np.array([-100.0, -150, -50]) * 2**14).tolist() == [-1, -1, 0]
    assert entropy.requantize(np.array([2.0**52, -(2.0**52)]), activate=False).tolist() == [2**26, -(2**26)]


def test_pixel_shuffle_is_that_of_torch():
    a = np.random.default_rng(0).integers(-9, 9, (12, 3, 5))
    expected = torch.nn.functional.pixel_shuffle(torch.from_numpy(a), 2)
    assert np.array_equal(entropy.pixel_shuffle(a), expected)


def test_fixed_point_is_close_to_floating_point(codec):
    """All means and scales of a picture, against the codec's own layers run on the same latents."""
    visited = {}

    def symbols_at(rows, columns, means, scales):
        for row, column, *both in zip(rows, columns, means, scales):
            visited[row, column] = np.concatenate(both[::-1]) / 1024
        return np.rint(3 * rng.standard_normal(means.shape))

    model, rng = entropy.entropy_model(codec), np.random.default_rng(0)
    z_hat = 1024 * np.rint(3 * rng.standard_normal((codec.N, 2, 3)))
    y_hat = entropy.wavefront_scan(model, z_hat, symbols_at)
    with torch.no_grad():
        z, y = (torch.from_numpy(a / 1024)[None].float() for a in (z_hat, y_hat))
        seen = torch.cat((codec.h_s(z), codec.context_prediction(y)), dim=1)
        expected = codec.entropy_parameters(seen)[0].permute(1, 2, 0).numpy()
    fixed = np.array([[visited[row, column] for column in range(12)] for row in range(8)])
    assert np.abs(fixed - expected).max() < 0.01 * (1 + np.abs(expected).max())


# ---------------------------------------------------------------- the scan over y


# Of latents, (height, width).
SIZES = [(1, 1), (1, 9), (9, 1), (2, 2), (2, 7), (7, 2), (4, 4), (5, 16), (16, 5), (32, 48)]


@pytest.mark.parametrize("height, width", SIZES)
def test_wavefronts_visit_every_position_once(height, width):
    visited = [position for rows, columns in entropy.wavefronts(height, width) for position in zip(rows, columns)]
    assert sorted(visited) == list(np.ndindex(height, width))


@pytest.mark.parametrize("height, width", SIZES)
def test_what_a_position_sees_lies_in_earlier_wavefronts(height, width):
    taps = [(i, j) for i in (-2, -1, 0) for j in (-2, -1, 0, 1, 2) if i < 0 or j < 0]
    assert len(taps) == 12
    earlier = set()
    for rows, columns in entropy.wavefronts(height, width):
        wavefront = list(zip(rows.tolist(), columns.tolist()))
        assert wavefront == sorted(wavefront)
        for row, column in wavefront:
            neighbours = {(row + i, column + j) for i, j in taps}
            assert {(i, j) for i, j in neighbours if 0 <= i < height and 0 <= j < width} <= earlier
        earlier.update(wavefront)


def integers(module):
    """Weights in units of 2**-14 and biases in units of 2**-24, as 64-bit integers."""
    return (
        np.rint(module.weight.detach().double().numpy() * 2**14).astype(np.int64),
        np.rint(module.bias.detach().double().numpy() * 2**24).astype(np.int64),
    )


def rescaled(total, slope=0.01):
    """LeakyReLU and the way back to units of 2**-10, one Python number at a time."""
    values = (math.floor((v if v >= 0 else slope * v) / 2**14 + 0.5) for v in total.tolist())
    return np.array([max(-(2**26), min(2**26, v)) for v in values])


def serial_scan(codec, hyper, y):
    """Position after position, row after row, as compress() of CompressAI does it."""
    _, height, width = y.shape
    context_weight, context_bias = integers(codec.context_prediction)
    layers = [integers(codec.entropy_parameters[i]) for i in (0, 2, 4)]
    y_hat = np.zeros((codec.M, height + 4, width + 4), np.int64)
    for row, column in np.ndindex(height, width):
        total = context_bias.copy()
        for i, j in np.ndindex(5, 5):
            if i < 2 or (i == 2 and j < 2):
                total += context_weight[:, :, i, j] @ y_hat[:, row + i, column + j]
        a = np.concatenate((hyper[row, column].astype(np.int64), rescaled(total, slope=1)))
        for i, (weight, bias) in enumerate(layers):
            a = rescaled(weight[:, :, 0, 0] @ a + bias, slope=1 if i == 2 else 0.01)
        means = a[codec.M :]
        symbols = np.rint(y[:, row, column] - means / 1024).clip(-511, 511)
        y_hat[:, row + 2, column + 2] = symbols.astype(np.int64) * 1024 + means
    return y_hat[:, 2:-2, 2:-2]


@pytest.mark.parametrize("name, size", [(1, (1, 1)), (1, (3, 1)), (3, (1, 3)), (6, (2, 2)), ("random", (1, 2))])
def test_wavefronts_give_what_a_serial_scan_gives(name, size):
    codec, rng = load(name), np.random.default_rng(0)
    model = entropy.entropy_model(codec)
    z_hat = 1024 * np.rint(3 * rng.standard_normal((codec.N, *size)))
    y = 20 * rng.standard_normal((codec.M, 4 * size[0], 4 * size[1]))
    y_hat = entropy.encode_y(model, z_hat, y, constriction.stream.queue.RangeEncoder())
    assert np.array_equal(y_hat, serial_scan(codec, entropy.hyper_synthesis(model, z_hat), y))


# ---------------------------------------------------------------- another machine


OTHER_PROCESS = """
import sys
from pathlib import Path
import numpy as np, torch
from PIL import Image
from dgml import bitstream, container, entropy
print(torch.get_num_threads(), torch.backends.cpu.get_cpu_capability())
for file in sorted(Path(sys.argv[1]).glob("*.dgml")):
    codec = torch.load(file.with_suffix(".pt"), weights_only=False)
    data = file.read_bytes()
    latents = entropy.decode_latents(entropy.entropy_model(codec), container.read(data))
    np.savez(file.with_suffix(".npz"), latents=latents, pixels=np.asarray(bitstream.decode(codec, data)))
    file.with_suffix(".theirs").write_bytes(bitstream.encode(codec, Image.open(file.parent / "picture.png")))
"""


@pytest.mark.slow
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
             "OPENBLAS_CORETYPE": "Nehalem", "MKL_CBWR": "COMPATIBLE", "PYTHONPATH": str(settings.ROOT)}  # fmt: skip
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
