"""Where marks come from, a detector or the segmenter itself, and which of them are drawn."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rsvp import registry
from rsvp.detectors import Candidates, Detector
from rsvp.strategies import SharedSegmenter
from rsvp.types import Box, Image, Proposal

LONGEST_QUERY = 12  # words of a query that a detector may make something of
SMALLEST = 0.015  # of the image's shorter side: candidates with a shorter side get no mark
LARGEST = 0.9  # of the image: a mask with more of it is background

# How a segmenter looks for candidates. Small ones are never as sure of a mask as the official
# thresholds want it, so nearly all that are stable are tried, and the best ones taken.
SEARCH: Mapping[str, Any] = {
    "points_per_side": 16, "min_iou": 0.1, "min_stability": 0.5, "limit": 48,
}  # fmt: skip
SAME = 0.5  # IoU of two masks beyond which they are of one thing
SPECK = 0.1  # of a mask's pixels: smaller pieces far out are no part of the thing

# What a detector is asked for beside the query: names for whatever is there.
COMMON_PHRASES = (
    "object", "person", "animal", "plant", "food", "drink", "container", "furniture", "vehicle",
    "tool", "toy", "clothing", "device", "building", "sign",
)  # fmt: skip


class Source(Protocol):
    """Finds an image's candidates."""

    def asked(self, query: str) -> tuple[str, ...]:
        """What of the query the candidates depend on."""
        ...

    def find(self, image: Image, asked: tuple[str, ...]) -> Candidates:
        """Everything found, in any order."""
        ...


class FromDetector:
    """A detector's candidates for the query, where it is short, and for common phrases."""

    def __init__(self, detector: Detector, phrases: Sequence[str] = COMMON_PHRASES) -> None:
        self.detector, self.phrases = detector, tuple(phrases)

    def asked(self, query: str) -> tuple[str, ...]:
        words = re.findall(r"\w+", query)
        own = (query.strip(),) if 0 < len(words) <= LONGEST_QUERY else ()
        return own + self.phrases

    def find(self, image: Image, asked: tuple[str, ...]) -> Candidates:
        return self.detector.candidates(image, asked)


class FromSegmenter:
    """The segmenter's automatic masks, each drawn once more from its own box.

    A point may mean a thing, a part of it or a group; the mask from the box around says how good a
    guess that was, and guesses at one thing become one. Specks far from it are left out.
    """

    def __init__(self, shared: SharedSegmenter) -> None:
        self.shared = shared
        self.automatic: Detector = registry.load("detector", "automatic")(
            shared.segmenter, **SEARCH
        )

    def asked(self, query: str) -> tuple[str, ...]:
        del query
        return ()

    def find(self, image: Image, asked: tuple[str, ...]) -> Candidates:
        with self.shared.lock:
            guessed = self.automatic.candidates(image, asked)
        if not len(guessed):
            return guessed
        boxes = [Box(*corners) for corners in guessed.boxes.astype(float).tolist()]
        found, _, _ = self.shared.masks(image, [Proposal("", box) for box in boxes])
        scores = np.clip(np.nan_to_num(found.scores), 0, 1).astype(np.float32)
        rows = _one_of_each(found.masks, scores)
        masks = found.masks[rows]
        edges = [main_box(mask) for mask in masks]
        inside = np.zeros_like(masks)
        for page, (x0, y0, x1, y1) in zip(inside, edges, strict=True):
            page[y0:y1, x0:x1] = True
        corners = np.array(edges, dtype=np.float32).reshape(-1, 4)
        return Candidates(corners, scores[rows], ("",) * len(rows), masks & inside)


def main_box(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """xyxy around a mask that is not empty, without specks far out.

    A speck is what an empty row or column separates from the rest, with less than `SPECK` of all
    pixels.
    """
    rows, columns = slice(0, mask.shape[0]), slice(0, mask.shape[1])
    least = SPECK * np.count_nonzero(mask)
    for _ in range(2):  # what is cut off across may make a gap downwards, and the other way round
        columns = _main_run(mask[rows, columns].sum(axis=0), columns.start, least)
        rows = _main_run(mask[rows, columns].sum(axis=1), rows.start, least)
    return columns.start, rows.start, columns.stop, rows.stop


def _main_run(pixels: NDArray[np.int64], offset: int, least: float) -> slice:
    """From the first to the last run of non-zero counts that sums up to `least`."""
    edges = np.flatnonzero(np.diff(pixels > 0, prepend=False, append=False))
    starts, stops = edges[::2], edges[1::2]
    totals = np.insert(pixels.cumsum(), 0, 0)
    large = np.flatnonzero(totals[stops] - totals[starts] >= least)
    if not len(large):  # nothing but specks
        large = np.arange(len(starts))
    return slice(offset + int(starts[large[0]]), offset + int(stops[large[-1]]))


def _one_of_each(masks: NDArray[np.bool_], scores: NDArray[np.float32]) -> list[int]:
    """The best mask of each thing, best first; none that is empty or most of the image."""
    areas = masks.mean(axis=(1, 2))
    # Overlaps are judged on every fourth pixel: nothing that gets a mark is smaller.
    small = masks[:, ::4, ::4].reshape(len(masks), -1).astype(np.float32)
    shared, sizes = small @ small.T, small.sum(axis=1)
    same = shared > SAME * (sizes[:, None] + sizes[None, :] - shared)
    kept: list[int] = []
    for row in np.argsort(-scores, kind="stable").tolist():
        if 0 < areas[row] <= LARGEST and not same[row, kept].any():
            kept.append(row)
    return kept


class Kept:
    """The candidates of the last few images."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._entries: OrderedDict[object, Candidates] = OrderedDict()

    def get(self, key: object, find: Callable[[], Candidates]) -> Candidates:
        """What was found before, or what is found now."""
        if key not in self._entries:
            self._entries[key] = find()
            if len(self._entries) > self._keep:
                self._entries.popitem(last=False)
        self._entries.move_to_end(key)
        return self._entries[key]


def best(candidates: Candidates, image: Image, most: int) -> Candidates:
    """Those inside the image and not too small to be seen, at most so many, best score first."""
    edges = np.array([image.width, image.height] * 2, dtype=np.float32)
    boxes = np.clip(candidates.boxes, 0, edges)
    shorter = (boxes[:, 2:] - boxes[:, :2]).min(axis=1, initial=np.inf)
    order = np.argsort(-candidates.scores, kind="stable")
    seen = shorter >= max(1.0, SMALLEST * min(image.height, image.width))
    rows = order[seen[order]][:most]
    kept = candidates.take(rows)
    return Candidates(boxes[rows], kept.scores, kept.phrases, kept.masks)
