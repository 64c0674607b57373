"""Folders of pictures: every picture is found, in one order, whatever it is called; what is left out is said."""

import io
import os
import sys

import datasets
import numpy as np
import pytest
from PIL import Image
from samples import noise, save_picture

from dgml import picture_sets
from dgml.images import to_rgb
from dgml.picture_sets import load_images
from dgml.settings import ROOT


@pytest.fixture(autouse=True)
def no_hub(monkeypatch):
    def refuse(*args, **kwargs):
        pytest.fail("looked up on the hub")

    for name in ("get_dataset_split_names", "load_dataset"):
        monkeypatch.setattr(datasets, name, refuse)


def message(source: str | None = None) -> str:
    """The one line that a source that can't be loaded ends in."""
    with pytest.raises(ValueError) as raised:
        load_images(source)
    assert "\n" not in str(raised.value)
    return str(raised.value)


# ---------------------------------------------------------------- what is found


def test_names_that_look_like_splits_are_names(tmp_path):
    for i, name in enumerate(("train_1.png", "test1.png", "eval.png", "validation/a.png", "test/b.png", "dev c.png")):
        save_picture(tmp_path / name, i)
    assert load_images(str(tmp_path))["name"][:] == ["dev c", "eval", "b", "test1", "train_1", "a"]


@pytest.mark.parametrize(
    "name", ["a b", "photo [1]", "{x}", "Müller straße", "写真", "a*b?", "100%", 'it\'s "it"', "-x", "a#b"]
)
def test_names_in_any_script(name, tmp_path, capsys):
    save_picture(tmp_path / f"holiday {name}" / f"{name}.png", 7)
    for source in (tmp_path, tmp_path / f"holiday {name}", tmp_path / f"holiday {name}" / f"{name}.png"):
        images = load_images(str(source))
        assert images["name"][:] == [name]
        assert np.array_equal(np.asarray(images[0]["image"]), np.asarray(noise(40, 30, 7)))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "suffix", ["png", "jpg", "jpeg", "JPG", "webp", "tif", "bmp", "gif", "jp2", "ppm", "ico", "avif", "heic", "jxl"]
)
def test_every_format_that_pillow_and_its_plugins_read(suffix, tmp_path):
    save_picture(tmp_path / f"a.{suffix}")
    images = load_images(str(tmp_path))
    assert images["name"][:] == ["a"] and to_rgb(images[0]["image"]).size == ((24, 18) if suffix == "ico" else (40, 30))


def test_a_picture_counts_by_its_content_not_by_its_suffix(tmp_path):
    save_picture(tmp_path / "a.data", format="PNG")
    save_picture(tmp_path / "b", format="JPEG")
    assert load_images(str(tmp_path))["name"][:] == ["a", "b"]


def test_the_order_is_that_of_the_names(tmp_path):
    for name in ("c/z.png", "b.png", "c/a.png", "a.jpg", "B.png"):
        save_picture(tmp_path / name)
    assert load_images(str(tmp_path))["name"][:] == ["B", "a", "b", "a", "z"]


def test_metadata_hides_no_picture(tmp_path):
    save_picture(tmp_path / "a.png")
    save_picture(tmp_path / "b.png")
    (tmp_path / "metadata.csv").write_text("file_name,text\na.png,first\n")
    assert load_images(str(tmp_path))["name"][:] == ["a", "b"]


def test_a_link_that_leads_back_ends(tmp_path):
    save_picture(tmp_path / "a" / "b.png")
    (tmp_path / "a" / "back").symlink_to(tmp_path)
    assert load_images(str(tmp_path))["name"][:] == ["b"]


def test_it_is_a_data_set_and_decodes_when_asked(tmp_path):
    save_picture(tmp_path / "a.png", 1)
    save_picture(tmp_path / "b.png", 2)
    images = load_images(str(tmp_path))
    assert isinstance(images, datasets.Dataset) and images.column_names == ["image", "name"] and len(images) == 2
    (tmp_path / "b.png").unlink()
    assert images["name"][:] == ["a", "b"]
    for picture in (images[0]["image"], images[:1]["image"][0], images[:2]["image"][0]):
        assert np.array_equal(np.asarray(picture), np.asarray(noise(40, 30, 1)))
    assert images.select([0])[0]["name"] == "a"
    with pytest.raises(ValueError, match=r"b\.png can't be decoded"):
        images[1]


# ---------------------------------------------------------------- what is left out


def test_what_is_left_out_is_said_in_one_line_with_the_reason(tmp_path, capsys):
    save_picture(tmp_path / "good.png")
    for i in range(5):
        (tmp_path / f"notes{i}.txt").write_text("no picture")
    (tmp_path / "video.mpg").write_bytes(b"\0\0\1\xba" + bytes(100))
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "data.json").write_text("{}")
    (tmp_path / ".DS_Store").touch()
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(20))
    assert load_images(str(tmp_path))["name"][:] == ["good"]
    said = capsys.readouterr().out
    assert said.count("\n") == 1 and said.startswith(f"left out of {tmp_path.name}: ")
    assert {*said.strip().partition(": ")[2].split("; ")} == {
        ".DS_Store (hidden)", "bad.png, video.mpg (damaged)", "empty.jpg (empty)",
        "data.json, notes0.txt, notes1.txt and 3 more (no picture)",
    }  # fmt: skip


@pytest.mark.skipif(sys.platform != "linux", reason="other systems forbid such a name")
def test_a_name_that_is_not_utf8(tmp_path, capsys):
    save_picture(tmp_path / "good.png")
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
    save_picture(tmp_path / "a.jpg")
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
    save_picture(tmp_path / "book" / "mine" / "a.png")
    save_picture(tmp_path / "elsewhere" / "mine" / "b.png")
    monkeypatch.setattr(picture_sets, "ROOT", tmp_path / "book")
    monkeypatch.chdir(tmp_path / "elsewhere")
    for source in ("mine", "./mine"):
        assert load_images(source)["name"][:] == ["a"]
    save_picture(tmp_path / "elsewhere" / "other" / "c.png")
    assert f"did you mean {tmp_path / 'elsewhere' / 'other'}" in message("other")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_images("~/elsewhere/other")["name"][:] == ["c"]


def hub(monkeypatch, **splits) -> list[str]:
    """Stand in for the hub: each split a number of pictures.  The list gets the splits that are loaded."""
    loaded = []

    def load(name, split):
        loaded.append(split)
        columns = {"picture": [noise(40, 30, i) for i in range(splits[split])], "label": splits[split] * [1]}
        return datasets.Dataset.from_dict(columns).cast_column("picture", datasets.Image())

    monkeypatch.setattr(datasets, "get_dataset_split_names", lambda name: list(splits))
    monkeypatch.setattr(datasets, "load_dataset", load)
    return loaded


@pytest.mark.parametrize(("splits", "chosen", "count"), [({"train": 3, "validation": 2, "test": 1}, "validation", 2),
                                                         ({"test": 1, "train": 3}, "test", 1)])  # fmt: skip
def test_a_name_on_the_hub_says_its_split(splits, chosen, count, monkeypatch, capsys):
    loaded = hub(monkeypatch, **splits)
    images = load_images("owner/pictures")
    assert loaded == [chosen]
    assert len(images) == count and images.column_names == ["image", "name"] and images["name"][0] == "0"
    assert np.array_equal(np.asarray(images[0]["image"]), np.asarray(noise(40, 30, 0)))
    assert f"owner/pictures: the split '{chosen}' of {', '.join(splits)}\n" == capsys.readouterr().out


def test_names_on_the_hub_are_those_of_the_files(monkeypatch, tmp_path):
    for name in ("b", "a"):
        save_picture(tmp_path / f"{name}.png")
    hub(monkeypatch, train=1)
    columns = {"image": [str(tmp_path / "b.png"), str(tmp_path / "a.png")]}
    made = datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image())
    monkeypatch.setattr(datasets, "load_dataset", lambda name, split: made)
    assert load_images("owner/pictures")["name"][:] == ["b", "a"]


def test_a_name_that_the_hub_does_not_know(monkeypatch):
    def missing(name):
        raise FileNotFoundError("no such data set\nand a second line")

    monkeypatch.setattr(datasets, "get_dataset_split_names", missing)
    said = message("owner/pictures")
    assert f"there is no folder {ROOT / 'owner/pictures'}" in said and "no such data set" in said


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
    with pytest.raises(ValueError, match=r"did you mean .*trips/2024"):
        load_images("trips/2024")
    with pytest.raises(ValueError, match=r"there is no .*trips/2025"):
        load_images("trips/2025")


@pytest.mark.parametrize(("suffix", "exif"), [("png", b"Exif\0\0garbage"), ("webp", b"Exif\0\0II*\0")])
def test_damaged_exif_data_hide_no_picture(tmp_path, suffix, exif):
    noise(40, 30, 3).save(tmp_path / f"a.{suffix}", exif=exif, lossless=True)
    assert np.array_equal(np.asarray(to_rgb(load_images(str(tmp_path))[0]["image"])), np.asarray(noise(40, 30, 3)))
