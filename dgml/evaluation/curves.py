"""Rate-distortion curves: their points and their staircase."""

from itertools import pairwise
from typing import Any

from dgml.metrics import bd_rate_over

Point = dict[str, Any]
Curve = dict[str, Point]
# The measures of a picture, and the digits that a result keeps of each.
MEASURES = {"bpp": 5, "psnr": 4, "ms_ssim": 5, "ssimulacra2": 3}


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
        more_bits, more_db = (sum(exceeds(b[i], a[i]) for a, b in pairs) for i in (0, 1))
        steps.append((quality, all(exceeds(high[key], low[key]) for key in ("bpp", "psnr")), more_bits, more_db))
    return steps


def exceeds(high: float | None, low: float | None) -> bool:
    """Whether ``high`` is above ``low``; a PSNR of None stands for infinity."""
    return low is not None and (high is None or high > low)


def bd_rate_by_picture(reference: Curve, test: Curve) -> float | None:
    """The mean, over the pictures of ``test``, of each picture's BD-rate in %; None where one of them has none."""
    rates = []
    for name in next(iter(test.values()))["per_image"]:
        curves = [{q: dict(zip(MEASURES, p["per_image"][name])) for q, p in c.items()} for c in (reference, test)]
        rates.append(bd_rate_over(*curves))
    found = [rate[0] for rate in rates if rate]
    return sum(found) / len(found) if len(found) == len(rates) else None
