"""The only place where coordinates change frame.

Sizes are (height, width) in pixels, boxes xyxy, points xy, in the upright image's pixels. A pixel
spans [i, i + 1), so that a box around the whole image is (0, 0, W, H) and every change of frame is
a plain scaling.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast, get_args

from rsvp.errors import BadInput
from rsvp.masks import clip_box
from rsvp.types import Box, Point

FrameKind = Literal[
    "pixels", "resized-pixels", "0-1000", "0-1000-yxyx", "0-1024-yxyx", "0-1", "percent"
]
Size = tuple[int, int]

MAX_ASPECT = 200  # smart_resize refuses longer strips, as the models' own preprocessing does
MARGIN = 0.05  # of the range: numbers that are further outside cannot be of the frame
MIN_COVERAGE = 0.1  # of a band's extent; a band that a box covers less does not count

_NORMALISED = {
    "0-1000": 1000.0, "0-1000-yxyx": 1000.0, "0-1024-yxyx": 1024.0, "0-1": 1.0, "percent": 100.0,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Frame:
    """How a model writes coordinates.

    Attributes:
        kind: ``pixels`` of the view that was sent; ``resized-pixels``, those of the view after the
            model's own `smart_resize` (Qwen2.5-VL); ``0-1000`` (Qwen3-VL, InternVL);
            ``0-1000-yxyx``, y before x (Gemini, Gemma); ``0-1024-yxyx`` (PaliGemma); ``0-1``;
            ``percent`` (Molmo).
        box_key: the JSON key of a box.
        fractions: the numbers are fractions of 1 all the same, see `as_written`.
        patch: side in pixels of a merged vision patch; `smart_resize` rounds to it.
        min_pixels, max_pixels: the bounds of `smart_resize` on height * width.
        resized: (h, w) of the view as the model saw it, where its backend tells; the other three
            are not needed then.

    Only ``resized-pixels`` looks at `patch`, the bounds and `resized`.
    """

    kind: FrameKind
    patch: int = 28
    min_pixels: int = 3136
    max_pixels: int = 12845056
    resized: Size | None = None
    box_key: str = "box"
    fractions: bool = False

    def __post_init__(self) -> None:
        if self.kind not in get_args(FrameKind):
            known = ", ".join(get_args(FrameKind))
            raise BadInput(f"unknown coordinate frame {self.kind!r}; choose one of {known}")
        if self.patch < 1 or not 0 < self.min_pixels <= self.max_pixels:
            raise BadInput(
                "a frame needs patch >= 1 and 0 < min_pixels <= max_pixels, "
                f"found {self.patch}, {self.min_pixels}, {self.max_pixels}"
            )

    @property
    def y_first(self) -> bool:
        """Whether y is written before x."""
        return self.kind.endswith("yxyx")

    @classmethod
    def parse(cls, text: str) -> Frame:
        """The frame named `text`, e.g. ``0-1000``; BadInput lists the names when it is none."""
        return cls(cast(FrameKind, text.strip().lower()))


def smart_resize(
    h: int, w: int, *, patch: int = 28, min_pixels: int = 3136, max_pixels: int = 12845056
) -> Size:
    """The size to which a Qwen-VL model resizes an (h, w) image before it looks at it.

    Both sides become multiples of `patch`, h * w stays within the bounds, and the aspect ratio is
    kept as nearly as that allows. Same result as transformers' function of this name.

    Raises:
        BadInput: a side is not positive, or one is more than 200 times the other.
    """
    if h < 1 or w < 1:
        raise BadInput(f"an image size is positive, found {h}x{w}")
    if max(h, w) / min(h, w) > MAX_ASPECT:
        raise BadInput(f"the image is too narrow for this model: {w}x{h} is beyond {MAX_ASPECT}:1")
    new_h, new_w = round(h / patch) * patch, round(w / patch) * patch
    if new_h * new_w > max_pixels:
        shrink = math.sqrt((h * w) / max_pixels)
        new_h = max(patch, math.floor(h / shrink / patch) * patch)
        new_w = max(patch, math.floor(w / shrink / patch) * patch)
    elif new_h * new_w < min_pixels:
        grow = math.sqrt(min_pixels / (h * w))
        new_h = math.ceil(h * grow / patch) * patch
        new_w = math.ceil(w * grow / patch) * patch
    return new_h, new_w


def to_box(numbers: Sequence[float], frame: Frame, *, view_size: Size, image_size: Size) -> Box:
    """Four numbers of a reply as a box in the image's pixels.

    Swapped corners are put in order, and what lies up to `MARGIN` outside the image is cut off.

    Args:
        numbers: as the model wrote them, two corners in the order of `frame`.
        view_size: (h, w) of the view that the model was sent.
        image_size: (H, W) of the image.

    Raises:
        BadInput: not four finite numbers, numbers outside the range of `frame`, or no part of the
            box lies in the image.
    """
    a, b, c, d = _finite(numbers, 4, "box")
    xs, ys = ((b, d), (a, c)) if frame.y_first else ((a, c), (b, d))
    height, width = _units(frame, view_size)
    if _outside(xs, width) or _outside(ys, height):
        raise BadInput(
            f"the box {_shown(numbers)} is out of range: x goes from 0 to {width:g}, y from 0 to "
            f"{height:g}"
        )
    per_y, per_x = _pixels_per_unit(frame, view_size, image_size)
    corners = (min(xs) * per_x, min(ys) * per_y, max(xs) * per_x, max(ys) * per_y)
    box = clip_box(corners, _around(image_size))
    if box is None:
        raise BadInput(f"the box {_shown(numbers)} ({frame.kind}) has no area inside the image")
    return box


def from_box(
    box: Box, frame: Frame, *, view_size: Size, image_size: Size
) -> tuple[float, float, float, float]:
    """The inverse of `to_box`: the unrounded numbers with which a model names `box`."""
    per_y, per_x = _pixels_per_unit(frame, view_size, image_size)
    x0, y0, x1, y1 = box.x0 / per_x, box.y0 / per_y, box.x1 / per_x, box.y1 / per_y
    return (y0, x0, y1, x1) if frame.y_first else (x0, y0, x1, y1)


def to_point(numbers: Sequence[float], frame: Frame, *, view_size: Size, image_size: Size) -> Point:
    """Two numbers of a reply as a positive click in the image's pixels; arguments as in `to_box`.

    A click on the far edge moves to the centre of the last pixel, so that it is on one.

    Raises:
        BadInput: not two finite numbers, or they lie outside the image.
    """
    a, b = _finite(numbers, 2, "point")
    per_y, per_x = _pixels_per_unit(frame, view_size, image_size)
    x, y = (b * per_x, a * per_y) if frame.y_first else (a * per_x, b * per_y)
    height, width = image_size
    if not (0 <= x <= width and 0 <= y <= height):
        units_y, units_x = _units(frame, view_size)
        raise BadInput(
            f"the point {_shown(numbers)} ({frame.kind}) lies outside the image: x goes from 0 to "
            f"{units_x:g}, y from 0 to {units_y:g}"
        )
    return Point(min(x, width - 0.5), min(y, height - 0.5))


def as_written(groups: Iterable[Sequence[float]], frame: Frame) -> Frame:
    """The frame of a reply's boxes and points: `frame`, or with `fractions` where all are such.

    Some models write fractions of 1 whatever they are asked for: numbers from 0 to 1 that are not
    all whole. In any other frame they would be a box of a pixel or less.

    Raises:
        BadInput: some of the groups are fractions, and some are not.
    """
    numbers = [tuple(group) for group in groups]
    small = [group for group in numbers if _is_fraction(group)]
    if frame.kind == "0-1" or not small:
        return frame
    others = [group for group in numbers if max(group, default=0) > 1 + MARGIN]
    if others:
        raise BadInput(
            f"{_shown(small[0])} is in fractions of 1 and {_shown(others[0])} is not: write all "
            "numbers in the units that you were told"
        )
    return replace(frame, fractions=True)


def pad_box(box: Box, fraction: float, image_size: Size) -> Box:
    """`box` grown on each side by `fraction` of its own width and height, cut at the image's edge.

    Raises:
        BadInput: `fraction` is negative or not finite, or the box lies outside the image.
    """
    if not (math.isfinite(fraction) and fraction >= 0):
        raise BadInput(f"padding is a fraction >= 0 of the box's size, found {fraction}")
    dx, dy = box.width * fraction, box.height * fraction
    padded = clip_box((box.x0 - dx, box.y0 - dy, box.x1 + dx, box.y1 + dy), _around(image_size))
    if padded is None:
        raise BadInput(f"the box {_shown(box.xyxy)} lies outside the image")
    return padded


def bands_to_box(
    rows: Sequence[int],
    columns: Sequence[int],
    *,
    grid: tuple[int, int],
    image_size: Size,
    padding: float = 0.0,
) -> Box:
    """The box that spans the named bands of an M x N grid, then padded as in `pad_box`.

    Args:
        rows: 1-based numbers of horizontal bands, top to bottom, in any order.
        columns: 1-based numbers of vertical bands, left to right, in any order.
        grid: (M, N), how many rows and columns there are.

    Raises:
        BadInput: no row or no column is named, or a number lies outside the grid.
    """
    for noun, named, count in (("row", rows, grid[0]), ("column", columns, grid[1])):
        if not named:
            raise BadInput(f"no {noun} is named; a region needs at least one of 1 to {count}")
        if any(not 1 <= number <= count for number in named):
            raise BadInput(f"{noun}s are numbered 1 to {count}, found {list(named)}")
    height, width = image_size
    per_row, per_column = height / grid[0], width / grid[1]
    box = Box(
        (min(columns) - 1) * per_column,
        (min(rows) - 1) * per_row,
        max(columns) * per_column,
        max(rows) * per_row,
    )
    return pad_box(box, padding, image_size)


def box_to_bands(
    box: Box, *, grid: tuple[int, int], image_size: Size
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(rows, columns), 1-based, of the bands that `box` covers.

    A band counts when the box covers more than a tenth of its extent; where that is true of none,
    the band that holds most of the box counts.
    """
    height, width = image_size
    return (
        _bands(box.y0, box.y1, grid[0], height),
        _bands(box.x0, box.x1, grid[1], width),
    )


def _pixels_per_unit(frame: Frame, view_size: Size, image_size: Size) -> tuple[float, float]:
    """(y, x): how many of the image's pixels one unit of `frame` is."""
    units = _units(frame, view_size)
    return image_size[0] / units[0], image_size[1] / units[1]


def _units(frame: Frame, view_size: Size) -> tuple[float, float]:
    """(y, x): how many units of `frame` the image is high and wide."""
    if frame.fractions:
        units: tuple[float, float] = (1.0, 1.0)
    elif frame.kind == "pixels":
        units = view_size
    elif frame.kind == "resized-pixels":
        units = frame.resized or smart_resize(
            *view_size,
            patch=frame.patch,
            min_pixels=frame.min_pixels,
            max_pixels=frame.max_pixels,
        )
    else:
        units = (_NORMALISED[frame.kind],) * 2
    return units


def _outside(numbers: Sequence[float], limit: float) -> bool:
    """Whether one of them is too far from the range 0 to `limit`."""
    return not all(-MARGIN * limit <= number <= (1 + MARGIN) * limit for number in numbers)


def _is_fraction(group: Sequence[float]) -> bool:
    """Whether the numbers can only be fractions of 1."""
    return not _outside(group, 1) and any(n != int(n) for n in group)


def _finite(numbers: Sequence[float], count: int, noun: str) -> tuple[float, ...]:
    try:
        values = tuple(float(number) for number in numbers)
    except OverflowError:  # an integer beyond the range of floats
        values = ()
    if len(values) != count or not all(math.isfinite(value) for value in values):
        raise BadInput(f"a {noun} is {count} finite numbers, found {_shown(numbers)}")
    return values


def _around(image_size: Size) -> Box:
    return Box(0.0, 0.0, float(image_size[1]), float(image_size[0]))


def _bands(low: float, high: float, count: int, extent: int) -> tuple[int, ...]:
    """1-based bands of `count` along `extent` that the interval low..high covers."""
    size = extent / count
    covered = [min(high, (i + 1) * size) - max(low, i * size) for i in range(count)]
    bands = tuple(i + 1 for i, length in enumerate(covered) if length > MIN_COVERAGE * size)
    return bands or (covered.index(max(covered)) + 1,)


def _shown(numbers: Sequence[float]) -> str:
    """The numbers on one short line, however many and however long they are."""
    shown = ", ".join(_brief(number) for number in numbers[:6])
    return f"({shown}{', …' if len(numbers) > 6 else ''})"


def _brief(number: float) -> str:
    try:
        return f"{number:g}"
    except OverflowError:
        return "an integer beyond floats"
