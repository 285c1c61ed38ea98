"""`points`: points on targets and beside them, in every frame, straight to the segmenter."""

import json

import numpy as np
import pytest

from rsvp.errors import BadInput, UnparsableReply
from rsvp.frames import Frame
from rsvp.registry import make
from rsvp.strategies import Strategy
from rsvp.strategies.points import PointsStrategy
from rsvp.types import Box, Image, Point

IMAGE = Image(np.zeros((600, 1000, 3), dtype=np.uint8), "0" * 64)


def read(targets, frame="0-1000", argument=None):
    text = targets if isinstance(targets, str) else json.dumps({"targets": targets, "reason": "r"})
    strategy = PointsStrategy(argument)
    return strategy.read(text, IMAGE, strategy.view(IMAGE), Frame.parse(frame))


def test_it_is_a_strategy_with_two_names():
    for spec, name in (("points", "points"), ("points:box", "points-box")):
        strategy = make("strategy", spec)
        assert isinstance(strategy, Strategy)
        assert strategy.name == name


@pytest.mark.parametrize("options", [{"argument": "9x9"}, {"max_side": 0}])
def test_options_are_checked(options):
    with pytest.raises(BadInput):
        PointsStrategy(**options)


@pytest.mark.parametrize(
    ("frame", "on", "off"),
    [
        ("pixels", [500, 300], [100, 60]),
        ("0-1000", [500, 500], [100, 100]),
        ("0-1000-yxyx", [500, 500], [100, 100]),
        ("0-1", [0.5, 0.5], [0.1, 0.1]),
        ("percent", [50.0, 50.0], [10, 10]),
    ],
)
def test_points_come_in_the_frame_of_the_model(frame, on, off):
    (proposal,) = read([{"label": "cup", "points": [on], "not": [off]}], frame).proposals
    assert proposal.points == (Point(500, 300), Point(100, 60, positive=False))
    assert proposal.box is None
    assert proposal.raw == (*on, *off)


def test_y_comes_first_where_the_frame_says_so():
    (proposal,) = read([{"label": "", "points": [[250, 500]]}], "0-1000-yxyx").proposals
    assert proposal.points == (Point(500, 150),)


def test_a_box_goes_with_the_points():
    target = {"label": "cup", "points": [[500, 500]], "not": [], "box": [400, 300, 600, 700]}
    (proposal,) = read([target], argument="box").proposals
    assert proposal.box == Box(400, 180, 600, 420)
    assert proposal.points == (Point(500, 300),)
    assert proposal.raw == (500, 500, 400, 300, 600, 700)


def test_molmo_points_in_its_own_tags():
    text = 'There: <points x1="50.0" y1="50.0" x2="10" y2="20" alt="mugs">mugs</points>'
    found = read(text, "percent").proposals
    assert [p.points for p in found] == [(Point(500, 300),), (Point(100, 120),)]
    (one,) = read('<point x="50" y="25.5" alt="a mug">a mug</point>', "percent").proposals
    assert (one.label, one.points) == ("a mug", (Point(500, 153),))


def test_nothing_there_is_an_answer():
    reasoning = read([])
    assert reasoning.no_target
    assert reasoning.reason == "r"


@pytest.mark.parametrize(
    "target",
    [
        {"label": "cup", "points": []},
        {"label": "cup"},
        {"label": "cup", "points": [[1200, 500]]},
        {"label": "cup", "points": [[5, 5]], "not": "left of it"},
        {"label": "cup", "points": [[5, 5]], "box": [[1, 2, 3, 4], [5, 6, 7, 8]]},
        {"label": "cup", "points": [[5, 5]], "box": [1, 2, 3]},
    ],
)
def test_a_target_that_is_nowhere_is_a_re_ask(target):
    with pytest.raises(UnparsableReply):
        read([target])


def test_a_negative_point_outside_the_image_says_nothing():
    (proposal,) = read([{"label": "", "points": [[5, 5]], "not": [[1001, 5], [7, 7]]}]).proposals
    assert [point.positive for point in proposal.points] == [True, False]


@pytest.mark.parametrize("argument", [None, "box"])
@pytest.mark.parametrize("frame", [None, Frame("0-1"), Frame("percent"), Frame("pixels")])
def test_the_schema_asks_for_what_is_read(argument, frame):
    schema = PointsStrategy(argument).schema(True, frame)
    target = schema["properties"]["targets"]["items"]
    assert target["required"] == ["label", "points", "not", *(["box"] if argument else [])]
    number = target["properties"]["points"]["items"]["items"]["type"]
    fractions = frame is not None and frame.kind in ("0-1", "percent")
    assert number == ("number" if fractions else "integer")
    assert "steps" in schema["properties"]
    assert "steps" not in PointsStrategy(argument).schema(False)["properties"]
