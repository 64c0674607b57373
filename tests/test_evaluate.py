"""Tests of evaluate.py: no network, small pictures, randomly initialised codecs."""

import copy
import io
import json
import subprocess
import sys
import time

import bjontegaard
import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data
from skimage.metrics import peak_signal_noise_ratio

import bitstream
import evaluate
from helpers import ROOT, Cheng2020Anchor

REFERENCE = json.loads((ROOT / "results" / "reference_kodak22.json").read_text(encoding="utf-8"))


def picture(width: int, height: int, seed: int = 0, noise: float = 20.0) -> Image.Image:
    """A colour gradient with noise: something that a codec can shorten and cannot store exactly."""
    ramp = np.linspace(0, 200, width) + np.linspace(0, 50, height)[:, None]
    levels = ramp[..., None] * [1.0, 0.7, 0.4] + np.random.default_rng(seed).normal(0, noise, (height, width, 3))
    return Image.fromarray(levels.clip(0, 255).round().astype(np.uint8))


def random_codec(n: int = 128) -> Cheng2020Anchor:
    torch.manual_seed(0)
    return Cheng2020Anchor(n).eval()


def made_up(points: list[tuple[float, float]], names=("a", "b")) -> dict:
    """A curve through (bpp, dB) points on which every picture has the mean's values."""
    return {str(q): evaluate.point({name: [rate, db, 0.9] for name in names}) for q, (rate, db) in enumerate(points, 1)}


CODEC = [(0.1, 28.0), (0.15, 29.5), (0.22, 31.0), (0.33, 32.6), (0.5, 34.3), (0.75, 36.0)]
JPEG = [(0.2, 26.0), (0.3, 28.2), (0.45, 30.1), (0.8, 32.8), (1.4, 35.5)]


@pytest.fixture
def results(tmp_path, monkeypatch):
    """An empty folder in place of results/."""
    monkeypatch.setattr(evaluate, "RESULTS", tmp_path)
    return tmp_path


def run(monkeypatch, *arguments: str) -> object:
    """The exit status of a command line, or the line that it ends with."""
    monkeypatch.setattr(torch, "set_num_threads", lambda n: None)  # the other tests of this process go on with theirs
    monkeypatch.setenv("HF_HUB_VERBOSITY", "critical")
    monkeypatch.setattr(sys, "argv", ["evaluate.py", *arguments])
    with pytest.raises(SystemExit) as stopped:
        evaluate.main()
    return stopped.value.code


# ---------------------------------------------------------------- measuring


def test_psnr_is_that_of_scikit_image_on_8_bits():
    one, other = picture(200, 180), picture(200, 180, seed=1)
    _, db, similarity = evaluate.score(1.0, one, other)
    assert db == pytest.approx(peak_signal_noise_ratio(np.array(one), np.array(other), data_range=255), abs=1e-4)
    assert 0 < similarity < 1


def test_ms_ssim_needs_161_pixels_and_equal_pictures_have_no_psnr():
    assert evaluate.score(1.0, picture(160, 300), picture(160, 300, seed=1))[2] is None
    assert evaluate.score(1.0, picture(161, 300), picture(161, 300, seed=1))[2] is not None
    assert evaluate.score(1.0, picture(161, 161), picture(161, 161)) == [1.0, None, 1.0]


def test_rate_of_a_file_is_its_bytes():
    shot = picture(120, 90)
    file = io.BytesIO()
    shot.save(file, "JPEG", quality=40, optimize=True, subsampling="4:2:0")
    coded = evaluate.through_file("JPEG", 40, shot)
    assert coded.bpp == file.getbuffer().nbytes * 8 / (120 * 90)
    assert coded.picture == Image.open(file).convert("RGB")
    assert coded.seconds_encode >= 0 and coded.seconds_decode >= 0


@pytest.mark.parametrize("name", evaluate.CLASSICAL)
def test_more_quality_costs_more_and_is_nearer(name):
    shot = picture(170, 162)
    ladder = evaluate.CLASSICAL[name][2]
    assert list(ladder) == sorted(ladder)
    low, high = (scored(evaluate.through_file(name, setting, shot), shot) for setting in (ladder[0], ladder[-1]))
    assert low[0] < high[0] and low[1] < high[1] and low[2] < high[2]


def scored(coded, original):
    return evaluate.score(coded.bpp, original, coded.picture)


@pytest.mark.parametrize("name", evaluate.CLASSICAL)
def test_a_file_is_of_the_format_that_it_is_named_after(name):
    file = io.BytesIO(evaluate.classical_file(name, 50, picture(120, 90)))
    assert Image.open(file).format == evaluate.CLASSICAL[name][0]


def test_jpeg_2000_is_as_large_as_it_was_told_and_transforms_colours():
    shot = Image.fromarray(data.astronaut()[:180, 150:350])  # a photograph: its colours change together
    assert len(evaluate.classical_file("JPEG 2000", 20, shot)) == pytest.approx(3 * 200 * 180 * 0.020, rel=0.05)
    _, db, _ = scored(evaluate.through_file("JPEG 2000", 20, shot), shot)
    plain = io.BytesIO()
    shot.save(plain, "JPEG2000", irreversible=True, quality_mode="rates", quality_layers=[50])
    assert db > evaluate.score(1.0, shot, evaluate.read_classical(plain.getvalue()))[1] + 1


def test_seconds_are_of_the_processor_and_their_means_are_kept():
    total, seconds = evaluate.timed(lambda: sum(range(300_000)))
    assert total == 299_999 * 150_000 and seconds > 0
    assert evaluate.timed(lambda: time.sleep(0.2))[1] < 0.1
    point = evaluate.point({"a": [0.1, 30.0, 0.9], "b": [0.3, 32.0, 0.9]}, [(1.0, 0.02), (0.5, 0.04)])
    assert (point["seconds_encode"], point["seconds_decode"]) == (0.75, 0.03)
    assert "seconds_encode" not in evaluate.point({"a": [0.1, 30.0, 0.9]}, [])


def test_codec_is_padded_and_counted_over_native_pixels(monkeypatch):
    codec, seen = random_codec(32), []
    forward = codec.forward
    monkeypatch.setattr(codec, "forward", lambda x: seen.append(forward(x)) or seen[-1])
    monkeypatch.setattr(evaluate, "last_codec", lambda quality, weights: codec)
    coded = evaluate.through_codec(3, "bundled", picture(100, 70))
    assert seen[0]["x_hat"].shape == (1, 3, 128, 128) and coded.picture.size == (100, 70)
    assert coded.seconds_encode is None
    total = sum(-np.log2(p.double().numpy()).sum() for p in seen[0]["likelihoods"].values())
    assert coded.bpp == pytest.approx(total / 7000, rel=1e-5)


def test_a_file_is_measured_by_its_bytes_and_what_it_decodes_to(monkeypatch):
    codec, shot = random_codec(32), picture(100, 70)
    monkeypatch.setattr(evaluate, "last_codec", lambda quality, weights: codec)
    coded = evaluate.through_bitstream(lambda: codec, shot)
    data = bitstream.encode(codec, shot, 3)
    assert coded.bpp == 8 * len(data) / 7000 and coded.picture == bitstream.decode(codec, data)
    assert coded.seconds_encode > 0 and coded.seconds_decode > 0


def test_the_gap_between_promise_and_file_is_printed():
    promised, kept = made_up([(0.1, 30.0), (0.2, 32.0)]), made_up([(0.103, 29.5), (0.2, 32.0)])
    assert evaluate.gap_table(promised, kept)[1:] == [
        "      1  +3.00% bytes  -0.50 dB",
        "      2  +0.00% bytes  +0.00 dB",
    ]


def test_a_mean_is_null_where_a_picture_has_none():
    p = evaluate.point({"a": [0.1, 30.0, 0.9], "b": [0.3, 32.0, None]})
    assert (p["bpp"], p["psnr"], p["ms_ssim"]) == (0.2, 31.0, None)


def test_a_folder_is_measured_and_no_path_is_written(tmp_path, results, monkeypatch, capsys):
    for name, size in (("shots/one.png", (96, 64)), ("shots/deep/one.png", (64, 96)), ("shots/two.png", (170, 165))):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        picture(*size).save(tmp_path / name)
    monkeypatch.setattr(evaluate, "last_codec", lambda quality, weights: random_codec(32))
    # Any file that exists will do for quality 3: last_codec does not open it.
    monkeypatch.setattr(
        evaluate.helpers, "checkpoint_path", lambda q, weights: ROOT / ("evaluate.py" if q == 3 else f"none{q}")
    )
    monkeypatch.setattr(evaluate, "CLASSICAL", {"JPEG": ("JPEG", {}, (10, 90))})
    assert run(monkeypatch, "--images", str(tmp_path / "shots")) == 0
    assert capsys.readouterr().err.count("is missing") == 5
    assert run(monkeypatch, "--images", str(tmp_path / "shots"), "--classical") == 0
    for kind, codec, quality in (("bundled", "cheng2020-anchor bundled, files", "3"), ("classical", "JPEG", "90")):
        text = (results / f"shots_{kind}.json").read_text(encoding="utf-8")
        measured = json.loads(text)
        assert str(tmp_path) not in text
        assert measured["_command"].startswith("python evaluate.py --images shots")
        assert len(measured["images"]) == 3
        point = measured["codecs"][codec][quality]
        assert list(point["per_image"]) == measured["images"]
        assert list(point) == ["bpp", "psnr", "ms_ssim", "seconds_encode", "seconds_decode", "per_image"]
        assert measured["_environment"]["threads"] == 1 and measured["_environment"]["processor"]
    assert not list(results.glob("*.part"))


def test_a_format_that_pillow_lacks_ends_in_one_line(results, monkeypatch):
    monkeypatch.setattr(evaluate, "CLASSICAL", {"none": ("NONE", {}, (1,))})
    assert "cannot write none" in run(monkeypatch, "--images", "bundled", "--classical")


def test_the_classical_result_has_the_ladders_and_they_rise():
    measured = json.loads((ROOT / "results" / "kodak_classical.json").read_text(encoding="utf-8"))
    assert measured["codecs"].keys() == evaluate.CLASSICAL.keys() and len(measured["images"]) == 24
    for name, curve in measured["codecs"].items():
        assert list(curve) == [str(setting) for setting in evaluate.CLASSICAL[name][2]]
        points = list(curve.values())
        for key in ("bpp", "psnr", "ms_ssim"):
            assert [p[key] for p in points] == sorted(p[key] for p in points)
        assert points[0]["bpp"] < 0.2 and 1.7 < points[-1]["bpp"] < 2.2
        assert all(p["seconds_encode"] > 0 and p["seconds_decode"] > 0 for p in points)


# ---------------------------------------------------------------- reporting


def write_results(folder, codec, images=("a", "b"), anchor_images=("a", "b")):
    anchor = {"images": anchor_images, "codecs": {"JPEG": made_up(JPEG, anchor_images)}}
    measured = {"images": images, "codecs": {"cheng2020-anchor bundled, files": made_up(codec, images)}}
    evaluate.write_json(folder / "tiny_classical.json", anchor)
    evaluate.write_json(folder / "tiny_bundled.json", measured)


def test_report_has_the_librarys_bd_rate_and_a_rising_staircase(results, monkeypatch, capsys):
    write_results(results, CODEC)
    expected = bjontegaard.bd_rate(
        *zip(*JPEG), *zip(*CODEC), method="pchip", require_matching_points=False, min_overlap=0
    )
    assert -60 < expected < -40
    assert run(monkeypatch, "--report") == 0
    printed = capsys.readouterr().out
    assert f"{expected:+.1f}%  28.00 to 35.50" in printed
    assert printed.count("2 of 2") == 10 and "below): ok" in printed


@pytest.mark.parametrize("wrong", [(0.2, 32.0), (0.33, 29.0)])
def test_report_fails_on_a_step_that_does_not_rise(results, monkeypatch, capsys, wrong):
    write_results(results, [*CODEC[:3], wrong, *CODEC[4:]])
    assert run(monkeypatch, "--report") == 1
    assert "BROKEN at quality 4" in capsys.readouterr().out


def test_staircase_counts_pictures():
    low = evaluate.point({"a": [0.1, 30.0, 0.9], "b": [0.1, 30.0, 0.9]})
    high = evaluate.point({"a": [0.3, 33.0, 0.9], "b": [0.2, 29.0, 0.9]})
    assert evaluate.staircase({"1": low, "2": high}) == [("2", True, 2, 1)]


def test_no_bd_rate_without_a_common_range():
    assert evaluate.bd_rate_over(made_up([(0.1, 20), (0.2, 22)]), made_up(CODEC)) is None
    assert evaluate.bd_rate_over(made_up(JPEG), made_up([(0.1, 28), (0.2, 33), (0.3, 32)])) is None
    assert evaluate.bd_rate_over(made_up(JPEG), made_up([(0.1, 30)])) is None


def test_report_compares_no_other_pictures_and_needs_a_measurement(results, monkeypatch, capsys):
    assert "holds no measurement" in run(monkeypatch, "--report")
    write_results(results, CODEC, anchor_images=("a", "c"))
    assert run(monkeypatch, "--report") == 0
    printed = capsys.readouterr().out
    assert "of other pictures" in printed and "%" not in printed


# ---------------------------------------------------------------- reproducing


def test_walk_has_the_shapes_of_the_reference():
    got = evaluate.walk(lambda quality: random_codec(), picture(768, 512), qualities=(3,))
    naive = got["naive"]
    assert naive["buffer_bytes"] == REFERENCE["naive"]["buffer_bytes"] == 417824
    assert naive["bpp_raw"] == REFERENCE["naive"]["bpp_raw"]
    assert naive["y_hat_shape"] == REFERENCE["naive"]["y_hat_shape"]
    assert naive["z_hat_shape"] == REFERENCE["naive"]["z_hat_shape"]
    assert got["params_millions"] == REFERENCE["params_millions"]
    assert naive.keys() == REFERENCE["naive"].keys()
    assert got["staircase"][0]["bpp"] == got["bpp_theoretical"]
    rows = {name: verdict for name, _, _, verdict in evaluate.compare(REFERENCE, got)}
    assert rows["naive buffer_bytes"] == rows["N"] == rows["image n_pixels"] == "ok"
    assert rows["bpp_theoretical"] == rows["staircase 6 bpp"] == "MISS"


def test_walk_counts_native_pixels_and_cuts_the_padding_off():
    codec, shot = random_codec(32), picture(100, 70)
    with torch.no_grad():  # as it starts, nearly every latent is zero and costs nothing
        codec.g_a[-1].bias += torch.linspace(0, 8, 32)[torch.randperm(32)]
    got = evaluate.walk(lambda quality: codec, shot, qualities=(3, 3))
    assert got["image"] == {"width": 100, "height": 70, "n_pixels": 7000} and len(got["staircase"]) == 2
    assert got["naive"]["bpp_raw"] == round(8 * (32 + 2 * 32 * 8 * 8 + 2 * 32 * 2 * 2) / 7000, 4)
    with torch.no_grad():
        y_likelihoods = codec(evaluate.pad(evaluate.image_to_tensor(shot)))["likelihoods"]["y"][0]
    rates = -np.log2(y_likelihoods.double().numpy()).sum((1, 2)) / 7000
    assert min(sorted(rates)[:-6:-1]) > 10 * sorted(rates)[0]
    assert [rate for _, rate in got["top_y_channels"]] == pytest.approx(sorted(rates)[:-6:-1], abs=1.1e-5)
    assert [rates[i] for i, _ in got["top_y_channels"]] == pytest.approx(sorted(rates)[:-6:-1], abs=1.1e-5)


def test_the_reference_agrees_with_itself():
    rows = evaluate.compare(REFERENCE, REFERENCE)
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
        verdicts = [row[3] for row in evaluate.compare(REFERENCE, got)]
        assert verdicts.count("MISS") == (verdict == "MISS")


@pytest.mark.parametrize("source, wrong", [("kodak", None), ("kodak", "N"), ("three", None)])
def test_exit_status_of_reproduce(monkeypatch, capsys, source, wrong):
    got = copy.deepcopy(REFERENCE)
    if wrong:
        got[wrong] += 1
    monkeypatch.setattr(evaluate, "published_codec", lambda quality: random_codec(32))
    rows = [{"image": picture(8, 8)}] * (24 if source == "kodak" else 3)
    monkeypatch.setattr(evaluate.helpers, "load_images", lambda name: rows)
    monkeypatch.setattr(evaluate, "walk", lambda codec_for_quality, shot: got)
    code = run(monkeypatch, "--reproduce")
    if source == "three":
        assert "holds 3 pictures" in code
    else:
        assert code == (1 if wrong else 0)
        assert f"{60 if wrong else 61} of 61 numbers agree" in capsys.readouterr().out


def test_without_a_network_there_is_one_line(monkeypatch, capsys):
    def no_network(url, *args, **kwargs):
        print(f"Downloading: {url}")
        raise OSError("Name or service not known")

    monkeypatch.setattr("torch.hub.load_state_dict_from_url", no_network)
    monkeypatch.setattr("compressai.zoo.image.load_state_dict_from_url", no_network)
    line = run(monkeypatch, "--reproduce")
    assert line.startswith("evaluate.py: DGML_WEIGHTS=published: quality 3 could not be")
    assert "\n" not in line and capsys.readouterr() == ("", "")


def test_offline_kodak_is_one_line(monkeypatch, tmp_path):
    """A fresh process, since the hub's client reads its settings when it is imported."""
    code = "import evaluate as e; e.published_codec = lambda quality: None; e.main()"
    # Whatever this machine has in its caches must not answer.
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "OMP_NUM_THREADS": "1", "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", code, "--reproduce"], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 1 and not done.stdout
    assert len(done.stderr.splitlines()) == 1 and "DGML_IMAGES=danjacobellis/kodak" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--images", "bundled", "--report"],
        ["--report", "--classical"],
        ["--images", "bundled", "--weights", "best"],
        ["--images", "bundled", "--classical", "--weights", "published"],
    ],
)
def test_wrong_arguments_exit_with_2(monkeypatch, arguments):
    assert run(monkeypatch, *arguments) == 2


def test_wrong_folders_end_in_one_line(monkeypatch, tmp_path):
    assert "set DGML_IMAGES=bundled" in run(monkeypatch, "--images", str(tmp_path))
    (tmp_path / "torn.png").write_bytes(b"not a picture")
    line = run(monkeypatch, "--images", str(tmp_path))
    assert "torn.png" in line and "\n" not in line
