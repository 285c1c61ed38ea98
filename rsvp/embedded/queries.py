"""Queries about a rendered scene: the objects that answer them, and those to reason about.

Every kind of query has a function; it returns None where the scene allows no unambiguous query of
that kind.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import NamedTuple, TypeVar

import numpy as np

from rsvp.embedded.rendering import SceneObject
from rsvp.embedded.vocabulary import categories, groups, keywords, plural, uses

ORDINALS = ("first", "second", "third", "fourth")
MARGIN = 1.35  # "largest" and "nearest" must hold by this factor, or people would disagree

# How a query is worded: {} is what it names, {a} with its indefinite article, {s} in the plural.
PHRASES: Mapping[str, Sequence[str]] = {
    "name": (
        "the {}", "{}", "find the {}", "where is the {}?", "segment the {}", "show me the {}",
        "which pixels belong to the {}?",
    ),
    "keyword": (
        "something to do with {}", "the thing that goes with {}", "which one has to do with {}?",
        "find something for {}",
    ),
    "use": (
        "what would you {} with?", "something to {} with", "what would you use to {}?",
        "I want to {}",
    ),
    "use without with": (
        "something to {}", "what would you {}?", "what can I {}?", "something that one can {}",
    ),
    "group": ("the {}", "which one is {a}?", "find the {}", "show me {a}", "is there {a}?"),
    "all": ("every {}", "all the {s}", "all {s}", "each {} in the picture", "find every {}"),
    "hidden": ("the partly hidden {}", "the {} that is partly covered", "which {} is half hidden?"),
    "behind": (
        "the {} behind the {}", "the {} that the {} covers", "the {} partly hidden by the {}",
    ),
    "attribute": ("the {} {}", "find the {} {}", "which is the {} {}?"),
    "nearest": ("the {} nearest to the {}", "which {} is closest to the {}?"),
    "ordinal": ("the {} {} from the {}", "find the {} {} from the {}"),
}  # fmt: skip

# Side of an anchor -> the axis (0 is x, 1 is y) and the direction in which it lies.
SIDES = {"left of": (0, -1), "right of": (0, 1), "above": (1, -1), "below": (1, 1)}

# Edge where counting starts, the axis along which it goes, and its direction.
EDGES = (("left", 0, 1), ("right", 0, -1), ("top", 1, 1), ("bottom", 1, -1))


@dataclass(frozen=True, slots=True)
class Query:
    """A query and its truth; objects are given by their indices."""

    kind: str
    text: str
    targets: tuple[int, ...]  # the objects that answer it; empty when nothing in the scene does
    reasoning: tuple[int, ...]  # the objects to look at for the answer, in reading order
    unseen: bool = False  # the combination of kind and topic is held out of training
    form: str = ""  # the kind in whose words it is put; differs from `kind` for "absent"


class Draft(NamedTuple):
    """A query before its kind is added; `topic` is the name or phrase that it is about."""

    text: str
    targets: Sequence[int]
    reasoning: Sequence[int]
    topic: str
    form: str = ""


Objects = Sequence[SceneObject]
Rng = np.random.Generator
T = TypeVar("T")


def make_query(kind: str, objects: Objects, rng: Rng) -> Query | None:
    """A query of this kind, or None where the scene allows none."""
    draft = MAKERS[kind](objects, rng)
    if draft is None:
        return None
    text, targets, reasoning, topic, form = draft
    unseen = held_out(kind, topic)
    return Query(kind, text, tuple(targets), tuple(reasoning), unseen, form or kind)


def held_out(kind: str, topic: str) -> bool:
    """Whether the combination is never trained on, as one in twelve."""
    return zlib.crc32(f"{kind}|{topic}".encode()) % 12 == 0


def name_query(objects: Objects, rng: Rng, form: str = "name") -> Draft | None:
    """The only object of its name, or of its group."""
    for i in _shuffled(range(len(objects)), rng):
        noun, same = _same(objects, objects[i], form)
        if len(same) == 1:
            return Draft(_word(form, rng, noun), [i], [i], noun)
    return None


def keyword_query(objects: Objects, rng: Rng) -> Draft | None:
    """The only object that a keyword fits, or up to three that serve a use."""
    options: list[list[tuple[str, str, list[int]]]] = []
    for form, table, most in _keyword_tables():
        found = []
        for topic, indices in table.items():
            matching = [i for i, o in enumerate(objects) if o.category.index in indices]
            if 1 <= len(matching) <= most:
                text = _word(form, rng, topic)
                found.append((text, topic, _left_to_right(objects, matching)))
        options += [found] if found else []
    if not options:
        return None
    text, topic, order = _choice(_choice(options, rng), rng)
    return Draft(text, order, order, topic)


def attribute_query(objects: Objects, rng: Rng) -> Draft | None:
    """The largest or smallest of the objects, of a name or of a group, by a clear margin."""
    word, sign = _choice((("largest", -1), ("biggest", -1), ("smallest", 1)), rng)
    pools: list[tuple[str, list[int]]] = [("object", list(range(len(objects))))]
    pools += [_same(objects, o, form) for o in objects for form in ("name", "group")]
    for noun, pool in _shuffled(pools, rng):
        order = sorted(pool, key=lambda i: sign * objects[i].box.area)
        if len(order) < 2:
            continue
        first, second = (objects[i].box.area for i in order[:2])
        if max(first, second) >= MARGIN * min(first, second):
            text = _word("attribute", rng, word, noun)
            return Draft(text, order[:1], order[:3], f"{word} {noun}")
    return None


def relation_query(objects: Objects, rng: Rng) -> Draft | None:
    """An object by its position relative to an anchor, which is the only one of its name."""
    for relation in _shuffled((_nearest, _beside, _between), rng):
        for anchor in _shuffled(range(len(objects)), rng):
            alone = len(_same(objects, objects[anchor])[1]) == 1
            if alone and (draft := relation(objects, anchor, rng)):
                return draft
    return None


def ordinal_query(objects: Objects, rng: Rng) -> Draft | None:
    """The first … fourth object of a name from an edge, where the order is clear."""
    for o in _shuffled(objects, rng):
        name, pool = _same(objects, o)
        if not 2 <= len(pool) <= len(ORDINALS):
            continue
        for edge, axis, sign in _shuffled(EDGES, rng):
            position = {j: sign * objects[j].box.center[axis] for j in pool}
            order = sorted(pool, key=position.__getitem__)
            gaps = [position[b] - position[a] for a, b in pairwise(order)]
            if min(gaps) < 0.25 * _side(o):
                continue
            rank = int(rng.integers(len(order)))
            text = _word("ordinal", rng, ORDINALS[rank], name, edge)
            return Draft(text, [order[rank]], order, f"{ORDINALS[rank]} {name}")
    return None


def all_query(objects: Objects, rng: Rng) -> Draft | None:
    """Two to four objects of one name or one group."""
    pools = [_same(objects, o, form) for form in ("name", "group") for o in objects]
    several = [p for p in pools if 2 <= len(p[1]) <= 4]
    if not several:
        return None
    noun, pool = _choice(several, rng)
    order = _left_to_right(objects, pool)
    return Draft(_word("all", rng, noun), order, order, noun)


def hidden_query(objects: Objects, rng: Rng) -> Draft | None:
    """An object that another one covers in part, by that fact or by what covers it."""
    occluders = {i: o.hidden_by for i, o in enumerate(objects) if o.hidden_by is not None}
    covered = [i for i in occluders if objects[i].visible < 0.88]
    for i in _shuffled(covered, rng):
        occluder, name = occluders[i], objects[i].category.name
        same = [j for j in _same(objects, objects[i])[1] if objects[j].visible < 0.97]
        by_fact = same == [i] and rng.random() < 0.5
        over = objects[occluder].category.name
        behind = [j for j, other in occluders.items() if objects[other].category.name == over]
        if not by_fact and behind == [i] and over != name:
            noun = _choice(("object", name), rng)
            text = _word("behind", rng, noun, over)
            return Draft(text, [i], [occluder, i], f"behind {noun}")
        if same == [i]:
            return Draft(_word("hidden", rng, name), [i], [occluder, i], f"hidden {name}")
    return None


def absent_query(objects: Objects, rng: Rng) -> Draft | None:
    """Something that isn't in the scene, asked for in the words of another kind."""
    present = {o.category.index for o in objects}
    present_groups = {o.category.group for o in objects}
    style = int(rng.integers(6))
    if style == 0:
        group = _choice([g for g in groups() if g not in present_groups], rng)
        return Draft(_word("group", rng, group), [], [], group, "group")
    if style == 1:
        form, table, _ = _choice(_keyword_tables(), rng)
        topic = _choice([t for t, indices in table.items() if not indices & present], rng)
        return Draft(_word(form, rng, topic), [], [], topic, "keyword")
    others = [c for c in categories() if c.index not in present]
    if style == 2 and len(present_groups) < len(objects):
        # Of the same group as a present object: it tells looking from guessing.
        others = [c for c in others if c.group in present_groups]
    name = _choice(others, rng).name
    if style == 3:
        return Draft(_word("all", rng, name), [], [], name, "all")
    if style == 4:
        edge, *_ = _choice(EDGES, rng)
        text = f"the {_choice(ORDINALS, rng)} {name} from the {edge}"
        return Draft(text, [], [], name, "ordinal")
    return Draft(_word("name", rng, name), [], [], name, "name")


MAKERS: dict[str, Callable[[Objects, Rng], Draft | None]] = {
    "name": name_query,
    "keyword": keyword_query,
    "group": partial(name_query, form="group"),
    "attribute": attribute_query,
    "relation": relation_query,
    "ordinal": ordinal_query,
    "all": all_query,
    "hidden": hidden_query,
    "absent": absent_query,
}
KINDS = tuple(MAKERS)


def _nearest(objects: Objects, anchor: int, rng: Rng) -> Draft | None:
    """The object, or the one of a name, that is clearly nearest to the anchor."""
    reference, center = objects[anchor].category.name, objects[anchor].box.center
    distances = [float(np.hypot(*np.subtract(o.box.center, center))) for o in objects]
    pools = [("object", [i for i in range(len(objects)) if i != anchor])]
    pools += [_same(objects, o) for o in objects if o.category.name != reference]
    for noun, pool in _shuffled(pools, rng):
        if len(pool) < 2:
            continue
        order = sorted(pool, key=distances.__getitem__)
        if distances[order[1]] >= MARGIN * distances[order[0]]:
            text = _word("nearest", rng, noun, reference)
            return Draft(text, order[:1], [anchor, *order[:2]], f"nearest {noun}")
    return None


def _beside(objects: Objects, anchor: int, rng: Rng) -> Draft | None:
    """The only object of a name that lies clearly to one side of the anchor."""
    side, (axis, sign) = _choice(tuple(SIDES.items()), rng)
    reference, center = objects[anchor].category.name, objects[anchor].box.center
    gap = 0.4 * _side(objects[anchor])
    for o in _shuffled(objects, rng):
        noun, pool = _same(objects, o)
        if noun == reference:
            continue
        offset = {j: sign * (objects[j].box.center[axis] - center[axis]) for j in pool}
        clear = [j for j in offset if offset[j] > gap]
        unclear = [j for j in offset if abs(offset[j]) <= gap]
        if len(clear) == 1 and not unclear and (len(offset) > 1 or rng.random() < 0.4):
            order = sorted(offset, key=lambda j: -offset[j])[:3]
            text = f"the {noun} {side} the {reference}"
            return Draft(text, clear, [anchor, *order], f"{side} {noun}")
    return None


def _between(objects: Objects, anchor: int, rng: Rng) -> Draft | None:
    """The only object between the anchor and another one, with no second candidate near."""
    for other in _shuffled(range(len(objects)), rng):
        name, same = _same(objects, objects[other])
        if other == anchor or len(same) != 1:
            continue
        inside, unclear = _objects_between(objects, anchor, other)
        if len(inside) == 1 and not unclear:
            text = f"the object between the {objects[anchor].category.name} and the {name}"
            return Draft(text, inside, [anchor, other, inside[0]], "between")
    return None


def _objects_between(objects: Objects, start: int, end: int) -> tuple[list[int], list[int]]:
    """The objects that lie clearly between two others, and those of which one could argue."""
    a = np.array(objects[start].box.center)
    line = np.array(objects[end].box.center) - a
    length = float(np.hypot(*line))
    inside: list[int] = []
    unclear: list[int] = []
    for i, o in enumerate(objects):
        if i in (start, end):
            continue
        offset = np.array(o.box.center) - a
        along = float(offset @ line) / length**2
        across = abs(float(offset[0] * line[1] - offset[1] * line[0])) / length
        if 0.2 < along < 0.8 and across < 0.35 * _side(o):
            inside.append(i)
        elif 0.05 < along < 0.95 and across < 0.9 * _side(o):
            unclear.append(i)
    return inside, unclear


def _keyword_tables() -> tuple[tuple[str, dict[str, frozenset[int]], int], ...]:
    """Form, topic -> categories, and how many objects may fit, for keywords and both uses."""
    return (
        ("keyword", keywords(), 1),
        ("use", uses(), 3),
        ("use without with", uses("uses_without_with"), 3),
    )


def _word(form: str, rng: Rng, *nouns: str) -> str:
    """A query in one of the phrases of the form."""
    article = "an" if nouns[0][0] in "aeiou" else "a"
    phrase = _choice(PHRASES[form], rng)
    return phrase.format(*nouns, a=f"{article} {nouns[0]}", s=plural(nouns[0]))


def _choice(options: Sequence[T], rng: Rng) -> T:
    return options[int(rng.integers(len(options)))]


def _shuffled(items: Sequence[T], rng: Rng) -> list[T]:
    return [items[int(i)] for i in rng.permutation(len(items))]


def _same(objects: Objects, o: SceneObject, form: str = "name") -> tuple[str, list[int]]:
    """An object's name or group, and all objects of it."""
    noun = getattr(o.category, form)
    return noun, [i for i, other in enumerate(objects) if getattr(other.category, form) == noun]


def _left_to_right(objects: Objects, indices: Sequence[int]) -> list[int]:
    return sorted(indices, key=lambda i: objects[i].box.center[0])


def _side(o: SceneObject) -> float:
    """Side of the square that is as large as the box, pixels."""
    return math.sqrt(o.box.area)
