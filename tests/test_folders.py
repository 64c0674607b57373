"""Folders of pictures: every picture is found, in one order, whatever it is called; what is left out is said."""

import io
import os
import sys

import datasets
import numpy as np
import pytest
from PIL import Image, ImageCms

from dgml import checkpoints, settings
from dgml.images import to_rgb
from dgml.picture_sets import load_images
from dgml.settings import ROOT
from helpers import default_index, describe, start_chapter


def noise(seed: int, width: int = 40, height: int = 30) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def save(path, seed: int = 0, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise(seed).save(path, **options)


@pytest.fixture(autouse=True)
def no_hub(monkeypatch):
    def refuse(*args, **kwargs):
        pytest.fail("looked up on the hub")

    monkeypatch.setattr(datasets, "load_dataset", refuse)


def message(source: str | None = None) -> str:
    """The one line that a source that can't be loaded ends in."""
    with pytest.raises(ValueError) as raised:
        load_images(source)
    assert "\n" not in str(raised.value)
    return str(raised.value)


# ---------------------------------------------------------------- what is found


def test_names_that_look_like_splits_are_names(tmp_path):
    for i, name in enumerate(("train_1.png", "test1.png", "eval.png", "validation/a.png", "test/b.png", "dev c.png")):
        save(tmp_path / name, i)
    assert load_images(str(tmp_path))["name"][:] == ["dev c", "eval", "b", "test1", "train_1", "a"]


@pytest.mark.parametrize(
    "name", ["a b", "photo [1]", "{x}", "Müller straße", "写真", "a*b?", "100%", 'it\'s "it"', "-x", "a#b"]
)
def test_names_in_any_script(name, tmp_path, capsys):
    save(tmp_path / f"holiday {name}" / f"{name}.png", 7)
    for source in (tmp_path, tmp_path / f"holiday {name}", tmp_path / f"holiday {name}" / f"{name}.png"):
        images = load_images(str(source))
        assert images["name"][:] == [name]
        assert np.array_equal(np.asarray(images[0]["image"]), np.asarray(noise(7)))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "suffix", ["png", "jpg", "jpeg", "JPG", "webp", "tif", "bmp", "gif", "jp2", "ppm", "ico", "avif", "heic", "jxl"]
)
def test_every_format_that_pillow_and_its_plugins_read(suffix, tmp_path):
    save(tmp_path / f"a.{suffix}")
    images = load_images(str(tmp_path))
    assert images["name"][:] == ["a"] and to_rgb(images[0]["image"]).size == ((24, 18) if suffix == "ico" else (40, 30))


def test_a_picture_counts_by_its_content_not_by_its_suffix(tmp_path):
    save(tmp_path / "a.data", format="PNG")
    save(tmp_path / "b", format="JPEG")
    assert load_images(str(tmp_path))["name"][:] == ["a", "b"]


def test_the_order_is_that_of_the_names(tmp_path):
    for name in ("c/z.png", "b.png", "c/a.png", "a.jpg", "B.png"):
        save(tmp_path / name)
    assert load_images(str(tmp_path))["name"][:] == ["B", "a", "b", "a", "z"]


def test_metadata_hides_no_picture(tmp_path):
    save(tmp_path / "a.png")
    save(tmp_path / "b.png")
    (tmp_path / "metadata.csv").write_text("file_name,text\na.png,first\n")
    assert load_images(str(tmp_path))["name"][:] == ["a", "b"]


def test_a_link_that_leads_back_ends(tmp_path):
    save(tmp_path / "a" / "b.png")
    (tmp_path / "a" / "back").symlink_to(tmp_path)
    assert load_images(str(tmp_path))["name"][:] == ["b"]


def test_it_is_a_data_set_and_decodes_when_asked(tmp_path):
    save(tmp_path / "a.png", 1)
    save(tmp_path / "b.png", 2)
    images = load_images(str(tmp_path))
    assert isinstance(images, datasets.Dataset) and images.column_names == ["image", "name"] and len(images) == 2
    (tmp_path / "b.png").unlink()
    assert images["name"][:] == ["a", "b"]
    for row in (images[0], images[:1]):
        picture = row["image"] if isinstance(row["image"], Image.Image) else row["image"][0]
        assert np.array_equal(np.asarray(picture), np.asarray(noise(1)))
    assert images.select([0])[0]["name"] == "a"
    with pytest.raises(ValueError, match=r"b\.png can't be decoded"):
        images[1]


# ---------------------------------------------------------------- what is left out


def test_what_is_left_out_is_said_in_one_line_with_the_reason(tmp_path, capsys):
    save(tmp_path / "good.png")
    for i in range(5):
        (tmp_path / f"notes{i}.txt").write_text("no picture")
    (tmp_path / "film.mpg").write_bytes(b"\0\0\1\xba" + bytes(100))
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "data.json").write_text("{}")
    (tmp_path / ".DS_Store").touch()
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(20))
    assert load_images(str(tmp_path))["name"][:] == ["good"]
    said = capsys.readouterr().out
    assert said.count("\n") == 1 and said.startswith(f"left out of {tmp_path.name}: ")
    assert {*said.strip().partition(": ")[2].split("; ")} == {
        ".DS_Store (hidden)", "bad.png, film.mpg (damaged)", "empty.jpg (empty)",
        "data.json, notes0.txt, notes1.txt and 3 more (no picture)",
    }  # fmt: skip


@pytest.mark.skipif(sys.platform != "linux", reason="other systems forbid such a name")
def test_a_name_that_is_not_utf8(tmp_path, capsys):
    save(tmp_path / "good.png")
    os.rename(tmp_path / "good.png", os.fsencode(tmp_path) + b"/b\xffd.png")
    assert "holds no picture (b?d.png (a name that is not UTF-8))" in message(str(tmp_path))


@pytest.mark.parametrize("files", [(), ("notes.txt",)])
def test_a_folder_without_pictures(files, tmp_path, monkeypatch):
    for file in files:
        (tmp_path / file).write_text("no picture")
    assert message(str(tmp_path)).startswith(f"{tmp_path}: it holds no picture")
    monkeypatch.setenv("DGML_IMAGES", str(tmp_path))
    said = message()
    assert said.startswith(f"DGML_IMAGES={tmp_path}: it holds no picture") and "set DGML_IMAGES=bundled" in said


def test_a_damaged_picture_is_named(tmp_path):
    save(tmp_path / "a.jpg")
    data = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(data[: len(data) // 2])
    images = load_images(str(tmp_path))
    with pytest.raises(ValueError, match=r"^a\.jpg can't be decoded: "):
        images[0]


# ---------------------------------------------------------------- where it is looked for


@pytest.mark.parametrize("source", ["./holiday", "../holiday", "~/holiday", "/nowhere/holiday", "holiday", "a/b/c",
                                    "notebooks/holiday", "mein urlaub/bilder", "holiday/", "C:\\holiday"])  # fmt: skip
def test_a_path_that_does_not_exist_is_never_looked_up(source):
    said = message(source)
    assert said.startswith(f"{source}: there is no ") and "Give a folder of pictures" in said
    assert "DGML_IMAGES" not in said
    absolute = source.startswith(("/", "~"))
    assert (f"relative folders count from {ROOT}" in said) != absolute


def test_relative_folders_count_from_the_book(tmp_path, monkeypatch):
    save(tmp_path / "book" / "mine" / "a.png")
    save(tmp_path / "elsewhere" / "mine" / "b.png")
    monkeypatch.setattr(settings, "ROOT", tmp_path / "book")
    monkeypatch.chdir(tmp_path / "elsewhere")
    for source in ("mine", "./mine"):
        assert load_images(source)["name"][:] == ["a"]
    save(tmp_path / "elsewhere" / "other" / "c.png")
    assert f"did you mean {tmp_path / 'elsewhere' / 'other'}" in message("other")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_images("~/elsewhere/other")["name"][:] == ["c"]


def hub(monkeypatch, **splits) -> None:
    """Stand in for the hub: each split a number of pictures."""
    made = {name: datasets.Dataset.from_dict({"picture": [noise(i) for i in range(count)], "label": count * [1]})
            .cast_column("picture", datasets.Image()) for name, count in splits.items()}  # fmt: skip
    monkeypatch.setattr(datasets, "load_dataset", lambda name: datasets.DatasetDict(made))


@pytest.mark.parametrize(("splits", "chosen", "count"), [({"train": 3, "validation": 2, "test": 1}, "validation", 2),
                                                         ({"test": 1, "train": 3}, "test", 1)])  # fmt: skip
def test_a_name_on_the_hub_says_its_split(splits, chosen, count, monkeypatch, capsys):
    hub(monkeypatch, **splits)
    images = load_images("owner/pictures")
    assert len(images) == count and images.column_names == ["image", "name"] and images["name"][0] == "0"
    assert np.array_equal(np.asarray(images[0]["image"]), np.asarray(noise(0)))
    assert f"owner/pictures: the split '{chosen}' of {', '.join(splits)}\n" == capsys.readouterr().out


def test_a_name_that_the_hub_does_not_know(monkeypatch):
    def missing(name):
        raise FileNotFoundError("no such data set\nand a second line")

    monkeypatch.setattr(datasets, "load_dataset", missing)
    said = message("owner/pictures")
    assert f"there is no folder {ROOT / 'owner/pictures'}" in said and "no such data set" in said


@pytest.mark.parametrize(("folder", "count", "index"), [("kodak", 24, 22), ("Kodak", 23, 22), ("kodak", 22, 0),
                                                        ("kodak24", 24, 0)])  # fmt: skip
def test_the_default_index(folder, count, index, tmp_path, monkeypatch):
    for i in range(count):
        save(tmp_path / folder / f"{i:02}.png")
    monkeypatch.setenv("DGML_IMAGES", str(tmp_path / folder) + "/")
    assert default_index() == index


def test_the_default_index_of_the_bundled_pictures_is_0(monkeypatch):
    assert default_index() == 0
    monkeypatch.setenv("DGML_IMAGES", "")
    assert default_index() == 0


# ---------------------------------------------------------------- colours and sizes


def wide_profile() -> bytes:
    """An ICC profile of Display P3's primaries with a gamma of 2.2, written out by hand."""
    import struct

    def s15(*values):
        return struct.pack(f">{len(values)}i", *(round(65536 * v) for v in values))

    xyz = {b"rXYZ": (0.51512, 0.24120, -0.00105), b"gXYZ": (0.29198, 0.69225, 0.04189),
           b"bXYZ": (0.15710, 0.06657, 0.78407), b"wtpt": (0.9642, 1, 0.8249)}  # fmt: skip
    tags = {key: b"XYZ \0\0\0\0" + s15(*value) for key, value in xyz.items()}
    tags |= {
        key: b"curv\0\0\0\0" + struct.pack(">IH", 1, round(2.2 * 256)) + b"\0\0" for key in (b"rTRC", b"gTRC", b"bTRC")
    }
    table, data, offset = b"", b"", 132 + 12 * len(tags)
    for key, value in tags.items():
        table += key + struct.pack(">II", offset + len(data), len(value))
        data += value
    header = struct.pack(">I4sI4s4s4s12s4s4sI4s4s8sI", 0, b"lcms", 0x02400000, b"mntr", b"RGB ", b"XYZ ", bytes(12),
                         b"acsp", bytes(4), 0, bytes(4), bytes(4), bytes(8), 0) + s15(0.9642, 1, 0.8249)  # fmt: skip
    header = header.ljust(128, b"\0") + struct.pack(">I", len(tags))
    body = header + table + data
    return struct.pack(">I", len(body)) + body[4:]


def test_a_colour_profile_is_converted_to_srgb(tmp_path):
    inside = Image.new("RGB", (8, 8), (200, 100, 60))
    inside.save(tmp_path / "p3.png", icc_profile=wide_profile())
    got = np.asarray(to_rgb(load_images(str(tmp_path))[0]["image"]))[0, 0].astype(int)
    # By hand: P3's linear light to sRGB's (its matrix by the CSS Color 4 specification), then sRGB's curve.
    to_srgb = np.array([[1.2249402, -0.2249402, 0], [-0.0420570, 1.0420570, 0], [-0.0196376, -0.0786361, 1.0982736]])
    linear = to_srgb @ (np.array([200, 100, 60]) / 255) ** (563 / 256)
    curve = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear.clip(0) ** (1 / 2.4) - 0.055)
    assert np.abs(got - 255 * curve).max() <= 1.5
    assert np.abs(got - (200, 100, 60)).max() > 8


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P"])
def test_srgb_itself_changes_no_pixel(mode):
    picture = noise(3).convert(mode)
    picture.info["icc_profile"] = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    plain = picture.copy()
    del plain.info["icc_profile"]
    assert np.array_equal(np.asarray(to_rgb(picture)), np.asarray(to_rgb(plain)))


def test_conversion_happens_once_and_keeps_alpha():
    picture = Image.new("RGBA", (8, 8), (200, 100, 60, 0))
    picture.info["icc_profile"] = wide_profile()
    assert to_rgb(picture).getpixel((0, 0)) == (255, 255, 255)
    opaque = picture.convert("RGB")
    once = to_rgb(opaque)
    assert to_rgb(once).tobytes() == once.tobytes() != opaque.tobytes()


def test_a_profile_that_cannot_be_read_is_passed_over():
    picture = noise(1)
    picture.info["icc_profile"] = b"no profile"
    assert to_rgb(picture).tobytes() == noise(1).tobytes()


def test_a_large_photograph_is_scaled_down_and_said(tmp_path, monkeypatch, capsys):
    Image.new("RGB", (2500, 1600), "grey").save(tmp_path / "large.jpg")
    monkeypatch.setenv("DGML_IMAGES", str(tmp_path))
    codec = checkpoints.load_codec(3)
    images = load_images()
    size = images[0]["image"].size
    assert 1.98e6 < size[0] * size[1] <= 2e6 and abs(size[0] / size[1] - 2500 / 1600) < 0.002
    start_chapter(codec, images, 0)
    last = capsys.readouterr().out.splitlines()[-1]
    assert f"{size[0]}x{size[1]}, scaled down from 2500x1600 (set DGML_MEGAPIXELS=inf to keep it whole)" in last
    assert "the run may take" in last
    for whole in (load_images(megapixels=float("inf")), monkeypatch.setenv("DGML_MEGAPIXELS", "inf") or load_images()):
        assert whole[0]["image"].size == (2500, 1600)
        line = describe(codec, whole, 0).splitlines()[-1]
        assert "2500x1600; the run may take" in line and "scaled" not in line


def test_a_turned_photograph_keeps_its_shape_when_scaled(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    Image.new("RGB", (2500, 1600), "grey").save(tmp_path / "turned.jpg", exif=exif)
    picture = load_images(str(tmp_path))[0]["image"]
    assert abs(picture.height / picture.width - 2500 / 1600) < 0.002 and picture.info["native_size"] == (1600, 2500)


@pytest.mark.parametrize("value", ["two", "0", "-1", "nan"])
def test_a_limit_that_is_none(value, monkeypatch):
    monkeypatch.setenv("DGML_MEGAPIXELS", value)
    with pytest.raises(ValueError, match="DGML_MEGAPIXELS is a number"):
        load_images()


def test_pictures_in_memory_are_the_bundled_ones():
    images = load_images("bundled")
    file = io.BytesIO()
    images[2]["image"].save(file, "PNG")
    assert images["name"][:] == ["astronaut", "coffee", "chelsea"] and Image.open(file).size == (451, 300)


def test_a_folder_of_the_working_directory_is_never_opened_by_datasets(tmp_path, monkeypatch):
    (tmp_path / "trips/2024").mkdir(parents=True)
    Image.new("RGB", (64, 64)).save(tmp_path / "trips/2024/test1.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.load_dataset", lambda name: pytest.fail("looked up"))
    with pytest.raises(ValueError, match=r"did you mean .*trips/2024"):
        load_images("trips/2024")
    with pytest.raises(ValueError, match=r"there is no .*trips/2025"):
        load_images("trips/2025")


@pytest.mark.parametrize(("suffix", "exif"), [("png", b"Exif\0\0garbage"), ("webp", b"Exif\0\0II*\0")])
def test_damaged_exif_data_hide_no_picture(tmp_path, suffix, exif):
    noise(3).save(tmp_path / f"a.{suffix}", exif=exif, lossless=True)
    assert np.array_equal(np.asarray(to_rgb(load_images(str(tmp_path))[0]["image"])), np.asarray(noise(3)))
