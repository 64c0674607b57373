"""The same integers on every machine: fixed-point layers, the bound on their sums, a process with other kernels."""

import math
import os
import subprocess
import sys

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
    model = entropy.entropy_model(codec)
    assert model.context.weight.shape == (2 * 192, 12 * 192)
    layers = [model.context, *model.parameters]
    largest = max((np.abs(weight).sum(1) * 2.0**27 + np.abs(bias)).max() for weight, bias in layers)
    assert largest < 2**53 / 64
    file = bitstream.encode(codec, noise(70, 40))
    assert bitstream.decode(codec, file).size == (70, 40)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e6])
@pytest.mark.parametrize("name", ["h_s.0", "h_s.2.0", "h_s.8", "context_prediction", "entropy_parameters.4"])
@pytest.mark.parametrize("parameter", ["weight", "bias"])
def test_weights_too_large_for_exact_sums_are_refused(spoiled, name, parameter, value):
    with torch.no_grad():
        getattr(spoiled.get_submodule(name), parameter).view(-1)[0] = value * (1e6 if parameter == "bias" else 1)
    with pytest.raises(ValueError, match=r"2\*\*53"):
        entropy.entropy_model(spoiled)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("value", [math.nan, math.inf, 1e6])
def test_medians_too_large_for_exact_sums_are_refused(spoiled, value):
    with torch.no_grad():
        spoiled.entropy_bottleneck.quantiles[0, 0, 1] = value
    with pytest.raises(ValueError):
        entropy.entropy_model(spoiled)


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


OTHER_PROCESS = """
import sys
from pathlib import Path
import numpy as np, torch
from PIL import Image
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
