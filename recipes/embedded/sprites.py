"""Build the sprites and the vocabulary of the rendered scenes from Debian's packages.

    python -m recipes.embedded sprites [--style NAME --source DIR [--out FILE]]

reads the groups of `vocabulary.toml`, the glyphs of Noto Color Emoji (fonts-noto-color-emoji), the
names and keywords of CLDR (unicode-cldr-core) and the code points of Unicode (unicode-data), and
writes `sprites.png` and `objects.json` beside it. Both ship with the package, so that rendering a
scene needs none of the packages.

With `--style` it writes the sheet of another style from a folder of SVG (librsvg2-bin renders it),
PNG or WebP images that are named by their code points. The shipped ones are made from `assets/` of
the npm packages @lobehub/fluent-emoji-3d 1.1.0 and @lobehub/fluent-emoji-flat 1.1.0 and from
@twemoji/svg 15.0.0. OpenMoji (`color/svg` of the npm package openmoji) is for measuring alone: its
licence is CC BY-SA 4.0, so it is neither shipped nor trained on.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from rsvp.embedded.vocabulary import (
    DEFAULT_STYLE,
    FOLDER,
    SHEET_COLUMNS,
    SPRITE_SIZE,
    STYLES,
    categories,
    fit_sprite,
    sprites,
    tables,
    undrawn,
)
from rsvp.errors import BadInput
from rsvp.platform.files import write_text

FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
ANNOTATIONS = Path("/usr/share/unicode/cldr/common/annotations/en.xml")
CODE_POINTS = Path("/usr/share/unicode/emoji/emoji-test.txt")
PACKAGES = "fonts-noto-color-emoji unicode-cldr-core unicode-data"
STRIKE = 109  # the only size in which the font holds its bitmaps
SVG_HEIGHT = 512  # pixels; `fit_sprite` makes it smaller
QUALITY = 80  # of lossy WebP
LEFT_OUT: Mapping[str, tuple[str, ...]] = {  # what the style draws as something else
    "fluent-3d": ("paperclip",),  # one with a face
    "twemoji": ("tennis",),  # the ball alone, without a racket
    "openmoji": ("tennis",),
}


def sources() -> tuple[Path, ...]:
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
    """The glyph as an RGBA square of SPRITE_SIZE."""
    font = ImageFont.truetype(str(FONT), STRIKE)
    canvas = Image.new("RGBA", (160, 160))
    ImageDraw.Draw(canvas).text((10, 10), char, font=font, embedded_color=True)
    return fit_sprite(canvas)


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
    make_sheet(tiles).save(FOLDER / STYLES[DEFAULT_STYLE], optimize=True)
    document = {"tile": SPRITE_SIZE, "columns": SHEET_COLUMNS, "objects": objects}
    write_text(FOLDER / "objects.json", json.dumps(document, ensure_ascii=False, indent=0) + "\n")


def build_style(style: str, source: Path, out: Path | None = None) -> None:
    """Write the sheet of another style, by default as the package's.

    Args:
        source: folder of SVG, PNG or WebP images, named by their code points (`1f415.svg`).

    Raises:
        BadInput: no image fits a category, or rsvg-convert is not installed.
    """
    with TemporaryDirectory() as folder:
        drawings = sorted(source.glob("*.svg"))
        if drawings and shutil.which("rsvg-convert") is None:
            raise BadInput("rsvg-convert is missing: apt-get install librsvg2-bin")
        points = {f"{ord(c.char):x}{end}" for c in categories() for end in ("", "-fe0f")}
        for file in drawings:
            if file.stem.lower() in points:
                png = Path(folder) / f"{file.stem}.png"
                sizes = ["--height", str(SVG_HEIGHT)]
                subprocess.run(["rsvg-convert", *sizes, "-o", str(png), str(file)], check=True)
        tiles = sprites(folder if drawings else str(source)).copy()
    tiles[[c.index for c in categories() if c.name in LEFT_OUT.get(style, ())]] = 0
    sheet = make_sheet([Image.fromarray(tile) for tile in tiles])
    out = out or FOLDER / f"{style}.webp"
    sheet.save(out, quality=QUALITY, method=6)  # a PNG is lossless and takes neither
    print(f"{out}: {out.stat().st_size:,} bytes; not drawn: {', '.join(undrawn(str(out)))}")


def make_sheet(tiles: Sequence[Image.Image]) -> Image.Image:
    rows = -(-len(tiles) // SHEET_COLUMNS)
    sheet = Image.new("RGBA", (SHEET_COLUMNS * SPRITE_SIZE, rows * SPRITE_SIZE))
    for i, tile in enumerate(tiles):
        row, column = divmod(i, SHEET_COLUMNS)
        sheet.paste(tile, (column * SPRITE_SIZE, row * SPRITE_SIZE))
    pixels = np.asarray(sheet).copy()
    pixels[pixels[..., 3] == 0] = 0  # colour under full transparency only costs bytes
    return Image.fromarray(pixels)
