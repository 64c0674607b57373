"""JPEG by hand against the files that libjpeg writes: its tables, and whole pictures byte for byte."""

import io
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from dgml import jpeg_block as jpeg


def libjpeg(samples: np.ndarray, quality: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(samples).save(file, "JPEG", quality=quality)
    return file.getvalue()


def segments(file: bytes, marker: int) -> list[bytes]:
    """What follows each marker of this kind before the scan."""
    found, at = [], 2
    while file[at + 1] != 0xDA:
        length = int.from_bytes(file[at + 2 : at + 4], "big")
        found += [file[at + 4 : at + 2 + length]] * (file[at + 1] == marker)
        at += 2 + length
    return found


def samples(seed: int, height: int = 8, width: int = 8) -> np.ndarray:
    """A ramp with noise of a strength of its own, and in every fourth picture noise alone."""
    rng = np.random.default_rng(seed)
    ramp = rng.uniform(0, 255) + np.linspace(0, rng.normal(0, 90), width) + np.linspace(0, 40, height)[:, None]
    noisy = ramp + rng.normal(0, rng.choice([1, 10, 40]), (height, width))
    levels = rng.uniform(0, 256, (height, width)) if seed % 4 == 0 else noisy
    return levels.clip(0, 255).astype(np.uint8)


def is_sure(block: np.ndarray, table: np.ndarray) -> bool:
    """Whether no coefficient lies so near a half step that libjpeg's integer DCT may round it differently."""
    in_steps = jpeg.cosines() @ (block - 128.0) @ jpeg.cosines().T / table
    return bool((np.abs(np.abs(in_steps) % 1 - 0.5) * table > 0.3).all())


@pytest.mark.parametrize("quality", [1, 10, 25, 49, 50, 51, 75, 90, 100])
def test_steps_are_those_of_libjpeg(quality):
    (stored,) = segments(libjpeg(samples(1), quality), 0xDB)
    assert [*stored[1:]] == [jpeg.steps(quality)[place] for place in jpeg.ZIGZAG]


def test_codes_are_those_of_libjpeg():
    dc, ac = segments(libjpeg(samples(1), 50), 0xC4)
    assert dc == bytes((0x00, *jpeg.DC_LENGTHS, *range(12)))
    assert ac == bytes((0x10, *jpeg.AC_LENGTHS, *jpeg.AC_VALUES))


def test_no_code_begins_another():
    for codes in (jpeg.DC_CODES, jpeg.AC_CODES):
        words = sorted(codes.values())
        assert not any(b.startswith(a) for a, b in pairwise(words)) and "1" * len(words[-1]) not in words


@pytest.mark.parametrize("quality", [5, 50, 75])
def test_a_block_has_the_bytes_of_libjpeg(quality):
    table = jpeg.steps(quality)
    sure = [block for block in map(samples, range(400)) if is_sure(block, table)]
    assert len(sure) > 10
    for block in sure:
        _, digits, decoded = jpeg.encode(block, table)
        file = libjpeg(block, quality)
        assert jpeg.to_bytes(digits) == jpeg.coded_segment(file) == jpeg.by_libjpeg(block, quality)
        assert np.abs(decoded.astype(int) - np.asarray(Image.open(io.BytesIO(file)))).max() <= 1


def test_a_picture_of_several_blocks_has_the_bytes_of_libjpeg():
    """Each first level is coded as a difference."""
    table, told = jpeg.steps(10), 0
    for seed in range(60):
        picture = samples(seed, 16, 24)
        blocks = [picture[i : i + 8, j : j + 8] for i in (0, 8) for j in (0, 8, 16)]
        if all(is_sure(block, table) for block in blocks):
            assert jpeg.to_bytes(jpeg.encode(picture, table)[1]) == jpeg.coded_segment(libjpeg(picture, 10))
            told += 1
    assert told > 5


def test_the_transform_is_undone_by_its_transpose():
    assert np.allclose(jpeg.cosines() @ jpeg.cosines().T, np.eye(8))
    fine = np.ones((8, 8), int)
    assert np.abs(jpeg.encode(samples(3), fine)[2].astype(int) - samples(3)).max() <= 1


def test_runs_of_zeros():
    levels = np.zeros((8, 8), int)
    levels[jpeg.ZIGZAG[0]], levels[jpeg.ZIGZAG[40]], levels[jpeg.ZIGZAG[63]] = -3, 1, 5
    expected = [(0, 3, -5), (15, 0, 0), (15, 0, 0), (7, 1, 1), (15, 0, 0), (6, 3, 5)]
    assert jpeg.run_lengths(levels, before=2) == expected  # no end of block behind the last level
    assert jpeg.code_words(jpeg.run_lengths(levels, before=2))[0] == ("100", "010")


def test_a_line_for_each_code():
    levels = np.zeros((8, 8), int)
    levels[0, 0], levels[1, 1] = 3, -1
    assert jpeg.table(levels).split("\n") == [
        "level    3: zeros  0, digits  2: 011 11",
        "level   -1: zeros  3, digits  1: 111010 0",
        "level    0: zeros  0, digits  0: 1010",
    ]


def test_filling_and_stuffing():
    assert jpeg.to_bytes("101") == b"\xbf" and jpeg.to_bytes("1" * 9) == b"\xff\x00\xff\x00"


def test_a_part_of_a_block_is_refused():
    with pytest.raises(ValueError, match="no whole blocks"):
        jpeg.encode(samples(1, 8, 12), jpeg.STEPS)
