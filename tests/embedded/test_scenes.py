from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from rsvp.embedded.queries import KINDS, held_out
from rsvp.embedded.scenes import MIN_VISIBLE, main, scenes
from rsvp.embedded.world import keywords, uses, uses_alone
from rsvp.masks import mask_to_box


@pytest.fixture(scope="module")
def made():
    return list(scenes(54, 4242, count=3, size=200))


def test_kinds_come_in_turn(made) -> None:
    assert [s.queries[0].kind for s in made[:9]] == list(KINDS)


def test_scene_is_the_same_whatever_n_is(made) -> None:
    again = list(scenes(3, 4242, count=3, size=200))
    for a, b in zip(again, made, strict=False):
        np.testing.assert_array_equal(a.rgb, b.rgb)
        assert a.queries == b.queries


def test_masks_are_disjoint_and_boxes_tight(made) -> None:
    for scene in made:
        stack = np.stack([o.mask for o in scene.objects])
        assert stack.sum(0).max() == 1
        for o in scene.objects:
            box = mask_to_box(o.mask)
            assert box is not None
            assert box.xyxy == o.box
            assert MIN_VISIBLE <= o.visible <= 1


def test_the_world_overlaps_and_repeats(made) -> None:
    assert any(o.visible < 0.85 for s in made for o in s.objects)
    assert any(len({o.thing.name for o in s.objects}) < len(s.objects) for s in made)


def test_answers_follow_from_the_truth(made) -> None:
    """Each kind's answer, found again by other means than the one that made it."""
    checked = set()
    for scene in made:
        objects = scene.objects
        names = [o.thing.name for o in objects]
        for query in scene.queries:
            targets = [objects[i] for i in query.targets]
            checked.add(query.kind)
            if query.kind == "absent":
                assert not targets
                continue
            assert targets
            if query.kind == "name":
                assert names.count(targets[0].thing.name) == 1
                assert targets[0].thing.name in query.text
            elif query.kind == "group":
                kin = [o for o in objects if o.thing.group == targets[0].thing.group]
                assert kin == targets
            elif query.kind == "keyword":
                phrase = query.text.removesuffix("?")
                tables = (keywords(), uses(), uses_alone())
                which = [found for t in tables for p, found in t.items() if p in phrase]
                fitting = [[o for o in objects if o.thing.index in found] for found in which]
                assert sorted(map(id, targets)) in [sorted(map(id, fit)) for fit in fitting]
            elif query.kind == "all":
                same_name = {o.thing.name for o in targets}
                same_group = {o.thing.group for o in targets}
                assert len(targets) >= 2
                assert len(same_name) == 1 or len(same_group) == 1
            elif query.kind == "attribute":
                areas = [(o.box[2] - o.box[0]) * (o.box[3] - o.box[1]) for o in objects]
                area = areas[query.targets[0]]
                if query.text.endswith("object") or query.text.endswith("object?"):
                    assert area == (min if "smallest" in query.text else max)(areas)
            elif query.kind == "ordinal":
                name = targets[0].thing.name
                ranks = [o for o in objects if o.thing.name == name]
                axis = 0 if query.text.endswith(("left", "right")) else 1
                back = query.text.endswith(("right", "bottom"))
                ranks.sort(key=lambda o: o.box[axis] + o.box[axis + 2], reverse=back)
                word = ["first", "second", "third", "fourth"][
                    [o is targets[0] for o in ranks].index(True)
                ]
                assert word in query.text
            elif query.kind == "hidden":
                assert targets[0].visible < 0.9
                assert targets[0].hidden_by is not None
    assert checked == set(KINDS)


def test_some_combinations_are_unseen_in_training(made) -> None:
    queries = [q for s in made for q in s.queries]
    share = sum(q.unseen for q in queries) / len(queries)
    assert 0.01 < share < 0.3
    assert held_out("name", "dog") == held_out("name", "dog")


def test_command_writes_images_and_truth(tmp_path) -> None:
    out = tmp_path / "S"
    assert (
        main(["--n", "4", "--seed", "7", "--out", str(out), "--size", "96", "--kinds", "name,all"])
        == 0
    )
    document = json.loads((out / "scenes.json").read_text())
    assert document["kinds"] == ["name", "all"]
    assert [s["queries"][0]["kind"] for s in document["scenes"]] == ["name", "all"] * 2
    for scene in document["scenes"]:
        with Image.open(out / scene["image"]) as image:
            assert image.size == (96, 96) == (scene["width"], scene["height"])
        for o in scene["objects"]:
            mask = coco.decode(o["mask"]).astype(bool)
            assert mask.shape == (96, 96)
            box = mask_to_box(mask)
            assert box is not None
            assert list(box.xyxy) == o["box"]
            assert isinstance(o["keywords"], list)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--n", "0"],
        ["--size", "10"],
        ["--size", "100000"],
        ["--kinds", "riddle"],
        ["--kinds", ","],
        ["--photos", "/nowhere"],
    ],
)
def test_bad_options_get_one_line(tmp_path, capsys, arguments) -> None:
    base = {"--n": "1", "--seed": "1", "--out": str(tmp_path / "o")}
    base.update(dict(zip(arguments[::2], arguments[1::2], strict=True)))
    assert main([part for pair in base.items() for part in pair]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_what_cannot_be_read_or_written_gets_one_line(tmp_path, capsys) -> None:
    file = tmp_path / "file.jpg"
    file.write_bytes(b"no photo")
    base = ["--n", "1", "--seed", "1"]
    assert main([*base, "--out", str(file)]) == 2
    assert main([*base, "--out", str(tmp_path / "o"), "--photos", str(tmp_path)]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 2
    assert all(line.startswith("error: ") and "file.jpg" in line for line in lines)
