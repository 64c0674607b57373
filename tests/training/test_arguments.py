"""The arguments of a training: what they refuse, and in which words."""

import subprocess
import sys

import pytest

from dgml import cli
from dgml.training.arguments import BATCH, PATCH

WRONG = {
    "--steps 0": "argument --steps: at least 1, not 0",
    "--steps -5": "argument --steps: at least 1, not -5",
    "--steps many": "argument --steps: invalid count value: 'many'",
    "--minutes 0": "argument --minutes: more than zero, not 0",
    "--minutes nan": "argument --minutes: more than zero, not nan",
    "--minutes 1 --steps 9": "argument --steps: not allowed with argument --minutes",
    "": "one of the arguments --minutes --steps is required",
    "--steps 9 --seed -1": "argument --seed: at least 0, not -1",
    "--steps 20 --mixture 3": "--mixture goes with --steps, at least 50",
    "--minutes 1 --mixture 3": "--mixture goes with --steps, at least 50",
    "--steps 20 --head scales": "--head goes with --steps, at least 50",
    "--steps 9 --patch 100": "--patch is a multiple of 64 up to 256, not 100",
    "--steps 9 --patch 320": "--patch is a multiple of 64 up to 256, not 320",
    "--steps 9 --decay 2": "--decay is a share between 0 and 1, not 2.0",
    "--steps 9 --lr-scale 1e308": "--lr-scale is a share of the full rates, at most ten times those, not 1e+308",
    "--steps 9 --rate 0.5": "unrecognized arguments: --rate 0.5",
    "--steps 9 --precision fp16": "argument --precision: invalid choice: 'fp16' (choose from auto, bf16, no)",
    "--steps 9 --attention --widths 8 16": "--attention needs --widths with N = M",
    "--steps 9 --reinitialize": "--reinitialize goes with --init, and not with --attention",
    "--steps 9 --init a --warm-start b": "argument --warm-start: not allowed with argument --init",
    "--steps 100 --mixture 3 --lr-scale 0.5": "--lr-scale is for a codec, and a head is trained on the bundled one",
    "--steps 100 --mixture 3 --warm-start a": "--warm-start is for a codec, and a head is trained on the bundled one",
    "--steps 100 --head scales --batch 4": "--batch is for a codec, and a head is trained on the bundled one",
    "--steps 100 --head means --precision bf16": "--precision is for a codec, and a head is trained on the bundled one",
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_arguments_are_one_line_that_says_what_is_wrong(wrong, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.parse(["train", "--quality", "1", "--images", "x", "--run", "y", *wrong.split()])
    last = capsys.readouterr().err.splitlines()[-1].replace("'auto', 'bf16', 'no'", "auto, bf16, no")  # until 3.12
    assert stopped.value.code == 2
    assert last.split(": error: ")[1] == WRONG[wrong]


def test_a_plain_line_is_a_codec_at_full_rates():
    args = cli.parse(["train", "--quality", "1", "--images", "x", "--run", "y", "--steps", "9"])
    assert (args.batch, args.patch, args.lr_scale, args.precision) == (BATCH, PATCH, 1.0, "auto")


def test_help_names_each_argument_without_torch():
    code = "import sys; from dgml.cli import main\ntry: main(['train', '--help'])\nfinally: assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for option in ("--quality", "--warm-start", "--reinitialize", "--lr-scale", "--precision"):
        assert option in done.stdout
