"""The bytes of a .dgml file: what the header holds, and what is refused before anything is decoded."""

import struct
import zlib

import pytest
from samples import load, noise, photograph, repaired

from dgml import bitstream, container, entropy
from dgml.container import BitstreamError


def test_the_bytes_of_the_header():
    file = bitstream.encode(load(4), noise(200, 100), 4)
    assert file[:10] == b"DGML" + bytes([1, 4, 100, 0, 200, 0])
    assert file[10:14] == entropy.entropy_model(load(4)).fingerprint
    assert struct.unpack("<I", file[18:22])[0] == zlib.crc32(file[:18] + file[22:])
    assert len(file) % 4 == 22 % 4
    header = container.read(file)
    assert (header.version, header.quality, header.height, header.width) == (1, 4, 100, 200)
    assert header.stream.tobytes() == file[22:]


def test_another_version_is_refused():
    file = bytearray(bitstream.encode(load(1), photograph(64, 64), 1))
    file[4] = 2
    with pytest.raises(BitstreamError, match="version 2"):
        container.read(repaired(file))


@pytest.mark.parametrize("height, width", [(0, 64), (64, 0), (65535, 65535), (2049, 65535), (65535, 2049)])
def test_absurd_sizes_are_refused_at_once(height, width):
    file = bytearray(bitstream.encode(load(1), photograph(64, 64), 1))
    file[6:10] = struct.pack("<HH", height, width)
    with pytest.raises(BitstreamError, match=f"{width}x{height} pixels"):
        container.read(repaired(file))


def test_any_single_bit_is_noticed():
    file = bitstream.encode(load(1), photograph(64, 64), 1)
    for i in range(8 * len(file)):
        broken = bytearray(file)
        broken[i // 8] ^= 1 << i % 8
        with pytest.raises(BitstreamError):
            container.read(bytes(broken))
