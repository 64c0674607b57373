"""The golden files of tests/vectors: they decode to the integers and to the picture that were written beside them."""

import json

import numpy as np
import pytest
from make_vectors import BOX, FOLDER, trace, write
from PIL import Image

from dgml import bitstream, container
from dgml.checkpoints import load_codec
from dgml.picture_sets import load_images
from dgml.settings import QUALITIES

REMEDY = "changed: the format, or the checkpoints (then: make vectors)"


@pytest.mark.parametrize("quality", QUALITIES)
def test_a_golden_file_decodes_to_its_integers(quality):
    data = (FOLDER / f"q{quality}.dgml").read_bytes()
    expected = json.loads((FOLDER / f"q{quality}.json").read_text())
    header = container.read(data)
    assert (header.width, header.height, header.quality) == (96, 80, quality)
    found = trace(load_codec(quality, "bundled"), data)
    different = [name for name in expected if found[name] != expected[name]]
    assert not different, f"{different} {REMEDY}"


@pytest.mark.parametrize("quality", QUALITIES)
def test_a_golden_file_decodes_to_its_picture(quality):
    """To one level of 255, since g_s is computed in floating point."""
    picture = bitstream.decode(load_codec(quality, "bundled"), (FOLDER / f"q{quality}.dgml").read_bytes())
    expected = Image.open(FOLDER / f"q{quality}.png")
    assert (expected.mode, expected.size, picture.size) == ("RGB", (96, 80), (96, 80))
    apart = np.abs(np.asarray(picture, int) - np.asarray(expected, int))
    assert apart.max() <= 1 and (apart > 0).mean() < 1e-3, f"the picture {REMEDY}"


def test_the_tool_writes_what_it_says(tmp_path):
    write(tmp_path, 1)
    assert {file.name for file in tmp_path.iterdir()} == {"q1.dgml", "q1.json", "q1.png"}
    codec, data = load_codec(1, "bundled"), (tmp_path / "q1.dgml").read_bytes()
    assert json.loads((tmp_path / "q1.json").read_text()) == trace(codec, data)
    decoded = np.asarray(Image.open(tmp_path / "q1.png"), int)
    assert np.array_equal(decoded, np.asarray(bitstream.decode(codec, data)))
    original = np.asarray(load_images("bundled")[0]["image"].convert("RGB").crop(BOX), int)
    assert np.abs(decoded - original).mean() < 25  # it is the photograph, the right way up
