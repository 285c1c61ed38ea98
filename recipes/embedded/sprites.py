"""Build the sprites and the vocabulary of the rendered scenes from Debian's packages.

    python -m recipes.embedded.sprites

reads the groups of `vocabulary.toml`, the glyphs of Noto Color Emoji (fonts-noto-color-emoji), the
names and keywords of CLDR (unicode-cldr-core) and the code points of Unicode (unicode-data), and
writes `sprites.png` and `objects.json` beside it. Both ship with the package, so that rendering a
scene needs none of the packages.
"""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from rsvp.embedded.vocabulary import FOLDER, SPRITE_SIZE, tables
from rsvp.errors import BadInput
from rsvp.platform.files import write_text

FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
ANNOTATIONS = Path("/usr/share/unicode/cldr/common/annotations/en.xml")
CODE_POINTS = Path("/usr/share/unicode/emoji/emoji-test.txt")
PACKAGES = "fonts-noto-color-emoji unicode-cldr-core unicode-data"
STRIKE = 109  # the only size in which the font holds its bitmaps
COLUMNS = 12


def sources() -> tuple[Path, ...]:
    """The files of the packages."""
    return FONT, ANNOTATIONS, CODE_POINTS


def read_annotations() -> dict[str, tuple[str, list[str]]]:
    """CLDR name -> (character, keywords), for single-code-point emoji."""
    emoji: set[str] = set()
    for line in CODE_POINTS.read_text(encoding="utf-8").splitlines():
        if "; fully-qualified" in line:
            points = [chr(int(p, 16)) for p in line.split(";")[0].split() if p != "FE0F"]
            if len(points) == 1:
                emoji.add(points[0])
    names: dict[str, str] = {}
    keywords: dict[str, list[str]] = {}
    for node in ET.parse(ANNOTATIONS).iter("annotation"):
        char = node.get("cp", "")
        if char not in emoji or node.text is None:
            continue
        if node.get("type") == "tts":
            names[char] = node.text
        else:
            keywords[char] = [word.strip() for word in node.text.split("|")]
    return {name: (char, keywords.get(char, [])) for char, name in names.items()}


def draw_sprite(char: str) -> Image.Image:
    """The glyph, cropped to its ink and fitted into an RGBA square of SPRITE_SIZE."""
    font = ImageFont.truetype(str(FONT), STRIKE)
    canvas = Image.new("RGBA", (160, 160))
    ImageDraw.Draw(canvas).text((10, 10), char, font=font, embedded_color=True)
    ink = canvas.crop(canvas.getchannel("A").point(lambda a: 255 * (a > 16)).getbbox())
    scale = (SPRITE_SIZE - 2) / max(ink.size)
    width, height = (max(1, round(side * scale)) for side in ink.size)
    tile = Image.new("RGBA", (SPRITE_SIZE, SPRITE_SIZE))
    tile.paste(
        ink.resize((width, height), Image.Resampling.LANCZOS),
        ((SPRITE_SIZE - width) // 2, (SPRITE_SIZE - height) // 2),
    )
    return tile


def build() -> None:
    """Write sprites.png and objects.json.

    Raises:
        BadInput: a package is not installed, or CLDR lacks a name.
    """
    for file in sources():
        if not file.exists():
            raise BadInput(f"{file} is missing: apt-get install {PACKAGES}")
    annotations = read_annotations()
    objects, tiles = [], []
    for group, names in tables()["groups"].items():
        for name in names:
            if name not in annotations:
                raise BadInput(f"CLDR has no single-code-point emoji called {name!r}")
            char, keywords = annotations[name]
            objects.append({"name": name, "group": group, "char": char, "keywords": keywords})
            tiles.append(draw_sprite(char))
    rows = -(-len(tiles) // COLUMNS)
    sheet = Image.new("RGBA", (COLUMNS * SPRITE_SIZE, rows * SPRITE_SIZE))
    for i, tile in enumerate(tiles):
        sheet.paste(tile, ((i % COLUMNS) * SPRITE_SIZE, (i // COLUMNS) * SPRITE_SIZE))
    pixels = np.asarray(sheet).copy()
    pixels[pixels[..., 3] == 0] = 0  # colour under full transparency only costs bytes
    Image.fromarray(pixels).save(FOLDER / "sprites.png", optimize=True)
    document = {"tile": SPRITE_SIZE, "columns": COLUMNS, "objects": objects}
    write_text(FOLDER / "objects.json", json.dumps(document, ensure_ascii=False, indent=0) + "\n")


if __name__ == "__main__":
    build()
