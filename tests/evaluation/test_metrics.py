"""Masks and boxes scored by hand."""

import numpy as np
import pytest

from rsvp.datasets import Sample
from rsvp.errors import BadInput
from rsvp.evaluation.metrics import (
    LISA,
    REASONSEG_X,
    SCENES,
    SEG_ZERO,
    VISIONREASONER,
    Overlap,
    iou,
    iou_numbers,
    matched_boxes,
    overlap,
    overlap_spans,
    skips,
    spans,
    truth,
)
from rsvp.masks import encode_rle, rle_runs
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
    assert iou(shared) == score  # exactly: no epsilon


def giou(overlaps, rules=SCENES):
    return iou_numbers(overlaps, rules)["giou"].mean


def ciou(overlaps, rules=SCENES):
    return iou_numbers(overlaps, rules)["ciou"].mean


# ---------------------------------------------------------------- the protocols


def straightforward(prediction, target, rules):
    """(I, U) of one sample as the official codes count, pixel for pixel, in float64.

    `target` holds 0, 1, 2 (two annotations) and 255 (ignore), as their arrays do.
    """
    prediction, target = prediction.astype(np.float64), target.astype(np.float64)
    if rules.name == "lisa":
        prediction[target == 255] = 255
        both = (prediction == 1) & (target == 1)
        union = (prediction == 1).sum() + (target == 1).sum() - both.sum()
        return float(both.sum()), float(union)
    target = (target != 0).astype(np.float64)
    return (prediction * target).sum(), np.maximum(prediction, target).sum()


def official(pairs, rules):
    """gIoU and cIoU of (I, U) pairs, as each project has them."""
    both, union = (np.array(values, dtype=np.float64) for values in zip(*pairs, strict=True))
    if rules.name == "lisa":
        ious = both / (union + 1e-5) + (union == 0)
        return ious.sum() / (len(ious) + 1e-5), both.sum() / (union.sum() + 1e-10)
    empty = {"seg-zero": np.nan, "visionreasoner": 0.0, "reasonseg-x": 1.0}[rules.name]
    ious = np.where(union == 0, empty, both / np.maximum(union, 1))
    return np.nanmean(ious), both.sum() / union.sum()


def random_sample(rng, i):
    """A prediction and a target with all the values; now and then one of them is empty."""
    shape = (int(rng.integers(3, 40)), int(rng.integers(3, 40)))
    target = rng.choice([0, 0, 0, 1, 1, 2, 255], size=shape).astype(np.uint8)
    prediction = rng.random(shape) < 0.4
    if i % 5 == 3:
        target[:] = 0
    if i % 5 >= 3 and i % 2:
        prediction[:] = False
    return prediction, target


def as_sample(target):
    twice, ignore = target == 2, target == 255
    return Sample(
        "s", "s.jpg", "?", "all", (target == 1) | twice, (), (), ignore=ignore, overlap_mask=twice
    )


@pytest.mark.parametrize(
    "rules", [LISA, SEG_ZERO, VISIONREASONER, REASONSEG_X], ids=lambda rules: rules.name
)
def test_every_protocol_agrees_with_a_straightforward_version(rules):
    rng = np.random.default_rng(5)
    overlaps, pairs = [], []
    for i in range(60):
        prediction, target = random_sample(rng, i)
        known = truth(as_sample(target), rules)
        shared = overlap(prediction, known.mask, known.ignore)
        assert shared == Overlap(*(int(v) for v in straightforward(prediction, target, rules)))
        runs = rle_runs(encode_rle(prediction), prediction.shape, "here")
        assert overlap_spans(spans.from_runs(runs), known) == shared
        overlaps.append(shared)
        pairs.append((shared.intersection, shared.union))
    assert Overlap(0, 0) in overlaps
    found = giou(overlaps, rules), ciou(overlaps, rules)
    assert found == pytest.approx(official(pairs, rules), abs=1e-12)


# The target is 4 pixels, 2 more are ignored, 2 of the 4 lie in two annotations.
TARGET = np.array([[1, 1, 2, 2, 255, 255, 0, 0]], dtype=np.uint8)


@pytest.mark.parametrize(
    ("rules", "pixels", "expected"),
    [
        (LISA, [0, 1], Overlap(2, 2)),  # the value 2 is no target
        (LISA, [0, 1, 2, 3], Overlap(2, 4)),  # and yet costs where it is predicted
        (LISA, [0, 1, 4, 5], Overlap(2, 2)),  # ignored pixels cost nothing
        (SEG_ZERO, [0, 1, 2, 3], Overlap(4, 6)),  # ignored pixels are target
        (SEG_ZERO, [0, 1, 2, 3, 4, 5], Overlap(6, 6)),
        (REASONSEG_X, [], Overlap(0, 6)),
        (SCENES, [0, 1, 2, 3, 4], Overlap(4, 4)),
    ],
)
def test_pixels_on_which_the_protocols_differ(rules, pixels, expected):
    prediction = np.zeros(TARGET.shape, dtype=np.bool_)
    prediction[0, pixels] = True
    known = truth(as_sample(TARGET), rules)
    assert overlap(prediction, known.mask, known.ignore) == expected


def test_two_empty_masks_score_by_the_protocol():
    nothing = Overlap(0, 0)
    assert iou(nothing, LISA) == 1.0
    assert iou(nothing, VISIONREASONER) == 0.0
    assert iou(nothing, REASONSEG_X) == 1.0
    assert skips(nothing, SEG_ZERO)
    assert not skips(Overlap(0, 1), SEG_ZERO)
    with pytest.raises(BadInput, match="seg-zero has no IoU of two empty masks"):
        iou(nothing, SEG_ZERO)
    assert giou([nothing, Overlap(1, 4)], SEG_ZERO) == 0.25  # the mean of one


def test_a_failed_reply_costs_what_there_was_to_find():
    assert iou(Overlap(0, 400), SEG_ZERO) == 0.0
    assert ciou([Overlap(0, 400), Overlap(100, 100)], SEG_ZERO) == 0.2


def test_the_epsilons_of_lisa_are_there():
    assert iou(Overlap(1, 1), LISA) == 1 / (1 + 1e-5)
    assert giou([Overlap(1, 1)], LISA) == 1 / (1 + 1e-5) / (1 + 1e-5)
    assert ciou([Overlap(0, 0)], LISA) == 0.0


def test_masks_of_other_sizes_are_refused():
    with pytest.raises(BadInput, match=r"\(4, 5\).*\(5, 4\)"):
        overlap(EMPTY, EMPTY.T)


def test_giou_is_the_mean_and_ciou_the_ratio_of_sums():
    overlaps = [Overlap(1, 2), Overlap(30, 40), Overlap(0, 0)]
    assert giou(overlaps) == pytest.approx((0.5 + 0.75 + 1.0) / 3, abs=1e-15)
    assert ciou(overlaps) == pytest.approx(31 / 42, abs=1e-15)


def test_ciou_of_nothing_but_right_no_answers_is_one():
    assert ciou([Overlap(0, 0)]) == 1.0


def test_no_samples_have_no_score():
    with pytest.raises(BadInput, match="at least one value"):
        iou_numbers([], SCENES)


def test_giou_is_none_where_the_protocol_skips_every_sample():
    numbers = iou_numbers([Overlap(0, 0)], SEG_ZERO)
    assert (numbers["n"], numbers["skipped"], numbers["giou"]) == (1, 1, None)


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
