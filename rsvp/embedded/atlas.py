"""Build the sprites and the vocabulary of the rendered world from Debian's packages.

    python -m rsvp.embedded.atlas

reads the glyphs of Noto Color Emoji (fonts-noto-color-emoji), the names and keywords of CLDR
(unicode-cldr-core) and the code points of Unicode (unicode-data), and writes `world/sprites.png`
and `world/objects.json`, which ship with the package: rendering a scene needs none of the three.
"""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from rsvp.embedded.world import GROUPS, TILE, WORLD
from rsvp.errors import BadInput

FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
ANNOTATIONS = Path("/usr/share/unicode/cldr/common/annotations/en.xml")
CODE_POINTS = Path("/usr/share/unicode/emoji/emoji-test.txt")
PACKAGES = "fonts-noto-color-emoji unicode-cldr-core unicode-data"
STRIKE = 109  # the only size in which the font holds its bitmaps
COLUMNS = 12


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
    """The glyph, cropped to its ink and fitted into a TILE x TILE RGBA square."""
    font = ImageFont.truetype(str(FONT), STRIKE)
    canvas = Image.new("RGBA", (160, 160))
    ImageDraw.Draw(canvas).text((10, 10), char, font=font, embedded_color=True)
    ink = canvas.crop(canvas.getchannel("A").point(lambda a: 255 * (a > 16)).getbbox())
    scale = (TILE - 2) / max(ink.size)
    size = (max(1, round(ink.width * scale)), max(1, round(ink.height * scale)))
    tile = Image.new("RGBA", (TILE, TILE))
    tile.paste(
        ink.resize(size, Image.Resampling.LANCZOS),
        ((TILE - size[0]) // 2, (TILE - size[1]) // 2),
    )
    return tile


def build() -> None:
    """Write sprites.png and objects.json into `world/`."""
    missing = [str(p) for p in (FONT, ANNOTATIONS, CODE_POINTS) if not p.exists()]
    if missing:
        raise BadInput(f"{missing[0]} is missing: apt-get install {PACKAGES}")
    annotations = read_annotations()
    objects = []
    tiles = []
    for group, names in GROUPS.items():
        for name in names:
            if name not in annotations:
                raise BadInput(f"CLDR has no single-code-point emoji called {name!r}")
            char, keywords = annotations[name]
            objects.append({"name": name, "group": group, "char": char, "keywords": keywords})
            tiles.append(draw_sprite(char))
    rows = -(-len(tiles) // COLUMNS)
    atlas = Image.new("RGBA", (COLUMNS * TILE, rows * TILE))
    for i, tile in enumerate(tiles):
        atlas.paste(tile, ((i % COLUMNS) * TILE, (i // COLUMNS) * TILE))
    WORLD.mkdir(exist_ok=True)
    pixels = np.asarray(atlas).copy()
    pixels[pixels[..., 3] == 0] = 0  # colour under full transparency only costs bytes
    Image.fromarray(pixels).save(WORLD / "sprites.png", optimize=True)
    text = json.dumps(
        {"tile": TILE, "columns": COLUMNS, "objects": objects}, ensure_ascii=False, indent=0
    )
    (WORLD / "objects.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    build()
