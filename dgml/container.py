"""The .dgml file, byte by byte as ``book/format.md`` describes it: a header of 22 bytes, then the range coder's words.

It needs no torch, so that the command line says at once what a file holds.
"""

import struct
import zlib
from typing import NamedTuple

import numpy as np

MAGIC, VERSION = b"DGML", 1
START = struct.Struct("<4sBBHH4s")  # magic, version, quality, height, width, fingerprint
HEADER = struct.Struct("<4sBBHH4sII")  # the same, then the checksums of the latents and of the file
MAX_PIXELS = 2**27  # a larger picture is refused before anything is allocated


class BitstreamError(ValueError):
    """The file can't be decoded: not a .dgml file, damaged, or written with other weights."""


class Info(NamedTuple):
    """The header of a file. ``stream``: the range coder's 32-bit words; ``start``: what precedes the checksums."""

    version: int
    quality: int
    height: int
    width: int
    fingerprint: str
    checksum: int
    stream: np.ndarray
    start: bytes


def check_size(width: int, height: int) -> None:
    """ValueError for a picture that the format can't hold."""
    if not 0 < width * height <= MAX_PIXELS or max(width, height) > 65535:
        raise ValueError(f"a picture of {width}x{height} pixels does not fit: at most 65535 a side and 2**27 in all")


def write(quality: int, height: int, width: int, fingerprint: bytes, stream: np.ndarray, y_hat: np.ndarray) -> bytes:
    """A whole file of the range coder's words (uint32) and, for their checksum, of the latents that they stand for."""
    start = START.pack(MAGIC, VERSION, quality, height, width, fingerprint)
    start += struct.pack("<I", checksum(start, y_hat))
    words = stream.astype("<u4").tobytes()
    return start + struct.pack("<I", zlib.crc32(start + words)) + words


def read(data: bytes) -> Info:
    """The header of a file and its stream, checked against the file's own checksum."""
    if data[:4] != MAGIC:
        raise BitstreamError("this is not a .dgml file")
    if len(data) < HEADER.size:
        raise BitstreamError(f"the file is cut short: {len(data)} bytes, the header alone has {HEADER.size}")
    _, version, quality, height, width, fingerprint, latents, whole = HEADER.unpack_from(data)
    if version != VERSION:
        raise BitstreamError(f"the file has version {version} of the format, this program reads version {VERSION}")
    stream = data[HEADER.size :]
    if len(stream) % 4 or zlib.crc32(data[: HEADER.size - 4] + stream) != whole:
        raise BitstreamError("the file is damaged: its checksum does not fit its content")
    if not 0 < height * width <= MAX_PIXELS:
        raise BitstreamError(f"the file claims {width}x{height} pixels: 1 to 2**27 in all can be decoded")
    words = np.frombuffer(stream, "<u4")
    return Info(version, quality, height, width, fingerprint.hex(), latents, words, data[: START.size])


def checksum(start: bytes, y_hat: np.ndarray) -> int:
    """CRC-32 of the first 14 bytes of a file, followed by y_hat (M, H, W) as little-endian int32."""
    return zlib.crc32(start + np.ascontiguousarray(y_hat, "<i4").tobytes())
