"""A decoder written a second time, after book/format.md, reads the same, to the picture; the bytes of the header.

Its range coder reckons in Python's integers, its g_s in float64, from the tensors of the checkpoint's file.
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

from dgml import bitstream, checkpoints, container, entropy, settings, tables


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
    z_table = tables.z_frequencies(codec).tolist()
    stored = tables.y_tables()
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
    y_hat = entropy.wavefront_scan(entropy.entropy_model(codec), z_hat, symbols_at)
    assert zlib.crc32(file[:14] + y_hat.astype("<i4").tobytes()) == checksum
    return y_hat


@pytest.mark.parametrize("name, size", [(1, (64, 64)), (2, (1, 1)), (6, (100, 60)), ("random", (30, 40))])
@pytest.mark.parametrize("picture", [noise, flat])
def test_a_second_decoder_reads_the_same(name, size, picture):
    codec = load(name)
    with recorded("encode_y") as latents:
        file = bitstream.encode(codec, picture(*size))
    assert np.array_equal(second_decoder(codec, file), latents[0])


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
    stored = load_file(checkpoints.checkpoint_path(quality, "bundled"))
    levels = second_synthesis({name: tensor.double() for name, tensor in stored.items()}, y_hat)
    expected = np.asarray(Image.open(FOLDER / f"q{quality}.png"), int)
    assert np.abs(levels[: expected.shape[0], : expected.shape[1]] - expected).max() <= 1


def test_the_bytes_of_the_header():
    file = bitstream.encode(load(4), noise(200, 100), 4)
    assert file[:10] == b"DGML" + bytes([1, 4, 100, 0, 200, 0])
    assert file[10:14] == entropy.entropy_model(load(4)).fingerprint
    assert struct.unpack("<I", file[18:22])[0] == zlib.crc32(file[:18] + file[22:])
    assert len(file) % 4 == 22 % 4
    header = container.read(file)
    assert (header.version, header.quality, header.height, header.width) == (1, 4, 100, 200)
    assert header.stream.tobytes() == file[22:]
