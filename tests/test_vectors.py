"""The golden files of tests/vectors: they decode to the integers that were written beside them."""

import json

import pytest
from make_vectors import FOLDER, trace

import bitstream
from helpers import QUALITIES, load_codec


@pytest.mark.parametrize("quality", QUALITIES)
def test_a_golden_file_decodes_to_its_integers(quality):
    data = (FOLDER / f"q{quality}.dgml").read_bytes()
    expected = json.loads((FOLDER / f"q{quality}.json").read_text())
    header = bitstream.read(data)
    assert (header.width, header.height, header.quality) == (96, 80, quality)
    codec = load_codec(quality, "bundled")
    found = trace(codec, data)
    different = [name for name in expected if found[name] != expected[name]]
    assert not different, f"{different} changed: the format, or the checkpoints (then: make vectors)"
    assert bitstream.decode(codec, data).size == (96, 80)
