"""Numbered marks: readable on any background, at their own objects, without overlap."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest

from rsvp.drawing import draw_marks
from rsvp.drawing.palette import MARKS
from rsvp.errors import BadInput
from rsvp.types import Box


def flat(height, width, value=128):
    return np.full((height, width, 3), value, dtype=np.uint8)


def scattered(n, size, seed=0, smallest=0.02, largest=0.25):
    rng = np.random.default_rng(seed)
    height, width = size
    boxes = []
    for _ in range(n):
        w, h = (rng.uniform(smallest, largest, 2) * (width, height)).tolist()
        x, y = (rng.random(2) * (width - w, height - h)).tolist()
        boxes.append(Box(x, y, x + w, y + h))
    return boxes


def overlap(a, b):
    across = min(a[2], b[2]) - max(a[0], b[0])
    down = min(a[3], b[3]) - max(a[1], b[1])
    return max(0, across) * max(0, down)


@pytest.mark.parametrize("size", [(768, 1024), (1344, 894), (480, 640)])
@pytest.mark.parametrize("seed", range(4))
def test_forty_tags_do_not_overlap_and_stay_inside(size, seed):
    boxes = scattered(40, size, seed)
    drawn, tags = draw_marks(flat(*size), boxes)
    assert drawn.shape == (*size, 3)
    for x0, y0, x1, y1 in tags:
        assert 0 <= x0 < x1 <= size[1]
        assert 0 <= y0 < y1 <= size[0]
    assert sum(overlap(a, b) for a, b in itertools.combinations(tags, 2)) == 0


def test_tags_of_candidates_at_one_position_do_not_overlap():
    box = Box(300, 200, 360, 250)
    _, tags = draw_marks(flat(600, 800), [box] * 30)
    assert sum(overlap(a, b) for a, b in itertools.combinations(tags, 2)) == 0


def test_a_tag_touches_its_object_and_covers_no_small_one():
    small, other = Box(100, 100, 130, 130), Box(400, 300, 430, 330)
    _, tags = draw_marks(flat(600, 800), [small, other])
    for box, (x0, y0, x1, y1) in zip((small, other), tags, strict=True):
        assert overlap((x0, y0, x1, y1), box.xyxy) == 0
        assert x0 - 2 <= box.x1
        assert x1 + 2 >= box.x0
        assert y0 - 2 <= box.y1
        assert y1 + 2 >= box.y0


def test_larger_objects_have_larger_numbers():
    boxes = [Box(10, 100, 60, 150), Box(300, 100, 700, 500)]
    _, (small, large) = draw_marks(flat(600, 800), boxes)
    assert large[3] - large[1] > 1.2 * (small[3] - small[1])


@pytest.mark.parametrize("value", [0, 60, 128, 200, 255])
def test_a_number_contrasts_with_any_background(value):
    rgb = flat(240, 240, value)
    drawn, ((x0, y0, x1, y1),) = draw_marks(rgb, [Box(80, 80, 160, 160)])
    tag = drawn[y0:y1, x0:x1].astype(int).sum(axis=2)
    assert tag.max() > 400  # light under the number
    assert (tag < 120).mean() > 0.15  # black: the number and the rim
    edge = drawn[80, 90:150].astype(int)
    assert np.abs(edge - value).max() > 50
    assert (rgb == value).all()


@pytest.mark.parametrize("colour", MARKS)
def test_the_colour_differs_from_what_lies_under_it(colour):
    rgb = np.full((240, 240, 3), colour, dtype=np.uint8)
    drawn = draw_marks(rgb, [Box(80, 80, 160, 160)])[0]
    line = drawn[81, 120].astype(int)
    assert np.abs(line - np.array(colour)).sum() > 120 or (
        np.abs(drawn[80, 120].astype(int) - np.array(colour)).sum() > 120
    )


def test_neighbours_have_different_colours():
    boxes = [Box(100 + 30 * k, 100, 150 + 30 * k, 160) for k in range(4)]
    drawn, tags = draw_marks(flat(400, 400), boxes)
    inside = [tuple(drawn[y0 + 2, x0 + 2]) for x0, y0, _, _ in tags]
    assert all(one != next_one for one, next_one in itertools.pairwise(inside))


def test_numbers_can_be_given():
    boxes = [Box(20, 20, 80, 80), Box(120, 120, 180, 180)]
    other = draw_marks(flat(240, 240), boxes, numbers=[1, 3])[0]
    assert (draw_marks(flat(240, 240), boxes)[0] != other).any()
    same = draw_marks(flat(240, 240), boxes, numbers=[1, 2])[0]
    np.testing.assert_array_equal(draw_marks(flat(240, 240), boxes)[0], same)


def test_a_line_connects_a_distant_tag_to_its_object():
    boxes = [Box(100, 100, 112, 112)] * 25
    drawn, tags = draw_marks(flat(300, 300), boxes)
    farthest = max(tags, key=lambda t: abs(t[0] - 100) + abs(t[1] - 100))
    assert not overlap(farthest, (95, 95, 117, 117))
    middle = (
        ((farthest[0] + farthest[2]) / 2 + 106) / 2,
        ((farthest[1] + farthest[3]) / 2 + 106) / 2,
    )
    x, y = map(int, middle)
    assert (drawn[y - 3 : y + 4, x - 3 : x + 4] != 128).any()


def test_masks_of_another_size_are_refused():
    with pytest.raises(BadInput, match=r"need masks \(1, 50, 50\)"):
        draw_marks(flat(50, 50), [Box(1, 1, 9, 9)], np.zeros((1, 9, 9), dtype=bool))[0]


def test_without_marks_nothing_changes_and_tiny_images_are_marked():
    np.testing.assert_array_equal(draw_marks(flat(50, 50), [])[0], flat(50, 50))
    for size in ((1, 1), (5, 9), (12, 400)):
        drawn = draw_marks(flat(*size), [Box(0, 0, size[1], size[0])] * 3)[0]
        assert drawn.shape == (*size, 3)


@pytest.mark.benchmarks
def test_marks_are_drawn_quickly():
    rgb, boxes = flat(1024, 1536), scattered(40, (1024, 1536))
    masks = np.zeros((40, 1024, 1536), dtype=bool)
    for mask, box in zip(masks, boxes, strict=True):
        x0, y0, x1, y1 = map(int, box.xyxy)
        mask[y0:y1, x0:x1] = True
    started = time.process_time()
    draw_marks(rgb, boxes, masks)[0]
    assert time.process_time() - started < 3
