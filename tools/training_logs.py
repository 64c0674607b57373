"""Draw checkpoints/training.png: the held-out loss of every run in checkpoints/logs, over its minutes.

The hollow mark at the end is the last run of each quality, of which only the header of its file is left.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from safetensors import safe_open

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from dgml.settings import QUALITIES, ROOT
from helpers import WIDTH

figure, axes = plt.subplots(2, 3, figsize=(1.6 * WIDTH, WIDTH), layout="constrained")
for quality, axis in zip(QUALITIES, axes.flat):
    start = 0.0
    for path in sorted((ROOT / "checkpoints" / "logs").glob(f"q{quality}*.csv")):
        log = pd.read_csv(path)
        measured = log.dropna(subset="held_out_loss")
        axis.plot(start + measured["seconds"] / 60, measured["held_out_loss"], marker=".", color="black")
        start += log["seconds"].iloc[-1] / 60
    with safe_open(ROOT / "checkpoints" / f"cheng2020-anchor-q{quality}.safetensors", "pt") as file:
        last = {key: float(file.metadata()[key]) for key in ("minutes", "held_out_loss")}
    start = start if quality in (3, 6) else 0.0  # the others began anew from their neighbours
    axis.plot(start + last["minutes"], last["held_out_loss"], "o", color="black", markerfacecolor="white")
    narrow = [pd.read_csv(path) for path in (ROOT / "checkpoints" / "logs" / "narrow").glob(f"q{quality}*.csv")]
    if narrow and quality in (3, 6):  # the codecs that these two began from
        axis.axhline(min(log["best"].min() for log in narrow), color="#555555", linestyle="--", linewidth=1)
    axis.set_title(f"quality {quality}", fontsize=11)
    axis.set_yscale("log")
    axis.minorticks_off()
    low, high = axis.get_ylim()
    axis.set_xlim(left=0)
    axis.set_ylim(low, high)
    axis.set_yticks([low, (low * high) ** 0.5, high], [f"{y:.4g}" for y in (low, (low * high) ** 0.5, high)])
figure.supxlabel("minutes of training")
figure.supylabel("held-out loss")
figure.savefig(ROOT / "checkpoints" / "training.png", dpi=110)
