"""Reproducing the reference: no network, small pictures, randomly initialised codecs."""

import copy
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from samples import picture, random_codec

from dgml.evaluation import reproduce
from dgml.images import image_to_tensor, pad
from dgml.settings import ROOT

REFERENCE = json.loads(reproduce.REFERENCE.read_text(encoding="utf-8"))


@pytest.mark.slow
def test_the_numbers_have_the_shapes_of_the_reference():
    got = reproduce.reference_numbers(lambda quality: random_codec(), picture(768, 512), qualities=(3,))
    naive = got["naive"]
    assert naive["buffer_bytes"] == REFERENCE["naive"]["buffer_bytes"] == 417824
    assert naive["bpp_raw"] == REFERENCE["naive"]["bpp_raw"]
    assert naive["y_hat_shape"] == REFERENCE["naive"]["y_hat_shape"]
    assert naive["z_hat_shape"] == REFERENCE["naive"]["z_hat_shape"]
    assert got["params_millions"] == REFERENCE["params_millions"]
    assert naive.keys() == REFERENCE["naive"].keys()
    assert got["staircase"][0]["bpp"] == got["bpp_theoretical"]
    rows = {name: verdict for name, _, _, verdict in reproduce.compare(REFERENCE, got)}
    assert rows["naive buffer_bytes"] == rows["N"] == rows["image n_pixels"] == "ok"
    assert rows["bpp_theoretical"] == rows["staircase 6 bpp"] == "MISS"


def test_the_rate_counts_native_pixels_and_cuts_the_padding_off():
    codec, shot = random_codec(32), picture(100, 70)
    with torch.no_grad():  # as it starts, nearly every latent is zero and costs nothing
        codec.g_a[-1].bias += torch.linspace(0, 8, 32)[torch.randperm(32)]
    got = reproduce.reference_numbers(lambda quality: codec, shot, qualities=(3, 3))
    assert got["image"] == {"width": 100, "height": 70, "n_pixels": 7000} and len(got["staircase"]) == 2
    assert got["naive"]["bpp_raw"] == round(8 * (32 + 2 * 32 * 8 * 8 + 2 * 32 * 2 * 2) / 7000, 4)
    with torch.no_grad():
        y_likelihoods = codec(pad(image_to_tensor(shot)))["likelihoods"]["y"][0]
    rates = -np.log2(y_likelihoods.double().numpy()).sum((1, 2)) / 7000
    assert min(sorted(rates)[:-6:-1]) > 10 * sorted(rates)[0]
    assert [rate for _, rate in got["top_y_channels"]] == pytest.approx(sorted(rates)[:-6:-1], abs=1.1e-5)
    assert [rates[i] for i, _ in got["top_y_channels"]] == pytest.approx(sorted(rates)[:-6:-1], abs=1.1e-5)


def test_the_reference_agrees_with_itself():
    rows = reproduce.compare(REFERENCE, REFERENCE)
    assert len(rows) == 61 and all(verdict == "ok" for *_, verdict in rows)


# What a number may be off by, and what it may not, at each kind of tolerance.
OFF_BY = [
    (("image", "index"), 0, 1), (("N",), 0, 1), (("params_millions",), 0, 0.01), (("bpp_theoretical",), 0.0005, 0.0006),
    (("top_y_channels", 0, 0), 0, 1), (("top_y_channels", 4, 1), 0.0005, 0.0006),
    (("naive", "y_hat_shape", 3), 0, 1), (("naive", "y_hat_range", 0), 0.02, 0.03),
    (("naive", "z_hat_range", 1), -0.02, -0.03), (("naive", "buffer_bytes"), 0, 1), (("naive", "zlib9_bytes"), 169, 170),
    (("naive", "bpp_raw"), 0.0005, 0.0006), (("naive", "bpp_zlib"), -0.0034, -0.0035),
    (("naive", "raw_over_theoretical"), 0.1, 0.2), (("naive", "zlib_over_theoretical"), -0.1, -0.2),
    (("naive", "psnr_db"), -0.02, -0.03), (("staircase", 5, "N"), 0, 64), (("staircase", 0, "bpp"), 0.0005, 0.0006),
    (("staircase", 5, "psnr_db"), 0.02, 0.03), (("naive", "psnr_db"), 0, float("nan")),
]  # fmt: skip


@pytest.mark.parametrize("where, allowed, wrong", OFF_BY, ids=lambda value: str(value))
def test_tolerances(where, allowed, wrong):
    for off, verdict in ((allowed, "ok"), (wrong, "MISS")):
        got = copy.deepcopy(REFERENCE)
        inner = got
        for key in where[:-1]:
            inner = inner[key]
        inner[where[-1]] = round(inner[where[-1]] + off, 5)
        verdicts = [row[3] for row in reproduce.compare(REFERENCE, got)]
        assert verdicts.count("MISS") == (verdict == "MISS")


@pytest.mark.parametrize("source, wrong", [("kodak", None), ("kodak", "N"), ("three", None)])
def test_exit_status_of_reproduce(monkeypatch, capsys, dgml, source, wrong):
    got = copy.deepcopy(REFERENCE)
    if wrong:
        got[wrong] += 1
    monkeypatch.setattr(reproduce, "published_codec", lambda quality: random_codec(32))
    rows = [{"image": picture(8, 8)}] * (24 if source == "kodak" else 3)
    monkeypatch.setattr(reproduce, "load_images", lambda name, megapixels: rows)
    monkeypatch.setattr(reproduce, "reference_numbers", lambda codec_for_quality, shot: got)
    code = dgml("reproduce")
    said = capsys.readouterr()
    if source == "three":
        assert code == 1 and "holds 3 pictures" in said.err
    else:
        assert code == (1 if wrong else 0)
        assert f"{60 if wrong else 61} of 61 numbers agree" in said.out


def test_without_a_network_there_is_one_line(monkeypatch, capsys, failure):
    def no_network(url, *args, **kwargs):
        print(f"Downloading: {url}")
        raise OSError("Name or service not known")

    monkeypatch.setattr("torch.hub.load_state_dict_from_url", no_network)
    monkeypatch.setattr("compressai.zoo.image.load_state_dict_from_url", no_network)
    assert failure("reproduce").startswith("dgml: DGML_WEIGHTS=published: quality 3 could not be")
    assert capsys.readouterr().out == ""


@pytest.mark.slow
def test_offline_kodak_is_one_line(monkeypatch, tmp_path):
    """A fresh process, since the hub's client reads its settings when it is imported."""
    code = (
        "from dgml import cli; from dgml.evaluation import reproduce\n"
        "reproduce.published_codec = lambda quality: None\nraise SystemExit(cli.main(['reproduce']))"
    )
    # Whatever this machine has in its caches must not answer.
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "OMP_NUM_THREADS": "1", "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and not done.stdout
    assert len(done.stderr.splitlines()) == 1 and "DGML_IMAGES=danjacobellis/kodak" in done.stderr
