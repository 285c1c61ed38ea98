"""Masks and boxes scored by hand."""

import numpy as np
import pytest

from rsvp.datasets import rle
from rsvp.errors import BadInput
from rsvp.evaluation.metrics import (
    Overlap,
    Protocol,
    ciou,
    giou,
    iou,
    matched_boxes,
    overlap,
    overlap_rle,
)
from rsvp.types import Box

EMPTY = np.zeros((4, 5), dtype=np.bool_)


def rectangle(y0, y1, x0, x1):
    mask = EMPTY.copy()
    mask[y0:y1, x0:x1] = True
    return mask


@pytest.mark.parametrize(
    ("prediction", "truth", "intersection", "union", "score"),
    [
        (rectangle(0, 2, 0, 3), rectangle(1, 3, 1, 4), 2, 10, 0.2),
        (rectangle(0, 2, 0, 3), rectangle(0, 2, 0, 3), 6, 6, 1.0),
        (rectangle(0, 1, 0, 1), rectangle(3, 4, 4, 5), 0, 2, 0.0),
        (EMPTY, rectangle(0, 2, 0, 2), 0, 4, 0.0),
        (rectangle(0, 2, 0, 2), EMPTY, 0, 4, 0.0),
        (EMPTY, EMPTY, 0, 0, 1.0),
        (~EMPTY, rectangle(0, 4, 0, 1), 4, 20, 0.2),
    ],
)
def test_overlap_and_iou(prediction, truth, intersection, union, score):
    shared = overlap(prediction, truth)
    assert shared == Overlap(intersection, union)
    assert overlap_rle(rle.encode(prediction), rle.encode(truth)) == shared
    assert iou(shared) == score  # exactly: no epsilon


def test_another_protocol_may_score_an_empty_union_differently():
    assert iou(Overlap(0, 0), Protocol("other", empty_iou=0.0)) == 0.0


def test_masks_of_other_sizes_are_refused():
    with pytest.raises(BadInput, match=r"\(4, 5\).*\(5, 4\)"):
        overlap(EMPTY, EMPTY.T)
    with pytest.raises(BadInput, match=r"\[4, 5\].*\[5, 4\]"):
        overlap_rle(rle.encode(EMPTY), rle.encode(EMPTY.T))


def test_giou_is_the_mean_and_ciou_the_ratio_of_sums():
    overlaps = [Overlap(1, 2), Overlap(30, 40), Overlap(0, 0)]
    assert giou(overlaps) == pytest.approx((0.5 + 0.75 + 1.0) / 3, abs=1e-15)
    assert ciou(overlaps) == pytest.approx(31 / 42, abs=1e-15)


def test_ciou_of_nothing_but_right_no_answers_is_one():
    assert ciou([Overlap(0, 0)]) == 1.0


@pytest.mark.parametrize("score", [giou, ciou])
def test_no_samples_have_no_score(score):
    with pytest.raises(BadInput, match="no samples"):
        score([])


def strip(x0, x1):
    return Box(x0, 0, x1, 1)


@pytest.mark.parametrize(
    ("truth", "predicted", "count"),
    [
        ([], [], 0),
        ([strip(0, 2)], [], 0),
        ([strip(0, 2)], [strip(0, 1)], 1),  # exactly 0.5 counts
        ([strip(0, 2)], [strip(0, 0.99)], 0),
        ([strip(0, 2)], [strip(0, 2), strip(0, 2)], 1),  # a surplus prediction is not a second hit
        ([strip(0, 2), strip(0, 2)], [strip(0, 2)], 1),  # nor does one prediction serve two
        # Greedy pairing would give the first prediction to the first truth and lose the second.
        ([strip(0, 10), strip(2, 12)], [strip(1, 11), strip(-2, 8)], 2),
        ([strip(2, 12), strip(0, 10)], [strip(1, 11), strip(-2, 8)], 2),
    ],
)
def test_boxes_are_matched_one_to_one(truth, predicted, count):
    assert matched_boxes(truth, predicted, 0.5) == count
