"""What an evaluation compares: rate-distortion curves, their staircase and BD-rate, files of the classical codecs."""

import io
from itertools import pairwise

from bjontegaard import bd_rate
from PIL import Image

from helpers import to_rgb

Point = dict[str, object]
Curve = dict[str, Point]

# The names that Pillow gives to the formats, what it is called with, and a ladder of settings from about 0.08 bpp
# (where the format goes so low) to 2.
CLASSICAL = {
    "JPEG": ("JPEG", {"optimize": True, "subsampling": "4:2:0"}, (3, 5, 8, 13, 20, 34, 55, 75, 86)),
    # Without mct the colours are not transformed, and the file is more than twice as large.
    "JPEG 2000": ("JPEG2000", {"irreversible": True, "mct": 1}, (3, 4, 6, 9, 14, 21, 32, 50, 84)),
    "WebP": ("WEBP", {"method": 6}, (0, 3, 8, 16, 30, 50, 70, 80, 90)),
    # Twice: as Pillow writes it when nothing is said, and at its best for PSNR within the patience of an evaluation.
    # One thread: with more, libaom may divide the work, and so the bits, differently.
    "AVIF default": (
        "AVIF", {"subsampling": "4:2:0", "speed": 6, "max_threads": 1}, (5, 14, 22, 30, 39, 49, 60, 72, 84),
    ),
    "AVIF best PSNR": (
        "AVIF", {"subsampling": "4:4:4", "speed": 3, "advanced": {"tune": "psnr"}, "max_threads": 1},
        (5, 14, 22, 30, 39, 49, 60, 72, 80),
    ),
    "JPEG XL": ("JXL", {"effort": 7, "num_threads": 0}, (0, 10, 20, 30, 45, 60, 75, 84, 89)),
}  # fmt: skip
# The measures of a picture, and the digits that a result keeps of each.
MEASURES = {"bpp": 5, "psnr": 4, "ms_ssim": 5, "ssimulacra2": 3}


# ---------------------------------------------------------------- the classical codecs


def classical_file(name: str, setting: int, picture: Image.Image) -> bytes:
    """The file of an RGB picture in a format of :data:`CLASSICAL`; a higher setting is a larger file.

    The setting is the format's quality, or, for JPEG 2000, the size in thousandths of three bytes a pixel.
    """
    file_format, options, _ = CLASSICAL[name]
    is_size = name == "JPEG 2000"
    how = {"quality_mode": "rates", "quality_layers": [1000 / setting]} if is_size else {"quality": setting}
    file = io.BytesIO()
    picture.save(file, file_format, **how, **options)
    return file.getvalue()


def read_classical(data: bytes) -> Image.Image:
    return to_rgb(Image.open(io.BytesIO(data)))


# ---------------------------------------------------------------- curves


def point(per_image: dict[str, list[float | None]], seconds: list[tuple[float, float]] | None = None) -> Point:
    """One point of a curve: the means of the measures and of the seconds to encode and to decode, then every picture's.

    A mean is None where one picture's measure is.
    """
    means = (None if None in column else sum(column) / len(column) for column in zip(*per_image.values()))
    rounded = (mean if mean is None else round(mean, digits) for mean, digits in zip(means, MEASURES.values()))
    times = (float(f"{sum(column) / len(column):.3g}") for column in zip(*seconds or []))
    measures, costs = zip(MEASURES, rounded), zip(("seconds_encode", "seconds_decode"), times)
    return dict(measures) | dict(costs) | {"per_image": per_image}


def staircase(curve: Curve) -> list[tuple[str, bool, int, int]]:
    """For each quality but the lowest: its name, whether its means of bpp and PSNR both exceed those of the one below.

    And on how many pictures the bpp, and the PSNR, do.
    """
    steps = []
    for (_, low), (quality, high) in pairwise(curve.items()):
        pairs = [(low["per_image"][name], high["per_image"][name]) for name in low["per_image"]]
        counts = [sum(exceeds(b[i], a[i]) for a, b in pairs) for i in (0, 1)]
        steps.append((quality, all(exceeds(high[key], low[key]) for key in ("bpp", "psnr")), *counts))
    return steps


def exceeds(high: float | None, low: float | None) -> bool:
    """Whether ``high`` is above ``low``; a PSNR of None stands for infinity."""
    return low is not None and (high is None or high > low)


def bd_rate_over(anchor: Curve, test: Curve) -> tuple[float, float, float] | None:
    """BD-rate in % of the mean curves, and both ends in dB of the PSNR range that they share.

    Negative: ``test`` needs fewer bits than ``anchor`` for the same PSNR (Bjontegaard, VCEG-M33, 2001; by PCHIP).
    None where it is not defined: no shared range, or a PSNR that does not rise with the rate.
    """
    points = [sorted((p["bpp"], p["psnr"]) for p in c.values() if p["psnr"] is not None) for c in (anchor, test)]
    (rates, dbs), (test_rates, test_dbs) = ([list(column) for column in zip(*curve)] or ([], []) for curve in points)
    if any(len(column) < 2 or any(b <= a for a, b in pairwise(column)) for column in (dbs, test_dbs)):
        return None
    low, high = max(dbs[0], test_dbs[0]), min(dbs[-1], test_dbs[-1])
    if low >= high:
        return None
    # The library warns of curves that share less than 75 % of their range; the report prints the range instead.
    change = bd_rate(rates, dbs, test_rates, test_dbs, method="pchip", require_matching_points=False, min_overlap=0)
    return float(change), low, high
