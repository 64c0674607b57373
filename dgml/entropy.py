"""The exact entropy model: means and scales of y in fixed point, and the symbols of y and z through a range coder.

*Exact*: every sum is an integer below 2**53 in float64, the same on every machine (Balle et al., ICLR 2019).
*Fast*: all positions of y whose context is known, a wavefront, are computed and coded at once.
"""

import hashlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import constriction
import numpy as np
import torch

from dgml.container import BitstreamError, Info, checksum
from dgml.model import Cheng2020Anchor
from dgml.tables import ACTIVATION_BITS, ONE, WEIGHT_BITS, Y_RANGE, Z_RANGE, categorical, y_tables, z_frequencies

Array = np.ndarray

LIMIT = 2.0**26  # activations saturate here, at 65,536 in real units
SLOPE = 0.01  # of LeakyReLU
# The type-A mask: the positions of a 5x5 kernel that a decoder knows already.
TAPS = [(i, j) for i in range(3) for j in range(5) if (i, j) < (2, 2)]


class Layer(NamedTuple):
    """A convolution in fixed point: integers held in float64, weights times 2**14, biases times 2**24."""

    weight: Array
    bias: Array


class EntropyModel(NamedTuple):
    """All that encoder and decoder must agree on."""

    h_s: list[Layer]  # weights (3, 3, out, in)
    context: Layer  # weight (2 * M, 12 * M), a column for each tap and channel
    parameters: list[Layer]  # the 1x1 layers, weights (out, in)
    medians: Array  # of z, (N,), in units of 2**-10
    z_models: list  # a constriction model for each channel of z
    thresholds: Array  # between the scales of the table, in units of 2**-10
    y_models: list  # a constriction model for each scale of the table
    fingerprint: bytes  # four bytes of the SHA-256 of the above and of g_s


def entropy_model(codec: Cheng2020Anchor) -> EntropyModel:
    """The codec's h_s, context model, entropy parameters and tables as integers.

    Raises ValueError for weights so large that a sum could leave the 53 bits in which float64 counts exactly, and for
    a codec that is not in float32 on the CPU, where the picture would not be the same.
    """
    unexpected = {(p.device.type, p.dtype) for p in codec.parameters()} - {("cpu", torch.float32)}
    if unexpected:
        device, dtype = min(unexpected, key=str)
        raise ValueError(f"the codec is on {device} in {dtype}, and files are coded on the CPU: codec.cpu().float()")
    h_s = [fixed_point(m[0] if isinstance(m, torch.nn.Sequential) else m) for m in codec.h_s if [*m.parameters()]]
    # Each tap's matrix in one piece: numpy multiplies a strided one without BLAS, ten times slower.
    h_s = [Layer(np.ascontiguousarray(layer.weight.transpose(2, 3, 0, 1)), layer.bias) for layer in h_s]
    context = fixed_point(codec.context_prediction)
    context = Layer(np.concatenate([context.weight[:, :, i, j] for i, j in TAPS], axis=1), context.bias)
    one_by_one = [fixed_point(m) for m in codec.entropy_parameters if isinstance(m, torch.nn.Conv2d)]
    parameters = [Layer(layer.weight[:, :, 0, 0], layer.bias) for layer in one_by_one]
    medians = np.rint(codec.entropy_bottleneck.quantiles.detach().double().numpy()[:, 0, 1] * ONE)
    if not np.all(np.abs(medians) < LIMIT):  # or NaN
        raise ValueError("a median of z is too large for exact sums")
    z_table = z_frequencies(codec)
    y_table = y_tables()
    layers = sum((*h_s, context, *parameters), ())
    fingerprint = digest((*layers, medians, z_table, y_table["frequencies"], y_table["thresholds"]), codec.g_s)
    y_models = [categorical(np.concatenate((half[:0:-1], half))) for half in y_table["frequencies"]]
    z_models = [categorical(frequencies) for frequencies in z_table]
    return EntropyModel(h_s, context, parameters, medians, z_models, y_table["thresholds"], y_models, fingerprint)


def digest(integers: tuple[Array, ...], g_s: torch.nn.Module) -> bytes:
    """The first four bytes of the SHA-256 of integers as int64 and of the weights of g_s as float32."""
    sha = hashlib.sha256()
    for part in integers:
        sha.update(np.ascontiguousarray(part, "<i8").tobytes())
    for parameter in g_s.parameters():
        sha.update(np.ascontiguousarray(parameter.detach().numpy(), "<f4").tobytes())
    return sha.digest()[:4]


def fixed_point(module: torch.nn.Module) -> Layer:
    """Weights rounded to 2**-14, biases to 2**-24; ValueError where the bound on sums does not hold."""
    weight, bias = (getattr(module, name).detach().double().numpy() for name in ("weight", "bias"))
    layer = Layer(np.rint(weight * 2**WEIGHT_BITS), np.rint(bias * 2 ** (WEIGHT_BITS + ACTIVATION_BITS)))
    # No partial sum of any output, in any order, exceeds this: y_hat may exceed LIMIT by Y_RANGE, hence twice LIMIT.
    largest = (np.abs(layer.weight).reshape(len(bias), -1).sum(1) * 2 * LIMIT + np.abs(layer.bias)).max()
    if not largest < 2**53:
        raise ValueError("the weights are too large for exact sums: a sum could reach 2**53")
    return layer


def requantize(total: Array, activate: bool = True) -> Array:
    """From the sums of a layer (units of 2**-24) to the input of the next: LeakyReLU if asked, then rounding to 2**-10.

    One product and one sum in float64, each correctly rounded by IEEE 754, and a floor.
    """
    if activate:
        total = np.where(total < 0, SLOPE * total, total)
    return np.clip(np.floor(total * 2.0**-WEIGHT_BITS + 0.5), -LIMIT, LIMIT)


def linear(layer: Layer, a: Array) -> Array:
    """A 1x1 convolution, or the context's, of a (positions, in).

    torch's BLAS is twice as fast here as numpy's, and no less exact.
    It takes 11 positions longer than 12, so rows of zeros fill the last four.
    """
    full = np.concatenate((a, np.zeros((-len(a) % 4, a.shape[1]))))
    weight, bias, full = map(torch.from_numpy, (layer.weight, layer.bias, full))
    return torch.nn.functional.linear(full, weight, bias).numpy()[: len(a)]


def convolve(layer: Layer, a: Array) -> Array:
    """A 3x3 convolution of a (C, H, W) with zeros around it; every sum is an exact integer."""
    height, width = a.shape[1:]
    padded = np.pad(a, ((0, 0), (1, 1), (1, 1)))
    total = layer.bias[:, None]
    for i, j in np.ndindex(3, 3):
        total = total + layer.weight[i, j] @ padded[:, i : i + height, j : j + width].reshape(len(a), -1)
    return total.reshape(-1, height, width)


def hyper_synthesis(model: EntropyModel, z_hat: Array) -> Array:
    """h_s in fixed point: z_hat (N, H, W) to (4 * H, 4 * W, 2 * M), both in units of 2**-10."""
    first, up, middle, up_again, last = model.h_s
    a = requantize(convolve(first, z_hat))
    a = requantize(pixel_shuffle(convolve(up, a)))
    a = requantize(convolve(middle, a))
    a = requantize(pixel_shuffle(convolve(up_again, a)))
    return requantize(convolve(last, a), activate=False).transpose(1, 2, 0)


def pixel_shuffle(a: Array) -> Array:
    """(4 * C, H, W) to (C, 2 * H, 2 * W): four channels become a square of four positions."""
    c, h, w = a.shape
    return a.reshape(c // 4, 2, 2, h, w).transpose(0, 3, 1, 4, 2).reshape(c // 4, 2 * h, 2 * w)


# ---------------------------------------------------------------- the scan over y


def wavefronts(height: int, width: int) -> Iterator[tuple[Array, Array]]:
    """Rows and columns of the positions with the same column + 3 * row, in rising order of that sum.

    The mask reaches two columns to the right in the rows above, so all that a position sees lies in earlier wavefronts.
    """
    for t in range(width + 3 * (height - 1)):
        rows = np.arange(max(0, -(-(t - width + 1) // 3)), min(height, t // 3 + 1))
        if len(rows):  # a narrow picture skips some
            yield rows, t - 3 * rows


def wavefront_scan(model: EntropyModel, z_hat: Array, symbols_at: Callable[..., Array]) -> Array:
    """Visit y wavefront by wavefront, and return y_hat (M, H, W) in units of 2**-10.

    ``symbols_at(rows, columns, means, scales)`` gets means and scales (positions, M) in units of 2**-10 and gives the
    symbols: the encoder rounds them, the decoder reads them.
    Their sum with the means is y_hat, which later wavefronts see.
    """
    hyper = hyper_synthesis(model, z_hat)
    height, width, n = hyper.shape
    first, second, third = model.parameters
    # The first of the 1x1 layers adds what comes from z, known for all positions at once, to the context's share.
    from_z = linear(Layer(first.weight[:, :n], first.bias), hyper.reshape(-1, n)).reshape(height, width, -1)
    first = Layer(first.weight[:, n:], np.zeros_like(first.bias))
    # A border of zeros: two rows above, two columns on either side.
    y_hat = np.zeros((height + 2, width + 4, n // 2))
    down, right = np.array(TAPS).T
    for rows, columns in wavefronts(height, width):
        neighbours = y_hat[rows[:, None] + down, columns[:, None] + right].reshape(len(rows), -1)
        context = requantize(linear(model.context, neighbours), activate=False)
        a = requantize(linear(first, context) + from_z[rows, columns])
        a = requantize(linear(second, a))
        scales, means = np.split(requantize(linear(third, a), activate=False), 2, axis=1)
        y_hat[rows + 2, columns + 2] = symbols_at(rows, columns, means, scales) * ONE + means
    return y_hat[2:, 2:-2].transpose(2, 0, 1)


def by_scale(model: EntropyModel, scales: Array) -> tuple[Array, list[tuple[object, int, int]]]:
    """The order that sorts a wavefront's symbols, flattened, by their scale in the table.

    And for each scale in use its model, and where its symbols begin and end in that order.
    """
    nearest = np.searchsorted(model.thresholds, scales.ravel(), side="right")
    ends = np.bincount(nearest).cumsum()
    used = np.flatnonzero(np.diff(ends, prepend=0)).tolist()
    starts = [0, *ends[used].tolist()]
    return np.argsort(nearest, kind="stable"), [(model.y_models[i], *ab) for i, *ab in zip(used, starts, starts[1:])]


# ---------------------------------------------------------------- latents to symbols and back


def encode_y(model: EntropyModel, z_hat: Array, y: Array, encoder: constriction.stream.queue.RangeEncoder) -> Array:
    """Code round(y - mean) for y (M, H, W), and return y_hat (M, H, W) in units of 2**-10."""

    def symbols_at(rows: Array, columns: Array, means: Array, scales: Array) -> Array:
        symbols = np.clip(np.rint(y[:, rows, columns].T - means / ONE), -Y_RANGE, Y_RANGE)
        order, groups = by_scale(model, scales)
        in_order = symbols.ravel()[order].astype(np.int32) + Y_RANGE
        for distribution, start, end in groups:
            encoder.encode(in_order[start:end], distribution)
        return symbols

    return wavefront_scan(model, z_hat, symbols_at)


def decode_y(model: EntropyModel, z_hat: Array, decoder: constriction.stream.queue.RangeDecoder) -> Array:
    """Read what :func:`encode_y` wrote, and return the same y_hat."""

    def symbols_at(rows: Array, columns: Array, means: Array, scales: Array) -> Array:
        symbols = np.empty(scales.size)
        order, groups = by_scale(model, scales)
        for distribution, start, end in groups:
            symbols[order[start:end]] = decoder.decode(distribution, end - start)
        return symbols.reshape(scales.shape) - Y_RANGE

    return wavefront_scan(model, z_hat, symbols_at)


def encode_z(model: EntropyModel, z: Array, encoder: constriction.stream.queue.RangeEncoder) -> Array:
    """Code round(z - median) for z (N, H, W) channel by channel, and return z_hat in units of 2**-10."""
    medians = model.medians[:, None, None]
    symbols = np.clip(np.rint(z - medians / ONE), -Z_RANGE, Z_RANGE).astype(np.int32)
    for channel, distribution in zip(symbols, model.z_models):
        encoder.encode(channel.ravel() + Z_RANGE, distribution)
    return symbols * ONE + medians


def decode_z(model: EntropyModel, size: tuple[int, int], decoder: constriction.stream.queue.RangeDecoder) -> Array:
    """Read what :func:`encode_z` wrote, and return the same z_hat (N, height, width)."""
    n = size[0] * size[1]
    symbols = np.stack([decoder.decode(distribution, n) for distribution in model.z_models]) - Z_RANGE
    return symbols.reshape(-1, *size) * ONE + model.medians[:, None, None]


def encode_latents(model: EntropyModel, y: Array, z: Array) -> tuple[Array, Array]:
    """The range coder's words (uint32) for y (M, H/16, W/16) and z (N, H/64, W/64), and y_hat in units of 2**-10.

    H and W are the sides of the padded picture.
    """
    encoder = constriction.stream.queue.RangeEncoder()
    z_hat = encode_z(model, z, encoder)
    y_hat = encode_y(model, z_hat, y, encoder)
    return encoder.get_compressed(), y_hat


def decode_latents(model: EntropyModel, header: Info) -> Array:
    """y_hat (M, H/16, W/16) of a file in units of 2**-10, the same integers on every machine.

    H and W are the sides of the padded picture. Raises BitstreamError for other weights and for a damaged stream.
    """
    if model.fingerprint.hex() != header.fingerprint:
        raise BitstreamError(
            f"the file was written with other weights (fingerprint {header.fingerprint}, quality {header.quality}) "
            f"than these (fingerprint {model.fingerprint.hex()}): DGML_WEIGHTS says whether bundled or published ones are loaded"
        )
    decoder = constriction.stream.queue.RangeDecoder(header.stream)
    try:
        z_hat = decode_z(model, (-(-header.height // 64), -(-header.width // 64)), decoder)
        y_hat = decode_y(model, z_hat, decoder)
    except AssertionError:  # constriction's answer to a stream that no encoder writes
        raise BitstreamError("the file is damaged: its stream can't be decoded") from None
    if checksum(header.start, y_hat) != header.checksum:
        raise BitstreamError("the decoded latents are not those that were encoded: a damaged file, or a faulty decoder")
    return y_hat
