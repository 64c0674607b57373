"""Files of the classical codecs, and the result that they were measured for."""

import io
import json

import pytest
from PIL import Image
from samples import picture
from skimage import data

from dgml import classical
from dgml.evaluation import curves, scores
from dgml.settings import ROOT

HERE = [
    pytest.param(
        name, marks=pytest.mark.skipif(not classical.can_write(name, row[0]), reason="no program writes it here")
    )
    for name, row in classical.CLASSICAL.items()
]


@pytest.mark.parametrize("name", HERE)
def test_more_quality_costs_more_and_is_nearer(name):
    shot = picture(170, 162)
    ladder = classical.CLASSICAL[name][2]
    assert list(ladder) == sorted(ladder)
    low, high = (scored(scores.through_file(name, setting, shot), shot) for setting in (ladder[0], ladder[-1]))
    assert low[0] < high[0] and low[1] < high[1] and low[2] < high[2]


def scored(coded, original):
    return scores.score(coded.bpp, original, coded.picture)


@pytest.mark.parametrize("name", HERE)
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


def test_flat_tables_have_one_step_and_a_finer_one_for_means_and_colours():
    (mean, *rest), (colour_mean, *colour_rest) = classical.flat_tables(100.0)
    assert (mean, colour_mean) == (60, 36) and set(rest) == {100} and set(colour_rest) == {60}
    assert classical.flat_tables(0.5) == [[1] * 64] * 2
    assert classical.flat_tables(300.0)[0] == [180] + [255] * 63  # a baseline file holds no more


def test_jpeg_with_flat_tables_needs_fewer_bytes_for_a_psnr():
    shot = Image.fromarray(data.astronaut()[:256, 100:356])
    usual, flat = (classical.Ladder(name, shot) for name in ("JPEG", "JPEG best PSNR"))
    assert len(flat.not_worse(32.0)) < 0.95 * len(usual.not_worse(32.0))


@pytest.mark.parametrize("name", ["JPEG", "WebP"])
def test_a_ladder_finds_the_neighbours_of_a_size_and_of_a_psnr(name):
    ladder = classical.Ladder(name, picture(170, 162))
    steps = ladder.settings
    sizes = [len(ladder.at(setting)) for setting in steps]
    assert len(ladder.not_larger(sizes[40])) == sizes[40]
    assert len(ladder.not_larger(0)) == sizes[0] and len(ladder.not_larger(10**9)) == sizes[-1]
    db = ladder.decibels(ladder.at(steps[40]))
    assert ladder.decibels(ladder.not_worse(db)) >= db
    assert ladder.not_worse(1000.0) == ladder.at(steps[-1])


def test_jpeg_xl_climbs_where_its_files_grow():
    steps = classical.Ladder("JPEG XL best PSNR", picture(16, 16)).settings
    assert steps[:2] == [1, 2] and steps[8:10] == [9, 20] and steps[-1] == 99


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
