"""A query before it is worded, and what the makers of queries share."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from rsvp.embedded.rendering import SceneObject
from rsvp.embedded.vocabulary import keywords, uses
from rsvp.embedded.wording import Wording

MARGIN = 1.35  # "largest" and "nearest" must hold by this factor, or people would disagree


class Draft(NamedTuple):
    """A query before its kind is added; `topic` is the name or phrase that it is about, if any."""

    text: str
    targets: Sequence[int]
    reasoning: Sequence[int]
    topic: str = ""
    form: str = ""


Objects = Sequence[SceneObject]
Rng = np.random.Generator
Maker = Callable[[Objects, Rng, Wording], Draft | None]
T = TypeVar("T")


def choice(options: Sequence[T], rng: Rng) -> T:
    """One of the options."""
    return options[int(rng.integers(len(options)))]


def shuffled(items: Sequence[T], rng: Rng) -> list[T]:
    """The items in random order."""
    return [items[int(i)] for i in rng.permutation(len(items))]


def alike(objects: Objects, o: SceneObject, form: str = "name") -> tuple[str, list[int]]:
    """An object's name or group, and all objects of it."""
    noun = getattr(o.category, form)
    return noun, [i for i, other in enumerate(objects) if getattr(other.category, form) == noun]


def fitting(objects: Objects, indices: frozenset[int]) -> list[int]:
    """The objects of these categories."""
    return [i for i, o in enumerate(objects) if o.category.index in indices]


def left_to_right(objects: Objects, indices: Sequence[int]) -> list[int]:
    """Objects in reading order."""
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
