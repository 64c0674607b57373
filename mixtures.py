"""Mixtures of K Gaussians for the symbols of a codec whose transforms stay as they are (chapter 14).

The paper models every symbol by three Gaussians (Cheng et al., CVPR 2020, eq. 6); CompressAI's model and the bundled checkpoints have one.
A *head* takes the place of ``codec.entropy_parameters``: the same three 1x1 layers, with K scales, means and weights for each symbol at the end.
``train.py --mixture K`` trains one, ``evaluate.py --mixtures`` measures what it saves.

Symbols are round(y), for every K alike: no mean can be subtracted first where there are several.
"""

from copy import deepcopy

import constriction
import numpy as np
import torch
from compressai.entropy_models import GaussianMixtureConditional
from safetensors.torch import load_file
from torch import Tensor, nn

from helpers import ROOT, Cheng2020Anchor

HEAD_QUALITIES = (3, 6)  # the codecs whose heads are bundled
COMPONENTS = (1, 2, 3)
ROW = constriction.stream.model.Categorical(perfect=False)  # a row of probabilities for each symbol
SPREAD = (1.0, 2.0, 0.5)  # a new component is wider, the next narrower, than the Gaussian that it starts from


def new_head(codec: Cheng2020Anchor, k: int) -> nn.Sequential:
    """A head of ``k`` components that starts from the codec's own: (B, 4M, h, w) features to (B, 3kM, h, w), scales, means and logits of the weights.

    All components begin at the codec's mean; nearly all of the weight is on the first, which begins at the codec's scale.
    """
    head = deepcopy(codec.entropy_parameters)
    own = head[-1]
    scales, means = ((w, b) for w, b in zip(own.weight.detach().chunk(2), own.bias.detach().chunk(2)))
    last = nn.Conv2d(own.in_channels, 3 * k * codec.M, 1)
    weight = [spread * scales[0] for spread in SPREAD[:k]] + k * [means[0]] + k * [torch.zeros_like(means[0])]
    bias = [spread * scales[1] for spread in SPREAD[:k]] + k * [means[1]]
    bias += [torch.full_like(means[1], 0.0 if i == 0 else -3.0) for i in range(k)]
    last.weight.data, last.bias.data = torch.cat(weight), torch.cat(bias)
    head[-1], head.k = last, k
    return head


def load_head(codec: Cheng2020Anchor, quality: int, k: int) -> nn.Sequential:
    """The bundled head of ``k`` components for quality 3 or 6."""
    head = new_head(codec, k)
    head.load_state_dict({n: t.float() for n, t in load_file(head_path(quality, k)).items()})
    return head.eval()


def head_path(quality: int, k: int):
    return ROOT / "checkpoints" / f"mixture-q{quality}-k{k}.safetensors"


@torch.no_grad()
def latents(codec: Cheng2020Anchor, x: Tensor) -> tuple[Tensor, Tensor]:
    """What a head reads and what it predicts, from padded pictures (B, 3, H, W): the features (B, 4M, H/16, W/16) of z and of the context, and round(y) (B, M, H/16, W/16)."""
    y = codec.g_a(x)
    z = codec.h_a(y)
    medians = codec.entropy_bottleneck._get_medians().reshape(1, -1, 1, 1)
    y_hat = torch.round(y)
    hyper = codec.h_s(torch.round(z - medians) + medians)
    return torch.cat((hyper, codec.context_prediction(y_hat)), dim=1), y_hat


def parameters(head: nn.Sequential, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Scales, means and weights (B, kM, h, w) each, component after component; the weights of a symbol add up to 1."""
    scales, means, logits = head(features).chunk(3, dim=1)
    weights = logits.unflatten(1, (head.k, -1)).softmax(dim=1).flatten(1, 2)
    return scales, means, weights


def likelihoods(head: nn.Sequential, features: Tensor, y_hat: Tensor) -> Tensor:
    """The probability of every symbol (B, M, h, w) under the mixture of ``head``."""
    scales, means, weights = parameters(head, features)
    model = GaussianMixtureConditional(K=head.k)
    return model.likelihood_lower_bound(model._likelihood(y_hat, scales, means, weights))


@torch.no_grad()
def pmfs(head: nn.Sequential, features: Tensor, largest: int) -> np.ndarray:
    """The probabilities of the integers -largest to largest for every symbol of one picture: (M, h, w, 2 largest + 1), float32."""
    scales, means, weights = parameters(head, features)
    # CompressAI's likelihood takes channels as they come, so the alphabet can stand where the pictures of a batch do.
    alphabet = (
        torch.arange(-largest, largest + 1.0)
        .reshape(-1, 1, 1, 1)
        .expand(-1, scales.shape[1] // head.k, *features.shape[2:])
    )
    model = GaussianMixtureConditional(K=head.k)
    return model._likelihood(alphabet, scales, means, weights).permute(1, 2, 3, 0).numpy()


def encode_symbols(symbols: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """The words (uint32) of a range coder for ``symbols`` (n,) in 0 … S - 1 with a row of ``probabilities`` (n, S) for each."""
    encoder = constriction.stream.queue.RangeEncoder()
    encoder.encode(symbols.astype(np.int32), ROW, usable(probabilities))
    return encoder.get_compressed()


def decode_symbols(words: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """The symbols (n,) again, from the same probabilities."""
    return constriction.stream.queue.RangeDecoder(words).decode(ROW, usable(probabilities))


def usable(probabilities: np.ndarray) -> np.ndarray:
    """Every symbol possible, as a coder needs it: at least 2**-20, where a Gaussian's tail underflows to zero.

    In C order: constriction reads the memory as it lies, and would take a transposed view for other probabilities.
    """
    floored = np.maximum(probabilities, 2.0**-20).reshape(-1, probabilities.shape[-1])
    return np.ascontiguousarray(floored, np.float32)
