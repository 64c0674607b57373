"""What is read off a rate-distortion curve."""

from dgml.evaluation import curves


def test_a_mean_is_null_where_a_picture_has_none():
    p = curves.point({"a": [0.1, 30.0, 0.9], "b": [0.3, 32.0, None]})
    assert (p["bpp"], p["psnr"], p["ms_ssim"]) == (0.2, 31.0, None)


def test_staircase_counts_pictures():
    low = curves.point({"a": [0.1, 30.0, 0.9], "b": [0.1, 30.0, 0.9]})
    high = curves.point({"a": [0.3, 33.0, 0.9], "b": [0.2, 29.0, 0.9]})
    assert curves.staircase({"1": low, "2": high}) == [("2", True, 2, 1)]
