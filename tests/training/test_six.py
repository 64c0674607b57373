"""Six checkpoints from a folder of photographs, on tiny widths: the flow, stops at several points, and refusals."""

import pytest
import torch

from dgml.checkpoints import load_trained
from dgml.settings import QUALITIES
from dgml.training import six, trunk, trunk_state

LINE = ["--minutes", "1", "--widths", "8", "16", "32", "48", "--batch", "1"]


@pytest.fixture
def quick(monkeypatch):
    """A trunk and cooldowns of a few steps: each look at the clock takes a second."""
    monkeypatch.setattr(six, "SHORTEST", 2)
    monkeypatch.setattr(trunk.Run, "frozen", lambda self: self.progress.step < 3)
    ticks = iter(range(10**6))
    monkeypatch.setattr(trunk.time, "monotonic", lambda: float(next(ticks)))


def command(photographs, run, *more) -> list[str]:
    return ["--images", str(photographs), "--run", str(run), *LINE, *more]


def weights(run) -> list[torch.Tensor]:
    files = [run / f"cheng2020-anchor-q{quality}.safetensors" for quality in QUALITIES]
    return [p.detach() for file in files for p in load_trained(file).parameters()]


def killed(photographs, run, quality: int | None, monkeypatch) -> None:
    """End the command at the second step of the trunk, or of a quality's cooldown."""
    real, seen = trunk.Run.step, []

    def step(self):
        if bool(self.recipe.cooldown) == bool(quality) and self.recipe.lmbda == six.LAMBDA[quality or 6]:
            seen.append(1)
            if len(seen) == 2:
                raise MemoryError
        return real(self)

    with monkeypatch.context() as patch:
        patch.setattr(trunk.Run, "step", step)
        with pytest.raises(MemoryError):
            six.main(command(photographs, run))


def test_from_photographs_to_six_codecs(photographs, tmp_path, quick, capsys):
    assert six.main(command(photographs, tmp_path / "run")) == 0
    shown = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in shown[-6:]] == ["1", "2", "3", "4", "5", "6"]
    for quality in QUALITIES:
        codec = load_trained(tmp_path / "run" / f"cheng2020-anchor-q{quality}.safetensors")
        assert codec.M == 48
    again = six.main(command(photographs, tmp_path / "run"))
    assert again == 0 and capsys.readouterr().out.splitlines()[-7:] == shown[-7:]


@pytest.mark.parametrize("quality", [None, 3])
def test_killed_and_resumed_it_ends_with_six(photographs, tmp_path, quick, monkeypatch, quality):
    killed(photographs, tmp_path / "run", quality, monkeypatch)
    assert not (tmp_path / "run" / "cheng2020-anchor-q1.safetensors").exists()
    assert six.main(command(photographs, tmp_path / "run")) == 0
    assert all(p.isfinite().all() for p in weights(tmp_path / "run"))


def test_a_piece_stops_and_says_so(photographs, tmp_path, quick, capsys):
    pieces = 0
    while not (tmp_path / "run" / "cheng2020-anchor-q1.safetensors").exists():
        assert six.main(command(photographs, tmp_path / "run", "--piece", "0.2")) == 0
        pieces += 1
        assert pieces < 40
    assert pieces > 3
    assert "the same command goes on" in capsys.readouterr().out


def test_other_arguments_are_refused(photographs, tmp_path, quick, capsys):
    six.main(command(photographs, tmp_path / "run", "--piece", "0.2"))
    assert six.main(command(photographs, tmp_path / "run", "--seed", "5")) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("make checkpoints:")
    (tmp_path / "empty").mkdir()
    assert six.main(command(tmp_path / "empty", tmp_path / "other")) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_state_cut_short_is_one_line(photographs, tmp_path, quick, capsys):
    six.main(command(photographs, tmp_path / "run", "--piece", "0.2"))
    state = tmp_path / "run" / "trunk" / "state.pt"
    state.write_bytes(state.read_bytes()[:1000])
    assert six.main(command(photographs, tmp_path / "run")) == 1
    assert "state.pt is damaged" in capsys.readouterr().err.splitlines()[-1]


def test_a_full_disk_loses_nothing(photographs, tmp_path, quick, monkeypatch, capsys):
    six.main(command(photographs, tmp_path / "run", "--piece", "0.2"))
    state = tmp_path / "run" / "trunk" / "state.pt"
    before = state.read_bytes()

    def full(path, data):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(trunk_state, "atomic_write", full)
        assert six.main(command(photographs, tmp_path / "run")) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert state.read_bytes() == before
    assert six.main(command(photographs, tmp_path / "run")) == 0
