"""Numbered marks on candidates, for an MLLM to name: an outline and a tag with its number each.

After Set-of-Mark prompting (arXiv:2310.11441), with tags that keep off each other and off what is
small, and colours that stand out from what they mark.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pil
from PIL import ImageDraw

from rsvp.drawing.brush import Colour, Rectangle, blend, grown, outline
from rsvp.drawing.tags import Font, covered_by, everywhere, font_of
from rsvp.errors import BadInput
from rsvp.masks import box_iou
from rsvp.types import BoolMask, Box, RgbArray

# All light, so that black numbers read well on each of them.
COLOURS: tuple[Colour, ...] = (
    (255, 255, 255),
    (255, 230, 30),
    (60, 240, 255),
    (90, 255, 90),
    (255, 165, 60),
    (255, 150, 220),
    (160, 190, 255),
    (200, 255, 170),
)
_BLACK: Colour = (0, 0, 0)

TEXT_SHARE = 0.28  # of the object's side is the height of its number, within the bounds below
TEXT_SMALLEST = (12.0, 20.0)  # pixels, on small and on large images
TEXT_LEAST = 9  # pixels, where tags are too many for anything larger
TAG_SHARE = 0.2  # of the image that all tags together may cover, before they shrink

# What a place for a tag costs: covering a tag (never, where there is room), covering other objects
# and its own, lying off its own object's mask, and coming later in the order of preference.
_ON_TAG, _ON_OTHER, _ON_OWN, _OFF, _LATER = 1e6, 3.0, 2.0, 1.5, 0.01


def mark_prompt(
    rgb: RgbArray,
    boxes: Sequence[Box],
    masks: NDArray[np.bool_] | None = None,
    *,
    numbers: Sequence[int] | None = None,
) -> RgbArray:
    """The image with candidates marked 1 to n, in the order given; see `draw_marks`."""
    return draw_marks(rgb, boxes, masks, numbers=numbers)[0]


def draw_marks(
    rgb: RgbArray,
    boxes: Sequence[Box],
    masks: NDArray[np.bool_] | None = None,
    *,
    numbers: Sequence[int] | None = None,
) -> tuple[RgbArray, list[Rectangle]]:
    """The image with a mark on each candidate, and where the marks' tags are.

    Every candidate gets an outline and, beside or just inside it, a tag with its number in the
    same colour: as large as the object and the crowd allow. No tag covers another one where there
    is room; one that had to move away is tied to its object by a line.

    Args:
        boxes: n boxes in pixels of `rgb`, inside it.
        masks: (n, h, w) bool, whose contours are drawn in place of the boxes.
        numbers: what the tags say, by default 1 to n.

    Returns:
        The (h, w, 3) drawing, and n rectangles in its pixels.

    Raises:
        BadInput: the masks are not of the image's size, or not as many as the boxes.
    """
    size = (rgb.shape[0], rgb.shape[1])
    if masks is not None and masks.shape != (len(boxes), *size):
        raise BadInput(f"marks on {len(boxes)} boxes need masks ({len(boxes)}, {size[0]}, "
                       f"{size[1]}), found {masks.shape}")  # fmt: skip
    texts = [str(n) for n in numbers or range(1, len(boxes) + 1)]
    colours = _colours(rgb, boxes)
    canvas = np.array(rgb)
    line = max(1, round(min(size) / 320))
    for k in _largest_first(boxes):
        mask = None if masks is None else masks[k]
        _draw_outline(canvas, boxes[k], mask, colours[k], line)
    fonts = _fonts(boxes, size)
    tags = _places(
        boxes, masks, [_tag_size(*pair) for pair in zip(texts, fonts, strict=True)], size
    )
    picture = Pil.fromarray(canvas)
    draw = ImageDraw.Draw(picture)
    for box, tag, colour in zip(boxes, tags, colours, strict=True):
        _tie(draw, box, tag, colour, line)
    for text, tag, colour, font in zip(texts, tags, colours, fonts, strict=True):
        _draw_tag(draw, text, tag, colour, font)
    return np.array(picture), tags


def _largest_first(boxes: Sequence[Box]) -> list[int]:
    return sorted(range(len(boxes)), key=lambda k: -boxes[k].area)


# -- colours and sizes


def _colours(rgb: RgbArray, boxes: Sequence[Box]) -> list[Colour]:
    """For each box the colour that is farthest from what lies under it and from its neighbours'."""
    palette = np.array(COLOURS, dtype=np.float64)
    chosen: list[int] = []
    for k, box in enumerate(boxes):
        contrast = np.linalg.norm(palette - _mean_colour(rgb, box), axis=1)
        near = [chosen[j] for j in range(k) if _are_near(box, boxes[j])]
        for taken in near:
            apart = np.linalg.norm(palette - palette[taken], axis=1)
            contrast = np.minimum(contrast, apart)
        used = np.array([chosen.count(c) for c in range(len(palette))])
        chosen.append(int((contrast - 4.0 * used).argmax()))
    return [COLOURS[c] for c in chosen]


def _mean_colour(rgb: RgbArray, box: Box) -> NDArray[np.float64]:
    """(3,) the mean colour in the box."""
    y0, x0 = min(int(box.y0), len(rgb) - 1), min(int(box.x0), rgb.shape[1] - 1)
    window = rgb[y0 : max(y0 + 1, round(box.y1)), x0 : max(x0 + 1, round(box.x1))]
    step = max(1, math.isqrt(window.shape[0] * window.shape[1]) // 32)
    mean: NDArray[np.float64] = window[::step, ::step].reshape(-1, 3).mean(axis=0)
    return mean


def _are_near(a: Box, b: Box) -> bool:
    """Whether the boxes meet when each grows by a quarter of its size."""
    grown_a, grown_b = (
        Box(b.x0 - b.width / 4, b.y0 - b.height / 4, b.x1 + b.width / 4, b.y1 + b.height / 4)
        for b in (a, b)
    )
    return box_iou(grown_a, grown_b) > 0


def _fonts(boxes: Sequence[Box], size: tuple[int, int]) -> list[Font]:
    """The font of each number: by its object's side, smaller for all where they are too many."""
    least = min(max(min(size) / 18, TEXT_SMALLEST[0]), TEXT_SMALLEST[1])
    most = max(least, min(min(size) / 12, 2 * least))
    heights = [min(max(TEXT_SHARE * math.sqrt(box.area), least), most) for box in boxes]
    area = sum(1.5 * h * h for h in heights)  # of a tag with two digits, roughly
    shrink = min(1.0, math.sqrt(TAG_SHARE * size[0] * size[1] / area)) if area else 1.0
    return [font_of(max(TEXT_LEAST, round(h * shrink))) for h in heights]


def _tag_size(text: str, font: Font) -> tuple[int, int]:
    """(width, height) of a number's tag, its black rim included."""
    left, top, right, bottom = font.getbbox(text, anchor="lt")
    pad = _pad(font)
    return math.ceil(right - left) + 2 * pad, math.ceil(bottom - top) + 2 * pad


def _pad(font: Font) -> int:
    """From a tag's edge to its number: a rim of 1 px and some air."""
    _, top, _, bottom = font.getbbox("0")
    return 2 + round((bottom - top) / 6)


# -- places


def _places(
    boxes: Sequence[Box],
    masks: NDArray[np.bool_] | None,
    sizes: Sequence[tuple[int, int]],
    image_size: tuple[int, int],
) -> list[Rectangle]:
    """A rectangle for each tag; those of small objects, which have the least choice, come first."""
    placed: dict[int, Rectangle] = {}
    edges = np.array([box.xyxy for box in boxes]).reshape(-1, 4)
    for k in reversed(_largest_first(boxes)):
        mask = None if masks is None else masks[k]
        taken = list(placed.values())
        placed[k] = _place(k, edges, mask, (sizes[k], image_size), taken)
    return [placed[k] for k in range(len(boxes))]


def _place(
    k: int,
    edges: NDArray[np.float64],
    mask: BoolMask | None,
    sizes: tuple[tuple[int, int], tuple[int, int]],
    taken: Sequence[Rectangle],
) -> Rectangle:
    """The cheapest place around the k-th of the (n, 4) boxes; where all are taken, the nearest.

    Args:
        sizes: (width, height) of the tag, (height, width) of the image.
    """
    size, image_size = sizes
    far = [max(0, image_size[1] - size[0]), max(0, image_size[0] - size[1])]
    corners = np.clip(_around(edges[k], size), 0, far)
    if covered_by(corners, size, taken).min() > 0:
        start = (int(edges[k, 0]), int(edges[k, 1]) - size[1])
        corners = np.concatenate([corners, everywhere(size, far, start)])
    covered = _overlaps(corners, size, edges) / np.maximum(1.0, _areas(edges))
    own, others = covered[:, k], np.delete(covered, k, axis=1).sum(axis=1)
    cost = (
        _ON_TAG * covered_by(corners, size, taken) / (size[0] * size[1])
        + _ON_OWN * own
        + _ON_OTHER * others
        + _LATER * np.arange(len(corners))
    )
    if mask is not None:
        cost = cost + _OFF * ~_touches(corners, size, mask)
    x, y = corners[int(cost.argmin())].tolist()
    return (x, y, x + size[0], y + size[1])


def _around(box: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.int64]:
    """(n, 2) xy corners of tags along a box's edges, outside and inside; the left top first."""
    (x0, y0, x1, y1), (across, down) = box, size
    xs = np.linspace(x0, max(x0, x1 - across), 5)
    ys = np.linspace(y0, max(y0, y1 - down), 5)
    rows = [(x, y) for y in (y0 - down, y0, y1, y1 - down) for x in xs]
    columns = [(x, y) for x in (x0 - across, x0, x1, x1 - across) for y in ys]
    middle = [((x0 + x1 - across) / 2, (y0 + y1 - down) / 2)]
    return np.rint([*rows, *columns, *middle]).astype(np.int64)


def _overlaps(
    corners: NDArray[np.int64], size: tuple[int, int], edges: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(corners, boxes) pixels of each box that a tag at each corner covers."""
    low = np.maximum(corners[:, None], edges[None, :, :2])
    high = np.minimum(corners[:, None] + np.array(size), edges[None, :, 2:])
    area: NDArray[np.float64] = np.clip(high - low, 0, None).prod(axis=2)
    return area


def _areas(edges: NDArray[np.float64]) -> NDArray[np.float64]:
    areas: NDArray[np.float64] = (edges[:, 2:] - edges[:, :2]).prod(axis=1)
    return areas


def _touches(corners: NDArray[np.int64], size: tuple[int, int], mask: BoolMask) -> BoolMask:
    """(n,) whether a tag at each corner lies on the mask or next to it."""
    sums = np.pad(mask.cumsum(0, dtype=np.int32).cumsum(1, dtype=np.int32), ((1, 0), (1, 0)))
    height, width = mask.shape
    x0, y0 = np.clip(corners - 2, 0, (width, height)).T
    x1, y1 = np.clip(corners + np.array(size) + 2, 0, (width, height)).T
    inside: BoolMask = sums[y1, x1] - sums[y0, x1] - sums[y1, x0] + sums[y0, x0] > 0
    return inside


# -- strokes


def _draw_outline(
    canvas: RgbArray, box: Box, mask: BoolMask | None, colour: Colour, line: int
) -> None:
    """The candidate's contour with a dark rim around it, in place."""
    height, width = canvas.shape[:2]
    x0, y0 = max(0, int(box.x0) - line), max(0, int(box.y0) - line)
    x1, y1 = min(width, round(box.x1) + line), min(height, round(box.y1) + line)
    if mask is None or not mask.any():
        outline(canvas, Box(x0, y0, max(x1, x0 + 1), max(y1, y0 + 1)), _BLACK, line, 0.6)
        outline(canvas, box, colour, line, 1.0)
        return
    window, part = canvas[y0:y1, x0:x1], mask[y0:y1, x0:x1]
    blend(window, grown(part, line) & ~part, _BLACK, 0.6)
    window[part & grown(~part, line)] = colour


def _tie(draw: ImageDraw.ImageDraw, box: Box, tag: Rectangle, colour: Colour, line: int) -> None:
    """A line from a tag to its box, where the two do not meet."""
    x = min(max((tag[0] + tag[2]) / 2, box.x0), box.x1)
    y = min(max((tag[1] + tag[3]) / 2, box.y0), box.y1)
    if tag[0] - 2 <= x <= tag[2] + 2 and tag[1] - 2 <= y <= tag[3] + 2:
        return
    ends = [((tag[0] + tag[2]) / 2, (tag[1] + tag[3]) / 2), (x, y)]
    draw.line(ends, _BLACK, 3 * line)
    draw.line(ends, colour, line)


def _draw_tag(
    draw: ImageDraw.ImageDraw, text: str, tag: Rectangle, colour: Colour, font: Font
) -> None:
    x0, y0, x1, y1 = tag
    draw.rectangle((x0, y0, x1 - 1, y1 - 1), fill=colour, outline=_BLACK)
    left, top, right, bottom = font.getbbox(text, anchor="lt")
    x, y = (x0 + x1 - right + left) / 2, (y0 + y1 - bottom + top) / 2
    draw.text((round(x - left), round(y - top)), text, _BLACK, font, "lt")
