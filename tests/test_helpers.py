"""What a chapter says, claims and lets one move."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from samples import save_picture

from dgml.checkpoints import load_codec
from dgml.picture_sets import load_images
from helpers import default_index, describe, display_markdown, inches_high, interact, is_interactive, start_chapter


def test_a_claim_raises_in_the_run_that_a_page_was_written_for(monkeypatch, capsys):
    for setting in ("DGML_WEIGHTS", "DGML_IMAGES"):
        monkeypatch.delenv(setting, raising=False)
    claim = start_chapter()
    claim("two is two", 2 == 2)
    with pytest.raises(AssertionError, match=r"^two is three$"):
        claim("two is three", 2 == 3)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("settings", "img_idx", "quality", "written_for"),
    [({"DGML_WEIGHTS": "published"}, 0, 3, 3), ({"DGML_IMAGES": "a folder"}, 0, 3, 3), ({}, 1, 3, 3), ({}, 0, 2, 3),
     ({}, 0, 3, 4)],
)  # fmt: skip
def test_a_claim_goes_on_in_any_other_run(settings, img_idx, quality, written_for, monkeypatch, capsys):
    for setting in ("DGML_WEIGHTS", "DGML_IMAGES"):
        monkeypatch.setenv(setting, settings.get(setting, ""))
    codec = SimpleNamespace(quality=quality, source="bundled", N=32, M=32)
    images = [{"image": Image.new("RGB", (8, 8)), "name": "a"}] * 2
    claim = start_chapter(codec, images, img_idx, written_for)
    assert f"quality {quality}" in capsys.readouterr().out
    claim("two is three", np.bool_(False))
    claim("two is three", float("nan") > 0)
    line = "In this run the following does not hold: two is three\n"
    assert capsys.readouterr().out == 2 * line


def test_a_claim_never_stops_a_reader(monkeypatch, capsys):
    for setting in ("DGML_WEIGHTS", "DGML_IMAGES"):
        monkeypatch.delenv(setting, raising=False)
    with pytest.raises(AssertionError):
        start_chapter()("two is three", False)
    monkeypatch.setenv("JPY_SESSION_NAME", "12_exact_and_fast.ipynb")
    start_chapter()("two is three", False)
    assert capsys.readouterr().out == "In this run the following does not hold: two is three\n"


def test_what_is_said_has_the_numbers_of_the_run(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    display_markdown("{rate:.2f} bpp, {{x}}", rate=torch.tensor(0.25))
    assert [one.data for one in shown] == ["0.25 bpp, {x}"]


def test_sliders_are_only_where_one_can_move_them(monkeypatch):
    import ipywidgets

    drawn, shown = [], []

    def draw(number):
        drawn.append(number)

    monkeypatch.setattr("IPython.display.display", shown.append)
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    interact(draw, number=(0, 4))
    assert not is_interactive() and shown == drawn == []
    monkeypatch.setenv("JPY_SESSION_NAME", "05_latent_maps.ipynb")
    interact(draw, number=(0, 4))
    (controls,) = shown
    (slider,) = (child for child in controls.children if isinstance(child, ipywidgets.IntSlider))
    controls.update()
    slider.value = 3
    assert drawn[-1] == 3 and not slider.continuous_update


@pytest.mark.parametrize(("size", "inches"), [((100, 200), 2.5), ((10, 1000), 1), ((1000, 10), 10)])
def test_a_panorama_and_a_tower_stay_legible(size, inches):
    assert inches_high(*size, inches=5) == inches


@pytest.mark.parametrize(("folder", "count", "index"), [("kodak", 24, 22), ("Kodak", 23, 22), ("kodak", 22, 0),
                                                        ("kodak24", 24, 0)])  # fmt: skip
def test_the_default_index(folder, count, index, tmp_path, monkeypatch):
    for i in range(count):
        save_picture(tmp_path / folder / f"{i:02}.png")
    monkeypatch.setenv("DGML_IMAGES", str(tmp_path / folder) + "/")
    assert default_index(load_images()) == index


def test_the_default_index_of_the_bundled_pictures_is_0(monkeypatch):
    images = load_images("bundled")
    assert default_index(images) == 0
    monkeypatch.setenv("DGML_IMAGES", "")
    assert default_index(images) == 0


def test_a_large_photograph_is_scaled_down_and_said(tmp_path, monkeypatch, capsys):
    Image.new("RGB", (2500, 1600), "grey").save(tmp_path / "large.jpg")
    monkeypatch.setenv("DGML_IMAGES", str(tmp_path))
    codec = load_codec(3)
    images = load_images()
    size = images[0]["image"].size
    assert 1.98e6 < size[0] * size[1] <= 2e6 and abs(size[0] / size[1] - 2500 / 1600) < 0.002
    start_chapter(codec, images, 0)
    last = capsys.readouterr().out.splitlines()[-1]
    assert f"{size[0]}x{size[1]}, scaled down from 2500x1600 (set DGML_MEGAPIXELS=inf to keep it whole)" in last
    assert "the run may take" in last
    for whole in (load_images(megapixels=float("inf")), monkeypatch.setenv("DGML_MEGAPIXELS", "inf") or load_images()):
        assert whole[0]["image"].size == (2500, 1600)
        line = describe(codec, whole, 0).splitlines()[-1]
        assert "2500x1600; the run may take" in line and "scaled" not in line
