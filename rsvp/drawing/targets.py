"""The overlay: a result's masks, boxes and tags drawn on the image, for people."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from PIL import Image as Pil
from PIL import ImageDraw

from rsvp.drawing.palette import BLACK, NOTICE, Colour, colour_of, is_light
from rsvp.drawing.strokes import blend, contour, line_width, outline
from rsvp.drawing.tags import Font, Rectangle, font_of, place_tag
from rsvp.errors import BadInput
from rsvp.masks import mask_to_box
from rsvp.types import BoolMask, RgbArray, Target

FILL = 0.40  # opacity of a mask
BORDER = 0.45  # opacity of the dark line around it
BOX_LINE = 0.75  # opacity of a box's outline
MAX_LABEL = 40  # characters of a label on a tag
MAX_COVERED = 0.25  # of the image by all tags; beyond it they show numbers only, or nothing


def overlay(rgb: RgbArray, targets: Sequence[Target], notice: str = "no target") -> RgbArray:
    """The targets on the image: tinted masks with contours, thin boxes, tags with label and score.

    Without targets the image gets a small tag with `notice` in its lower left corner.

    Raises:
        BadInput: a target's mask is not of the image's size.
    """
    canvas = np.array(rgb)
    size = (rgb.shape[0], rgb.shape[1])
    line = line_width(size)
    colours = [colour_of(i) for i in range(len(targets))]
    for target, colour in zip(targets, colours, strict=True):
        if target.packed.size != size:
            raise BadInput(f"the mask is {target.packed.size}, the image {size}")
        _tint(canvas, target.mask, colour, line)
    for target, colour in zip(targets, colours, strict=True):
        outline(canvas, target.box, colour, max(1, line // 2), BOX_LINE)
    if not targets:
        return _with_notice(canvas, notice)
    return _with_tags(canvas, targets, colours)


def _tint(canvas: RgbArray, mask: BoolMask, colour: Colour, line: int) -> None:
    """Fill `mask` with translucent colour and draw its contour, in place."""
    box = mask_to_box(mask)
    if box is None:
        return
    x0, y0, x1, y1 = map(int, box.xyxy)
    blend(canvas[y0:y1, x0:x1], mask[y0:y1, x0:x1], colour, FILL)
    contour(canvas, mask, box, colour, line=line, border=max(1, line // 2), dark=BORDER)


# -- tags


def _with_tags(canvas: RgbArray, targets: Sequence[Target], colours: Sequence[Colour]) -> RgbArray:
    """Label and score beside every box, inside the image, without overlap while possible."""
    picture = Pil.fromarray(canvas)
    draw = ImageDraw.Draw(picture)
    font, pad = _tag_font(canvas.shape[:2])
    placed: list[Rectangle] = []
    texts = _tag_texts(targets, canvas.shape[:2], font, pad)
    for text, target, colour in zip(texts, targets, colours, strict=True):
        if not text:
            continue
        tag = place_tag(_tag_size(text, font, pad), target.box, canvas.shape[:2], placed)
        placed.append(tag)
        draw.rectangle((tag[0], tag[1], tag[2] - 1, tag[3] - 1), fill=colour)
        text_colour = "black" if is_light(colour) else "white"
        draw.text((tag[0] + pad, (tag[1] + tag[3]) / 2), text, text_colour, font, "lm")
    return np.array(picture)


def _with_notice(canvas: RgbArray, text: str) -> RgbArray:
    """A text on a darkened lower left corner, if it fits."""
    image_height, image_width = canvas.shape[:2]
    font, pad = _tag_font((image_height, image_width))
    width, height = _tag_size(text, font, pad)
    if width > image_width or height > image_height:
        return canvas
    corner = canvas[image_height - height :, :width]
    blend(corner, np.ones((height, width), np.bool_), BLACK, 0.5)
    picture = Pil.fromarray(canvas)
    draw = ImageDraw.Draw(picture)
    draw.text((pad, image_height - height / 2), text, NOTICE, font, "lm")
    return np.array(picture)


def _tag_texts(targets: Sequence[Target], size: tuple[int, ...], font: Font, pad: int) -> list[str]:
    """Label and score of every target; where these would hide the image, numbers; or nothing."""
    max_width = size[1] - 2 * pad
    numbers = [str(n) for n in range(1, len(targets) + 1)]
    full = [_tag_text(t, n, font, max_width) for n, t in zip(numbers, targets, strict=True)]
    for texts in (full, numbers):
        area = sum(math.prod(_tag_size(text, font, pad)) for text in texts if text)
        if area <= MAX_COVERED * size[0] * size[1]:
            return texts
    return [""] * len(targets)


def _tag_text(target: Target, number: str, font: Font, max_width: int) -> str:
    """`label  score`, the label shortened until it fits; the score, or "", where none does."""
    label, score = _printable(target.label, number, font), f"{target.score:.2f}"
    for length in range(len(label), 0, -1):
        short = label if length == len(label) else label[:length].rstrip() + "…"
        if font.getlength(f"{short}  {score}") <= max_width:
            return f"{short}  {score}"
    return score if font.getlength(score) <= max_width else ""


def _printable(label: str, number: str, font: Font) -> str:
    """The label on one line, without accents that the font lacks; "target 3" for other scripts."""
    plain = "".join(c if c.isprintable() else " " for c in label)
    decomposed = unicodedata.normalize("NFKD", plain)
    for text in (plain, "".join(c for c in decomposed if not unicodedata.combining(c))):
        words = " ".join(text.split())
        if len(words) > MAX_LABEL:
            words = words[: MAX_LABEL - 1].rstrip() + "…"
        if all(_has_glyph(character, font) for character in words):
            return words
    return f"target {number}"


@lru_cache(maxsize=4096)
def _has_glyph(character: str, font: Font) -> bool:
    missing = font.getmask("\uffff")
    glyph = font.getmask(character)
    return glyph.size != missing.size or bytes(glyph) != bytes(missing)


def _tag_size(text: str, font: Font, pad: int) -> tuple[int, int]:
    """(width, height) of a tag; all tags have the same height."""
    _, top, _, bottom = font.getbbox("Bg")
    return round(font.getlength(text)) + 2 * pad, round(bottom - top) + pad


def _tag_font(size: tuple[int, ...]) -> tuple[Font, int]:
    """The font of tags on an image of this (height, width), and their margin in pixels."""
    points = max(10, round(min(size) / 32))
    return font_of(points), max(2, points // 4)
