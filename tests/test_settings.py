"""DGML_WEIGHTS and DGML_IMAGES: all four combinations, and what a setting that can't be met says.

Published weights are stood in for by random ones in torch's download cache, Kodak by a folder, so that nothing is
fetched.
"""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from PIL import Image
from samples import save_picture

from dgml.checkpoints import load_codec
from dgml.images import to_rgb
from dgml.picture_sets import load_images
from dgml.settings import ROOT
from helpers import default_index, describe

KODAK = ROOT.parent / "shared" / "kodak"  # not part of the book; where it is at hand, it is tried


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A reader's own folder: PNG and JPEG, one of them in a subfolder, and a file that is no picture's."""
    folder = tmp_path_factory.mktemp("pictures")
    save_picture(folder / "b.png", 1, 70, 66)
    save_picture(folder / "a.jpg", 2, 70, 66)
    save_picture(folder / "more" / "c.png", 3, 70, 66)
    return folder


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
    assert pictures["name"][default_index(pictures)] == ("a" if images == "folder" else "astronaut")
    first = describe(codec, pictures, default_index(pictures))
    assert f"weights: {weights}, quality 3, N = {codec.N}" in first
    assert ("70x66" in first and folder.name in first) if images == "folder" else "512x512" in first


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
    assert sorted(images["name"][:]) == ["a", "b", "c"]
    for row in images:
        path = next(folder.rglob(row["name"] + ".*"))
        assert np.array_equal(np.asarray(to_rgb(row["image"])), np.asarray(Image.open(path).convert("RGB")))


@pytest.mark.skipif(not KODAK.is_dir(), reason="Kodak is not at hand")
def test_kodak(monkeypatch, no_network):
    monkeypatch.setenv("DGML_IMAGES", str(KODAK))
    images = load_images()
    assert images["name"][:] == [f"kodim{i:02}" for i in range(1, 25)]
    row = images[default_index(images)]
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
