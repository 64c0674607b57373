"""A few symbols of one block, as a person with a pocket calculator would code them (chapter 3)."""

from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import constriction
import numpy as np
from torch import Tensor

from dgml.likelihoods import SMALLEST_LIKELIHOOD, SMALLEST_SCALE
from dgml.tables import ONE, Y_RANGE, categorical, y_tables

Array = np.ndarray


class Row(NamedTuple):
    """A symbol of y; each number follows from those before it, as they are rounded here."""

    y: float
    mean: float
    scale: float
    symbol: int  # round(y - mean)
    left: float  # (symbol - 1/2) / scale
    right: float  # (symbol + 1/2) / scale
    below: float  # the cumulative normal distribution at left
    above: float  # and at right
    p: float
    bits: float
    at_best: float  # the bits of the symbol 0, the cheapest


def by_hand(y: float, mean: float, scale: float) -> Row:
    """The likelihood of round(y - mean) under N(0, scale), with rounding to a few digits after each step.

    A scale below 0.11 counts as 0.11, and a probability below 1e-9 as 1e-9, as in the codec.
    """
    scale = float(f"{max(scale, SMALLEST_SCALE):.4g}")
    symbol = clipped(y - mean)
    left, right = (round((symbol + side) / scale, 3) for side in (-0.5, 0.5))
    below, above = (round(NormalDist().cdf(edge), 5) for edge in (left, right))
    p = round(above - below, 5)
    best = 2 * NormalDist().cdf(0.5 / scale) - 1
    bits, at_best = (round(float(-np.log2(max(q, SMALLEST_LIKELIHOOD))), 2) for q in (p, best))
    return Row(round(y, 2), round(mean, 2), scale, symbol, left, right, below, above, p, bits, abs(at_best))


def table(channels: Sequence[int], rows: Sequence[Row]) -> str:
    """The rows as lines to print: a column for each channel."""
    lines = [("channel", *channels), *zip(Row._fields, *rows)]
    return "\n".join(" ".join((f"{name:8}", *(f"{number:>9}" for number in numbers))) for name, *numbers in lines)


def average_position(costs: Tensor) -> tuple[int, int]:
    """Row and column of the position of y whose bits are nearest to the mean of all, for ``costs`` (C, h, w)."""
    per_position = costs.sum(0)
    nearest = int((per_position - per_position.mean()).abs().argmin())
    return nearest // costs.shape[2], nearest % costs.shape[2]


def y_frequencies(scale: float) -> Array:
    """The table (1023,) by which a file codes the symbols -511 to 511 of this scale; it adds up to 2**24."""
    tables = y_tables()
    half = tables["frequencies"][np.searchsorted(tables["thresholds"], scale * ONE, side="right")]
    return np.concatenate((half[:0:-1], half))


def piece(frequencies: Array, symbol: int) -> tuple[int, int]:
    """Where the piece of a symbol begins in a table of -n to n, and its width; both out of 2**24."""
    index = symbol + len(frequencies) // 2
    return int(frequencies[:index].sum()), int(frequencies[index])


def encode_symbols(symbols: Sequence[int], tables: Sequence[Array]) -> Array:
    """The 32-bit words of a range coder that was given these symbols, each by its table of -n to n."""
    encoder = constriction.stream.queue.RangeEncoder()
    for symbol, frequencies in zip(symbols, tables, strict=True):
        encoder.encode(symbol + len(frequencies) // 2, categorical(frequencies))
    return encoder.get_compressed()


def decode_symbols(words: Array, tables: Sequence[Array]) -> list[int]:
    """The symbols that ``encode_symbols`` was given, from its words and the same tables."""
    decoder = constriction.stream.queue.RangeDecoder(words)
    return [int(decoder.decode(categorical(frequencies))) - len(frequencies) // 2 for frequencies in tables]


def as_number(words: Array) -> float:
    """The number from 0 to 1 whose digits after the point are these 32-bit words."""
    return sum(int(word) / 2 ** (32 * i) for i, word in enumerate(words, 1))


def clipped(symbol: float) -> int:
    """The integer nearest to a symbol of y that a file can hold."""
    return int(np.clip(round(symbol), -Y_RANGE, Y_RANGE))
