"""Damaged files: refused, or decoded to what was encoded, and soon."""

import os
import struct
import time

import numpy as np
import pytest
from samples import HEADER_BYTES, load, photograph, repaired

from dgml import bitstream, container, entropy
from dgml.container import BitstreamError

FUZZ = int(os.environ.get("DGML_FUZZ", 2000))  # damaged files; `make fuzz` tries more


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
    """The damaged file, or with its size put back if it claims so many pixels that decoding takes long, but not so many
    that it is refused.
    """
    height, width = struct.unpack("<HH", broken[6:10].ljust(4, b"\0"))
    return broken[:6] + file[6:10] + broken[10:] if 512 * 512 < height * width <= 2**27 else broken


def test_a_damaged_file_is_refused_or_decodes_to_the_same():
    refused, passed_the_checksum, survived, slowest = 0, 0, 0, 0
    files = {quality: bitstream.encode(load(quality), photograph(64, 64), quality) for quality in (1, 6)}
    models = {quality: entropy.entropy_model(load(quality)) for quality in files}
    latents = {quality: entropy.decode_latents(models[quality], container.read(files[quality])) for quality in files}
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
            header = container.read(broken)
            assert repair or broken == file, seed
            passed_the_checksum += 1
            y_hat = entropy.decode_latents(models[quality], header)
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


def test_a_stream_of_the_largest_words_is_refused():
    file = bitstream.encode(load(1), photograph(64, 64), 1)
    with pytest.raises(BitstreamError, match="can't be decoded"):
        bitstream.decode(load(1), repaired(file[:HEADER_BYTES] + b"\xff" * 40))


def test_a_file_without_a_stream_is_refused():
    file = bitstream.encode(load(1), photograph(64, 64), 1)
    with pytest.raises(BitstreamError, match="not those that were encoded"):
        bitstream.decode(load(1), repaired(file[:HEADER_BYTES]))


def test_another_size_of_the_same_latents_is_refused():
    file = bytearray(bitstream.encode(load(1), photograph(64, 64), 1))
    file[6:10] = struct.pack("<HH", 63, 64)
    with pytest.raises(BitstreamError):
        bitstream.decode(load(1), repaired(file))
