"""Things with small details (tags, dots, arrows, spots), drawn at any scale.

A layout says where the things of a large square scene are and what they carry, in fractions of the
scene's side. Drawn at 240 pixels it shows the things, but not what they carry.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from rsvp.drawing.palette import Colour
from rsvp.drawing.tags import font_of
from rsvp.embedded.drafts import Rng, choice
from rsvp.embedded.rendering import PlacedSprite, SceneObject, sample_style, transform_sprite
from rsvp.embedded.vocabulary import DEFAULT_STYLE, Category
from rsvp.types import BoolMask, Box

DIGITS = tuple("0123456789")
LETTERS = tuple("ABCDEFGHJKLMNPQRSTUVWXYZ")  # without I and O, which look like digits
COLOURS: Mapping[str, Colour] = {
    "red": (222, 30, 38), "orange": (255, 140, 0), "yellow": (255, 228, 40),
    "green": (30, 150, 60), "blue": (30, 80, 220), "purple": (140, 50, 180),
    "pink": (255, 130, 190), "black": (20, 20, 20), "white": (250, 250, 250),
}  # fmt: skip
ARROWS: Mapping[str, tuple[int, int]] = {
    "up": (0, -1),
    "down": (0, 1),
    "left": (-1, 0),
    "right": (1, 0),
}
SPOTS = 5  # at most
VALUES: Mapping[str, tuple[str, ...]] = {
    "tag": (*DIGITS, *LETTERS),
    "dot": tuple(COLOURS),
    "arrow": tuple(ARROWS),
    "spots": tuple(str(n) for n in range(1, SPOTS + 1)),
}
# Positions of spots on a plate, from -1 to 1.
SPOT_PLACES = (
    ((0.0, 0.0),),
    ((-0.5, -0.5), (0.5, 0.5)),
    ((-0.55, -0.55), (0.0, 0.0), (0.55, 0.55)),
    ((-0.5, -0.5), (0.5, -0.5), (-0.5, 0.5), (0.5, 0.5)),
    ((-0.6, -0.6), (0.6, -0.6), (0.0, 0.0), (-0.6, 0.6), (0.6, 0.6)),
)

SMALLEST, LARGEST = 0.09, 0.16  # side of a thing, of the scene's side
PLATE, DOT = 0.23, 0.07  # side of a plate and of a dot, of the thing's side
CAPITAL = 0.5  # height of a character, of its plate's side
ARROW, SPOT = 0.17, 0.065  # half an arrow's length, radius of one of three spots, of the plate
APART = 0.3  # between the centres of two details, of the thing's side
FINE = 64  # pixels; a smaller thing is drawn at this size, then reduced
PLATES = ((250, 248, 240), (255, 250, 200), (225, 240, 255), (230, 250, 225))
INK = (25, 25, 25)


@dataclass(frozen=True, slots=True)
class Detail:
    """A detail of a thing: its kind, what it shows, and its centre.

    `x`, `y` are relative to the centre of the thing, in its sides.
    """

    kind: str
    value: str
    x: float
    y: float

    @property
    def side(self) -> float:
        """Its own side, in sides of the thing."""
        return DOT if self.kind == "dot" else PLATE


@dataclass(frozen=True, slots=True)
class Thing:
    """A thing in a layout: its sprite (`seed` decides on the transformation), place and details.

    `x`, `y` (its centre) and `side` are fractions of the scene's side.
    """

    category: Category
    seed: int
    side: float
    x: float
    y: float
    details: tuple[Detail, ...] = ()
    style: str = DEFAULT_STYLE

    def detail(self, kind: str) -> Detail | None:
        return next((d for d in self.details if d.kind == kind), None)

    def place(self, detail: Detail) -> Box:
        """The square around a detail, in fractions of the scene's side."""
        x, y = self.x + detail.x * self.side, self.y + detail.y * self.side
        half = detail.side * self.side / 2
        return Box(x - half, y - half, x + half, y + half)


Layout = tuple[Thing, ...]  # back to front


def sample_thing(
    category: Category,
    rng: Rng,
    *,
    side: float | None = None,
    styles: Sequence[str] = (DEFAULT_STYLE,),
) -> Thing:
    """A thing of a random side, in the scene's left top corner, with no details."""
    drawn = float(rng.uniform(SMALLEST, LARGEST)) if side is None else side
    seed = int(rng.integers(2**31))
    return Thing(category, seed, drawn, 0.0, 0.0, style=sample_style(category, styles, rng))


def add_details(thing: Thing, kinds: Sequence[str], rng: Rng) -> Thing:
    """The thing with details of these kinds on its opaque pixels; what finds no room is left out.

    Each shows a random value; half of the tags are digits.
    """
    opaque = _sprite(thing.category, thing.seed, FINE, thing.style)[..., 3] > 127
    (ys, xs), (height, width) = np.nonzero(opaque), opaque.shape
    found: list[Detail] = []
    for kind in kinds:
        for k in rng.integers(len(xs), size=12):
            x, y = (xs[k] + 0.5 - width / 2) / FINE, (ys[k] + 0.5 - height / 2) / FINE
            if all(max(abs(x - d.x), abs(y - d.y)) >= APART for d in found):
                found.append(Detail(kind, sample_value(kind, rng), float(x), float(y)))
                break
    return replace(thing, details=tuple(found))


def sample_value(kind: str, rng: Rng) -> str:
    """What a detail of this kind may show; half of the tags are digits."""
    if kind == "tag":
        return choice(choice((DIGITS, LETTERS), rng), rng)
    return choice(VALUES[kind], rng)


def tile(thing: Thing, side: float) -> NDArray[np.uint8]:
    """(h, w, 4) uint8 RGBA, the thing with its details; its centre is the centre of the thing.

    Args:
        side: of the thing, pixels.
    """
    drawn = max(side, FINE)
    picture = _picture(thing.category, thing.seed, thing.details, drawn, thing.style)
    if drawn > side:
        width, height = (max(1, round(v * side / drawn)) for v in picture.size)
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(picture)


def alternatives(detail: str, value: str) -> list[str]:
    """What a detail that shows this value might show else: for a digit other digits."""
    pool = VALUES[detail]
    if detail == "tag":
        pool = DIGITS if value in DIGITS else LETTERS
    return [v for v in pool if v != value]


@lru_cache(maxsize=64)
def _sprite(category: Category, seed: int, side: float, style: str) -> NDArray[np.uint8]:
    """(h, w, 4) uint8 RGBA, the thing without its details."""
    return transform_sprite(category, side, np.random.default_rng(seed), style)


@lru_cache(maxsize=64)
def _picture(
    category: Category, seed: int, details: tuple[Detail, ...], side: float, style: str
) -> Image.Image:
    """A thing with its details, RGBA; the padding keeps the sprite in the middle."""
    sprite = _sprite(category, seed, side, style)
    if not details:
        return Image.fromarray(sprite)
    pads = []
    for axis, extent in ((1, sprite.shape[0]), (0, sprite.shape[1])):
        reach = max(side * (abs((d.x, d.y)[axis]) + d.side / 2) for d in details)
        pads.append(max(0, math.ceil(reach - extent / 2)))
    height, width = (n + 2 * pad for n, pad in zip(sprite.shape[:2], pads, strict=True))
    picture = Image.new("RGBA", (width, height))
    picture.paste(Image.fromarray(sprite), (pads[1], pads[0]))
    for d in details:
        center = (width / 2 + d.x * side, height / 2 + d.y * side)
        _draw_detail(picture, d, center, d.side * side, _plate_colour(seed))
    return picture


def _plate_colour(seed: int) -> Colour:
    """One of four light colours, more or less bright."""
    gain = 0.8 + 0.2 * (seed // len(PLATES) % 101) / 100
    red, green, blue = (round(gain * v) for v in PLATES[seed % len(PLATES)])
    return red, green, blue


def _draw_detail(
    picture: Image.Image,
    detail: Detail,
    center: tuple[float, float],
    side: float,
    plate: Colour,
) -> None:
    """Draw a detail of this side, pixels; `plate` is the colour of what it stands on.

    What is left of it in a few pixels says nothing: a dot has a rim of the complementary colour,
    all numbers of spots cover the same area, and an arrow's tail balances its head.
    """
    draw = ImageDraw.Draw(picture)
    (x, y), half, line = center, side / 2, max(1, round(side / 16))
    square = (round(x - half), round(y - half), round(x + half), round(y + half))
    if detail.kind == "dot":
        dot = _dot(detail.value, max(1, square[2] - square[0]))
        picture.paste(dot, square[:2], dot.getchannel("A"))
        return
    draw.rounded_rectangle(square, side / 8, plate, INK, line)
    if detail.kind == "tag":
        font = font_of(max(4, round(CAPITAL / 0.7 * side)))
        left, top, right, bottom = draw.textbbox((0, 0), detail.value, font, "lt")
        corner = (x - (left + right) / 2, y - (top + bottom) / 2)
        draw.text(corner, detail.value, INK, font, "lt")
    elif detail.kind == "arrow":
        _draw_arrow(draw, ARROWS[detail.value], center, ARROW * side)
    else:
        radius = SPOT * side * math.sqrt(3 / int(detail.value))
        for dx, dy in SPOT_PLACES[int(detail.value) - 1]:
            cx, cy, r = x + dx * half * 0.65, y + dy * half * 0.65, radius
            draw.ellipse((cx - r, cy - r, cx + r, cy + r), INK)


@lru_cache(maxsize=256)
def _dot(colour: str, side: int) -> Image.Image:
    """RGBA, a dot of a colour with a rim of the complementary colour and of the same area."""
    large = Image.new("RGBA", (4 * side, 4 * side))
    draw, (red, green, blue) = ImageDraw.Draw(large), COLOURS[colour]
    draw.ellipse((0, 0, 4 * side - 1, 4 * side - 1), (255 - red, 255 - green, 255 - blue))
    gap = 2 * side * (1 - math.sqrt(0.5))
    draw.ellipse((gap, gap, 4 * side - 1 - gap, 4 * side - 1 - gap), (red, green, blue))
    return large.resize((side, side), Image.Resampling.BOX)


def _draw_arrow(
    draw: ImageDraw.ImageDraw, way: tuple[int, int], center: tuple[float, float], reach: float
) -> None:
    """Draw an arrow that points this way, `reach` pixels from its centre to each end."""
    (x, y), (dx, dy) = center, way

    def at(along: float, across: float) -> tuple[float, float]:
        along, across = along * reach, across * reach
        return x + dx * along - dy * across, y + dy * along + dx * across

    draw.polygon([at(1, 0), at(0.1, 0.7), at(0.1, -0.7)], INK)
    for low, high, half in ((-0.5, 0.1, 0.14), (-1, -0.5, 0.34)):
        draw.polygon([at(low, half), at(high, half), at(high, -half), at(low, -half)], INK)


def place(layout: Sequence[Thing], window: Box, scale: float) -> list[PlacedSprite]:
    """The things as sprites to be painted on a canvas that shows a window of the scene.

    A thing outside the window is an empty sprite, so that the order stays.

    Args:
        window: in fractions of the scene's side.
        scale: pixels of the canvas per side of the scene.
    """
    canvas = (window.width * scale, window.height * scale)
    placed = []
    for thing in layout:
        rgba = tile(thing, thing.side * scale)
        height, width = rgba.shape[:2]
        x = round((thing.x - window.x0) * scale - width / 2)
        y = round((thing.y - window.y0) * scale - height / 2)
        if not (-width < x < canvas[0] - 1 and -height < y < canvas[1] - 1):  # out of sight
            rgba, x, y = rgba[:1, :1] * 0, 0, 0
        placed.append(PlacedSprite(thing.category, rgba, x, y))
    return placed


WHOLE = Box(0, 0, 1, 1)


def readable(layout: Layout, objects: Sequence[SceneObject]) -> list[dict[str, str]]:
    """For each thing the details that no other thing covers: kind -> value.

    Args:
        objects: of the whole scene, square masks of any size.
    """
    found = []
    for thing, o in zip(layout, objects, strict=True):
        shown = (d for d in thing.details if _share_inside(o.mask, thing.place(d)) > 0.9)
        found.append({d.kind: d.value for d in shown})
    return found


def _share_inside(mask: BoolMask, place: Box) -> float:
    """Which share of a place, in fractions of the side, the mask covers; 0 if partly outside."""
    if min(place.x0, place.y0) < 0 or max(place.x1, place.y1) > 1:
        return 0.0
    size = len(mask)
    x0, y0 = (math.ceil(v * size) for v in (place.x0, place.y0))
    x1, y1 = (max(math.floor(v * size), low + 1) for v, low in ((place.x1, x0), (place.y1, y0)))
    return float(mask[y0:y1, x0:x1].mean())
