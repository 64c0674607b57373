"""A photograph as a file, and back: an exact, fast bitstream for any ``Cheng2020Anchor``.

    python bitstream.py encode PHOTOGRAPH FILE.dgml --quality 3
    python bitstream.py decode FILE.dgml PICTURE.png
    python bitstream.py info FILE.dgml

Two ideas make the file.
*Exact*: means and scales of y come from fixed-point arithmetic, whose integers are the same on every machine
(Balle et al., ICLR 2019).
*Fast*: all positions of y whose context is known, a wavefront, are computed and coded at once.
The transforms g_a and g_s stay in floating point: the first runs only in the encoder, the second after the last symbol.
``book/format.md`` describes the file byte by byte.
"""

import sys

if __name__ == "__main__":  # first of all: torch takes seconds to import, and --help and info need none of it
    import commandline

    sys.exit(commandline.main())

import hashlib
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import NamedTuple

import constriction
import numpy as np
import torch
from PIL import Image
from safetensors.numpy import load_file

import dgml
from dgml import HEADER, BitstreamError, Info, check_size, checksum, read  # noqa: F401 (chapter 11 names HEADER)
from helpers import LAMBDA, QUALITIES, ROOT, Cheng2020Anchor, crop, image_to_tensor, pad, tensor_to_image
from search import best_file, loss

Array = np.ndarray

AT_ONCE = 2**23  # pixels that go through g_a or g_s at once
WEIGHT_BITS, ACTIVATION_BITS = 14, 10  # binary digits behind the point
ONE = 2**ACTIVATION_BITS
LIMIT = 2.0**26  # activations saturate here, at 65,536 in real units
SLOPE = 0.01  # of LeakyReLU
Z_RANGE, Y_RANGE = 127, 511  # largest absolute values of the symbols of z and y; the encoder clamps
PRECISION = 24  # frequencies of a table add up to 2**24, as constriction wants them
# The type-A mask: the positions of a 5x5 kernel that a decoder knows already.
TAPS = [(i, j) for i in range(3) for j in range(5) if (i, j) < (2, 2)]


def encode(codec: Cheng2020Anchor, image: Image.Image, quality: int = 0, search: int = 0) -> bytes:
    """The file of a picture of any mode and of 1x1 pixel up to 2**27.

    ``quality`` is noted down for the decoder, who needs the same weights; 0 says nothing about them.
    ``search`` is a number of steps that the encoder spends on a better y (search.py), by the lambda of the quality: the
    file decodes like any other, and its lambda * 255**2 * MSE + bpp is never higher than without.
    Raises ValueError for a picture that is too large, another quality, or weights that give no numbers.
    """
    if quality not in (0, *QUALITIES):
        raise ValueError(f"quality is 1 to 6, or 0, not {quality!r}")
    if not isinstance(search, int) or search < 0:
        raise ValueError(f"search is a number of steps, 0 or more, not {search!r}")
    if search and not quality:
        raise ValueError("search needs a quality, 1 to 6, by whose lambda it weighs bytes against errors")
    check_size(*image.size)
    model = entropy_model(codec)
    x = image_to_tensor(image)
    y, z = analysis(codec, pad(x))

    def file_of(y: Array) -> tuple[bytes, Array]:
        stream, y_hat = encode_latents(model, y, z)
        return dgml.write(quality, *x.shape[-2:], model.fingerprint, stream, y_hat), y_hat

    def weighed(y: Array) -> tuple[bytes, Array, float]:
        data, y_hat = file_of(y)
        decoded = synthesis(codec, y_hat, x.shape[-2:])
        return data, y_hat / ONE, loss(image, decoded, len(data), LAMBDA[quality])

    return best_file(codec, x, y, z, weighed, LAMBDA[quality], search) if search else file_of(y)[0]


def analysis(codec: Cheng2020Anchor, x: torch.Tensor) -> tuple[Array, Array]:
    """y (M, H/16, W/16) and z (N, H/64, W/64) of padded pixels (1, 3, H, W); ValueError where they are no numbers."""
    y = apply(codec.g_a, x, 1)
    z = apply(codec.h_a, y, 16)
    if not (y.isfinite().all() and z.isfinite().all()):
        raise ValueError("the codec's weights are damaged: its latents are not numbers")
    return y[0].double().numpy(), z[0].double().numpy()


def decode(codec: Cheng2020Anchor, data: bytes) -> Image.Image:
    """The picture of a file; BitstreamError where the file, or the codec, is not the right one."""
    header = read(data)
    y_hat = decode_latents(entropy_model(codec), header)
    return synthesis(codec, y_hat, (header.height, header.width))


def synthesis(codec: Cheng2020Anchor, y_hat: Array, size: tuple[int, int]) -> Image.Image:
    """The picture of ``size`` (height, width) that g_s makes of y_hat in units of 2**-10."""
    x_hat = apply(codec.g_s, torch.from_numpy(y_hat / ONE)[None].float(), 16)
    return tensor_to_image(crop(x_hat, size))


def apply(transform: torch.nn.Module, x: torch.Tensor, unit: int) -> torch.Tensor:
    """g_a, h_a or g_s of x (1, C, H, W) without gradients, in strips that bound the memory.

    ``unit`` is the side of a pixel of x in pixels of the picture.
    A strip sees 192 pixels of the picture more above and below than it keeps, which is beyond the reach of all three,
    also of those with attention.
    """
    height, width = x.shape[-2:]
    rows, halo = max(64, AT_ONCE // (width * unit) // 64 * 64) // unit, 192 // unit
    strips = []
    for top in range(0, height, rows):
        start, end = max(0, top - halo), min(height, top + rows + halo)
        with torch.inference_mode():  # torch convolves faster, on two threads twice as fast, where channels come last
            strip = transform(x[:, :, start:end].contiguous(memory_format=torch.channels_last))
        # Rows of x, counted from the strip's first, become rows of the result: 16 times as many, or a fraction.
        first, last = top - start, min(top + rows, height) - start
        strips.append(strip[:, :, first * strip.shape[2] // (end - start) : last * strip.shape[2] // (end - start)])
    return torch.cat(strips, 2)


# ---------------------------------------------------------------- the exact entropy model


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
    strangers = {(p.device.type, p.dtype) for p in codec.parameters()} - {("cpu", torch.float32)}
    if strangers:
        device, dtype = min(strangers, key=str)
        raise ValueError(f"the codec is on {device} in {dtype}, and files are coded on the CPU: codec.cpu().float()")
    h_s = [fixed_point(m[0] if isinstance(m, torch.nn.Sequential) else m) for m in codec.h_s if [*m.parameters()]]
    # Each tap's matrix in one piece: numpy multiplies a strided one without BLAS, ten times slower.
    h_s = [Layer(np.ascontiguousarray(layer.weight.transpose(2, 3, 0, 1)), layer.bias) for layer in h_s]
    context = fixed_point(codec.context_prediction)
    context = Layer(np.concatenate([context.weight[:, :, i, j] for i, j in TAPS], axis=1), context.bias)
    one_by_one = [fixed_point(m) for m in codec.entropy_parameters if isinstance(m, torch.nn.Conv2d)]
    parameters = [Layer(layer.weight[:, :, 0, 0], layer.bias) for layer in one_by_one]
    medians = np.rint(codec.entropy_bottleneck.quantiles.detach().double().numpy()[:, 0, 1] * ONE)
    if not np.all(np.abs(medians) < LIMIT):  # nor are they numbers, perhaps
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
    weight, bias = (p.detach().double().numpy() for p in (module.weight, module.bias))
    layer = Layer(np.rint(weight * 2**WEIGHT_BITS), np.rint(bias * 2 ** (WEIGHT_BITS + ACTIVATION_BITS)))
    # No partial sum of any output, in any order, exceeds this: y_hat may exceed LIMIT by Y_RANGE, hence twice LIMIT.
    largest = (np.abs(layer.weight).reshape(len(bias), -1).sum(1) * 2 * LIMIT + np.abs(layer.bias)).max()
    if not largest < 2**53:
        raise ValueError("the weights are too large for exact sums: a sum could reach 2**53")
    return layer


def to_grid(total: Array, activate: bool = True) -> Array:
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
    a = to_grid(convolve(first, z_hat))
    a = to_grid(pixel_shuffle(convolve(up, a)))
    a = to_grid(convolve(middle, a))
    a = to_grid(pixel_shuffle(convolve(up_again, a)))
    return to_grid(convolve(last, a), activate=False).transpose(1, 2, 0)


def pixel_shuffle(a: Array) -> Array:
    """(4 * C, H, W) to (C, 2 * H, 2 * W): four channels become a square of four positions."""
    c, h, w = a.shape
    return a.reshape(c // 4, 2, 2, h, w).transpose(0, 3, 1, 4, 2).reshape(c // 4, 2 * h, 2 * w)


# ---------------------------------------------------------------- the walk over y


def wavefronts(height: int, width: int) -> Iterator[tuple[Array, Array]]:
    """Rows and columns of the positions with the same column + 3 * row, in rising order of that sum.

    The mask reaches two columns to the right in the rows above, so all that a position sees lies in earlier wavefronts.
    """
    for t in range(width + 3 * (height - 1)):
        rows = np.arange(max(0, -(-(t - width + 1) // 3)), min(height, t // 3 + 1))
        if len(rows):  # a narrow picture skips some
            yield rows, t - 3 * rows


def walk(model: EntropyModel, z_hat: Array, symbols_at: Callable[..., Array]) -> Array:
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
        context = to_grid(linear(model.context, neighbours), activate=False)
        a = to_grid(linear(first, context) + from_z[rows, columns])
        a = to_grid(linear(second, a))
        scales, means = np.split(to_grid(linear(third, a), activate=False), 2, axis=1)
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


def encode_y(model: EntropyModel, z_hat: Array, y: Array, encoder) -> Array:
    """Code round(y - mean) for y (M, H, W), and return y_hat (M, H, W) in units of 2**-10."""

    def symbols_at(rows, columns, means, scales):
        symbols = np.clip(np.rint(y[:, rows, columns].T - means / ONE), -Y_RANGE, Y_RANGE)
        order, groups = by_scale(model, scales)
        in_order = symbols.ravel()[order].astype(np.int32) + Y_RANGE
        for distribution, start, end in groups:
            encoder.encode(in_order[start:end], distribution)
        return symbols

    return walk(model, z_hat, symbols_at)


def decode_y(model: EntropyModel, z_hat: Array, decoder) -> Array:
    """Read what :func:`encode_y` wrote, and return the same y_hat."""

    def symbols_at(rows, columns, means, scales):
        symbols = np.empty(scales.size)
        order, groups = by_scale(model, scales)
        for distribution, start, end in groups:
            symbols[order[start:end]] = decoder.decode(distribution, end - start)
        return symbols.reshape(scales.shape) - Y_RANGE

    return walk(model, z_hat, symbols_at)


def encode_z(model: EntropyModel, z: Array, encoder) -> Array:
    """Code round(z - median) for z (N, H, W) channel by channel, and return z_hat in units of 2**-10."""
    medians = model.medians[:, None, None]
    symbols = np.clip(np.rint(z - medians / ONE), -Z_RANGE, Z_RANGE).astype(np.int32)
    for channel, distribution in zip(symbols, model.z_models):
        encoder.encode(channel.ravel() + Z_RANGE, distribution)
    return symbols * ONE + medians


def decode_z(model: EntropyModel, size: tuple[int, int], decoder) -> Array:
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


# ---------------------------------------------------------------- tables: made once, then stored


def categorical(frequencies: Array):
    """constriction's model of a table of frequencies >= 1 that add up to 2**24, taken over exactly.

    With perfect=False the library scales weights to 2**24 - n and adds 1 to each of n; these need no scaling.
    """
    return constriction.stream.model.Categorical((frequencies - 1).astype(np.float64), perfect=False)


def to_frequencies(pmf: Array) -> Array:
    """Integers >= 1 that add up to 2**24 in each row of a pmf (rows, n); the largest takes what rounding leaves."""
    n = pmf.shape[1]
    frequencies = 1 + np.floor(pmf / pmf.sum(1, keepdims=True) * (2**PRECISION - n)).astype(np.int64)
    frequencies[np.arange(len(pmf)), pmf.argmax(1)] += 2**PRECISION - frequencies.sum(1)
    return frequencies.astype(np.int32)


def z_frequencies(codec: Cheng2020Anchor) -> Array:
    """The table of z (N, 255): as it is stored in a checkpoint, or made from the entropy bottleneck."""
    if hasattr(codec.entropy_bottleneck, "frequencies"):
        return codec.entropy_bottleneck.frequencies.numpy()
    return make_z_frequencies(codec)


def make_z_frequencies(codec: Cheng2020Anchor) -> Array:
    """The table of z (N, 255) of the entropy bottleneck.

    It takes exponentials, whose last digit may differ between machines: then fingerprints do, and files are refused.
    """
    bottleneck = deepcopy(codec.entropy_bottleneck).double()
    symbols = torch.arange(-Z_RANGE, Z_RANGE + 1, dtype=torch.float64) + bottleneck.quantiles[:, :, 1:2]
    with torch.inference_mode():
        likelihood, _, _ = bottleneck._likelihood(symbols)
    return to_frequencies(likelihood[:, 0].numpy())


def y_tables() -> dict[str, Array]:
    """``frequencies`` and ``thresholds`` of :func:`gaussian_tables`, as they are stored."""
    return load_file(ROOT / "checkpoints" / "gaussian_tables.safetensors")


def gaussian_tables() -> dict[str, Array]:
    """What ``checkpoints/gaussian_tables.safetensors`` stores: one table for each of a ladder of scales.

    ``frequencies`` (128, 512) of the symbols 0 to 511 (negative ones are as frequent), and ``thresholds`` (127,)
    between neighbouring scales in units of 2**-10.
    One symbol in 128 comes from a Gaussian that is more than three times as wide: real symbols stray further than
    the model says.
    At the smallest scale, where channels that carry nothing belong, it is one in 2048.
    The shares were chosen on held-out photographs of the training set, where they saved 1.5 % of the bytes of the
    codec of that time.
    """
    steps = np.arange(dgml.N_SCALES)[:, None]
    ladder = dgml.SMALLEST * (dgml.LARGEST / dgml.SMALLEST) ** (steps / (dgml.N_SCALES - 1))
    share = np.where(steps > 0, dgml.TAIL, dgml.TAIL_OF_SMALLEST)
    pmf = (1 - share) * gaussian_pmf(ladder) + share * gaussian_pmf(3 * ladder + 0.5)
    thresholds = np.rint(np.sqrt(ladder[1:, 0] * ladder[:-1, 0]) * ONE).astype(np.int32)
    return {"frequencies": to_frequencies(pmf)[:, Y_RANGE:].copy(), "thresholds": thresholds}


def gaussian_pmf(scale: Array) -> Array:
    """Probabilities (rows, 1023) of the symbols -511 to 511 under Gaussians of mean 0 and ``scale`` (rows, 1)."""
    edges = np.arange(-Y_RANGE, Y_RANGE + 2) - 0.5
    pmf = torch.special.ndtr(torch.from_numpy(-np.abs(edges) / scale)).diff().abs().numpy()
    pmf[:, Y_RANGE] = 1 - pmf[:, :Y_RANGE].sum(1) - pmf[:, Y_RANGE + 1 :].sum(1)
    return pmf
