"""`grid`: the bands that the MLLM is shown, and the bands that it names."""

import json

import numpy as np
import pytest

from rsvp.drawing import grid_prompt
from rsvp.errors import BadInput, UnparsableReply
from rsvp.frames import Frame
from rsvp.strategies import Strategy
from rsvp.strategies.grid import GridStrategy
from rsvp.types import Image


def image_of(height, width):
    return Image(np.full((height, width, 3), 77, dtype=np.uint8), "0" * 64)


def answer(*targets, steps=(), reason="because"):
    named = [{"label": label, "rows": rows, "columns": columns} for label, rows, columns in targets]
    return json.dumps({"steps": list(steps), "targets": named, "reason": reason})


def read(text, image=None, argument=None, **options):
    image = image or image_of(900, 450)
    strategy = GridStrategy(argument, **options)
    return strategy.read(text, image, strategy.view(image), Frame("0-1000"))


def test_it_is_a_strategy():
    assert isinstance(GridStrategy(), Strategy)
    assert GridStrategy().name == "grid"


@pytest.mark.parametrize(
    ("argument", "grid"),
    [(None, (9, 9)), ("9x9", (9, 9)), ("6x10", (6, 10)), (" 3 X 4 ", (3, 4)), ("1×50", (1, 50))],
)
def test_the_argument_names_the_grid(argument, grid):
    assert GridStrategy(argument).grid == grid


@pytest.mark.parametrize("argument", ["", "9", "9x", "0x9", "9x51", "-1x3", "9x9x9", "axb", "٣x٣"])
def test_other_arguments_are_refused(argument):
    with pytest.raises(BadInput, match="MxN") as caught:
        GridStrategy(argument)
    assert repr(argument) in str(caught.value)


@pytest.mark.parametrize("options", [{"padding": -0.1}, {"padding": float("nan")}, {"max_side": 0}])
def test_options_are_checked(options):
    with pytest.raises(BadInput):
        GridStrategy(**options)


def test_the_view_shows_the_bands():
    image = image_of(90, 180)
    view = GridStrategy("3x6").view(image)
    np.testing.assert_array_equal(view.rgb, grid_prompt(image.rgb, (3, 6)))
    assert view.variables == {"width": "180", "height": "90", "rows": "3", "columns": "6"}
    assert (image.rgb == 77).all()


def test_the_bands_are_drawn_after_shrinking():
    view = GridStrategy(max_side=300).view(image_of(1000, 3000))
    np.testing.assert_array_equal(view.rgb, grid_prompt(image_of(100, 300).rgb, (9, 9)))


@pytest.mark.parametrize("cot", [True, False])
def test_the_schema(cot):
    schema = GridStrategy().schema(cot)
    assert list(schema["properties"]) == (["steps"] if cot else []) + ["targets", "reason"]
    numbers = {"type": "array", "items": {"type": "integer"}}
    target = schema["properties"]["targets"]["items"]
    assert target["properties"] == {
        "label": {"type": "string"},
        "rows": numbers,
        "columns": numbers,
    }
    assert target["required"] == ["label", "rows", "columns"]
    assert target["additionalProperties"] is False


def test_bands_become_a_padded_box():
    # 900 x 450 in 9 x 9: bands 100 high and 50 wide. Rows 4-5 and column 3 span (100, 300) to
    # (150, 500), 50 x 200; a fifth of that on each side is 10 and 40.
    text = answer(("cup", [4, 5], [3]))
    reasoning = read(text)
    (proposal,) = reasoning.proposals
    assert proposal.box.xyxy == pytest.approx((90, 260, 160, 540))
    assert proposal.raw == (4, 5, 3)
    assert reasoning.raw == text
    bare = read(text, padding=0).proposals[0]
    assert bare.box.xyxy == pytest.approx((100, 300, 150, 500))


def test_padding_stops_at_the_edge():
    box = read(answer(("cup", [1, 9], [8, 9]))).proposals[0].box
    assert box.xyxy == pytest.approx((330, 0, 450, 900))


def test_a_grid_that_is_not_square_on_an_image_that_was_shrunk():
    text = answer(("cup", [2], [4, 3]))
    box = read(text, image_of(3000, 6000), "3x6", padding=0).proposals[0].box
    assert box.xyxy == pytest.approx((2000, 1000, 4000, 2000))


def test_steps_show_the_unpadded_region_that_they_name():
    steps = [
        {"text": "Think.", "rows": [], "columns": []},
        {"text": "Look.", "rows": [1], "columns": [1, 2]},
        {"text": "Nowhere.", "rows": [10], "columns": [1]},
    ]
    reasoning = read(answer(("cup", [1], [1]), steps=steps))
    assert [step.text for step in reasoning.steps] == ["Think.", "Look.", "Nowhere."]
    assert [len(step.boxes) for step in reasoning.steps] == [0, 1, 0]
    assert reasoning.steps[1].boxes[0].xyxy == pytest.approx((0, 0, 100, 100))


def test_every_target_is_a_proposal_of_its_own():
    reasoning = read(answer(("cup", [1], [1]), ("cup", [1], [1]), ("mug", [2], [1])))
    assert [p.label for p in reasoning.proposals] == ["cup", "cup", "mug"]


def test_an_empty_list_means_absent():
    reasoning = read(answer(reason="No cup here."))
    assert reasoning.no_target
    assert reasoning.reason == "No cup here."


@pytest.mark.parametrize(
    ("rows", "columns"), [([0], [1]), ([10], [1]), ([1], [9, 10]), ([], [1]), ([1], []), ([], [])]
)
def test_bands_outside_the_grid_spoil_the_reply(rows, columns):
    text = answer(("cup", [1], [1]), ("mug", rows, columns))
    with pytest.raises(UnparsableReply) as caught:
        read(text)
    assert caught.value.raw == text
    assert "\n" not in str(caught.value)
