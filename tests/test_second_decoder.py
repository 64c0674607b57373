"""A decoder written a second time, in Python's integers, reads the same; the bytes of the header."""

import struct
import zlib

import numpy as np
import pytest
from samples import flat, load, noise, recorded

import bitstream
import helpers


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
