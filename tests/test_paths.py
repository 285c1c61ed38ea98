"""Reasoning paths: what is read from a reply, and which objects are the same one."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted import picture

from rsvp.errors import UnparsableReply
from rsvp.frames import Frame
from rsvp.images import load_image
from rsvp.parsing import RawTarget, parse_path
from rsvp.parsing.mentions import numbered, pieces, written_number
from rsvp.strategies.boxes import BoxesStrategy
from rsvp.strategies.paths import ObjectList, PlacedObject
from rsvp.types import Box, Mention, Point, Proposal

DOG = {"label": "dog", "box": [10, 20, 30, 40]}
CUP = {"label": "cup", "box": [50, 20, 70, 40]}


def reply(*steps: Any, answer: Any = "dog", objects: Any = (DOG,), **more: Any) -> str:
    path = [{"text": text, "objects": named} for text, named in steps]
    return json.dumps({"path": path, "answer": answer, "answer_objects": list(objects), **more})


WHOLE = reply(("the dog is there", [DOG]), ("right of it is the cup", [CUP]))


def labels(text: str, expect: Any = "box") -> list[list[str]]:
    found = parse_path(text, expect=expect)
    return [[o.label for o in step.objects] for step in found.steps]


# ------------------------------------------------------------ reading


def test_steps_with_objects_and_the_answer() -> None:
    found = parse_path(WHOLE, expect="box")
    assert [step.text for step in found.steps] == ["the dog is there", "right of it is the cup"]
    assert found.steps[1].objects == (RawTarget("cup", box=(50, 20, 70, 40)),)
    assert (found.answer, found.targets) == ("dog", (RawTarget("dog", box=(10, 20, 30, 40)),))


@pytest.mark.parametrize(
    ("expect", "region"),
    [
        ("points", {"point": [3, 4]}), ("points", {"points": [[3, 4]], "not": []}),
        ("bands", {"rows": [3], "columns": [4]}), ("marks", {"marks": [3]}),
        ("box", {"bbox_2d": [1, 2, 3, 4]}), ("box", {"xmin": 1, "ymin": 2, "xmax": 3, "ymax": 4}),
    ],
)  # fmt: skip
def test_places_of_every_strategy(expect: Any, region: dict[str, Any]) -> None:
    one = {"label": "dog", **region}
    found = parse_path(reply(("dog", [one]), objects=[one]), expect=expect)
    assert found.targets[0].has_region
    assert found.steps[0].objects == found.targets


@pytest.mark.parametrize(
    "wrapped",
    [
        f"Sure, here it is:\n```json\n{WHOLE}\n```",
        f"<think>maybe {WHOLE.replace('dog', 'cow')}</think>{WHOLE}",
        f'{{"result": {WHOLE}}}',
        f"[{WHOLE}]",
        json.dumps(WHOLE),
        WHOLE.replace('"path"', '"steps"'),
        f"{WHOLE.replace('dog', 'cow')}\nWait, correction:\n{WHOLE}",
    ],
)
def test_a_path_is_found_as_an_answer_is(wrapped: str) -> None:
    assert labels(wrapped) == [["dog"], ["cup"]]


@pytest.mark.parametrize(
    "no_place",
    ["bird", {"label": "bird"}, {"label": "bird", "box": []}, {"label": "bird", "box": None},
     {"label": "bird", "box": [1, 2]}, {"label": "bird", "box": "unknown"}],
)  # fmt: skip
def test_an_object_without_a_place_stays(no_place: Any) -> None:
    (step,) = parse_path(reply(("x", [DOG, no_place])), expect="box").steps
    assert step.objects[1:] == (RawTarget("bird"),)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "empty"),
        ("The dog is left of the cup.", "no JSON"),
        ('{"targets": [{"label": "dog", "box": [1, 2, 3, 4]}], "reason": "it is"}', "no JSON"),
        ('{"path": [{"text": "x"}], "answer": "dog"}', 'no "answer_objects"'),
        (WHOLE[: WHOLE.index('"answer"')], 'was cut off: it has no "answer_objects"'),
        (WHOLE[:-4], "before its first complete answer object"),
        (f"{WHOLE}\n{WHOLE.replace('dog', 'cow')}", "differ"),
        (f"For example: {WHOLE}", "only an example"),
        (reply(("x", [DOG] * 1001)), "more than 1000"),
    ],
)  # fmt: skip
def test_what_is_no_path(text: str, problem: str) -> None:
    with pytest.raises(UnparsableReply, match=problem):
        parse_path(text, expect="box")


def test_no_such_object_is_an_answer_and_not_understood_is_another() -> None:
    none = parse_path(reply(("dog", [DOG]), answer="none", objects=()), expect="box")
    assert (none.answer, none.targets, none.understood) == ("none", (), True)
    strange = parse_path('{"targets":[],"understood":false,"reason":"no"}', expect="box")
    assert (strange.understood, strange.reason) == (False, "no")


def test_the_number_of_a_step_is_no_mark() -> None:
    text = '{"path":[{"id":3,"text":"x"}],"answer":"a","answer_objects":[{"label":"a","id":4}]}'
    found = parse_path(text, expect="marks")
    assert found.steps[0].objects == ()
    assert found.targets == (RawTarget("a", marks=(4,)),)


def test_an_answer_object_may_be_an_id_alone() -> None:
    found = parse_path(reply(("x", [{"id": 7, **DOG}]), objects=[7]), expect="box")
    assert [o.id for o in (*found.steps[0].objects, *found.targets)] == [7, 7]


@settings(max_examples=60)
@given(st.data())
def test_damaged_replies_raise_nothing_else(data: st.DataObject) -> None:
    start, end = (data.draw(st.integers(0, len(WHOLE))) for _ in range(2))
    noise = data.draw(st.text(max_size=20))
    for expect in ("box", "points", "bands", "marks"):
        with contextlib.suppress(UnparsableReply):
            found = parse_path(WHOLE[:start] + noise + WHOLE[end:], expect=expect)  # type: ignore[arg-type]
            assert found.answer or found.targets or not found.understood or not found.steps


# ------------------------------------------------------------ the same object


def box(x: float, label: str = "dog", id: int | None = None) -> PlacedObject:
    return PlacedObject(label, id, Proposal(label, Box(x, 0, x + 100, 100)))


def point(x: float) -> PlacedObject:
    return PlacedObject("dog", None, Proposal("dog", points=(Point(x, 5),)))


@pytest.mark.parametrize(
    ("first", "second", "number", "warning"),
    [
        (box(0), box(10), 1, ""),  # the model's own small error
        (box(0), box(60), 2, ""),
        (box(0), box(0, "the  Dog"), 1, ""),
        (box(0), box(0, "cat"), 2, "'cat' and 'dog' (object 1) are in the same place"),
        (box(0), PlacedObject("dog"), 1, ""),
        (box(0), PlacedObject("cat"), None, "no usable place for 'cat': not grounded"),
        (box(0, id=4), PlacedObject("", 4), 1, ""),
        (box(0, id=4), box(5, id=4), 1, ""),
        (box(0, id=4), box(300, id=4), 1, "object 1 ('dog') is in another place"),
        (box(0, id=4), box(0, "cat", id=4), 1, "object 1 is called 'cat' and 'dog'"),
        (box(0, id=4), box(300, "cat", id=4), 2, "the number 4 is given to 'cat' and 'dog'"),
        (box(0, id=4), box(0, id=5), 1, ""),
        (point(0), point(19), 1, ""),
        (point(0), point(21), 2, ""),
    ],
)
def test_which_mentions_are_one_object(first, second, number, warning) -> None:
    objects = ObjectList(side=1000)
    assert objects.add("step 1", "", [first])[0].number == 1
    assert objects.add("step 2", "", [second])[0].number == number
    assert objects.warnings == ([f"step 2: {warning}"] if warning else [])


def test_two_of_one_label_are_not_told_apart_by_it() -> None:
    objects = ObjectList(side=1000)
    objects.add("step 1", "", [box(0), box(500)])
    assert objects.add("step 2", "", [PlacedObject("dog")]) == (Mention("dog", None),)


def test_a_number_in_the_text_that_is_not_the_objects() -> None:
    objects = ObjectList(side=1000)
    objects.add("step 1", "the dog (2) barks", [box(0, id=1)])
    assert objects.warnings == ["step 1: the text calls 'dog' 2, its object 1"]
    assert written_number("the dog [12].", "dog") == 12


def test_a_place_that_cannot_be_used_is_not_grounded_but_all_of_them_are_asked_again() -> None:
    image, strategy = load_image(picture()), BoxesStrategy()
    view, frame = strategy.view(image), Frame.parse("0-1000")
    far = {"label": "bird", "box": [5000, 5000, 6000, 6000]}
    found = strategy.read_path(reply(("x", [DOG, far])), image, view, frame)
    assert found.steps[0].objects == (Mention("dog", 1), Mention("bird", None))
    assert found.warnings == ("step 1: no usable place for 'bird': not grounded",)
    with pytest.raises(UnparsableReply):
        strategy.read_path(reply(("x", [far]), objects=[far]), image, view, frame)


def test_an_answer_that_no_step_mentions() -> None:
    image, strategy = load_image(picture()), BoxesStrategy()
    found = strategy.read_path(
        reply(("x", [DOG]), objects=[CUP]), image, strategy.view(image), Frame.parse("0-1000")
    )
    assert found.warnings == ("the answer: no step mentions object 2 ('cup')",)


# ------------------------------------------------------------ numbers in the text


@pytest.mark.parametrize(
    ("text", "named", "expected"),
    [
        ("the dog is there", [("dog", 1)], "the dog [1] is there"),
        ("The Dog", [("dog", 1)], "The Dog [1]"),
        ("hotdogs and a dog", [("dog", 2)], "hotdogs and a dog [2]"),
        ("dog and dog house", [("dog", 1), ("dog house", 2)], "dog [1] and dog house [2]"),
        ("two mugs: mug, mug", [("mug", 1), ("mug", 2)], "two mugs: mug [1], mug [2]"),
        ("a bird", [("bird", None)], "a bird [?]"),
        ("it is bigger", [("dog", 3)], "it is bigger (dog [3])"),
        ("狗在左边", [("狗", 1)], "狗 [1]在左边"),
        ("", [("", 4)], "[4]"),
    ],
)
def test_labels_carry_their_numbers(text, named, expected) -> None:
    mentions = [Mention(label, number) for label, number in named]
    assert numbered(text, mentions) == expected
    assert "".join(piece for piece, _ in pieces(text, mentions)) == text


def test_long_texts_are_numbered_at_once() -> None:
    mentions = [Mention(f"{'x' * 500} {n}", n) for n in range(1, 200)]
    assert numbered("x" * 100_000, mentions).count("[") == 199
