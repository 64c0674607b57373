"""Mixtures of K Gaussians for the symbols of a codec whose transforms stay as they are (chapter 14).

The paper models every symbol by three Gaussians (Cheng et al., CVPR 2020, eq. 6); CompressAI's model and the bundled
checkpoints have one.
A *head* takes the place of ``codec.entropy_parameters``: the same three 1x1 layers, with K scales, means and weights
for each symbol at the end.
``python -m dgml train --mixture K`` trains one, ``python -m dgml evaluate --mixtures`` measures what it saves.

Symbols are round(y - m), where m is the mean of the mixture, the sum of w_k * mu_k: an offset that the decoder knows.
Heads are trained on these symbols and judged on them.
"""

from collections.abc import Callable
from copy import deepcopy
from math import erf, sqrt
from pathlib import Path

import constriction
import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from dgml.entropy import wavefronts
from dgml.likelihoods import SMALLEST_SCALE, bounded, gaussian_likelihood
from dgml.model import Cheng2020Anchor, z_medians
from dgml.settings import CHECKPOINTS

HEAD_QUALITIES = (3, 6)  # the codecs whose heads are bundled
FARTHEST = 2000  # symbols of either sign up to here can be coded
SPREAD = (1.0, 2.0, 0.5)  # a new component is wider, the next narrower, than the Gaussian that it starts from


class Head(nn.Sequential):
    """Three 1x1 layers whose last has ``k`` scales, means and logits of weights for each symbol."""

    def __init__(self, *layers: nn.Module, k: int):
        super().__init__(*layers)
        self.k = k


def new_head(codec: Cheng2020Anchor, k: int) -> Head:
    """A head of ``k`` components that starts from the codec's own: (B, 4M, h, w) features to (B, 3kM, h, w), scales,
    means and logits of the weights.

    All begin at the codec's mean; nearly all of the weight is on the first, which begins at the codec's scale.
    """
    head = deepcopy(codec.entropy_parameters)
    own = head[-1]
    scales, means = ((w, b) for w, b in zip(own.weight.detach().chunk(2), own.bias.detach().chunk(2)))
    last = nn.Conv2d(own.in_channels, 3 * k * codec.M, 1)
    weight = [spread * scales[0] for spread in SPREAD[:k]] + k * [means[0]] + k * [torch.zeros_like(means[0])]
    bias = [spread * scales[1] for spread in SPREAD[:k]] + k * [means[1]]
    bias += [torch.full_like(means[1], 0.0 if i == 0 else -3.0) for i in range(k)]
    last.weight, last.bias = nn.Parameter(torch.cat(weight)), nn.Parameter(torch.cat(bias))
    return Head(*head[:-1], last, k=k)


def load_mixture(codec: Cheng2020Anchor, quality: int, k: int) -> Head:
    """The bundled head of ``k`` components for quality 3 or 6."""
    head = new_head(codec, k)
    head.load_state_dict({n: t.float() for n, t in load_file(mixture_path(quality, k)).items()})
    return head.eval()


def mixture_path(quality: int, k: int) -> Path:
    return CHECKPOINTS / f"mixture-q{quality}-k{k}.safetensors"


@torch.no_grad()
def y_and_z_hat(codec: Cheng2020Anchor, x: Tensor) -> tuple[Tensor, Tensor]:
    """y (1, M, H/16, W/16) and the rounded z (1, N, H/64, W/64) of a padded picture (1, 3, H, W)."""
    y, medians = codec.g_a(x), z_medians(codec)
    return y, torch.round(codec.h_a(y) - medians) + medians


@torch.no_grad()
def latents(codec: Cheng2020Anchor, x: Tensor) -> tuple[Tensor, Tensor]:
    """What a head reads and what it predicts if symbols are round(y), of padded pictures (B, 3, H, W).

    The features (B, 4M, H/16, W/16) of z and of the context, and round(y) (B, M, H/16, W/16).
    """
    y, z_hat = y_and_z_hat(codec, x)
    y_hat = torch.round(y)
    return features_of(codec, codec.h_s(z_hat), y_hat), y_hat


def features_of(codec: Cheng2020Anchor, hyper: Tensor, y_hat: Tensor) -> Tensor:
    """What a head reads (B, 4M, h, w): the output of h_s (B, 2M, h, w), and the context of y_hat (B, M, h, w)."""
    return torch.cat((hyper, codec.context_prediction(y_hat)), dim=1)


def parameters(head: Head, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Scales, means and weights (B, kM, h, w) each, component after component; the weights of a symbol add up to 1."""
    scales, means, logits = head(features).float().chunk(3, dim=1)
    weights = logits.unflatten(1, (head.k, -1)).softmax(dim=1).flatten(1, 2)
    return scales, means, weights


def offset(head: Head, means: Tensor, weights: Tensor) -> Tensor:
    """m (B, M, h, w), the mean of each mixture, from means and weights (B, kM, h, w)."""
    return (weights * means).unflatten(1, (head.k, -1)).sum(1)


@torch.no_grad()
def coded(head: Head, features: Tensor, y: Tensor) -> Tensor:
    """What is coded of y (B, M, h, w) if a head reads ``features``: round(y - m) + m, without a gradient."""
    m = offset(head, *parameters(head, features)[1:])
    return torch.round(y - m) + m


def likelihoods(head: Head, features: Tensor, y_hat: Tensor) -> Tensor:
    """The probability of every symbol (B, M, h, w) under the mixture of ``head``."""
    scales, means, weights = parameters(head, features)
    components = zip(scales.chunk(head.k, 1), means.chunk(head.k, 1), weights.chunk(head.k, 1))
    return bounded(
        sum((gaussian_likelihood(y_hat, s, m) * weight for s, m, weight in components), torch.zeros_like(y_hat))
    )


@torch.no_grad()
def scan_mixtures(codec: Cheng2020Anchor, head: Head, z_hat: Tensor, symbols_at: Callable[..., Tensor]) -> Tensor:
    """Visit y wavefront by wavefront, as in chapter 12, and return y_hat (M, h, w) = symbols + m.

    ``symbols_at(rows, columns, m, mixture)`` says which symbols (n, M) stand there.  m (n, M) is the sum of weights *
    means over K; ``mixture`` has the scales, the means less m, and the weights, (n, K, M) each.
    """
    hyper = codec.h_s(z_hat)[0]
    m, (height, width) = codec.M, hyper.shape[1:]
    y_hat = torch.zeros(m, height + 4, width + 4)
    kernel = (codec.context_prediction.weight * codec.context_prediction.mask).flatten(2)[..., :12]
    for rows, columns in wavefronts(height, width):
        taps = [y_hat[:, rows + i // 5, columns + i % 5] for i in range(12)]  # (M, n) each
        context = torch.einsum("omt,tmn->on", kernel, torch.stack(taps)) + codec.context_prediction.bias[:, None]
        features = torch.cat((hyper[:, rows, columns], context)).T[:, :, None, None]
        scales, means, weights = (t.reshape(len(rows), head.k, m) for t in parameters(head, features))
        mean = (weights * means).sum(1)
        mixture = scales.clamp(min=SMALLEST_SCALE), means - mean[:, None], weights
        y_hat[:, rows + 2, columns + 2] = (symbols_at(rows, columns, mean, mixture) + mean).T
    return y_hat[:, 2:-2, 2:-2]


@torch.no_grad()
def encode_mixtures(codec: Cheng2020Anchor, head: Head, y: Tensor, z_hat: Tensor) -> tuple[np.ndarray, Tensor, Tensor]:
    """The words of y (1, M, h, w), and with them y_hat (M, h, w) and the bits of every symbol (M, h, w)."""
    encoder, bits = constriction.stream.queue.RangeEncoder(), torch.zeros(y.shape[1:])

    def symbols_at(rows: np.ndarray, columns: np.ndarray, mean: Tensor, mixture: tuple) -> Tensor:
        symbols = (y[0, :, rows, columns].T - mean).round()
        bits[:, rows, columns] = information(symbols[:, None], *mixture).T
        encoder.encode(symbols.int().numpy().ravel(), custom_model(head.k), *columns_of(*mixture))
        return symbols

    y_hat = scan_mixtures(codec, head, z_hat, symbols_at)
    return encoder.get_compressed(), y_hat, bits


def decode_mixtures(codec: Cheng2020Anchor, head: Head, words: np.ndarray, z_hat: Tensor) -> Tensor:
    """y_hat (M, h, w) again, from the words and z_hat alone."""
    decoder = constriction.stream.queue.RangeDecoder(words)

    def symbols_at(rows: np.ndarray, columns: np.ndarray, mean: Tensor, mixture: tuple) -> Tensor:
        flat = decoder.decode(custom_model(head.k), *columns_of(*mixture))
        return torch.from_numpy(flat).float().reshape(len(rows), -1)

    return scan_mixtures(codec, head, z_hat, symbols_at)


def information(symbols: Tensor, scales: Tensor, means: Tensor, weights: Tensor) -> Tensor:
    """Bits (n, M) of symbols (n, 1, M) under mixtures (n, K, M); none counts as rarer than 2**-24, as in the coder."""
    p = (weights * gaussian_likelihood(symbols, scales, means)).sum(1)
    return -p.clamp(min=2**-24).log2()


def custom_model(k: int) -> constriction.stream.model.CustomModel:
    """A model for constriction that knows a mixture by its CDF: scales, means and weights of each symbol."""

    def cdf(x: float, *numbers: float) -> float:
        total = 1.0
        for i in range(k):
            total += numbers[2 * k + i] * erf((x - numbers[k + i]) / (sqrt(2) * numbers[i]))
        return total / 2

    # Where the search for a symbol starts: at the mean, which is zero.
    return constriction.stream.model.CustomModel(cdf, lambda share, *numbers: 0.0, -FARTHEST, FARTHEST)


def columns_of(scales: Tensor, means: Tensor, weights: Tensor) -> list[np.ndarray]:
    """The 3K arrays (n * M,) of float64 that a model reads, from mixtures (n, K, M)."""
    return [t.double().numpy().ravel() for numbers in (scales, means, weights) for t in numbers.unbind(1)]
