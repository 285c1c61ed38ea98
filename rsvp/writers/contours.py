"""A mask as polygons: through the centres of its border pixels, or along their edges.

Contours equal those of OpenCV's `findContours` with ``RETR_CCOMP`` and ``CHAIN_APPROX_SIMPLE``,
found without OpenCV. Filled by its `fillPoly`, as readers of polygon formats do, all contours of a
mask give exactly its pixels, with holes and separate parts; so do outlines, filled by pycocotools.
"""

from __future__ import annotations

from collections.abc import Iterator

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
_UP = 3


def find_contours(mask: BoolMask) -> list[Contour]:
    """All contours of a mask (H, W), outer ones and holes, the largest enclosed area first.

    Pixels that touch at a corner are connected.

    Returns:
        (n, 2) x, y of pixels each, closed, without points on straight lines.
    """
    found: list[tuple[int, Contour]] = []
    for loop in _loops(mask, corners_connect=True):
        corners, directions = np.divmod(np.array(loop), 4)
        xy = _xy(corners, mask)
        pixels = xy - np.array(_STARTS)[directions][:, ::-1]
        found.append((abs(_doubled_area(xy)), _corners(pixels)))
    found.sort(key=lambda item: -item[0])
    return [contour for _, contour in found]


def find_outlines(mask: BoolMask) -> list[list[Contour]]:
    """The outlines of a mask (H, W) along the edges of its pixels: a list for each separate part.

    Pixels that touch only at a corner are separate parts. Their coordinates are COCO's: the pixel
    in row 0 and column 0 reaches from 0 to 1.

    Returns:
        For each part, the largest first, its outer outline, then those of its holes: (n, 2) x, y
        each, closed, without points on straight lines.
    """
    parts: list[list[Contour]] = []
    part_of: dict[int, int] = {}  # an edge of a found outline -> its part
    for loop in _loops(mask, corners_connect=False):
        xy = _xy(np.array(loop) // 4, mask)
        if _doubled_area(xy) > 0:
            part = len(parts)
            parts.append([])
        else:
            part = part_of[_left_edge(loop[0], mask)]
        parts[part].append(_corners(xy))
        part_of |= dict.fromkeys(loop, part)
    parts.sort(key=lambda part: -_doubled_area(part[0]))
    return parts


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


def _loops(mask: BoolMask, *, corners_connect: bool) -> Iterator[list[int]]:
    """The edges around each part and each hole, in the order of their first edges.

    Args:
        corners_connect: whether pixels that touch at a corner are of one part.
    """
    stride = mask.shape[1] + 1  # corners in a row
    steps = (1, stride, -1, -stride)  # from an edge's start to its end, by direction
    edges = dict.fromkeys(_edges(mask, stride), False)  # -> visited
    # Where two pixels touch at a corner, the left turn goes on to the other one.
    turns = (-1, 0, 1) if corners_connect else (1, 0, -1)
    for first, visited in edges.items():
        if visited:
            continue
        loop, edge = [], first
        while not edges[edge]:
            edges[edge] = True
            loop.append(edge)
            corner, direction = divmod(edge, 4)
            end = 4 * (corner + steps[direction])
            for turn in turns:
                edge = end + (direction + turn) % 4
                if edge in edges:
                    break
        yield loop


def _xy(corners: NDArray[np.int64], mask: BoolMask) -> Contour:
    """(n, 2) x, y of corners by their numbers."""
    return np.stack(np.divmod(corners, mask.shape[1] + 1)[::-1], axis=1)


def _doubled_area(xy: Contour) -> int:
    """Twice the area inside a closed polygon; negative around a hole."""
    after = np.roll(xy, -1, axis=0)
    return int((xy[:, 0] * after[:, 1] - after[:, 0] * xy[:, 1]).sum())


def _left_edge(edge: int, mask: BoolMask) -> int:
    """Where the run of pixels ends that lies left of a hole: an edge of another, earlier loop.

    Args:
        edge: the hole's first one. It goes down, from the corner that the hole has first in reading
            order, so that no other part of the hole lies to its left.
    """
    row, column = divmod(edge // 4, mask.shape[1] + 1)
    gaps = np.flatnonzero(~mask[row, :column])
    start = int(gaps[-1]) + 1 if gaps.size else 0
    return int(4 * ((row + 1) * (mask.shape[1] + 1) + start) + _UP)


def _edges(mask: BoolMask, stride: int) -> list[int]:
    """All edges between a pixel of the mask and one outside it, in reading order.

    An edge is 4 * the number of the corner where it starts + its direction.
    """
    padded = np.pad(mask, 1)
    height, width = mask.shape
    found = []
    for direction, ((down, right), (row, column)) in enumerate(zip(_OUTSIDE, _STARTS, strict=True)):
        outside = padded[1 + down : 1 + down + height, 1 + right : 1 + right + width]
        rows, columns = np.nonzero(mask & ~outside)
        found.append(4 * ((rows + row) * stride + columns + column) + direction)
    edges: list[int] = np.sort(np.concatenate(found)).tolist()
    return edges


def _corners(pixels: Contour) -> Contour:
    """The pixels along a loop, without repetitions and without those on straight lines."""
    moved = (pixels != np.roll(pixels, 1, axis=0)).any(axis=1)
    path = pixels[moved] if moved.any() else pixels[:1]
    arriving = path - np.roll(path, 1, axis=0)
    leaving = np.roll(path, -1, axis=0) - path
    turns = (arriving != leaving).any(axis=1)
    return path[turns] if turns.any() else path
