"""The helpers against libraries, against hand calculation, and at their edges."""

import io
import math
import struct
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from skimage.metrics import peak_signal_noise_ratio

from dgml import checkpoints, model, settings
from dgml.checkpoints import checkpoint_path, load_checkpoint, load_codec
from dgml.images import crop, image_to_tensor, pad, tensor_to_image, to_rgb
from dgml.metrics import bits, bpp, psnr
from dgml.model import Cheng2020Anchor, DeepAnchor
from dgml.naive import pack, unpack
from helpers import display_markdown, inches_high, interact, is_interactive, start_chapter


def random_levels(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def one_line(raised) -> str:
    """The message of an expected error, which must be one line that says something."""
    message = str(raised.value)
    assert len(message) > 20 and "\n" not in message
    return message


def reloaded(picture: Image.Image, format: str = "PNG", **options) -> Image.Image:
    """The picture as a reader's file would bring it."""
    file = io.BytesIO()
    picture.save(file, format, **options)
    return Image.open(io.BytesIO(file.getvalue()))


# ---------------------------------------------------------------- measures


@pytest.mark.parametrize("seed", range(5))
def test_psnr_is_that_of_scikit_image(seed):
    a, b = np.random.default_rng(seed).random((2, 1, 3, 17, 23), dtype=np.float32)
    expected = peak_signal_noise_ratio(a, b, data_range=1)
    assert psnr(torch.from_numpy(a), torch.from_numpy(b)) == pytest.approx(expected, abs=1e-5)


def test_psnr_of_a_known_error():
    x = torch.full((1, 3, 8, 8), 0.5)
    assert psnr(x, x + 0.1) == pytest.approx(20, abs=1e-4)  # MSE = 0.01


def test_psnr_of_equal_pictures_is_infinite():
    x = torch.rand(1, 3, 8, 8)
    assert psnr(x, x.clone()) == math.inf


def test_psnr_clamps_both():
    black, white = torch.zeros(1, 3, 8, 8), torch.ones(1, 3, 8, 8)
    assert psnr(black, black - 3) == math.inf
    assert psnr(white + 3, white) == math.inf
    assert psnr(black - 3, white + 3) == pytest.approx(0)


def test_psnr_refuses_other_shapes():
    with pytest.raises(ValueError, match="shapes differ") as raised:
        psnr(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 1))  # would broadcast
    one_line(raised)


def test_two_pictures_report_two_values():
    x = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    values = {round(psnr(x, (x + error).clamp(0, 1)), 6) for error in (0.01, 0.02, 0.05, 0.1)}
    assert len(values) == 4


def test_bits_by_hand():
    likelihoods = torch.tensor([[1.0, 0.5], [0.25, 2**-10]])
    assert bits(likelihoods).tolist() == [[0, 1], [2, 10]]


def test_bpp_by_hand():
    y, z = torch.tensor([0.5, 0.25, 0.125]), torch.tensor([0.0625])
    assert bpp({"y": y}, 3) == 2
    assert bpp({"y": y, "z": z}, 4) == 2.5  # 1 + 2 + 3 + 4 bits over 4 pixels
    assert isinstance(bpp({"y": y, "z": z}, 4), float)


def test_bpp_adds_many_symbols_exactly():
    assert bpp({"y": torch.full((5_000_000,), 0.5)}, 5_000_000) == 1


# ---------------------------------------------------------------- pictures and tensors

SIZES = [(1, 1), (1, 500), (500, 1), (64, 64), (65, 130)]


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_pad_repeats_the_last_row_and_column(height, width):
    x = torch.rand(1, 3, height, width)
    padded = pad(x)
    assert padded.shape == (1, 3, -(-height // 64) * 64, -(-width // 64) * 64)
    expected = np.pad(x.numpy(), ((0, 0), (0, 0), (0, -height % 64), (0, -width % 64)), mode="edge")
    assert np.array_equal(padded.numpy(), expected)
    assert torch.equal(crop(padded, (height, width)), x)


def test_pad_to_another_multiple():
    assert pad(torch.zeros(1, 3, 9, 16), 8).shape == (1, 3, 16, 16)


def test_picture_and_tensor_round_trip_is_exact():
    levels = np.resize(np.arange(256, dtype=np.uint8), (20, 30, 3))  # every level, in every colour
    x = image_to_tensor(Image.fromarray(levels))
    assert x.shape == (1, 3, 20, 30) and x.dtype == torch.float32
    assert x.min() == 0 and x.max() == 1
    assert x[0, 1, 2, 3].item() == pytest.approx(levels[2, 3, 1] / 255)
    assert np.array_equal(np.asarray(tensor_to_image(x)), levels)


def test_tensor_to_image_clamps_and_rounds():
    x = torch.tensor([-1, 0.4 / 255, 0.6 / 255, 2]).reshape(1, 1, 2, 2).expand(1, 3, 2, 2)
    assert np.asarray(tensor_to_image(x))[..., 0].tolist() == [[0, 0], [1, 255]]


def test_rgb_stays_as_it_is():
    levels = random_levels(5, 7, 3)
    assert np.array_equal(np.asarray(to_rgb(Image.fromarray(levels))), levels)


def test_grey_fills_three_channels():
    levels = random_levels(5, 7)
    picture = to_rgb(Image.fromarray(levels))
    assert picture.mode == "RGB"
    assert np.array_equal(np.asarray(picture), np.stack([levels] * 3, -1))


def test_black_and_white():
    levels = random_levels(5, 7) > 127
    assert np.array_equal(np.asarray(to_rgb(Image.fromarray(levels)))[..., 2], levels * np.uint8(255))


def over_white(levels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    return levels * (alpha / 255) + 255 * (1 - alpha / 255)


def test_transparency_is_laid_on_white():
    levels = random_levels(5, 7, 4)
    levels[0, 0] = 10, 20, 30, 0
    levels[0, 1] = 10, 20, 30, 255
    colour = np.asarray(to_rgb(reloaded(Image.fromarray(levels))))
    assert colour[0, 0].tolist() == [255] * 3 and colour[0, 1].tolist() == [10, 20, 30]
    assert np.abs(colour - over_white(levels[..., :3], levels[..., 3:])).max() <= 1

    grey = np.asarray(to_rgb(reloaded(Image.fromarray(levels[..., 2:], "LA"))))
    assert np.abs(grey[..., 0] - over_white(levels[..., 2], levels[..., 3])).max() <= 1
    premultiplied = np.asarray(to_rgb(Image.fromarray(levels[..., 2:], "LA").convert("La")))
    assert np.abs(premultiplied[..., 0] - over_white(levels[..., 2], levels[..., 3])).max() <= 2


def test_palette_with_a_transparent_colour():
    picture = Image.fromarray(np.array([[0, 1, 2]], dtype=np.uint8), "P")
    picture.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200])
    opaque = to_rgb(reloaded(picture))
    assert np.asarray(opaque).tolist() == [[[200, 0, 0], [0, 200, 0], [0, 0, 200]]]
    seen_through = to_rgb(reloaded(picture, transparency=1))
    assert np.asarray(seen_through).tolist() == [[[200, 0, 0], [255, 255, 255], [0, 0, 200]]]


def test_cmyk():
    levels = np.zeros((2, 2, 4), dtype=np.uint8)
    levels[0, 0, 0] = 255  # all cyan
    levels[1, 1, 3] = 255  # all black
    picture = np.asarray(to_rgb(Image.fromarray(levels, "CMYK")))
    assert picture[0, 0].tolist() == [0, 255, 255]
    assert picture[0, 1].tolist() == [255, 255, 255]
    assert picture[1, 1].tolist() == [0, 0, 0]


def test_sixteen_bits_keep_the_upper_eight():
    levels = np.random.default_rng(2).integers(0, 65536, (5, 7), dtype=np.uint16)
    levels[0, :3] = 0, 255, 65535
    expected = np.stack([levels >> 8] * 3, -1)
    picture = reloaded(Image.fromarray(levels))
    assert picture.mode.startswith("I")
    assert np.array_equal(np.asarray(to_rgb(picture)), expected)
    assert np.array_equal(np.asarray(to_rgb(Image.fromarray(levels.astype(np.int32)))), expected)


@pytest.mark.parametrize("level", [-1, 65536])
def test_levels_beyond_sixteen_bits_are_refused(level):
    with pytest.raises(ValueError, match="16 bits") as raised:
        to_rgb(Image.fromarray(np.array([[0, level]], dtype=np.int32)))
    one_line(raised)


def test_floating_point_pictures_are_refused():
    with pytest.raises(ValueError, match="floating-point") as raised:
        to_rgb(Image.fromarray(np.zeros((2, 2), dtype=np.float32)))
    one_line(raised)


def test_a_camera_held_sideways():
    levels = random_levels(5, 7, 3)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise to see it upright
    upright = to_rgb(reloaded(Image.fromarray(levels), exif=exif))
    assert np.array_equal(np.asarray(upright), np.rot90(levels, -1))


# ---------------------------------------------------------------- the buffer


def random_latents(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    random = np.random.default_rng(seed)
    y, z = random.integers(-32768, 32768, (1, 4, 6, 5)), random.integers(-9, 10, (1, 3, 2, 2))
    return torch.from_numpy(y).float(), torch.from_numpy(z).float()


def test_pack_and_unpack_keep_every_integer():
    y, z = random_latents()
    y[0, 0, 0, :3] = torch.tensor([-32768, -1, 32767])
    y_back, z_back = unpack(pack(y, z))
    assert torch.equal(y_back, y) and torch.equal(z_back, z)
    assert y_back.dtype == z_back.dtype == torch.float32


def test_the_layout_of_the_buffer():
    y, z = torch.tensor([1.0, -2.0]).reshape(1, 1, 1, 2), torch.tensor([300.0, -32768.0]).reshape(1, 2, 1, 1)
    assert pack(y, z) == struct.pack("<8i4h", 1, 1, 1, 2, 1, 2, 1, 1, 1, -2, 300, -32768)


def test_a_slice_of_a_latent_is_packed_in_order():
    y, z = random_latents()
    assert pack(y.transpose(2, 3), z) == pack(y.transpose(2, 3).contiguous(), z)


def test_the_buffer_of_a_kodak_sized_picture():
    codec = Cheng2020Anchor(128).eval()
    with torch.no_grad():
        y = codec.g_a(image_to_tensor(Image.fromarray(random_levels(512, 768, 3))))
        z = codec.h_a(y)
    assert y.shape == (1, 128, 32, 48) and z.shape == (1, 128, 8, 12)
    buffer = pack(y.round(), z.round())
    assert len(buffer) == 417_824
    assert torch.equal(unpack(buffer)[0], y.round())


@pytest.mark.parametrize("length", range(32 + 2 * 2 + 2 * 1))
def test_a_buffer_cut_short_is_refused(length):
    buffer = pack(torch.ones(1, 1, 1, 2), torch.ones(1, 1, 1, 1))
    with pytest.raises(ValueError) as raised:
        unpack(buffer[:length])
    one_line(raised)


def test_a_buffer_with_a_tail_is_refused():
    with pytest.raises(ValueError) as raised:
        unpack(pack(*random_latents()) + b"\0\0")
    one_line(raised)


HUGE = 2**31 - 1


@pytest.mark.parametrize("place", range(8))
@pytest.mark.parametrize("side", [0, -1, -HUGE - 1, HUGE])
def test_absurd_shapes_are_refused_before_anything_is_allocated(place, side):
    sides = [1, 1, 1, 2, 1, 1, 1, 1]
    sides[place] = side
    buffer = struct.pack("<8i3h", *sides, 1, 2, 3)
    tracemalloc.start()
    with pytest.raises(ValueError) as raised:
        unpack(buffer)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    one_line(raised)
    assert peak < 100_000


def test_two_negative_sides_do_not_make_a_count():
    with pytest.raises(ValueError) as raised:
        unpack(struct.pack("<8i3h", 1, 1, -1, -2, 1, 1, 1, 1, 1, 2, 3))
    one_line(raised)


def test_huge_shapes_do_not_overflow():
    with pytest.raises(ValueError) as raised:
        unpack(struct.pack("<8i", 1, HUGE, HUGE, HUGE, 1, HUGE, HUGE, HUGE))
    one_line(raised)


# ---------------------------------------------------------------- loading a codec


@pytest.mark.parametrize("quality", range(1, 7))
def test_bundled_codecs_load(quality):
    codec = load_codec(quality, "bundled")
    assert model.BUNDLED_WIDTHS[quality] == (codec.N, codec.M)
    assert not codec.training
    assert codec.entropy_bottleneck._quantized_cdf.numel() > 0  # update() has run


@pytest.mark.parametrize("quality", [0, 7, -1, "3", 2.5, None])
@pytest.mark.parametrize("weights", ["bundled", "published"])
def test_an_unknown_quality_is_refused(quality, weights):
    with pytest.raises(ValueError, match="quality is 1 to 6") as raised:
        load_codec(quality, weights)
    one_line(raised)


def test_an_unknown_setting_is_refused(monkeypatch):
    with pytest.raises(ValueError, match="DGML_WEIGHTS is 'bundled' or 'published', not 'best'"):
        load_codec(3, "best")
    monkeypatch.setenv("DGML_WEIGHTS", "Bundled")
    with pytest.raises(ValueError, match="not 'Bundled'") as raised:
        load_codec(3)
    one_line(raised)


def test_a_checkpoint_of_another_width_is_refused():
    with pytest.raises(ValueError, match=r"widths \(32, 128\) \(N, M\), not \(48, 48\)") as raised:
        load_checkpoint(Cheng2020Anchor(48), checkpoint_path(3, "bundled"))
    one_line(raised)


@pytest.mark.parametrize("spoil", [lambda table: table[:5], lambda table: 0 * table, lambda table: table + 1])
def test_a_table_of_z_that_is_none_is_refused(spoil):
    codec = load_codec(1, "bundled")
    with pytest.raises(ValueError, match="is damaged: its table of z"):
        checkpoints.load_z_table(codec, spoil(codec.entropy_bottleneck.frequencies), "a.safetensors")


@pytest.mark.parametrize("length", [None, 0, 5, 1000, 1_000_000])
def test_a_damaged_or_missing_checkpoint_is_refused(length, monkeypatch, tmp_path):
    stored = checkpoint_path(3, "bundled").read_bytes()
    monkeypatch.setattr(settings, "ROOT", tmp_path)
    damaged = checkpoint_path(3, "bundled")
    damaged.parent.mkdir()
    if length is not None:
        damaged.write_bytes(stored[:length])
    with pytest.raises(ValueError) as raised:
        load_codec(3, "bundled")
    assert damaged.name in one_line(raised)


@pytest.mark.parametrize(("name", "spoil", "says"), [
    ("h_a.0.bias", lambda t: t.fill_(float("nan")), "holds what is no number"),
    ("g_s.0.conv2.weight", lambda t: t.fill_(float("inf")), "holds what is no number"),
    (checkpoints.CONTEXT, lambda t: t[:, :, :11].contiguous(), "no checkpoint of this codec"),
    (checkpoints.CONTEXT, lambda t: torch.zeros(256, 128, 30), "no checkpoint of this codec"),
])  # fmt: skip
def test_a_checkpoint_with_one_wrong_tensor_is_refused(name, spoil, says, tmp_path):
    tensors = checkpoints.read_checkpoint(checkpoint_path(3, "bundled"))
    tensors[checkpoints.CONTEXT] = tensors[checkpoints.CONTEXT].flatten(2)[:, :, :12].contiguous()
    save_file(tensors, tmp_path / "sound.safetensors")
    load_checkpoint(DeepAnchor(32, 128), tmp_path / "sound.safetensors")
    save_file(tensors | {name: spoil(tensors[name])}, tmp_path / "spoiled.safetensors")
    with pytest.raises(ValueError, match=says) as raised:
        load_checkpoint(DeepAnchor(32, 128), tmp_path / "spoiled.safetensors")
    assert "spoiled.safetensors" in one_line(raised)


def test_with_one_width_the_deep_anchor_is_compressai_s_codec():
    ours, theirs = (
        {name: p.shape for name, p in codec.named_parameters()} for codec in (DeepAnchor(32, 32), Cheng2020Anchor(32))
    )
    assert ours == theirs


def test_compressai_s_methods_work_on_two_widths():
    torch.manual_seed(0)
    codec, x = DeepAnchor(16, 32).eval(), torch.rand(1, 3, 64, 128)
    codec.update()
    with torch.no_grad():
        out = codec(x)
        assert out["x_hat"].shape == x.shape
        assert out["likelihoods"]["y"].shape == (1, 32, 4, 8) and out["likelihoods"]["z"].shape == (1, 16, 1, 2)
        packed = codec.compress(x)
        again = codec.decompress(packed["strings"], packed["shape"])["x_hat"]
    assert again.shape == x.shape and torch.isfinite(again).all()


def test_a_file_of_something_else_is_refused(tmp_path):
    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError) as raised:
        load_checkpoint(Cheng2020Anchor(32), tmp_path / "other.safetensors")
    assert "other.safetensors" in one_line(raised)


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (65, 130)])
def test_small_and_narrow_pictures_pass_through_the_codec(size):
    codec = load_codec(3, "bundled")
    x = image_to_tensor(Image.fromarray(random_levels(*size, 3)))
    with torch.no_grad():
        out = codec(pad(x))
    x_hat = crop(out["x_hat"], size)
    assert x_hat.shape == x.shape and x_hat.isfinite().all()
    assert bpp(out["likelihoods"], size[0] * size[1]) > 0
    assert tensor_to_image(x_hat).size == size[::-1]


# ---------------------------------------------------------------- what a chapter says, claims and lets one move


def test_a_claim_raises_in_the_run_that_a_page_was_written_for(monkeypatch, capsys):
    for setting in ("DGML_WEIGHTS", "DGML_IMAGES"):
        monkeypatch.delenv(setting, raising=False)
    claim = start_chapter()
    claim("two is two", 2 == 2)
    with pytest.raises(AssertionError, match=r"^two is three$"):
        claim("two is three", 2 == 3)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("settings", "img_idx", "quality", "written_for"),
    [({"DGML_WEIGHTS": "published"}, 0, 3, 3), ({"DGML_IMAGES": "a folder"}, 0, 3, 3), ({}, 1, 3, 3), ({}, 0, 2, 3),
     ({}, 0, 3, 4)],
)  # fmt: skip
def test_a_claim_goes_on_in_any_other_run(settings, img_idx, quality, written_for, monkeypatch, capsys):
    for setting in ("DGML_WEIGHTS", "DGML_IMAGES"):
        monkeypatch.setenv(setting, settings.get(setting, ""))
    codec = SimpleNamespace(quality=quality, source="bundled", N=32, M=32)
    images = [{"image": Image.new("RGB", (8, 8)), "name": "a"}] * 2
    claim = start_chapter(codec, images, img_idx, written_for)
    assert f"quality {quality}" in capsys.readouterr().out
    claim("two is three", np.bool_(False))
    claim("two is three", float("nan") > 0)
    line = "In this run the following does not hold: two is three\n"
    assert capsys.readouterr().out == 2 * line


def test_a_claim_never_stops_a_reader(monkeypatch, capsys):
    for setting in ("DGML_WEIGHTS", "DGML_IMAGES"):
        monkeypatch.delenv(setting, raising=False)
    with pytest.raises(AssertionError):
        start_chapter()("two is three", False)
    monkeypatch.setenv("JPY_SESSION_NAME", "12_exact_and_fast.ipynb")
    start_chapter()("two is three", False)
    assert capsys.readouterr().out == "In this run the following does not hold: two is three\n"


def test_what_is_said_has_the_numbers_of_the_run(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    display_markdown("{rate:.2f} bpp, {{x}}", rate=torch.tensor(0.25))
    assert [one.data for one in shown] == ["0.25 bpp, {x}"]


def test_sliders_are_only_where_one_can_move_them(monkeypatch):
    import ipywidgets

    drawn, shown = [], []

    def draw(number):
        drawn.append(number)

    monkeypatch.setattr("IPython.display.display", shown.append)
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    interact(draw, number=(0, 4))
    assert not is_interactive() and shown == drawn == []
    monkeypatch.setenv("JPY_SESSION_NAME", "05_latent_maps.ipynb")
    interact(draw, number=(0, 4))
    (controls,) = shown
    (slider,) = (child for child in controls.children if isinstance(child, ipywidgets.IntSlider))
    controls.update()
    slider.value = 3
    assert drawn[-1] == 3 and not slider.continuous_update


@pytest.mark.parametrize(("size", "inches"), [((100, 200), 2.5), ((10, 1000), 1), ((1000, 10), 10)])
def test_a_panorama_and_a_tower_stay_legible(size, inches):
    assert inches_high(*size, inches=5) == inches
