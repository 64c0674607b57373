"""The codec in the page: what is not right is said in a sentence; browsers that lack something; keyboard and motion."""

import io
import struct
import zlib

import numpy as np
import pytest
from browsing import look
from codec_in_page import VECTORS, canvas, download, give, open_codec, photograph, png, settle
from PIL import Image

from dgml import bitstream
from dgml.checkpoints import load_codec
from dgml.images import to_rgb

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


def test_weights_that_do_not_come_are_told_and_asked_for_again(browser, address):
    page = open_codec(browser, address)  # of a host, since a file can't be out of reach for a while
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


def in_the_worker(script: str) -> str:
    """A script for the page that makes each of its workers begin with ``script``."""
    return f"""Object.defineProperty(window, 'Worker', {{ value: class extends Worker {{ constructor(url) {{
        const asked = new XMLHttpRequest(); asked.open('GET', url, false); asked.send()
        super(URL.createObjectURL(new Blob(['{script};' + asked.responseText])))
    }} }} }})"""


def test_without_webassembly_the_page_does_the_same(browser, site):
    page = open_codec(browser, site.as_uri(), in_the_worker("delete self.WebAssembly"))
    assert give(page, "q6.dgml", (VECTORS / "q6.dgml").read_bytes()) == "done"
    assert "JavaScript" in page.inner_text("#codec-engine")
    decoded = bitstream.decode(load_codec(6, "bundled"), (VECTORS / "q6.dgml").read_bytes())
    assert np.abs(canvas(page) - np.asarray(decoded)).max() <= 1
    assert give(page, "small.png", png(photograph("astronaut").crop((0, 0, 70, 50)))) == "done"
    bitstream.decode(load_codec(6, "bundled"), download(page, "#codec-file"))
    page.close()


def test_a_stage_that_takes_no_time_is_listed(browser, site):
    """A browser may round its clock to 100 ms."""
    page = open_codec(browser, site.as_uri(), in_the_worker("performance.now = () => 0"))
    assert give(page, "q1.dgml", (VECTORS / "q1.dgml").read_bytes()) == "done"
    assert page.inner_text("#codec-times tbody").split("\n") == ["entropy decoding\t0", "g_s\t0"]
    page.close()


def test_a_canvas_of_noise_is_noticed_and_files_still_decode(browser, site):
    noise = "const read = CanvasRenderingContext2D.prototype.getImageData; CanvasRenderingContext2D.prototype.getImageData = function (...a) { const i = read.apply(this, a); i.data.forEach((v, k) => { i.data[k] = Math.random() * 256 }); return i }"
    page = open_codec(browser, site.as_uri(), noise)
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
    page = open_codec(browser, site.as_uri(), count, reduced_motion=motion)
    data = bitstream.encode(load_codec(4, "bundled"), photograph("chelsea"), 4)
    assert give(page, "chelsea.dgml", data) == "done"
    assert (page.evaluate("painted") > 0) == (motion == "no-preference")
    whole = canvas(page, "#codec-map")
    assert whole.shape == (-(-300 // 16) * 16, -(-451 // 16) * 16, 3)
    page.click("#codec-replay")
    page.wait_for_function("document.querySelector('#codec-replay').textContent === 'Watch the wavefront'")
    assert np.array_equal(canvas(page, "#codec-map"), whole)
    page.close()


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


def test_with_a_result_the_page_is_accessible_and_no_wider_than_a_phone(browser, site):
    from axe_playwright_python.sync_playwright import Axe

    page = open_codec(browser, site.as_uri())
    page.click("#codec-sample")
    assert settle(page) == "done"
    for theme in ("light", "dark"):
        look(page, theme, 390)
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
        found = Axe().run(page, context=".codec", options={"preload": False}).response["violations"]
        assert [(violation["id"], node["html"][:120]) for violation in found for node in violation["nodes"]] == []
    page.close()
