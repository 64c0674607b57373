"""From a picture of any mode to pixels and back."""

import io
import struct

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms
from samples import noise, one_line, random_levels

from dgml.images import crop, image_to_tensor, pad, tensor_to_image, to_rgb
from dgml.picture_sets import load_images

SIZES = [(1, 1), (1, 500), (500, 1), (64, 64), (65, 130)]


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_pad_repeats_the_last_row_and_column(height, width):
    x = torch.rand(1, 3, height, width)
    padded = pad(x)
    assert padded.shape == (1, 3, -(-height // 64) * 64, -(-width // 64) * 64)
    expected = np.pad(x.numpy(), ((0, 0), (0, 0), (0, -height % 64), (0, -width % 64)), mode="edge")
    assert np.array_equal(padded.numpy(), expected)
    assert torch.equal(crop(padded, (height, width)), x)


def test_pad_to_another_multiple():
    assert pad(torch.zeros(1, 3, 9, 16), 8).shape == (1, 3, 16, 16)


def test_picture_and_tensor_round_trip_is_exact():
    levels = np.resize(np.arange(256, dtype=np.uint8), (20, 30, 3))  # every level, in every colour
    x = image_to_tensor(Image.fromarray(levels))
    assert x.shape == (1, 3, 20, 30) and x.dtype == torch.float32
    assert x.min() == 0 and x.max() == 1
    assert x[0, 1, 2, 3].item() == pytest.approx(levels[2, 3, 1] / 255)
    assert np.array_equal(np.asarray(tensor_to_image(x)), levels)


def test_tensor_to_image_clamps_and_rounds():
    x = torch.tensor([-1, 0.4 / 255, 0.6 / 255, 2]).reshape(1, 1, 2, 2).expand(1, 3, 2, 2)
    assert np.asarray(tensor_to_image(x))[..., 0].tolist() == [[0, 0], [1, 255]]


def test_rgb_stays_as_it_is():
    levels = random_levels(5, 7, 3)
    assert np.array_equal(np.asarray(to_rgb(Image.fromarray(levels))), levels)


def test_grey_fills_three_channels():
    levels = random_levels(5, 7)
    picture = to_rgb(Image.fromarray(levels))
    assert picture.mode == "RGB"
    assert np.array_equal(np.asarray(picture), np.stack([levels] * 3, -1))


def test_black_and_white():
    levels = random_levels(5, 7) > 127
    assert np.array_equal(np.asarray(to_rgb(Image.fromarray(levels)))[..., 2], levels * np.uint8(255))


def reloaded(picture: Image.Image, format: str = "PNG", **options) -> Image.Image:
    """The picture as a reader's file would bring it."""
    file = io.BytesIO()
    picture.save(file, format, **options)
    return Image.open(io.BytesIO(file.getvalue()))


def over_white(levels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    return levels * (alpha / 255) + 255 * (1 - alpha / 255)


def test_transparency_is_laid_on_white():
    levels = random_levels(5, 7, 4)
    levels[0, 0] = 10, 20, 30, 0
    levels[0, 1] = 10, 20, 30, 255
    colour = np.asarray(to_rgb(reloaded(Image.fromarray(levels))))
    assert colour[0, 0].tolist() == [255] * 3 and colour[0, 1].tolist() == [10, 20, 30]
    assert np.abs(colour - over_white(levels[..., :3], levels[..., 3:])).max() <= 1

    grey = np.asarray(to_rgb(reloaded(Image.fromarray(levels[..., 2:], "LA"))))
    assert np.abs(grey[..., 0] - over_white(levels[..., 2], levels[..., 3])).max() <= 1
    premultiplied = np.asarray(to_rgb(Image.fromarray(levels[..., 2:], "LA").convert("La")))
    assert np.abs(premultiplied[..., 0] - over_white(levels[..., 2], levels[..., 3])).max() <= 2


def test_palette_with_a_transparent_colour():
    picture = Image.fromarray(np.array([[0, 1, 2]], dtype=np.uint8), "P")
    picture.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200])
    opaque = to_rgb(reloaded(picture))
    assert np.asarray(opaque).tolist() == [[[200, 0, 0], [0, 200, 0], [0, 0, 200]]]
    seen_through = to_rgb(reloaded(picture, transparency=1))
    assert np.asarray(seen_through).tolist() == [[[200, 0, 0], [255, 255, 255], [0, 0, 200]]]


def test_cmyk():
    levels = np.zeros((2, 2, 4), dtype=np.uint8)
    levels[0, 0, 0] = 255  # all cyan
    levels[1, 1, 3] = 255  # all black
    picture = np.asarray(to_rgb(Image.fromarray(levels, "CMYK")))
    assert picture[0, 0].tolist() == [0, 255, 255]
    assert picture[0, 1].tolist() == [255, 255, 255]
    assert picture[1, 1].tolist() == [0, 0, 0]


def test_sixteen_bits_keep_the_upper_eight():
    levels = np.random.default_rng(2).integers(0, 65536, (5, 7), dtype=np.uint16)
    levels[0, :3] = 0, 255, 65535
    expected = np.stack([levels >> 8] * 3, -1)
    picture = reloaded(Image.fromarray(levels))
    assert picture.mode.startswith("I")
    assert np.array_equal(np.asarray(to_rgb(picture)), expected)
    assert np.array_equal(np.asarray(to_rgb(Image.fromarray(levels.astype(np.int32)))), expected)


@pytest.mark.parametrize("level", [-1, 65536])
def test_levels_beyond_sixteen_bits_are_refused(level):
    with pytest.raises(ValueError, match="16 bits") as raised:
        to_rgb(Image.fromarray(np.array([[0, level]], dtype=np.int32)))
    one_line(raised)


def test_floating_point_pictures_are_refused():
    with pytest.raises(ValueError, match="floating-point") as raised:
        to_rgb(Image.fromarray(np.zeros((2, 2), dtype=np.float32)))
    one_line(raised)


def test_a_camera_held_sideways():
    levels = random_levels(5, 7, 3)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise to see it upright
    upright = to_rgb(reloaded(Image.fromarray(levels), exif=exif))
    assert np.array_equal(np.asarray(upright), np.rot90(levels, -1))


# ---------------------------------------------------------------- colours


def wide_profile() -> bytes:
    """An ICC profile of Display P3's primaries with a gamma of 2.2, written out by hand."""

    def s15(*values):
        return struct.pack(f">{len(values)}i", *(round(65536 * v) for v in values))

    xyz = {b"rXYZ": (0.51512, 0.24120, -0.00105), b"gXYZ": (0.29198, 0.69225, 0.04189),
           b"bXYZ": (0.15710, 0.06657, 0.78407), b"wtpt": (0.9642, 1, 0.8249)}  # fmt: skip
    tags = {key: b"XYZ \0\0\0\0" + s15(*value) for key, value in xyz.items()}
    tags |= {
        key: b"curv\0\0\0\0" + struct.pack(">IH", 1, round(2.2 * 256)) + b"\0\0" for key in (b"rTRC", b"gTRC", b"bTRC")
    }
    table, data, offset = b"", b"", 132 + 12 * len(tags)
    for key, value in tags.items():
        table += key + struct.pack(">II", offset + len(data), len(value))
        data += value
    header = struct.pack(">I4sI4s4s4s12s4s4sI4s4s8sI", 0, b"lcms", 0x02400000, b"mntr", b"RGB ", b"XYZ ", bytes(12),
                         b"acsp", bytes(4), 0, bytes(4), bytes(4), bytes(8), 0) + s15(0.9642, 1, 0.8249)  # fmt: skip
    header = header.ljust(128, b"\0") + struct.pack(">I", len(tags))
    body = header + table + data
    return struct.pack(">I", len(body)) + body[4:]


def test_a_colour_profile_is_converted_to_srgb(tmp_path):
    inside = Image.new("RGB", (8, 8), (200, 100, 60))
    inside.save(tmp_path / "p3.png", icc_profile=wide_profile())
    got = np.asarray(to_rgb(load_images(str(tmp_path))[0]["image"]))[0, 0].astype(int)
    # By hand: P3's linear light to sRGB's (its matrix by the CSS Color 4 specification), then sRGB's curve.
    to_srgb = np.array([[1.2249402, -0.2249402, 0], [-0.0420570, 1.0420570, 0], [-0.0196376, -0.0786361, 1.0982736]])
    linear = to_srgb @ (np.array([200, 100, 60]) / 255) ** (563 / 256)
    curve = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear.clip(0) ** (1 / 2.4) - 0.055)
    assert np.abs(got - 255 * curve).max() <= 1.5
    assert np.abs(got - (200, 100, 60)).max() > 8


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P"])
def test_srgb_itself_changes_no_pixel(mode):
    picture = noise(40, 30, 3).convert(mode)
    picture.info["icc_profile"] = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    plain = picture.copy()
    del plain.info["icc_profile"]
    assert np.array_equal(np.asarray(to_rgb(picture)), np.asarray(to_rgb(plain)))


def test_conversion_happens_once_and_keeps_alpha():
    picture = Image.new("RGBA", (8, 8), (200, 100, 60, 0))
    picture.info["icc_profile"] = wide_profile()
    assert to_rgb(picture).getpixel((0, 0)) == (255, 255, 255)
    opaque = picture.convert("RGB")
    once = to_rgb(opaque)
    assert to_rgb(once).tobytes() == once.tobytes() != opaque.tobytes()


def test_a_profile_that_cannot_be_read_is_passed_over():
    picture = noise(40, 30, 1)
    picture.info["icc_profile"] = b"no profile"
    assert to_rgb(picture).tobytes() == noise(40, 30, 1).tobytes()
