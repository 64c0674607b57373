"""What is measured and written, on small pictures, with random codecs and without a network."""

import json

import pytest
import torch
from PIL import Image
from samples import picture, random_codec

from dgml.bitstream import FileCodec
from dgml.evaluation import measure, scores
from dgml.settings import ROOT


def test_a_folder_is_measured_and_no_path_is_written(tmp_path, results, monkeypatch, capsys, dgml, failure):
    for name, size in (("shots/one.png", (96, 64)), ("shots/deep/one.png", (64, 96)), ("shots/two.png", (170, 165))):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        picture(*size).save(tmp_path / name)
    codec = FileCodec(random_codec(32))
    for module in (scores, measure):
        monkeypatch.setattr(module, "last_codec", lambda quality, weights: codec)
    # Any file that exists will do for quality 3: last_codec does not open it.
    monkeypatch.setattr(measure, "checkpoint_path", lambda q, weights: ROOT / ("README.md" if q == 3 else f"none{q}"))
    monkeypatch.setattr(measure, "CLASSICAL", {"JPEG": ("JPEG", {}, (10, 90))})
    assert dgml("evaluate", "--images", str(tmp_path / "shots")) == 0
    assert capsys.readouterr().err.count("is missing") == 5
    assert dgml("evaluate", "--images", str(tmp_path / "shots"), "--classical") == 0
    for kind, codec, quality in (("bundled", "cheng2020-anchor bundled, files", "3"), ("classical", "JPEG", "90")):
        text = (results / f"shots_{kind}.json").read_text(encoding="utf-8")
        measured = json.loads(text)
        assert str(tmp_path) not in text
        assert measured["_command"].startswith("python -m dgml evaluate --images shots")
        assert len(measured["images"]) == 3
        point = measured["codecs"][codec][quality]
        assert list(point["per_image"]) == measured["images"]
        assert list(point) == ["bpp", "psnr", "ms_ssim", "ssimulacra2", "seconds_encode", "seconds_decode", "per_image"]
        assert measured["_environment"]["threads"] == 1 and measured["_environment"]["processor"]
    assert not list(results.glob("*.part"))
    # What is there already is overwritten only if asked.
    kept = (results / "shots_classical.json").read_bytes()
    monkeypatch.setattr(measure, "CLASSICAL", {"JPEG": ("JPEG", {}, (20, 90))})
    assert "shots_classical.json is there already" in failure(
        "evaluate", "--images", str(tmp_path / "shots"), "--classical"
    )
    for path in (tmp_path / "mine.json", results / "shots_classical.json"):
        assert dgml("evaluate", "--images", str(tmp_path / "shots"), "--classical", "--output", str(path)) == 0
        assert list(json.loads(path.read_text())["codecs"]["JPEG"]) == ["20", "90"]
        assert path.name == "shots_classical.json" or (results / "shots_classical.json").read_bytes() == kept


def test_a_format_that_pillow_lacks_ends_in_one_line(results, monkeypatch, failure):
    monkeypatch.setattr(measure, "CLASSICAL", {"none": ("NONE", {}, (1,))})
    assert "cannot write none" in failure("evaluate", "--images", "bundled", "--classical")


def test_a_search_is_measured_beside_the_plain_file(results, tmp_path, monkeypatch, dgml):
    folder = tmp_path / "shots"
    folder.mkdir()
    picture(64, 64).save(folder / "one.png")
    monkeypatch.setattr(measure, "SEARCHED", (1, 6))
    assert dgml("evaluate", "--images", str(folder), "--search", "2") == 0
    written = json.loads((results / "shots_search.json").read_text())
    plain, searched = written["codecs"].values()
    assert list(written["codecs"]) == ["plain", "search of 2 steps"] and "--search 2" in written["_command"]
    assert plain.keys() == searched.keys() == {"1", "6"}


def test_what_the_latents_hold_is_measured_and_reported(results, tmp_path, monkeypatch, dgml):
    codec, folder = random_codec(1), tmp_path / "shots"
    folder.mkdir()
    picture(100, 70).save(folder / "one.png")
    Image.new("RGB", (64, 64), "teal").save(folder / "two.png")
    monkeypatch.setattr(measure, "QUALITIES", (1, 6))
    monkeypatch.setattr(measure, "load_codec", lambda quality, weights: codec)
    assert dgml("evaluate", "--images", str(folder), "--latents") == 0
    row = json.loads((results / "shots_latents.json").read_text())["qualities"]["6"]
    assert (row["N"], row["M"]) == (codec.N, codec.M) and row["live_y"] <= codec.M
    rows = [measure.latent_row(codec, shot)[0] for shot in (picture(100, 70), Image.new("RGB", (64, 64), "teal"))]
    assert row["bpp_y"] == pytest.approx((rows[0]["bpp_y"] + rows[1]["bpp_y"]) / 2, rel=1e-4)


def test_nothing_is_lost_when_z_is_what_its_medians_say():
    codec = random_codec(1)
    with torch.no_grad():
        codec.h_a[-1].weight.zero_()
        codec.h_a[-1].bias.copy_(codec.entropy_bottleneck._get_medians().flatten())
    row, symbols = measure.latent_row(codec, picture(64, 64))
    assert row["bpp_y_without_z"] == pytest.approx(row["bpp_y"]) and not symbols["z"].any()


def test_the_command_of_a_result_names_files_that_are_there():
    for path in (ROOT / "results").glob("kodak_*.json"):
        words = json.loads(path.read_text(encoding="utf-8")).get("_command", "").split()
        assert [w for w in words if w.endswith(".safetensors") and not (ROOT / w).exists()] == [], path.name


def test_a_checkpoint_is_named_from_the_books_folder(tmp_path):
    inside = ROOT / "checkpoints" / "attention" / "anchor-s0" / "best.safetensors"
    assert measure.in_the_book(inside) == "checkpoints/attention/anchor-s0/best.safetensors"
    assert measure.in_the_book(tmp_path / "mine" / "best.safetensors") == "mine/best.safetensors"
