"""The tables of ``python -m dgml evaluate --report``."""

import json

import bjontegaard
import pytest
from samples import CODEC, JPEG, made_up

from dgml.evaluation import measure, report


def write_results(folder, codec, images=("a", "b"), reference_images=("a", "b")):
    reference = {"images": reference_images, "codecs": {"JPEG": made_up(JPEG, reference_images)}}
    measured = {"images": images, "codecs": {"cheng2020-anchor bundled, files": made_up(codec, images)}}
    measure.write_json(folder / "tiny_classical.json", reference)
    measure.write_json(folder / "tiny_bundled.json", measured)


def test_report_has_the_librarys_bd_rate_and_a_rising_staircase(results, capsys, dgml):
    write_results(results, CODEC)
    expected = bjontegaard.bd_rate(
        *zip(*JPEG), *zip(*CODEC), method="pchip", require_matching_points=False, min_overlap=0
    )
    assert -60 < expected < -40
    assert dgml("evaluate", "--report") == 0
    printed = capsys.readouterr().out
    assert f"{expected:+.1f}%  28.00 to 35.50" in printed
    assert printed.count("2 of 2") == 10 and "below): ok" in printed


@pytest.mark.parametrize("wrong", [(0.2, 32.0), (0.33, 29.0)])
def test_report_fails_on_a_step_that_does_not_rise(results, capsys, wrong, dgml):
    write_results(results, [*CODEC[:3], wrong, *CODEC[4:]])
    assert dgml("evaluate", "--report") == 1
    assert "BROKEN at quality 4" in capsys.readouterr().out


def test_report_compares_no_other_pictures_and_needs_a_measurement(results, capsys, dgml, failure):
    assert "holds no measurement" in failure("evaluate", "--report")
    write_results(results, CODEC, reference_images=("a", "c"))
    assert dgml("evaluate", "--report") == 0
    printed = capsys.readouterr().out
    assert "of other pictures" in printed and "%" not in printed


def test_the_table_of_latents_shows_what_z_is_worth(tmp_path):
    row = {"N": 32, "M": 128, "live_y": 60, "live_z": 8, "bpp_y": 0.19, "bpp_z": 0.01, "bpp_y_without_z": 0.219,
           "mse": 0.002, "mse_unrounded": 0.001}  # fmt: skip
    measured = {"_command": "python evaluate.py --images shots --latents", "images": ["a"], "qualities": {"3": row}}
    (tmp_path / "shots_latents.json").write_text(json.dumps(measured))
    words = report.latent_table(tmp_path / "shots_latents.json")[-1].split()
    assert words == ["3", "60", "of", "128", "8", "of", "32", "5.00%", "+10.0%", "0.50"]


def test_the_gap_between_estimate_and_file_is_printed():
    estimated, kept = made_up([(0.1, 30.0), (0.2, 32.0)]), made_up([(0.103, 29.5), (0.2, 32.0)])
    assert report.gap_table(estimated, kept)[1:] == [
        "      1  +3.00% bytes  -0.50 dB",
        "      2  +0.00% bytes  +0.00 dB",
    ]
