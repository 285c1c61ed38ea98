"""A query before it is worded, and what the makers of queries and questions share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple, Protocol, TypeVar

import numpy as np

from rsvp.embedded.rendering import SceneObject
from rsvp.embedded.vocabulary import keywords, uses

MARGIN = 1.35  # "largest" and "nearest" must hold by this factor, or people would disagree
ORDINALS = ("first", "second", "third", "fourth")

# Side of an anchor -> the axis (0 is x, 1 is y) and the direction in which it lies.
SIDES = {"left of": (0, -1), "right of": (0, 1), "above": (1, -1), "below": (1, 1)}

# Edge where counting starts, the axis along which it goes, and its direction.
EDGES = (("left", 0, 1), ("right", 0, -1), ("top", 1, 1), ("bottom", 1, -1))


class Worded(Protocol):
    """A question of any task."""

    @property
    def text(self) -> str: ...


Q = TypeVar("Q", bound=Worded)


class Draft(NamedTuple):
    """A query before its kind is added; `topic` is the name or phrase that it is about, if any."""

    text: str
    targets: Sequence[int]
    reasoning: Sequence[int]
    topic: str = ""
    form: str = ""


Objects = Sequence[SceneObject]
Rng = np.random.Generator
T = TypeVar("T")


def choice(options: Sequence[T], rng: Rng) -> T:
    return options[int(rng.integers(len(options)))]


def shuffled(items: Sequence[T], rng: Rng) -> list[T]:
    return [items[int(i)] for i in rng.permutation(len(items))]


def further(kinds: Sequence[str], count: int, rng: Rng) -> list[str]:
    """The kinds to try for the other questions of a scene that gets `count` of them."""
    return shuffled(kinds, rng)[: 2 * (count - 1)]


def different(first: Q, others: Iterable[Q | None], count: int) -> tuple[Q, ...]:
    """The first question, and those of the others that are worded differently; `count` at most."""
    found = {first.text: first}
    for one in others:
        if one and len(found) < count:
            found.setdefault(one.text, one)
    return tuple(found.values())


def alike(objects: Objects, o: SceneObject, form: str = "name") -> tuple[str, list[int]]:
    """An object's name or group, and all objects of it."""
    noun = getattr(o.category, form)
    return noun, [i for i, other in enumerate(objects) if getattr(other.category, form) == noun]


def alone(objects: Objects, i: int) -> bool:
    """Whether no other object has its name."""
    return len(alike(objects, objects[i])[1]) == 1


def by_size(objects: Objects, pool: Sequence[int], sign: int) -> list[int]:
    """The objects, largest (sign -1) or smallest (1) first; none where the first is unclear."""
    order = sorted(pool, key=lambda i: sign * objects[i].box.area)
    areas = [objects[i].box.area for i in order[:2]]
    return order if len(order) > 1 and max(areas) >= MARGIN * min(areas) else []


def by_distance(objects: Objects, pool: Sequence[int], anchor: int) -> list[int]:
    """The objects, those near the anchor first; none where the first is unclear."""
    center = objects[anchor].box.center
    distance = {i: float(np.hypot(*np.subtract(objects[i].box.center, center))) for i in pool}
    order = sorted(pool, key=distance.__getitem__)
    return order if len(order) > 1 and distance[order[1]] >= MARGIN * distance[order[0]] else []


def in_row(objects: Objects, pool: Sequence[int], axis: int, sign: int, side: float) -> list[int]:
    """Two to four objects along an axis; none where a gap is too small for things of this side."""
    position = {i: sign * objects[i].box.center[axis] for i in pool}
    order = sorted(pool, key=position.__getitem__)
    gaps = [position[b] - position[a] for a, b in pairwise(order)]
    return order if 2 <= len(pool) <= len(ORDINALS) and min(gaps) >= 0.25 * side else []


def beside(
    objects: Objects, pool: Sequence[int], anchor: int, side: str
) -> tuple[list[int], list[int]]:
    """The objects that lie clearly at a side of the anchor, and those of which one could argue."""
    axis, sign = SIDES[side]
    center, gap = objects[anchor].box.center[axis], 0.4 * square_side(objects[anchor])
    offset = {i: sign * (objects[i].box.center[axis] - center) for i in pool}
    clear = [i for i in pool if offset[i] > gap]
    return clear, [i for i in pool if abs(offset[i]) <= gap]


def fitting(objects: Objects, indices: frozenset[int]) -> list[int]:
    return [i for i, o in enumerate(objects) if o.category.index in indices]


def left_to_right(objects: Objects, indices: Sequence[int]) -> list[int]:
    return sorted(indices, key=lambda i: objects[i].box.center[0])


def square_side(o: SceneObject) -> float:
    """Side of the square that is as large as the box, pixels."""
    return math.sqrt(o.box.area)


def keyword_tables() -> tuple[tuple[str, dict[str, frozenset[int]], int], ...]:
    """Form, topic -> categories, and how many objects may fit, for keywords and both uses."""
    return (
        ("keyword", keywords(), 1),
        ("use", uses(), 3),
        ("use without with", uses("uses_without_with"), 3),
    )
