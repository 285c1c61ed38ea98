"""The marks that the reasoner is trained on: true numbers at true positions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from recipes.embedded.examples import CELLS, SIZE, sample_strategy, scene_example
from recipes.embedded.marks import MOST_MARKS, mark_anything, mark_scene, restrict_to_marked
from rsvp.embedded.queries import Query
from rsvp.embedded.scenes import scenes
from rsvp.parsing import parse_reply

MARKS = {"marks": 1.0}


@pytest.fixture(scope="module")
def rendered():
    return list(scenes(30, 12, size=240, count=3))


def test_a_number_stands_for_one_object_and_its_tag_is_near_it(rendered) -> None:
    rng = np.random.default_rng(0)
    found = objects = 0
    for scene in rendered:
        shown = mark_scene(scene, rng)
        numbers = list(shown.numbers.values())
        assert len(set(numbers)) == len(numbers)
        assert all(1 <= n <= MOST_MARKS for n in numbers)
        found, objects = found + len(numbers), objects + len(scene.objects)
        for i, number in shown.numbers.items():
            for cell in np.flatnonzero(shown.tag_numbers == number):
                x, y = ((v + 0.5) * 240 / CELLS for v in (cell % CELLS, cell // CELLS))
                x0, y0, x1, y1 = scene.objects[i].box.xyxy
                assert x0 - 45 < x < x1 + 45
                assert y0 - 45 < y < y1 + 45
    assert 0.85 < found / objects < 1.0  # few go unnoticed, but some do


def test_only_strokes_and_tags_change_the_image(rendered) -> None:
    rng = np.random.default_rng(1)
    for scene in rendered[:8]:
        shown = mark_scene(scene, rng)
        assert shown.rgb.shape == scene.rgb.shape
        assert 0.01 < (shown.rgb != scene.rgb).any(-1).mean() < 0.45


def test_queries_keep_marked_targets_alone() -> None:
    query = Query("all", "all cups", (1, 2), (1, 2, 3))
    assert restrict_to_marked(query, {1: 5, 2: 6}) == query
    assert restrict_to_marked(query, {2: 6}) == replace(query, targets=(2,))
    assert restrict_to_marked(query, {3: 6}) is None
    absent = Query("absent", "a dog", (), ())
    assert restrict_to_marked(absent, {}) == absent


def test_examples_name_the_numbers_that_are_drawn(rendered) -> None:
    rng = np.random.default_rng(2)
    named = 0
    for scene in rendered:
        example = scene_example(scene, rng, MARKS)
        assert example.rgb.shape == (SIZE, SIZE, 3)
        assert example.mark_numbers is not None
        for turn in example.turns:
            assert "arks: " in turn.prompt
            assert not turn.coordinates
            parsed = parse_reply("".join(text for text, _ in turn.reply), expect="marks")
            assert [t.marks[0] for t in parsed.targets] == [
                example.mark_numbers[i] for i in turn.targets
            ]
            named += len(parsed.targets)
    assert named > 30


def test_strategies_come_as_often_as_their_shares() -> None:
    rng = np.random.default_rng(3)
    drawn = [sample_strategy({"boxes": 1, "grid": 0, "marks": 3}, rng) for _ in range(400)]
    assert drawn.count("grid") == 0
    assert 70 < drawn.count("boxes") < 130


def test_other_images_get_random_marks() -> None:
    rgb = np.full((240, 240, 3), 90, np.uint8)
    drawn = mark_anything(rgb, np.random.default_rng(4))
    assert 0.01 < (drawn != rgb).any(-1).mean() < 0.6


def test_parts_and_background_are_marked_as_well(rendered) -> None:
    rng = np.random.default_rng(5)
    marks = [(len(set(shown.tag_numbers.tolist()) - {0}), len(shown.numbers)) for shown in
             (mark_scene(scene, rng) for scene in rendered)]  # fmt: skip
    drawn, named = map(sum, zip(*marks, strict=True))
    assert 1.5 < drawn / named < 4
