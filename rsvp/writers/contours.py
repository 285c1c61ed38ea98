"""A mask's contours through the centres of its border pixels, like OpenCV's `findContours`.

They equal those of ``RETR_CCOMP`` with ``CHAIN_APPROX_SIMPLE``, found without OpenCV. Filled by its
`fillPoly`, as readers of polygon formats do, all contours of a mask give exactly its pixels, with
holes and separate parts.
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


def find_contours(mask: BoolMask) -> list[Contour]:
    """All contours of a mask (H, W), outer ones and holes, the largest enclosed area first.

    Pixels that touch at a corner are connected.

    Returns:
        (n, 2) x, y of pixels each, closed, without points on straight lines.
    """
    stride = mask.shape[1] + 1  # corners in a row
    steps = (1, stride, -1, -stride)  # from an edge's start to its end, by direction
    edges = dict.fromkeys(_edges(mask, stride), False)  # -> visited
    found: list[tuple[int, Contour]] = []
    for first, visited in edges.items():
        if visited:
            continue
        loop, edge = [], first
        while not edges[edge]:
            edges[edge] = True
            loop.append(edge)
            corner, direction = divmod(edge, 4)
            end = 4 * (corner + steps[direction])
            # Left before straight before right: the left one belongs to a pixel that touches this
            # one at the corner.
            for turn in (-1, 0, 1):
                edge = end + (direction + turn) % 4
                if edge in edges:
                    break
        corners, directions = np.divmod(np.array(loop), 4)
        yx = np.stack(np.divmod(corners, stride), axis=1)
        after = np.roll(yx, -1, axis=0)
        area = int((yx[:, 1] * after[:, 0] - after[:, 1] * yx[:, 0]).sum())
        found.append((abs(area), _corners((yx - np.array(_STARTS)[directions])[:, ::-1])))
    found.sort(key=lambda item: -item[0])
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
