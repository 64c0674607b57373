"""The optimizers and their schedules."""

import argparse

import numpy as np
import pytest
import torch

from dgml.training import data, loop, loss, optimizers


def test_masked_taps_get_no_gradient_and_stay_zero():
    args = argparse.Namespace(
        seed=0, widths=(16, 16), quality=3, attention=False, init=None, warm_start=None, reinitialize=False, batch=1
    )
    codec = loop.new_codec(args, data.Patches([np.full((64, 64, 3), 90, np.uint8)], 0, 64))
    soap, *_ = optimizers.make_optimizers(codec)
    kernel, masked = codec.context_prediction.weight, codec.context_prediction.mask == 0
    before = kernel.clone()
    for _ in range(2):  # the first only measures
        soap.zero_grad()
        loss.Objective(codec)(torch.rand(1, 3, 64, 64), 0.01, 1.0)[0].backward()
        assert not kernel.grad[masked].any() and kernel.grad[~masked].all()
        soap.step()
    assert not kernel[masked].any() and not torch.equal(kernel, before)


def test_the_schedule_counts_steps():
    assert [optimizers.rate_factor(step, 1000) for step in (0, 99, 499, 750, 1000)] == [0.01, 1, 1, 0.5, 0]
    assert optimizers.rate_factor(50_000, 100_000, decay=0) == 1
    assert optimizers.rate_factor(40, 0) == 0.41  # --minutes has not chosen the number of steps yet


def test_lambda_comes_down_to_its_value():
    factors = [optimizers.lambda_factor(step, 1000) for step in (0, 500, 1000, 5000)]
    assert factors == pytest.approx([16, 4, 1, 1]) and optimizers.lambda_factor(0, None) == 1
