from __future__ import annotations

import json

import numpy as np
import pytest

from rsvp.embedded.drafts import MARGIN, SIDES
from rsvp.embedded.scenes import main
from rsvp.embedded.traces import NONE, STEPS, TURNS, trace_scenes
from rsvp.embedded.vocabulary import categories


@pytest.fixture(scope="module")
def rendered():
    return list(trace_scenes(48, 4242, count=3, size=200))


def test_kinds_come_in_turn_and_one_in_twelve_is_absent(rendered) -> None:
    assert [s.questions[0].kind for s in rendered[:12]] == list(TURNS)
    assert TURNS.count("absent") == 1


def test_a_scene_does_not_depend_on_n(rendered) -> None:
    for a, b in zip(trace_scenes(3, 4242, count=3, size=200), rendered, strict=False):
        np.testing.assert_array_equal(a.rgb, b.rgb)
        assert a.questions == b.questions


def test_a_path_ends_at_the_answer(rendered) -> None:
    hops = set()
    for scene in rendered:
        for question in scene.questions:
            path = [step.object for step in question.path]
            assert len(set(path)) == len(path)
            hops.add(question.hops)
            if question.kind == "absent":
                assert (question.answer, question.answer_objects) == (NONE, ())
                assert question.hops == len(path) + 1
                continue
            (answer,) = question.answer_objects
            assert question.answer == scene.objects[answer].category.name
            assert question.hops == len(path)
            assert answer == path[-1] or (question.kind == "compare" and answer in path)
    assert hops == {1, 2, 3}


def test_each_hop_is_true_by_a_margin(rendered) -> None:
    seen = set()
    for scene in rendered:
        centers = [o.box.center for o in scene.objects]
        for question in scene.questions:
            for before, step in zip(question.path, question.path[1:], strict=False):
                here, there = centers[before.object], centers[step.object]
                for side, (axis, sign) in SIDES.items():
                    if step.before == STEPS[side]:
                        assert sign * (there[axis] - here[axis]) > 0
                        seen.add(side)
                if step.before == STEPS["nearest to"]:
                    name = scene.objects[step.object].category.name
                    distance = np.hypot(*np.subtract(there, here))
                    same = [c for c, o in zip(centers, scene.objects, strict=True)
                            if o.category.name == name and c not in (here, there)]  # fmt: skip
                    assert all(np.hypot(*np.subtract(c, here)) > distance for c in same)
                    seen.add("nearest")
            if question.kind == "compare":
                (answer,) = question.answer_objects
                sign = 1 if "bigger" in question.text else -1
                areas = sorted(
                    (sign * scene.objects[s.object].box.area, s.object) for s in question.path
                )
                ends = {question.path[-1].object, answer}
                others = [abs(a) for a, i in areas if i in ends - {answer}]
                area = scene.objects[answer].box.area
                assert all(max(area, a) >= MARGIN * min(area, a) for a in others)
    assert seen == {*SIDES, "nearest"}


def test_the_description_of_things_can_be_replaced() -> None:
    codes = {c.index: f"code{c.index}" for c in categories()}
    scenes = trace_scenes(36, 8, size=96, describe=lambda category, rng: codes[category.index])
    texts = [q.text for s in scenes for q in s.questions]
    assert sum("code" in text for text in texts) > 12


def test_command_writes_the_paths(tmp_path) -> None:
    out = tmp_path / "T"
    assert main(["--n", "3", "--seed", "7", "--out", str(out), "--size", "96",
                 "--task", "trace", "--kinds", "chain"]) == 0  # fmt: skip
    document = json.loads((out / "scenes.json").read_text())
    assert document["task"] == "trace"
    for scene in document["scenes"]:
        (question,) = scene["questions"]
        assert question["hops"] == len(question["path"]) == 3
        for step in question["path"]:
            assert scene["objects"][step["objects"][0]]["name"] in step["text"]
    assert main(["--n", "1", "--seed", "1", "--out", str(out), "--task", "trace",
                 "--kinds", "name"]) == 2  # fmt: skip
