"""The vocabulary of the rendered scenes: categories with their groups, keywords, uses and sprites.

`world/` holds it: `vocabulary.toml` (groups and uses, written by hand), `objects.json` (names and
keywords of CLDR) and a sheet of sprites for each style: `sprites.png` (glyphs of Noto Color Emoji),
Microsoft's Fluent Emoji in 3D and flat, and Twemoji. See NOTICE.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rsvp.errors import BadInput

FOLDER = Path(__file__).parent / "world"
SPRITE_SIZE = 128  # side of a sprite, pixels
SHEET_COLUMNS = 12
DEFAULT_STYLE = "noto"
STYLES: Mapping[str, str] = {  # the shipped styles of drawing -> their sheets in FOLDER
    "noto": "sprites.png",
    "fluent-3d": "fluent-3d.webp",
    "fluent-flat": "fluent-flat.webp",
    "twemoji": "twemoji.webp",
}
IMAGE_SUFFIXES = (".png", ".webp")
MOST_MEANINGS = 6  # a keyword that fits more categories says too little


@dataclass(frozen=True, slots=True)
class Category:
    """A kind of object."""

    index: int  # in the vocabulary, and of its sprite
    name: str
    group: str
    keywords: tuple[str, ...]  # those of CLDR, without the name itself and its group
    char: str  # its emoji


@cache
def tables(file: str = "vocabulary.toml") -> Mapping[str, Any]:
    """What a file of `FOLDER` holds."""
    return tomllib.loads((FOLDER / file).read_text(encoding="utf-8"))


@cache
def categories() -> tuple[Category, ...]:
    """The categories, in the order of the sprites."""
    entries = json.loads((FOLDER / "objects.json").read_text(encoding="utf-8"))["objects"]
    return tuple(
        Category(
            i,
            name,
            group,
            tuple(k for k in entry["keywords"] if k not in (name, group)),
            entry["char"],
        )
        for i, entry in enumerate(entries)
        for name, group in [(entry["name"], entry["group"])]
    )


def groups() -> tuple[str, ...]:
    return tuple(tables()["groups"])


def names() -> dict[str, list[str]]:
    """Group -> the names of its categories."""
    return {name: [c.name for c in categories() if c.group == name] for name in groups()}


@cache
def examples() -> dict[str, list[str]]:
    """Question about the shipped picture -> the things that it finds there."""
    finds = tomllib.loads((FOLDER / "examples.toml").read_text(encoding="utf-8"))["finds"]
    return cast(dict[str, list[str]], finds)


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
def sprites(style: str = DEFAULT_STYLE) -> NDArray[np.uint8]:
    """(n, SPRITE_SIZE, SPRITE_SIZE, 4) uint8 RGBA, straight alpha, one sprite a category.

    A category that the style does not draw has a sprite of zeros.

    Args:
        style: one of STYLES, a sheet with the same layout, or a folder of images, each named like
            its category (`red apple.png`) or its emoji (`1f34e.png`).

    Raises:
        BadInput: no such style, or its file cannot be read or does not have the layout.
    """
    path = FOLDER / STYLES[style] if style in STYLES else Path(style)
    try:
        found = _read_folder(path) if path.is_dir() else _read_sheet(path)
    except FileNotFoundError:
        known = ", ".join(STYLES)
        raise BadInput(f"no style, file or folder {style!r}; styles: {known}") from None
    except OSError as error:
        raise BadInput(f"{path}: no image with sprites: {error}") from error
    if not found.any():
        raise BadInput(f"{path}: no sprite of any category")
    return found


def undrawn(style: str) -> tuple[str, ...]:
    """The names of the categories that a style does not draw; scenes show DEFAULT_STYLE instead."""
    return tuple(c.name for c in categories() if not sprites(style)[c.index, ..., 3].any())


def _read_sheet(file: Path) -> NDArray[np.uint8]:
    """The sprites of a sheet: SHEET_COLUMNS a row, in the order of the categories."""
    with Image.open(file) as sheet:
        pixels = np.asarray(sheet.convert("RGBA"))
    side, columns = SPRITE_SIZE, SHEET_COLUMNS
    rows = -(-len(categories()) // columns)
    if pixels.shape != (rows * side, columns * side, 4):
        height, width = pixels.shape[:2]
        expected = f"{columns * side} x {rows * side}"
        raise BadInput(f"{file}: a sheet has {expected} pixels, found {width} x {height}")
    tiles = pixels.reshape(rows, side, columns, side, 4).swapaxes(1, 2)
    return np.ascontiguousarray(tiles.reshape(-1, side, side, 4)[: len(categories())])


def _read_folder(folder: Path) -> NDArray[np.uint8]:
    files = {p.stem.lower(): p for p in sorted(folder.iterdir()) if p.suffix in IMAGE_SUFFIXES}
    tiles = np.zeros((len(categories()), SPRITE_SIZE, SPRITE_SIZE, 4), dtype=np.uint8)
    for category in categories():
        point = f"{ord(category.char):x}"
        names = (category.name, point, f"{point}-fe0f")
        file = next((files[name] for name in names if name in files), None)
        if file is not None:
            with Image.open(file) as image:
                tiles[category.index] = np.asarray(fit_sprite(image.convert("RGBA")))
    return tiles


def fit_sprite(image: Image.Image) -> Image.Image:
    """An RGBA image, cropped to its ink and fitted into an RGBA square of SPRITE_SIZE."""
    ink = image.crop(image.getchannel("A").point(lambda a: 255 * (a > 16)).getbbox())
    scale = (SPRITE_SIZE - 2) / max(ink.size)
    width, height = (max(1, round(side * scale)) for side in ink.size)
    tile = Image.new("RGBA", (SPRITE_SIZE, SPRITE_SIZE))
    tile.paste(
        ink.resize((width, height), Image.Resampling.LANCZOS),
        ((SPRITE_SIZE - width) // 2, (SPRITE_SIZE - height) // 2),
    )
    return tile


def plural(name: str) -> str:
    """The English plural, well enough for this vocabulary."""
    if name in tables()["invariant_plurals"]:
        return name
    if name.endswith(("sh", "ch", "x", "s")):
        return name + "es"
    if name.endswith("y") and name[-2] not in "aeiou":
        return name[:-1] + "ies"
    return name + "s"
