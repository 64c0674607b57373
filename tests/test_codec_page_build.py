"""What the book's build writes for the codec in the page: kernel, characters, packed numbers."""

import gzip
import json

import codec_page
import numpy as np
import pytest
from codec_in_page import random_codec


def test_the_kernel_is_a_module_that_imports_memory_alone():
    wasmtime = pytest.importorskip("wasmtime")
    module = wasmtime.Module(wasmtime.Engine(), codec_page.assemble())
    assert [imported.name for imported in module.imports] == ["memory"]
    assert [exported.name for exported in module.exports] == ["f32", "f64"]
    left = {word for word in ("FLOAT", "VECTOR", "SPLAT", "W0", "BYTES") if word in codec_page.kernel_text()}
    assert left == set() and len(codec_page.assemble()) < 4096


def test_characters_carry_all_bits_and_no_surrogates():
    data = np.random.default_rng(0).bytes(1001)
    text = codec_page.as_characters(data)
    bits = "".join(f"{ord(character) - codec_page.FIRST:015b}" for character in text)
    assert int(bits[: 8 * len(data)], 2).to_bytes(len(data), "big") == data
    assert all(0x5000 <= ord(character) < 0xD000 for character in text)
    assert len(text.encode("utf-16-le")) < 1.07 * len(data)


def test_numbers_are_packed_without_loss():
    arrays = [
        ("a.weight", np.array([-32768, 5, 32767]), "f32"),
        ("b.weight", np.array([0.1]).astype("f2"), "f32"),
        ("c.bias", np.array([2.0**31, 3.0]), "f64"),
    ]
    data = gzip.decompress(codec_page.packed(arrays, {"N": 8}))
    size = int.from_bytes(data[:4], "little")
    header = json.loads(data[4 : 4 + size])
    assert [entry[2] for entry in header["arrays"]] == ["i2", "f2", "f4"] and header["N"] == 8
    words = np.frombuffer(data[4 + size :], np.uint8).reshape(2, -1).T.tobytes()
    assert words == b"".join(a.astype(stored).tobytes() for (_, a, _), stored in zip(arrays, ("<i2", "<f2", "<f4")))
    with pytest.raises(ValueError, match="not exact"):
        codec_page.packed([("d.weight", np.array([0.1]), "f32")], {})


def test_widths_that_the_kernel_does_not_take_are_refused():
    with pytest.raises(ValueError, match="multiples of 8"):
        codec_page.weights_script(3, random_codec(8, 12))


def test_before_any_weights_little_is_loaded(site):
    scripts = [path for path in (site / "_static" / "codec").iterdir() if path.name[0] != "q"]
    assert sum(path.stat().st_size for path in scripts if path.name != "sample.js") < 100_000
