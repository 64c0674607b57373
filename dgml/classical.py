"""Files of the classical codecs: as Pillow writes them, and one that the program cwebp writes."""

import io
import shutil
import subprocess
from bisect import bisect_left, bisect_right

from PIL import Image

from dgml.images import image_to_tensor, to_rgb
from dgml.metrics import psnr

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
    # JPEG, WebP and JPEG XL set for PSNR, as far as they can be; what is set was chosen on the bundled photographs.
    # With the tables of flat_tables(), in the place of those that were made for the eye.
    "JPEG best PSNR": ("JPEG", {"optimize": True, "subsampling": "4:2:0"}, (2, 14, 24, 32, 40, 48, 56, 65, 74)),
    # Pillow sets quality and method of WebP and nothing else: here cwebp writes the file.
    "WebP best PSNR": ("WEBP", {"m": 6, "sns": 0, "segments": 1}, (0, 3, 8, 16, 30, 50, 70, 80, 90)),
    # Of libjxl's settings the plugin passes the effort; the switch of its model of the eye is out of reach.
    "JPEG XL best PSNR": ("JXL", {"effort": 9, "num_threads": 0}, (0, 10, 20, 30, 45, 60, 75, 84, 89)),
}  # fmt: skip


def classical_file(name: str, setting: int, picture: Image.Image) -> bytes:
    """The file of an RGB picture in a format of :data:`CLASSICAL`; a higher setting is a larger file.

    The setting is the format's quality, for JPEG 2000 the size in thousandths of three bytes a pixel, and for
    "JPEG best PSNR" the negative logarithm of the step, 16 to an octave.
    """
    file_format, options, _ = CLASSICAL[name]
    if name == "WebP best PSNR":
        return cwebp(setting, options, picture)
    if name == "JPEG 2000":
        how: dict = {"quality_mode": "rates", "quality_layers": [1000 / setting]}
    elif name == "JPEG best PSNR":
        how = {"qtables": flat_tables(256 / 2 ** (setting / 16))}
    else:
        how = {"quality": setting}
    file = io.BytesIO()
    picture.save(file, file_format, **how, **options)
    return file.getvalue()


def flat_tables(step: float) -> list[list[int]]:
    """JPEG's two tables of quantization steps, one step for all frequencies, and the mean of a block finer.

    The second is that of the colours: at half the resolution an error in a coefficient covers four times the pixels.
    """
    rounded = [[max(1, round(step * part * 0.6)), *[max(1, round(step * part))] * 63] for part in (1, 0.6)]
    return [[min(entry, 255) for entry in table] for table in rounded]


def can_write(name: str, file_format: str) -> bool:
    """Whether this Pillow writes a format, or, for "WebP best PSNR", whether cwebp is installed."""
    if name == "WebP best PSNR":
        return shutil.which("cwebp") is not None
    Image.init()
    return file_format in Image.SAVE


def cwebp(quality: int, options: dict, picture: Image.Image) -> bytes:
    """The file that the program cwebp writes: no shaping of noise, one segment, the strength of its filter chosen."""
    settings = [word for key, value in options.items() for word in (f"-{key}", str(value))]
    file = io.BytesIO()
    picture.save(file, "PPM")
    command = ["cwebp", "-quiet", "-q", str(quality), *settings, "-af", "-o", "-", "--", "-"]
    return subprocess.run(command, input=file.getvalue(), stdout=subprocess.PIPE, check=True).stdout


def cwebp_version() -> str:
    """The version of the program cwebp."""
    shown = subprocess.run(["cwebp", "-version"], stdout=subprocess.PIPE, check=True, text=True).stdout
    return shown.split()[0]


def read_classical(data: bytes) -> Image.Image:
    """The picture of such a file in RGB."""
    return to_rgb(Image.open(io.BytesIO(data)))


class Ladder:
    """The files of one picture in one format, from the smallest setting up, each coded when it is first asked for."""

    def __init__(self, name: str, picture: Image.Image) -> None:
        self.name, self.picture = name, picture
        self.settings = [*range(1, 101)]
        if name.startswith("JPEG XL"):
            # 100 is lossless. Below 20 libjxl halves the sides first, and from 10 on such files are larger and worse.
            self.settings = [*range(1, 10), *range(20, 100)]
        if name == "AVIF best PSNR":
            self.settings = [*range(1, 101, 4)]  # a file takes a second
        self.files: dict[int, bytes] = {}

    def at(self, setting: int) -> bytes:
        """The file at a setting."""
        if setting not in self.files:
            self.files[setting] = classical_file(self.name, setting, self.picture)
        return self.files[setting]

    def not_larger(self, n_bytes: int) -> bytes:
        """The largest file of at most ``n_bytes``; the smallest of all where none is so small."""
        i = bisect_right(self.settings, n_bytes, key=lambda setting: len(self.at(setting)))
        return self.at(self.settings[max(i - 1, 0)])

    def not_worse(self, db: float) -> bytes:
        """The smallest file with a PSNR of ``db`` or more; the best of all where none is so good."""
        i = bisect_left(self.settings, db, key=lambda setting: self.decibels(self.at(setting)))
        return self.at(self.settings[min(i, len(self.settings) - 1)])

    def decibels(self, data: bytes) -> float:
        """The PSNR of a file against the picture."""
        return psnr(image_to_tensor(self.picture), image_to_tensor(read_classical(data)))
