"""The probabilities of symbols are CompressAI's own, to the last bit, and so are their gradients."""

import pytest
import torch
from compressai.entropy_models import EntropyBottleneck, GaussianConditional, GaussianMixtureConditional
from torch import nn

from dgml import mixtures
from dgml.likelihoods import SMALLEST_LIKELIHOOD, SMALLEST_SCALE, bounded, factorized_likelihood, gaussian_likelihood

SHAPE = 2, 8, 5, 7


@pytest.fixture
def gaussians():
    """Symbols, some of them far out, scales on both sides of the smallest, and means; all with gradients."""
    generator = torch.Generator().manual_seed(0)
    symbols, scales, means = (torch.randn(SHAPE, generator=generator) for _ in range(3))
    symbols[0, :4] *= 30
    scales = scales.exp() * 0.3
    assert (scales < SMALLEST_SCALE).any() and (scales > 1).any()
    return [a.requires_grad_() for a in (symbols, scales, means)]


def value_and_gradients(likelihood, inputs):
    # A weight for each symbol, so that no two errors cancel; its sign lets both sides of a bound pull.
    weight = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
    return likelihood, *torch.autograd.grad((weight * likelihood.log2()).sum(), inputs)


def test_a_gaussian_is_compressai_s(gaussians):
    conditional = GaussianConditional(None).train()
    torch.manual_seed(0)
    noisy, theirs = conditional(*gaussians)  # noise leaves the gradient as it is
    assert (theirs == SMALLEST_LIKELIHOOD).any()
    theirs = value_and_gradients(theirs, gaussians)
    inputs = [noisy.detach().requires_grad_(), *gaussians[1:]]
    ours = value_and_gradients(bounded(gaussian_likelihood(*inputs)), inputs)
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs))


def test_a_gaussian_of_mean_0_needs_no_mean(gaussians):
    symbols, scales, _ = gaussians
    assert torch.equal(gaussian_likelihood(symbols, scales), gaussian_likelihood(symbols, scales, torch.zeros(SHAPE)))


@pytest.mark.parametrize("k", [1, 3])
def test_a_mixture_is_compressai_s(gaussians, k):
    torch.manual_seed(0)
    head = nn.Sequential(nn.Conv2d(4, 3 * k * SHAPE[1], 1))
    head.k = k
    features = torch.randn(SHAPE[0], 4, *SHAPE[2:])
    y_hat = gaussians[0].detach().round()
    ours = value_and_gradients(mixtures.likelihoods(head, features, y_hat), list(head.parameters()))
    numbers = mixtures.parameters(head, features)
    _, theirs = GaussianMixtureConditional(k).eval()(y_hat, *numbers)
    theirs = value_and_gradients(theirs, list(head.parameters()))
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs))


def test_a_factorized_density_is_compressai_s():
    torch.manual_seed(0)
    bottleneck = EntropyBottleneck(8).eval()
    z = torch.randn(1, 8, 3, 5).mul(4).round()  # its medians are zero
    z_hat, theirs = bottleneck(z)
    ours = factorized_likelihood(bottleneck, z_hat.transpose(0, 1).flatten(2).flatten(1)[:, None])
    assert torch.equal(bounded(ours), theirs.reshape(8, 1, -1))


def test_all_integers_together_have_probability_1():
    symbols = torch.arange(-300.0, 301, dtype=torch.float64)
    for scale, mean in ((0.11, 0.3), (1.0, -0.5), (40.0, 7.2)):
        total = gaussian_likelihood(symbols, torch.full_like(symbols, scale), mean).sum()
        assert float(total) == pytest.approx(1, abs=1e-7)
