"""A photograph as a file, and back: an exact, fast bitstream for any ``Cheng2020Anchor``.

    files = FileCodec(load_codec(3))
    data = files.encode(picture, quality=3)
    picture = files.decode(data)

The transforms g_a and g_s stay in floating point: the first runs only in the encoder, the second after the last symbol.
``book/format.md`` describes the file byte by byte.
"""

import constriction
import torch
from PIL import Image

from dgml.container import check_size, read, write
from dgml.entropy import Array, decode_latents, encode_latents, encode_y, encode_z, entropy_model
from dgml.images import crop, image_to_tensor, pad, tensor_to_image
from dgml.model import Cheng2020Anchor
from dgml.search import best_file, file_loss
from dgml.settings import LAMBDA, QUALITIES
from dgml.tables import ONE

AT_ONCE = 2**23  # pixels that go through g_a or g_s at once


class FileCodec:
    """A codec that writes and reads files: its fixed-point model, tables and fingerprint are made once for all of them.

    They are of the weights as they are now: make another after a change of the weights.
    """

    def __init__(self, codec: Cheng2020Anchor):
        """ValueError for a codec that is not in float32 on the CPU, or whose weights are too large for exact sums."""
        self.codec, self.model = codec, entropy_model(codec)

    def encode(self, picture: Image.Image, quality: int = 0, search: int = 0) -> bytes:
        """The file of a picture of any mode and of 1x1 pixel up to 2**27.

        ``quality`` is signalled to the decoder, who needs the same weights; 0 says nothing about them.
        ``search`` is a number of steps that the encoder spends on a better y (search.py), with the quality's lambda:
        the file decodes like any other, and its lambda * 255**2 * MSE + bpp is never higher than without.
        Raises ValueError for a picture that is too large, another quality, or weights that give NaN or Inf.
        """
        if quality not in (0, *QUALITIES):
            raise ValueError(f"quality is 1 to 6, or 0, not {quality!r}")
        if not isinstance(search, int) or search < 0:
            raise ValueError(f"search is a number of steps, 0 or more, not {search!r}")
        if search and not quality:
            raise ValueError("search needs a quality, 1 to 6, whose lambda says how many bytes an error is worth")
        check_size(*picture.size)
        x = image_to_tensor(picture)
        y, z = analysis(self.codec, pad(x))
        height, width = x.shape[-2:]

        def coded(y: Array) -> tuple[bytes, Array]:
            stream, y_hat = encode_latents(self.model, y, z)
            return write(quality, height, width, self.model.fingerprint, stream, y_hat), y_hat

        def coded_at_loss(y: Array) -> tuple[bytes, Array, float]:
            data, y_hat = coded(y)
            decoded = synthesis(self.codec, y_hat, (height, width))
            return data, y_hat / ONE, file_loss(picture, decoded, len(data), LAMBDA[quality])

        return best_file(self.codec, x, y, z, coded_at_loss, LAMBDA[quality], search) if search else coded(y)[0]

    def decode(self, data: bytes) -> Image.Image:
        """The picture of a file; BitstreamError where the file, or the codec, is not the right one."""
        header = read(data)
        y_hat = decode_latents(self.model, header)
        return synthesis(self.codec, y_hat, (header.height, header.width))


def encode(codec: Cheng2020Anchor, picture: Image.Image, quality: int = 0, search: int = 0) -> bytes:
    """:meth:`FileCodec.encode` for one file."""
    return FileCodec(codec).encode(picture, quality, search)


def decode(codec: Cheng2020Anchor, data: bytes) -> Image.Image:
    """:meth:`FileCodec.decode` for one file."""
    return FileCodec(codec).decode(data)


def analysis(codec: Cheng2020Anchor, x: torch.Tensor) -> tuple[Array, Array]:
    """y (M, H/16, W/16) and z (N, H/64, W/64) of padded pixels (1, 3, H, W); ValueError for NaN or Inf."""
    y = apply_in_strips(codec.g_a, x, 1)
    z = apply_in_strips(codec.h_a, y, 16)
    if not (y.isfinite().all() and z.isfinite().all()):
        raise ValueError("the codec's weights are damaged: its latents contain NaN or Inf")
    return y[0].double().numpy(), z[0].double().numpy()


def synthesis(codec: Cheng2020Anchor, y_hat: Array, size: tuple[int, int]) -> Image.Image:
    """The picture of ``size`` (height, width) that g_s makes of y_hat in units of 2**-10."""
    x_hat = apply_in_strips(codec.g_s, torch.from_numpy(y_hat / ONE)[None].float(), 16)
    return tensor_to_image(crop(x_hat, size))


def apply_in_strips(transform: torch.nn.Module, x: torch.Tensor, unit: int) -> torch.Tensor:
    """g_a, h_a or g_s of x (1, C, H, W) without gradients, in strips that bound the memory.

    ``unit`` is the side of a pixel of x in pixels of the picture.
    A strip sees 192 pixels of the picture more above and below than it keeps, which is beyond the reach of all three,
    also of those with attention.
    """
    height, width = x.shape[-2:]
    rows, halo = max(64, AT_ONCE // (width * unit) // 64 * 64) // unit, 192 // unit
    strips = []
    for top in range(0, height, rows):
        start, end = max(0, top - halo), min(height, top + rows + halo)
        with torch.inference_mode():  # torch convolves faster, on two threads twice as fast, where channels come last
            strip = transform(x[:, :, start:end].contiguous(memory_format=torch.channels_last))
        # Rows of x, counted from the strip's first, become rows of the result: 16 times as many, or a fraction.
        first, last = top - start, min(top + rows, height) - start
        strips.append(strip[:, :, first * strip.shape[2] // (end - start) : last * strip.shape[2] // (end - start)])
    return torch.cat(strips, 2)


def bytes_of_y(codec: Cheng2020Anchor, x: torch.Tensor) -> int:
    """The size of the y of padded pixels ``x`` in a .dgml file, without its z and its header."""
    model, (y, z) = entropy_model(codec), analysis(codec, x)
    z_hat = encode_z(model, z, constriction.stream.queue.RangeEncoder())
    encoder = constriction.stream.queue.RangeEncoder()
    encode_y(model, z_hat, y, encoder)
    return encoder.get_compressed().nbytes
