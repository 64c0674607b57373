"""What a chapter is: order and part from ``_toc.yml``, the title from its first line, all else from its metadata.

Under ``book`` a notebook's metadata has ``minutes`` (to read it), ``map`` (what the map at its head highlights),
``promise`` (the sentence on its card), ``card`` (the function of ``cards.py`` that draws the card's picture) and
``shown`` (that picture in words).
"""

import json
from functools import cache
from pathlib import Path
from typing import NamedTuple

import yaml

ROOT = Path(__file__).resolve().parents[2]


class Chapter(NamedTuple):
    number: int
    path: Path
    part: str
    title: str
    minutes: int
    map: list[str]
    promise: str
    card: str
    shown: str


@cache
def chapters() -> tuple[Chapter, ...]:
    """The chapters in the order of the table of contents."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    numbered = [part for part in toc["parts"] if part.get("numbered")]
    places = [(ROOT / f"{entry['file']}.ipynb", part["caption"]) for part in numbered for entry in part["chapters"]]
    return tuple(chapter(number, *place) for number, place in enumerate(places, 1))


def chapter(number: int, path: Path, part: str) -> Chapter:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    title = notebook["cells"][0]["source"][0].removeprefix("# ").strip()
    return Chapter(number, path, part, title, **notebook["metadata"]["book"])
