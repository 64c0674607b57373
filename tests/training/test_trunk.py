"""The trunk on tiny widths: the class, the linear start, and a resume to the bit."""

from copy import deepcopy

import numpy as np
import pytest
import torch

from dgml.training.linear_start import bin_width, linear_start, start_entropy_model
from dgml.training.soap import SOAP
from dgml.training.trunk import go, open_run
from dgml.training.trunk_loss import anatomy, context_taps, losses, predict
from dgml.training.trunk_state import Recipe, Run, pyramid, read_trunk
from dgml.training.whitening import halve, input_moments, whitened

TINY = (8, 16, 32, 48)


def photographs(count: int = 3, side: int = 128) -> list[np.ndarray]:
    """Smooth pictures with a few edges."""
    random = np.random.default_rng(0)
    pictures = []
    for _ in range(count):
        coarse = torch.from_numpy(random.random((1, 3, 8, 8))).float()
        smooth = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic").clamp(0, 1)
        smooth[..., random.integers(side) :, :] *= 0.5
        pictures.append((255 * smooth[0]).permute(1, 2, 0).byte().numpy())
    return pictures


def batch(side: int = 128) -> torch.Tensor:
    return torch.stack([torch.from_numpy(p).permute(2, 0, 1).float() / 255 for p in photographs(4, side)])


def test_the_start_inverts_itself():
    x = batch()
    codec = pyramid((12, 48, 192, 768))  # nothing is left out
    linear_start(codec, x, 0.0483)
    with torch.no_grad():
        x_hat = codec.g_s(codec.g_a(x))
    assert float((x_hat - x).square().mean()) < 1e-5


def test_the_start_keeps_most_of_a_picture():
    x = batch()
    codec = pyramid(TINY)
    linear_start(codec, x, 0.0483)
    with torch.no_grad():
        y = codec.g_a(x)
        unrounded, rounded = (float((codec.g_s(v) - x).square().mean()) for v in (y, y.round()))
    assert unrounded < 0.01 * float(x.var())
    assert rounded < unrounded + bin_width(0.0483) ** 2 / 12


def test_the_context_is_the_masked_convolution():
    torch.manual_seed(0)
    codec = pyramid(TINY)
    y, hyper = torch.randn(2, 48, 6, 5), torch.randn(2, 96, 6, 5)
    with torch.no_grad():
        expected = codec.entropy_parameters(torch.cat((hyper, codec.context_prediction(y)), 1))
        ours = torch.cat(predict(codec, context_taps(codec), hyper, y), 1)
    assert torch.allclose(ours, expected, atol=1e-5)


@pytest.mark.parametrize("offset", ["half", "all"])
def test_a_loss_reaches_every_parameter(offset):
    x = batch()
    codec = pyramid(TINY)
    linear_start(codec, x, 0.0483)
    start_entropy_model(codec, x)
    losses(codec, x, 0.0483, offset=offset)["loss"].backward()
    silent = [name for name, p in codec.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == ["entropy_bottleneck.quantiles"]
    assert anatomy(codec, list(x.split(1)))["live_y"] > 0


def test_soap_finds_the_bottom_of_a_valley():
    torch.manual_seed(0)
    target, kernel = torch.randn(6, 4, 3, 3), torch.nn.Parameter(torch.zeros(6, 4, 3, 3))
    stretch = torch.linspace(0.1, 10, 6).reshape(-1, 1, 1, 1)
    soap = SOAP([kernel], lr=0.02, precision=torch.float32)
    for _ in range(800):
        soap.zero_grad()
        (stretch * (kernel - target)).square().sum().backward()
        soap.step()
    assert float((kernel - target).detach().abs().max()) < 0.1


def test_a_resumed_run_is_the_run(tmp_path):
    recipe = Recipe(widths=TINY, patch=64, batch=1, frozen=3, transform_rate_rise=4)

    def run() -> Run:
        return Run(recipe, photographs())

    whole, first, second = run(), run(), run()
    whole.start(), first.start()
    for name, steps in (("whole", 6), ("parts", 4)):
        (tmp_path / name).mkdir()
        go(whole if name == "whole" else first, tmp_path / name, steps)
    second.load(read_trunk(tmp_path / "parts" / "state.pt"))
    go(second, tmp_path / "parts", 6)
    for a, b in zip(whole.codec.parameters(), second.codec.parameters()):
        assert torch.equal(a, b)
    for a, b in zip(whole.average.parameters(), second.average.parameters()):
        assert torch.equal(a, b)
    lines = [(tmp_path / name / "log.csv").read_text().splitlines()[-1].split(",") for name in ("whole", "parts")]
    assert lines[0][8:] == lines[1][8:]


def test_a_renewed_hyperprior_tells_where_y_is_large(tmp_path):
    pictures = [p.copy() for p in photographs()]
    for picture in pictures:  # a rough half beside a smooth one
        picture[:, 64:] = np.random.default_rng(1).integers(256, size=(128, 64, 3))
    run = Run(Recipe(widths=TINY, patch=128, batch=1, frozen=2), pictures)
    run.start()
    go(run, tmp_path, 2)
    run.renew_hyperprior()
    x = run.patches.batch(7, 4)
    with torch.no_grad():
        y = run.codec.g_a(x)
        said = run.codec.h_s(run.codec.h_a(y))[:, :48]
    energy = y.abs().log1p()
    both = torch.stack([(t - t.mean((0, 2, 3), keepdim=True)).flatten() for t in (energy, said)])
    assert float(torch.corrcoef(both)[0, 1]) > 0.2
    assert not run.codec.entropy_parameters[0].weight[:, :96].any()
    go(run, tmp_path, 4)
    assert run.codec.entropy_parameters[0].weight[:, :96].any()


def test_a_branch_ends_at_rate_zero(tmp_path):
    trunk = Run(Recipe(widths=TINY, patch=64, batch=1), photographs())
    trunk.start()
    go(trunk, tmp_path, 2)
    branch = Run(Recipe(widths=TINY, patch=64, batch=1, begin=2, cooldown=3), photographs())
    branch.load(read_trunk(tmp_path / "state.pt"))
    go(branch, tmp_path, 5)
    branch.set_rates()
    assert all(group["lr"] == 0 for optimizer in branch.optimizers[:-1] for group in optimizer.param_groups)
    assert (tmp_path / "best.safetensors").exists()


def test_a_whitened_step_moves_outputs_as_if_inputs_were_centered():
    torch.manual_seed(0)
    codec, x = pyramid(TINY), batch()
    moments = input_moments(codec, x)
    layer = codec.g_a[0].conv1
    mean, deviation = moments["g_a.0.conv1.weight"]
    white = (x - mean.reshape(1, -1, 1, 1)) / deviation.reshape(1, -1, 1, 1)
    kernel = (layer.weight * deviation.reshape(1, -1, 1, 1)).detach().requires_grad_()
    bias = (layer.bias + (layer.weight * mean.reshape(1, -1, 1, 1)).sum((1, 2, 3))).detach().requires_grad_()

    def output(values, weight, offset):
        return torch.nn.functional.conv2d(values, weight, offset, stride=2)  # no border: zeros there are not centered

    target = torch.randn_like(output(x, layer.weight, layer.bias))
    (output(white, kernel, bias) - target).square().mean().backward()
    (output(x, layer.weight, layer.bias) - target).square().mean().backward()
    with whitened(codec, moments):
        torch.optim.SGD([layer.weight, layer.bias], lr=0.1).step()
    torch.optim.SGD([kernel, bias], lr=0.1).step()
    assert torch.allclose(output(x, layer.weight, layer.bias), output(white, kernel, bias), atol=1e-4)


def test_half_precision_keeps_the_mean_of_outputs():
    x, codec = batch(), pyramid(TINY)
    linear_start(codec, x, 0.0483)
    halved, plain = deepcopy(codec), deepcopy(codec).half().float()
    halve(halved, input_moments(codec, x))
    assert all(
        torch.equal(p, p.half().float()) for name, p in halved.named_parameters() if name.endswith("conv2.weight")
    )
    with torch.no_grad():
        y, ours, theirs = (model.g_a(x).mean((0, 2, 3)) for model in (codec, halved, plain))
    assert float((ours - y).abs().mean()) < 0.5 * float((theirs - y).abs().mean())


def test_a_branch_forgets_the_average_of_another_lambda(tmp_path):
    trunk = Run(Recipe(widths=TINY, patch=64, batch=1), photographs())
    trunk.start()
    go(trunk, tmp_path, 3)
    branch = open_run(tmp_path / "branch", {"lmbda": 0.0018}, photographs(), tmp_path / "state.pt", cooldown=3)
    assert branch.recipe.begin == 3 and branch.recipe.cooldown == 3 and branch.recipe.lmbda == 0.0018
    assert all(torch.equal(a, b) for a, b in zip(branch.average.parameters(), trunk.codec.parameters()))
    again = open_run(tmp_path, {}, photographs())
    assert all(torch.equal(a, b) for a, b in zip(again.average.parameters(), trunk.average.parameters()))
