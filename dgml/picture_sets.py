"""Sets of pictures: three photographs that come with scikit-image, a folder, or a data set on the hub."""

import io
import math
import os
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from dgml.images import to_rgb, upright
from dgml.settings import ROOT, most_megapixels, setting

if TYPE_CHECKING:
    from datasets import Dataset  # takes a second to import

HUB_NAME = re.compile(r"[\w.-]*\w/\w[\w.-]*", re.ASCII)  # owner/name
# Formats whose pictures Pillow always draws when it knows their header.
DRAWN = {"PNG", "JPEG", "MPO", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "HEIF", "JXL", "JPEG2000"}


def load_images(source: str | None = None, megapixels: float | None = None) -> "Dataset":
    """A ``datasets.Dataset`` with the columns ``image`` (PIL) and ``name``, each decoded when it is asked for.

    ``images["name"][:]`` decodes none of them.

    ``source`` is "bundled" (three photographs that ship inside scikit-image), a folder of pictures, one picture's file,
    or the name of a data set on the hub such as ``danjacobellis/kodak``; by default what ``DGML_IMAGES`` says, else
    "bundled".  A folder is searched with its subfolders in the order of its names; what is left out of it is printed.
    A picture of more than ``megapixels`` is scaled down to them; by default what ``DGML_MEGAPIXELS`` says, else 2.
    Raises ValueError when it holds no picture or can't be loaded.
    """
    import datasets

    named = "" if source else "DGML_IMAGES="
    source = source or setting("IMAGES")
    limit = 1e6 * (most_megapixels() if megapixels is None else megapixels)
    datasets.disable_progress_bars()
    try:
        images = bundled_pictures() if source == "bundled" else folder_pictures(source) or hub_pictures(source)
    except ValueError as error:
        way_out = "set DGML_IMAGES=bundled" if named else "bundled"
        raise ValueError(
            f"{named}{source}: {error}. Give a folder of pictures, a data set's name on the hub, or {way_out}."
        ) from None
    return images.with_transform(partial(decoded, limit=limit))


def rgb_pictures(images: "Dataset") -> Iterator[tuple[str, Image.Image]]:
    """Name and picture in RGB of each row of :func:`load_images` that can be decoded; the others are named last."""
    left_out = []
    for i, name in enumerate(images.with_format("arrow")["name"].to_pylist()):
        try:
            picture = to_rgb(images[i]["image"])
        except (OSError, ValueError) as error:
            left_out.append(str(error) if name in str(error) else f"{name}: {error}")
            continue
        yield name, picture
    if left_out:
        print(f"left out: {'; '.join(left_out)}")


def bundled_pictures() -> "Dataset":
    """The three photographs of scikit-image as a data set."""
    from skimage import data

    names = ["astronaut", "coffee", "chelsea"]
    return data_set([Image.fromarray(getattr(data, name)()) for name in names], names)


def data_set(pictures: list, names: list[str]) -> "Dataset":
    """The columns ``image``, of pictures or their {"path", "bytes"}, and ``name``; nothing is decoded."""
    import datasets

    features = datasets.Features({"image": datasets.Image(decode=False), "name": datasets.Value("string")})
    return datasets.Dataset.from_dict({"image": pictures, "name": names}, features=features)


def folder_pictures(source: str) -> "Dataset | None":
    """The pictures in a folder and its subfolders as a data set of paths, or None if ``source`` names one on the hub.

    A relative folder counts from the book's own folder, wherever the process runs.  A name on the hub has the form
    owner/name; where a folder "owner" lies in the book or in the working directory, it is a mistyped folder, and
    ``datasets`` would open it with splits guessed from names.
    """
    try:
        path = ROOT / Path(source).expanduser()
    except RuntimeError as error:  # ~ and the name of nobody
        raise ValueError(str(error)) from None
    if not path.exists():
        parts = source.split("/")
        if HUB_NAME.fullmatch(source) and not (ROOT / parts[0]).exists() and not Path(parts[0]).exists():
            return None
        counted = "" if Path(source).expanduser().is_absolute() else f" (relative folders count from {ROOT})"
        here = Path(source).expanduser().absolute()
        raise ValueError(f"there is no {path}{counted}" + (f"; did you mean {here}" if here.exists() else ""))
    pictures, left_out = find_pictures(path)
    if left_out:
        print(f"left out of {path.resolve().name}: {in_words(left_out)}")
    if not pictures:
        raise ValueError("it holds no picture" + (f" ({in_words(left_out)})" if left_out else ""))
    return data_set([{"path": str(p), "bytes": None} for p in pictures], [p.stem for p in pictures])


def hub_pictures(name: str) -> "Dataset":
    """The pictures of a data set on the hub: of its split "validation" if it has one, else of its first."""
    import datasets

    try:
        splits = datasets.get_dataset_split_names(name)
        chosen = "validation" if "validation" in splits else splits[0]
        split = datasets.load_dataset(name, split=chosen)
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(
            f"there is no folder {ROOT / name}, and as a data set on the hub it could not be loaded ({reason})"
        ) from None
    print(f"{name}: the split {chosen!r} of {', '.join(splits)}")
    columns = [column for column, feature in split.features.items() if isinstance(feature, datasets.Image)]
    if not columns or not len(split):
        raise ValueError("it holds no picture")
    images = split.select_columns(columns[0]).cast_column(columns[0], datasets.Image(decode=False))
    if columns[0] != "image":
        images = images.rename_column(columns[0], "image")
    # Of the table, since a row would bring the bytes of its picture too.
    paths = [p for chunk in images.with_format("arrow")["image"].chunks for p in chunk.field("path").to_pylist()]
    return images.add_column("name", [Path(path or str(i)).stem for i, path in enumerate(paths)])


# ---------------------------------------------------------------- decoding


class Decoded:
    """The pictures of rows {"bytes", "path"}, each decoded when it is asked for."""

    def __init__(self, rows: list[dict], limit: float):
        self.rows, self.limit = rows, limit

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> Image.Image:
        return open_encoded(self.rows[i], self.limit)


def decoded(batch: dict, limit: float) -> dict:
    """The same columns, with pictures of at most ``limit`` pixels in place of their bytes."""
    if "image" not in batch:
        return batch
    pictures = Decoded(batch["image"], limit)
    # One row at once: datasets reports what its picture raises later as a fault of this function.
    return batch | {"image": [pictures[0]] if len(pictures) == 1 else pictures}


def open_encoded(row: dict, limit: float = math.inf) -> Image.Image:
    """The picture of {"bytes", "path"}, upright, scaled down to ``limit`` pixels if it has more.

    ``info["native_size"]`` keeps the size of one that was scaled.  ValueError names a damaged one.
    """
    try:
        picture: Image.Image = Image.open(io.BytesIO(row["bytes"]) if row["bytes"] is not None else row["path"])
        native = picture.size
        if picture.width * picture.height > limit:
            picture.draft("RGB", scaled(native, 4 * limit))  # JPEG alone: decodes fewer coefficients
        picture.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{Path(row['path'] or 'a picture').name} can't be decoded: {error}") from None
    drawn_at, picture = picture.size, upright(picture)
    if native[0] * native[1] > limit:
        native = native if picture.size == drawn_at else native[::-1]
        picture = to_rgb(picture).resize(scaled(picture.size, limit), Image.Resampling.LANCZOS)
        picture.info["native_size"] = native
    return picture


def scaled(size: tuple[int, int], pixels: float) -> tuple[int, int]:
    """The size with at most ``pixels`` pixels that has the same shape."""
    factor = (pixels / (size[0] * size[1])) ** 0.5
    return max(1, int(size[0] * factor)), max(1, int(size[1] * factor))


# ---------------------------------------------------------------- folders


def find_pictures(path: Path) -> tuple[list[Path], dict[str, list[str]]]:
    """The pictures in a folder and below, or the one at ``path``, by name; and reason -> what else is there."""
    pictures: list[Path] = []
    left_out: dict[str, list[str]] = {}
    for file in files_below(path, left_out) if path.is_dir() else [path]:
        reason = why_no_picture(file)
        if reason:
            left_out.setdefault(reason, []).append(printable(file.name))
        else:
            pictures.append(file)
    return pictures, left_out


def files_below(folder: Path, left_out: dict[str, list[str]]) -> list[Path]:
    """All files in a folder and its subfolders, each folder once, sorted by the names on the way to them."""
    files, seen = [], set()

    def unreadable(error: OSError) -> None:
        left_out.setdefault("a folder that can't be read", []).append(printable(Path(error.filename).name))

    for where, folders, names in os.walk(folder, onerror=unreadable, followlinks=True):
        if os.path.realpath(where) in seen:  # a link that leads back
            folders.clear()
            continue
        seen.add(os.path.realpath(where))
        hidden = [name for name in (*folders, *names) if name.startswith(".")]
        if hidden:
            left_out.setdefault("hidden", []).extend(map(printable, hidden))
        folders[:] = [name for name in folders if not name.startswith(".")]
        files += [Path(where, name) for name in names if not name.startswith(".")]
    return sorted(files, key=lambda file: file.parts)


def why_no_picture(file: Path) -> str:
    """Why a file is no picture, or "".  Its header is read; pixels only in formats that Pillow may not draw."""
    if printable(file.name) != file.name:
        return "a name that is not UTF-8"
    if not file.is_file():
        return "no file"
    try:
        with Image.open(file) as picture:
            if picture.format not in DRAWN:
                picture.load()  # Pillow knows the header of a video (MPEG) and of formats for which it needs a program
    except Image.UnidentifiedImageError:
        named = file.suffix.lower() in Image.registered_extensions()
        return "empty" if not file.stat().st_size else "damaged" if named else "no picture"
    except PermissionError:
        return "not readable"
    except Image.DecompressionBombError:
        return "too large for Pillow"
    except Exception:  # a damaged header ends in many ways
        return "can't be decoded here"
    return ""


def in_words(left_out: dict[str, list[str]]) -> str:
    """'a.txt, b.txt and 3 more (no picture); c.png (empty)'."""
    parts = []
    for reason, names in left_out.items():
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        parts.append(f"{', '.join(names[:3])}{more} ({reason})")
    return "; ".join(parts)


def printable(name: str) -> str:
    """A file's name in which what is no UTF-8 is replaced by a question mark."""
    return name.encode(errors="replace").decode()
