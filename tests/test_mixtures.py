"""The mixtures of chapter 14: probabilities, bytes and what is bundled."""

import pytest
import torch
from safetensors import safe_open

from dgml import mixtures, settings
from dgml.checkpoints import load_codec
from dgml.images import image_to_tensor, pad
from dgml.likelihoods import bounded, gaussian_likelihood
from dgml.picture_sets import load_images
from dgml.settings import ROOT


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
    own = bounded(gaussian_likelihood(y_hat, scales, means))
    assert torch.allclose(mixtures.likelihoods(mixtures.new_head(codec, 1), features, y_hat), own, atol=1e-6)


@pytest.fixture(scope="module")
def photograph():
    return pad(image_to_tensor(load_images("bundled")[2]["image"])[..., :192, :256])


@pytest.mark.parametrize("k", settings.COMPONENTS)
def test_the_words_decode_and_are_their_information(photograph, k):
    codec = load_codec(3, "bundled")
    head = mixtures.load_mixture(codec, 3, k)
    y, z_hat = mixtures.y_and_z_hat(codec, photograph)
    words, y_hat, bits = mixtures.encode_mixtures(codec, head, y, z_hat)
    assert torch.equal(mixtures.decode_mixtures(codec, head, words, z_hat), y_hat)
    assert (y[0] - y_hat).abs().max() <= 0.5001  # round(y - m) + m
    assert 8 * words.nbytes == pytest.approx(float(bits.sum()), rel=0.005, abs=64)
    with torch.no_grad():  # what the scan saw is what the whole picture's layers see
        features = torch.cat((codec.h_s(z_hat), codec.context_prediction(y_hat[None])), dim=1)
        _, means, weights = (t.unflatten(1, (k, -1))[0] for t in mixtures.parameters(head, features))
    m = (weights * means).sum(0)
    assert torch.allclose(y_hat, (y[0] - m).round() + m, atol=1e-4)
    p = mixtures.likelihoods(head, features, y_hat[None])[0].detach()
    assert torch.allclose(2**-bits, p, atol=1e-5)


@pytest.mark.parametrize("k", [1, 3])
def test_what_is_coded_is_an_integer_away_from_the_mean(quality3, k):
    codec, features, _ = quality3
    head = mixtures.new_head(codec, k)
    torch.manual_seed(0)
    torch.nn.init.normal_(head[-1].bias)
    y = 3 * torch.randn(features.shape[0], codec.M, *features.shape[2:])
    y_hat = mixtures.coded(head, features, y)
    _, means, weights = (t.unflatten(1, (k, -1)) for t in mixtures.parameters(head, features))
    symbols = y_hat - (weights * means).sum(1)
    assert torch.allclose(symbols, symbols.round(), atol=1e-4) and symbols.abs().max() > 1
    assert (y - y_hat).abs().max() <= 0.5001
    assert not y_hat.requires_grad


def test_a_model_of_constriction_has_the_mixture_s_distribution():
    scales, means, weights = torch.tensor([[0.8, 1, 2], [0, 2, 4], [0.6, 0.3, 0.1]])[:, None, :, None]
    symbols = torch.arange(-40.0, 41)[:, None, None]
    expected = 2 ** -mixtures.information(symbols, scales, means, weights)
    assert float(expected.sum()) == pytest.approx(1, abs=1e-4)
    numbers = mixtures.columns_of(*(t.expand(81, -1, -1) for t in (scales, means, weights)))
    encoder = mixtures.constriction.stream.queue.RangeEncoder()
    encoder.encode(symbols.int().numpy().ravel(), mixtures.custom_model(3), *numbers)
    assert encoder.num_bits() == pytest.approx(-float(expected.log2().sum()), rel=0.02)


@pytest.mark.parametrize("quality", mixtures.HEAD_QUALITIES)
def test_more_gaussians_cost_no_more_on_the_photographs(quality):
    codec = load_codec(quality, "bundled")
    crops = [image_to_tensor(row["image"])[..., :256, 128:384] for row in load_images("bundled")]
    coded = [mixtures.y_and_z_hat(codec, x) for x in crops]
    heads = (mixtures.load_mixture(codec, quality, k) for k in settings.COMPONENTS)
    sizes = [sum(mixtures.encode_mixtures(codec, head, *one)[0].nbytes for one in coded) for head in heads]
    assert sizes[0] > max(sizes[1:])


@pytest.mark.parametrize("quality", mixtures.HEAD_QUALITIES)
@pytest.mark.parametrize("k", settings.COMPONENTS)
def test_the_chapter_says_how_long_the_heads_were_trained(quality, k):
    chapter = next((ROOT / "notebooks").glob("14_*.ipynb")).read_text("utf-8")
    with safe_open(mixtures.mixture_path(quality, k), "pt") as file:
        steps = int(file.metadata()["step"])
    assert f"--steps {steps} " in chapter and f"{steps:,} more steps" in chapter
