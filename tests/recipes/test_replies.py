from __future__ import annotations

from dataclasses import replace

import pytest

from recipes.embedded.replies import box_percent, reply_pieces
from rsvp.embedded.scenes import scenes
from rsvp.frames import Frame
from rsvp.masks import box_iou
from rsvp.parsing import parse_reply
from rsvp.strategies import View
from rsvp.strategies.boxes import BoxesStrategy
from rsvp.strategies.grid import GridStrategy
from rsvp.types import Box, Image


@pytest.fixture(scope="module")
def rendered():
    return list(scenes(27, 99, count=3, size=160))


def reply_text(query, scene, strategy, *, cot=True, marks=None):
    pieces = reply_pieces(query, scene.objects, (160, 160), strategy, cot=cot, marks=marks)
    return "".join(text for text, _ in pieces)


@pytest.mark.parametrize("cot", [True, False])
@pytest.mark.parametrize("strategy", ["boxes", "grid"])
def test_true_replies_parse_to_the_truth(rendered, strategy: str, cot: bool) -> None:
    reader = {"boxes": BoxesStrategy(), "grid": GridStrategy(padding=0.0)}[strategy]
    for scene in rendered:
        image = Image(scene.rgb, sha256="")
        view = View(scene.rgb, {})
        for query in scene.queries:
            text = reply_text(query, scene, strategy, cot=cot)
            reasoning = reader.read(text, image, view, Frame("percent"))
            assert [p.label for p in reasoning.proposals] == [
                scene.objects[i].category.name for i in query.targets
            ]
            for i, proposal in zip(query.targets, reasoning.proposals, strict=True):
                assert proposal.box is not None
                iou = box_iou(proposal.box, scene.objects[i].box)
                assert iou > (0.75 if strategy == "boxes" else 0.2)
            if cot:
                named = [b for s in reasoning.steps for b in s.boxes]
                assert len(named) == len(query.reasoning)
            else:
                assert not reasoning.steps


def test_objects_are_named_by_the_numbers_of_their_marks(rendered) -> None:
    for scene in rendered:
        marks = {i: 7 + 5 * i for i in range(len(scene.objects))}
        for query in scene.queries:
            text = reply_text(query, scene, "marks", marks=marks)
            parsed = parse_reply(text, expect="marks")
            assert [t.marks for t in parsed.targets] == [(marks[i],) for i in query.targets]
            assert len(parsed.steps) == len(query.reasoning) + 2


def test_an_object_without_a_mark_has_an_empty_list(rendered) -> None:
    scene, query = next((s, q) for s in rendered for q in s.queries if len(set(q.reasoning)) > 1)
    marks = {query.reasoning[0]: 3}
    bare = replace(query, targets=(query.reasoning[0],))
    text = reply_text(bare, scene, "marks", marks=marks)
    assert text.count('is there","marks":[3]}') == 1
    assert text.count('is there","marks":[]}') == len(query.reasoning) - 1


def test_an_absent_object_has_no_targets_but_a_reason(rendered) -> None:
    absent = [(s, q) for s in rendered for q in s.queries if not q.targets]
    assert absent
    for scene, query in absent:
        parsed = parse_reply(reply_text(query, scene, "boxes"), expect="box")
        assert parsed.targets == ()
        assert parsed.reason


def test_percent_is_of_width_and_height() -> None:
    assert box_percent(Box(32, 10, 64, 50), (100, 320)) == [10, 10, 20, 50]
    assert box_percent(Box(0, 0, 320, 100), (100, 320)) == [0, 0, 100, 100]
