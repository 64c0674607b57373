"""Codecs from files of weights, and back: the bundled checkpoints, CompressAI's published ones, one's own."""

from copy import deepcopy
from pathlib import Path

import torch
from compressai.zoo import cheng2020_anchor
from compressai.zoo.image import model_urls
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from dgml.files import atomic_write
from dgml.model import BUNDLED_WIDTHS, Cheng2020Anchor, Cheng2020Attention, DeepAnchor
from dgml.settings import CHECKPOINTS, QUALITIES, setting
from dgml.tables import make_z_frequencies

Z_TABLE = "entropy_bottleneck.frequencies"
CONTEXT = "context_prediction.weight"
CONTEXT_UNIT = "context_prediction.unit"  # of the integers of 8 bits that a file holds of it


def load_codec(quality: int = 3, weights: str | None = None) -> Cheng2020Anchor:
    """A ``cheng2020-anchor`` codec in eval mode on the CPU, its entropy-coding tables built.

    ``quality`` is 1 (smallest file) to 6.
    ``weights`` is "bundled" (``checkpoints/``) or "published" (CompressAI's model zoo, downloaded once); by default
    what ``DGML_WEIGHTS`` says, else "bundled".
    Raises ValueError for another quality or setting and for a damaged bundled file, and RuntimeError when the
    published weights can't be had.
    """
    weights = weights or setting("WEIGHTS")
    if quality not in QUALITIES:
        raise ValueError(f"quality is 1 to 6, not {quality!r}")
    if weights not in ("bundled", "published"):
        raise ValueError(f"DGML_WEIGHTS is 'bundled' or 'published', not {weights!r}")
    if weights == "bundled":
        codec = DeepAnchor(*BUNDLED_WIDTHS[quality])
        load_checkpoint(codec, checkpoint_path(quality, weights))
    else:
        try:
            codec = cheng2020_anchor(quality, pretrained=True, progress=False)
        except Exception as error:  # no network, or a damaged file in torch's cache, which fails in many ways
            reason = str(error).split("\n")[0].split(". ")[0] or type(error).__name__
            raise RuntimeError(
                f"DGML_WEIGHTS=published: quality {quality} could not be loaded ({reason}). "
                f"Delete {checkpoint_path(quality, weights)} if it is there, and connect to the network once; or set DGML_WEIGHTS=bundled."
            ) from None
    codec.update()
    codec.quality, codec.source = quality, weights
    return codec.eval()


def load_trained(path: Path) -> Cheng2020Anchor:
    """The codec in a file that ``python -m dgml train`` wrote, of any width, with attention blocks or without."""
    stored = read_checkpoint(path)
    attention = "g_a.8.conv_a.0.conv.0.weight" in stored
    codec = Cheng2020Attention(widths(stored)[0]) if attention else DeepAnchor(*widths(stored), inner(stored))
    load_checkpoint(codec, path)
    codec.update()
    return codec.eval()


def checkpoint_path(quality: int, weights: str | None = None) -> Path:
    """The file that holds the weights of a quality: in ``checkpoints/``, or in torch's download cache."""
    if (weights or setting("WEIGHTS")) == "published":
        url = model_urls["cheng2020-anchor"]["mse"][quality]
        return Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
    return CHECKPOINTS / f"cheng2020-anchor-q{quality}.safetensors"


def load_checkpoint(codec: Cheng2020Anchor, path: Path) -> None:
    """Copy the half-precision weights in ``path`` into ``codec``.

    Raises ValueError if the file is missing, damaged, of other widths, or contains NaN or Inf.
    """
    stored = read_checkpoint(path)
    if widths(stored) != (codec.N, codec.M):
        raise ValueError(f"{path} holds a codec of widths {widths(stored)} (N, M), not {(codec.N, codec.M)}")
    lacking = dict(codec.named_parameters()).keys() - stored.keys()
    if lacking:
        raise ValueError(f"{path} lacks {len(lacking)} parameters, among them {min(lacking)}")
    damaged = [name for name, tensor in stored.items() if not tensor.isfinite().all()]
    if damaged:
        raise ValueError(f"{path} is damaged: {damaged[0]} contains NaN or Inf")
    # The buffers that a file leaves out are constant (masks, bounds) or rebuilt by update() (tables); compressai's own
    # method would ask for them.
    try:
        nn.Module.load_state_dict(codec, stored, strict=False)
    except RuntimeError as error:
        raise ValueError(f"{path} is of another architecture: {' '.join(str(error).split())}") from None
    if Z_TABLE in stored:
        load_z_table(codec, stored[Z_TABLE].int(), path)


def load_z_table(codec: Cheng2020Anchor, frequencies: Tensor, path: Path) -> None:
    """Keep the integers (N, 255) that z is coded with; ValueError where they are no table."""
    if frequencies.shape != (codec.N, 255) or frequencies.min() < 1 or (frequencies.sum(1) != 2**24).any():
        raise ValueError(f"{path} is damaged: its table of z does not add up to 2**24")
    codec.entropy_bottleneck.register_buffer("frequencies", frequencies)


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint in float32, the context's kernel with zeros where its mask has them.

    The file holds the kernel's twelve taps alone, (2 * M, M, 12), since the mask zeroes the other thirteen, as integers
    in a unit for each output, or in half precision.
    """
    try:
        stored = {name: tensor.float() for name, tensor in load_file(path).items()}
        taps = stored[CONTEXT] = stored[CONTEXT] * stored.pop(CONTEXT_UNIT, 1.0)
        if taps.ndim == 3:
            stored[CONTEXT] = nn.functional.pad(taps, (0, 13)).reshape(*taps.shape[:2], 5, 5)
        widths(stored)
    except (OSError, KeyError, IndexError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"{path} is no checkpoint of this codec, or not all of it ({error})") from None
    return stored


def widths(parameters: dict[str, Tensor]) -> tuple[int, int]:
    """N and M of a codec with these parameters."""
    return parameters["g_a.0.conv1.weight"].shape[0], parameters["entropy_parameters.4.weight"].shape[0] // 2


def inner(parameters: dict[str, Tensor]) -> tuple[int, int]:
    """The widths at a quarter and at an eighth of the resolution, of a codec without attention blocks."""
    return parameters["g_a.2.conv1.weight"].shape[0], parameters["g_a.4.conv1.weight"].shape[0]


def save_checkpoint(codec: Cheng2020Anchor, path: Path, metadata: dict[str, object]) -> None:
    """Write the codec's parameters in half precision and its table of z, with ``metadata`` in the file's header.

    The context's kernel, the largest of all, becomes integers of 8 bits, in a power of two for each output.

    The buffers are left out: masks and bounds are constant, CompressAI's tables are rebuilt by ``codec.update()``.
    """
    tensors = {name: p.detach().half().contiguous() for name, p in codec.named_parameters()}
    taps = codec.context_prediction.weight.detach().flatten(2)[:, :, :12]  # the mask zeroes the other thirteen
    unit = 2.0 ** (taps.abs().amax((1, 2), keepdim=True).clamp(min=2.0**-10) / 127).log2().ceil()
    tensors[CONTEXT], tensors[CONTEXT_UNIT] = (taps / unit).round().to(torch.int8), unit.half()
    # A codec that started from a checkpoint carries that one's table.
    tensors[Z_TABLE] = torch.from_numpy(make_z_frequencies(deepcopy(codec).cpu().half().float()))
    save_tensors(tensors, path, metadata)


def save_tensors(tensors: dict[str, Tensor], path: Path, metadata: dict[str, object]) -> None:
    """A safetensors file, written whole, with ``metadata`` in its header."""
    # Into memory first: the libraries' own answer to a full disk is a traceback.
    atomic_write(path, save(tensors, {key: str(value) for key, value in metadata.items()}))
