"""The codec's networks: the layers of CompressAI's ``cheng2020-anchor`` with a width for each depth."""

from compressai.layers import MaskedConv2d, ResidualBlock, ResidualBlockUpsample, conv3x3
from compressai.models import Cheng2020Anchor, Cheng2020Attention  # noqa: F401 (chapter 15)
from torch import Tensor, nn

from dgml.settings import QUALITIES

# N, the width where pixels are many, and M, the width of y.
BUNDLED_WIDTHS = dict(zip(QUALITIES, 3 * [(32, 128)] + 3 * [(48, 192)]))


class DeepAnchor(Cheng2020Anchor):
    """The layers of ``cheng2020-anchor`` (Cheng et al., CVPR 2020) with a width for each depth.

    N channels at a half to an eighth of the resolution, where nearly all multiply-adds of the transforms are, and in
    z; M channels in y, in what predicts y, and in g_s up to its first upsampling.  A wide y needs a wide first block
    behind it: with N channels there g_s squeezes whatever y holds into N numbers for 256 pixels.  With N = M it is
    CompressAI's codec.
    """

    def __init__(self, N: int, M: int):
        super().__init__(N)
        self.M = M
        self.g_a[-1] = conv3x3(N, M, stride=2)
        self.g_s[0] = ResidualBlock(M, M)
        self.g_s[1] = ResidualBlockUpsample(M, N, 2)
        self.h_a[0] = conv3x3(M, N)
        self.h_s[-1] = conv3x3(N * 3 // 2, 2 * M)
        self.context_prediction = MaskedConv2d(M, 2 * M, kernel_size=5, padding=2)
        widths = (4 * M, 10 * M // 3, 8 * M // 3, 2 * M)
        for i, layer in enumerate((0, 2, 4)):
            self.entropy_parameters[layer] = nn.Conv2d(widths[i], widths[i + 1], 1)


def z_medians(codec: Cheng2020Anchor) -> Tensor:
    """The medians of z (1, N, 1, 1): z is coded as round(z - median)."""
    return codec.entropy_bottleneck.quantiles.detach()[:, 0, 1].reshape(1, -1, 1, 1)
