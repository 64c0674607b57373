"""The blocks of a baseline JPEG in grey, from 8x8 samples to bytes and back, as ITU-T T.81 describes it.

The tables are those of its Annex K, which nearly every encoder takes; whole files come from libjpeg, to compare with.
"""

import io
from typing import NamedTuple

import numpy as np
from PIL import Image

Array = np.ndarray

# The steps of luminance, Table K.1: finer for slow waves than for fast ones, whose errors the eye sees less.
STEPS = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
)
# The order in which a block's levels are coded, Figure A.6: along the diagonals, one up, the next down.
ZIGZAG = sorted(np.ndindex(8, 8), key=lambda ij: (sum(ij), ij[(sum(ij) + 1) % 2]))
# Huffman codes of luminance, Tables K.3 and K.5: how many have 1, 2, 3 ... bits, and what they stand for in that order.
DC_LENGTHS = (0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0)
AC_LENGTHS = (0, 2, 1, 3, 3, 2, 4, 3, 5, 5, 4, 4, 0, 0, 1, 125)
AC_SHORT = bytes.fromhex(
    "01 02 03 00 04 11 05 12 21 31 41 06 13 51 61 07 22 71 14 32 81 91 a1 08 23 42 b1 c1 15 52 d1 f0 24 33 62 72 82"
)  # all that have less than 16 bits; those of 16 bits follow in rising order
AC_VALUES = (*AC_SHORT, *sorted({16 * run + size for run in range(16) for size in range(1, 11)} - {*AC_SHORT}))


class Run(NamedTuple):
    """Zeros, then a level of ``size`` binary digits; ``size`` 0 stands for sixteen zeros, or ends the block."""

    zeros: int
    size: int
    level: int


def huffman(lengths: tuple[int, ...], values: tuple[int, ...]) -> dict[int, str]:
    """The code words that these counts give to these values, as digits 0 and 1 (T.81, Annex C)."""
    codes, code, left = {}, 0, iter(values)
    for length, count in enumerate(lengths, 1):
        for _ in range(count):
            codes[next(left)] = f"{code:0{length}b}"
            code += 1
        code *= 2
    return codes


DC_CODES = huffman(DC_LENGTHS, tuple(range(12)))
AC_CODES = huffman(AC_LENGTHS, AC_VALUES)


def steps(quality: int) -> Array:
    """The 8x8 quantization steps of a quality from 1 to 100 as libjpeg scales them; at 50 they are Table K.1."""
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    return np.clip((STEPS * percent + 50) // 100, 1, 255)


def cosines() -> Array:
    """The rows of the 8-point DCT (T.81, A.3.3): orthonormal, so its transpose undoes it."""
    k, n = np.mgrid[:8, :8]
    rows = np.cos((2 * n + 1) * k * np.pi / 16) / 2
    rows[0] /= np.sqrt(2)
    return rows


def quantize(samples: Array, table: Array) -> Array:
    """The 8x8 levels of samples from 0 to 255: what the DCT gives of them less 128, in steps; halves away from zero."""
    waves = cosines() @ (samples - 128.0) @ cosines().T
    in_steps = np.round(waves / table, 9)  # a sum of cosines misses a half by its last digits
    return (np.sign(in_steps) * np.floor(np.abs(in_steps) + 0.5)).astype(int)


def dequantize(levels: Array, table: Array) -> Array:
    """The 8x8 samples that these levels decode to."""
    return np.clip(np.round(cosines().T @ (levels * table) @ cosines() + 128), 0, 255).astype(np.uint8)


def run_lengths(levels: Array, before: int = 0) -> list[Run]:
    """The levels in zigzag order, the zeros before each counted: the first alone, then the others (T.81, F.1.2).

    Of the first, only what it differs by from that of the block before is coded.
    """
    first, *rest = (int(levels[place]) for place in ZIGZAG)
    change = first - before
    runs, zeros = [Run(0, abs(change).bit_length(), change)], 0
    for level in rest:
        if not level:
            zeros += 1
            continue
        runs += [Run(15, 0, 0)] * (zeros // 16) + [Run(zeros % 16, abs(level).bit_length(), level)]
        zeros = 0
    return runs + [Run(0, 0, 0)] * bool(zeros)


def code_words(runs: list[Run]) -> list[tuple[str, str]]:
    """For each run the Huffman code of its zeros and size, and the digits of its level.

    A negative level stands as itself plus 2**size - 1, so its first digit is 0 (T.81, F.1.2.1).
    """
    words = []
    for i, (zeros, size, level) in enumerate(runs):
        code = AC_CODES[16 * zeros + size] if i else DC_CODES[size]
        digits = f"{level + (2**size - 1) * (level < 0):0{size}b}" if size else ""
        words.append((code, digits))
    return words


def table(levels: Array) -> str:
    """The code of a block as lines to print: each level that is not 0, the zeros before it, its digits, its code."""
    runs = run_lengths(levels)
    return "\n".join(
        f"level {level:>4}: zeros {zeros:>2}, digits {size:>2}: {code} {digits}".rstrip()
        for (zeros, size, level), (code, digits) in zip(runs, code_words(runs))
    )


def encode(samples: Array, table: Array) -> tuple[Array, str, Array]:
    """Grey samples, block after block: their levels, the digits of their code, and the samples that they decode to.

    Both sides are multiples of 8, or ValueError.
    """
    if samples.shape[0] % 8 or samples.shape[1] % 8:
        raise ValueError(f"{samples.shape[0]} x {samples.shape[1]} samples are no whole blocks")
    levels, decoded = np.zeros(samples.shape, int), np.zeros(samples.shape, np.uint8)
    digits, before = "", 0
    for top in range(0, samples.shape[0], 8):
        for left in range(0, samples.shape[1], 8):
            block = slice(top, top + 8), slice(left, left + 8)
            levels[block] = quantize(samples[block], table)
            decoded[block] = dequantize(levels[block], table)
            digits += "".join(code + own for code, own in code_words(run_lengths(levels[block], before)))
            before = int(levels[top, left])
    return levels, digits, decoded


def to_bytes(digits: str) -> bytes:
    """Digits 0 and 1 as bytes: filled up with ones, and a zero byte behind each FF, which begins a marker."""
    digits += "1" * (-len(digits) % 8)
    return bytes(int(digits[i : i + 8], 2) for i in range(0, len(digits), 8)).replace(b"\xff", b"\xff\x00")


def coded_segment(file: bytes) -> bytes:
    """The entropy-coded bytes of a JPEG file of one scan: from the end of its SOS header to the EOI marker."""
    start = file.index(b"\xff\xda") + 2
    return file[start + int.from_bytes(file[start : start + 2], "big") : file.rindex(b"\xff\xd9")]


def by_libjpeg(samples: Array, quality: int) -> bytes:
    """The entropy-coded bytes that libjpeg writes for grey samples."""
    file = io.BytesIO()
    Image.fromarray(samples).save(file, "JPEG", quality=quality)
    return coded_segment(file.getvalue())
