"""Candidates for marks: from a detector or from the segmenter itself, and which of them are drawn.

`segmenter_candidates` segments each automatic mask once more from its own box: a point may mean an
object, a part of it or a group; the score of the mask from the box says which it was.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsvp import registry
from rsvp.detectors import Candidates, Detector
from rsvp.segmenters import Segmenter
from rsvp.segmenters.embedding_cache import EmbeddingCache
from rsvp.types import Box, Image, PackedMask, Proposal

MAX_QUERY_WORDS = 12  # of a query that a detector can use as a phrase
MIN_SIDE = 0.015  # of the image's shorter side: candidates with a shorter side get no mark
MAX_AREA = 0.9  # of the image: a mask with more of it is background

# How a segmenter looks for candidates. Small ones are never as sure of a mask as the official
# thresholds demand, so nearly all stable masks are tried, and the best ones taken.
SEARCH: Mapping[str, Any] = {
    "points_per_side": 16, "min_iou": 0.1, "min_stability": 0.5, "limit": 48,
}  # fmt: skip
DUPLICATE_IOU = 0.5  # of two masks, beyond which they are of one object
SPECK = 0.1  # of a mask's pixels: smaller separate pieces are no part of the object

# What a detector is asked for beside the query: names for whatever is there.
COMMON_PHRASES = (
    "object", "person", "animal", "plant", "food", "drink", "container", "furniture", "vehicle",
    "tool", "toy", "clothing", "device", "building", "sign",
)  # fmt: skip


def detector_phrases(query: str, phrases: Sequence[str]) -> tuple[str, ...]:
    """What a detector is asked for: the query where it is short, and common phrases."""
    words = re.findall(r"\w+", query)
    own = (query.strip(),) if 0 < len(words) <= MAX_QUERY_WORDS else ()
    return (*own, *phrases)


def automatic_detector(segmenter: Segmenter) -> Detector:
    """The segmenter's automatic masks as a detector; BadInput where it cannot make them."""
    detector: Detector = registry.load("detector", "automatic")(segmenter, **SEARCH)
    return detector


def segmenter_candidates(cache: EmbeddingCache, image: Image) -> Candidates:
    """One mask an object, segmented from the boxes of the automatic masks, without specks."""
    with cache.lock:
        boxes = automatic_detector(cache.segmenter).candidates(image, ()).boxes.astype(float)
    if not len(boxes):
        return Candidates.none()
    found = cache.masks(image, [Proposal("", Box(*corners)) for corners in boxes.tolist()])
    scores = np.clip(np.nan_to_num(found.scores), 0, 1).astype(np.float32)
    rows = _unique_masks(found.masks, scores)
    main = [_without_specks(found.masks[row]) for row in rows]
    corners = np.array([edges for edges, _ in main], dtype=np.float32).reshape(-1, 4)
    masks = tuple(mask for _, mask in main)
    return Candidates(corners, scores[rows], ("",) * len(rows), masks)


def select_candidates(candidates: Candidates, image: Image, limit: int) -> Candidates:
    """Those inside the image and large enough to be seen, at most `limit`, best score first."""
    edges = np.array([image.width, image.height] * 2, dtype=np.float32)
    boxes = np.clip(candidates.boxes, 0, edges)
    shorter = (boxes[:, 2:] - boxes[:, :2]).min(axis=1, initial=np.inf)
    order = np.argsort(-candidates.scores, kind="stable")
    visible = shorter >= max(1.0, MIN_SIDE * min(image.height, image.width))
    rows = order[visible[order]][:limit]
    kept = candidates.take(rows)
    return Candidates(boxes[rows], kept.scores, kept.phrases, kept.masks)


def main_box(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """xyxy around a mask that is not empty, without separate specks.

    A speck is what an empty row or column separates from the rest, with less than `SPECK` of all
    pixels.
    """
    rows, columns = slice(0, mask.shape[0]), slice(0, mask.shape[1])
    min_pixels = SPECK * np.count_nonzero(mask)
    for _ in range(2):  # clipping the columns may open a gap between rows, and the other way round
        columns = _main_run(mask[rows, columns].sum(axis=0), columns.start, min_pixels)
        rows = _main_run(mask[rows, columns].sum(axis=1), rows.start, min_pixels)
    return columns.start, rows.start, columns.stop, rows.stop


def _main_run(pixels: NDArray[np.int64], offset: int, min_pixels: float) -> slice:
    """From the first to the last run of non-zero counts that sums up to `min_pixels`."""
    edges = np.flatnonzero(np.diff(pixels > 0, prepend=False, append=False))
    starts, stops = edges[::2], edges[1::2]
    totals = np.insert(pixels.cumsum(), 0, 0)
    large = np.flatnonzero(totals[stops] - totals[starts] >= min_pixels)
    if not len(large):  # nothing but specks
        large = np.arange(len(starts))
    return slice(offset + int(starts[large[0]]), offset + int(stops[large[-1]]))


def _without_specks(mask: PackedMask) -> tuple[tuple[int, int, int, int], PackedMask]:
    """See `main_box`; the mask is empty outside it."""
    whole = mask.unpack()
    x0, y0, x1, y1 = edges = main_box(whole)
    inside = np.zeros_like(whole)
    inside[y0:y1, x0:x1] = whole[y0:y1, x0:x1]
    return edges, PackedMask.pack(inside)


def _unique_masks(masks: Sequence[PackedMask], scores: NDArray[np.float32]) -> list[int]:
    """The rows of the best mask of each object, best first; none empty or most of the image."""
    height, width = masks[0].size
    areas = [mask.area / (height * width) for mask in masks]
    # Overlaps are computed on every fourth pixel, and on large images at some 1,000 a side: nothing
    # that gets a mark is smaller.
    step = max(4, max(height, width) // 1000)
    small = np.stack([mask.unpack()[::step, ::step].reshape(-1) for mask in masks])
    small = small.astype(np.float32)
    intersection, sizes = small @ small.T, small.sum(axis=1)
    union = sizes[:, None] + sizes[None, :] - intersection
    duplicate = intersection > DUPLICATE_IOU * union
    kept: list[int] = []
    for row in np.argsort(-scores, kind="stable").tolist():
        if 0 < areas[row] <= MAX_AREA and not duplicate[row, kept].any():
            kept.append(row)
    return kept
