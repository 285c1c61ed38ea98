"""`boxes`: what the MLLM is shown, the schema, and replies read in each frame."""

import json

import numpy as np
import pytest

from rsvp.errors import BadInput, UnparsableReply
from rsvp.frames import Frame
from rsvp.strategies import Strategy
from rsvp.strategies.boxes import BoxesStrategy
from rsvp.types import Image

THOUSAND = Frame("0-1000")


def image_of(height, width):
    return Image(np.zeros((height, width, 3), dtype=np.uint8), "0" * 64)


def answer(*targets, steps=(), reason="because"):
    named = [{"label": label, "box": list(box)} for label, box in targets]
    return json.dumps({"steps": list(steps), "targets": named, "reason": reason})


def read(text, image=None, frame=THOUSAND, **options):
    image = image or image_of(600, 1000)
    strategy = BoxesStrategy(**options)
    return strategy.read(text, image, strategy.view(image), frame)


def test_it_is_a_strategy():
    assert isinstance(BoxesStrategy(), Strategy)
    assert BoxesStrategy().name == "boxes"


@pytest.mark.parametrize("options", [{"argument": "9x9"}, {"max_side": 0}])
def test_options_are_checked(options):
    with pytest.raises(BadInput):
        BoxesStrategy(**options)


def test_the_view_is_the_image_when_it_is_small_enough():
    image = image_of(600, 1000)
    view = BoxesStrategy().view(image)
    np.testing.assert_array_equal(view.rgb, image.rgb)
    assert view.variables == {"width": "1000", "height": "600"}


@pytest.mark.parametrize(
    ("size", "expected"),
    [((3000, 2000), (1536, 1024)), ((100, 6000), (26, 1536)), ((1, 9000), (1, 1536))],
)
def test_the_view_of_a_large_image_is_shrunk(size, expected):
    view = BoxesStrategy().view(image_of(*size))
    assert view.size == view.rgb.shape[:2] == expected
    assert view.variables == {"width": str(expected[1]), "height": str(expected[0])}


def test_shrinking_keeps_what_is_where():
    rgb = np.zeros((2000, 3000, 3), dtype=np.uint8)
    rgb[:1000, 1500:] = 255
    view = BoxesStrategy(max_side=300).view(Image(rgb, "0" * 64))
    assert view.rgb[95, 155:].min() > 250
    assert view.rgb[105:].max() < 5
    assert view.rgb[:, :145].max() < 5


def objects_of(schema):
    if schema.get("type") == "object":
        yield schema
        for value in schema["properties"].values():
            yield from objects_of(value)
    elif schema.get("type") == "array":
        yield from objects_of(schema["items"])


@pytest.mark.parametrize("cot", [True, False])
def test_the_schema_is_one_that_strict_servers_accept(cot):
    schema = BoxesStrategy().schema(cot)
    assert list(schema["properties"]) == (["steps"] if cot else []) + ["targets", "reason"]
    for item in objects_of(schema):
        assert item["additionalProperties"] is False
        assert item["required"] == list(item["properties"])
    assert "prefixItems" not in json.dumps(schema)
    box = schema["properties"]["targets"]["items"]["properties"]["box"]
    assert box == {"type": "array", "items": {"type": "integer"}}


def test_fractions_are_not_asked_for_as_integers():
    def kind(frame):
        schema = BoxesStrategy().schema(False, frame)
        return schema["properties"]["targets"]["items"]["properties"]["box"]["items"]["type"]

    assert kind(Frame("0-1")) == "number"
    assert kind(Frame("percent")) == "integer"


def test_the_schema_asks_for_the_key_that_the_family_learned():
    schema = BoxesStrategy().schema(True, Frame("0-1000", box_key="bbox_2d"))
    target = schema["properties"]["targets"]["items"]["properties"]
    assert list(target) == ["label", "bbox_2d"]
    reasoning = read('{"targets": [{"label": "cup", "bbox_2d": [200, 250, 600, 750]}]}')
    assert reasoning.proposals[0].box.xyxy == pytest.approx((200, 150, 600, 450))


@pytest.mark.parametrize(("kind", "numbers"), [
    ("0-1000", (0.12, 0.3, 0.4, 0.5)), ("0-1000-yxyx", (0.3, 0.12, 0.5, 0.4)),
    ("pixels", (0.12, 0.3, 0.4, 0.5)), ("percent", (0.12, 0.3, 0.4, 0.5)),
])  # fmt: skip
def test_fractions_in_another_frame_are_read_as_such_with_a_warning(kind, numbers):
    steps = [{"text": "There.", "boxes": [[0, 0, 0.5, 0.5]]}]
    reasoning = read(answer(("cup", numbers), steps=steps), frame=Frame(kind))
    assert reasoning.proposals[0].box.xyxy == pytest.approx((120, 180, 400, 300))
    assert reasoning.proposals[0].raw == numbers
    assert reasoning.steps[0].boxes[0].xyxy == pytest.approx((0, 0, 500, 300))
    (warning,) = reasoning.warnings
    assert kind in warning
    assert "fractions of 1" in warning


def test_a_reply_in_the_frame_that_was_asked_for_has_no_warning():
    assert read(answer(("cup", (120, 300, 400, 500)))).warnings == ()
    assert read(answer(("cup", (0.12, 0.3, 0.4, 0.5))), frame=Frame("0-1")).warnings == ()


@pytest.mark.parametrize("other", [(0.12, 0.3, 0.4, 0.5), (900, 300, 1300, 700)])
def test_numbers_that_cannot_be_in_the_frame_are_asked_for_again(other):
    with pytest.raises(UnparsableReply, match=r"units|0 to 1000"):
        read(answer(("cup", (120, 300, 400, 500)), ("cup", other)))


def test_a_reply_becomes_pixels_and_keeps_its_numbers():
    steps = [
        {"text": "Cups hold coffee.", "boxes": []},
        {"text": "Here is one.", "boxes": [[0, 0, 500, 500]]},
    ]
    text = answer(("cup", (200, 250, 600, 750)), steps=steps)
    reasoning = read(text)
    (proposal,) = reasoning.proposals
    assert proposal.label == "cup"
    assert proposal.box.xyxy == pytest.approx((200, 150, 600, 450))
    assert proposal.raw == (200, 250, 600, 750)
    assert [step.text for step in reasoning.steps] == ["Cups hold coffee.", "Here is one."]
    assert reasoning.steps[0].boxes == ()
    assert reasoning.steps[1].boxes[0].xyxy == pytest.approx((0, 0, 500, 300))
    assert reasoning.reason == "because"
    assert reasoning.raw == text


@pytest.mark.parametrize(
    ("frame", "numbers"),
    [
        # A 3000 x 2000 (H x W) image is shown as 1536 x 1024; the box is the same each time.
        ("pixels", (256, 384, 512, 1152)),
        ("resized-pixels", (259, 385, 518, 1155)),  # smart_resize: 1540 x 1036
        ("0-1000", (250, 250, 500, 750)),
        ("0-1000-yxyx", (250, 250, 750, 500)),
        ("0-1024-yxyx", (256, 256, 768, 512)),
        ("0-1", (0.25, 0.25, 0.5, 0.75)),
        ("percent", (25, 25, 50, 75)),
    ],
)
def test_every_frame_on_an_image_that_was_shrunk(frame, numbers):
    reasoning = read(answer(("cup", numbers)), image_of(3000, 2000), Frame(frame))
    assert reasoning.proposals[0].box.xyxy == pytest.approx((500, 750, 1000, 2250))


def test_every_target_is_a_proposal_of_its_own():
    box = (100, 100, 200, 200)
    reasoning = read(answer(("cup", box), ("cup", box), ("mug", (100, 100, 201, 201))))
    assert [p.label for p in reasoning.proposals] == ["cup", "cup", "mug"]


def test_absent_is_an_answer():
    reasoning = read(answer(reason="There is no cup."))
    assert reasoning.no_target
    assert reasoning.reason == "There is no cup."


def test_a_direct_reply_has_no_steps():
    reasoning = read('{"targets": [{"label": "cup", "box": [1, 2, 300, 400]}], "reason": "r"}')
    assert reasoning.steps == ()
    assert len(reasoning.proposals) == 1


@pytest.mark.parametrize("box", [(300, 300, 300, 300), (1001, 0, 1500, 400), (10, 20, 10, 40)])
def test_one_unusable_target_spoils_the_reply(box):
    text = answer(("cup", (1, 2, 300, 400)), ("mug", box))
    with pytest.raises(UnparsableReply) as caught:
        read(text)
    assert caught.value.raw == text
    assert f"{box[0]}" in str(caught.value)


def test_unusable_boxes_of_steps_are_left_out():
    step = {"text": "Look.", "boxes": [[5, 5, 5, 5], [0, 0, 500, 500], [2000, 0, 3000, 1]]}
    reasoning = read(answer(("cup", (1, 2, 300, 400)), steps=[step]))
    assert len(reasoning.steps[0].boxes) == 1


@pytest.mark.parametrize("text", ["", "I cannot help with that.", "{}"])
def test_no_answer_is_not_an_absence(text):
    with pytest.raises(UnparsableReply) as caught:
        read(text)
    assert caught.value.raw == text
