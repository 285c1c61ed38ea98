"""Hints: shown to the MLLM, explained in words, and applied to whatever it answers."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from scripted import answer, picture, pipeline, texts

from rsvp.errors import BadInput
from rsvp.hints import hint_prompts
from rsvp.postprocess import restrict_proposals
from rsvp.request import Hint, make_request
from rsvp.types import Box, Image, PackedMask, Point, Proposal

IMAGE = Image(picture(), "0" * 64)
LEFT = (0, 0, 100, 100)
# Of the picture's 200 x 100 pixels, in 0-1000.
INSIDE, OUTSIDE, ACROSS = (100, 200, 400, 800), (600, 200, 900, 800), (300, 200, 700, 800)


def test_the_model_is_shown_the_hint_in_words_and_picture():
    pipe = pipeline(answer(INSIDE))
    plain = pipeline(answer(INSIDE))
    result = pipe.segment(picture(), "cup", within=LEFT, exclude=[(150, 50)])
    plain.segment(picture(), "cup")
    text = texts(pipe.mllm.asked[0])[-1]
    assert text.index("magenta frame") < text.index("red crosses") < text.index("=== query")
    assert text.endswith(texts(plain.mllm.asked[0])[-1])
    shown, seen = (p.mllm.asked[0][-1].parts[0] for p in (pipe, plain))
    np.testing.assert_array_equal(shown[:, :100], seen[:, :100])
    assert shown[:, 110:140].mean() < 0.6 * seen[:, 110:140].mean()
    assert (shown[48:53, 148:153] != seen[48:53, 148:153]).any()
    assert result.models.prompt_sha256 != plain.segment(picture(), "cup").models.prompt_sha256
    assert len(result.targets) == 1
    assert result.warnings == ()


def test_what_lies_outside_is_left_out_and_what_hangs_over_is_cut():
    pipe = pipeline(answer(INSIDE, OUTSIDE, ACROSS))
    result = pipe.segment(picture(), "cups", within=LEFT)
    assert [t.label for t in result.targets] == ["thing 0", "thing 2"]
    assert result.targets[1].box == Box(60, 20, 100, 80)
    assert not result.mask[:, 100:].any()
    assert any("1 of 3 targets" in warning for warning in result.warnings)


def test_an_excluded_thing_is_no_target():
    result = pipeline(answer(INSIDE, OUTSIDE)).segment(picture(), "cups", exclude=[(150, 50)])
    assert [t.label for t in result.targets] == ["thing 0"]
    result = pipeline(answer(OUTSIDE)).segment(picture(), "cups", exclude=[(150, 50)])
    assert result.no_target


def test_hints_reach_the_awaitable_twin():
    result = asyncio.run(pipeline(answer(OUTSIDE)).asegment(picture(), "cup", within=LEFT))
    assert result.no_target


def test_a_model_without_hint_prompts_is_shown_none_and_the_hint_is_applied():
    pipe = pipeline(answer((60, 20, 90, 80)), model="embedded")
    result = pipe.segment(picture(), "cup", within=LEFT)
    assert texts(pipe.mllm.asked[0]) == ["Think, then box: cup"]
    np.testing.assert_array_equal(pipe.mllm.asked[0][-1].parts[0], picture())
    assert result.no_target


@pytest.mark.parametrize("given", [{"boxes": [LEFT]}, {"points": [(5, 5)]}])
def test_hints_beside_targets_are_refused(given):
    with pytest.raises(BadInput, match="leave out within, exclude and like"):
        pipeline("").segment(picture(), "cup", **given, within=LEFT)


@pytest.mark.parametrize(
    "wrong",
    [{"within": (300, 0, 400, 50)}, {"within": (1, 2, 3)}, {"exclude": [(500, 5)]}],
)
def test_a_hint_is_checked_before_anything_is_asked(wrong):
    pipe = pipeline("")
    with pytest.raises(BadInput):
        pipe.segment(picture(), "cup", **wrong)
    assert pipe.mllm.asked == []


def test_points_outside_the_box_say_what_is_not_meant():
    hint = Hint(Box(*LEFT))
    both = Proposal("cup", points=(Point(50, 50), Point(150, 50)))
    (kept,) = restrict_proposals(hint, [both, Proposal("far", points=(Point(150, 50),))])
    assert [point.positive for point in kept.points] == [True, False]


def test_a_ready_mask_is_cut_and_an_empty_one_left_out():
    mask = np.zeros((100, 200), dtype=bool)
    mask[20:80, 60:140] = True
    box = Box(60, 20, 140, 80)
    (kept,) = restrict_proposals(
        Hint(Box(*LEFT)), [Proposal("", box, mask=PackedMask.pack(mask), score=0.5)]
    )
    assert kept.mask is not None
    assert kept.mask.area == 60 * 40
    bare = Proposal("", box, mask=PackedMask.pack(np.zeros_like(mask)), score=0.5)
    assert restrict_proposals(Hint(Box(*LEFT)), [bare]) == ()


def test_no_hint_is_false_and_changes_nothing():
    assert not Hint()
    assert not make_request(IMAGE, "cup").hint
    assert hint_prompts(Hint(), "full") == ()
    proposals = (Proposal("", Box(0, 0, 5, 5)),)
    assert restrict_proposals(Hint(), proposals) == proposals
