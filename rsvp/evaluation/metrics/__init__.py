"""How well masks and boxes agree: pure functions, exact integers until the last division.

I and U count the pixels in the intersection and in the union of prediction and truth. gIoU is the
mean over samples of I / U, cIoU is the sum of I over the sum of U. In the details the official
codes differ: a `ScoringProtocol` holds them.

Sources: LISA (dvlab-research/LISA, utils.py and train_ds.py), Seg-Zero and VisionReasoner
(evaluation_scripts), GRES (henghuiding/gRefCOCO).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeGuard

import numpy as np

from rsvp.datasets import Sample
from rsvp.errors import BadInput
from rsvp.evaluation.metrics import spans
from rsvp.evaluation.metrics.spans import Spans
from rsvp.evaluation.stats import Interval, mean_or_none, ratio_interval
from rsvp.masks import box_iou
from rsvp.types import BoolMask, Box

IntervalNumbers = dict[str, Interval | int | None]


@dataclass(frozen=True, slots=True)
class ScoringProtocol:
    """The rules on which benchmarks differ.

    Attributes:
        empty_iou: the score of a sample whose union is empty; None leaves it out of the mean.
        ignored_pixels: pixels marked "don't care" leave both masks, or belong to the target.
        overlap_pixels: pixels in two annotations belong to the target, or to the background. (LISA
            sums the masks and tests == 1, so that overlaps become background.)
    """

    name: str
    empty_iou: float | None = 1.0
    ignored_pixels: Literal["left out", "target"] = "left out"
    overlap_pixels: Literal["target", "background"] = "target"
    iou_epsilon: float = 0.0  # added to each U
    mean_epsilon: float = 0.0  # added to the number of samples, of gIoU
    sum_epsilon: float = 0.0  # added to the sum of U, of cIoU


SCENES = ScoringProtocol("scenes")
LISA = ScoringProtocol(
    "lisa", overlap_pixels="background", iou_epsilon=1e-5, mean_epsilon=1e-5, sum_epsilon=1e-10
)
SEG_ZERO = ScoringProtocol("seg-zero", empty_iou=None, ignored_pixels="target")
VISIONREASONER = ScoringProtocol("visionreasoner", empty_iou=0.0, ignored_pixels="target")
REASONSEG_X = ScoringProtocol("reasonseg-x", ignored_pixels="target")
GREFCOCO = ScoringProtocol("grefcoco")


@dataclass(frozen=True, slots=True)
class Overlap:
    """Pixels in the intersection and in the union of two masks."""

    intersection: int
    union: int


@dataclass(frozen=True, slots=True)
class Truth:
    """What a prediction is compared with: (H, W) bool masks."""

    mask: BoolMask = field(repr=False)
    ignore: BoolMask | None = field(default=None, repr=False)  # pixels outside that do not count


def truth(sample: Sample, protocol: ScoringProtocol = SCENES) -> Truth:
    """The truth of a sample, as a protocol sees it."""
    mask = sample.mask
    if sample.overlap_mask is not None and protocol.overlap_pixels == "background":
        mask = mask & ~sample.overlap_mask
    if sample.ignore is None:
        return Truth(mask)
    if protocol.ignored_pixels == "target":
        return Truth(mask | sample.ignore)
    return Truth(mask, sample.ignore)


def overlap(prediction: BoolMask, truth: BoolMask, ignore: BoolMask | None = None) -> Overlap:
    """I and U of two (H, W) bool masks without the pixels of `ignore`; BadInput if sizes differ."""
    for mask in (truth, ignore):
        if mask is not None and prediction.shape != mask.shape:
            raise BadInput(f"a mask of {prediction.shape} cannot be scored on one of {mask.shape}")
    if ignore is not None:
        prediction, truth = prediction & ~ignore, truth & ~ignore
    both = int(np.count_nonzero(prediction & truth))
    either = int(np.count_nonzero(prediction)) + int(np.count_nonzero(truth)) - both
    return Overlap(both, either)


def overlap_spans(prediction: Spans, truth: Truth) -> Overlap:
    """`overlap` for a prediction that is not decoded, within the truth's size; far faster."""
    both = spans.shared(prediction, truth.mask)
    size = spans.area(prediction)
    if truth.ignore is not None:
        size -= spans.shared(prediction, truth.ignore)
    return Overlap(both, size + int(np.count_nonzero(truth.mask)) - both)


def skips(shared: Overlap, protocol: ScoringProtocol) -> bool:
    """Whether a protocol leaves a sample out of the mean: nothing there, nothing predicted."""
    return shared.union == 0 and protocol.empty_iou is None


def iou(shared: Overlap, protocol: ScoringProtocol = SCENES) -> float:
    """Intersection over union, 0 to 1; BadInput where the protocol leaves such a sample out."""
    if shared.union:
        return shared.intersection / (shared.union + protocol.iou_epsilon)
    if protocol.empty_iou is None:
        raise BadInput(f"the protocol {protocol.name} has no IoU of two empty masks")
    return protocol.empty_iou


def iou_numbers(overlaps: Sequence[Overlap], protocol: ScoringProtocol) -> IntervalNumbers:
    """n, skipped, gIoU and cIoU of at least one sample; gIoU is None where all are skipped."""
    counted = [iou(one, protocol) for one in overlaps if not skips(one, protocol)]
    giou = mean_or_none(counted)
    return {
        "n": len(overlaps),
        "skipped": len(overlaps) - len(counted),
        "giou": giou and giou.times(len(counted) / (len(counted) + protocol.mean_epsilon)),
        "ciou": ratio_interval(
            [one.intersection for one in overlaps],
            [one.union for one in overlaps],
            empty=empty_ciou(protocol),
            epsilon=protocol.sum_epsilon,
        ),
    }


def empty_ciou(protocol: ScoringProtocol) -> float:
    """cIoU where no sample has a union: an epsilon makes it 0, else it is as of one sample."""
    return 0.0 if protocol.sum_epsilon else protocol.empty_iou or 0.0


def matched_boxes(truth: Sequence[Box], predicted: Sequence[Box], threshold: float = 0.5) -> int:
    """How many true boxes can be paired one-to-one with predictions of IoU >= `threshold`.

    The largest such pairing, found by augmenting paths, so that the order of boxes is irrelevant.
    """
    candidates = [[j for j, p in enumerate(predicted) if box_iou(t, p) >= threshold] for t in truth]
    matched_to: dict[int, int] = {}

    def match(i: int, tried: set[int]) -> bool:
        for j in candidates[i]:
            if j in tried:
                continue
            tried.add(j)
            if j not in matched_to or match(matched_to[j], tried):
                matched_to[j] = i
                return True
        return False

    return sum(match(i, set()) for i in range(len(truth)))


def is_number(value: object) -> TypeGuard[float]:
    """Whether a float holds it; False for NaN, infinities and bool too."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return abs(value) <= sys.float_info.max
