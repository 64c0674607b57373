"""Draw the picture of the introduction: one photograph on its way through the codec.

Run by ``make notebooks``; writes ``book/_static/journey.png``.
"""

import sys
import zlib
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from helpers import (
    ROOT,
    WIDTH,
    bits,
    crop,
    image_to_tensor,
    load_codec,
    load_images,
    pack,
    pad,
    psnr,
    tensor_to_image,
)

x = image_to_tensor(load_images("bundled")[0]["image"])
codec = load_codec(quality=3, weights="bundled")
with torch.no_grad():
    y = codec.g_a(pad(x))
    likelihoods = codec(pad(x))["likelihoods"]
    x_hat = crop(codec.g_s(y.round()), x.shape[2:]).clamp(0, 1)
    z = codec.h_a(y).round()

cost = bits(likelihoods["y"])[0]
channels = cost.sum(dim=(1, 2)).argsort(descending=True)[:4]
scaled = [(m - m.min()) / (m.max() - m.min()) for m in y[0, channels].round()]
mosaic = torch.cat([torch.cat(scaled[:2], 1), torch.cat(scaled[2:], 1)], 0)
kilobytes = sum(float(bits(p).sum()) for p in likelihoods.values()) / 8 / 1000
packed = np.frombuffer(zlib.compress(pack(y.round(), z), 9), np.uint8)
side = int(len(packed) ** 0.5)

panels = {
    f"1. a photograph\n{x.numel() / 1000:.0f} kB of pixels": (tensor_to_image(x), {}),
    f"2. g_a makes y: {codec.M} channels,\nfour of them here": (mosaic, {"cmap": "gray"}),
    f"3. what each block costs\n{kilobytes:.1f} kB by its likelihoods": (
        cost.sum(0),
        {"cmap": "inferno", "vmax": float(cost.sum(0).quantile(0.99))},
    ),
    f"4. the integers, packed\n{len(packed) / 1000:.1f} kB by zlib": (
        packed[: side**2].reshape(side, side),
        {"cmap": "gray"},
    ),
    "5. unpacked again,\nnot one integer changed": (mosaic, {"cmap": "gray"}),
    f"6. g_s makes a photograph\nPSNR {psnr(x, x_hat):.1f} dB": (tensor_to_image(x_hat), {}),
}
figure, axes = plt.subplots(2, 3, figsize=(WIDTH * 1.25, 5.2), layout="constrained")
for axis, (title, (drawn, options)) in zip(axes.flat, panels.items()):
    axis.imshow(drawn, interpolation="nearest", **options)
    axis.set_title(title, fontsize=10)
    axis.axis("off")
figure.savefig(ROOT / "book" / "_static" / "journey.png", metadata={"Software": None})
