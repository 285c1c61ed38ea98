"""Tags: their font, and positions for them where they hide no other tag."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import ImageFont

from rsvp.types import BoolMask, Box

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Rectangle = tuple[int, int, int, int]  # x0, y0, x1, y1, far edges exclusive
Corners = NDArray[np.int64]  # (n, 2) x, y of possible left top corners of a tag

# What a tag's position costs: to cover another tag (avoided at any price), another object, or its
# own object, to be off its own object's mask, and to come later in the order of preference.
_ON_TAG, _ON_OTHER, _ON_OWN, _OFF_MASK, _LATER = 1e6, 3.0, 2.0, 1.5, 0.01


@lru_cache(maxsize=32)
def font_of(points: int) -> Font:
    """Pillow's own font, this many pixels high."""
    return ImageFont.load_default(points)


def place_tag(
    size: tuple[int, int], box: Box, image_size: tuple[int, ...], placed: Sequence[Rectangle]
) -> Rectangle:
    """A position for a (width, height) tag: at its box if free, else the nearest free one.

    Without any free position, the one that covers least of the other tags.
    """
    width, height = size
    left, right = int(box.x0), round(box.x1) - width
    top, bottom = int(box.y0), round(box.y1) - height
    around = [(x, y) for y in (top - height, bottom + height) for x in (left, right)]
    around = [(x, y) for x, y in around if 0 <= y <= image_size[0] - height]
    around += [(left, top), (left, bottom), (right, top), (right, bottom)]
    corners = _inside(np.array(around), size, image_size)
    covered = _overlaps(corners, size, placed).sum(axis=1)
    if covered.min() > 0:
        corners = _everywhere(size, image_size, start=(left, top - height))
        covered = _overlaps(corners, size, placed).sum(axis=1)
    return _rectangle(corners, covered, size)


def place_tags(
    boxes: Sequence[Box],
    masks: NDArray[np.bool_] | None,
    sizes: Sequence[tuple[int, int]],
    image_size: tuple[int, int],
) -> list[Rectangle]:
    """Positions for the tags of n objects: beside or inside the object, else the nearest free one.

    Tags of small objects, which have the fewest good positions, are placed first.

    Args:
        masks: (n, H, W) of the objects, if known.
        sizes: (width, height) of each tag.
        image_size: (H, W).
    """
    edges = np.array([box.xyxy for box in boxes]).reshape(-1, 4)
    areas = np.maximum(1.0, (edges[:, 2:] - edges[:, :2]).prod(axis=1))
    placed: dict[int, Rectangle] = {}
    for k in reversed(largest_first(boxes)):
        size, others = sizes[k], list(placed.values())
        corners = _inside(_around(edges[k], size), size, image_size)
        if _overlaps(corners, size, others).sum(axis=1).min() > 0:
            start = (int(edges[k, 0]), int(edges[k, 1]) - size[1])
            corners = np.concatenate([corners, _everywhere(size, image_size, start)])
        covered = _overlaps(corners, size, edges) / areas
        cost = (
            _ON_TAG * _overlaps(corners, size, others).sum(axis=1) / (size[0] * size[1])
            + _ON_OWN * covered[:, k]
            + _ON_OTHER * np.delete(covered, k, axis=1).sum(axis=1)
            + _LATER * np.arange(len(corners))
        )
        if masks is not None:
            cost = cost + _OFF_MASK * ~_touches(corners, size, masks[k])
        placed[k] = _rectangle(corners, cost, size)
    return [placed[k] for k in range(len(boxes))]


def largest_first(boxes: Sequence[Box]) -> list[int]:
    """The indices of boxes by falling area."""
    return sorted(range(len(boxes)), key=lambda k: -boxes[k].area)


def _around(box: NDArray[np.float64], size: tuple[int, int]) -> Corners:
    """Corners of tags along a box's edges, outside and inside; the left top first."""
    (x0, y0, x1, y1), (width, height) = box, size
    xs = np.linspace(x0, max(x0, x1 - width), 5)
    ys = np.linspace(y0, max(y0, y1 - height), 5)
    rows = [(x, y) for y in (y0 - height, y0, y1, y1 - height) for x in xs]
    columns = [(x, y) for x in (x0 - width, x0, x1, x1 - width) for y in ys]
    middle = [((x0 + x1 - width) / 2, (y0 + y1 - height) / 2)]
    return np.rint([*rows, *columns, *middle]).astype(np.int64)


def _inside(corners: Corners, size: tuple[int, int], image_size: tuple[int, ...]) -> Corners:
    """The corners, moved so that the tags are inside the image."""
    limit = (max(0, image_size[1] - size[0]), max(0, image_size[0] - size[1]))
    return np.clip(corners, 0, limit)


def _everywhere(
    size: tuple[int, int], image_size: tuple[int, ...], start: tuple[int, int]
) -> Corners:
    """Corners all over the image, the nearest to `start` first."""
    xs = np.arange(0, max(0, image_size[1] - size[0]) + 1, max(1, size[0] // 4))
    ys = np.arange(0, max(0, image_size[0] - size[1]) + 1, max(1, size[1] // 2))
    corners = np.stack(np.meshgrid(xs, ys), axis=-1).reshape(-1, 2)
    distance = np.abs(corners - np.array(start)).sum(axis=1)
    return corners[np.argsort(distance, kind="stable")]


def _overlaps(corners: Corners, size: tuple[int, int], boxes: ArrayLike) -> NDArray[np.float64]:
    """(corners, boxes) pixels of each (x0, y0, x1, y1) box that a tag at each corner covers."""
    edges = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    low = np.maximum(corners[:, None], edges[None, :, :2])
    high = np.minimum(corners[:, None] + np.array(size), edges[None, :, 2:])
    area: NDArray[np.float64] = np.clip(high - low, 0, None).prod(axis=2)
    return area


def _touches(corners: Corners, size: tuple[int, int], mask: BoolMask) -> BoolMask:
    """(n,) whether a tag at each corner lies on the mask or next to it."""
    sums = np.pad(mask.cumsum(0, dtype=np.int32).cumsum(1, dtype=np.int32), ((1, 0), (1, 0)))
    height, width = mask.shape
    x0, y0 = np.clip(corners - 2, 0, (width, height)).T
    x1, y1 = np.clip(corners + np.array(size) + 2, 0, (width, height)).T
    inside: BoolMask = sums[y1, x1] - sums[y0, x1] - sums[y1, x0] + sums[y0, x0] > 0
    return inside


def _rectangle(corners: Corners, cost: NDArray[np.float64], size: tuple[int, int]) -> Rectangle:
    """The tag at the corner with the lowest cost, the first of equal ones."""
    x, y = corners[int(cost.argmin())].tolist()
    return (x, y, x + size[0], y + size[1])
