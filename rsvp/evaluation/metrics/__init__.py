"""How well masks and boxes agree: pure functions, exact integers until the last division.

I and U are the pixels that the prediction and the truth share, and that either has. gIoU is the
mean over samples of I / U, cIoU is the sum of I over the sum of U. What else there is to know, the
official codes decide differently: a `Protocol` says how.

Sources: LISA (dvlab-research/LISA, utils.py and train_ds.py), Seg-Zero and VisionReasoner
(evaluation_scripts), GRES (henghuiding/gRefCOCO).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from pycocotools import mask as coco

from rsvp.datasets import Sample
from rsvp.errors import BadInput
from rsvp.evaluation.metrics import spans
from rsvp.evaluation.metrics.spans import Spans
from rsvp.masks import box_iou
from rsvp.types import BoolMask, Box


@dataclass(frozen=True, slots=True)
class Protocol:
    """The rules on which benchmarks differ.

    Attributes:
        empty_iou: what a sample scores whose union is empty; None leaves it out of the mean.
        ignore: pixels marked "don't care" leave both masks, or belong to the target.
        twice: pixels in two annotations belong to the target, or (the value 2 being neither 0 nor
            1) to the background.
        iou_epsilon: added to each U.
        mean_epsilon: added to the number of samples, of gIoU.
        sum_epsilon: added to the sum of U, of cIoU.
    """

    name: str
    empty_iou: float | None = 1.0
    ignore: Literal["left out", "target"] = "left out"
    twice: Literal["target", "background"] = "target"
    iou_epsilon: float = 0.0
    mean_epsilon: float = 0.0
    sum_epsilon: float = 0.0


SCENES = Protocol("scenes")
LISA = Protocol("lisa", twice="background", iou_epsilon=1e-5, mean_epsilon=1e-5, sum_epsilon=1e-10)
SEG_ZERO = Protocol("seg-zero", empty_iou=None, ignore="target")
VISIONREASONER = Protocol("visionreasoner", empty_iou=0.0, ignore="target")
REASONSEG_X = Protocol("reasonseg-x", ignore="target")
GREFCOCO = Protocol("grefcoco")


@dataclass(frozen=True, slots=True)
class Overlap:
    """Pixels that two masks share, and pixels that either has; adds up with `+`."""

    intersection: int
    union: int

    def __add__(self, other: Overlap) -> Overlap:
        return Overlap(self.intersection + other.intersection, self.union + other.union)


@dataclass(frozen=True, slots=True)
class Truth:
    """What a protocol holds a prediction against.

    Attributes:
        mask: (H, W) bool, the target.
        ignore: (H, W) bool, pixels outside `mask` that count for nothing; None when there are none.
    """

    mask: BoolMask = field(repr=False)
    ignore: BoolMask | None = field(default=None, repr=False)


def truth(sample: Sample, protocol: Protocol = SCENES) -> Truth:
    """The truth of a sample, as a protocol sees it."""
    mask = sample.mask
    if sample.overlap_mask is not None and protocol.twice == "background":
        mask = mask & ~sample.overlap_mask
    if sample.ignore is None:
        return Truth(mask)
    if protocol.ignore == "target":
        return Truth(mask | sample.ignore)
    return Truth(mask, sample.ignore)


def overlap(prediction: BoolMask, truth: BoolMask, ignore: BoolMask | None = None) -> Overlap:
    """I and U of two (H, W) bool masks.

    Args:
        ignore: (H, W) bool, pixels that leave both.

    Raises:
        BadInput: the shapes differ.
    """
    for mask in (truth, ignore):
        if mask is not None and prediction.shape != mask.shape:
            raise BadInput(f"a mask of {prediction.shape} cannot be scored on one of {mask.shape}")
    if ignore is not None:
        prediction, truth = prediction & ~ignore, truth & ~ignore
    both = int(np.count_nonzero(prediction & truth))
    either = int(np.count_nonzero(prediction)) + int(np.count_nonzero(truth)) - both
    return Overlap(both, either)


def overlap_spans(prediction: Spans, truth: Truth) -> Overlap:
    """I and U of a prediction that is not decoded; the fastest way to score one.

    Args:
        prediction: spans (`rsvp.evaluation.metrics.spans`) within the truth's size.
    """
    both = spans.shared(prediction, truth.mask)
    size = spans.area(prediction)
    if truth.ignore is not None:
        size -= spans.shared(prediction, truth.ignore)
    return Overlap(both, size + int(np.count_nonzero(truth.mask)) - both)


def overlap_rle(
    prediction: Mapping[str, Any], truth: Mapping[str, Any], ignore: Mapping[str, Any] | None = None
) -> Overlap:
    """I and U of two COCO RLEs of one size, without decoding them.

    Args:
        ignore: pixels outside `truth` that leave the prediction.

    Raises:
        BadInput: the sizes differ.
    """
    for one in (truth, ignore):
        if one is not None and list(prediction["size"]) != list(one["size"]):
            raise BadInput(
                f"a mask of {prediction['size']} cannot be scored on one of {one['size']}"
            )
    both = _both(prediction, truth)
    size = int(coco.area(dict(prediction)))
    if ignore is not None:
        size -= _both(prediction, ignore)
    return Overlap(both, size + int(coco.area(dict(truth))) - both)


def _both(a: Mapping[str, Any], b: Mapping[str, Any]) -> int:
    return int(coco.area(coco.merge([dict(a), dict(b)], intersect=True)))


def skips(shared: Overlap, protocol: Protocol) -> bool:
    """Whether a protocol leaves a sample out of the mean: nothing there, nothing predicted."""
    return shared.union == 0 and protocol.empty_iou is None


def iou(shared: Overlap, protocol: Protocol = SCENES) -> float:
    """Intersection over union, 0 to 1.

    Raises:
        BadInput: the protocol leaves such a sample out, see `skips`.
    """
    if shared.union:
        return shared.intersection / (shared.union + protocol.iou_epsilon)
    if protocol.empty_iou is None:
        raise BadInput(f"the protocol {protocol.name} has no IoU of two empty masks")
    return protocol.empty_iou


def giou(overlaps: Sequence[Overlap], protocol: Protocol = SCENES) -> float:
    """The mean IoU over the samples that count; BadInput when there are none."""
    counted = [iou(one, protocol) for one in overlaps if not skips(one, protocol)]
    if not counted:
        raise BadInput("gIoU of no samples is undefined")
    return sum(counted) / (len(counted) + protocol.mean_epsilon)


def ciou(overlaps: Sequence[Overlap], protocol: Protocol = SCENES) -> float:
    """Summed intersections over summed unions; BadInput when there are no samples."""
    if not overlaps:
        raise BadInput("cIoU of no samples is undefined")
    total = sum(overlaps, Overlap(0, 0))
    below = total.union + protocol.sum_epsilon
    return total.intersection / below if below else empty_ciou(protocol)


def empty_ciou(protocol: Protocol) -> float:
    """cIoU where no sample has a union: an epsilon makes it 0, else it is as of one sample."""
    return 0.0 if protocol.sum_epsilon else protocol.empty_iou or 0.0


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
