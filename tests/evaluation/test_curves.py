"""What is read off a rate-distortion curve."""

import pytest
from samples import made_up

from dgml.evaluation import curves


def test_a_mean_is_null_where_a_picture_has_none():
    p = curves.point({"a": [0.1, 30.0, 0.9], "b": [0.3, 32.0, None]})
    assert (p["bpp"], p["psnr"], p["ms_ssim"]) == (0.2, 31.0, None)


def test_staircase_counts_pictures():
    low = curves.point({"a": [0.1, 30.0, 0.9], "b": [0.1, 30.0, 0.9]})
    high = curves.point({"a": [0.3, 33.0, 0.9], "b": [0.2, 29.0, 0.9]})
    assert curves.staircase({"1": low, "2": high}) == [("2", True, 2, 1)]


def test_bd_rates_of_pictures_are_averaged():
    points = [(0.1, 28.0), (0.2, 31.0), (0.4, 34.0)]
    reference = made_up(points, names=("a", "b"))
    test = made_up([(rate / 2, db) for rate, db in points], names=("a", "b"))
    assert curves.bd_rate_by_picture(reference, test) == pytest.approx(-50)
    for point in test.values():
        point["per_image"]["b"][0] *= 2  # b needs as many bits as before
    assert curves.bd_rate_by_picture(reference, test) == pytest.approx(-25)
    for point in test.values():
        point["per_image"]["b"][1] = 30.0
    assert curves.bd_rate_by_picture(reference, test) is None
