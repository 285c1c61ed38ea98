"""Candidate marks on a scene: its objects as a segmenter or a detector would find them.

Automatic masks hold most objects more or less exactly, many parts of them, some groups, and some
background; a few objects appear only in parts. The numbers are independent of the positions, so
that the reasoner has to read them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recipes.embedded.model import CELLS
from rsvp.drawing import Rectangle, draw_marks
from rsvp.embedded.queries import Query
from rsvp.embedded.scenes import Scene
from rsvp.masks import clip_box, mask_iou, mask_to_box
from rsvp.types import BoolMask, Box, RgbArray

MOST_MARKS = 24  # the highest number that is ever drawn
JITTER = 0.04  # standard deviation of a candidate's edge, as a share of the object's size
MISSED = 0.12  # share of the objects that are no candidate themselves
PARTS = 3  # clusters of an object's pixels; up to so many of them are candidates
GROUPED = 0.1  # share of the objects that are a candidate together with another one
BACKGROUND_CANDIDATES = 3  # at most
DUPLICATE_IOU = 0.6  # a part, group or background candidate above this is a second mark: dropped
MATCH_IOU = 0.4  # the least that the best candidate of an object needs to be its mark
CONSECUTIVE = 0.75  # share of the scenes numbered 1 to n; in the others any number may occur
SMALLEST = 4  # shorter side of a candidate's box, pixels
STRIDE = 3  # IoUs are computed on every third row and column


@dataclass(frozen=True, slots=True)
class MarkedScene:
    """A scene with marks drawn on it.

    Attributes:
        rgb: the scene's pixels with the marks.
        numbers: object index -> number of its mark; an object may have none.
        tag_numbers: (CELLS * CELLS,) the number whose tag is centred in the cell, 0 for none.
        tag_boxes: (CELLS * CELLS, 4) xyxy, 0 to 1, of the candidate of the cell's tag.
    """

    rgb: RgbArray
    numbers: Mapping[int, int]
    tag_numbers: NDArray[np.int64]
    tag_boxes: NDArray[np.float32]


class Candidate(NamedTuple):
    """An (H, W) bool mask and its box in pixels, which need not be tight."""

    mask: BoolMask
    box: Box


def mark_scene(scene: Scene, rng: np.random.Generator) -> MarkedScene:
    """Find candidates in a scene, number them at random and draw them, as masks or as boxes."""
    found = [*_object_candidates(scene, rng), *_other_candidates(scene, rng)]
    found = [found[int(k)] for k in rng.permutation(len(found))[:MOST_MARKS]]
    numbers = _sample_numbers(len(found), rng)
    masks = np.stack([c.mask for c in found]) if found and rng.random() < 0.5 else None
    boxes = [c.box for c in found]
    rgb, tags = draw_marks(scene.rgb, boxes, masks, numbers=numbers)
    marked = {i: numbers[k] for i, k in _match(scene, found).items()}
    return MarkedScene(rgb, marked, *tag_cells(tags, numbers, boxes, len(scene.rgb)))


def mark_anything(rgb: RgbArray, rng: np.random.Generator) -> RgbArray:
    """Random marks on a (size, size, 3) picture that is no scene."""
    size = len(rgb)
    corners = rng.random((int(rng.integers(2, 13)), 2)) * 0.7 * size
    sides = rng.uniform(0.1, 0.6, corners.shape) * size
    boxes = (_clip(xyxy, size) for xyxy in np.concatenate([corners, corners + sides], axis=1))
    return draw_marks(rgb, [box for box in boxes if box is not None])[0]


def restrict_to_marked(query: Query, numbers: Mapping[int, int]) -> Query | None:
    """The query with its marked targets alone; None where none of its targets has a mark."""
    targets = tuple(i for i in query.targets if i in numbers)
    return None if query.targets and not targets else replace(query, targets=targets)


def _sample_numbers(n: int, rng: np.random.Generator) -> list[int]:
    if rng.random() < CONSECUTIVE:
        return list(range(1, n + 1))
    return [int(k) for k in 1 + rng.choice(MOST_MARKS, n, replace=False)]


def _object_candidates(scene: Scene, rng: np.random.Generator) -> Iterator[Candidate]:
    """The objects with jittered boxes, but for a few that are missed."""
    for o in scene.objects:
        if rng.random() >= MISSED:
            noise = rng.normal(0, JITTER, 4) * np.array([o.box.width, o.box.height] * 2)
            box = _clip(np.array(o.box.xyxy) + noise, len(o.mask))
            yield Candidate(o.mask, box or o.box)


def _other_candidates(scene: Scene, rng: np.random.Generator) -> Iterator[Candidate]:
    """Parts, groups and background, where they are no second mark on an object."""
    masks = [mask for o in scene.objects for mask in _parts(scene.rgb, o.mask, rng)]
    for o in scene.objects:
        if rng.random() < GROUPED:
            masks.append(o.mask | scene.objects[int(rng.integers(len(scene.objects)))].mask)
    extra = int(rng.integers(BACKGROUND_CANDIDATES + 1))
    masks += [_background_ellipse(scene, rng) for _ in range(extra)]
    for mask in masks:
        box = mask_to_box(mask)
        if box is None or min(box.width, box.height) < SMALLEST:
            continue
        if not any(_iou(mask, o.mask) > DUPLICATE_IOU for o in scene.objects):
            yield Candidate(mask, box)


def _parts(rgb: RgbArray, mask: BoolMask, rng: np.random.Generator) -> list[BoolMask]:
    """Some of the clusters of an object's pixels by colour and position, (H, W) bool each."""
    wanted = int(rng.integers(PARTS + 1))
    rows, columns = np.nonzero(mask)
    if not wanted or len(rows) < PARTS:
        return []
    positions = np.stack([rows, columns], axis=1) / np.sqrt(len(rows))
    colours = rgb[rows, columns] / 64.0
    pixels = np.concatenate([positions, colours * rng.uniform(0, 2)], axis=1).astype(np.float32)
    centers = pixels[rng.choice(len(pixels), PARTS, replace=False)]
    nearest = ((pixels[:, None] - centers) ** 2).sum(axis=-1).argmin(axis=1)
    parts = np.zeros((wanted, *mask.shape), dtype=np.bool_)
    for k, part in enumerate(parts):
        part[rows, columns] = nearest == k
    return list(parts)


def _match(scene: Scene, found: Sequence[Candidate]) -> dict[int, int]:
    """Object -> its best candidate, each at most once, the highest IoU first."""
    pairs = [
        (_iou(c.mask, o.mask), i, k)
        for i, o in enumerate(scene.objects)
        for k, c in enumerate(found)
    ]
    best: dict[int, int] = {}
    for iou, i, k in sorted(pairs, reverse=True):
        if iou >= MATCH_IOU and i not in best and k not in best.values():
            best[i] = k
    return best


def _iou(a: BoolMask, b: BoolMask) -> float:
    return mask_iou(a[::STRIDE, ::STRIDE], b[::STRIDE, ::STRIDE])


def _background_ellipse(scene: Scene, rng: np.random.Generator) -> BoolMask:
    """(H, W) bool, an ellipse somewhere, without the objects."""
    size = len(scene.rgb)
    w, h = rng.uniform(0.08, 0.5, 2) * size
    x, y = rng.uniform(0, size, 2)
    middles = np.arange(size) + 0.5
    inside = ((middles - x) * 2 / w)[None, :] ** 2 + ((middles - y) * 2 / h)[:, None] ** 2 <= 1
    free: BoolMask = inside & ~np.logical_or.reduce([o.mask for o in scene.objects])
    return free


def _clip(xyxy: NDArray[np.float64], size: int) -> Box | None:
    """The part of a box inside a square image; None where a side is shorter than `SMALLEST`."""
    box = clip_box(xyxy.tolist(), Box(0, 0, size, size))
    return box if box and min(box.width, box.height) >= SMALLEST else None


def tag_cells(
    tags: Sequence[Rectangle], numbers: Sequence[int], boxes: Sequence[Box], size: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """`tag_numbers` and `tag_boxes` of a `MarkedScene`; of two tags in a cell the later one."""
    tag_numbers = np.zeros(CELLS * CELLS, dtype=np.int64)
    tag_boxes = np.zeros((CELLS * CELLS, 4), dtype=np.float32)
    for (x0, y0, x1, y1), number, box in zip(tags, numbers, boxes, strict=True):
        row, column = (min((v * CELLS) // (2 * size), CELLS - 1) for v in (y0 + y1, x0 + x1))
        tag_numbers[row * CELLS + column] = number
        tag_boxes[row * CELLS + column] = np.array(box.xyxy) / size
    return tag_numbers, tag_boxes
