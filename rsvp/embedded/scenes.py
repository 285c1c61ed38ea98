"""Rendered scenes whose whole truth is known.

    python -m rsvp.embedded.scenes --n 500 --seed 31337 --out DIR [--size PX] [--kinds a,b]
                                   [--queries K] [--photos DIR]

writes `000000.png …` and one `scenes.json`: the name, group, keywords, box, mask and visible share
of every object; the kind, text, targets and reasoning objects of every query.
Scene i of a seed is the same for every `--n`. Boxes are xyxy in pixels of the written image, tight
around the visible mask.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from rsvp.embedded import backgrounds
from rsvp.embedded.queries import KINDS, Query, make_query
from rsvp.embedded.rendering import (
    SceneObject,
    paint,
    place_sprites,
    sample_categories,
    visible_objects,
)
from rsvp.errors import BadInput, RsvpError
from rsvp.masks import encode_rle
from rsvp.platform.files import write_text
from rsvp.types import RgbArray

DEFAULT_SIZE = 320
MIN_SIZE, MAX_SIZE = 64, 4096
ATTEMPTS = 60


@dataclass(frozen=True, slots=True)
class Scene:
    """An image and its truth. `rgb` is (H, W, 3) uint8; objects are listed back to front."""

    rgb: RgbArray = field(repr=False)
    objects: tuple[SceneObject, ...]
    queries: tuple[Query, ...]

    def to_dict(self, name: str) -> dict[str, Any]:
        """The scene's entry in `scenes.json`; `name` is its image file."""
        height, width = self.rgb.shape[:2]
        return {
            "image": name,
            "height": height,
            "width": width,
            "objects": [
                {
                    "name": o.category.name,
                    "group": o.category.group,
                    "keywords": list(o.category.keywords),
                    "box": [int(v) for v in o.box.xyxy],
                    "visible": round(o.visible, 4),
                    "hidden_by": o.hidden_by,
                    "mask": encode_rle(o.mask),
                }
                for o in self.objects
            ],
            "queries": [
                {
                    "id": f"{Path(name).stem}/{k}",
                    "kind": q.kind,
                    "text": q.text,
                    "targets": list(q.targets),
                    "reasoning": list(q.reasoning),
                    "unseen": q.unseen,
                }
                for k, q in enumerate(self.queries)
            ],
        }


def render(
    rng: np.random.Generator,
    *,
    size: int = DEFAULT_SIZE,
    kinds: Sequence[str] = KINDS,
    count: int = 1,
    photos: Sequence[RgbArray] = (),
) -> Scene:
    """One scene with up to `count` queries, the first of a kind drawn from `kinds`.

    Args:
        size: side of the square image, pixels.
        photos: (H, W, 3) uint8 arrays, used as backgrounds now and then.

    Raises:
        RsvpError: no scene allowed a query of the kind in `ATTEMPTS` attempts.
    """
    kind = kinds[int(rng.integers(len(kinds)))]
    rgb, objects, first = compose(kind, size, rng, photos)
    more = more_queries(objects, first, kinds, rng, wanted=count - 1, tries=len(kinds))
    return Scene(rgb, objects, (first, *more))


def scenes(
    n: int,
    seed: int,
    *,
    size: int = DEFAULT_SIZE,
    kinds: Sequence[str] = KINDS,
    count: int = 1,
    photos: Sequence[RgbArray] = (),
) -> Iterator[Scene]:
    """Scenes 0 … n-1 of a seed, their first kinds in turn; the options are those of `render`."""
    for i in range(n):
        rng = np.random.default_rng([seed, i])
        rgb, objects, first = compose(kinds[i % len(kinds)], size, rng, photos)
        more = more_queries(objects, first, kinds, rng, wanted=count - 1, tries=3 * (count - 1))
        yield Scene(rgb, objects, (first, *more))


def compose(
    kind: str, size: int, rng: np.random.Generator, photos: Sequence[RgbArray]
) -> tuple[RgbArray, tuple[SceneObject, ...], Query]:
    """An image, its objects and a query of this kind; composed anew until they allow one."""
    for _ in range(ATTEMPTS):
        placed = place_sprites(sample_categories(kind, rng), kind, size, rng)
        canvas = backgrounds.draw(size, rng, photos)
        objects = visible_objects(paint(canvas, placed), placed)
        query = make_query(kind, objects, rng) if objects else None
        if objects and query:
            return canvas, objects, query
    raise RsvpError(f"no scene allowed a query of kind {kind!r} in {ATTEMPTS} attempts")


def more_queries(
    objects: Sequence[SceneObject],
    first: Query,
    kinds: Sequence[str],
    rng: np.random.Generator,
    *,
    wanted: int,
    tries: int,
) -> list[Query]:
    """Up to `wanted` queries of kinds other than the first one's; at most `tries` are tried."""
    others = [kind for kind in kinds if kind != first.kind]
    found: list[Query] = []
    for i in rng.permutation(len(others))[:tries]:
        if len(found) >= wanted:
            break
        query = make_query(others[int(i)], objects, rng)
        if query is not None:
            found.append(query)
    return found


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
    entries = []
    rendered = scenes(n, seed, kinds=kinds, size=size, count=count, photos=pictures)
    for i, scene in enumerate(rendered):
        name = f"{i:06d}.png"
        Image.fromarray(scene.rgb).save(out / name, compress_level=3)
        entries.append(scene.to_dict(name))
        if sys.stderr.isatty() and (i + 1) % 50 == 0:
            print(f"\r{i + 1}/{n} scenes", end="", file=sys.stderr)
    document = {"version": 1, "seed": seed, "size": size, "kinds": list(kinds), "scenes": entries}
    write_text(out / "scenes.json", json.dumps(document))
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
