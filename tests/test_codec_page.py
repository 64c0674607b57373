"""The codec in the page: kernel and scripts, and in a real browser its integers, files, pictures, errors, manners."""

import base64
import gzip
import io
import json
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import codec_page
import constriction
import numpy as np
import pytest
import torch
from PIL import Image

from dgml import bitstream, container, entropy, tables
from dgml.checkpoints import load_codec
from dgml.images import to_rgb
from dgml.model import DeepAnchor
from dgml.picture_sets import load_images
from dgml.settings import QUALITIES, ROOT

pytestmark = pytest.mark.xdist_group("codec")
VECTORS = ROOT / "tests" / "vectors"
PICTURES = {"astronaut": (0, (100, 20, 356, 220)), "coffee": (1, (0, 0, 230, 300)), "chelsea": (2, None)}
CONFIG = """
title: codec
only_build_toc_files: true
execute: {execute_notebooks: "off"}
sphinx:
  local_extensions: {codec_page: tools}
  config: {html_static_path: [book/_static], html_css_files: [custom.css], suppress_warnings: [myst.xref_missing]}
"""
# The integers of a file, found in the page itself and not in its worker, each array as (channel, row, column).
TRACE = """async ({ quality, file, fast }) => {
  const bytes = (base64) => Uint8Array.from(atob(base64), (c) => c.charCodeAt(0))
  if (!dgmlPage.loaded[quality]) await dgmlPage.load(`q${quality}.js`)
  const { text, length } = dgmlPage.loaded[quality]
  const engine = dgmlEngine(fast ? bytes(dgmlBuilt.kernel) : null)
  const model = await dgmlModel(engine, text, length), coder = dgmlCoder()
  const header = coder.read(bytes(file)), places = []
  const found = dgmlCodec(engine, model, coder).latents(header, { trace: (...place) => places.push(place) })
  const flat = (x, c) => Array.from({ length: c }, (_, i) => [...engine.plane(x, i)]).flat()
  const { h, w } = found.y, M = model.M, scales = Array(M * h * w), means = Array(M * h * w)
  for (const [row, column, both] of places)
    for (let c = 0; c < M; c++) [scales, means].forEach((all, i) => { all[(c * h + row) * w + column] = both[i * M + c] })
  return { fast: engine.fast, fingerprint: model.fingerprint, z_hat: flat(found.zHat, model.N),
           hyper: flat(found.hyper, 2 * M), scales, means, y_hat: flat(found.y, M) }
}"""


# ---------------------------------------------------------------- what is written when the book is built


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


def random_codec(n: int, m: int) -> DeepAnchor:
    """Untrained, with weights in half precision and latents that are not all zero."""
    torch.manual_seed(0)
    codec = DeepAnchor(n, m)
    with torch.no_grad():
        codec.g_a[-1].weight *= 30
        for parameter in codec.parameters():
            parameter.copy_(parameter.half().float())
    codec.update()
    return codec.eval()


def test_widths_that_the_kernel_does_not_take_are_refused():
    with pytest.raises(ValueError, match="multiples of 8"):
        codec_page.weights_script(3, random_codec(8, 12))


# ---------------------------------------------------------------- in the browser


@pytest.fixture(scope="module")
def site(tmp_path_factory, browser):
    """The page alone, built from the tree; not without a browser to show it."""
    folder = tmp_path_factory.mktemp("codec")
    (folder / "_config.yml").write_text(CONFIG)
    (folder / "_toc.yml").write_text("format: jb-book\nroot: book/codec\n")
    (folder / "tools").symlink_to(ROOT / "tools")
    ignored = shutil.ignore_patterns("run", "__pycache__")
    shutil.copytree(ROOT / "book" / "_static", folder / "book" / "_static", ignore=ignored)
    shutil.copy(ROOT / "book" / "codec.md", folder / "book")
    command = [Path(sys.executable).with_name("jupyter-book"), "build", folder]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout[-2000:] + built.stderr[-2000:]
    return folder / "_build" / "html"


@pytest.fixture(scope="module", params=["file", "http"])
def address(request, site, serve):
    """The page from disk, and from a host that calls every script UTF-8, as the large ones do."""
    if request.param == "file":
        return site.as_uri()
    return serve(site, {".js": "text/javascript; charset=utf-8"})


def open_page(browser, address: str, script: str = "", **options):
    """The page, and a list of all that it asked for and of the errors that it reported."""
    page = browser.new_page(**({"viewport": {"width": 1280, "height": 900}} | options))
    page.set_default_timeout(180_000)  # a busy machine is no fault of the page
    page.asked, page.errors = [], []
    page.on("request", lambda request: page.asked.append(request.url))
    # The theme declares THEBE_JS_URL twice on a page; that is not ours.
    page.on("pageerror", lambda error: page.errors.append(str(error)) if "THEBE" not in str(error) else None)
    page.on("requestfailed", lambda request: page.errors.append(request.url))
    if script:
        page.add_init_script(script)
    page.goto(f"{address}/book/codec.html", wait_until="load")
    return page


@pytest.fixture
def page(browser, address):
    page = open_page(browser, address)
    yield page
    strangers = [url for url in page.asked if not url.startswith((address, "data:", "blob:"))]
    assert page.errors == [] and strangers == []
    page.close()


@pytest.fixture
def local(browser, site):
    """The page from disk, once, for what does not depend on where it comes from."""
    page = open_page(browser, site.as_uri())
    yield page
    assert page.errors == []
    page.close()


def settle(page) -> str:
    """The state in which a job ends."""
    page.wait_for_selector("#codec-status[data-state=done], #codec-status[data-state=error]")
    return page.get_attribute("#codec-status", "data-state")


def give(page, name: str, data: bytes) -> str:
    """Choose a file of this name and content, and wait for the end."""
    page.set_input_files("#codec-input", {"name": name, "mimeType": "application/octet-stream", "buffer": data})
    return settle(page)


def download(page, link: str) -> bytes:
    """What a link of the page saves."""
    with page.expect_download() as waiting:
        page.click(link)
    return Path(waiting.value.path()).read_bytes()


def canvas(page, selector: str = "#codec-decoded") -> np.ndarray:
    """The pixels (H, W, 3) of a canvas; it has to be opaque."""
    width, height, data = page.eval_on_selector(
        selector,
        """c => { const { width, height } = c
          const { data } = c.getContext('2d').getImageData(0, 0, width, height)
          let text = ''
          for (let i = 0; i < data.length; i += 30000) text += String.fromCharCode(...data.subarray(i, i + 30000))
          return [width, height, btoa(text)] }""",
    )
    pixels = np.frombuffer(base64.b64decode(data), np.uint8).reshape(height, width, 4)
    assert (pixels[..., 3] == 255).all()
    return pixels[..., :3].astype(int)


def png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def photograph(name: str) -> Image.Image:
    index, box = PICTURES[name]
    picture = to_rgb(load_images("bundled")[index]["image"])
    return picture.crop(box) if box else picture


def trace(page, quality: int, data: bytes, fast: bool = True) -> dict:
    return page.evaluate(TRACE, {"quality": quality, "file": base64.b64encode(data).decode(), "fast": fast})


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
    tables = []
    for n in (2, 3, 255, 1023):
        for sharpness in (1, 8, 60):
            weights = rng.random(n) ** sharpness + 1e-9
            tables.append(tables.to_frequencies((weights / weights.sum())[None])[0])
    tables += [np.array([1, 2**24 - 1]), np.array([2**24 - 1, 1]), np.array([2**23, 2**23])]
    cases = []
    for length in (*range(1, 40), *(400,) * 40):
        used = rng.integers(len(tables), size=length)
        cases.append([(int(t), int(rng.integers(len(tables[t])))) for t in used])
        cases.append([(int(t), int(tables[t].argmax())) for t in used])  # and likely ones, whose words come slowly
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
        [[table.tolist() for table in tables], cases],
    )
    models = [tables.categorical(table) for table in tables]
    for symbols, (words, decoded) in zip(cases, found):
        encoder = constriction.stream.queue.RangeEncoder()
        for table, symbol in symbols:
            encoder.encode(np.array([symbol], np.int32), models[table])
        assert words == encoder.get_compressed().tolist()
        assert decoded == [symbol for _, symbol in symbols]


@pytest.mark.parametrize("name, quality", [("astronaut", 3), ("coffee", 6), ("chelsea", 1)])
def test_a_file_of_the_page_decodes_in_python(name, quality, page):
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
def test_a_file_of_python_decodes_in_the_page(name, quality, page):
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


def test_before_any_weights_little_is_loaded(site):
    scripts = [path for path in (site / "_static" / "codec").iterdir() if path.name[0] != "q"]
    assert sum(path.stat().st_size for path in scripts if path.name != "sample.js") < 100_000


# ---------------------------------------------------------------- files and pictures that are not right


def damaged() -> dict[str, tuple[bytes, str]]:
    """Files that no decoder accepts, and what the page has to say of each."""
    good = (VECTORS / "q3.dgml").read_bytes()

    def signed(start: bytes, stream: bytes = good[22:]) -> bytes:
        return start + struct.pack("<I", zlib.crc32(start + stream)) + stream

    flipped = bytearray(good)
    flipped[-1] ^= 1
    return {
        "a flipped bit": (bytes(flipped), "damaged"),
        "cut in the stream": (good[:-8], "damaged or cut short"),
        "cut in the header": (good[:15], "cut short: 15 bytes"),
        "version 2": (signed(good[:4] + b"\x02" + good[5:18]), "version 2"),
        "other weights": (signed(good[:10] + b"abcd" + good[14:18]), "other weights"),
        "a wrong checksum of the latents": (signed(good[:14] + b"abcd"), "not those that were encoded"),
        "a stream of ones": (signed(good[:18], b"\xff" * len(good[22:])), "damaged"),
        "no stream": (signed(good[:18], b""), "not those that were encoded"),
        "no pixels": (signed(good[:6] + bytes(4) + good[10:18]), "0x0 pixels"),
        "65535x65535 pixels": (signed(good[:6] + b"\xff" * 4 + good[10:18]), "65535x65535 pixels"),
        "8000x8000 pixels": (signed(good[:6] + struct.pack("<HH", 8000, 8000) + good[10:18]), "too many for this page"),
        "text": (b"this is no picture", "neither a .dgml file nor a picture"),
        "nothing": (b"", "neither a .dgml file nor a picture"),
        "half a JPEG": (b"\xff\xd8\xff\xe0" + bytes(100), "neither a .dgml file nor a picture"),
    }


def test_what_is_not_right_is_told_in_a_sentence_and_the_page_goes_on(local):
    for name, (data, told) in damaged().items():
        assert give(local, "file.dgml", data) == "error", name
        sentence = local.inner_text("#codec-status")
        assert told in sentence and sentence.endswith(".") and len(sentence) < 200, (name, sentence)
        assert not local.locator("#codec-results").is_visible()
    assert give(local, "good.dgml", (VECTORS / "q3.dgml").read_bytes()) == "done"
    assert local.locator("#codec-decoded").is_visible()


def test_random_damage_gives_an_error_or_the_same_picture(local):
    """Streams of noise under a good checksum: refused, by the coder or by the checksum of the latents."""
    good, rng = (VECTORS / "q1.dgml").read_bytes(), np.random.default_rng(0)
    files = [good[:18] + struct.pack("<I", zlib.crc32(good[:18] + s)) + s for s in map(rng.bytes, (4, 40, 240, 4000))]
    for data in files:
        assert give(local, "noise.dgml", data) == "error"
        assert "damaged" in local.inner_text("#codec-status")


def test_weights_that_do_not_come_are_told_and_asked_for_again(browser, site, address):
    if address.startswith("file"):
        pytest.skip("a file can't be out of reach for a while")
    page = open_page(browser, address)
    page.route("**/q2.js", lambda route: route.abort())
    assert give(page, "q2.dgml", (VECTORS / "q2.dgml").read_bytes()) == "error"
    assert "could not be loaded" in page.inner_text("#codec-status")
    page.unroute("**/q2.js")
    assert give(page, "q2.dgml", (VECTORS / "q2.dgml").read_bytes()) == "done"
    page.close()


def test_pictures_of_other_kinds_are_read_as_in_python(local):
    noise = np.random.default_rng(0).integers(256, size=(5, 7, 4), dtype=np.uint8)
    noise[..., 3] = np.where(noise[..., 3] > 128, 255, 0)
    turned = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    photograph("astronaut").crop((0, 0, 40, 20)).save(turned, "PNG", exif=exif)
    for data in (
        png(Image.new("RGB", (1, 1), (10, 200, 30))),
        png(Image.fromarray(noise[..., 0])),
        png(Image.fromarray(noise)),
        turned.getvalue(),
    ):
        assert give(local, "picture.png", data) == "done"
        with Image.open(io.BytesIO(data)) as picture:
            assert np.array_equal(canvas(local, "#codec-original"), np.asarray(to_rgb(picture)))


def test_a_photograph_of_more_than_a_megapixel_is_scaled_and_the_page_says_so(local):
    large = photograph("coffee").resize((1500, 1000))
    local.select_option("#codec-quality", "1")
    assert give(local, "large.png", png(large)) == "done"
    shown = canvas(local)
    assert shown.shape[0] * shown.shape[1] <= 2**20 < 1.01 * shown.shape[0] * shown.shape[1]
    assert "1500x1000" in local.inner_text("#codec-more") and "scaled" in local.inner_text("#codec-more")
    wanted = np.asarray(large.resize(shown.shape[1::-1], Image.Resampling.BICUBIC)).astype(float)
    assert 10 * np.log10(255**2 / ((wanted - shown) ** 2).mean()) > 22


def test_a_later_choice_wins(local):
    local.evaluate("() => { for (const q of [3, 1, 2]) dgmlPage.load(`q${q}.js`) }")
    local.click("#codec-sample")
    for quality in "612":
        local.select_option("#codec-quality", quality)
    data = (VECTORS / "q5.dgml").read_bytes()
    assert give(local, "q5.dgml", data) == "done"
    local.wait_for_timeout(3000)
    assert canvas(local).shape == (80, 96, 3) and local.inner_text("#codec-facts").startswith(f"{len(data)} bytes")


# ---------------------------------------------------------------- browsers that lack something


def test_without_webassembly_the_page_does_the_same(browser, site):
    page = open_page(
        browser,
        site.as_uri(),
        "Object.defineProperty(window, 'Worker', { value: class extends Worker { constructor(url) { const x = new XMLHttpRequest(); x.open('GET', url, false); x.send(); super(URL.createObjectURL(new Blob(['delete self.WebAssembly;' + x.responseText]))) } } })",
    )
    assert give(page, "q6.dgml", (VECTORS / "q6.dgml").read_bytes()) == "done"
    assert "JavaScript" in page.inner_text("#codec-engine")
    decoded = bitstream.decode(load_codec(6, "bundled"), (VECTORS / "q6.dgml").read_bytes())
    assert np.abs(canvas(page) - np.asarray(decoded)).max() <= 1
    assert give(page, "small.png", png(photograph("astronaut").crop((0, 0, 70, 50)))) == "done"
    bitstream.decode(load_codec(6, "bundled"), download(page, "#codec-file"))
    page.close()


def test_a_canvas_of_noise_is_noticed_and_files_still_decode(browser, site):
    noise = "const read = CanvasRenderingContext2D.prototype.getImageData; CanvasRenderingContext2D.prototype.getImageData = function (...a) { const i = read.apply(this, a); i.data.forEach((v, k) => { i.data[k] = Math.random() * 256 }); return i }"
    page = open_page(browser, site.as_uri(), noise)
    assert give(page, "photograph.png", png(photograph("astronaut"))) == "error"
    assert "resistFingerprinting" in page.inner_text("#codec-status")
    assert give(page, "q3.dgml", (VECTORS / "q3.dgml").read_bytes()) == "done"
    assert page.locator("#codec-file").is_visible() and not page.locator("#codec-png").is_visible()
    page.close()


def test_without_scripts_the_page_says_what_is_missing(browser, site):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{site.as_uri()}/book/codec.html")
    assert "JavaScript, which is off" in page.inner_text(".codec noscript") and page.is_disabled("#codec-input")
    context.close()


# ---------------------------------------------------------------- manners


@pytest.mark.parametrize("motion", ["no-preference", "reduce"])
def test_the_wavefront_is_seen_while_a_file_decodes_unless_motion_is_unwanted(motion, browser, site):
    count = "const d = CanvasRenderingContext2D.prototype.drawImage; window.painted = 0; CanvasRenderingContext2D.prototype.drawImage = function (...a) { painted += this.canvas.id === 'codec-decoded'; return d.apply(this, a) }"
    page = open_page(browser, site.as_uri(), count, reduced_motion=motion)
    data = bitstream.encode(load_codec(4, "bundled"), photograph("chelsea"), 4)
    assert give(page, "chelsea.dgml", data) == "done"
    assert (page.evaluate("painted") > 0) == (motion == "no-preference")
    whole = canvas(page, "#codec-map")
    assert whole.shape == (-(-300 // 16) * 16, -(-451 // 16) * 16, 3)
    page.click("#codec-replay")
    page.wait_for_function("document.querySelector('#codec-replay').textContent === 'Watch the wavefront'")
    assert np.array_equal(canvas(page, "#codec-map"), whole)
    page.close()


def test_the_map_adds_up_to_the_file(local):
    """The bits of all positions and of z are the length of the stream, but for the coder's last word or two."""
    found = local.evaluate(TRACE.replace("return { fast", "return { side: found.sideBits, fast"), {
        "quality": 6, "file": base64.b64encode((VECTORS / "q6.dgml").read_bytes()).decode(), "fast": True})  # fmt: skip
    tables = tables.y_tables()
    symbols = (np.array(found["y_hat"]) - np.array(found["means"])) / tables.ONE
    rows = np.searchsorted(tables["thresholds"], found["scales"], side="right")
    bits = 24 - np.log2(tables["frequencies"][rows, np.abs(symbols).astype(int)])
    stream = 8 * ((VECTORS / "q6.dgml").stat().st_size - 22)
    assert 0 <= stream - bits.sum() - found["side"] <= 64


def test_the_keyboard_alone_goes_all_the_way(local):
    local.focus("#codec-input")
    for wanted in ("codec-quality", "codec-sample"):
        local.keyboard.press("Tab")
        assert local.evaluate("document.activeElement.id") == wanted
    local.keyboard.press("Enter")
    assert settle(local) == "done"
    seen = []
    for _ in range(6):
        local.keyboard.press("Tab")
        seen.append(local.evaluate("document.activeElement.id"))
    assert [i for i in seen if i.startswith("codec")] == ["codec-slider", "codec-file", "codec-png", "codec-replay"]
    local.focus("#codec-slider")
    local.keyboard.down("ArrowRight")
    local.wait_for_function("document.querySelector('#codec-slider').value > 52")
    local.keyboard.up("ArrowRight")
    assert local.get_attribute("#codec-status", "role") == "status"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_with_a_result_the_page_is_accessible_and_no_wider_than_a_phone(theme, browser, site):
    from axe_playwright_python.sync_playwright import Axe

    page = open_page(browser, site.as_uri(), viewport={"width": 390, "height": 900}, color_scheme=theme)
    page.click("#codec-sample")
    assert settle(page) == "done"
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    found = Axe().run(page, context=".codec", options={"preload": False}).response["violations"]
    assert [(violation["id"], node["html"][:120]) for violation in found for node in violation["nodes"]] == []
    page.close()
