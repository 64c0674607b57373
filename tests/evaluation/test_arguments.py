"""Arguments of ``python -m dgml evaluate`` that do not go together."""

import pytest


@pytest.mark.parametrize(("arguments", "reason"), [
    ([], "one of the arguments --images --report is required"),
    (["--images", "bundled", "--report"], "--report: not allowed with argument --images"),
    (["--report", "--classical"], "go with --images"),
    (["--report", "--output", "a.json"], "go with --images"),
    (["--report", "--search", "5"], "go with --images"),
    (["--images", "bundled", "--latents", "--mixtures"], "--mixtures: not allowed with argument --latents"),
    (["--images", "bundled", "--weights", "best"], "invalid choice: 'best'"),
    (["--images", "bundled", "--name", "mine"], "--name goes with --checkpoints"),
    (["--images", "bundled", "--search", "0"], "at least 1"),
    (["--images", "bundled", "--classical", "--weights", "published"], "--weights: not allowed with argument --classical"),
])  # fmt: skip
def test_wrong_arguments_exit_with_2_and_the_reason(dgml, capsys, arguments, reason):
    assert dgml("evaluate", *arguments) == 2
    assert reason in capsys.readouterr().err.splitlines()[-1]


def test_a_setting_that_is_none_exits_with_2(dgml, capsys, monkeypatch):
    monkeypatch.setenv("DGML_WEIGHTS", "best")
    assert dgml("evaluate", "--images", "bundled") == 2
    assert "DGML_WEIGHTS is 'bundled' or 'published', not 'best'" in capsys.readouterr().err
