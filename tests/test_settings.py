"""DGML_WEIGHTS and DGML_IMAGES: all four combinations, and what a setting that can't be met says.

Published weights are stood in for by random ones in torch's download cache, Kodak by a folder, so that nothing is
fetched.
"""

import os
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from compressai.zoo.image import model_urls
from nbclient import NotebookClient
from PIL import Image

from dgml.checkpoints import checkpoint_path, load_codec
from dgml.images import to_rgb
from dgml.model import Cheng2020Anchor
from dgml.picture_sets import load_images
from dgml.settings import QUALITIES, ROOT
from helpers import default_index, describe

KODAK = ROOT.parent / "shared" / "kodak"  # not part of the book; where it is at hand, it is tried
PUBLISHED_N = dict(zip(QUALITIES, (128, 128, 128, 192, 192, 192)))


def save_picture(path: Path, seed: int, width: int = 70, height: int = 66) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)


@pytest.fixture(scope="module")
def zoo(tmp_path_factory) -> Path:
    """A TORCH_HOME that holds random weights under the published names, in half precision to save space."""
    home = tmp_path_factory.mktemp("torch")
    folder = home / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    first = {}
    for quality, url in model_urls["cheng2020-anchor"]["mse"].items():
        path, n = folder / Path(url).name, PUBLISHED_N[quality]
        if n in first:
            path.symlink_to(first[n])
            continue
        codec = Cheng2020Anchor(n)
        codec.update()
        torch.save({k: v.half() if v.is_floating_point() else v for k, v in codec.state_dict().items()}, path)
        first[n] = path
    return home


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A reader's own folder: PNG and JPEG, one of them in a subfolder, and a file that is no picture's."""
    folder = tmp_path_factory.mktemp("pictures")
    save_picture(folder / "b.png", 1)
    save_picture(folder / "a.jpg", 2)
    save_picture(folder / "more" / "c.png", 3)
    return folder


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        pytest.fail("a test reached for the network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


def one_line(raised) -> str:
    message = str(raised.value)
    assert "\n" not in message
    return message


# ---------------------------------------------------------------- DGML_WEIGHTS


# bundled/bundled is what nbval and the build run.
@pytest.mark.parametrize(
    ("weights", "images"), [("bundled", "folder"), ("published", "bundled"), ("published", "folder")]
)
def test_all_four_combinations(weights, images, zoo, folder, monkeypatch, no_network):
    monkeypatch.setenv("TORCH_HOME", str(zoo))
    monkeypatch.setenv("DGML_WEIGHTS", weights)
    monkeypatch.setenv("DGML_IMAGES", str(folder) if images == "folder" else "bundled")
    codec, pictures = load_codec(3), load_images()
    width = codec.N
    assert width == (128 if weights == "published" else 32)
    assert pictures["name"][default_index()] == ("a" if images == "folder" else "astronaut")
    first = describe(codec, pictures, default_index())
    assert f"weights: {weights}, quality 3, N = {codec.N}" in first
    assert ("70x66" in first and folder.name in first) if images == "folder" else "512x512" in first


@pytest.mark.parametrize("quality", [3, 6])
def test_published_weights_are_those_of_the_published_file(quality, zoo, monkeypatch, no_network):
    monkeypatch.setenv("TORCH_HOME", str(zoo))
    path = checkpoint_path(quality, "published")
    assert path.is_relative_to(zoo) and path.is_file()
    stored = torch.load(path, weights_only=True)
    codec = load_codec(quality, "published")
    assert codec.N == codec.M == PUBLISHED_N[quality]
    loaded = codec.state_dict()
    for name in ("g_a.0.conv1.weight", "h_s.2.0.bias", "g_s.7.0.weight", "entropy_parameters.4.weight"):
        assert torch.equal(loaded[name], stored[name].float()), name


def test_the_published_name_of_quality_3():
    assert checkpoint_path(3, "published").name == "cheng2020-anchor-3-e49be189.pth.tar"


def test_weights_are_bundled_unless_set(monkeypatch):
    assert load_codec(3).N == 32
    monkeypatch.setenv("DGML_WEIGHTS", "")
    assert load_codec(3).N == 32


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"PK\3\4" + bytes(1000)])
def test_a_damaged_download_is_one_clear_line(content, tmp_path, monkeypatch, no_network):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    path = checkpoint_path(3, "published")
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(RuntimeError, match="DGML_WEIGHTS=published") as raised:
        load_codec(3, "published")
    assert path.name in one_line(raised) and "DGML_WEIGHTS=bundled" in one_line(raised)


def test_published_weights_without_network_are_one_clear_line(tmp_path, monkeypatch):
    def unreachable(*args, **kwargs):
        raise urllib.request.URLError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "urlopen", unreachable)
    with pytest.raises(RuntimeError, match="DGML_WEIGHTS=published: quality 3") as raised:
        load_codec(3, "published")
    assert "set DGML_WEIGHTS=bundled" in one_line(raised)


# What a reader sees in a terminal: the last line, in a process of its own that has no network and no cache.
OFFLINE = """
import socket
def unreachable(*args, **kwargs):
    raise socket.gaierror("no network")
socket.getaddrinfo = unreachable
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "call"),
    [("DGML_WEIGHTS=published", "load_codec(3)"), ("DGML_IMAGES=danjacobellis/kodak", "load_images()")],
)
def test_a_setting_that_cannot_be_met(setting, call, tmp_path):
    name, value = setting.split("=")
    env = {**os.environ, name: value, "TORCH_HOME": str(tmp_path), "HF_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    code = f"{OFFLINE}\nfrom helpers import *\n{call}"
    done = subprocess.run([sys.executable, "-c", code], env=env, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert setting in last and f"set {name}=bundled" in last
    assert "During handling" not in done.stderr  # one error, not a chain of them


# ---------------------------------------------------------------- DGML_IMAGES


def test_bundled_pictures(no_network):
    images = load_images()
    assert images.column_names == ["image", "name"]
    sizes = {row["name"]: row["image"].size for row in images}
    assert sizes == {"astronaut": (512, 512), "coffee": (600, 400), "chelsea": (451, 300)}


def test_a_folder_of_pictures(folder, no_network):
    images = load_images(str(folder))
    assert images.column_names == ["image", "name"]
    assert sorted(images["name"]) == ["a", "b", "c"]
    for row in images:
        path = next(folder.rglob(row["name"] + ".*"))
        assert np.array_equal(np.asarray(to_rgb(row["image"])), np.asarray(Image.open(path).convert("RGB")))


@pytest.mark.skipif(not KODAK.is_dir(), reason="Kodak is not at hand")
def test_kodak(monkeypatch, no_network):
    monkeypatch.setenv("DGML_IMAGES", str(KODAK))
    images = load_images()
    assert images["name"] == [f"kodim{i:02}" for i in range(1, 25)]
    row = images[default_index()]
    assert row["name"] == "kodim23" and row["image"].size == (768, 512)


# ---------------------------------------------------------------- a chapter


# bundled/bundled is what nbval and the build run.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("weights", "images"), [("bundled", "folder"), ("published", "bundled"), ("published", "folder")]
)
def test_a_chapter_runs_under_every_combination(weights, images, zoo, folder, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(zoo))
    monkeypatch.setenv("DGML_WEIGHTS", weights)
    monkeypatch.setenv("DGML_IMAGES", str(folder) if images == "folder" else "bundled")
    path = next((ROOT / "notebooks").glob("01_*.ipynb"))
    chapter = nbformat.read(path, as_version=4)  # executed in memory: the file stays as it is
    NotebookClient(chapter, timeout=120, resources={"metadata": {"path": str(path.parent)}}).execute()
    outputs = [o for cell in chapter.cells if cell.cell_type == "code" for o in cell.outputs]
    printed = next(o.text for o in outputs if o.output_type == "stream")
    assert f"weights: {weights}, quality 3, N = {128 if weights == 'published' else 32}" in printed
    assert ("70x66" if images == "folder" else "astronaut") in printed
