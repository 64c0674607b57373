"""Write what the page codec.md loads, from ``checkpoints/``: the kernel, a script of weights and tables for each
quality, a photograph.

A Sphinx extension; it writes into the built site, ``_static/codec/``.
"""

import base64
import gzip
import io
import json
import shutil
import sys
from pathlib import Path

import kept
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from dgml import entropy, tables
from dgml.checkpoints import checkpoint_path, load_trained
from dgml.images import to_rgb
from dgml.picture_sets import load_images
from dgml.settings import QUALITIES, ROOT
from helpers import default_index

SOURCE = ROOT / "book" / "_static" / "codec"
INPUTS = ("dgml/**/*.py", "checkpoints/*.safetensors", "book/_ext/codec_page.py", "book/_static/codec/kernel.wat")
# What the words in capitals of kernel.wat stand for.
WORDS = {
    "f32": {
        "FLOAT": "f32", "VECTOR": "f32x4", "BYTES": "4", "SPLAT": "v128.load32_splat", "WEIGHTS": "32",
        "W0": "(v128.load (local.get $w))", "W1": "(v128.load offset=16 (local.get $w))",
    },
    "f64": {
        "FLOAT": "f64", "VECTOR": "f64x2", "BYTES": "8", "SPLAT": "v128.load64_splat", "WEIGHTS": "16",
        "W0": "(f64x2.promote_low_f32x4 (v128.load64_zero (local.get $w)))",
        "W1": "(f64x2.promote_low_f32x4 (v128.load64_zero offset=8 (local.get $w)))",
    },
}  # fmt: skip
BEGIN = """(module (import "page" "memory" (memory 1))
(func $smaller (param $a i32) (param $b i32) (result i32)
  (select (local.get $a) (local.get $b) (i32.lt_s (local.get $a) (local.get $b))))
"""
FIRST = 0x5000  # 32,768 characters from here on are neither controls nor surrogates: 15 bits each


def setup(app) -> dict:
    app.connect("build-finished", write_site)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def write_site(app, exception: Exception | None) -> None:
    if exception is None and app.builder.format == "html":
        source = kept.files(*INPUTS) + f"{torch.__version__}{sample_script()}".encode()
        made = kept.kept(source, lambda folder: write(folder, checkpoint_path))
        shutil.copytree(made, Path(app.outdir) / "_static" / "codec", dirs_exist_ok=True)


def write(folder: Path, path_of, qualities=QUALITIES) -> None:
    """The scripts of these qualities; ``path_of(quality, "bundled")`` is a checkpoint of any widths."""
    folder.mkdir(parents=True, exist_ok=True)
    built_qualities = {}
    for quality in qualities:
        codec = load_trained(path_of(quality, "bundled"))
        script = weights_script(quality, codec)
        (folder / f"q{quality}.js").write_bytes(script)
        fingerprint = entropy.entropy_model(codec).fingerprint.hex()
        built_qualities[quality] = {"N": codec.N, "M": codec.M, "fingerprint": fingerprint, "bytes": len(script)}
    kernel = base64.b64encode(assemble()).decode()
    built = {"kernel": kernel, "qualities": built_qualities}
    (folder / "built.js").write_text(f"const dgmlBuilt = {json.dumps(built)};\n", encoding="utf-8")
    (folder / "sample.js").write_text(sample_script(), encoding="utf-8")


# ---------------------------------------------------------------- the kernel


def kernel_text() -> str:
    """kernel.wat for both kinds of numbers, as one module."""
    source, text = (SOURCE / "kernel.wat").read_text(encoding="utf-8"), BEGIN
    for words in WORDS.values():
        function = source[source.index("(func") :]
        for word, meaning in words.items():
            function = function.replace(word, meaning)
        text += function
    return text + ")\n"


def assemble() -> bytes:
    from wasmtime import wat2wasm

    return bytes(wat2wasm(kernel_text()))


# ---------------------------------------------------------------- weights as the kernel reads them


def up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple


def grouped(weight: np.ndarray, lanes: int) -> np.ndarray:
    """A kernel (rows, columns, in, out) in the order in which the loop nest reads it: group, row, column, in, lane."""
    out = weight.shape[-1]
    return np.moveaxis(weight.reshape(-1, out // lanes, lanes), 1, 0).ravel()


def widened(weight: np.ndarray, bias: np.ndarray, n_in: int, lanes: int) -> tuple[np.ndarray, np.ndarray]:
    """(rows, columns, in, out) and (out,) with zeros up to ``n_in`` inputs and to a multiple of ``lanes`` outputs."""
    more = up(len(bias), lanes) - len(bias)
    return np.pad(weight, ((0, 0), (0, 0), (0, n_in - weight.shape[2]), (0, more))), np.pad(bias, (0, more))


def layer(name: str, weight: np.ndarray, bias: np.ndarray, lanes: int) -> dict[str, np.ndarray]:
    """A convolution's arrays; weight (rows, columns, in, out). A picture has four channels here, red to alpha."""
    n_in = 4 if weight.shape[2] == 3 else up(weight.shape[2], lanes)
    weight, bias = widened(weight, bias, n_in, lanes)
    return {f"{name}.weight": grouped(weight, lanes), f"{name}.bias": bias}


def shuffled(name: str, weight: np.ndarray, bias: np.ndarray, lanes: int) -> dict[str, np.ndarray]:
    """A convolution before a pixel shuffle, as two: one for the even rows of the output, one for the odd ones.

    Channel 4c + 2i + j goes to row i, column j of a square; the outputs of a row are in the order column, channel,
    which is how they lie in memory.
    """
    channels = len(bias) // 4
    width = 4 if channels == 3 else up(channels, lanes)
    weight = weight.reshape(*weight.shape[:3], channels, 2, 2)
    weight = np.pad(weight, [(0, 0)] * 3 + [(0, width - channels), (0, 0), (0, 0)])
    bias = np.pad(bias.reshape(channels, 2, 2), ((0, width - channels), (0, 0), (0, 0)))
    if channels == 3:
        bias[3] = 1  # alpha
    arrays = {}
    for i in range(2):
        row = weight[..., i, :].swapaxes(3, 4).reshape(*weight.shape[:3], 2 * width)
        arrays |= layer(f"{name}.{i}", row, bias[:, i].T.ravel(), lanes)
    return arrays


def transform_arrays(name: str, transform: torch.nn.Sequential) -> dict[str, np.ndarray]:
    """The layers of g_a, h_a or g_s for 32-bit floats, under the names that PyTorch gives them; GDN as a 1x1 layer."""
    modules = dict(transform.named_modules(prefix=name))
    before_shuffle = {f"{part}.0" for part in modules if isinstance(modules.get(f"{part}.1"), torch.nn.PixelShuffle)}
    arrays = {}
    for part, module in modules.items():
        if isinstance(module, torch.nn.Conv2d):
            weight, bias = (p.detach().numpy() for p in (module.weight, module.bias))
            place = shuffled if part in before_shuffle else layer
            arrays |= place(part, weight.transpose(2, 3, 1, 0), bias, 8)
        elif hasattr(module, "beta_reparam"):
            gamma, beta = module.gamma_reparam(module.gamma), module.beta_reparam(module.beta)
            arrays |= layer(part, gamma.detach().numpy().T[None, None], beta.detach().numpy(), 8)
    return arrays


def exact_arrays(model: entropy.EntropyModel) -> dict[str, np.ndarray]:
    """The layers of the entropy model, whose weights and biases are integers, for 64-bit floats."""
    arrays = {}
    for i, (weight, bias) in enumerate(model.h_s):
        arrays |= (shuffled if i in (1, 3) else layer)(f"h_s.{2 * i}", weight.transpose(0, 1, 3, 2), bias, 4)
    weight, bias = model.context
    m = len(bias) // 2
    taps = weight.reshape(2 * m, len(entropy.TAPS), m).transpose(1, 2, 0)
    above, beside = taps[:10].reshape(2, 5, m, 2 * m), taps[10:].reshape(1, 2, m, 2 * m)
    arrays |= layer("context.above", above, bias, 4) | layer("context.beside", beside, 0 * bias, 4)
    first, second, third = ((weight.T[None, None], bias) for weight, bias in model.parameters)
    # The first layer in two: what it adds up from z is known for all positions at once.
    arrays |= layer("parameters.from_z", first[0][:, :, : 2 * m], first[1], 4)
    arrays |= layer("parameters.0", first[0][:, :, 2 * m :], 0 * first[1], 4)
    return arrays | layer("parameters.2", *second, 4) | layer("parameters.4", *third, 4)


# ---------------------------------------------------------------- scripts


def weights_script(quality: int, codec: torch.nn.Module) -> bytes:
    """A script with all that the page needs for a quality; see :func:`packed` and :func:`as_characters`.

    UTF-16 with a byte order mark, which every browser heeds whatever a server says of the encoding.
    """
    if codec.N % 8 or codec.M % 8:
        raise ValueError(f"the page's kernel wants widths that are multiples of 8, not N = {codec.N}, M = {codec.M}")
    model = entropy.entropy_model(codec)
    exact = exact_arrays(model)
    stored = tables.y_tables()
    stored |= {"z": tables.z_frequencies(codec), "medians": model.medians}
    arrays = [(name, array, "f64" if name.endswith("bias") else "f32") for name, array in exact.items()]
    for name in ("g_a", "h_a", "g_s"):
        arrays += [(part, array, "f32") for part, array in transform_arrays(name, getattr(codec, name)).items()]
    arrays += [(name, array, "table") for name, array in stored.items()]
    data = packed(arrays, {"N": codec.N, "M": codec.M, "fingerprint": model.fingerprint.hex()})
    return ("\ufeff" + f'dgmlWeights({quality}, {len(data)}, "{as_characters(data)}");\n').encode("utf-16-le")


def packed(arrays: list[tuple[str, np.ndarray, str]], metadata: dict) -> bytes:
    """gzip of a length, a JSON header and the numbers, as 16-bit words: first all lower bytes, then all upper bytes.

    The upper bytes, which hold signs and exponents, are alike: apart from the others they take two thirds of their
    size.
    A number is stored as an integer of 16 bits, in half precision or as float32, whichever is the first to be exact.
    """
    words, entries = [], []
    for name, array, use in arrays:
        array = np.ascontiguousarray(array, np.float64).ravel()
        for stored in ("<i2", "<f2", "<f4"):
            with np.errstate(over="ignore", invalid="ignore"):
                exact = array.astype(stored)
            if np.array_equal(exact.astype(np.float64), array):
                break
        else:
            raise ValueError(f"{name} is not exact in float32")
        entries.append([name, array.size, stored[1:], use])
        words.append(exact.view("<u2"))
    header = json.dumps(metadata | {"arrays": entries}).encode()
    planes = np.concatenate(words).view(np.uint8).reshape(-1, 2).T
    return gzip.compress(len(header).to_bytes(4, "little") + header + planes.tobytes(), 9, mtime=0)


def as_characters(data: bytes) -> str:
    """15 bits in each character, so 16 bits of UTF-16 carry 15: 7 % more than the bytes, where base64 takes 33 %."""
    bits = np.unpackbits(np.frombuffer(data, np.uint8))
    bits = np.pad(bits, (0, -len(bits) % 15)).reshape(-1, 15)
    return (FIRST + bits @ (1 << np.arange(14, -1, -1))).astype("<u2").tobytes().decode("utf-16-le")


def sample_script() -> str:
    """The chapters' photograph without loss; a script, since a page from disk may not read a picture's pixels."""
    images = load_images()
    picture, buffer = to_rgb(images[default_index(images)]["image"]), io.BytesIO()
    picture.save(buffer, "WEBP", lossless=True, method=6)
    return f'dgmlSample("{base64.b64encode(buffer.getvalue()).decode()}");\n'
