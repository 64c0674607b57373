"""A decoder written a second time, after book/format.md, reads the same, to the picture.

It shares no code with dgml: its range coder works in Python's integers, its layers and its scan position by position
in float64, from the tensors of the checkpoint's file and the stored tables.  Only the random codec, which has no file,
borrows the table of z.
"""

import json
import struct
import zlib

import numpy as np
import pytest
import torch
from make_vectors import FOLDER
from PIL import Image
from safetensors.torch import load_file
from samples import flat, load, noise, recorded
from torch.nn.functional import conv2d, leaky_relu, pixel_shuffle

from dgml import bitstream, checkpoints, settings, tables


class RangeDecoder:
    """The range coder's decoder in Python's integers. ``lower`` and ``point`` are 64-bit numbers, ``size`` is the
    range.
    """

    def __init__(self, words):
        self.words = iter(words)
        self.lower, self.size = 0, 2**64 - 1
        self.point = (next(self.words, 0) << 32) | next(self.words, 0)

    def read(self, frequencies):
        """The next symbol: an index into frequencies that add up to 2**24."""
        scale = self.size >> 24
        ends = np.cumsum(frequencies, dtype=np.int64)
        symbol = int(np.searchsorted(ends, (self.point - self.lower) % 2**64 // scale, side="right"))
        own = int(frequencies[symbol])
        below = int(ends[symbol]) - own
        self.lower = (self.lower + scale * below) % 2**64
        self.size = scale * own
        if self.size < 2**32:
            self.lower = (self.lower << 32) % 2**64
            self.size <<= 32
            self.point = (self.point << 32) % 2**64 | next(self.words, 0)
        return symbol


def rescaled(total, slope):
    """LeakyReLU, and the way from units of 2**-24 back to 2**-10."""
    return np.clip(np.floor(np.where(total < 0, slope * total, total) / 2**14 + 0.5), -(2**26), 2**26)


def tensors_of(name):
    """What a checkpoint's file holds; of the random codec, which has none, the same tensors."""
    if name != "random":
        return load_file(checkpoints.checkpoint_path(name, "bundled"))
    stored = dict(load(name).named_parameters()) | {"context_prediction.unit": torch.ones(())}
    stored["context_prediction.weight"] = stored["context_prediction.weight"].flatten(2)[:, :, :12]
    stored["entropy_bottleneck.frequencies"] = torch.from_numpy(tables.z_frequencies(load(name)))
    return {key: tensor.detach() for key, tensor in stored.items()}


def second_decoder(stored, file):
    """y_hat (M, h, w) of a file, in units of 2**-10."""
    magic, version, _, height, width, _, checksum, _ = struct.unpack("<4sBBHHIII", file[:22])
    assert (magic, version) == (b"DGML", 1)
    decoder = RangeDecoder([word for (word,) in struct.iter_unpack("<I", file[22:])])
    stored = {name: tensor.double().numpy() for name, tensor in stored.items()}
    integers = {name: np.rint(tensor * 2 ** (14 if "weight" in name else 24)) for name, tensor in stored.items()}

    # z, channel by channel, and h_s.
    size = -(-height // 64), -(-width // 64)
    z = [[decoder.read(table) for _ in range(size[0] * size[1])] for table in stored["entropy_bottleneck.frequencies"]]
    medians = np.rint(1024 * stored["entropy_bottleneck.quantiles"][:, :, 1])
    a = (1024 * (np.array(z) - 127) + medians).reshape(-1, *size)
    for name in ("h_s.0", "h_s.2.0", "h_s.4", "h_s.6.0", "h_s.8"):
        weight, bias = (torch.from_numpy(integers[f"{name}.{part}"]) for part in ("weight", "bias"))
        total = conv2d(torch.from_numpy(a), weight, bias, padding=1)
        total = pixel_shuffle(total, 2) if name.count(".") == 2 else total
        a = rescaled(total.numpy(), 1 if name == "h_s.8" else 0.01)
    hyper = a

    # The context's taps, and three layers of 1x1.
    taps = np.rint(stored["context_prediction.weight"] * stored["context_prediction.unit"] * 2**14)
    layers = [[integers[f"entropy_parameters.{i}.{part}"].squeeze() for part in ("weight", "bias")] for i in (0, 2, 4)]
    y_hat = np.zeros((len(hyper) // 2, hyper.shape[1] + 2, hyper.shape[2] + 4))

    def scales_and_means(row, column):
        total = integers["context_prediction.bias"].copy()
        for tap in range(12):
            total += taps[:, :, tap] @ y_hat[:, row + tap // 5, column + tap % 5]
        a = np.concatenate((hyper[:, row, column], rescaled(total, 1)))
        for (weight, bias), slope in zip(layers, (0.01, 0.01, 1)):
            a = rescaled(weight @ a + bias, slope)
        return np.split(a, 2)

    # y, in the order of column + 3 * row; what has the same sum is ordered by scale, then row, then channel.
    gaussians = load_file(settings.CHECKPOINTS / "gaussian_tables.safetensors")
    y_tables = [np.concatenate((half[:0:-1], half)) for half in gaussians["frequencies"].numpy()]
    thresholds = gaussians["thresholds"].numpy()
    for t in range(hyper.shape[2] + 3 * hyper.shape[1]):
        front = [(row, t - 3 * row) for row in range(hyper.shape[1]) if 0 <= t - 3 * row < hyper.shape[2]]
        found = {position: scales_and_means(*position) for position in front}
        order = sorted((int((thresholds <= scale).sum()), position, channel)
                       for position, (scales, _) in found.items() for channel, scale in enumerate(scales))  # fmt: skip
        for table, (row, column), channel in order:
            symbol = decoder.read(y_tables[table]) - 511
            y_hat[channel, row + 2, column + 2] = 1024 * symbol + found[row, column][1][channel]
    y_hat = y_hat[:, 2:, 2:-2]
    assert zlib.crc32(file[:14] + y_hat.astype("<i4").tobytes()) == checksum
    return y_hat


@pytest.mark.parametrize("name, size", [(1, (64, 64)), (2, (1, 1)), (6, (100, 60)), ("random", (30, 40))])
@pytest.mark.parametrize("picture", [noise, flat])
def test_a_second_decoder_reads_the_same(name, size, picture):
    with recorded("encode_y") as latents:
        file = bitstream.encode(load(name), picture(*size))
    assert np.array_equal(second_decoder(tensors_of(name), file), latents[0])


@pytest.mark.parametrize("quality", settings.QUALITIES)
def test_a_second_decoder_reads_the_golden_integers(quality):
    vector = json.loads((FOLDER / f"q{quality}.json").read_text())
    y_hat = second_decoder(tensors_of(quality), (FOLDER / f"q{quality}.dgml").read_bytes())
    assert y_hat.ravel().tolist() == np.ravel(vector["y_hat"]).tolist()


def second_synthesis(weights, y_hat):
    """The levels (height, width, 3) of a padded picture, by the formulas of book/format.md."""

    def layer(x, name):
        weight = weights[f"g_s.{name}.weight"]
        return conv2d(x, weight, weights[f"g_s.{name}.bias"], padding=weight.shape[-1] // 2)

    def residual(x, i):
        return x + leaky_relu(layer(leaky_relu(layer(x, f"{i}.conv1")), f"{i}.conv2"))

    def upsampling(x, i):
        inner = layer(leaky_relu(pixel_shuffle(layer(x, f"{i}.subpel_conv.0"), 2)), f"{i}.conv")
        return pixel_shuffle(layer(x, f"{i}.upsample.0"), 2) + igdn(inner, i)

    def igdn(x, i):
        beta = weights[f"g_s.{i}.igdn.beta"].clamp(min=(1e-6 + 2**-36) ** 0.5) ** 2 - 2**-36
        gamma = weights[f"g_s.{i}.igdn.gamma"].clamp(min=2**-18) ** 2 - 2**-36
        return x * torch.sqrt(beta[:, None, None] + torch.einsum("ij,bjhw->bihw", gamma, x**2))

    x = torch.from_numpy(y_hat / 1024)[None]
    for i in (0, 2, 4):
        x = upsampling(residual(x, i), i + 1)
    x = pixel_shuffle(layer(residual(x, 6), "7.0"), 2)
    return np.rint(255 * x[0].clamp(0, 1).permute(1, 2, 0).numpy())


@pytest.mark.parametrize("quality", settings.QUALITIES)
def test_a_second_decoder_shows_the_golden_picture(quality):
    vector = json.loads((FOLDER / f"q{quality}.json").read_text())
    y_hat = np.reshape(vector["y_hat"], vector["shapes"]["y_hat"])
    stored = {name: tensor.double() for name, tensor in tensors_of(quality).items()}
    levels = second_synthesis(stored, y_hat)
    expected = np.asarray(Image.open(FOLDER / f"q{quality}.png"), int)
    assert np.abs(levels[: expected.shape[0], : expected.shape[1]] - expected).max() <= 1
