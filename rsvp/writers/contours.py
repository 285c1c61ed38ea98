"""A mask's contours through the centres of its border pixels, like OpenCV's `findContours`.

They equal those of ``RETR_CCOMP`` with ``CHAIN_APPROX_SIMPLE``, found with numpy alone. Filled by
OpenCV's `fillPoly`, as readers of polygon formats do, all contours of a mask give exactly its
pixels, with holes and separate parts.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rsvp.types import BoolMask

Contour = NDArray[np.int64]

MAX_JOINED = 2000  # contours in one polygon; noise has tens of thousands, of single pixels

# Directions along the edges of pixels, clockwise: right, down, left, up; the mask lies to the right
# of each. For every direction, relative to its pixel: where an edge starts, and the neighbour that
# is not in the mask, (row, column) each.
_STARTS = ((0, 0), (0, 1), (1, 1), (1, 0))
_OUTSIDE = ((-1, 0), (0, 1), (1, 0), (0, -1))
_STEPS = ((0, 1), (1, 0), (0, -1), (-1, 0))


def find_contours(mask: BoolMask) -> list[Contour]:
    """All contours of a mask (H, W), outer ones and holes, the largest enclosed area first.

    Pixels that touch at a corner are connected.

    Returns:
        (n, 2) x, y of pixels each, closed, without points on straight lines.
    """
    pixels, starts, following, areas = _edges(mask)
    found: list[tuple[float, Contour]] = []
    visited = np.zeros(len(following), dtype=np.bool_)
    after = following.tolist()
    for first in np.argsort(starts, kind="stable").tolist():
        if visited[first]:
            continue
        loop, edge = [first], after[first]
        while edge != first:
            loop.append(edge)
            edge = after[edge]
        visited[loop] = True
        found.append((float(areas[loop].sum()), _corners(pixels[loop])))
    found.sort(key=lambda item: -abs(item[0]))
    return [contour for _, contour in found]


def join_contours(contours: list[Contour]) -> Contour:
    """At least one contour, as one polygon, for formats with one polygon per object.

    Each contour is connected to the ones before it by a line to a near corner and back, which adds
    a line of pixels to the filled polygon. Contours beyond `MAX_JOINED` are left out.
    """
    polygon = contours[0]
    for contour in contours[1:MAX_JOINED]:
        here, there = _near_corners(polygon, contour)
        turned = np.roll(contour, -there, axis=0)
        polygon = np.concatenate([polygon[: here + 1], turned, turned[:1], polygon[here:]])
    return polygon


def _near_corners(polygon: Contour, contour: Contour) -> tuple[int, int]:
    """Indices of two corners, each the nearest to the other one.

    Found by going to the nearest corner back and forth, which takes linear time a step; comparing
    all pairs takes quadratic time.
    """
    here = there = -1
    while True:
        nearest = _nearest(polygon, contour[max(there, 0)])
        if nearest == here:
            return here, there
        here = nearest
        there = _nearest(contour, polygon[here])


def _nearest(corners: Contour, corner: Contour) -> int:
    """Index of the corner that is nearest to another, the first of equal ones."""
    return int(((corners - corner) ** 2).sum(axis=1).argmin())


def _edges(mask: BoolMask) -> tuple[Contour, Contour, Contour, NDArray[np.float64]]:
    """All edges between a pixel of the mask and one that is not.

    Returns:
        For each edge: its pixel (n, 2) as x, y; the number of its starting corner; the edge that
        follows it; twice the signed area between it and the origin.
    """
    padded = np.pad(mask, 1)
    height, width = mask.shape
    found = []
    for down, right in _OUTSIDE:
        outside = padded[1 + down : 1 + down + height, 1 + right : 1 + right + width]
        found.append(np.argwhere(mask & ~outside))
    directions: Contour = np.repeat(np.arange(len(found)), [len(part) for part in found])
    pixels = np.concatenate(found)  # row, column
    start = np.array(_STARTS)[directions] + pixels
    end = start + np.array(_STEPS)[directions]
    first, last = (corner[:, 0] * (width + 1) + corner[:, 1] for corner in (start, end))
    areas = (start[:, 1] * end[:, 0] - end[:, 1] * start[:, 0]).astype(np.float64)
    return pixels[:, ::-1], first, _following(first, last, directions), areas


def _following(start: Contour, end: Contour, direction: Contour) -> Contour:
    """For each edge the one that starts at its end; of two, the one to the left.

    There are two where pixels touch only at a corner; the left one belongs to the other pixel.
    """
    keys = start * 4 + direction
    order = np.argsort(keys)
    ordered = keys[order]
    found = np.full(len(keys), -1, dtype=np.int64)
    for turn in (1, 0, -1):  # right, straight, left: a later one overwrites
        wanted = end * 4 + (direction + turn) % 4
        index = np.searchsorted(ordered, wanted).clip(max=max(len(keys) - 1, 0))
        exists = ordered[index] == wanted if len(keys) else np.zeros(0, dtype=np.bool_)
        found[exists] = order[index[exists]]
    return found


def _corners(pixels: Contour) -> Contour:
    """The pixels along a loop, without repetitions and without those on straight lines."""
    moved = (pixels != np.roll(pixels, 1, axis=0)).any(axis=1)
    path = pixels[moved] if moved.any() else pixels[:1]
    arriving = path - np.roll(path, 1, axis=0)
    leaving = np.roll(path, -1, axis=0) - path
    turns = (arriving != leaving).any(axis=1)
    return path[turns] if turns.any() else path
