"""Symbols by hand against the codec's own likelihoods, tables and coder."""

import numpy as np
import pytest
import torch

from dgml import one_block
from dgml.likelihoods import gaussian_likelihood
from dgml.tables import PRECISION, gaussian_pmf


@pytest.mark.parametrize(
    ("y", "mean", "scale"), [(3.2, 0.5, 0.7), (-40.0, 1.0, 12.0), (0.1, 0.0, 0.02), (-7.6, 2.88, 4.0)]
)
def test_bits_by_hand_are_those_of_the_model(y, mean, scale):
    row = one_block.by_hand(y, mean, scale)
    exact = gaussian_likelihood(torch.tensor(float(row.symbol)), torch.tensor(scale))
    assert row.symbol == round(y - mean) and abs(row.bits + float(exact.log2())) < 0.05
    best = gaussian_likelihood(torch.tensor(0.0), torch.tensor(scale))
    assert 0 <= row.at_best <= row.bits and abs(row.at_best + float(best.log2())) < 0.02


def test_each_number_follows_from_those_that_are_printed():
    row = one_block.by_hand(-7.604, 2.8833, 4.00299)
    assert row.left == round((row.symbol - 0.5) / row.scale, 3)
    assert row.right == round((row.symbol + 0.5) / row.scale, 3)
    assert row.p == round(row.above - row.below, 5) and row.bits == round(-np.log2(row.p), 2)


def test_no_symbol_is_too_expensive():
    assert one_block.by_hand(400.0, 0.0, 0.01).bits < 30
    assert one_block.by_hand(1e6, 0.0, 1.0).symbol == 511


def test_the_average_position():
    costs = torch.zeros(2, 3, 4)
    costs[0, 0] = 8.0
    costs[1, 2, 1] = 3.0  # the mean of all positions is about 2.9
    assert one_block.average_position(costs) == (2, 1)


@pytest.mark.parametrize("scale", [0.01, 0.3, 5.0, 20.0])
def test_pieces_tile_the_table_of_a_scale(scale):
    frequencies = one_block.y_frequencies(scale)
    assert frequencies.sum() == 2**PRECISION and np.array_equal(frequencies, frequencies[::-1])
    starts, widths = zip(*(one_block.piece(frequencies, symbol) for symbol in range(-511, 512)))
    assert starts[0] == 0 and all(a + w == b for a, w, b in zip(starts, widths, (*starts[1:], 2**PRECISION)))
    normal = gaussian_pmf(np.array([[max(scale, 0.11)]]))[0, 511]
    assert abs(frequencies[511] / 2**PRECISION / normal - 1) < 0.05


def test_a_column_for_each_channel():
    rows = [one_block.by_hand(3.2, 0.5, 0.7), one_block.by_hand(-1.0, 1.0, 2.0)]
    header, *lines = one_block.table([7, 12], rows).split("\n")
    assert header.split() == ["channel", "7", "12"]
    assert [line.split()[0] for line in lines] == [*one_block.Row._fields]
    assert [float(line.split()[2]) for line in lines] == [*rows[1]]


def test_words_name_the_symbols_by_a_number_in_their_interval():
    tables = [one_block.y_frequencies(scale) for scale in (0.2, 3.0, 3.0, 12.0)]
    symbols = [0, -4, 2, 511]
    words = one_block.encode_symbols(symbols, tables)
    assert one_block.decode_symbols(words, tables) == symbols
    low, width = 0.0, 1.0
    for symbol, frequencies in zip(symbols, tables):
        before, frequency = one_block.piece(frequencies, symbol)
        low, width = low + width * before / 2**24, width * frequency / 2**24
    assert low <= one_block.as_number(words) < low + width
    assert one_block.as_number(np.array([2**31, 2**30], np.uint32)) == 0.5 + 2.0**-34
