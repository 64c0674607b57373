"""What book/light.py does to a site that has been built."""

import sys
from types import SimpleNamespace

import numpy as np
from PIL import Image

from helpers import ROOT

sys.path.insert(0, str(ROOT / "book"))
from light import lighten


def test_a_built_site_becomes_lighter_and_shows_the_same(tmp_path):
    pixels = np.random.default_rng(0).integers(256, size=(30, 40, 3), dtype=np.uint8)
    for folder in ("_images", "notebooks", "_static/mathjax/output/chtml/fonts", "_static/mathjax/output/svg"):
        (tmp_path / folder).mkdir(parents=True)
    Image.fromarray(pixels).save(tmp_path / "_images/figure.png")
    for script in ("tex-chtml.js", "tex-svg.js", "output/chtml/fonts/a.woff", "output/svg/b.js"):
        (tmp_path / "_static/mathjax" / script).write_text("x")
    page = tmp_path / "notebooks/page.html"
    source = '<p>a &lt; b</p><img alt="A figure." src="../_images/figure.png"/><img src="../_static/logo.png"/>'
    page.write_text(source)

    lighten(SimpleNamespace(builder=SimpleNamespace(name="html"), outdir=tmp_path), None)

    with Image.open(tmp_path / "_images/figure.webp") as picture:
        assert np.array_equal(np.asarray(picture), pixels)
    assert not (tmp_path / "_images/figure.png").exists()
    text = page.read_text()
    assert 'src="../_images/figure.webp"' in text and 'width="40"' in text and 'height="30"' in text
    assert 'loading="lazy"' in text and "a &lt; b" in text and 'src="../_static/logo.png"' in text
    left = {path.name for path in (tmp_path / "_static/mathjax").rglob("*") if path.is_file()}
    assert left == {"tex-chtml.js", "a.woff"}


def test_a_failed_build_is_left_as_it_is(tmp_path):
    (tmp_path / "_images").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "_images/figure.png")
    lighten(SimpleNamespace(builder=SimpleNamespace(name="html"), outdir=tmp_path), ValueError("broken"))
    assert (tmp_path / "_images/figure.png").exists()
