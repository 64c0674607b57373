"""The mixtures of chapter 14: probabilities, bytes and what is bundled."""

import numpy as np
import pytest
import torch

import mixtures
from helpers import image_to_tensor, load_codec, load_images


@pytest.fixture(scope="module")
def quality3():
    """The codec of quality 3, and the features and symbols of a picture of noise and ramps."""
    codec = load_codec(3, "bundled")
    generator = torch.Generator().manual_seed(0)
    x = torch.linspace(0, 1, 128).expand(1, 3, 128, 128) * torch.rand(1, 3, 128, 128, generator=generator)
    return codec, *mixtures.latents(codec, x)


@torch.no_grad()
def test_a_new_head_of_one_gaussian_is_the_codec_s_own(quality3):
    codec, features, y_hat = quality3
    scales, means = codec.entropy_parameters(features).chunk(2, 1)
    own = codec.gaussian_conditional._likelihood(y_hat, scales, means).clamp(min=1e-9)
    assert torch.allclose(mixtures.likelihoods(mixtures.new_head(codec, 1), features, y_hat), own, atol=1e-6)


@pytest.mark.parametrize("k", mixtures.COMPONENTS)
@torch.no_grad()
def test_the_probabilities_add_up_and_the_bytes_are_their_information(quality3, k):
    codec, features, y_hat = quality3
    head = mixtures.load_head(codec, 3, k)
    largest = int(y_hat.abs().max()) + 300
    pmfs = mixtures.pmfs(head, features, largest)
    assert np.allclose(pmfs.sum(-1), 1, atol=1e-3)
    symbols = (y_hat[0] + largest).int().numpy()
    given = np.take_along_axis(pmfs, symbols[..., None], -1)[..., 0]
    expected = mixtures.likelihoods(head, features, y_hat)[0].numpy()
    assert np.allclose(given, expected, atol=1e-6)
    words = mixtures.encode_symbols(symbols.ravel(), pmfs)
    assert (mixtures.decode_symbols(words, pmfs) == symbols.ravel()).all()
    usable = mixtures.usable(pmfs)
    shares = usable[np.arange(symbols.size), symbols.ravel()] / usable.sum(-1)
    assert 8 * words.nbytes == pytest.approx(-np.log2(shares).sum(), rel=0.01, abs=64)


@pytest.mark.parametrize("quality", mixtures.HEAD_QUALITIES)
@torch.no_grad()
def test_more_gaussians_cost_no_more_on_the_latents_of_a_photograph(quality):
    codec = load_codec(quality, "bundled")
    features, y_hat = mixtures.latents(codec, image_to_tensor(load_images("bundled")[0]["image"]))
    heads = (mixtures.load_head(codec, quality, k) for k in mixtures.COMPONENTS)
    bits = [-mixtures.likelihoods(head, features, y_hat).log2().sum().item() for head in heads]
    assert bits == sorted(bits, reverse=True)
