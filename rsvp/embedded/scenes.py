"""The rendered world: scenes whose whole truth is known.

    python -m rsvp.embedded.scenes --n 500 --seed 31337 --out DIR [--size PX] [--kinds a,b]
                                   [--queries K] [--photos DIR]

writes `000000.png …` and one `scenes.json` with every object's name, group, keywords, box, mask and
visible share, and every query's kind, text, targets and the objects that its reasoning needs.
Scene i of a seed is the same whatever `--n` is. Pixels are those of the written image; a box is
xyxy and tight around the visible mask.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rsvp.embedded import backgrounds, queries
from rsvp.embedded.queries import KINDS, Query
from rsvp.embedded.world import Thing, sprites, things
from rsvp.errors import BadInput, RsvpError
from rsvp.masks import encode_rle, mask_to_box

DEFAULT_SIZE = 320
MIN_SIZE, MAX_SIZE = 64, 4096
MIN_VISIBLE = 0.4  # an object less visible than this would be a riddle, not a question
ATTEMPTS = 60


@dataclass(frozen=True, slots=True)
class SceneObject:
    """One thing in a scene.

    Attributes:
        mask: (H, W) bool, the visible pixels.
        box: xyxy in pixels, tight around `mask`.
        visible: share of the object's own pixels that no other object hides, 0 to 1.
        hidden_by: index of the object that hides most of it, or None.
    """

    thing: Thing
    mask: NDArray[np.bool_] = field(repr=False)
    box: tuple[int, int, int, int]
    visible: float
    hidden_by: int | None


@dataclass(frozen=True, slots=True)
class Scene:
    """An image and its truth. `rgb` is (H, W, 3) uint8; objects are listed back to front."""

    rgb: NDArray[np.uint8] = field(repr=False)
    objects: tuple[SceneObject, ...]
    queries: tuple[Query, ...]


@dataclass(frozen=True, slots=True)
class Placed:
    """A sprite on its way into the scene: premultiplied colour and alpha, and its corner."""

    thing: Thing
    rgba: NDArray[np.uint8]
    x: int
    y: int


def transform_sprite(thing: Thing, side: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """The thing's sprite scaled to `side` px, mirrored, turned and tinted; (h, w, 4) uint8."""
    tile = Image.fromarray(sprites()[thing.index])
    side_px = max(8, round(side))
    tile = tile.resize((side_px, side_px), Image.Resampling.BILINEAR, reducing_gap=2.0)
    if rng.random() < 0.5:
        tile = tile.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    angle = float(np.clip(rng.normal(0, 14), -35, 35))
    tile = tile.rotate(angle, Image.Resampling.BILINEAR, expand=True)
    box = tile.getchannel("A").getbbox()
    rgba = np.asarray(tile.crop(box)).copy()
    gain = rng.uniform(0.85, 1.12) * rng.uniform(0.93, 1.07, 3)
    rgba[..., :3] = np.clip(rgba[..., :3] * gain, 0, 255).astype(np.uint8)
    return rgba


def compose(kind: str, rng: np.random.Generator) -> list[Thing]:
    """Which things a scene of this kind holds: repeats where the kind needs them."""
    world = things()
    count = int(rng.integers(3, 8))
    chosen = [world[int(i)] for i in rng.choice(len(world), size=count, replace=False)]
    if kind == "ordinal":
        copies = int(rng.integers(2, 5))
    elif kind in ("all", "relation"):
        copies = int(rng.choice([1, 2, 2, 3]))
    else:
        copies = int(rng.choice([1, 1, 1, 2]))
    first = chosen[0]
    repeated = [first] * copies
    rest = chosen[1 : max(2, count - copies + 1)]
    if kind in ("group", "all", "attribute") and rng.random() < 0.5:
        kin = [t for t in world if t.group == first.group and t is not first]
        if kind != "group" and kin:
            take = min(len(kin), int(rng.integers(1, 3)))
            rest = [*rest[:3], *(kin[int(i)] for i in rng.choice(len(kin), take, replace=False))]
    return (repeated + rest)[:7]


def place(chosen: Sequence[Thing], kind: str, size: int, rng: np.random.Generator) -> list[Placed]:
    """Sprites with sizes and corners; they may overlap, and `hidden` scenes make sure of it."""
    order = rng.permutation(len(chosen))
    base = rng.uniform(0.24, 0.40) * min(1.0, (5.0 / max(len(chosen), 3)) ** 0.35)
    placed: list[Placed] = []
    for i in order:
        side = size * float(np.clip(base * np.exp(rng.normal(0, 0.28)), 0.15, 0.5))
        rgba = transform_sprite(chosen[int(i)], side, rng)
        h, w = rgba.shape[:2]
        x, y = apart(placed, w, h, size, rng)
        if kind == "hidden" and placed and rng.random() < 0.6:
            x, y = beside(placed[-1], w, h, size, rng)
        placed.append(Placed(chosen[int(i)], rgba, x, y))
    return placed


def apart(
    placed: Sequence[Placed], w: int, h: int, size: int, rng: np.random.Generator
) -> tuple[int, int]:
    """A corner that keeps a (w, h) sprite off the others: the first good one, or the best of 12."""
    taken = [circle(p.x, p.y, p.rgba.shape[1], p.rgba.shape[0]) for p in placed]
    widest, corner = -1.0, (0, 0)
    for _ in range(12):
        x = int(rng.integers(-w // 12, max(1, size - w + w // 12)))
        y = int(rng.integers(-h // 12, max(1, size - h + h // 12)))
        cx, cy, r = circle(x, y, w, h)
        gap = min((float(np.hypot(cx - ox, cy - oy)) / (r + reach) for ox, oy, reach in taken),
                  default=9.0)  # fmt: skip
        if gap > widest:
            widest, corner = gap, (x, y)
        if gap > 0.75:
            break
    return corner


def circle(x: int, y: int, w: int, h: int) -> tuple[float, float, float]:
    """Centre and radius of a (w, h) sprite at a corner."""
    return x + w / 2, y + h / 2, max(w, h) / 2


def beside(other: Placed, w: int, h: int, size: int, rng: np.random.Generator) -> tuple[int, int]:
    """A corner from which a (w, h) sprite covers a part of the other one."""
    oh, ow = other.rgba.shape[:2]
    angle = rng.uniform(0, 2 * np.pi)
    reach = rng.uniform(0.45, 0.75)
    x = other.x + ow / 2 + np.cos(angle) * reach * (ow + w) / 2 - w / 2
    y = other.y + oh / 2 + np.sin(angle) * reach * (oh + h) / 2 - h / 2
    return int(np.clip(x, 0, max(0, size - w))), int(np.clip(y, 0, max(0, size - h)))


def paint(
    canvas: NDArray[np.uint8], placed: Sequence[Placed]
) -> tuple[NDArray[np.int16], list[int]]:
    """Paint back to front, in place; the (H, W) map of who is on top (-1: nobody), full areas."""
    height, width = canvas.shape[:2]
    owner = np.full((height, width), -1, dtype=np.int16)
    areas = []
    for i, sprite in enumerate(placed):
        h, w = sprite.rgba.shape[:2]
        y0, x0 = max(0, sprite.y), max(0, sprite.x)
        y1, x1 = min(height, sprite.y + h), min(width, sprite.x + w)
        part = sprite.rgba[y0 - sprite.y : y1 - sprite.y, x0 - sprite.x : x1 - sprite.x]
        alpha = part[..., 3:].astype(np.uint16)
        under = canvas[y0:y1, x0:x1]
        mixed = (part[..., :3] * alpha + under * (255 - alpha) + 127) // 255
        canvas[y0:y1, x0:x1] = mixed.astype(np.uint8)
        solid = part[..., 3] > 127
        owner[y0:y1, x0:x1][solid] = i
        areas.append(int((sprite.rgba[..., 3] > 127).sum()))
    return owner, areas


def look(
    owner: NDArray[np.int16], placed: Sequence[Placed], areas: Sequence[int]
) -> tuple[SceneObject, ...] | None:
    """The objects as one sees them, or None when one is hidden too well."""
    seen: list[SceneObject] = []
    for i, sprite in enumerate(placed):
        mask = owner == i
        visible = float(mask.sum()) / max(1, areas[i])
        box = mask_to_box(mask)
        if box is None or visible < MIN_VISIBLE:
            return None
        x0, y0, x1, y1 = (int(v) for v in box.xyxy)
        seen.append(
            SceneObject(sprite.thing, mask, (x0, y0, x1, y1), visible, coverer(i, owner, placed))
        )
    return tuple(seen)


def coverer(i: int, owner: NDArray[np.int16], placed: Sequence[Placed]) -> int | None:
    """Which object hides most of object i, or None when (nearly) nothing is hidden."""
    sprite = placed[i]
    h, w = sprite.rgba.shape[:2]
    y0, x0 = max(0, sprite.y), max(0, sprite.x)
    region = owner[y0 : sprite.y + h, x0 : sprite.x + w]
    solid = (
        sprite.rgba[y0 - sprite.y :, x0 - sprite.x :, 3][: region.shape[0], : region.shape[1]] > 127
    )
    others = region[solid & (region != i) & (region >= 0)]
    if len(others) < 0.03 * solid.sum():
        return None
    return int(np.bincount(others).argmax())


def render(
    rng: np.random.Generator,
    *,
    size: int = DEFAULT_SIZE,
    kinds: Sequence[str] = KINDS,
    count: int = 1,
    photos: Sequence[NDArray[np.uint8]] = (),
) -> Scene:
    """One scene with up to `count` queries, the first of a kind drawn from `kinds`.

    Args:
        size: side of the square image, pixels.
        photos: (H, W, 3) uint8 arrays to use as backgrounds now and then.

    Raises:
        RsvpError: no scene allowed a question of the kind, however often it was composed.
    """
    kind = kinds[int(rng.integers(len(kinds)))]
    rgb, objects, first = stage(kind, size, rng, photos)
    more = further(objects, first, kinds, rng, wanted=count - 1, tries=len(kinds))
    return Scene(rgb, objects, (first, *more))


def scenes(
    n: int,
    seed: int,
    *,
    size: int = DEFAULT_SIZE,
    kinds: Sequence[str] = KINDS,
    count: int = 1,
    photos: Sequence[NDArray[np.uint8]] = (),
) -> Iterator[Scene]:
    """Scenes 0 … n-1 of a seed, their first kinds in turn; the options are those of `render`."""
    for i in range(n):
        rng = np.random.default_rng([seed, i])
        rgb, objects, first = stage(kinds[i % len(kinds)], size, rng, photos)
        more = further(objects, first, kinds, rng, wanted=count - 1, tries=3 * (count - 1))
        yield Scene(rgb, objects, (first, *more))


def stage(
    kind: str, size: int, rng: np.random.Generator, photos: Sequence[NDArray[np.uint8]]
) -> tuple[NDArray[np.uint8], tuple[SceneObject, ...], Query]:
    """An image and its objects, composed anew until a question of this kind can be put."""
    for _ in range(ATTEMPTS):
        placed = place(compose(kind, rng), kind, size, rng)
        canvas = backgrounds.draw(size, rng, photos)
        owner, areas = paint(canvas, placed)
        objects = look(owner, placed, areas)
        query = queries.ask(kind, objects, rng) if objects else None
        if objects and query:
            return canvas, objects, query
    raise RsvpError(f"no scene of kind {kind!r} came out in {ATTEMPTS} attempts")


def further(
    objects: Sequence[SceneObject],
    first: Query,
    kinds: Sequence[str],
    rng: np.random.Generator,
    *,
    wanted: int,
    tries: int,
) -> list[Query]:
    """Up to `wanted` queries of kinds other than the first one's, at most `tries` kinds tried."""
    others = [kind for kind in kinds if kind != first.kind]
    asked: list[Query] = []
    for i in rng.permutation(len(others))[:tries]:
        if len(asked) >= wanted:
            break
        query = queries.ask(others[int(i)], objects, rng)
        if query is not None:
            asked.append(query)
    return asked


def to_dict(scene: Scene, name: str) -> dict[str, Any]:
    """A scene as `scenes.json` holds it."""
    stem = Path(name).stem
    return {
        "image": name,
        "height": scene.rgb.shape[0],
        "width": scene.rgb.shape[1],
        "objects": [
            {
                "name": o.thing.name,
                "group": o.thing.group,
                "keywords": list(o.thing.keywords),
                "box": list(o.box),
                "visible": round(o.visible, 4),
                "hidden_by": o.hidden_by,
                "mask": encode_rle(o.mask),
            }
            for o in scene.objects
        ],
        "queries": [
            {
                "id": f"{stem}/{k}",
                "kind": q.kind,
                "text": q.text,
                "targets": list(q.targets),
                "reasoning": list(q.reasoning),
                "unseen": q.unseen,
            }
            for k, q in enumerate(scene.queries)
        ],
    }


def write(
    out: Path,
    n: int,
    seed: int,
    *,
    size: int,
    kinds: Sequence[str],
    count: int,
    photos: Path | None,
) -> None:
    """Render n scenes into a folder: the images, then `scenes.json`."""
    out.mkdir(parents=True, exist_ok=True)
    pictures = backgrounds.load_photos(photos) if photos else ()
    listed = []
    made = scenes(n, seed, kinds=kinds, size=size, count=count, photos=pictures)
    for i, scene in enumerate(made):
        name = f"{i:06d}.png"
        data = io.BytesIO()
        Image.fromarray(scene.rgb).save(data, "PNG", compress_level=3)
        (out / name).write_bytes(data.getvalue())
        listed.append(to_dict(scene, name))
        if sys.stderr.isatty() and (i + 1) % 50 == 0:
            print(f"\r{i + 1}/{n} scenes", end="", file=sys.stderr)
    document = {"version": 1, "seed": seed, "size": size, "kinds": list(kinds), "scenes": listed}
    (out / "scenes.json").write_text(json.dumps(document), encoding="utf-8")
    print(f"{n} scenes in {out}", file=sys.stderr)


def parse_kinds(text: str | None) -> tuple[str, ...]:
    """`a,b` -> ("a", "b"), checked."""
    if text is None:
        return KINDS
    kinds = tuple(k.strip() for k in text.split(",") if k.strip())
    unknown = [k for k in kinds if k not in KINDS]
    if unknown or not kinds:
        raise BadInput(
            f"unknown query kind {', '.join(unknown) or text!r}; known: {', '.join(KINDS)}"
        )
    return kinds


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m rsvp.embedded.scenes", description=__doc__)
    parser.add_argument("--n", type=int, required=True, help="how many scenes")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", type=int, default=DEFAULT_SIZE, help="side of the image, pixels")
    parser.add_argument("--kinds", help=f"comma-separated, of {','.join(KINDS)}")
    parser.add_argument("--queries", type=int, default=1, help="queries a scene")
    parser.add_argument("--photos", type=Path, help="folder of photos for backgrounds")
    args = parser.parse_args(argv)
    try:
        if args.n < 1 or args.queries < 1 or args.seed < 0:
            raise BadInput("--n and --queries start at 1, --seed at 0")
        if not MIN_SIZE <= args.size <= MAX_SIZE:
            raise BadInput(f"--size is {MIN_SIZE} to {MAX_SIZE} pixels, found {args.size}")
        write(
            args.out, args.n, args.seed, size=args.size, kinds=parse_kinds(args.kinds),
            count=args.queries, photos=args.photos,
        )  # fmt: skip
    except RsvpError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"error: cannot write {args.out}: {error.strerror}", file=sys.stderr)
        return BadInput.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
