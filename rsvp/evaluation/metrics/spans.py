"""Masks as sorted spans of pixels: predictions are united and counted without being decoded.

A span is [start, stop) in column-major order, as COCO's run-length encoding counts: pixel (y, x) of
an (H, W) mask is x * H + y. A mask of 20 megapixels has some thousand spans.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rsvp.types import BoolMask

Spans = NDArray[np.int64]  # (n, 2), disjoint, ascending, none empty

_COLUMNS = 256  # compared at once: what a processor's cache holds of them


def from_runs(runs: NDArray[np.int64]) -> Spans:
    """The spans of alternating run lengths that start with 0, as `rle.check` gives them."""
    ends = np.cumsum(runs)
    return union([np.stack([ends[0:-1:2], ends[1::2]], axis=1)])


def union(parts: Sequence[Spans]) -> Spans:
    """The pixels that are in any of the masks; of no masks, none."""
    pairs = np.concatenate([np.zeros((0, 2), dtype=np.int64), *parts])
    pairs = pairs[pairs[:, 0] < pairs[:, 1]]
    if not len(pairs):
        return pairs
    pairs = pairs[np.argsort(pairs[:, 0], kind="stable")]
    reach = np.maximum.accumulate(pairs[:, 1])
    first = np.concatenate(([True], pairs[1:, 0] > reach[:-1]))
    last = np.concatenate((first[1:], [True]))
    return np.stack([pairs[first, 0], reach[last]], axis=1)


def area(spans: Spans) -> int:
    return int((spans[:, 1] - spans[:, 0]).sum())


def shared(spans: Spans, mask: BoolMask) -> int:
    """How many pixels of the spans are set in an (H, W) mask.

    Only the rows and columns that the spans touch are looked at, a few columns at a time.
    """
    if not len(spans):
        return 0
    height = mask.shape[0]
    left, right = int(spans[0, 0]) // height, (int(spans[-1, 1]) - 1) // height + 1
    top, bottom = _rows(spans, height)
    edges = np.concatenate(([0], (spans - left * height).ravel(), [(right - left) * height]))
    filled = np.repeat(np.arange(len(edges) - 1) % 2 == 1, np.diff(edges))
    columns = filled.reshape(-1, height)
    return sum(
        int(
            np.count_nonzero(
                mask[top:bottom, left + x : min(left + x + _COLUMNS, right)]
                & columns[x : x + _COLUMNS, top:bottom].T
            )
        )
        for x in range(0, right - left, _COLUMNS)
    )


def _rows(spans: Spans, height: int) -> tuple[int, int]:
    """The rows that spans touch, from the first to one past the last."""
    start, last = spans[:, 0], spans[:, 1] - 1
    if (start // height != last // height).any():  # a span that goes on in the next column
        return 0, height
    return int((start % height).min()), int((last % height).max()) + 1
