"""Draw the picture of the introduction: one photograph on its way into a file and back.

Run by ``make notebooks``; writes ``book/_static/journey.svg``.
"""

import os
import sys
from pathlib import Path

os.environ["DGML_FIGURES"] = "svg"
import matplotlib.pyplot as plt
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from dgml import bitstream, container, entropy
from dgml.checkpoints import load_codec
from dgml.images import image_to_tensor, pad, to_rgb
from dgml.metrics import bits, psnr
from dgml.picture_sets import load_images
from dgml.settings import ROOT
from helpers import WIDTH

picture = to_rgb(load_images("bundled")[0]["image"])
x = image_to_tensor(picture)
codec = load_codec(quality=3, weights="bundled")
data = bitstream.encode(codec, picture, 3)
read = torch.tensor(entropy.decode_latents(entropy.entropy_model(codec), container.read(data)))
read = read.float()
decoded = bitstream.decode(codec, data)
with torch.no_grad():
    y = codec.g_a(pad(x))[0]
    likelihoods = codec(pad(x))["likelihoods"]

cost = bits(likelihoods["y"])[0]
channels = cost.sum(dim=(1, 2)).argsort(descending=True)[:4]
kilobytes = sum(float(bits(p).sum()) for p in likelihoods.values()) / 8 / 1000
side = int(len(data) ** 0.5)
grey = {"cmap": "gray"}


def mosaic(latents: torch.Tensor) -> torch.Tensor:
    """Four channels in a square, each scaled to its own range."""
    a, b, c, d = ((m - m.min()) / (m.max() - m.min()) for m in latents[channels])
    return torch.cat([torch.cat([a, b], 1), torch.cat([c, d], 1)], 0)


panels = {
    f"1. a photograph\n{x.numel() / 1000:.0f} kB of pixels": (picture, {}),
    f"2. gₐ makes y:\n{codec.M} channels,\nfour of them here": (mosaic(y), grey),
    f"3. what each\nblock costs by the\nmodel: {kilobytes:.1f} kB": (cost.sum(0), {"cmap": "inferno", "vmax": float(cost.sum(0).quantile(0.99))}),
    f"4. the file\n{len(data) / 1000:.1f} kB": (np.frombuffer(data, np.uint8)[: side**2].reshape(side, side), grey),
    "5. read from it:\nŷ, y after\nrounding": (mosaic(read), grey),
    f"6. gₛ makes a\nphotograph,\nPSNR {psnr(x, image_to_tensor(decoded)):.1f} dB": (decoded, {}),
}  # fmt: skip
figure, axes = plt.subplots(2, 3, figsize=(WIDTH, 5), layout="constrained")
for axis, (title, (drawn, options)) in zip(axes.flat, panels.items()):
    axis.imshow(drawn, **options)
    axis.set_title(title, fontsize=10)
    axis.axis("off")
figure.savefig(ROOT / "book" / "_static" / "journey.svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
