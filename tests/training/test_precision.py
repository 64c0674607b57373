"""Which precision a run takes: the faster one, unless it is told, and the same to its end."""

import pytest
import torch
from training.runs import args_for, stopped_at

from dgml.training import loop, precision


@pytest.fixture
def clock(monkeypatch):
    """A clock that only a test moves."""
    now = [0.0]
    monkeypatch.setattr(precision.time, "perf_counter", lambda: now[0])
    return now


@pytest.mark.parametrize("bfloat16, float32, faster", [(1.0, 2.5, "bf16"), (20.0, 2.5, "no")])
def test_the_faster_is_taken_and_one_line_has_both_times(clock, capsys, bfloat16, float32, faster):
    weight, warm = torch.ones(1, requires_grad=True), set()

    def loss():
        bf16 = torch.is_autocast_enabled("cpu")
        clock[0] += (bfloat16 if bf16 else float32) + (0 if bf16 in warm else 100 - 2 * bfloat16)  # slow at first
        warm.add(bf16)
        return weight.sum()

    assert precision.faster_precision(loss, torch.device("cpu")) == faster
    expected = f"precision {faster}: a step takes {float32:g} s in float32, {bfloat16:g} s in bfloat16\n"
    assert capsys.readouterr().out == expected
    assert weight.grad.item() == 4  # two passes in each


def short(photographs, run, **changed):
    return args_for(photographs, run, **{"widths": (8, 8), "patch": 64, "precision": "auto"} | changed)


def state_of(run):
    return torch.load(run / "state.pt", weights_only=True)


def never(*_):
    raise AssertionError("no step is timed")


def test_a_resumed_run_keeps_the_precision_that_was_faster_at_first(photographs, tmp_path, small, monkeypatch):
    args = short(photographs, tmp_path / "run")
    monkeypatch.setattr(loop, "faster_precision", lambda *_: "bf16")
    stopped_at(3, args, monkeypatch)
    monkeypatch.setattr(loop, "faster_precision", never)
    loop.train(args)
    assert state_of(tmp_path / "run")["progress"]["precision"] == "bf16"
    loop.train(short(photographs, tmp_path / "whole", precision="bf16"))
    assert_equal_weights(tmp_path / "run", tmp_path / "whole")


def test_timing_leaves_the_run_as_it_would_have_been(photographs, tmp_path, small, monkeypatch):
    loop.train(short(photographs, tmp_path / "told", precision="no", steps=2))
    real = loop.faster_precision
    monkeypatch.setattr(loop, "faster_precision", lambda *args: real(*args) and "no")
    loop.train(short(photographs, tmp_path / "timed", steps=2))
    assert_equal_weights(tmp_path / "told", tmp_path / "timed")


def test_a_precision_that_is_told_is_taken_untimed(photographs, tmp_path, small, monkeypatch):
    monkeypatch.setattr(loop, "faster_precision", never)
    for told in ("no", "bf16"):
        loop.train(short(photographs, tmp_path / told, precision=told, steps=1))
        assert state_of(tmp_path / told)["progress"]["precision"] == told
    weights = [state_of(tmp_path / told)["codec"]["g_a.0.conv1.weight"] for told in ("no", "bf16")]
    assert not torch.equal(*weights)


def assert_equal_weights(one, other):
    one, other = state_of(one)["codec"], state_of(other)["codec"]
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
