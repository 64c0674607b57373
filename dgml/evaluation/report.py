"""The tables that ``python -m dgml evaluate --report`` prints, from what results/ holds."""

import json
from pathlib import Path

from dgml.evaluation.curves import Curve, staircase
from dgml.metrics import bd_rate_over

SUFFIX = {"bundled": "bundled", "published": "published_weights"}  # kodak_published.json is CompressAI's own table


def report(folder: Path) -> tuple[str, bool]:
    """The tables of every measurement of the codec in ``folder``, and whether every staircase is monotonic."""
    lines, good = [], True
    paths = sorted(path for kind in SUFFIX.values() for path in folder.glob(f"*_{kind}.json"))
    if not paths:
        raise FileNotFoundError("results/ holds no measurement of the codec: first give --images PICTURES")
    for path in paths:
        set_name = path.stem.removesuffix("_bundled").removesuffix("_published_weights")
        measured = json.loads(path.read_text(encoding="utf-8"))
        for codec, curve in measured["codecs"].items():
            monotonic, table = stairs(codec, curve, set_name, len(measured["images"]))
            good = good and monotonic
            lines += [*table, *rate_table(folder / f"{set_name}_classical.json", measured["images"], curve), ""]
        if len(measured["codecs"]) == 2:
            lines += [*gap_table(*measured["codecs"].values()), ""]
    for path in sorted(folder.glob("*_latents.json")):
        lines += [*latent_table(path), ""]
    return "\n".join(lines), good


def stairs(codec: str, curve: Curve, set_name: str, n: int) -> tuple[bool, list[str]]:
    """Whether the staircase of ``curve`` over ``n`` pictures is monotonic, and lines with its steps."""
    steps = {quality: rest for quality, *rest in staircase(curve)}
    lines = [f"{codec} on {set_name}, {n} picture(s)"]
    lines.append("quality     bpp  PSNR dB  MS-SSIM  SSIMULACRA2  more bits on  more dB on")
    for quality, p in curve.items():
        db = "-" if p["psnr"] is None else f"{p['psnr']:.2f}"
        similarity = "-" if p["ms_ssim"] is None else f"{p['ms_ssim']:.4f}"
        seen = "-" if p.get("ssimulacra2") is None else f"{p['ssimulacra2']:.1f}"
        more, better = (f"{count} of {n}" for count in steps[quality][1:]) if quality in steps else ("", "")
        lines.append(
            f"{quality:>7} {p['bpp']:7.4f} {db:>8} {similarity:>8} {seen:>12} {more:>13} {better:>11}".rstrip()
        )
    flat = [quality for quality, (monotonic, *_) in steps.items() if not monotonic]
    verdict = f"BROKEN at quality {', '.join(flat)}" if flat else "ok" if steps else "one quality only"
    lines += [f"staircase (each quality costs more bits and has more dB than the one below): {verdict}", ""]
    return not flat, lines


def gap_table(estimate: Curve, files: Curve) -> list[str]:
    """Lines that set the rate and PSNR that a forward pass estimates beside those of the files."""
    lines = ["quality  files against forward pass"]
    for quality, estimated in estimate.items():
        real = files[quality]
        db = "" if None in (real["psnr"], estimated["psnr"]) else f"  {real['psnr'] - estimated['psnr']:+.2f} dB"
        lines.append(f"{quality:>7}  {100 * (real['bpp'] / estimated['bpp'] - 1):+.2f}% bytes{db}")
    return lines


def latent_table(path: Path) -> list[str]:
    """Lines with what ``--latents`` measured."""
    measured = json.loads(path.read_text(encoding="utf-8"))
    set_name = path.stem.removesuffix("_latents")
    lines = [f"inside the bundled codecs, {set_name}, {len(measured['images'])} picture(s)"]
    lines.append("quality  channels of y  of z that vary  z's bits  worth of z, net  error without rounding")
    for quality, row in measured["qualities"].items():
        worth = 100 * (row["bpp_y_without_z"] - row["bpp_y"] - row["bpp_z"]) / row["bpp_y"]
        share = 100 * row["bpp_z"] / (row["bpp_y"] + row["bpp_z"])
        y, z = (f"{row[f'live_{name}']} of {row[width]}" for name, width in (("y", "M"), ("z", "N")))
        lines.append(
            f"{quality:>7} {y:>14} {z:>15} {share:>8.2f}% {worth:>+15.1f}% {row['mse_unrounded'] / row['mse']:>23.2f}"
        )
    return lines


def rate_table(path: Path, images: list[str], curve: Curve) -> list[str]:
    """Lines with the BD-rate of ``curve`` against each codec of a classical result, and against the published codec.

    CompressAI's own table, results/<set>_published.json, has the mean curve of cheng2020-anchor in full width.
    """
    if not path.exists():
        return [f"no BD-rate: results/{path.name} is missing"]
    classical = json.loads(path.read_text(encoding="utf-8"))
    if classical["images"] != images:
        return [f"no BD-rate: results/{path.name} is of other pictures than the codec's result; measure both again"]
    opponents = classical["codecs"]
    table = path.with_name(path.name.replace("_classical", "_published"))
    if table.exists():
        opponents |= {"cheng2020-anchor, published": published_curve(table, "compressai-cheng2020-anchor_mse_cpu")}
    lines = ["BD-rate, and the dB that both cover (means, PCHIP; negative: the codec needs fewer bits)"]
    for name, reference in opponents.items():
        rate = bd_rate_over(reference, curve)
        lines.append(
            f"{name:<27} {rate[0]:+7.1f}%  {rate[1]:.2f} to {rate[2]:.2f}" if rate else f"{name:<27} undefined"
        )
    return lines


def published_curve(path: Path, key: str) -> Curve:
    """A curve of CompressAI's table of mean rates and PSNR, in the form of our own."""
    columns = json.loads(path.read_text(encoding="utf-8"))["curves"][key]
    points = zip(columns["bpp"], columns["psnr-rgb"])
    return {str(quality): {"bpp": rate, "psnr": db} for quality, (rate, db) in enumerate(points, 1)}
