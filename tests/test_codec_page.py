"""The codec in the page, in a real browser: its integers, its words, its files and its map are those of Python."""

import base64
import io
import json

import codec_page
import constriction
import numpy as np
import pytest
from codec_in_page import TRACE, VECTORS, canvas, download, give, photograph, png, random_codec, settle, trace
from PIL import Image

from dgml import bitstream, container, entropy, tables
from dgml.checkpoints import load_codec
from dgml.images import to_rgb
from dgml.picture_sets import load_images
from dgml.settings import QUALITIES


@pytest.mark.parametrize("quality", QUALITIES)
def test_a_golden_file_decodes_to_its_integers(quality, local):
    expected = json.loads((VECTORS / f"q{quality}.json").read_text())
    for fast in (True, False):  # the kernel, and its twin in JavaScript
        found = trace(local, quality, (VECTORS / f"q{quality}.dgml").read_bytes(), fast)
        assert found.pop("fast") == fast
        assert [name for name in found if found[name] != expected[name]] == []


@pytest.mark.parametrize("widths", [(8, 16), (16, 40), (32, 128)])
def test_a_codec_of_any_widths_decodes_to_the_same_integers(widths, local):
    """Also where 10M/3 and 8M/3 fill no whole vector."""
    codec = random_codec(*widths)
    picture = photograph("astronaut").crop((0, 0, 130, 66))
    data = bitstream.encode(codec, picture, 3)
    script = codec_page.weights_script(3, codec).decode("utf-16").replace("dgmlWeights(3", "dgmlWeights(9")
    local.add_script_tag(content=script)
    y_hat = entropy.decode_latents(entropy.entropy_model(codec), container.read(data))
    assert len(np.unique(y_hat)) > 10
    assert trace(local, 9, data)["y_hat"] == y_hat.ravel().tolist()


def test_the_coder_writes_the_words_of_constriction(local):
    """Tables that are as uneven as can be, so that carries run over several words and quotients lie next to borders."""
    rng = np.random.default_rng(1)
    rows = []
    for n in (2, 3, 255, 1023):
        for sharpness in (1, 8, 60):
            weights = rng.random(n) ** sharpness + 1e-9
            rows.append(tables.to_frequencies((weights / weights.sum())[None])[0])
    rows += [np.array([1, 2**24 - 1]), np.array([2**24 - 1, 1]), np.array([2**23, 2**23])]
    cases = []
    for length in (*range(1, 40), *(400,) * 40):
        used = rng.integers(len(rows), size=length)
        cases.append([(int(t), int(rng.integers(len(rows[t])))) for t in used])
        cases.append([(int(t), int(rows[t].argmax())) for t in used])  # and likely ones, whose words come slowly
    found = local.evaluate(
        """([tables, cases]) => {
          const lefts = tables.map((table) => { let sum = 0; return [0, ...table.map((f) => (sum += f))] })
          return cases.map((symbols) => {
            const { code, finish } = dgmlCoder().encoder()
            for (const [table, s] of symbols) code(lefts[table], s)
            const words = finish(), next = dgmlCoder().decoder(words)
            return [[...words], symbols.map(([table]) => next(lefts[table]))]
          })
        }""",
        [[row.tolist() for row in rows], cases],
    )
    models = [tables.categorical(row) for row in rows]
    for symbols, (words, decoded) in zip(cases, found):
        encoder = constriction.stream.queue.RangeEncoder()
        for table, symbol in symbols:
            encoder.encode(np.array([symbol], np.int32), models[table])
        assert words == encoder.get_compressed().tolist()
        assert decoded == [symbol for _, symbol in symbols]


@pytest.mark.parametrize("name, quality", [("astronaut", 3), ("coffee", 6), ("chelsea", 1)])
def test_a_file_of_the_page_decodes_in_python(name, quality, anywhere):
    page = anywhere
    picture = photograph(name)
    page.select_option("#codec-quality", str(quality))
    assert give(page, f"{name}.png", png(picture)) == "done"
    data = download(page, "#codec-file")
    codec = load_codec(quality, "bundled")
    header = container.read(data)
    assert (header.width, header.height, header.quality) == (*picture.size, quality)
    decoded = np.asarray(bitstream.decode(codec, data)).astype(int)  # which compares the checksum of the latents
    shown = canvas(page)
    assert np.abs(shown - decoded).max() <= 1 and (shown != decoded).mean() < 1e-3
    assert np.array_equal(canvas(page, "#codec-original"), np.asarray(picture))
    with Image.open(io.BytesIO(download(page, "#codec-png"))) as saved:
        assert np.array_equal(np.asarray(saved.convert("RGB")), shown)
    # As small as Python's: a latent on a rounding edge may fall to the other side.
    assert abs(len(data) - len(bitstream.encode(codec, picture, quality))) <= 0.001 * len(data) + 4
    db = 10 * np.log10(255**2 / ((np.asarray(picture) - shown) ** 2).mean())
    rate = 8 * len(data) / (picture.width * picture.height)
    assert page.inner_text("#codec-facts") == f"{len(data)} bytes, {rate:.4f} bpp, {db:.2f} dB"


@pytest.mark.parametrize("name, quality", [("astronaut", 6), ("coffee", 2), ("chelsea", 4)])
def test_a_file_of_python_decodes_in_the_page(name, quality, anywhere):
    page = anywhere
    codec, picture = load_codec(quality, "bundled"), photograph(name)
    data = bitstream.encode(codec, picture, quality)
    assert give(page, f"{name}.dgml", data) == "done"
    assert np.abs(canvas(page) - np.asarray(bitstream.decode(codec, data))).max() <= 1
    assert page.input_value("#codec-quality") == str(quality)
    assert download(page, "#codec-file") == data
    assert f"{container.read(data).checksum:08x}" in page.inner_text("#codec-more")
    assert not page.locator("#codec-original").is_visible()
    weights = [url for url in page.asked if "/_static/codec/q" in url]
    assert len(weights) == 1 and weights[0].endswith(f"q{quality}.js")


def test_the_sample_is_the_chapters_photograph_and_another_quality_encodes_it_anew(local):
    assert not any("/q" in url or "sample" in url for url in local.asked if "_static/codec" in url)
    local.click("#codec-sample")
    assert settle(local) == "done"
    expected = to_rgb(load_images("bundled")[0]["image"])
    assert np.array_equal(canvas(local, "#codec-original"), np.asarray(expected))
    first = download(local, "#codec-file")
    local.select_option("#codec-quality", "1")
    assert settle(local) == "done"
    second = download(local, "#codec-file")
    assert container.read(first).quality == 3 and container.read(second).quality == 1 and len(second) < len(first)


def test_the_map_adds_up_to_the_file(local):
    """The bits of all positions and of z are the length of the stream, but for the coder's last word or two."""
    found = local.evaluate(TRACE.replace("return { fast", "return { side: found.sideBits, fast"), {
        "quality": 6, "file": base64.b64encode((VECTORS / "q6.dgml").read_bytes()).decode(), "fast": True})  # fmt: skip
    stored = tables.y_tables()
    symbols = (np.array(found["y_hat"]) - np.array(found["means"])) / tables.ONE
    rows = np.searchsorted(stored["thresholds"], found["scales"], side="right")
    bits = 24 - np.log2(stored["frequencies"][rows, np.abs(symbols).astype(int)])
    stream = 8 * ((VECTORS / "q6.dgml").stat().st_size - 22)
    assert 0 <= stream - bits.sum() - found["side"] <= 64
