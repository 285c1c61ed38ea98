"""Candidates are checked at construction; NMS and thresholds drop only what they should."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsvp.detectors import Candidates
from rsvp.errors import BadInput
from rsvp.masks import box_iou_matrix
from rsvp.types import PackedMask

BOXES = np.array([[0, 0, 10, 10], [1, 0, 10, 10], [20, 20, 30, 40], [0, 0, 10, 10]], np.float32)
SCORES = np.array([0.5, 0.9, 0.3, 0.9], np.float32)
FOUND = Candidates(BOXES, SCORES, ("cup", "cup", "dog", "mug"))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"boxes": BOXES[:, :3]}, r"boxes are \(4, 4\) float32, found \(4, 3\)"),
        ({"boxes": BOXES.astype(np.float64)}, "found .* float64"),
        ({"boxes": BOXES[:, [2, 1, 0, 3]]}, "x0 < x1"),
        ({"boxes": np.full((4, 4), np.nan, np.float32)}, "not finite"),
        ({"scores": SCORES[:3]}, r"scores are \(4,\) float32, found \(3,\)"),
        ({"scores": SCORES * 2}, "0 to 1"),
        ({"phrases": ("cup",)}, "4 boxes need as many phrases, found 1"),
        ({"masks": (PackedMask.pack(np.ones((5, 5), bool)),) * 3}, "as many masks, found 3"),
    ],
)
def test_contradictions_are_refused(change, complaint: str) -> None:
    parts = {"boxes": BOXES, "scores": SCORES, "phrases": FOUND.phrases, **change}
    with pytest.raises(BadInput, match=complaint):
        Candidates(**parts)


def test_nothing_found_is_a_value() -> None:
    for kept in (Candidates.none(), Candidates.none().nms(0.5), Candidates.none().at_least(0.5)):
        assert len(kept) == 0
        assert kept.phrases == ()


def test_rows_keep_what_belongs_to_them() -> None:
    masks = tuple(PackedMask.pack(np.arange(4).reshape(2, 2) == n) for n in range(4))
    chosen = Candidates(BOXES, SCORES, FOUND.phrases, masks).take([2, 0])
    assert chosen.phrases == ("dog", "cup")
    assert chosen.scores.tolist() == SCORES[[2, 0]].tolist()
    assert chosen.masks is not None
    assert chosen.masks == (masks[2], masks[0])


def test_nms_keeps_the_best() -> None:
    assert FOUND.nms(0.8).phrases == ("cup", "dog")  # row 1 wins over 0 and, being first, over 3
    assert FOUND.nms(0.95).scores.tolist() == SCORES[[1, 3, 2]].tolist()
    assert FOUND.nms(0.8, per_phrase=True).phrases == ("cup", "mug", "dog")


def test_both_filters_can_be_disabled() -> None:
    assert FOUND.nms(None) is FOUND
    assert FOUND.at_least(None) is FOUND
    assert FOUND.at_least(0.5).phrases == ("cup", "cup", "mug")


@given(st.integers(0, 30), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_what_is_left_does_not_overlap_and_covers_the_rest(n: int, iou: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    low = random.uniform(0, 20, (n, 2))
    boxes = np.hstack([low, low + random.uniform(1, 20, (n, 2))]).astype(np.float32)
    found = Candidates(boxes, random.random(n).astype(np.float32), ("",) * n)
    kept = found.nms(iou)
    among = box_iou_matrix(kept.boxes, kept.boxes) - np.eye(len(kept))
    assert (among <= iou).all()
    assert (np.diff(kept.scores) <= 0).all()
    covered = box_iou_matrix(found.boxes, kept.boxes) > iou
    stayed = (found.boxes[:, None] == kept.boxes[None]).all(axis=2)
    assert (covered | stayed).any(axis=1).all()
