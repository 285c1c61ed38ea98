"""The answer that people see: masks, boxes and tags on the image."""

from __future__ import annotations

import colorsys
import math
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from PIL import Image as Pil
from PIL import ImageDraw

from rsvp.drawing.brush import Colour, Rectangle, blend, grown, is_light, line_width, outline
from rsvp.drawing.tags import Font, font_of, place_tag
from rsvp.errors import BadInput
from rsvp.masks import mask_to_box
from rsvp.types import BoolMask, RgbArray, Target

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


def overlay(rgb: RgbArray, targets: Sequence[Target]) -> RgbArray:
    """The targets on the image: tinted masks with contours, thin boxes, tags with label and score.

    Without targets the image gets a small "no target" tag in its lower left corner.

    Raises:
        BadInput: a target's mask is not of the image's size.
    """
    canvas = np.array(rgb)
    size = (rgb.shape[0], rgb.shape[1])
    line = line_width(size)
    colours = [colour_of(i) for i in range(len(targets))]
    for target, colour in zip(targets, colours, strict=True):
        if target.mask.shape != size:
            raise BadInput(f"the mask is {target.mask.shape}, the image {size}")
        tint(canvas, target.mask, colour, line)
    for target, colour in zip(targets, colours, strict=True):
        outline(canvas, target.box, colour, max(1, line // 2), BOX_LINE)
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


# -- masks and boxes


def tint(canvas: RgbArray, mask: BoolMask, colour: Colour, line: int) -> None:
    """Fill `mask` with translucent colour and draw its contour, in place."""
    box = mask_to_box(mask)
    if box is None:
        return
    halo = max(1, line // 2)
    # Only the mask's surroundings are touched: a small mask in a large image is quick.
    x0, y0 = max(0, int(box.x0) - halo), max(0, int(box.y0) - halo)
    x1, y1 = int(box.x1) + halo, int(box.y1) + halo
    window, part = canvas[y0:y1, x0:x1], mask[y0:y1, x0:x1]
    blend(window, part, colour, FILL)
    blend(window, grown(part, halo) & ~part, (0, 0, 0), 0.45)
    window[part & grown(~part, line)] = colour


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
        spot = place_tag(_tag_size(text, font, pad), target.box, canvas.shape[:2], placed)
        placed.append(spot)
        draw.rectangle((spot[0], spot[1], spot[2] - 1, spot[3] - 1), fill=colour)
        ink = "black" if is_light(colour) else "white"
        draw.text((spot[0] + pad, (spot[1] + spot[3]) / 2), text, ink, font, "lm")
    return np.array(picture)


def _with_notice(canvas: RgbArray, text: str) -> RgbArray:
    height, width = canvas.shape[:2]
    font, pad = _tag_font((height, width))
    across, down = _tag_size(text, font, pad)
    if across > width or down > height:
        return canvas
    blend(canvas[height - down :, :across], np.ones((down, across), np.bool_), (0, 0, 0), 0.5)
    picture = Pil.fromarray(canvas)
    ImageDraw.Draw(picture).text((pad, height - down / 2), text, (235, 235, 235), font, "lm")
    return np.array(picture)


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
    return font_of(points), max(2, points // 4)
