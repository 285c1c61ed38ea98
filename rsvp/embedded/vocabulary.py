"""The vocabulary of the rendered scenes: categories with their groups, keywords, uses and sprites.

`world/` holds it: `vocabulary.toml` (groups and uses, written by hand), `objects.json` (names and
keywords of CLDR) and `sprites.png` (glyphs of Noto Color Emoji). See NOTICE.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

FOLDER = Path(__file__).parent / "world"
SPRITE_SIZE = 128  # side of a sprite, pixels
MOST_MEANINGS = 6  # a keyword that fits more categories says too little


@dataclass(frozen=True, slots=True)
class Category:
    """A kind of object."""

    index: int  # in the vocabulary, and of its sprite
    name: str
    group: str
    keywords: tuple[str, ...]  # those of CLDR, without the name itself and its group


@cache
def tables() -> Mapping[str, Any]:
    """What `vocabulary.toml` holds."""
    return tomllib.loads((FOLDER / "vocabulary.toml").read_text(encoding="utf-8"))


@cache
def categories() -> tuple[Category, ...]:
    """The categories, in the order of the sprites."""
    entries = json.loads((FOLDER / "objects.json").read_text(encoding="utf-8"))["objects"]
    return tuple(
        Category(i, name, group, tuple(k for k in entry["keywords"] if k not in (name, group)))
        for i, entry in enumerate(entries)
        for name, group in [(entry["name"], entry["group"])]
    )


def groups() -> tuple[str, ...]:
    """The names of the groups."""
    return tuple(tables()["groups"])


@cache
def keywords() -> dict[str, frozenset[int]]:
    """Keyword -> the indices of the categories that it fits."""
    found: dict[str, set[int]] = {}
    for category in categories():
        for word in category.keywords:
            found.setdefault(word, set()).add(category.index)
    taken = {c.name for c in categories()} | set(groups())
    return {
        word: frozenset(indices)
        for word, indices in sorted(found.items())
        if len(indices) <= MOST_MEANINGS and word not in taken and word.isascii()
    }


@cache
def uses(table: str = "uses") -> dict[str, frozenset[int]]:
    """Use -> the indices of the categories that serve it.

    The table ``uses_without_with`` holds the uses that read without "with".
    """
    index = {c.name: c.index for c in categories()}
    return {use: frozenset(index[n] for n in names) for use, names in tables()[table].items()}


@cache
def sprites() -> NDArray[np.uint8]:
    """(n, SPRITE_SIZE, SPRITE_SIZE, 4) uint8 RGBA, straight alpha, one sprite a category."""
    with Image.open(FOLDER / "sprites.png") as sheet:
        pixels = np.asarray(sheet.convert("RGBA"))
    side = SPRITE_SIZE
    rows, columns = pixels.shape[0] // side, pixels.shape[1] // side
    tiles = pixels.reshape(rows, side, columns, side, 4).swapaxes(1, 2)
    return np.ascontiguousarray(tiles.reshape(-1, side, side, 4)[: len(categories())])


def plural(name: str) -> str:
    """The English plural, well enough for this vocabulary."""
    if name in tables()["invariant_plurals"]:
        return name
    if name.endswith(("sh", "ch", "x", "s")):
        return name + "es"
    if name.endswith("y") and name[-2] not in "aeiou":
        return name[:-1] + "ies"
    return name + "s"
