"""The codec's networks: the layers of CompressAI's ``cheng2020-anchor`` with a width for each depth."""

from compressai.layers import (
    MaskedConv2d,
    ResidualBlock,
    ResidualBlockUpsample,
    ResidualBlockWithStride,
    conv3x3,
    subpel_conv3x3,
)
from compressai.models import Cheng2020Anchor, Cheng2020Attention  # noqa: F401 (chapter 15)
from torch import Tensor, nn

from dgml.settings import QUALITIES

# N, the width where pixels are many, and M, the width of y.
BUNDLED_WIDTHS = dict(zip(QUALITIES, 3 * [(32, 128)] + 3 * [(48, 192)]))


class DeepAnchor(Cheng2020Anchor):
    """The layers of ``cheng2020-anchor`` (Cheng et al., CVPR 2020) with a width for each depth.

    ::

        resolution    1/1   1/2   1/4   1/8   1/16  1/32  1/64
        x, g_a, y     3 ->  N  -> w2 -> w3 -> M
        h_a, z                                M ->  N  -> N
        g_s           3 <-  N  <- w2 <- w3 <- M

    Nearly all multiply-adds of the transforms are spent where pixels are many.  What a picture loses, it loses where
    channels are few: a block of 16x16 pixels is 768 numbers, and width w at an eighth of the resolution keeps 4 w of
    them.  Behind a wide y the first block of g_s is as wide, or it would squeeze y into w3 numbers at once.
    ``inner`` is (w2, w3), by default (N, N).  With N = w2 = w3 = M it is CompressAI's codec.
    """

    def __init__(self, N: int, M: int, inner: tuple[int, int] | None = None):
        super().__init__(N)
        w2, w3 = inner or (N, N)
        self.M, self.widths = M, (N, w2, w3, M)
        down, same, up = ResidualBlockWithStride, ResidualBlock, ResidualBlockUpsample
        self.g_a = nn.Sequential(
            down(3, N, 2), same(N, N), down(N, w2, 2), same(w2, w2), down(w2, w3, 2), same(w3, w3), conv3x3(w3, M, stride=2)
        )  # fmt: skip
        self.g_s = nn.Sequential(
            same(M, M), up(M, w3, 2), same(w3, w3), up(w3, w2, 2), same(w2, w2), up(w2, N, 2), same(N, N),
            subpel_conv3x3(N, 3, 2),
        )  # fmt: skip
        self.h_a[0] = conv3x3(M, N)
        self.h_s[-1] = conv3x3(N * 3 // 2, 2 * M)
        self.context_prediction = MaskedConv2d(M, 2 * M, kernel_size=5, padding=2)
        sizes = (4 * M, 10 * M // 3, 8 * M // 3, 2 * M)
        for i, layer in enumerate((0, 2, 4)):
            self.entropy_parameters[layer] = nn.Conv2d(sizes[i], sizes[i + 1], 1)


def z_medians(codec: Cheng2020Anchor) -> Tensor:
    """The medians of z (1, N, 1, 1): z is coded as round(z - median)."""
    return codec.entropy_bottleneck.quantiles.detach()[:, 0, 1].reshape(1, -1, 1, 1)
