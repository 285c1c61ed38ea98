"""The overlay: a result's masks, boxes and tags drawn on the image, for people."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from PIL import Image as Pil
from PIL import ImageDraw

from rsvp.drawing.contrast import Ink, inks
from rsvp.drawing.palette import BLACK, NOTICE, Colour, is_light
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


def overlay(
    rgb: RgbArray, targets: Sequence[Target], notice: str = "no target", first: int = 0
) -> RgbArray:
    """The targets on the image: tinted masks with contours, thin boxes, tags with label and score.

    Several targets are numbered on their tags, from `first`: 0 as the files in ``masks/``, or 1 as
    the objects of a path, where a single one is numbered too. Colours are those of
    `rsvp.drawing.contrast.inks`. Without targets the image gets a small tag with `notice` in its
    lower left corner.

    Raises:
        BadInput: a target's mask is not of the image's size.
    """
    canvas = np.array(rgb)
    size = (rgb.shape[0], rgb.shape[1])
    line = line_width(size)
    for target in targets:
        if target.packed.size != size:
            raise BadInput(f"the mask is {target.packed.size}, the image {size}")
    drawn = inks(rgb, (target.mask for target in targets))
    colours = [ink.colour for ink in drawn]
    for target, ink in zip(targets, drawn, strict=True):
        _tint(canvas, target.mask, ink, line)
    for target, colour in zip(targets, colours, strict=True):
        outline(canvas, target.box, colour, max(1, line // 2), BOX_LINE)
    if not targets:
        return _with_notice(canvas, notice)
    return _with_tags(canvas, targets, colours, first)


def _tint(canvas: RgbArray, mask: BoolMask, ink: Ink, line: int) -> None:
    """Fill `mask` with translucent colour and draw its contour, in place."""
    box = mask_to_box(mask)
    if box is None:
        return
    x0, y0, x1, y1 = map(int, box.xyxy)
    blend(canvas[y0:y1, x0:x1], mask[y0:y1, x0:x1], ink.colour, FILL)
    border, dark = (max(1, line // 2), BORDER) if ink.outline is None else (2 * line, 1.0)
    edge = ink.outline or BLACK
    contour(canvas, mask, box, ink.colour, line=line, border=border, dark=dark, edge=edge)


# -- tags


def _with_tags(
    canvas: RgbArray, targets: Sequence[Target], colours: Sequence[Colour], first: int
) -> RgbArray:
    """Label and score beside every box, inside the image, without overlap while possible."""
    font, pad = _tag_font(canvas.shape[:2])
    placed: list[Rectangle] = []
    texts = _tag_texts(targets, first, font, pad, canvas.shape[:2])
    for text, target, colour in zip(texts, targets, colours, strict=True):
        if not text:
            continue
        tag = place_tag(_tag_size(text, font, pad), target.box, canvas.shape[:2], placed)
        placed.append(tag)
        picture = Pil.new("RGB", (tag[2] - tag[0], tag[3] - tag[1]), colour)
        text_colour = "black" if is_light(colour) else "white"
        ImageDraw.Draw(picture).text((pad, picture.height / 2), text, text_colour, font, "lm")
        here = canvas[tag[1] : tag[3], tag[0] : tag[2]]
        here[:] = np.asarray(picture)[: here.shape[0], : here.shape[1]]
    return canvas


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


def _tag_texts(
    targets: Sequence[Target], first: int, font: Font, pad: int, size: tuple[int, ...]
) -> list[str]:
    """Label and score of every target; where these would hide the image, numbers; or nothing."""
    max_width = size[1] - 2 * pad
    numbers = [str(n) for n in range(first, first + len(targets))]
    shown = numbers if first or len(targets) > 1 else [""]
    full = [_tag_text(t, n, font, max_width) for n, t in zip(shown, targets, strict=True)]
    for texts in (full, numbers):
        area = sum(math.prod(_tag_size(text, font, pad)) for text in texts if text)
        if area <= MAX_COVERED * size[0] * size[1]:
            return texts
    return [""] * len(targets)


def _tag_text(target: Target, number: str, font: Font, max_width: int) -> str:
    """`number  label  score`, the label shortened until it fits; or "number  score", or ""."""
    label, score = _printable(target.label, font), f"{target.score:.2f}"
    shortened = (label[:length].rstrip() + "…" for length in range(len(label) - 1, 0, -1))
    for short in (label, *shortened, ""):
        text = "  ".join(part for part in (number, short, score) if part)
        if font.getlength(text) <= max_width:
            return text
    return ""


def _printable(label: str, font: Font) -> str:
    """The label on one line, without accents that the font lacks; "target" for other scripts."""
    plain = "".join(c if c.isprintable() else " " for c in label)
    decomposed = unicodedata.normalize("NFKD", plain)
    for text in (plain, "".join(c for c in decomposed if not unicodedata.combining(c))):
        words = " ".join(text.split())
        if len(words) > MAX_LABEL:
            words = words[: MAX_LABEL - 1].rstrip() + "…"
        if all(_has_glyph(character, font) for character in words):
            return words
    return "target"


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
