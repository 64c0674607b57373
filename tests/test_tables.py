"""The frequency tables of y and z."""

import math
from copy import deepcopy

import constriction
import numpy as np
import pytest
from samples import load

from dgml import settings, tables


def y_frequencies():
    return tables.y_tables()["frequencies"].astype(np.int64)


def test_frequencies_add_up(codec):
    y, z = y_frequencies(), tables.z_frequencies(codec)
    assert y.shape == (128, 512) and z.shape == (codec.N, 255)
    assert y.min() >= 1 and z.min() >= 1
    assert (y[:, 0] + 2 * y[:, 1:].sum(1) == 2**24).all()
    assert (z.sum(1, dtype=np.int64) == 2**24).all()


def test_tables_are_a_gaussian_with_a_share_of_a_wider_one():
    """All that lies within 0.5, 1.5, ... 511.5 of the mean, against the error function; what lies beyond goes to symbol
    0.
    """
    scales = 0.11 * (256 / 0.11) ** (np.arange(128) / 127)
    for i, (frequencies, scale) in enumerate(zip(y_frequencies(), scales)):
        assert (np.diff(frequencies) <= 0).all()
        share = 2**-7 if i else 2**-11

        def within(k, scale=scale, share=share):
            narrow, wide = (math.erf((k + 0.5) / s / math.sqrt(2)) for s in (scale, 3 * scale + 0.5))
            return (1 - share) * narrow + share * wide

        found = (frequencies[0] + 2 * np.cumsum([0, *frequencies[1:]])) / 2**24
        assert np.abs(found - [within(k) + 1 - within(511) for k in range(512)]).max() < 1e-4


def test_thresholds_lie_between_the_scales():
    thresholds = tables.gaussian_tables()["thresholds"]
    scales = 1024 * 0.11 * (256 / 0.11) ** (np.arange(128) / 127)
    assert (scales[:-1] < thresholds).all() and (thresholds < scales[1:]).all()


def test_stored_gaussian_tables_are_those_of_the_code():
    stored = tables.y_tables()
    made = tables.gaussian_tables()
    assert stored.keys() == made.keys()
    assert all(np.array_equal(stored[name], made[name]) for name in made)


@pytest.mark.parametrize("quality", settings.QUALITIES)
def test_stored_z_tables_are_those_of_the_weights(quality):
    codec = deepcopy(load(quality))
    stored = tables.z_frequencies(codec).astype(np.int64)
    del codec.entropy_bottleneck.frequencies
    made = tables.z_frequencies(codec).astype(np.int64)
    largest = np.arange(len(made)), made.argmax(1)  # takes what rounding leaves
    assert np.abs(stored - made)[largest].max() <= 255
    stored[largest] = made[largest]
    assert np.abs(stored - made).max() <= 1


def test_frequencies_are_taken_exactly():
    """The first and the last number that each symbol of a table owns, read by the library."""
    y = [np.concatenate((half[:0:-1], half)) for half in y_frequencies()[[0, 40, 80, 127]]]
    for frequencies in (*y, *tables.z_frequencies(load(1))[:4].astype(np.int64)):
        distribution = tables.categorical(frequencies)
        ends = np.cumsum(frequencies).tolist()
        scale = (2**64 - 1) >> 24
        for symbol, (start, end) in enumerate(zip([0, *ends], ends)):
            for point in (start * scale, end * scale - 1):
                words = np.array([point >> 32, point & 0xFFFFFFFF], np.uint32)
                assert constriction.stream.queue.RangeDecoder(words).decode(distribution) == symbol
