"""Boxes, points and queries: checked once, before anything runs."""

from __future__ import annotations

import pytest
from scripted import Recorder, answer, picture, pipeline

from rsvp.errors import BadInput
from rsvp.pipeline import Pipeline
from rsvp.types import Box, Point, Usage

# ------------------------------------------------------------ given boxes and points


def test_with_boxes_nobody_is_asked() -> None:
    pipe = pipeline(AssertionError("the MLLM was asked"))
    result = pipe.segment(picture(), "cup", boxes=[(10, 10, 20, 30), Box(50, 5, 300, 40)])
    assert [t.box for t in result.targets] == [Box(10, 10, 20, 30), Box(50, 5, 200, 40)]
    assert [t.label for t in result.targets] == ["cup", "cup"]
    assert result.models.mllm is None
    assert result.models.prompt_sha256 is None
    assert result.shown is None
    assert result.usage == Usage()
    assert len(pipe.segmenter.prompted) == 1  # all in one batch


def test_all_points_are_one_target_with_the_masks_own_box() -> None:
    pipe = Pipeline(None, None, Recorder())
    result = pipe.segment(picture(), points=[(10, 20), (30, 40, 1), Point(5, 5, positive=False)])
    (target,) = result.targets
    ((proposal,),) = pipe.segmenter.prompted
    assert [p.positive for p in proposal.points] == [True, True, False]
    assert target.box == Box(5, 5, 31, 41)


def test_points_refine_the_one_box() -> None:
    pipe = Pipeline(None, None, Recorder())
    result = pipe.segment(picture(), boxes=[(1, 1, 9, 9)], points=[(3, 3, 0)])
    assert result.targets[0].box == Box(1, 1, 9, 9)
    assert pipe.segmenter.prompted[0][0].points == (Point(3, 3, positive=False),)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"boxes": []}, "empty"),
        ({"points": []}, "empty"),
        ({"boxes": [(1, 2, 3)]}, "X0,Y0,X1,Y1"),
        ({"boxes": ["abcd"]}, "X0,Y0,X1,Y1"),
        ({"boxes": [None]}, "X0,Y0,X1,Y1"),
        ({"boxes": [(float("nan"), 0, 1, 1)]}, "finite"),
        ({"boxes": [(5, 5, 1, 9)]}, "x0 < x1"),
        ({"boxes": [(200, 0, 300, 50)]}, "outside the image of 200x100"),
        ({"boxes": [(-9, -9, 0, 0)]}, "outside the image"),
        ({"points": [(200, 5)]}, "outside the image"),
        ({"points": [(1, float("inf"))]}, "finite"),
        ({"points": [(1, 2, 7)]}, "1 or 0"),
        ({"points": [(1, 2, 0)]}, "not this"),
        ({"boxes": [(1, 1, 5, 5), (6, 6, 9, 9)], "points": [(2, 2)]}, "one box"),
        ({}, "without an MLLM"),
    ],
)
def test_regions_that_cannot_be_used(given, message) -> None:
    with pytest.raises(BadInput, match=message) as error:
        Pipeline(None, None, Recorder()).segment(picture(), "cup", **given)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("query", ["", " \n\t", None, 7])
def test_an_empty_query_is_refused(query) -> None:
    pipe = pipeline(answer((0, 0, 9, 9)))
    with pytest.raises(BadInput, match="query"):
        pipe.segment(picture(), query)
    assert pipe.mllm.asked == []
