"""The visual prompt of the grid strategy: numbered bands over the image."""

from __future__ import annotations

from functools import lru_cache, partial

import numpy as np
from PIL import Image as Pil
from PIL import ImageDraw

from rsvp.drawing.palette import GRID_COLUMN, GRID_DARK, GRID_LIGHT, GRID_OUTLINE, GRID_ROW
from rsvp.drawing.strokes import line_width
from rsvp.drawing.tags import font_of
from rsvp.types import RgbArray


def grid_prompt(rgb: RgbArray, grid: tuple[int, int]) -> RgbArray:
    """The visual prompt of RSVP (ACL 2025): numbered bands over the image.

    M horizontal and N vertical bands of equal size, separated by thin translucent lines; rows are
    numbered from 1 down the left margin, columns from 1 along the top. The image keeps its size.

    Args:
        grid: (M, N), how many rows and columns.
    """
    lines, opacity = _grid_layer(rgb.shape[0], rgb.shape[1], *grid)
    canvas = Pil.fromarray(rgb)
    canvas.paste(lines, (0, 0), opacity)
    return np.array(canvas)


@lru_cache(maxsize=8)
def _grid_layer(height: int, width: int, rows: int, columns: int) -> tuple[Pil.Image, Pil.Image]:
    """(RGB, opacity) of the bands for one image size; drawn once, pasted on every image."""
    layer = np.zeros((height, width, 4), dtype=np.uint8)
    line = line_width((height, width))
    ys = [round(i * height / rows) for i in range(1, rows)]
    xs = [round(i * width / columns) for i in range(1, columns)]
    for colour, shift in ((GRID_DARK, 0), (GRID_LIGHT, -line)):
        for y in ys:
            layer[max(0, y + shift) : max(0, y + shift + line)] = colour
        for x in xs:
            layer[:, max(0, x + shift) : max(0, x + shift + line)] = colour
    canvas = Pil.fromarray(layer)
    _number_bands(canvas, rows, columns)
    return canvas.convert("RGB"), canvas.getchannel("A")


def _number_bands(canvas: Pil.Image, rows: int, columns: int) -> None:
    """Write the bands' numbers along the left and the top, as large as the bands allow."""
    band = min(canvas.height / rows, canvas.width / columns)
    points = round(max(6, min(0.5 * band, max(14, min(canvas.size) / 22))))
    font, stroke = font_of(points), max(1, round(points / 9))
    margin = stroke + max(1, points // 8)
    write = ImageDraw.Draw(canvas).text
    text = partial(write, font=font, stroke_width=stroke, stroke_fill=GRID_OUTLINE)
    for row in range(rows):
        y = (row + 0.5) * canvas.height / rows
        text((margin, y), str(row + 1), fill=GRID_ROW, anchor="lm")
    for column in range(columns):
        x = (column + 0.5) * canvas.width / columns
        text((x, margin), str(column + 1), fill=GRID_COLUMN, anchor="mt")
