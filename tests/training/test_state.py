"""The state of a run: a command goes on with the run that it began, and with no other."""

import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from training.runs import args_for, listed, stopped_at

from dgml import checkpoints, model
from dgml.training import data, loop, state

SHORT = {"widths": (8, 8), "patch": 64}
# What is given otherwise than at first -> what the error says of the run in the folder and of the command.
CHANGED = [
    ({"quality": 2}, "with --quality 1, not with --quality 2"),
    ({"steps": 3}, "with --steps 2, not with --steps 3"),
    ({"steps": None, "minutes": 1.0}, "without --minutes, not with --minutes 1.0"),
    ({"init": "same.safetensors"}, "without --init, not with --init inits/same.safetensors"),
    ({"warm_start": "narrow.safetensors"}, "without --warm-start, not with --warm-start inits/narrow.safetensors"),
    ({"reinitialize": True}, "without --reinitialize, not with --reinitialize"),
    ({"lr_scale": 0.5}, "with --lr-scale 1.0, not with --lr-scale 0.5"),
    ({"decay": 0.0}, "with --decay 0.5, not with --decay 0.0"),
    ({"anneal": 9}, "without --anneal, not with --anneal 9"),
    ({"widths": (8, 16)}, "with --widths 8 8, not with --widths 8 16"),
    ({"batch": 3}, "with --batch 2, not with --batch 3"),
    ({"patch": 128}, "with --patch 64, not with --patch 128"),
    ({"attention": True}, "without --attention, not with --attention"),
    ({"seed": 1}, "with --seed 0, not with --seed 1"),
    ({"precision": "bf16"}, "with --precision no, not with --precision bf16"),
]


@pytest.fixture(scope="module")
def inits(tmp_path_factory):
    """Checkpoints to start from: one of the widths of the runs here, and a narrower one."""
    folder = tmp_path_factory.mktemp("some") / "inits"
    folder.mkdir()
    for name, widths in {"same": (8, 8), "narrow": (8, 4)}.items():
        checkpoints.save_checkpoint(model.DeepAnchor(*widths), folder / f"{name}.safetensors", {})
    return folder


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A folder of photographs, and one of a run of two steps on them."""
    folder = tmp_path_factory.mktemp("begun")
    for i, colour in enumerate(("red", "blue")):
        Image.new("RGB", (256, 256), colour).save(folder / f"{i}.png")
    loop.train(args_for(folder, folder / "run", steps=2, **SHORT))
    return folder


@pytest.mark.parametrize("changed, differs", CHANGED, ids=lambda value: "-".join(value) if type(value) is dict else "")
def test_a_run_does_not_go_on_under_another_argument(begun, inits, changed, differs):
    files = {name: str(inits / value) for name, value in changed.items() if name in state.FILES}
    assert_refused(args_for(begun, begun / "run", **SHORT | {"steps": 2} | changed | files), differs)


def assert_refused(args, differs):
    with pytest.raises(ValueError) as refused:
        loop.train(args)
    assert str(refused.value) == f"{args.run} holds a run {differs}: choose another folder with --run"


def test_each_argument_but_those_that_shape_nothing_was_changed(begun):
    names = vars(args_for(begun, begun / "run")).keys()
    assert names == state.ELSEWHERE | {name for changed, _ in CHANGED for name in changed}


def test_a_run_does_not_go_on_on_other_photographs(begun, tmp_path):
    shutil.copytree(begun, tmp_path / "others", ignore=shutil.ignore_patterns("run"))
    Image.new("RGB", (256, 256), "green").save(tmp_path / "others" / "1.png")
    theirs = listed(begun / "run" / "photographs.csv")
    ours = data.hashes_of(data.read_photographs(str(tmp_path / "others")))
    digests = [f"with photographs {data.list_digest(hashes)[:16]}" for hashes in (theirs, ours)]
    assert_refused(args_for(tmp_path / "others", begun / "run", steps=2, **SHORT), ", not ".join(digests))


def test_a_run_does_not_go_on_in_another_number_of_processes(begun):
    shapes = [state.shape_of(args_for(begun, begun / "run"), [8, 8], "digest", processes) for processes in (1, 2)]
    state.check_same(Path("run"), shapes[0], shapes[0])
    with pytest.raises(ValueError, match="with --num_processes 1, not with --num_processes 2: "):
        state.check_same(Path("run"), *shapes)


def test_a_run_goes_on_with_its_photographs_and_its_start_in_another_place(begun, inits, tmp_path):
    """Files and folders may move: the pixels count, and of a checkpoint the name."""
    shutil.copytree(begun, tmp_path / "moved")
    loop.train(args_for(tmp_path / "moved", tmp_path / "moved" / "run", steps=2, **SHORT))
    one, other = (args_for(begun, begun, init=str(Path(folder, "q3", "best.safetensors"))) for folder in ("a", "b/c"))
    assert state.shape_of(one, [8, 8], "", 1) == state.shape_of(other, [8, 8], "", 1)


def test_minutes_given_again_keep_the_schedule_that_was_chosen_at_first(photographs, tmp_path, small, monkeypatch):
    args = args_for(photographs, tmp_path / "run", steps=None, minutes=1.0, **SHORT)
    monkeypatch.setattr(loop, "TIMED", 2)
    monkeypatch.setattr(loop, "choose_steps", lambda *_: 4)
    stopped_at(3, args, monkeypatch)
    monkeypatch.setattr(loop, "choose_steps", lambda *_: 5)
    for changed, differs in (
        ({"minutes": 2.0}, "with --minutes 1.0, not with --minutes 2.0"),
        ({"minutes": None, "steps": 4}, "with --minutes 1.0, not without --minutes"),
    ):
        assert_refused(args_for(photographs, tmp_path / "run", **{"steps": None} | SHORT | changed), differs)
    loop.train(args)
    progress = state.read_state(tmp_path / "run" / "state.pt")["progress"]
    assert progress["step"] == progress["steps"] == 4


def damaged(path):
    with pytest.raises(ValueError) as refused:
        state.read_state(path)
    return str(refused.value).removeprefix(str(path)).removesuffix(": choose another folder with --run")


@pytest.mark.parametrize("length", [0, 100, -100])
def test_a_state_that_was_cut_short_is_one_line(begun, tmp_path, length):
    (tmp_path / "state.pt").write_bytes((begun / "run" / "state.pt").read_bytes()[:length])
    assert damaged(tmp_path / "state.pt") in {f" is damaged ({name})" for name in ("EOFError", "RuntimeError")}


@pytest.mark.parametrize(
    "content, says",
    [(1, "TypeError"), ([1], "it lacks arguments"), ({"kind": "another", "codec": {}}, "it lacks arguments"),
     (dict.fromkeys(("arguments", "progress", "codec")), "it lacks average")],
)  # fmt: skip
def test_a_state_that_lacks_a_part_is_damaged(tmp_path, content, says):
    torch.save(content, tmp_path / "state.pt")
    assert damaged(tmp_path / "state.pt") == f" is damaged ({says})"


def test_a_state_of_an_earlier_version_is_named_as_such(begun, tmp_path):
    saved = torch.load(begun / "run" / "state.pt", weights_only=True)
    saved["facts"] = saved.pop("arguments")
    torch.save(saved, tmp_path / "state.pt")
    assert damaged(tmp_path / "state.pt") == " is of an earlier version and lacks the arguments"
