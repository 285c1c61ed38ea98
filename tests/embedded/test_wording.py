from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from rsvp.embedded import descriptions
from rsvp.embedded.queries import ALL_KINDS, KINDS
from rsvp.embedded.rendering import colour_shares
from rsvp.embedded.scenes import main, scenes
from rsvp.embedded.vocabulary import categories
from rsvp.embedded.wording import NATURAL, PLAIN, Wording


@pytest.fixture(scope="module")
def asked():
    """(query, its targets' objects, all objects) of scenes in natural wording."""
    wording = Wording(natural=True)
    rendered = scenes(68, 77, size=160, kinds=ALL_KINDS, count=4, wording=wording)
    return [(q, [s.objects[i] for i in q.targets], s.objects) for s in rendered for q in s.queries]


def test_every_name_has_forty_descriptions_or_more() -> None:
    counts = Counter(i for d in descriptions.descriptions() for i in d.categories)
    assert min(counts[c.index] for c in categories()) >= 40


def test_a_description_is_listed_once() -> None:
    texts = Counter(d.text.lower() for d in descriptions.descriptions())
    assert [text for text, n in texts.items() if n > 1] == []


def test_a_fifth_is_never_trained_on() -> None:
    found = descriptions.descriptions()
    assert 0.17 < sum(d.unseen for d in found) / len(found) < 0.23


@pytest.mark.parametrize("phrases", [PLAIN, NATURAL], ids=["plain", "natural"])
def test_every_phrase_can_be_filled(phrases) -> None:
    for texts in phrases.values():
        for text in texts:
            assert text.format("x", "y", "z", a="a x", s="xs", s1="ys")


def test_every_kind_occurs_and_has_targets(asked) -> None:
    assert {query.kind for query, *_ in asked} == set(ALL_KINDS)
    assert all(bool(targets) == (query.kind != "absent") for query, targets, _ in asked)


def test_a_comparison_picks_by_size(asked) -> None:
    for query, targets, objects in asked:
        if query.kind == "comparative":
            pair = [objects[i].box.area for i in query.reasoning]
            bigger = any(w in query.text for w in ("bigger", "larger", "taller"))
            assert targets[0].box.area == (max(pair) if bigger else min(pair))


def test_a_colour_is_of_one_object_alone(asked) -> None:
    for query, targets, _ in asked:
        if query.kind == "colour":
            named = [c for c in targets[0].colours if c in query.text.split() or c in query.text]
            assert any(targets[0].colours[colour] >= 0.5 for colour in named)


def test_an_exception_leaves_its_name_out(asked) -> None:
    for query, targets, objects in asked:
        if query.kind == "except":
            left_out = {objects[i].category for i in query.reasoning} - {
                o.category for o in targets
            }
            assert len(left_out) == 1


def test_counted_objects_are_as_many_as_asked_for(asked) -> None:
    numbers = {2: "two", 3: "three", 4: "four"}
    for query, targets, _ in asked:
        if query.kind == "counted":
            assert numbers[len(targets)] in query.text


def test_colours_of_a_sprite() -> None:
    sprite = np.zeros((30, 30, 4), np.uint8)
    sprite[..., 3] = 255
    sprite[:, :20] = (220, 20, 20, 255)
    sprite[:, 20:] = (250, 250, 250, 255)
    shares = colour_shares(sprite)
    assert set(shares) == {"red", "white"}
    assert shares["red"] == pytest.approx(0.7, abs=0.05)


def test_the_wording_is_an_option_of_the_command(tmp_path, capsys) -> None:
    assert main(["--n", "1", "--seed", "3", "--out", str(tmp_path), "--kinds", "colour"]) == 2
    assert "colour" in capsys.readouterr().err
    options = ["--kinds", "colour", "--wording", "unseen", "--size", "120"]
    assert main(["--n", "1", "--seed", "3", "--out", str(tmp_path), *options]) == 0


def test_plain_scenes_have_the_plain_kinds_alone() -> None:
    kinds = {q.kind for s in scenes(20, 5, size=120, count=2) for q in s.queries}
    assert kinds <= set(KINDS)
