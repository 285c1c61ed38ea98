"""The marks that the reasoner is trained on: true numbers at true places, whatever is drawn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from recipes.embedded.candidates import MOST_MARKS, askable, mark_anything, marked
from recipes.embedded.examples import CELLS, SIZE, pick_strategy, to_example
from rsvp.embedded.queries import Query
from rsvp.embedded.scenes import scenes
from rsvp.parsing import parse_reply

MARKS = {"marks": 1.0}


@pytest.fixture(scope="module")
def made():
    return list(scenes(30, 12, size=240, count=3))


def test_a_number_stands_for_one_object_and_its_tag_is_near_it(made) -> None:
    rng = np.random.default_rng(0)
    found = objects = 0
    for scene in made:
        shown = marked(scene, rng)
        numbers = list(shown.numbers.values())
        assert len(set(numbers)) == len(numbers)
        assert all(1 <= n <= MOST_MARKS for n in numbers)
        found, objects = found + len(numbers), objects + len(scene.objects)
        for i, number in shown.numbers.items():
            for cell in np.flatnonzero(shown.tags == number):
                x, y = ((v + 0.5) * 240 / CELLS for v in (cell % CELLS, cell // CELLS))
                x0, y0, x1, y1 = scene.objects[i].box
                assert x0 - 45 < x < x1 + 45
                assert y0 - 45 < y < y1 + 45
    assert 0.85 < found / objects < 1.0  # few go unnoticed, but some do


def test_the_picture_changes_only_in_strokes_and_tags(made) -> None:
    rng = np.random.default_rng(1)
    for scene in made[:8]:
        shown = marked(scene, rng)
        assert shown.rgb.shape == scene.rgb.shape
        assert 0.01 < (shown.rgb != scene.rgb).any(-1).mean() < 0.45


def test_what_has_no_mark_is_not_asked_for() -> None:
    query = Query("all", "all cups", (1, 2), (1, 2, 3))
    assert askable(query, {1: 5, 2: 6}) == query
    assert askable(query, {2: 6}) == replace(query, targets=(2,))
    assert askable(query, {3: 6}) is None
    absent = Query("absent", "a dog", (), ())
    assert askable(absent, {}) == absent


def test_examples_name_the_numbers_that_are_drawn(made) -> None:
    rng = np.random.default_rng(2)
    named = 0
    for scene in made:
        example = to_example(scene, rng, MARKS)
        assert example.rgb.shape == (SIZE, SIZE, 3)
        assert example.numbers is not None
        for ask in example.asks:
            assert "arks: " in ask.prompt
            assert not ask.boxes
            parsed = parse_reply("".join(text for text, _ in ask.told), expect="marks")
            assert [t.marks[0] for t in parsed.targets] == [example.numbers[i] for i in ask.targets]
            named += len(parsed.targets)
    assert named > 30


def test_strategies_come_as_often_as_their_shares() -> None:
    rng = np.random.default_rng(3)
    drawn = [pick_strategy({"boxes": 1, "grid": 0, "marks": 3}, rng) for _ in range(400)]
    assert drawn.count("grid") == 0
    assert 70 < drawn.count("boxes") < 130


def test_pictures_of_another_world_are_marked_as_well() -> None:
    rgb = np.full((240, 240, 3), 90, np.uint8)
    drawn = mark_anything(rgb, np.random.default_rng(4))
    assert 0.01 < (drawn != rgb).any(-1).mean() < 0.6


def test_parts_and_background_are_marked_as_well(made) -> None:
    rng = np.random.default_rng(5)
    marks = [(len(set(shown.tags.tolist()) - {0}), len(shown.numbers)) for shown in
             (marked(scene, rng) for scene in made)]  # fmt: skip
    drawn, named = map(sum, zip(*marks, strict=True))
    assert 1.5 < drawn / named < 4
