"""What the extensions make of a site: light.py a lighter one, gallery.py dark figures, explore.py its parts."""

from types import SimpleNamespace

import explore
import nbformat
import numpy as np
import pytest
from drawings import PAPER
from gallery import turned
from light import lighten
from PIL import Image


def test_a_built_site_becomes_lighter_and_shows_the_same(tmp_path):
    pixels = np.random.default_rng(0).integers(256, size=(30, 40, 3), dtype=np.uint8)
    for folder in (
        "_images",
        "_sources",
        "notebooks",
        "_static/mathjax/output/chtml/fonts",
        "_static/mathjax/output/svg",
    ):
        (tmp_path / folder).mkdir(parents=True)
    Image.fromarray(pixels).save(tmp_path / "_images/figure.png")
    (tmp_path / "_static/scripts").mkdir()
    (tmp_path / "_static/scripts/fontawesome.js").write_text(
        'x={bars:[448,512,["navicon"],"f0c9","M0 96"],xmark:[1,1,[],"f00d","M1"]}'
    )
    for script in ("tex-chtml.js", "tex-svg.js", "output/chtml/fonts/a.woff", "output/svg/b.js"):
        (tmp_path / "_static/mathjax" / script).write_text("x")
    nbformat.write(run_notebook(), tmp_path / "_sources/page.ipynb")
    page = tmp_path / "notebooks/page.html"
    source = '<link rel="stylesheet" href="../_static/custom.css?v=1"/><script src="../_static/scripts/fontawesome.js"></script><i class="fa-solid fa-bars"></i>'
    source += '<code class="literal"><span class="pre">results/&lt;set&gt;_bundled.json</span></code>'
    source += '<p>a &lt; b</p><img alt="A figure." src="../_images/figure.png"/><img src="../_static/logo.png"/>'
    page.write_text(source)

    lighten(SimpleNamespace(builder=SimpleNamespace(name="html"), outdir=tmp_path), None)

    with Image.open(tmp_path / "_images/figure.webp") as picture:
        assert np.array_equal(np.asarray(picture), pixels)
    assert not (tmp_path / "_images/figure.png").exists()
    text = page.read_text()
    assert 'src="../_images/figure.webp"' in text and 'width="40"' in text and 'height="30"' in text
    assert 'loading="lazy"' in text and "a &lt; b" in text and 'src="../_static/logo.png"' in text
    assert "results/&lt;set&gt;_<wbr/>bundled.<wbr/>json<" in text
    icons = (tmp_path / "_static/icons.css").read_text()
    assert "fontawesome" not in text and "../_static/icons.css" in text and not list(tmp_path.rglob("fontawesome.js"))
    assert ".fa-bars{" in icons and "M0 96" in icons and ".fa-xmark{" in icons
    left = {path.name for path in (tmp_path / "_static/mathjax").rglob("*") if path.is_file()}
    assert left == {"tex-chtml.js", "a.woff"}
    (cell,) = nbformat.read(tmp_path / "_sources/page.ipynb", as_version=4).cells
    assert cell.source == "print(1)" and cell.outputs == [] and cell.execution_count is None


def run_notebook():
    v4 = nbformat.v4
    return v4.new_notebook(
        cells=[v4.new_code_cell("print(1)", execution_count=1, outputs=[v4.new_output("stream", text="1")])]
    )


def test_a_small_figure_goes_dark_around_its_pictures():
    figure = Image.new("RGB", (80, 40), "white")
    figure.paste((200, 0, 0), (30, 20, 60, 25))  # half of it inside of the picture
    svg = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 40 20"><image transform="matrix(5 0 0 5 5 5)" width="3" height="2"/></svg>'
    dark = turned(figure, svg)
    assert dark.getpixel((0, 0)) == dark.getpixel((79, 39)) == PAPER
    assert dark.getpixel((15, 12)) == (255, 255, 255) and dark.getpixel((35, 22)) == (200, 0, 0)
    red, *others = dark.getpixel((50, 22))
    assert red > 200 and max(others) < 80


def test_a_failed_build_is_left_as_it_is(tmp_path):
    (tmp_path / "_images").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "_images/figure.png")
    lighten(SimpleNamespace(builder=SimpleNamespace(name="html"), outdir=tmp_path), ValueError("broken"))
    assert (tmp_path / "_images/figure.png").exists()


@pytest.mark.parametrize("name", ["html", "dirhtml", "singlehtml"])
def test_every_builder_of_html_gets_its_parts(name, tmp_path, monkeypatch):
    monkeypatch.setattr(explore, "CACHE", tmp_path / "explore")
    monkeypatch.setattr(explore, "make", lambda folder, *_: folder.mkdir(parents=True))
    app = SimpleNamespace(builder=SimpleNamespace(name=name, format="html"), outdir=tmp_path / "out")
    explore.prepare(app)
    explore.copy(app, None)
    assert app.explore.parent == tmp_path / "explore" and (tmp_path / "out/_static/explore/run").is_dir()
