"""The file that a search leaves is a file like any other, and never a worse one."""

from contextlib import nullcontext
from copy import deepcopy

import numpy as np
import pytest
import torch
from PIL import Image
from samples import attention_codec, flat, load, noise, photograph, picture, rows_reached
from skimage import data as photographs

from dgml import bitstream, container, entropy, search, tables
from dgml.images import image_to_tensor, pad
from dgml.settings import LAMBDA

SIDES = 128, 96


def losses(codec, shot, quality, steps):
    """The loss of the plain file and of the searched one."""
    files = [bitstream.encode(codec, shot, quality, search=n) for n in (0, steps)]
    return [search.file_loss(shot, bitstream.decode(codec, file), len(file), LAMBDA[quality]) for file in files]


@pytest.mark.parametrize("shot", [photograph(*SIDES), noise(64, 64), flat(70, 50), picture(1, 1), picture(300, 20)])
@pytest.mark.parametrize("quality", [1, 6])
def test_a_search_never_makes_a_worse_file(shot, quality):
    plain, searched = losses(load(quality), shot, quality, steps=3)
    assert searched <= plain


def test_the_plain_file_is_kept_where_the_search_finds_a_worse_one(monkeypatch):
    monkeypatch.setattr(search, "STEP", 100.0)
    shot = photograph(*SIDES)
    assert bitstream.encode(load(3), shot, 3, search=2) == bitstream.encode(load(3), shot, 3)


@pytest.mark.parametrize("quality", [3, 6])
def test_a_few_steps_lower_the_loss_of_a_photograph(quality):
    # The cat of photograph() sits before a blur, on which quality 3 has next to nothing to win.
    face = Image.fromarray(photographs.astronaut()[192:320, 192:320])
    plain, searched = losses(load(quality), face, quality, steps=12)
    assert searched < 0.97 * plain


def test_more_steps_never_end_behind_fewer():
    face = Image.fromarray(photographs.astronaut()[192:288, 192:288])
    files = [bitstream.encode(load(3), face, 3, search=n) for n in (10, 25)]
    few, many = (search.file_loss(face, bitstream.decode(load(3), file), len(file), LAMBDA[3]) for file in files)
    assert many <= few


def test_a_restart_begins_at_the_best_and_shorter_steps_follow_one_that_gained_nothing(monkeypatch):
    restarts, y = [], np.zeros(3)

    def descend(codec, x, y, z, y_hat, lmbda, steps, share, made):
        restarts.append((y.copy(), steps, share))
        return y + 1

    def coded(y):
        return bytes(len(restarts)), y, {0: 9.0, 1: 8.0, 2: 8.5}.get(len(restarts), 8.0)

    monkeypatch.setattr(search, "descend", descend)
    assert search.best_file(None, None, y, y, coded, 1.0, 1000) == bytes(1)
    starts, steps, shares = zip(*restarts)
    assert [start[0] for start in starts] == [0, 1, 1, 1, 1] and set(steps) == {search.RESTART}
    assert shares == (1, 1, 0.5, 0.25, 0.125) and shares[-1] == search.SHORTEST
    restarts.clear()
    search.best_file(None, None, y, y, coded, 1.0, 25)
    assert [steps for _, steps, _ in restarts] == [10, 10, 5]


def test_a_searched_file_decodes_like_any_other_and_leaves_the_codec_alone():
    codec, shot = load(6), photograph(*SIDES)
    before = [p.clone() for p in codec.parameters()]
    file = bitstream.encode(codec, shot, 6, search=5)
    header, decoded = container.read(file), bitstream.decode(codec, file)
    assert (header.version, header.quality, decoded.size) == (1, 6, SIDES)
    assert file != bitstream.encode(codec, shot, 6)
    assert all(torch.equal(a, b) and b.grad is None for a, b in zip(before, codec.parameters()))


def test_the_same_search_finds_the_same_file():
    files = {bitstream.encode(load(3), photograph(*SIDES), 3, search=4) for _ in range(2)}
    assert len(files) == 1


def latents(codec, shot):
    x = image_to_tensor(shot)
    y, z = bitstream.analysis(codec, pad(x))
    _, y_hat = entropy.encode_latents(entropy.entropy_model(codec), y, z)
    hyper = codec.h_s(torch.from_numpy(np.rint(z))[None].float()).detach()
    return x, torch.from_numpy(y_hat / tables.ONE)[None].float(), hyper


def in_double(name):
    """A codec in double precision; in single, a LeakyReLU takes its slope at 0 from the last digit."""
    return deepcopy(attention_codec() if name == "attention" else load(name)).double()


@pytest.mark.parametrize("name", [1, "attention"])
def test_strips_give_the_gradient_of_the_whole(name, monkeypatch):
    monkeypatch.setattr(search, "bfloat16", nullcontext)
    monkeypatch.setattr(torch.Tensor, "float", lambda a: a)
    codec, x = in_double(name), image_to_tensor(photograph(64, 290).rotate(1)).double()
    y_hat = codec.g_a(pad(x)).detach().round()
    hyper = codec.h_s(codec.h_a(y_hat).round()).detach()
    whole = search.loss_gradient(codec, x, y_hat, hyper, LAMBDA[1])
    monkeypatch.setattr(search, "STRIP", 256 * 4 * 3)  # three rows of y at once
    strips = search.loss_gradient(codec, x, y_hat, hyper, LAMBDA[1])
    for one, other in zip(whole, strips):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12 * float(one.abs().max()))


@pytest.mark.parametrize("name", [1, "attention"])
def test_a_strip_sees_all_that_its_rows_depend_on(name):
    codec, y = in_double(name), torch.zeros(1, in_double(name).M, 40, 4, dtype=torch.float64)
    reached = [row // 16 for row in rows_reached(codec.g_s, y, 20)] + rows_reached(codec.context_prediction, y, 20)
    assert min(reached) >= 20 - search.HALO and max(reached) <= 20 + search.HALO


def test_the_gradient_is_that_of_the_loss(monkeypatch):
    monkeypatch.setattr(search, "bfloat16", nullcontext)
    codec = load(3)
    x, y_hat, hyper = latents(codec, photograph(60, 50))
    gradient, _ = search.loss_gradient(codec, x, y_hat, hyper, LAMBDA[3])

    def whole_loss(seen):
        scales, means = codec.entropy_parameters(torch.cat((hyper, codec.context_prediction(seen)), 1)).chunk(2, 1)
        error = (codec.g_s(seen)[:, :, :50, :60] - x).square().mean()
        return LAMBDA[3] * 255**2 * error + search.symbol_bits(seen - means, scales).sum() / (50 * 60)

    seen = y_hat.clone().requires_grad_()
    whole_loss(seen).backward()
    torch.testing.assert_close(gradient, seen.grad, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("quality", [3, 6])
def test_the_bits_that_the_search_counts_are_those_of_the_coder(quality):
    codec = load(quality)
    _, y_hat, hyper = latents(codec, photograph(256, 192))
    scales, means = codec.entropy_parameters(torch.cat((hyper, codec.context_prediction(y_hat)), 1)).chunk(2, 1)
    counted = search.symbol_bits((y_hat - means).round(), scales).sum().item()
    file = bitstream.encode(codec, photograph(256, 192), quality)
    assert counted == pytest.approx(8 * (len(file) - 22), rel=0.03)


def test_soft_rounding_is_monotonic_and_keeps_integers():
    v = torch.linspace(-2, 2, 401, requires_grad=True)
    stairs = search.soft_round(v)
    stairs.sum().backward()
    integers = torch.arange(-2.0, 3.0)
    torch.testing.assert_close(search.soft_round(integers), integers)
    assert (stairs.diff() > 0).all() and (v.grad > 0).all()
    assert ((stairs - v).abs() <= 0.5).all()


@pytest.mark.parametrize("steps, quality, words", [(-1, 3, "0 or more"), (1.5, 3, "0 or more"), (5, 0, "a quality")])
def test_a_bad_search_is_one_clear_line(steps, quality, words):
    with pytest.raises(ValueError, match=words):
        bitstream.encode(load(3), picture(8, 8), quality, search=steps)
