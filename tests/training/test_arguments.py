"""The arguments of a training: what they refuse."""

import pytest

from dgml import cli


@pytest.mark.parametrize(
    "wrong",
    ["--steps 0", "--steps -5", "--minutes 0", "--minutes nan", "--steps 20 --mixture 3", "--minutes 1 --mixture 3",
     "--steps 9 --patch 100", "--steps 9 --decay 2", "--steps 9 --rate 1e308", "--steps 9 --precision fp16", "--steps 9 --attention --widths 8 16",
     "--steps 100 --mixture 3 --rate 0.5", "--steps 100 --head scales --batch 4", "--steps 100 --head means --precision bf16"],
)  # fmt: skip
def test_arguments_out_of_bounds_are_one_line(wrong, capsys):
    with pytest.raises(SystemExit):
        cli.parse(["--quality", "1", "--images", "x", "--run", "y", *wrong.split()])
    assert "error: " in capsys.readouterr().err.splitlines()[-1]
