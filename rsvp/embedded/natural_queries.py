"""The kinds of queries that only natural wording has."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from rsvp.embedded import descriptions
from rsvp.embedded.drafts import (
    Draft,
    Objects,
    Rng,
    alike,
    alone,
    by_size,
    choice,
    fitting,
    left_to_right,
    shuffled,
    square_side,
)
from rsvp.embedded.wording import Wording

Maker = Callable[[Objects, Rng, Wording], Draft | None]

NUMBERS = {2: "two", 3: "three", 4: "four"}
MOST_TARGETS = 4
SHARED_SHARE = 0.3  # of the descriptions fit several names
COLOURED, TINGED = 0.5, 0.15  # share of its pixels that has the colour asked for; in all others

# Word -> the axis (0 is x, 1 is y) and the end of it at which the object lies.
EXTREMES = {"leftmost": (0, -1), "rightmost": (0, 1), "topmost": (1, -1), "bottommost": (1, 1)}

# Words -> the place in the image, x and y as shares of its sides; None for any.
POSITIONS: Mapping[str, tuple[float | None, float | None]] = {
    "in the top left corner": (0, 0), "in the upper left": (0, 0), "at the top left": (0, 0),
    "in the top right corner": (1, 0), "in the upper right": (1, 0), "at the top right": (1, 0),
    "in the bottom left corner": (0, 1), "in the lower left": (0, 1), "at the bottom left": (0, 1),
    "in the bottom right corner": (1, 1), "in the lower right": (1, 1),
    "in the middle": (0.5, 0.5), "in the centre": (0.5, 0.5), "in the center": (0.5, 0.5),
    "on the left": (0, None), "on the left side": (0, None), "at the left edge": (0, None),
    "on the right": (1, None), "on the right side": (1, None), "at the right edge": (1, None),
    "at the top": (None, 0), "at the bottom": (None, 1),
}  # fmt: skip
# The same of two objects; what is said for each stands in `wording.SYNONYMS`.
SIDES_OF_TWO = {"left one": (0, -1), "right one": (0, 1), "upper": (1, -1), "lower": (1, 1)}
CLAUSE_WORDS = {"that", "with", "of", "to", "in", "for", "and", "on"}  # such nouns have no plural
WIDE = 8  # names that a description fits at least, for its opposite to be clear
CLOSER = 0.12  # by this share of the image's side nothing else is as near to the place


def described_query(objects: Objects, rng: Rng, wording: Wording) -> Draft | None:
    """What a description fits; more than one object only for a question."""
    form = choice(descriptions.FORMS, rng)
    common = descriptions.shared(form, unseen=wording.unseen)
    own = descriptions.of_category(form, unseen=wording.unseen)
    question = form == "questions"
    for i in shuffled(range(len(objects)), rng):
        index = objects[i].category.index
        texts = [text for text, fits in common.items() if index in fits]
        if not texts or rng.random() >= SHARED_SHARE:
            texts = list(own[index])
        for text in shuffled(texts, rng)[:3]:
            pool = fitting(objects, common.get(text, frozenset([index])))
            if len(pool) <= (MOST_TARGETS if question else 1):
                said = wording.text(
                    "described by a question" if question else "described", rng, text
                )
                order = left_to_right(objects, pool)
                return Draft(said, order, order)
    return None


def several_query(objects: Objects, rng: Rng, wording: Wording) -> Draft | None:
    """Two or three things, each the only one of its name."""
    found = [i for i in shuffled(range(len(objects)), rng) if alone(objects, i)]
    count = 3 if rng.random() < 0.2 else 2
    if len(found) < count:
        return None
    names = [objects[i].category.name for i in found[:count]]
    text = wording.text("several" if count == 2 else "three", rng, *names)
    return Draft(text, found[:count], found[:count])


def except_query(objects: Objects, rng: Rng, wording: Wording) -> Draft | None:
    """The objects of a group, or of a shared noun, without those of one name."""
    for noun, pool in shuffled(_pools(objects, wording), rng):
        if not 2 <= len(pool) <= MOST_TARGETS + 1:
            continue
        name = objects[choice(pool, rng)].category.name
        rest = [i for i in left_to_right(objects, pool) if objects[i].category.name != name]
        if 1 <= len(rest) <= MOST_TARGETS:
            text = wording.text("other" if len(rest) == 1 else "except", rng, noun, name)
            return Draft(text, rest, left_to_right(objects, pool))
    return None


def complement_query(objects: Objects, rng: Rng, wording: Wording) -> Draft | None:
    """What a shared description does not fit, where it fits something else in the scene."""
    form = choice(("nouns", "phrases"), rng)
    for text, fits in shuffled(
        tuple(descriptions.shared(form, unseen=wording.unseen).items()), rng
    ):
        pool = fitting(objects, fits)
        rest = [i for i in left_to_right(objects, range(len(objects))) if i not in pool]
        if pool and 1 <= len(rest) <= MOST_TARGETS and len(fits) >= WIDE:
            names = "complement" if len(rest) == 1 else "complements"
            return Draft(
                wording.text(names, rng, text), rest, [*left_to_right(objects, pool), *rest]
            )
    return None


def comparative_query(objects: Objects, rng: Rng, wording: Wording) -> Draft | None:
    """The bigger or smaller of two things, by a clear margin."""
    word, sign = choice((("bigger", -1), ("smaller", 1)), rng)
    pairs = [(noun, pool) for noun, pool in _pools(objects, wording) if len(pool) == 2]
    if pairs and rng.random() < 0.6:
        noun, pool = choice(pairs, rng)
        nouns, form = [noun], "comparative"
    else:
        pool = shuffled([i for i in range(len(objects)) if alone(objects, i)], rng)[:2]
        nouns, form = [objects[i].category.name for i in pool], "comparative of two"
    order = by_size(objects, pool, sign)
    if not order:
        return None
    return Draft(wording.text(form, rng, word, *nouns), order[:1], order)


def colour_query(objects: Objects, rng: Rng, wording: Wording) -> Draft | None:
    """The only object of a colour, of all or of a group."""
    pools = [("object", list(range(len(objects)))), *_pools(objects, wording)]
    for noun, pool in shuffled(pools, rng):
        for i in shuffled(pool, rng):
            for colour, share in objects[i].colours.items():
                others = [objects[j].colours.get(colour, 0.0) for j in pool if j != i]
                if share >= COLOURED and max(others, default=0.0) <= TINGED and others:
                    return Draft(wording.text("colour", rng, colour, noun), [i], [i])
    return None


def counted_query(objects: Objects, rng: Rng, wording: Wording) -> Draft | None:
    """All objects of a name, a group or a shared noun, by how many there are."""
    for noun, pool in shuffled(_pools(objects, wording), rng):
        if len(pool) in NUMBERS:
            order = left_to_right(objects, pool)
            return Draft(wording.text("counted", rng, NUMBERS[len(pool)], noun), order, order)
    return None


def extreme_query(objects: Objects, rng: Rng, wording: Wording) -> Draft | None:
    """The object that lies clearly furthest to one side."""
    pools = [("object", list(range(len(objects)))), *_pools(objects, wording)]
    for noun, pool in shuffled(pools, rng):
        words = SIDES_OF_TWO if len(pool) == 2 and noun != "object" else EXTREMES
        word, (axis, sign) = choice(tuple(words.items()), rng)
        order = sorted(pool, key=lambda i: -sign * objects[i].box.center[axis])
        if len(order) < 2:
            continue
        first, second = (objects[i].box.center[axis] for i in order[:2])
        if abs(first - second) >= 0.3 * square_side(objects[order[0]]):
            form = "extreme" if words is EXTREMES else "side of two"
            return Draft(wording.text(form, rng, word, noun), order[:1], order[:2])
    return None


def position_query(objects: Objects, rng: Rng, wording: Wording) -> Draft | None:
    """The object that lies clearly nearest to a place in the image."""
    height, width = objects[0].mask.shape
    centers = np.array([o.box.center for o in objects]) / (width, height)
    pools = [("object", list(range(len(objects)))), *_pools(objects, wording)]
    for words, place in shuffled(tuple(POSITIONS.items()), rng):
        offsets = [abs(centers[:, k] - v) for k, v in enumerate(place) if v is not None]
        distance = np.max(offsets, axis=0)
        noun, pool = choice(pools, rng)
        order = sorted(pool, key=lambda i: float(distance[i]))
        clear = len(order) == 1 or distance[order[1]] - distance[order[0]] > CLOSER
        if clear and distance[order[0]] < 0.3:
            return Draft(wording.text("position", rng, noun, words), order[:1], order[:1])
    return None


def all_natural_query(objects: Objects, rng: Rng, wording: Wording) -> Draft | None:
    """All objects, two to four, that a shared noun or phrase fits."""
    several = [(n, pool) for n, pool in _pools(objects, wording) if 2 <= len(pool) <= MOST_TARGETS]
    if not several:
        return None
    noun, pool = choice(several, rng)
    order = left_to_right(objects, pool)
    form = "both" if len(pool) == 2 and rng.random() < 0.3 else "all"
    return Draft(wording.text(form, rng, noun), order, order)


def _pools(objects: Objects, wording: Wording) -> list[tuple[str, list[int]]]:
    """What objects have in common: names, groups and shared nouns, and the objects of each."""
    pools = dict(alike(objects, o, form) for form in ("group", "name") for o in objects)
    for noun, fits in descriptions.shared("nouns", unseen=wording.unseen).items():
        pool = fitting(objects, fits)
        if len(pool) >= 2 and not CLAUSE_WORDS & set(noun.split()):
            pools.setdefault(noun, pool)
    return list(pools.items())


NATURAL_MAKERS: dict[str, Maker] = {
    "described": described_query,
    "everything": all_natural_query,
    "several": several_query,
    "except": except_query,
    "complement": complement_query,
    "comparative": comparative_query,
    "colour": colour_query,
    "counted": counted_query,
    "extreme": extreme_query,
    "position": position_query,
}
