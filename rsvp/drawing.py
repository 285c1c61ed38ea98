"""What is drawn on an image: the grid that the MLLM sees, and the answer that people see.

Everything takes and returns (H, W, 3) uint8 RGB of the same size and leaves its input alone. Line
widths and text sizes follow the image's shorter side, so that 64 px and 6000 px look alike.
"""

from __future__ import annotations

import colorsys
import math
import unicodedata
from collections.abc import Sequence
from functools import lru_cache, partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pil
from PIL import ImageDraw, ImageFilter, ImageFont

from rsvp.errors import BadInput
from rsvp.geometry import mask_to_box
from rsvp.types import BoolMask, Box, RgbArray, Target

Colour = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Rectangle = tuple[int, int, int, int]  # x0, y0, x1, y1, far edges exclusive

PALETTE: tuple[Colour, ...] = (
    (255, 56, 92),
    (30, 144, 255),
    (50, 205, 90),
    (255, 170, 0),
    (176, 84, 255),
    (0, 206, 209),
    (255, 105, 200),
    (190, 210, 40),
)
FILL = 0.40  # opacity of a mask
BOX_LINE = 0.75  # opacity of a box's outline
MAX_LABEL = 40  # characters of a label that a tag shows
TAG_SHARE = 0.25  # of the image; tags that would hide more show numbers only, or nothing

_ROW_TEXT = (255, 224, 64, 240)
_COLUMN_TEXT = (96, 232, 255, 240)
_OUTLINE = (0, 0, 0, 240)
_LIGHT, _DARK = (255, 255, 255, 120), (0, 0, 0, 80)


def grid_prompt(rgb: RgbArray, grid: tuple[int, int]) -> RgbArray:
    """The visual prompt of RSVP (ACL 2025): numbered bands over the image.

    M horizontal and N vertical bands of equal size, parted by thin translucent lines; rows are
    numbered from 1 down the left margin, columns from 1 along the top. The image keeps its size.

    Args:
        grid: (M, N), how many rows and columns.
    """
    lines, opacity = _grid_layer(rgb.shape[0], rgb.shape[1], *grid)
    canvas = Pil.fromarray(rgb)
    canvas.paste(lines, (0, 0), opacity)
    return np.array(canvas)


def overlay(rgb: RgbArray, targets: Sequence[Target]) -> RgbArray:
    """The targets on the image: tinted masks with contours, thin boxes, tags with label and score.

    Without targets the image gets a small "no target" tag in its lower left corner.

    Raises:
        BadInput: a target's mask is not of the image's size.
    """
    canvas = np.array(rgb)
    size = (rgb.shape[0], rgb.shape[1])
    line = _line_width(size)
    colours = [colour_of(i) for i in range(len(targets))]
    for target, colour in zip(targets, colours, strict=True):
        if target.mask.shape != size:
            raise BadInput(f"the mask is {target.mask.shape}, the image {size}")
        _tint(canvas, target.mask, colour, line)
    for target, colour in zip(targets, colours, strict=True):
        _outline(canvas, target.box, colour, max(1, line // 2))
    if not targets:
        return _with_notice(canvas, "no target")
    return _with_tags(canvas, targets, colours)


def colour_of(index: int) -> Colour:
    """The colour of the `index`-th target: a fixed palette, then hues by the golden angle."""
    if index < len(PALETTE):
        return PALETTE[index]
    hue = (index * 0.618034) % 1.0
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.75, 1.0 if index % 2 else 0.8)
    return round(red * 255), round(green * 255), round(blue * 255)


# -- the grid


@lru_cache(maxsize=8)
def _grid_layer(height: int, width: int, rows: int, columns: int) -> tuple[Pil.Image, Pil.Image]:
    """(RGB, opacity) of the bands for one image size; drawn once, pasted on every image."""
    layer = np.zeros((height, width, 4), dtype=np.uint8)
    line = _line_width((height, width))
    ys = [round(i * height / rows) for i in range(1, rows)]
    xs = [round(i * width / columns) for i in range(1, columns)]
    # A light line beside a dark one shows on every background.
    for colour, shift in ((_DARK, 0), (_LIGHT, -line)):
        for y in ys:
            layer[max(0, y + shift) : max(0, y + shift + line)] = colour
        for x in xs:
            layer[:, max(0, x + shift) : max(0, x + shift + line)] = colour
    canvas = Pil.fromarray(layer)
    _number_bands(canvas, rows, columns)
    return canvas.convert("RGB"), canvas.getchannel("A")


def _number_bands(canvas: Pil.Image, rows: int, columns: int) -> None:
    """Write the bands' numbers along the left and the top, as large as the bands allow."""
    band = min(canvas.height / rows, canvas.width / columns)
    points = round(max(6, min(0.5 * band, max(14, min(canvas.size) / 22))))
    font, stroke = _font(points), max(1, round(points / 9))
    margin = stroke + max(1, points // 8)
    text = partial(
        ImageDraw.Draw(canvas).text, font=font, stroke_width=stroke, stroke_fill=_OUTLINE
    )
    for row in range(rows):
        y = (row + 0.5) * canvas.height / rows
        text((margin, y), str(row + 1), fill=_ROW_TEXT, anchor="lm")
    for column in range(columns):
        x = (column + 0.5) * canvas.width / columns
        text((x, margin), str(column + 1), fill=_COLUMN_TEXT, anchor="mt")


# -- masks and boxes


def _tint(canvas: RgbArray, mask: BoolMask, colour: Colour, line: int) -> None:
    """Fill `mask` with translucent colour and draw its contour, in place."""
    box = mask_to_box(mask)
    if box is None:
        return
    halo = max(1, line // 2)
    # Only the mask's surroundings are touched: a small mask in a large image is quick.
    x0, y0 = max(0, int(box.x0) - halo), max(0, int(box.y0) - halo)
    x1, y1 = int(box.x1) + halo, int(box.y1) + halo
    window, part = canvas[y0:y1, x0:x1], mask[y0:y1, x0:x1]
    _blend(window, part, colour, FILL)
    _blend(window, _grown(part, halo) & ~part, (0, 0, 0), 0.45)
    window[part & _grown(~part, line)] = colour


def _grown(mask: BoolMask, pixels: int) -> BoolMask:
    """`mask` dilated by a square of 2 * `pixels` + 1; the image's edge adds nothing."""
    blurred = Pil.fromarray(mask.astype(np.uint8) * 255).filter(ImageFilter.BoxBlur(pixels))
    grown: BoolMask = np.asarray(blurred) > 0
    return grown


def _outline(canvas: RgbArray, box: Box, colour: Colour, line: int) -> None:
    """A box's outline, just inside its edges, in place."""
    height, width = canvas.shape[:2]
    x0, y0 = min(int(box.x0), width - 1), min(int(box.y0), height - 1)
    x1, y1 = max(round(box.x1), x0 + 1), max(round(box.y1), y0 + 1)
    edge = np.ones((min(y1, height) - y0, min(x1, width) - x0), dtype=np.bool_)
    edge[line:-line, line:-line] = False
    _blend(canvas[y0:y1, x0:x1], edge, colour, BOX_LINE)


def _blend(window: RgbArray, where: BoolMask, colour: Colour, opacity: float) -> None:
    tinted = window[where] * (1 - opacity) + np.array(colour) * opacity
    window[where] = np.rint(tinted).astype(np.uint8)


# -- tags


def _with_tags(canvas: RgbArray, targets: Sequence[Target], colours: Sequence[Colour]) -> RgbArray:
    """Label and score beside every box, inside the image and clear of each other."""
    picture = Pil.fromarray(canvas)
    draw = ImageDraw.Draw(picture)
    font, pad = _tag_font(canvas.shape[:2])
    placed: list[Rectangle] = []
    texts = _tag_texts(targets, canvas.shape[:2], font, pad)
    for text, target, colour in zip(texts, targets, colours, strict=True):
        if not text:
            continue
        spot = _place(_tag_size(text, font, pad), target.box, canvas.shape[:2], placed)
        placed.append(spot)
        draw.rectangle((spot[0], spot[1], spot[2] - 1, spot[3] - 1), fill=colour)
        ink = "black" if _is_light(colour) else "white"
        draw.text((spot[0] + pad, (spot[1] + spot[3]) / 2), text, ink, font, "lm")
    return np.array(picture)


def _with_notice(canvas: RgbArray, text: str) -> RgbArray:
    height, width = canvas.shape[:2]
    font, pad = _tag_font((height, width))
    across, down = _tag_size(text, font, pad)
    if across > width or down > height:
        return canvas
    _blend(canvas[height - down :, :across], np.ones((down, across), np.bool_), (0, 0, 0), 0.5)
    picture = Pil.fromarray(canvas)
    ImageDraw.Draw(picture).text((pad, height - down / 2), text, (235, 235, 235), font, "lm")
    return np.array(picture)


def _place(
    size: tuple[int, int], box: Box, image_size: tuple[int, ...], placed: Sequence[Rectangle]
) -> Rectangle:
    """Where a (width, height) tag goes: by its box when free, else the nearest free place.

    Where nothing is free, the place that covers least of the other tags.
    """
    (across, down), (height, width) = size, image_size
    left, right = int(box.x0), round(box.x1) - across
    top, bottom = int(box.y0), round(box.y1) - down
    around = [(x, y) for y in (top - down, bottom + down) for x in (left, right)]
    around = [(x, y) for x, y in around if 0 <= y <= height - down]
    around += [(left, top), (left, bottom), (right, top), (right, bottom)]
    far = [max(0, width - across), max(0, height - down)]
    corners = np.clip(np.array(around), 0, far)
    covered = _covered(corners, size, placed)
    if covered.min() > 0:
        corners = _everywhere(size, far, start=(left, top - down))
        covered = _covered(corners, size, placed)
    x, y = corners[int(covered.argmin())].tolist()  # the first, on a tie
    return (x, y, x + across, y + down)


def _everywhere(
    size: tuple[int, int], far: Sequence[int], start: tuple[int, int]
) -> NDArray[np.int64]:
    """(n, 2) xy corners all over the image, the nearest to `start` first."""
    xs = np.arange(0, far[0] + 1, max(1, size[0] // 4))
    ys = np.arange(0, far[1] + 1, max(1, size[1] // 2))
    corners = np.stack(np.meshgrid(xs, ys), axis=-1).reshape(-1, 2)
    distance = np.abs(corners - np.array(start)).sum(axis=1)
    return corners[np.argsort(distance, kind="stable")]


def _covered(
    corners: NDArray[np.int64], size: tuple[int, int], placed: Sequence[Rectangle]
) -> NDArray[np.int64]:
    """(n,) pixels of the placed rectangles that a tag at each corner would cover."""
    total = np.zeros(len(corners), dtype=np.int64)
    for x0, y0, x1, y1 in placed:
        across = np.minimum(corners[:, 0] + size[0], x1) - np.maximum(corners[:, 0], x0)
        down = np.minimum(corners[:, 1] + size[1], y1) - np.maximum(corners[:, 1], y0)
        total += np.maximum(across, 0) * np.maximum(down, 0)
    return total


def _tag_texts(targets: Sequence[Target], size: tuple[int, ...], font: Font, pad: int) -> list[str]:
    """Label and score of every target; where these would hide the image, numbers; or nothing."""
    room = size[1] - 2 * pad
    numbers = [str(n) for n in range(1, len(targets) + 1)]
    full = [_tag_text(t, n, font, room) for n, t in zip(numbers, targets, strict=True)]
    for texts in (full, numbers):
        area = sum(math.prod(_tag_size(text, font, pad)) for text in texts if text)
        if area <= TAG_SHARE * size[0] * size[1]:
            return texts
    return [""] * len(targets)


def _tag_text(target: Target, number: str, font: Font, room: int) -> str:
    """`label  score`, the label shortened until it fits into `room` pixels; "" when none does."""
    label, score = _printable(target.label, number, font), f"{target.score:.2f}"
    for length in range(len(label), 0, -1):
        shown = label if length == len(label) else label[:length].rstrip() + "…"
        if font.getlength(f"{shown}  {score}") <= room:
            return f"{shown}  {score}"
    return score if font.getlength(score) <= room else ""


def _printable(label: str, number: str, font: Font) -> str:
    """The label on one line, accents dropped where the font has none; "target 3" in its place
    where the font lacks its script."""
    plain = "".join(c if c.isprintable() else " " for c in label)
    for text in (plain, _without_accents(plain)):
        words = " ".join(text.split())
        if len(words) > MAX_LABEL:
            words = words[: MAX_LABEL - 1].rstrip() + "…"
        if all(_has_glyph(character, font) for character in words):
            return words
    return f"target {number}"


def _without_accents(text: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))


@lru_cache(maxsize=4096)
def _has_glyph(character: str, font: Font) -> bool:
    missing = font.getmask("\uffff")
    glyph = font.getmask(character)
    return glyph.size != missing.size or bytes(glyph) != bytes(missing)


def _tag_size(text: str, font: Font, pad: int) -> tuple[int, int]:
    _, top, _, bottom = font.getbbox("Bg")  # of every tag alike, whatever its letters
    return round(font.getlength(text)) + 2 * pad, round(bottom - top) + pad


def _tag_font(size: tuple[int, ...]) -> tuple[Font, int]:
    points = max(10, round(min(size) / 32))
    return _font(points), max(2, points // 4)


@lru_cache(maxsize=32)
def _font(points: int) -> Font:
    return ImageFont.load_default(points)


def _line_width(size: tuple[int, int]) -> int:
    return max(1, round(min(size) / 450))


def _is_light(colour: Colour) -> bool:
    red, green, blue = colour
    return 0.299 * red + 0.587 * green + 0.114 * blue > 140
