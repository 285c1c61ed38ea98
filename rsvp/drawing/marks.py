"""Numbered marks on candidate regions for an MLLM: an outline and a tag with a number each.

After Set-of-Mark prompting (arXiv:2310.11441). Here tags avoid each other and small objects, and
colours contrast with what lies under them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pil
from PIL import ImageDraw

from rsvp.drawing.palette import BLACK, MARKS, Colour
from rsvp.drawing.strokes import contour, outline
from rsvp.drawing.tags import Font, Rectangle, font_of, largest_first, place_tags
from rsvp.errors import BadInput
from rsvp.masks import box_iou, mask_to_box
from rsvp.types import BoolMask, Box, RgbArray

TEXT_HEIGHT = 0.28  # of a number, relative to its object's side, within the bounds below
SMALLEST_TEXT = (12.0, 20.0)  # pixels, on small and on large images
DARK = 0.6  # opacity of the border around an outline
LEAST_TEXT = 9  # pixels, where there are too many tags for anything larger
MAX_COVERED = 0.2  # of the image by all tags together; beyond it they shrink


def draw_marks(
    rgb: RgbArray,
    boxes: Sequence[Box],
    masks: NDArray[np.bool_] | None = None,
    *,
    numbers: Sequence[int] | None = None,
) -> tuple[RgbArray, list[Rectangle]]:
    """The image with a mark on each candidate, and the rectangles of the marks' tags.

    Each candidate gets an outline and, beside or just inside it, a tag with its number in the same
    colour, sized by the object and by the number of tags. No tag covers another one while there is
    a free position; a line connects a tag to its object where the two do not touch.

    Args:
        boxes: n boxes in pixels of `rgb`, inside it.
        masks: (n, h, w) bool, whose contours are drawn in place of the boxes.
        numbers: on the tags, by default 1 to n.

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
    colours, fonts = _colours(rgb, boxes), _fonts(boxes, size)
    canvas = np.array(rgb)
    line = max(1, round(min(size) / 320))
    for k in largest_first(boxes):
        mask = None if masks is None else masks[k]
        _draw_outline(canvas, boxes[k], mask, colours[k], line)
    tags = place_tags(boxes, masks, list(map(_tag_size, texts, fonts)), size)
    picture = Pil.fromarray(canvas)
    draw = ImageDraw.Draw(picture)
    for box, tag, colour in zip(boxes, tags, colours, strict=True):
        _connect(draw, box, tag, colour, line)
    for text, tag, colour, font in zip(texts, tags, colours, fonts, strict=True):
        _draw_tag(draw, text, tag, colour, font)
    return np.array(picture), tags


def draw_masks(
    rgb: RgbArray, masks: Sequence[BoolMask], empty: Sequence[Box] = ()
) -> tuple[RgbArray, list[Rectangle], list[Box]]:
    """The image with masks marked 1 to n, the rectangles of the tags, and the masks' boxes.

    Args:
        masks: n masks (h, w) bool of the image's size; the image stays as it is without any.
        empty: n boxes that are drawn in place of empty masks; not needed where there are none.
    """
    if not masks:
        return rgb, [], []
    boxes = [mask_to_box(mask) or empty[k] for k, mask in enumerate(masks)]
    return *draw_marks(rgb, boxes, np.stack(masks)), boxes


# -- colours and sizes


def _colours(rgb: RgbArray, boxes: Sequence[Box]) -> list[Colour]:
    """For each box the colour with most contrast to what lies under it and to its neighbours'."""
    palette = np.array(MARKS, dtype=np.float64)
    chosen: list[int] = []
    for k, box in enumerate(boxes):
        contrast = np.linalg.norm(palette - _mean_colour(rgb, box), axis=1)
        for j in range(k):
            if _are_near(box, boxes[j]):
                distance = np.linalg.norm(palette - palette[chosen[j]], axis=1)
                contrast = np.minimum(contrast, distance)
        used = np.bincount(chosen, minlength=len(palette))
        chosen.append(int((contrast - 4.0 * used).argmax()))
    return [MARKS[c] for c in chosen]


def _mean_colour(rgb: RgbArray, box: Box) -> NDArray[np.float64]:
    """(3,) the mean colour in the box."""
    y0, x0 = min(int(box.y0), len(rgb) - 1), min(int(box.x0), rgb.shape[1] - 1)
    window = rgb[y0 : max(y0 + 1, round(box.y1)), x0 : max(x0 + 1, round(box.x1))]
    step = max(1, math.isqrt(window.shape[0] * window.shape[1]) // 32)
    mean: NDArray[np.float64] = window[::step, ::step].reshape(-1, 3).mean(axis=0)
    return mean


def _are_near(a: Box, b: Box) -> bool:
    """Whether the boxes overlap when each grows by a quarter of its size."""
    grown_a, grown_b = (
        Box(b.x0 - b.width / 4, b.y0 - b.height / 4, b.x1 + b.width / 4, b.y1 + b.height / 4)
        for b in (a, b)
    )
    return box_iou(grown_a, grown_b) > 0


def _fonts(boxes: Sequence[Box], size: tuple[int, int]) -> list[Font]:
    """The font of each number: by its object's side, smaller for all where there are too many."""
    least = min(max(min(size) / 18, SMALLEST_TEXT[0]), SMALLEST_TEXT[1])
    most = max(least, min(min(size) / 12, 2 * least))
    heights = [min(max(TEXT_HEIGHT * math.sqrt(box.area), least), most) for box in boxes]
    area = sum(1.5 * h * h for h in heights)  # of a tag with two digits, roughly
    shrink = min(1.0, math.sqrt(MAX_COVERED * size[0] * size[1] / area)) if area else 1.0
    return [font_of(max(LEAST_TEXT, round(h * shrink))) for h in heights]


def _tag_size(text: str, font: Font) -> tuple[int, int]:
    """(width, height) of a number's tag, with a border of 1 px and a margin."""
    left, top, right, bottom = font.getbbox(text, anchor="lt")
    _, zero_top, _, zero_bottom = font.getbbox("0")
    pad = 2 + round((zero_bottom - zero_top) / 6)
    return math.ceil(right - left) + 2 * pad, math.ceil(bottom - top) + 2 * pad


# -- drawing


def _draw_outline(
    canvas: RgbArray, box: Box, mask: BoolMask | None, colour: Colour, line: int
) -> None:
    """Draw the candidate's contour with a dark border around it, in place."""
    if mask is not None and mask.any():
        contour(canvas, mask, box, colour, line=line, border=line, dark=DARK)
        return
    height, width = canvas.shape[:2]
    x0, y0 = max(0, int(box.x0) - line), max(0, int(box.y0) - line)
    x1, y1 = min(width, round(box.x1) + line), min(height, round(box.y1) + line)
    outline(canvas, Box(x0, y0, max(x1, x0 + 1), max(y1, y0 + 1)), BLACK, line, DARK)
    outline(canvas, box, colour, line, 1.0)


def _connect(
    draw: ImageDraw.ImageDraw, box: Box, tag: Rectangle, colour: Colour, line: int
) -> None:
    """Draw a line from a tag to its box, where the two do not touch."""
    middle = ((tag[0] + tag[2]) / 2, (tag[1] + tag[3]) / 2)
    x, y = min(max(middle[0], box.x0), box.x1), min(max(middle[1], box.y0), box.y1)
    if tag[0] - 2 <= x <= tag[2] + 2 and tag[1] - 2 <= y <= tag[3] + 2:
        return
    draw.line([middle, (x, y)], BLACK, 3 * line)
    draw.line([middle, (x, y)], colour, line)


def _draw_tag(
    draw: ImageDraw.ImageDraw, text: str, tag: Rectangle, colour: Colour, font: Font
) -> None:
    x0, y0, x1, y1 = tag
    draw.rectangle((x0, y0, x1 - 1, y1 - 1), fill=colour, outline=BLACK)
    left, top, right, bottom = font.getbbox(text, anchor="lt")
    x, y = (x0 + x1 - right + left) / 2, (y0 + y1 - bottom + top) / 2
    draw.text((round(x - left), round(y - top)), text, BLACK, font, "lt")
