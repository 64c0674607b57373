"""The prior variants of chapter 10: models of growing knowledge for the same y_hat of a codec that stays as it is.

``histograms``: one table of probabilities for each channel, counted on photographs (a factorized prior).
``scales``: a small hyperprior of its own, whose z signals a scale for each symbol; each channel has one mean.
``means``: the same with a scale and a mean for each symbol.

``python -m dgml train --head NAME`` makes each from photographs, with the codec's g_a frozen, so that every variant
is trained.
The last step, with the context, is the head of one Gaussian of ``mixtures.py``.  Symbols are round(y) in all.
"""

from pathlib import Path

import constriction
import numpy as np
import torch
from compressai.entropy_models import EntropyBottleneck
from compressai.layers import conv1x1, conv3x3
from safetensors.torch import load_file
from torch import Tensor, nn

from dgml.likelihoods import SMALLEST_SCALE, bounded, factorized_likelihood, gaussian_likelihood
from dgml.model import Cheng2020Anchor
from dgml.settings import CHECKPOINTS

QUALITY = 3  # the codec whose prior variants are bundled
WIDTH, Z_CHANNELS = 32, 16
RAREST = 24.0  # bits of a symbol that no photograph had
Z_RANGE = 127  # z of a hyperprior is coded within -127 to 127


class Hyperprior(nn.Module):
    """A hyperprior for an M-channel y: z (Z_CHANNELS, h/4, w/4) and from it scales, and means if ``means``, for y.

    It is small, so that it ships with the book: 1x1 layers where CompressAI's have 3x3, and 16 channels in z.
    """

    def __init__(self, M: int, means: bool):
        super().__init__()
        self.predicts_means = means
        # Mean and standard deviation of each channel, from the photographs: where the Gaussians start.
        self.centre = nn.Parameter(torch.zeros(1, M, 1, 1))
        self.spread = nn.Parameter(torch.ones(1, M, 1, 1), requires_grad=False)
        self.h_a = nn.Sequential(
            conv1x1(M, WIDTH), nn.LeakyReLU(), conv3x3(WIDTH, WIDTH, stride=2), nn.LeakyReLU(),
            conv3x3(WIDTH, Z_CHANNELS, stride=2),
        )  # fmt: skip
        last = conv1x1(WIDTH, 2 * M if means else M)
        self.h_s = nn.Sequential(conv3x3(Z_CHANNELS, WIDTH), nn.LeakyReLU(), *doubled(), *doubled(), last)
        self.entropy_bottleneck = EntropyBottleneck(Z_CHANNELS)

    def z_hat(self, y_hat: Tensor) -> Tensor:
        """z of y_hat (B, M, h, w), rounded: integers (B, Z_CHANNELS, h/4, w/4)."""
        return self.z(y_hat).round().clamp(-Z_RANGE, Z_RANGE)

    def z(self, y_hat: Tensor) -> Tensor:
        """z of y_hat (B, M, h, w) before rounding."""
        return self.h_a((y_hat - self.centre) / self.spread)

    def gaussians_of(self, z_hat: Tensor) -> tuple[Tensor, Tensor]:
        """Scales (at least 0.11) and means (B, M, h, w) that z_hat signals."""
        signalled = self.h_s(z_hat)
        scales, shifts = signalled.chunk(2, 1) if self.predicts_means else (signalled, torch.zeros_like(signalled))
        means = self.centre + self.spread * shifts
        return (self.spread * scales.clamp(-6, 3).exp()).clamp(min=SMALLEST_SCALE), means

    def bits(self, y_hat: Tensor, scales: Tensor, means: Tensor) -> Tensor:
        """Bits of each symbol (B, M, h, w): the Gaussian's integral over one rounding step."""
        return -bounded(gaussian_likelihood(y_hat, scales, means)).log2()

    def z_probabilities(self) -> np.ndarray:
        """The probabilities (Z_CHANNELS, 255) of the integers -127 to 127 in each channel of z."""
        integers = torch.arange(-Z_RANGE, Z_RANGE + 1.0).expand(Z_CHANNELS, 1, -1)
        return factorized_likelihood(self.entropy_bottleneck, integers)[:, 0].detach().numpy()


def doubled() -> list[nn.Module]:
    """Layers that double height and width."""
    return [conv1x1(WIDTH, 4 * WIDTH), nn.PixelShuffle(2), nn.LeakyReLU(), conv3x3(WIDTH, WIDTH), nn.LeakyReLU()]


def prior_path(name: str) -> Path:
    """The file of a bundled prior variant."""
    return CHECKPOINTS / f"prior-q{QUALITY}-{name}.safetensors"


def load_prior(codec: Cheng2020Anchor, name: str) -> Hyperprior:
    """The bundled hyperprior ``scales`` or ``means``, in eval mode."""
    head = Hyperprior(codec.M, name == "means")
    stored = {key: tensor.float() for key, tensor in load_file(prior_path(name)).items()}
    lacking = dict(head.named_parameters()).keys() - stored.keys() - {"entropy_bottleneck.quantiles"}
    if lacking:
        raise ValueError(f"{prior_path(name)} lacks {min(lacking)}")
    nn.Module.load_state_dict(head, stored, strict=False)  # compressai's own method asks for tables that we do not use
    return head.eval()


def load_histograms(largest: int) -> np.ndarray:
    """The probabilities (M, 2 largest + 1) of the integers -largest to largest in each channel of y_hat."""
    bits = load_file(prior_path("histograms"))["bits"].double().numpy()
    more = largest - bits.shape[1] // 2
    bits = np.pad(bits, ((0, 0), (max(more, 0),) * 2), constant_values=RAREST)
    p = 2.0 ** -(bits[:, -more:more] if more < 0 else bits)
    return p / p.sum(axis=1, keepdims=True)


# ---------------------------------------------------------------- coding, in real bytes


def encode_tables(channels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """The words (uint32) of a range coder for integers (C, n), a row of ``probabilities`` (C, 2 R + 1) for each
    channel.
    """
    encoder = constriction.stream.queue.RangeEncoder()
    for symbols, p in zip(channels, probabilities):
        encoder.encode((symbols.ravel() + len(p) // 2).astype(np.int32), table_model(p))
    return encoder.get_compressed()


def decode_tables(words: np.ndarray, probabilities: np.ndarray, n: int) -> np.ndarray:
    """The integers (C, n) again."""
    decoder = constriction.stream.queue.RangeDecoder(words)
    return np.stack([decoder.decode(table_model(p), n) - len(p) // 2 for p in probabilities])


def table_model(p: np.ndarray) -> constriction.stream.model.Categorical:
    """A coder's model of one row of probabilities, none of them zero."""
    floored = np.maximum(p, 2.0**-20).astype(np.float32)
    return constriction.stream.model.Categorical(floored / floored.sum(), perfect=False)


def encode_gaussians(y_hat: np.ndarray, scales: np.ndarray, means: np.ndarray) -> np.ndarray:
    """The words (uint32) of a range coder for integers (n,), each under a Gaussian of its own."""
    encoder = constriction.stream.queue.RangeEncoder()
    encoder.encode(y_hat.astype(np.int32), gaussians(), means.astype(np.float64), scales.astype(np.float64))
    return encoder.get_compressed()


def decode_gaussians(words: np.ndarray, scales: np.ndarray, means: np.ndarray) -> np.ndarray:
    """The integers (n,) again, from the same scales and means."""
    decoder = constriction.stream.queue.RangeDecoder(words)
    return decoder.decode(gaussians(), means.astype(np.float64), scales.astype(np.float64))


def gaussians() -> constriction.stream.model.QuantizedGaussian:
    return constriction.stream.model.QuantizedGaussian(-2047, 2047)
