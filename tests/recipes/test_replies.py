from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rsvp.embedded.replies import percent, reply
from rsvp.embedded.scenes import scenes
from rsvp.frames import Frame
from rsvp.masks import box_iou
from rsvp.parsing import parse_reply
from rsvp.strategies import View
from rsvp.strategies.boxes import BoxesStrategy
from rsvp.strategies.grid import GridStrategy
from rsvp.types import Box, Image


@pytest.fixture(scope="module")
def made():
    return list(scenes(27, 99, count=3, size=160))


@pytest.mark.parametrize("cot", [True, False])
@pytest.mark.parametrize("strategy", ["boxes", "grid"])
def test_true_replies_read_back_to_the_truth(made, strategy: str, cot: bool) -> None:
    reader = {"boxes": BoxesStrategy(), "grid": GridStrategy(padding=0.0)}[strategy]
    for scene in made:
        image = Image(scene.rgb, sha256="")
        view = View(scene.rgb, {})
        for query in scene.queries:
            text = reply(query, scene.objects, (160, 160), strategy, cot=cot)
            reasoning = reader.read(text, image, view, Frame("percent"))
            assert [p.label for p in reasoning.proposals] == [
                scene.objects[i].thing.name for i in query.targets
            ]
            for i, proposal in zip(query.targets, reasoning.proposals, strict=True):
                assert proposal.box is not None
                iou = box_iou(proposal.box, Box(*map(float, scene.objects[i].box)))
                assert iou > (0.75 if strategy == "boxes" else 0.2)
            if cot:
                named = [b for s in reasoning.steps for b in s.boxes]
                assert len(named) == len(query.reasoning)
            else:
                assert not reasoning.steps


def test_marks_are_named_by_their_numbers(made) -> None:
    for scene in made:
        marks = {i: 7 + 5 * i for i in range(len(scene.objects))}
        for query in scene.queries:
            text = reply(query, scene.objects, (160, 160), "marks", cot=True, marks=marks)
            parsed = parse_reply(text, expect="marks")
            assert [t.marks for t in parsed.targets] == [(marks[i],) for i in query.targets]
            assert len(parsed.steps) == len(query.reasoning) + 2


def test_an_object_without_a_mark_is_there_all_the_same(made) -> None:
    scene, query = next((s, q) for s in made for q in s.queries if len(set(q.reasoning)) > 1)
    marks = {query.reasoning[0]: 3}
    bare = replace(query, targets=(query.reasoning[0],))
    text = reply(bare, scene.objects, (160, 160), "marks", cot=True, marks=marks)
    assert text.count('is there","marks":[3]}') == 1
    assert text.count('is there","marks":[]}') == len(query.reasoning) - 1


def test_absence_is_said(made) -> None:
    absent = [(s, q) for s in made for q in s.queries if not q.targets]
    assert absent
    for scene, query in absent:
        parsed = parse_reply(
            reply(query, scene.objects, (160, 160), "boxes", cot=True), expect="box"
        )
        assert parsed.targets == ()
        assert parsed.reason


def test_percent_is_of_width_and_height() -> None:
    assert percent((32, 10, 64, 50), (100, 320)) == [10, 10, 20, 50]
    assert np.all(np.array(percent((0, 0, 320, 100), (100, 320))) == [0, 0, 100, 100])
