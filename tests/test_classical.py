"""Tests of curves.py: files of the classical codecs, and what is read off a rate-distortion curve."""

import io
import json

import pytest
from PIL import Image
from samples import picture
from skimage import data

from dgml import classical
from dgml.evaluation import curves, scores
from dgml.settings import ROOT


@pytest.mark.parametrize("name", classical.CLASSICAL)
def test_more_quality_costs_more_and_is_nearer(name):
    shot = picture(170, 162)
    ladder = classical.CLASSICAL[name][2]
    assert list(ladder) == sorted(ladder)
    low, high = (scored(scores.through_file(name, setting, shot), shot) for setting in (ladder[0], ladder[-1]))
    assert low[0] < high[0] and low[1] < high[1] and low[2] < high[2]


def scored(coded, original):
    return scores.score(coded.bpp, original, coded.picture)


@pytest.mark.parametrize("name", classical.CLASSICAL)
def test_a_file_is_of_the_format_that_it_is_named_after(name):
    file = io.BytesIO(classical.classical_file(name, 50, picture(120, 90)))
    assert Image.open(file).format == classical.CLASSICAL[name][0]


def test_jpeg_2000_is_as_large_as_it_was_told_and_transforms_colours():
    shot = Image.fromarray(data.astronaut()[:180, 150:350])  # a photograph: its colours change together
    assert len(classical.classical_file("JPEG 2000", 20, shot)) == pytest.approx(3 * 200 * 180 * 0.020, rel=0.05)
    _, db, *_ = scored(scores.through_file("JPEG 2000", 20, shot), shot)
    plain = io.BytesIO()
    shot.save(plain, "JPEG2000", irreversible=True, quality_mode="rates", quality_layers=[50])
    assert db > scores.score(1.0, shot, classical.read_classical(plain.getvalue()))[1] + 1


def test_the_classical_result_has_the_ladders_and_they_rise():
    measured = json.loads((ROOT / "results" / "kodak_classical.json").read_text(encoding="utf-8"))
    assert measured["codecs"].keys() == classical.CLASSICAL.keys() and len(measured["images"]) == 24
    for name, curve in measured["codecs"].items():
        assert list(curve) == [str(setting) for setting in classical.CLASSICAL[name][2]]
        points = list(curve.values())
        for key in curves.MEASURES:
            assert [p[key] for p in points] == sorted(p[key] for p in points)
        assert points[0]["bpp"] < 0.2 and 1.7 < points[-1]["bpp"] < 2.2
        assert all(p["seconds_encode"] > 0 and p["seconds_decode"] > 0 for p in points)
