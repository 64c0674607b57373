"""Files of the classical codecs, as Pillow writes them."""

import io

from PIL import Image

from dgml.images import to_rgb

# The names that Pillow gives to the formats, its options, and settings from about 0.08 bpp
# (where the format goes so low) to 2.
CLASSICAL: dict[str, tuple[str, dict, tuple[int, ...]]] = {
    "JPEG": ("JPEG", {"optimize": True, "subsampling": "4:2:0"}, (3, 5, 8, 13, 20, 34, 55, 75, 86)),
    # Without mct the colours are not transformed, and the file is more than twice as large.
    "JPEG 2000": ("JPEG2000", {"irreversible": True, "mct": 1}, (3, 4, 6, 9, 14, 21, 32, 50, 84)),
    "WebP": ("WEBP", {"method": 6}, (0, 3, 8, 16, 30, 50, 70, 80, 90)),
    # Twice: with Pillow's defaults, and at its best for PSNR within the patience of an evaluation.
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


def classical_file(name: str, setting: int, picture: Image.Image) -> bytes:
    """The file of an RGB picture in a format of :data:`CLASSICAL`; a higher setting is a larger file.

    The setting is the format's quality, or, for JPEG 2000, the size in thousandths of three bytes a pixel.
    """
    file_format, options, _ = CLASSICAL[name]
    is_size = name == "JPEG 2000"
    how: dict = {"quality_mode": "rates", "quality_layers": [1000 / setting]} if is_size else {"quality": setting}
    file = io.BytesIO()
    picture.save(file, file_format, **how, **options)
    return file.getvalue()


def read_classical(data: bytes) -> Image.Image:
    """The picture of such a file in RGB."""
    return to_rgb(Image.open(io.BytesIO(data)))
