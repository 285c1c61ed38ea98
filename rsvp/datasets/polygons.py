"""ReasonSeg's polygons as pixels, drawn exactly as the benchmark's own code draws them.

Points are truncated to integers; a shape is its outline of thickness 1 and its filling; larger
shapes are drawn first, so that a smaller one lies on top. OpenCV draws them; from version 4.11 it
fills polygons differently, which would change the ground truth.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsvp.errors import BadInput, MissingExtra
from rsvp.platform.extras import require

Points = NDArray[np.int32]
Canvas = NDArray[np.unsignedinteger]

FIRST_DIFFERENT = (4, 11)
MAX_COORDINATE = 1_000_000  # OpenCV walks every line of a polygon, also those outside of the image
_MAX_SHAPES = np.iinfo(np.uint16).max


def opencv() -> Any:
    """OpenCV; MissingExtra without it, and for a version that fills polygons differently."""
    cv2 = require("cv2", "eval", "drawing ReasonSeg's polygons")
    version = tuple(int(n) for n in re.findall(r"\d+", cv2.__version__)[:2])
    if version >= FIRST_DIFFERENT:
        raise MissingExtra(
            f"drawing ReasonSeg's polygons as OpenCV did before 4.11 (found {cv2.__version__})",
            "eval",
        )
    return cv2


def to_points(points: object, where: str) -> Points:
    """(n, 2) int32 from a JSON list of (x, y), at least one, truncated towards zero."""
    try:
        found = np.array(points, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise BadInput(f"{where}: the points are not pairs of numbers") from None
    if found.ndim != 2 or found.shape[1] != 2 or not len(found):
        raise BadInput(f"{where}: the points are not pairs of numbers")
    if not (np.abs(found) <= MAX_COORDINATE).all():  # False for NaN, too
        raise BadInput(f"{where}: a point lies beyond ±{MAX_COORDINATE:,}")
    return found.astype(np.int32)


def draw(shapes: Sequence[Points], size: tuple[int, int], where: str) -> Canvas:
    """Draw shapes, largest first.

    Args:
        shapes: (n, 2) int32 points each, x before y.
        size: (H, W).
        where: names the shapes in error messages.

    Returns:
        (H, W) unsigned: 0 where no shape is, else 1 + the index of the topmost shape.
    """
    if len(shapes) > _MAX_SHAPES:
        raise BadInput(f"{where}: {len(shapes)} shapes, at most {_MAX_SHAPES} can be drawn")
    canvas = np.zeros(size, dtype=np.uint8 if len(shapes) < 256 else np.uint16)
    if not shapes:
        return canvas
    cv2 = opencv()
    # The same call as in the official code: it decides the order of equal areas.
    order = np.argsort(_areas(cv2, shapes, size))[::-1]
    for index in order.tolist():
        _draw_one(cv2, canvas, shapes[index], index + 1)
    return canvas


def extent(points: Points) -> tuple[slice, slice]:
    """The rows and columns of an image that a shape can cover."""
    x0, y0 = np.clip(points.min(axis=0), 0, None)
    x1, y1 = np.clip(points.max(axis=0) + 1, 0, None)
    return slice(y0, y1), slice(x0, x1)


def _areas(cv2: Any, shapes: Sequence[Points], size: tuple[int, int]) -> NDArray[np.uint64]:
    """How many pixels each shape covers when it is drawn alone."""
    alone = np.zeros(size, dtype=np.uint8)
    areas = np.zeros(len(shapes), dtype=np.uint64)
    for index, points in enumerate(shapes):
        _draw_one(cv2, alone, points, 1)
        drawn = alone[extent(points)]
        areas[index] = np.count_nonzero(drawn)
        drawn[:] = 0
    return areas


def _draw_one(cv2: Any, canvas: Canvas, points: Points, value: int) -> None:
    cv2.polylines(canvas, points[None], isClosed=True, color=value, thickness=1)
    cv2.fillPoly(canvas, points[None], color=value)
