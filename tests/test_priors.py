"""What is coded comes back, bytes are what the bits say, and a prior variant that was trained can be loaded."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from dgml import priors
from dgml.checkpoints import load_codec
from dgml.model import DeepAnchor
from dgml.training import heads


@pytest.fixture(scope="module")
def y_hat():
    """A y (1, 32, 8, 12) whose channels have spreads from 0.2 to 6."""
    torch.manual_seed(0)
    return (torch.linspace(0.2, 6, 32).reshape(1, -1, 1, 1) * torch.randn(1, 32, 8, 12)).round()


def test_tables_come_back_and_cost_what_they_say():
    random = np.random.default_rng(0)
    p = random.dirichlet(np.ones(9), size=3)
    channels = np.stack([random.choice(np.arange(-4, 5), size=2000, p=row) for row in p])
    words = priors.encode_tables(channels, p)
    assert (priors.decode_tables(words, p, 2000) == channels).all()
    said = -sum(np.log2(row[symbols + 4]).sum() for row, symbols in zip(p, channels))
    assert abs(32 * len(words) - said) < 0.002 * said + 64


def test_gaussians_come_back_and_cost_what_they_say(y_hat):
    head = priors.Hyperprior(32, means=True)
    scales = torch.linspace(0.4, 6, 32).reshape(1, -1, 1, 1).expand(y_hat.shape)
    means = 0.3 * torch.randn(y_hat.shape)
    symbols, s, m = (t.flatten().numpy() for t in (y_hat, scales, means))
    words = priors.encode_gaussians(symbols, s, m)
    assert (priors.decode_gaussians(words, s, m) == symbols).all()
    said = float(head.bits(y_hat, scales, means).sum())
    assert abs(32 * len(words) - said) < 0.01 * said + 64


@pytest.mark.parametrize("largest", [1, 37, 400])
def test_histograms_are_probabilities_for_any_picture(largest):
    p = priors.load_histograms(largest)
    assert p.shape == (load_codec(priors.QUALITY, "bundled").M, 2 * largest + 1)
    assert (p > 0).all() and np.allclose(p.sum(1), 1)


def test_counting_gives_the_bits_of_the_shares():
    y_hat = torch.tensor([-1.0, 0, 0, 0, 0, 0, 0, 1]).reshape(1, 1, 2, 4)
    (bits,) = heads.bits_of_counts([y_hat])
    assert np.allclose(bits, -np.log2(np.array([1, 6, 1]) / 8), atol=0.02)


@pytest.mark.parametrize("name", ["scales", "means"])
def test_training_lowers_the_bits_and_leaves_what_can_be_loaded(name, y_hat, tmp_path, monkeypatch):
    rows = []
    tensors = heads.fit(name, [y_hat] * 8, [y_hat], 100, 0, rows.append)
    total = [row["held_out_bits_y"] + row["held_out_bits_z"] for row in rows]
    assert len(rows) == 2 and total[1] < total[0]
    save_file(tensors, tmp_path / "head.safetensors")
    monkeypatch.setattr(priors, "prior_path", lambda name: tmp_path / "head.safetensors")
    head = priors.load_prior(DeepAnchor(32, 32), name)
    with torch.no_grad():
        y_bits, z_bits = heads.costs(head, y_hat)
    assert float(y_bits + z_bits) == pytest.approx(total[1], rel=0.02)


def test_a_file_that_lacks_something_is_refused(tmp_path, monkeypatch):
    save_file({"centre": torch.zeros(1)}, tmp_path / "head.safetensors")
    monkeypatch.setattr(priors, "prior_path", lambda name: tmp_path / "head.safetensors")
    with pytest.raises(ValueError, match="lacks"):
        priors.load_prior(DeepAnchor(32, 32), "means")
