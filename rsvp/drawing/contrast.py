"""The colours of targets, by how far they are from what lies under them.

Distances are those of CIELAB 1976 (ISO/CIE 11664-4), for sRGB with the white point D65; some 2 are
just noticeable.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rsvp.drawing.palette import BLACK, PALETTE, WHITE, Colour, colour_of
from rsvp.drawing.strokes import dilate
from rsvp.masks import mask_to_box
from rsvp.types import BoolMask, RgbArray

ENOUGH = 40.0  # the distance from which on a target keeps its own colour
LOW = 25.0  # the distance below which its contour gets an outline
SHARE = 10  # percent of the pixels may be nearer to the colour than its contrast says
_SIDE = 96  # pixels of a mask's longer side that are looked at

_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
_D65 = _XYZ.sum(axis=1)


@dataclass(frozen=True, slots=True)
class Ink:
    """How a target is drawn: its colour, and that of an outline where the contrast is low."""

    colour: Colour
    outline: Colour | None = None


def inks(rgb: RgbArray, masks: Iterable[BoolMask]) -> list[Ink]:
    """An ink for each (H, W) mask on the (H, W, 3) image.

    Target k has the k-th colour of the palette, unless that is too near to the pixels of the mask
    and around it: then the first one with enough contrast, of those that fewest targets have.
    """
    chosen: list[Ink] = []
    for number, mask in enumerate(masks):
        used = [ink.colour for ink in chosen]
        free = sorted((colour_of(number), *PALETTE), key=used.count)  # stable: its own colour first
        pixels = _pixels(rgb, mask)
        enough = (one for one in free if contrast(one, pixels) >= ENOUGH)
        colour = next(enough, None) or max(free, key=lambda one: contrast(one, pixels))
        outline = None
        if contrast(colour, pixels) < LOW:
            outline = max((WHITE, BLACK), key=lambda one: contrast(one, pixels))
        chosen.append(Ink(colour, outline))
    return chosen


def contrast(colour: Colour, pixels: ArrayLike) -> float:
    """The distance that all but `SHARE` percent of (n, 3) RGB pixels have from a colour."""
    distances = np.linalg.norm(lab(pixels) - lab([colour]), axis=1)
    return float(np.percentile(distances, SHARE))


def lab(rgb: ArrayLike) -> NDArray[np.float64]:
    """(n, 3) L*, a*, b* of (n, 3) sRGB, 0 to 255."""
    values = np.asarray(rgb, dtype=np.float64) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    xyz = linear @ _XYZ.T / _D65
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz * (29 / 6) ** 2 / 3 + 4 / 29)
    x, y, z = f.T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)


def _pixels(rgb: RgbArray, mask: BoolMask) -> RgbArray:
    """(n, 3) some of the pixels of a mask and beside it; the image's first where it is empty."""
    box = mask_to_box(mask)
    if box is None:
        return rgb[0, :1]
    x0, y0, x1, y1 = map(int, box.xyxy)
    step = 1 + max(x1 - x0, y1 - y0) // _SIDE
    rows = slice(max(0, y0 - 2 * step), y1 + 2 * step, step)
    columns = slice(max(0, x0 - 2 * step), x1 + 2 * step, step)
    near = dilate(mask[rows, columns], 1)
    return rgb[rows, columns][near] if near.any() else rgb[y0:y1, x0:x1][mask[y0:y1, x0:x1]]
