"""Sprites placed and painted on a background: images, and the objects that are visible in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rsvp.embedded import backgrounds
from rsvp.embedded.vocabulary import DEFAULT_STYLE, Category, categories, sprites
from rsvp.masks import encode_rle, mask_to_box
from rsvp.types import BoolMask, Box, RgbArray

DEFAULT_SIZE = 320  # side of a scene, pixels
DEFAULT_STYLES = (DEFAULT_STYLE,)
ATTEMPTS = 60  # to compose a scene that allows a question
MIN_VISIBLE = 0.4  # share of an object's pixels; nobody would recognise an object that shows less
MOST_OBJECTS = 7
CORNERS_TRIED = 12

# Colour -> hues from … to, in degrees; between two of them people disagree.
HUES = {
    "red": (-12, 10), "orange": (20, 38), "yellow": (45, 62), "green": (80, 160),
    "blue": (190, 250), "purple": (262, 300), "pink": (310, 345),
}  # fmt: skip

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SceneObject:
    """An object in a scene."""

    category: Category
    mask: BoolMask = field(repr=False)  # (H, W) bool, the visible pixels
    box: Box  # in pixels, tight around `mask`
    visible: float  # share of the object's own pixels that no other object hides, 0 to 1
    hidden_by: int | None  # index of the object that hides most of it
    style: str = DEFAULT_STYLE  # of its drawing, see `vocabulary.sprites`
    colours: Mapping[str, float] = field(default_factory=dict, repr=False)  # see `colour_shares`


@dataclass(frozen=True, slots=True)
class BaseScene:
    """An image, (H, W, 3) uint8, and its objects, listed back to front."""

    rgb: RgbArray = field(repr=False)
    objects: tuple[SceneObject, ...]

    def entry(
        self, name: str, objects: Iterable[object], **asked: Iterable[Mapping[str, Any]]
    ) -> dict[str, Any]:
        """The scene's entry in `scenes.json`: its objects, and what is asked, with an id each."""
        height, width = self.rgb.shape[:2]
        return {
            "image": name,
            "height": height,
            "width": width,
            "objects": list(objects),
            **{
                key: [{"id": f"{Path(name).stem}/{k}", **one} for k, one in enumerate(found)]
                for key, found in asked.items()
            },
        }


@dataclass(frozen=True, slots=True)
class PlacedSprite:
    """A sprite, (h, w, 4) uint8 RGBA, with its top left corner at (x, y) of the scene."""

    category: Category
    rgba: NDArray[np.uint8]
    x: int
    y: int
    style: str = DEFAULT_STYLE

    def inside(self, height: int, width: int) -> tuple[tuple[slice, slice], NDArray[np.uint8]]:
        """The rows and columns of the scene that the sprite covers, and its pixels there."""
        h, w = self.rgba.shape[:2]
        y0, x0 = max(0, self.y), max(0, self.x)
        y1, x1 = min(height, self.y + h), min(width, self.x + w)
        part = self.rgba[y0 - self.y : y1 - self.y, x0 - self.x : x1 - self.x]
        return (slice(y0, y1), slice(x0, x1)), part


def sample_categories(kind: str, rng: np.random.Generator) -> list[Category]:
    """The categories of a scene for this kind of query: with repeats where it needs them."""
    vocabulary = categories()
    count = int(rng.integers(3, 8))
    chosen = [vocabulary[int(i)] for i in rng.choice(len(vocabulary), size=count, replace=False)]
    copies = {"ordinal": (2, 3, 4), "all": (1, 2, 2, 3), "relation": (1, 2, 2, 3)}
    first, n_first = chosen[0], int(rng.choice(copies.get(kind, (1, 1, 1, 2))))
    rest = chosen[1 : max(2, count - n_first + 1)]
    if kind in ("group", "all", "attribute") and rng.random() < 0.5:
        related = [c for c in vocabulary if c.group == first.group and c is not first]
        if kind != "group" and related:
            n = min(len(related), int(rng.integers(1, 3)))
            picked = rng.choice(len(related), n, replace=False)
            rest = [*rest[:3], *(related[int(i)] for i in picked)]
    return ([first] * n_first + rest)[:MOST_OBJECTS]


def place_sprites(
    chosen: Sequence[Category],
    kind: str,
    size: int,
    rng: np.random.Generator,
    styles: Sequence[str] = (DEFAULT_STYLE,),
) -> list[PlacedSprite]:
    """Sprites in random order, size and style; they may overlap, most of a `hidden` scene's do."""
    order = rng.permutation(len(chosen))
    base = rng.uniform(0.24, 0.40) * min(1.0, (5.0 / max(len(chosen), 3)) ** 0.35)
    placed: list[PlacedSprite] = []
    for i in order:
        side = size * float(np.clip(base * np.exp(rng.normal(0, 0.28)), 0.15, 0.5))
        style = sample_style(chosen[int(i)], styles, rng)
        rgba = transform_sprite(chosen[int(i)], side, rng, style)
        h, w = rgba.shape[:2]
        x, y = free_corner(placed, w, h, size, rng)
        if kind == "hidden" and placed and rng.random() < 0.6:
            x, y = overlapping_corner(placed[-1], w, h, size, rng)
        placed.append(PlacedSprite(chosen[int(i)], rgba, x, y, style))
    return placed


def sample_style(category: Category, styles: Sequence[str], rng: np.random.Generator) -> str:
    """One of the styles; DEFAULT_STYLE where that one does not draw the category.

    Nothing is drawn from `rng` where there is no choice.
    """
    style = styles[int(rng.integers(len(styles))) if len(styles) > 1 else 0]
    return style if sprites(style)[category.index, ..., 3].any() else DEFAULT_STYLE


def transform_sprite(
    category: Category, side: float, rng: np.random.Generator, style: str = DEFAULT_STYLE
) -> NDArray[np.uint8]:
    """The sprite scaled to `side` pixels, maybe mirrored, rotated and tinted; (h, w, 4) uint8."""
    tile = Image.fromarray(sprites(style)[category.index])
    side_px = max(8, round(side))
    tile = tile.resize((side_px, side_px), Image.Resampling.BILINEAR, reducing_gap=2.0)
    if rng.random() < 0.5:
        tile = tile.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    angle = float(np.clip(rng.normal(0, 14), -35, 35))
    tile = tile.rotate(angle, Image.Resampling.BILINEAR, expand=True)
    rgba = np.asarray(tile.crop(tile.getchannel("A").getbbox())).copy()
    gain = rng.uniform(0.85, 1.12) * rng.uniform(0.93, 1.07, 3)
    rgba[..., :3] = np.clip(rgba[..., :3] * gain, 0, 255).astype(np.uint8)
    return rgba


def free_corner(
    placed: Sequence[PlacedSprite], w: int, h: int, size: int, rng: np.random.Generator
) -> tuple[int, int]:
    """A corner that keeps a (w, h) sprite off the others: the first good one, or the best of 12."""
    others = [_circle(p.x, p.y, p.rgba.shape[1], p.rgba.shape[0]) for p in placed]
    widest, corner = -1.0, (0, 0)
    for _ in range(CORNERS_TRIED):
        x = int(rng.integers(-w // 12, max(1, size - w + w // 12)))
        y = int(rng.integers(-h // 12, max(1, size - h + h // 12)))
        cx, cy, r = _circle(x, y, w, h)
        gaps = (float(np.hypot(cx - ox, cy - oy)) / (r + radius) for ox, oy, radius in others)
        gap = min(gaps, default=9.0)
        if gap > widest:
            widest, corner = gap, (x, y)
        if gap > 0.75:
            break
    return corner


def _circle(x: int, y: int, w: int, h: int) -> tuple[float, float, float]:
    """Centre and radius of a circle around a (w, h) sprite at a corner."""
    return x + w / 2, y + h / 2, max(w, h) / 2


def overlapping_corner(
    other: PlacedSprite, w: int, h: int, size: int, rng: np.random.Generator
) -> tuple[int, int]:
    """A corner from which a (w, h) sprite covers a part of the other one."""
    oh, ow = other.rgba.shape[:2]
    angle = rng.uniform(0, 2 * np.pi)
    distance = rng.uniform(0.45, 0.75)
    x = other.x + ow / 2 + np.cos(angle) * distance * (ow + w) / 2 - w / 2
    y = other.y + oh / 2 + np.sin(angle) * distance * (oh + h) / 2 - h / 2
    return int(np.clip(x, 0, max(0, size - w))), int(np.clip(y, 0, max(0, size - h)))


def paint(canvas: RgbArray, placed: Sequence[PlacedSprite]) -> NDArray[np.int16]:
    """Paint the sprites on the canvas, back to front, in place.

    Returns (H, W) the index of the top sprite in each pixel, -1 for the background.
    """
    height, width = canvas.shape[:2]
    top = np.full((height, width), -1, dtype=np.int16)
    for i, sprite in enumerate(placed):
        window, part = sprite.inside(height, width)
        alpha = part[..., 3:].astype(np.uint16)
        mixed = (part[..., :3] * alpha + canvas[window] * (255 - alpha) + 127) // 255
        canvas[window] = mixed.astype(np.uint8)
        top[window][part[..., 3] > 127] = i
    return top


def visible_objects(
    top: NDArray[np.int16], placed: Sequence[PlacedSprite]
) -> tuple[SceneObject, ...] | None:
    """The objects of a scene that `paint` returned; None when one of them is hidden too much."""
    objects: list[SceneObject] = []
    for i, sprite in enumerate(placed):
        mask = top == i
        box, opaque = mask_to_box(mask), int((sprite.rgba[..., 3] > 127).sum())
        visible = float(mask.sum()) / max(1, opaque)  # pixels outside the scene count as hidden
        if box is None or visible < MIN_VISIBLE:
            return None
        occluder = main_occluder(i, top, sprite)
        colours = colour_shares(sprite.rgba)
        objects.append(
            SceneObject(sprite.category, mask, box, visible, occluder, sprite.style, colours)
        )
    return tuple(objects)


def colour_shares(rgba: NDArray[np.uint8]) -> dict[str, float]:
    """Colour -> share of the opaque pixels of a (h, w, 4) sprite that anyone would call so."""
    pixels = rgba[::3, ::3].reshape(-1, 4)
    rgb = pixels[pixels[:, 3] > 127, :3].astype(np.float32) / 255
    high, low = rgb.max(1, initial=0), rgb.min(1, initial=1)
    spread = np.maximum(high - low, 1e-6)
    r, g, b = rgb.T
    hue = np.select(
        [high == r, high == g], [(g - b) / spread, 2 + (b - r) / spread], 4 + (r - g) / spread
    )
    degrees = (60 * hue + 20) % 360 - 20  # reds lie around 0
    vivid = (spread > 0.4 * high) & (high > 0.45)
    grey = spread < 0.12
    found = {name: vivid & (degrees >= a) & (degrees <= z) for name, (a, z) in HUES.items()}
    found["brown"] = (degrees > 8) & (degrees < 40) & (spread > 0.3 * high) & (high < 0.6)
    found["orange"] &= high > 0.8
    found |= {
        "white": grey & (high > 0.85),
        "black": high < 0.22,
        "grey": grey & (high < 0.75) & (high > 0.3),
    }
    return {name: float(share) for name, where in found.items() if (share := where.mean()) > 0.02}


def main_occluder(i: int, top: NDArray[np.int16], sprite: PlacedSprite) -> int | None:
    """Which object hides most of object i; None where less than 3 % is hidden."""
    window, part = sprite.inside(*top.shape)
    opaque, owners = part[..., 3] > 127, top[window]
    others = owners[opaque & (owners != i) & (owners >= 0)]
    if len(others) < 0.03 * opaque.sum():
        return None
    return int(np.bincount(others).argmax())


def draw_objects(
    chosen: Sequence[Category],
    kind: str,
    rng: np.random.Generator,
    *,
    size: int,
    photos: Sequence[RgbArray],
    styles: Sequence[str],
) -> tuple[RgbArray, tuple[SceneObject, ...]]:
    """An image with objects of these categories, none where one of them is hidden too much."""
    placed = place_sprites(chosen, kind, size, rng, styles)
    canvas = backgrounds.draw(size, rng, photos)
    return canvas, visible_objects(paint(canvas, placed), placed) or ()


def object_entry(o: SceneObject) -> dict[str, Any]:
    """An object's entry in `scenes.json`."""
    return {
        "name": o.category.name,
        "group": o.category.group,
        "keywords": list(o.category.keywords),
        "box": [int(v) for v in o.box.xyxy],
        "visible": round(o.visible, 4),
        "hidden_by": o.hidden_by,
        "mask": encode_rle(o.mask),
        **({} if o.style == DEFAULT_STYLE else {"style": o.style}),
    }


def question_scenes(
    render_one: Callable[..., T],
    turns: Sequence[str],
    n: int,
    seed: int,
    *,
    kinds: Sequence[str] = (),
    **options: Any,
) -> Iterator[T]:
    """Scenes 0 … n-1 of a seed, the kinds of their first questions in turn; see `render_one`."""
    kinds = kinds or turns
    for i in range(n):
        rng = np.random.default_rng([seed, i])
        yield render_one(rng, kind=kinds[i % len(kinds)], **options)
