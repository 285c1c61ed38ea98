"""What drawings consist of: blended regions, outlines and dilated masks."""

from __future__ import annotations

import numpy as np
from PIL import Image as Pil
from PIL import ImageFilter

from rsvp.drawing.palette import BLACK, Colour
from rsvp.types import BoolMask, Box, RgbArray

_ROWS = 128  # blended at once, as numbers of 8 bytes


def dilate(mask: BoolMask, pixels: int) -> BoolMask:
    """`mask` dilated by a square of side 2 * `pixels` + 1; beyond the image's edge all is 0."""
    blurred = Pil.fromarray(mask.astype(np.uint8) * 255).filter(ImageFilter.BoxBlur(pixels))
    dilated: BoolMask = np.asarray(blurred) > 0
    return dilated


def contour(
    canvas: RgbArray,
    mask: BoolMask,
    box: Box,
    colour: Colour,
    *,
    line: int,
    border: int,
    dark: float,
    edge: Colour = BLACK,
) -> None:
    """Draw a mask's contour, inside it, with a border outside it, in place.

    Args:
        box: only pixels in it, or at most `border` pixels away, are computed.
        dark: opacity of the border.
        edge: its colour.
    """
    x0, y0 = max(0, int(box.x0) - border), max(0, int(box.y0) - border)
    x1, y1 = round(box.x1) + border, round(box.y1) + border
    window, part = canvas[y0:y1, x0:x1], mask[y0:y1, x0:x1]
    blend(window, dilate(part, border) & ~part, edge, dark)
    window[part & dilate(~part, line)] = colour


def outline(canvas: RgbArray, box: Box, colour: Colour, line: int, opacity: float) -> None:
    """Draw a box's outline, just inside its edges, in place."""
    height, width = canvas.shape[:2]
    x0, y0 = min(int(box.x0), width - 1), min(int(box.y0), height - 1)
    x1, y1 = max(round(box.x1), x0 + 1), max(round(box.y1), y0 + 1)
    edge = np.ones((min(y1, height) - y0, min(x1, width) - x0), dtype=np.bool_)
    edge[line:-line, line:-line] = False
    blend(canvas[y0:y1, x0:x1], edge, colour, opacity)


def blend(window: RgbArray, where: BoolMask, colour: Colour, opacity: float) -> None:
    """Mix `colour` into the pixels `where`, in place."""
    for top in range(0, len(window), _ROWS):
        part, chosen = window[top : top + _ROWS], where[top : top + _ROWS]
        mixed = part[chosen] * (1 - opacity) + np.array(colour) * opacity
        part[chosen] = np.rint(mixed).astype(np.uint8)


def line_width(size: tuple[int, int]) -> int:
    """Pixels of a thin line on an image of this (height, width)."""
    return max(1, round(min(size) / 450))
