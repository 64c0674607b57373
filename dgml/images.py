"""From a picture to the tensor that the codec sees, and back."""

import io
from collections.abc import Sequence
from contextlib import suppress
from typing import cast

import numpy as np
import torch
from PIL import Image, ImageCms, ImageOps
from torch import Tensor

with suppress(ImportError):  # JPEG XL for Pillow
    import pillow_jxl  # noqa: F401
with suppress(ImportError):  # HEIC, what phones write
    import pillow_heif

    pillow_heif.register_heif_opener()


def image_to_tensor(picture: Image.Image) -> Tensor:
    """A picture as float32 of shape (1, 3, H, W) in [0, 1]."""
    levels = torch.from_numpy(np.array(to_rgb(picture)))
    return levels.permute(2, 0, 1)[None].float() / 255


def tensor_to_image(x: Tensor) -> Image.Image:
    """The picture of a tensor (1, 3, H, W), clamped to [0, 1] and rounded to 8 bits."""
    levels = x[0].clamp(0, 1).mul(255).round().byte()
    return Image.fromarray(levels.permute(1, 2, 0).numpy())


def pad(x: Tensor, multiple: int = 64) -> Tensor:
    """Repeat the last column and row of x (B, C, H, W) until H and W are multiples: the codec halves both six times."""
    height, width = x.shape[-2:]
    return torch.nn.functional.pad(x, (0, -width % multiple, 0, -height % multiple), mode="replicate")


def crop(x: Tensor, size: Sequence[int]) -> Tensor:
    """Undo :func:`pad`: the upper left (height, width) of x (B, C, H, W)."""
    return x[..., : size[0], : size[1]]


def to_rgb(picture: Image.Image) -> Image.Image:
    """The picture upright, in 8-bit sRGB.

    Grey, palette and CMYK are converted, transparency is laid on white, 16-bit grey keeps its upper eight bits.
    A colour profile is converted to sRGB; one that can't be read is ignored, as in browsers.
    Raises ValueError for floating-point pictures, whose range is unknown.
    """
    picture = upright(picture)
    profile = picture.info.get("icc_profile")
    if picture.mode == "F":
        raise ValueError("a floating-point picture has no known range; save it with 8 or 16 bits")
    if picture.mode.startswith("I"):
        levels = np.asarray(picture).astype(np.int64)
        if levels.min() < 0 or levels.max() > 65535:
            raise ValueError(f"grey levels {levels.min()} to {levels.max()} do not fit 16 bits")
        picture = Image.fromarray((levels >> 8).astype(np.uint8))
    if picture.mode == "La":  # Pillow converts it to nothing else
        picture = picture.convert("LA")
    if picture.mode in ("P", "PA", "LA", "RGBa") or picture.has_transparency_data:
        picture = picture.convert("RGBA" if picture.has_transparency_data else "RGB")
    picture = to_srgb(picture, profile)
    if picture.mode == "RGBA":
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture.convert("RGB")


def upright(picture: Image.Image) -> Image.Image:
    """The picture as its EXIF data say that the camera was held."""
    try:
        return ImageOps.exif_transpose(picture)
    except Exception:  # damaged EXIF data fail in many ways, and the pixels are sound
        return picture


def to_srgb(picture: Image.Image, profile: bytes | None) -> Image.Image:
    """The picture in RGB or RGBA with the colours that ``profile`` (ICC) gives, as sRGB; without one, as it is.

    Where the profile is sRGB itself, up to one level, the numbers stay what they are.
    """
    if not profile or picture.mode not in ("L", "RGB", "RGBA", "CMYK"):
        return picture
    to = "RGBA" if picture.mode == "RGBA" else "RGB"
    try:
        change = ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB"), picture.mode, to,
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC, flags=ImageCms.Flags.BLACKPOINTCOMPENSATION)  # fmt: skip
    except (OSError, ImageCms.PyCMSError):
        return picture
    if picture.mode != "CMYK":
        levels = np.stack(np.meshgrid(*3 * [np.arange(0, 256, 15)]), -1).astype(np.uint8).reshape(1, -1, 3)
        colours = Image.fromarray(levels).convert(picture.mode)
        changed = np.asarray(applied(change, colours).convert("RGB"), dtype=int)
        if np.abs(changed - np.asarray(colours.convert("RGB"))).max() <= 1:
            return picture
    return applied(change, picture)


def applied(change: ImageCms.ImageCmsTransform, picture: Image.Image) -> Image.Image:
    """A new picture with its colours changed."""
    return cast(Image.Image, ImageCms.applyTransform(picture, change))  # None only where it works in place
