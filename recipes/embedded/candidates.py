"""Marks to train on: a scene's objects as a segmenter or a detector would find them.

Automatic masks hold most objects, more or less, many parts of them, some groups, and a little that
is nothing at all; a few objects show up in parts alone. And the numbers say nothing about places,
so that they have to be read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from recipes.embedded.model import CELLS
from rsvp.drawing import Rectangle, draw_marks
from rsvp.embedded.queries import Query
from rsvp.embedded.scenes import Scene
from rsvp.masks import mask_to_box
from rsvp.types import BoolMask, Box, RgbArray

MOST_MARKS = 24  # the highest number that is ever drawn
JITTER = 0.04  # of its size, by which a candidate's edge is off
MISSED = 0.12  # share of the objects that no candidate is meant to be
PARTS = 3  # that an object falls into; any number of them may be found
GROUPED = 0.1  # share of the objects that come together with another one as one candidate
ELSEWHERE = 3  # at most, candidates that are a piece of background
ONE_OF_TWO = 0.6  # IoU with an object beyond which a candidate that is not it is left out
NAMED = 0.4  # IoU with an object from which the best candidate is what to name for it
IN_ORDER = 0.75  # share of the scenes numbered 1 to n; in the others any number may occur
_COARSE = 3  # overlaps are judged on every third pixel


@dataclass(frozen=True, slots=True)
class Marked:
    """A scene with marks drawn on it.

    Attributes:
        rgb: the scene's pixels with the marks.
        numbers: object index -> number of its mark; an object may have none.
        tags: (CELLS * CELLS,) the number whose tag has its middle in the cell, 0 for none.
        boxes: (CELLS * CELLS, 4) xyxy, 0 to 1, of the candidate that the cell's tag belongs to.
    """

    rgb: RgbArray
    numbers: Mapping[int, int]
    tags: NDArray[np.int64]
    boxes: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Candidate:
    mask: BoolMask
    box: Box


def marked(scene: Scene, rng: np.random.Generator) -> Marked:
    """Find candidates in a scene, number them at random and draw them, as masks or as boxes."""
    found = [*_wholes(scene, rng), *_others(scene, rng)]
    found = [found[int(k)] for k in rng.permutation(len(found))[:MOST_MARKS]]
    numbers = _numbers(len(found), rng)
    masks = np.stack([c.mask for c in found]) if found and rng.random() < 0.5 else None
    rgb, tags = draw_marks(scene.rgb, [c.box for c in found], masks, numbers=numbers)
    named = {i: numbers[k] for i, k in _best(scene, found).items()}
    return Marked(rgb, named, *_tag_cells(tags, numbers, [c.box for c in found], len(scene.rgb)))


def mark_anything(rgb: RgbArray, rng: np.random.Generator) -> RgbArray:
    """Marks anywhere on a (size, size, 3) picture that is no scene."""
    size = len(rgb)
    corners = rng.random((int(rng.integers(2, 13)), 2)) * 0.7 * size
    sides = rng.uniform(0.1, 0.6, corners.shape) * size
    found = (
        _inside(np.concatenate(pair), size) for pair in zip(corners, corners + sides, strict=True)
    )
    return draw_marks(rgb, [box for box in found if box is not None])[0]


def askable(query: Query, numbers: Mapping[int, int]) -> Query | None:
    """The query as far as marks can answer it; None where none of its targets has a mark."""
    targets = tuple(i for i in query.targets if i in numbers)
    return None if query.targets and not targets else replace(query, targets=targets)


def _numbers(n: int, rng: np.random.Generator) -> list[int]:
    """n different numbers, of which all are equally often asked for in the end."""
    if rng.random() < IN_ORDER:
        return list(range(1, n + 1))
    return [int(k) for k in 1 + rng.choice(MOST_MARKS, n, replace=False)]


def _wholes(scene: Scene, rng: np.random.Generator) -> Iterator[_Candidate]:
    """The objects with their edges a little off; a few go unnoticed."""
    for o in scene.objects:
        if rng.random() >= MISSED:
            x0, y0, x1, y1 = o.box
            off = rng.normal(0, JITTER, 4) * np.array([x1 - x0, y1 - y0] * 2)
            box = _inside(np.array(o.box) + off, len(o.mask))
            yield _Candidate(o.mask, box or Box(x0, y0, x1, y1))


def _others(scene: Scene, rng: np.random.Generator) -> Iterator[_Candidate]:
    """Parts, groups and background, as far as none is a second mark on an object."""
    masks = [mask for o in scene.objects for mask in _parts(scene.rgb, o.mask, rng)]
    for o in scene.objects:
        if rng.random() < GROUPED:
            masks.append(o.mask | scene.objects[int(rng.integers(len(scene.objects)))].mask)
    masks += [_ellipse(scene, rng) for _ in range(int(rng.integers(ELSEWHERE + 1)))]
    for mask in masks:
        box = mask_to_box(mask)
        if box is None or min(box.width, box.height) < 4:
            continue
        if not any(_iou(mask, o.mask) > ONE_OF_TWO for o in scene.objects):
            yield _Candidate(mask, box)


def _parts(rgb: RgbArray, mask: BoolMask, rng: np.random.Generator) -> list[BoolMask]:
    """Some of the pieces that the object falls into by colour and place, (H, W) each."""
    wanted = int(rng.integers(PARTS + 1))
    rows, columns = np.nonzero(mask)
    if not wanted or len(rows) < PARTS:
        return []
    places = np.stack([rows, columns], axis=1) / np.sqrt(len(rows))
    colours = rgb[rows, columns] / 64.0
    pixels = np.concatenate([places, colours * rng.uniform(0, 2)], axis=1).astype(np.float32)
    seeds = pixels[rng.choice(len(pixels), PARTS, replace=False)]
    nearest = ((pixels[:, None] - seeds) ** 2).sum(axis=-1).argmin(axis=1)
    pieces = []
    for piece in range(wanted):
        part = np.zeros_like(mask)
        part[rows, columns] = nearest == piece
        pieces.append(part)
    return pieces


def _best(scene: Scene, found: Sequence[_Candidate]) -> dict[int, int]:
    """Object -> the candidate that fits it best, if one does; none fits two."""
    pairs = [
        (_iou(c.mask, o.mask), i, k)
        for i, o in enumerate(scene.objects)
        for k, c in enumerate(found)
    ]
    best: dict[int, int] = {}
    for iou, i, k in sorted(pairs, reverse=True):
        if iou >= NAMED and i not in best and k not in best.values():
            best[i] = k
    return best


def _iou(a: BoolMask, b: BoolMask) -> float:
    a, b = a[::_COARSE, ::_COARSE], b[::_COARSE, ::_COARSE]
    either = int((a | b).sum())
    return int((a & b).sum()) / either if either else 0.0


def _ellipse(scene: Scene, rng: np.random.Generator) -> BoolMask:
    """(H, W), an ellipse somewhere on what is no object."""
    size = len(scene.rgb)
    w, h = rng.uniform(0.08, 0.5, 2) * size
    x, y = rng.uniform(0, size, 2)
    middles = np.arange(size) + 0.5
    inside = ((middles - x) * 2 / w)[None, :] ** 2 + ((middles - y) * 2 / h)[:, None] ** 2 <= 1
    free: BoolMask = inside & ~np.logical_or.reduce([o.mask for o in scene.objects])
    return free


def _inside(xyxy: NDArray[np.float64], size: int) -> Box | None:
    """The box cut at the image's edge; None when less than 4 pixels are left of a side."""
    x0, y0, x1, y1 = (float(v) for v in np.clip(xyxy, 0, size))
    return Box(x0, y0, x1, y1) if min(x1 - x0, y1 - y0) >= 4 else None


def _tag_cells(
    tags: Sequence[Rectangle], numbers: Sequence[int], boxes: Sequence[Box], size: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """`Marked.tags` and `Marked.boxes`; of two tags in one cell the later one counts."""
    cells = np.zeros(CELLS * CELLS, dtype=np.int64)
    owners = np.zeros((CELLS * CELLS, 4), dtype=np.float32)
    for (x0, y0, x1, y1), number, box in zip(tags, numbers, boxes, strict=True):
        row, column = (min((v * CELLS) // (2 * size), CELLS - 1) for v in (y0 + y1, x0 + x1))
        cells[row * CELLS + column] = number
        owners[row * CELLS + column] = np.array(box.xyxy) / size
    return cells, owners
