"""How well masks and boxes agree: pure functions, exact integers until the last division.

Of `scenes` (the rendered world): IoU = I / U without any epsilon; where both masks are empty
(U = 0) the answer is right and scores 1. gIoU is the mean of the IoUs, cIoU the sum of the
intersections over the sum of the unions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as coco

from rsvp.errors import BadInput
from rsvp.geometry import box_iou
from rsvp.types import BoolMask, Box


@dataclass(frozen=True, slots=True)
class Protocol:
    """The rules on which benchmarks differ.

    Attributes:
        empty_iou: what a sample scores whose union is empty.
    """

    name: str
    empty_iou: float


SCENES = Protocol("scenes", empty_iou=1.0)


@dataclass(frozen=True, slots=True)
class Overlap:
    """Pixels that two masks share, and pixels that either has; adds up with `+`."""

    intersection: int
    union: int

    def __add__(self, other: Overlap) -> Overlap:
        return Overlap(self.intersection + other.intersection, self.union + other.union)


def overlap(prediction: BoolMask, truth: BoolMask) -> Overlap:
    """I and U of two (H, W) bool masks.

    Raises:
        BadInput: the shapes differ.
    """
    if prediction.shape != truth.shape:
        raise BadInput(f"a mask of {prediction.shape} cannot be scored on one of {truth.shape}")
    both = int(np.count_nonzero(prediction & truth))
    either = int(np.count_nonzero(prediction)) + int(np.count_nonzero(truth)) - both
    return Overlap(both, either)


def overlap_rle(prediction: Mapping[str, Any], truth: Mapping[str, Any]) -> Overlap:
    """I and U of two COCO RLEs of one size, without decoding them.

    Raises:
        BadInput: the sizes differ.
    """
    if list(prediction["size"]) != list(truth["size"]):
        raise BadInput(f"a mask of {prediction['size']} cannot be scored on one of {truth['size']}")
    pair = [dict(prediction), dict(truth)]
    both = int(coco.area(coco.merge(pair, intersect=True)))
    return Overlap(both, int(sum(int(coco.area(one)) for one in pair)) - both)


def iou(shared: Overlap, protocol: Protocol = SCENES) -> float:
    """Intersection over union, 0 to 1."""
    if shared.union == 0:
        return protocol.empty_iou
    return shared.intersection / shared.union


def giou(overlaps: Sequence[Overlap], protocol: Protocol = SCENES) -> float:
    """The mean IoU over samples; BadInput when there are none."""
    if not overlaps:
        raise BadInput("gIoU of no samples is undefined")
    return sum(iou(one, protocol) for one in overlaps) / len(overlaps)


def ciou(overlaps: Sequence[Overlap], protocol: Protocol = SCENES) -> float:
    """Summed intersections over summed unions; BadInput when there are no samples."""
    if not overlaps:
        raise BadInput("cIoU of no samples is undefined")
    return iou(sum(overlaps, Overlap(0, 0)), protocol)


def matched_boxes(truth: Sequence[Box], predicted: Sequence[Box], threshold: float = 0.5) -> int:
    """How many true boxes can be paired one-to-one with predictions of IoU >= `threshold`.

    The largest such pairing, found by augmenting paths, so that the order of boxes is irrelevant.
    """
    near = [[j for j, p in enumerate(predicted) if box_iou(t, p) >= threshold] for t in truth]
    holder: dict[int, int] = {}

    def place(i: int, tried: set[int]) -> bool:
        for j in near[i]:
            if j in tried:
                continue
            tried.add(j)
            if j not in holder or place(holder[j], tried):
                holder[j] = i
                return True
        return False

    return sum(place(i, set()) for i in range(len(truth)))
