"""The walk over y: each position once, after all that it sees, as a serial walk gives it."""

import math

import constriction
import numpy as np
import pytest
from samples import load

from dgml import entropy

SIZES = [
    (1, 1),
    (1, 9),
    (9, 1),
    (2, 2),
    (2, 7),
    (7, 2),
    (4, 4),
    (5, 16),
    (16, 5),
    (32, 48),
]  # of latents, (height, width)


@pytest.mark.parametrize("height, width", SIZES)
def test_wavefronts_visit_every_position_once(height, width):
    visited = [position for rows, columns in entropy.wavefronts(height, width) for position in zip(rows, columns)]
    assert sorted(visited) == list(np.ndindex(height, width))


@pytest.mark.parametrize("height, width", SIZES)
def test_what_a_position_sees_lies_in_earlier_wavefronts(height, width):
    taps = [(i, j) for i in (-2, -1, 0) for j in (-2, -1, 0, 1, 2) if i < 0 or j < 0]
    assert len(taps) == 12
    earlier = set()
    for rows, columns in entropy.wavefronts(height, width):
        wavefront = list(zip(rows.tolist(), columns.tolist()))
        assert wavefront == sorted(wavefront)
        for row, column in wavefront:
            neighbours = {(row + i, column + j) for i, j in taps}
            assert {(i, j) for i, j in neighbours if 0 <= i < height and 0 <= j < width} <= earlier
        earlier.update(wavefront)


def integers(module):
    """Weights in units of 2**-14 and biases in units of 2**-24, as 64-bit integers."""
    return (
        np.rint(module.weight.detach().double().numpy() * 2**14).astype(np.int64),
        np.rint(module.bias.detach().double().numpy() * 2**24).astype(np.int64),
    )


def rescaled(total, slope=0.01):
    """LeakyReLU and the way back to units of 2**-10, one Python number at a time."""
    values = (math.floor((v if v >= 0 else slope * v) / 2**14 + 0.5) for v in total.tolist())
    return np.array([max(-(2**26), min(2**26, v)) for v in values])


def serial_walk(codec, hyper, y):
    """Position after position, row after row, as compress() of CompressAI does it."""
    _, height, width = y.shape
    context_weight, context_bias = integers(codec.context_prediction)
    layers = [integers(codec.entropy_parameters[i]) for i in (0, 2, 4)]
    y_hat = np.zeros((codec.M, height + 4, width + 4), np.int64)
    for row, column in np.ndindex(height, width):
        total = context_bias.copy()
        for i, j in np.ndindex(5, 5):
            if i < 2 or (i == 2 and j < 2):
                total += context_weight[:, :, i, j] @ y_hat[:, row + i, column + j]
        a = np.concatenate((hyper[row, column].astype(np.int64), rescaled(total, slope=1)))
        for i, (weight, bias) in enumerate(layers):
            a = rescaled(weight[:, :, 0, 0] @ a + bias, slope=1 if i == 2 else 0.01)
        means = a[codec.M :]
        symbols = np.rint(y[:, row, column] - means / 1024).clip(-511, 511)
        y_hat[:, row + 2, column + 2] = symbols.astype(np.int64) * 1024 + means
    return y_hat[:, 2:-2, 2:-2]


@pytest.mark.parametrize("name, size", [(1, (1, 1)), (1, (3, 1)), (3, (1, 3)), (6, (2, 2)), ("random", (1, 2))])
def test_wavefronts_give_what_a_serial_walk_gives(name, size):
    codec, rng = load(name), np.random.default_rng(0)
    model = entropy.entropy_model(codec)
    z_hat = 1024 * np.rint(3 * rng.standard_normal((codec.N, *size)))
    y = 20 * rng.standard_normal((codec.M, 4 * size[0], 4 * size[1]))
    y_hat = entropy.encode_y(model, z_hat, y, constriction.stream.queue.RangeEncoder())
    assert np.array_equal(y_hat, serial_walk(codec, entropy.hyper_synthesis(model, z_hat), y))
