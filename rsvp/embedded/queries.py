"""Queries about a rendered scene: the objects that answer them, and those to reason about.

Every kind of query has a function; it returns None where the scene allows no unambiguous query of
that kind.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import partial

import numpy as np

from rsvp.embedded import descriptions
from rsvp.embedded.drafts import (
    EDGES,
    ORDINALS,
    SIDES,
    Draft,
    Objects,
    Rng,
    alike,
    alone,
    beside,
    by_distance,
    by_size,
    choice,
    fitting,
    in_row,
    keyword_tables,
    left_to_right,
    shuffled,
    square_side,
)
from rsvp.embedded.natural_queries import NATURAL_MAKERS, Maker
from rsvp.embedded.vocabulary import categories, groups
from rsvp.embedded.wording import PLAIN_WORDING, Wording


@dataclass(frozen=True, slots=True)
class Query:
    """A query and its truth; objects are given by their indices."""

    kind: str
    text: str
    targets: tuple[int, ...]  # the objects that answer it; empty when nothing in the scene does
    reasoning: tuple[int, ...]  # the objects to look at for the answer, in reading order
    unseen: bool = False  # the combination of kind and topic is held out of training
    form: str = ""  # the kind in whose words it is put; differs from `kind` for "absent"
    language: str = "en"


def make_query(
    kind: str, objects: Objects, rng: Rng, wording: Wording = PLAIN_WORDING
) -> Query | None:
    """A query of this kind, or None where the scene allows none."""
    draft = (MAKERS | NATURAL_MAKERS)[kind](objects, rng, wording)
    if draft is None or not draft.text:  # a language may lack a word for the topic
        return None
    text, targets, reasoning, topic, form = draft
    unseen = wording.unseen or (bool(topic) and held_out(kind, topic))
    return Query(
        kind, text, tuple(targets), tuple(reasoning), unseen, form or kind, wording.language
    )


def held_out(kind: str, topic: str) -> bool:
    """Whether the combination is never trained on, as one in twelve."""
    return zlib.crc32(f"{kind}|{topic}".encode()) % 12 == 0


def name_query(objects: Objects, rng: Rng, wording: Wording, form: str = "name") -> Draft | None:
    """The only object of its name, or of its group."""
    for i in shuffled(range(len(objects)), rng):
        noun, same = alike(objects, objects[i], form)
        if len(same) == 1:
            return Draft(wording.text(form, rng, noun), [i], [i], noun)
    return None


def keyword_query(objects: Objects, rng: Rng, wording: Wording) -> Draft | None:
    """The only object that a keyword fits, or up to three that serve a use."""
    options: list[list[tuple[str, str, list[int]]]] = []
    for form, table, most in keyword_tables():
        found = []
        for topic, indices in table.items():
            matching = fitting(objects, indices)
            if 1 <= len(matching) <= most and (text := wording.text(form, rng, topic)):
                found.append((text, topic, left_to_right(objects, matching)))
        options += [found] if found else []
    if not options:
        return None
    text, topic, order = choice(choice(options, rng), rng)
    return Draft(text, order, order, topic)


def attribute_query(objects: Objects, rng: Rng, wording: Wording) -> Draft | None:
    """The largest or smallest of the objects, of a name or of a group, by a clear margin."""
    word, sign = choice((("largest", -1), ("biggest", -1), ("smallest", 1)), rng)
    pools: list[tuple[str, list[int]]] = [("object", list(range(len(objects))))]
    pools += [alike(objects, o, form) for o in objects for form in ("name", "group")]
    for noun, pool in shuffled(pools, rng):
        if order := by_size(objects, pool, sign):
            text = wording.text("attribute", rng, word, noun)
            return Draft(text, order[:1], order[:3], f"{word} {noun}")
    return None


def relation_query(objects: Objects, rng: Rng, wording: Wording) -> Draft | None:
    """An object by its position relative to an anchor, which is the only one of its name."""
    for relation in shuffled((_nearest, _beside, _between), rng):
        for anchor in shuffled(range(len(objects)), rng):
            if alone(objects, anchor) and (draft := relation(objects, anchor, rng, wording)):
                return draft
    return None


def ordinal_query(objects: Objects, rng: Rng, wording: Wording) -> Draft | None:
    """The first … fourth object of a name from an edge, where the order is clear."""
    for o in shuffled(objects, rng):
        name, pool = alike(objects, o)
        if not 2 <= len(pool) <= len(ORDINALS):
            continue
        for edge, axis, sign in shuffled(EDGES, rng):
            if order := in_row(objects, pool, axis, sign, square_side(o)):
                rank = int(rng.integers(len(order)))
                text = wording.text("ordinal", rng, ORDINALS[rank], name, edge)
                return Draft(text, [order[rank]], order, f"{ORDINALS[rank]} {name}")
    return None


def all_query(objects: Objects, rng: Rng, wording: Wording) -> Draft | None:
    """Two to four objects of one name or one group."""
    pools = [alike(objects, o, form) for form in ("name", "group") for o in objects]
    several = [p for p in pools if 2 <= len(p[1]) <= 4]
    if not several:
        return None
    noun, pool = choice(several, rng)
    order = left_to_right(objects, pool)
    return Draft(wording.text("all", rng, noun), order, order, noun)


def hidden_query(objects: Objects, rng: Rng, wording: Wording) -> Draft | None:
    """An object that another one covers in part, by that fact or by what covers it."""
    occluders = {i: o.hidden_by for i, o in enumerate(objects) if o.hidden_by is not None}
    covered = [i for i in occluders if objects[i].visible < 0.88]
    for i in shuffled(covered, rng):
        occluder, name = occluders[i], objects[i].category.name
        same = [j for j in alike(objects, objects[i])[1] if objects[j].visible < 0.97]
        by_fact = same == [i] and rng.random() < 0.5
        over = objects[occluder].category.name
        behind = [j for j, other in occluders.items() if objects[other].category.name == over]
        if not by_fact and behind == [i] and over != name:
            noun = choice(("object", name), rng)
            text = wording.text("behind", rng, noun, over)
            return Draft(text, [i], [occluder, i], f"behind {noun}")
        if same == [i]:
            return Draft(wording.text("hidden", rng, name), [i], [occluder, i], f"hidden {name}")
    return None


def absent_query(objects: Objects, rng: Rng, wording: Wording) -> Draft | None:
    """Something that isn't in the scene, asked for in the words of another kind."""
    present = {o.category.index for o in objects}
    present_groups = {o.category.group for o in objects}
    style = int(rng.integers(9 if wording.natural else 6))
    if style >= 6:
        absent = [d for d in descriptions.descriptions() if d.unseen == wording.unseen]
        found = choice([d for d in absent if not d.categories & present], rng)
        form = "described by a question" if found.form == "questions" else "described"
        return Draft(wording.text(form, rng, found.text), [], [], "", "described")
    if style == 0:
        group = choice([g for g in groups() if g not in present_groups], rng)
        return Draft(wording.text("group", rng, group), [], [], group, "group")
    if style == 1:
        form, table, _ = choice(keyword_tables(), rng)
        topic = choice([t for t, indices in table.items() if not indices & present], rng)
        return Draft(wording.text(form, rng, topic), [], [], topic, "keyword")
    others = [c for c in categories() if c.index not in present]
    if style == 2 and len(present_groups) < len(objects):
        # Of the same group as a present object: it tells looking from guessing.
        others = [c for c in others if c.group in present_groups]
    name = choice(others, rng).name
    if style == 3:
        return Draft(wording.text("all", rng, name), [], [], name, "all")
    if style == 4:
        edge, *_ = choice(EDGES, rng)
        text = wording.text("absent ordinal", rng, choice(ORDINALS, rng), name, edge)
        return Draft(text, [], [], name, "ordinal")
    return Draft(wording.text("name", rng, name), [], [], name, "name")


MAKERS: dict[str, Maker] = {
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
ALL_KINDS = (*KINDS, *NATURAL_MAKERS)  # the others are asked in natural wording alone


def _nearest(objects: Objects, anchor: int, rng: Rng, wording: Wording) -> Draft | None:
    """The object, or the one of a name, that is clearly nearest to the anchor."""
    reference = objects[anchor].category.name
    pools = [("object", [i for i in range(len(objects)) if i != anchor])]
    pools += [alike(objects, o) for o in objects if o.category.name != reference]
    for noun, pool in shuffled(pools, rng):
        if order := by_distance(objects, pool, anchor):
            text = wording.text("nearest", rng, noun, reference)
            return Draft(text, order[:1], [anchor, *order[:2]], f"nearest {noun}")
    return None


def _beside(objects: Objects, anchor: int, rng: Rng, wording: Wording) -> Draft | None:
    """The only object of a name that lies clearly to one side of the anchor."""
    side, (axis, sign) = choice(tuple(SIDES.items()), rng)
    reference = objects[anchor].category.name
    for o in shuffled(objects, rng):
        noun, pool = alike(objects, o)
        if noun == reference:
            continue
        clear, unclear = beside(objects, pool, anchor, side)
        if len(clear) == 1 and not unclear and (len(pool) > 1 or rng.random() < 0.4):
            order = sorted(pool, key=lambda j: -sign * objects[j].box.center[axis])[:3]
            text = wording.text("beside", rng, noun, side, reference)
            return Draft(text, clear, [anchor, *order], f"{side} {noun}")
    return None


def _between(objects: Objects, anchor: int, rng: Rng, wording: Wording) -> Draft | None:
    """The only object between the anchor and another one, with no second candidate near."""
    for other in shuffled(range(len(objects)), rng):
        if other == anchor or not alone(objects, other):
            continue
        inside, unclear = objects_between(objects, anchor, other)
        if len(inside) == 1 and not unclear:
            ends = [objects[i].category.name for i in (anchor, other)]
            text = wording.text("between", rng, "object", *ends)
            return Draft(text, inside, [anchor, other, inside[0]], "between")
    return None


def objects_between(objects: Objects, start: int, end: int) -> tuple[list[int], list[int]]:
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
        if 0.2 < along < 0.8 and across < 0.35 * square_side(o):
            inside.append(i)
        elif 0.05 < along < 0.95 and across < 0.9 * square_side(o):
            unclear.append(i)
    return inside, unclear
