from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from rsvp.embedded.queries import KINDS, held_out
from rsvp.embedded.rendering import MIN_VISIBLE, sample_style
from rsvp.embedded.scenes import main, scenes
from rsvp.embedded.vocabulary import STYLES, categories, keywords, undrawn, uses
from rsvp.masks import mask_to_box
from rsvp.types import Box


@pytest.fixture(scope="module")
def rendered():
    return list(scenes(54, 4242, count=3, size=200))


def test_kinds_come_in_turn(rendered) -> None:
    assert [s.queries[0].kind for s in rendered[:9]] == list(KINDS)


def test_a_scene_does_not_depend_on_n(rendered) -> None:
    again = list(scenes(3, 4242, count=3, size=200))
    for a, b in zip(again, rendered, strict=False):
        np.testing.assert_array_equal(a.rgb, b.rgb)
        assert a.queries == b.queries


def test_default_scenes_stay_as_they_are(rendered) -> None:
    """The scenes of a seed are test data: no option that is off may change them."""
    digest = hashlib.sha256()
    for i, scene in enumerate(rendered[:18]):
        digest.update(scene.rgb.tobytes())
        digest.update(json.dumps(scene.to_dict(f"{i}.png"), sort_keys=True).encode())
    assert digest.hexdigest()[:16] == "c654a55249fb42fc"
    explicit = list(scenes(3, 4242, count=3, size=200, styles=("noto",)))
    assert all((a.rgb == b.rgb).all() for a, b in zip(explicit, rendered, strict=False))


def test_styles_are_mixed_and_repeatable() -> None:
    twice = [list(scenes(12, 9, size=160, styles=tuple(STYLES))) for _ in range(2)]
    for a, b in zip(*twice, strict=True):
        np.testing.assert_array_equal(a.rgb, b.rgb)
        assert [o.style for o in a.objects] == [o.style for o in b.objects]
    objects = [o for scene in twice[0] for o in scene.objects]
    assert {o.style for o in objects} == set(STYLES)
    assert not any(o.category.name in undrawn(o.style) for o in objects)


def test_one_style_draws_the_same_things(rendered) -> None:
    """A single style takes no random numbers; what it does not draw is left to the default."""
    rng = np.random.default_rng(3)
    before = rng.bit_generator.state
    names = {c.name: c for c in categories()}
    assert sample_style(names["dog"], ("twemoji",), rng) == "twemoji"
    assert sample_style(names["tennis"], ("twemoji",), rng) == "noto"
    assert rng.bit_generator.state == before
    first = next(iter(scenes(1, 4242, count=3, size=200, styles=("twemoji",))))
    assert {o.category.name for o in first.objects} == {
        o.category.name for o in rendered[0].objects
    }
    assert (first.rgb != rendered[0].rgb).any()


def test_masks_are_disjoint_and_boxes_tight(rendered) -> None:
    for scene in rendered:
        stack = np.stack([o.mask for o in scene.objects])
        assert stack.sum(0).max() == 1
        for o in scene.objects:
            assert mask_to_box(o.mask) == o.box
            assert MIN_VISIBLE <= o.visible <= 1


def test_objects_overlap_and_categories_repeat(rendered) -> None:
    assert any(o.visible < 0.85 for s in rendered for o in s.objects)
    assert any(len({o.category.name for o in s.objects}) < len(s.objects) for s in rendered)


def check_name(query, targets, objects) -> None:
    name = targets[0].category.name
    assert [o for o in objects if o.category.name == name] == targets
    assert name in query.text


def check_group(query, targets, objects) -> None:
    assert [o for o in objects if o.category.group == targets[0].category.group] == targets


def check_keyword(query, targets, objects) -> None:
    phrase = query.text.removesuffix("?")
    tables = (keywords(), uses(), uses("uses_without_with"))
    meanings = [indices for t in tables for topic, indices in t.items() if topic in phrase]
    fitting = [[o for o in objects if o.category.index in indices] for indices in meanings]
    assert sorted(map(id, targets)) in [sorted(map(id, fit)) for fit in fitting]


def check_all(query, targets, objects) -> None:
    assert len(targets) >= 2
    categories = [o.category for o in targets]
    assert len({c.name for c in categories}) == 1 or len({c.group for c in categories}) == 1


def check_attribute(query, targets, objects) -> None:
    if query.text.rstrip("?").endswith("object"):
        areas = [o.box.area for o in objects]
        best = min if "smallest" in query.text else max
        assert targets[0].box.area == best(areas)


def check_ordinal(query, targets, objects) -> None:
    row = [o for o in objects if o.category.name == targets[0].category.name]
    axis = 0 if query.text.endswith(("left", "right")) else 1
    reverse = query.text.endswith(("right", "bottom"))
    row.sort(key=lambda o: o.box.center[axis], reverse=reverse)
    rank = [o is targets[0] for o in row].index(True)
    assert ["first", "second", "third", "fourth"][rank] in query.text


def check_hidden(query, targets, objects) -> None:
    assert targets[0].visible < 0.9
    assert targets[0].hidden_by is not None


CHECKS = {
    "name": check_name,
    "group": check_group,
    "keyword": check_keyword,
    "all": check_all,
    "attribute": check_attribute,
    "ordinal": check_ordinal,
    "hidden": check_hidden,
}


def test_answers_follow_from_the_truth(rendered) -> None:
    """Each kind's targets, found again by other means than those that made the query."""
    kinds = set()
    for scene in rendered:
        for query in scene.queries:
            kinds.add(query.kind)
            targets = [scene.objects[i] for i in query.targets]
            assert bool(targets) == (query.kind != "absent")
            if query.kind in CHECKS:
                CHECKS[query.kind](query, targets, scene.objects)
    assert kinds == set(KINDS)


def test_some_combinations_are_unseen_in_training(rendered) -> None:
    queries = [q for s in rendered for q in s.queries]
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
            assert mask_to_box(mask) == Box(*o["box"])
            assert all(isinstance(v, int) for v in o["box"])
            assert isinstance(o["keywords"], list)
            assert "style" not in o


def test_command_writes_the_style_of_each_object(tmp_path, capsys) -> None:
    base = ["--n", "2", "--seed", "7", "--size", "96"]
    assert main([*base, "--style", "twemoji", "--out", str(tmp_path)]) == 0
    assert "twemoji does not draw tennis" in capsys.readouterr().err
    document = json.loads((tmp_path / "scenes.json").read_text())
    assert {o["style"] for s in document["scenes"] for o in s["objects"]} == {"twemoji"}


@pytest.mark.parametrize(
    "arguments",
    [
        ["--n", "0"],
        ["--size", "10"],
        ["--size", "100000"],
        ["--kinds", "colour"],
        ["--kinds", ","],
        ["--photos", "/nowhere"],
        ["--style", "nowhere"],
    ],
)
def test_bad_options_get_one_line(tmp_path, capsys, arguments) -> None:
    base = {"--n": "1", "--seed": "1", "--out": str(tmp_path / "o")}
    base.update(dict(zip(arguments[::2], arguments[1::2], strict=True)))
    assert main([part for pair in base.items() for part in pair]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_unreadable_and_unwritable_files_get_one_line(tmp_path, capsys) -> None:
    file = tmp_path / "file.jpg"
    file.write_bytes(b"no photo")
    base = ["--n", "1", "--seed", "1"]
    assert main([*base, "--out", str(file)]) == 2
    assert main([*base, "--out", str(tmp_path / "o"), "--photos", str(tmp_path)]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 2
    assert all(line.startswith("error: ") and "file.jpg" in line for line in lines)
