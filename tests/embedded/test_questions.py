from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from rsvp.embedded.details import CAPITAL, COLOURS, LARGEST, PLATE, WHOLE, place
from rsvp.embedded.layouts import VIEW, see
from rsvp.embedded.questions import (
    LARGEST_SCENE,
    MAKERS,
    SMALLEST_SCENE,
    THERE_IS_NONE,
    TURNS,
    qa_scenes,
)
from rsvp.embedded.rendering import paint
from rsvp.embedded.scenes import main
from rsvp.embedded.traces import plain_name
from rsvp.masks import box_iou, mask_to_box
from rsvp.types import Box


@pytest.fixture(scope="module")
def rendered():
    return list(qa_scenes(64, 4242, count=3, size=480))


def test_kinds_come_in_turn(rendered) -> None:
    assert [s.questions[0].kind for s in rendered[:16]] == list(TURNS)


def test_a_scene_does_not_depend_on_n_and_questions_not_on_the_size(rendered) -> None:
    for a, b in zip(qa_scenes(2, 4242, count=3, size=480), rendered, strict=False):
        np.testing.assert_array_equal(a.rgb, b.rgb)
        assert a.questions == b.questions
    for a, b in zip(qa_scenes(6, 4242, count=3, size=300), rendered, strict=False):
        assert (a.layout, a.questions) == (b.layout, b.questions)


def test_scenes_are_large_and_the_view_shows_them_as_they_are() -> None:
    (large,), (small,) = qa_scenes(1, 6), qa_scenes(1, 6, size=VIEW)
    assert SMALLEST_SCENE <= len(large.rgb) <= LARGEST_SCENE
    scale = len(large.rgb) / VIEW
    for a, b in zip(large.objects, small.objects, strict=True):
        assert box_iou(Box(*(v / scale for v in a.box.xyxy)), b.box) > 0.75


def test_characters_are_too_small_for_the_view() -> None:
    assert CAPITAL * PLATE * LARGEST * VIEW < 6


def test_choices_hold_the_answer_once_at_any_place(rendered) -> None:
    places = set()
    for scene in rendered:
        for q in scene.questions:
            assert 2 <= len(q.choices) <= 6
            assert len(set(q.choices)) == len(q.choices)
            assert q.needs_look == (q.kind in {"tag", "dot", "arrow", "spots", "cluttered", "both"})
            places.add(q.answer)
    assert places >= {0, 1, 2, 3}


def test_details_are_drawn_where_the_truth_says(rendered) -> None:
    """The pixels of dots and plates, and what a question about them answers."""
    dots = 0
    for scene in rendered:
        for q in scene.questions:
            if q.kind != "dot":
                continue
            thing = scene.layout[q.targets[0]]
            detail = thing.detail("dot")
            assert detail is not None
            assert detail.value == q.answer_text
            window = thing.place(detail)
            canvas = np.zeros((40, 40, 3), np.uint8)
            paint(canvas, place((thing,), window, 40 / window.width))
            np.testing.assert_allclose(canvas[20, 20], COLOURS[q.answer_text], atol=4)
            x, y = (int(v * 480) for v in window.center)
            assert scene.objects[q.targets[0]].mask[y, x]
            dots += 1
    assert dots > 8


def test_tags_show_their_character(rendered) -> None:
    """Enlarged, a tag with another character has other pixels, and else the same."""
    scene, q = next((s, q) for s in rendered for q in s.questions if q.kind == "tag")
    thing = scene.layout[q.targets[0]]
    detail = thing.detail("tag")
    window = thing.place(detail)
    canvas = np.zeros((60, 60, 3), np.uint8)
    paint(canvas, place((thing,), window, 60 / window.width))
    ink = (canvas.astype(int).sum(-1) < 200).mean()
    assert 0.02 < ink < 0.5
    assert detail.value == q.answer_text


def test_a_cluttered_thing_has_another_ones_detail_in_its_box(rendered) -> None:
    found = 0
    for scene in rendered:
        for q in scene.questions:
            if q.kind != "cluttered":
                continue
            o = scene.objects[q.targets[0]]
            inside = []
            for k, thing in enumerate(scene.layout):
                for d in thing.details:
                    x, y = (v * 480 for v in thing.place(d).center)
                    in_box = o.box.x0 <= x < o.box.x1 and o.box.y0 <= y < o.box.y1
                    if k != q.targets[0] and in_box and not o.mask[int(y), int(x)]:
                        inside.append(d.value)
            assert set(inside) & set(q.choices) - {q.answer_text}
            found += 1
    assert found >= 16


def test_counts_presence_and_absence_follow_from_the_objects(rendered) -> None:
    kinds = set()
    for scene in rendered:
        names = {o.category.name for o in scene.objects}
        groups = [o.category.group for o in scene.objects]
        for q in scene.questions:
            kinds.add(q.kind)
            shown = [scene.objects[i] for i in q.targets]
            if q.kind == "count":
                same = {o.category.name for o in shown}
                if len(same) == 1 and same.pop() in q.text:
                    assert q.answer_text == str(len(shown))
            elif q.kind == "presence":
                assert bool(shown) == (q.answer_text == "yes")
            elif q.kind == "absent":
                assert q.answer_text == THERE_IS_NONE
                assert not any(f" {name}" in q.text for name in names if len(name) > 4)
            elif q.kind == "size":
                areas = {o.category.name: o.box.area for o in shown}
                best = max if "bigger" in q.text or "larger" in q.text else min
                assert q.answer_text == best(areas, key=areas.__getitem__)
        assert groups
    assert kinds == set(TURNS)


def test_nothing_is_asked_where_nothing_can_be_read() -> None:
    scene = next(iter(qa_scenes(1, 9, size=VIEW)))
    bare = see(tuple(type(t)(t.category, t.seed, t.side, t.x, t.y) for t in scene.layout))
    rng = np.random.default_rng(0)
    assert bare is not None
    assert [MAKERS[kind](bare, rng, plain_name) for kind in ("tag", "cluttered", "both")] == [
        None
    ] * 3


def test_command_writes_questions_and_details(tmp_path) -> None:
    out = tmp_path / "Q"
    assert main(["--n", "4", "--seed", "7", "--out", str(out), "--size", "300",
                 "--task", "qa", "--queries", "2"]) == 0  # fmt: skip
    document = json.loads((out / "scenes.json").read_text())
    assert document["task"] == "qa"
    for scene in document["scenes"]:
        with Image.open(out / scene["image"]) as image:
            assert image.size == (300, 300)
        assert scene["questions"][0]["id"].endswith("/0")
        for q in scene["questions"]:
            if q["kind"] in {"tag", "dot", "arrow"}:
                target = scene["objects"][q["targets"][0]]
                assert target[q["kind"]] == q["choices"][q["answer"]]
        assert all({"tag", "dot", "arrow", "spots", "mask"} <= set(o) for o in scene["objects"])


def test_objects_are_those_of_the_layout(rendered) -> None:
    for scene in rendered[:8]:
        for thing, o in zip(scene.layout, scene.objects, strict=True):
            assert thing.category == o.category
            assert mask_to_box(o.mask) == o.box
        assert len(place(scene.layout, WHOLE, 480)) == len(scene.objects)
