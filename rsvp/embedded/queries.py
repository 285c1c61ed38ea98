"""Questions about a rendered scene, with the objects that answer them and those that matter.

Every kind returns None where the scene does not allow an unambiguous question of it.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, Protocol

import numpy as np

from rsvp.embedded.world import GROUPS, Thing, keywords, plural, things, uses, uses_alone

KINDS = (
    "name", "keyword", "group", "attribute", "relation", "ordinal", "all", "hidden", "absent",
)  # fmt: skip
ORDINALS = ("first", "second", "third", "fourth")
MARGIN = 1.35  # "largest" and "nearest" must hold by this factor, or people would disagree


class Seen(Protocol):
    """What a query needs to know of an object."""

    @property
    def thing(self) -> Thing: ...
    @property
    def box(self) -> tuple[int, int, int, int]: ...
    @property
    def visible(self) -> float: ...
    @property
    def hidden_by(self) -> int | None: ...


@dataclass(frozen=True, slots=True)
class Query:
    """A question and its truth.

    Attributes:
        targets: indices of the objects that answer it; empty when nothing in the scene does.
        reasoning: indices of the objects that one has to look at to answer, in reading order.
        unseen: the combination of kind and name was kept out of training.
        form: the kind in which it is put; differs from `kind` where nothing fits ("absent").
    """

    kind: str
    text: str
    targets: tuple[int, ...]
    reasoning: tuple[int, ...]
    unseen: bool = False
    form: str = ""


def held_out(kind: str, name: str) -> bool:
    """One in twelve combinations of kind and name is never trained on."""
    return zlib.crc32(f"{kind}|{name}".encode()) % 12 == 0


def ask(kind: str, objects: Sequence[Seen], rng: np.random.Generator) -> Query | None:
    """A question of this kind, or None."""
    made = ASK[kind](objects, rng)
    if made is None:
        return None
    unseen = held_out(kind, made.about)
    targets, reasoning = tuple(made.targets), tuple(made.reasoning)
    return Query(kind, made.text, targets, reasoning, unseen, made.form or kind)


class Made(NamedTuple):
    """A question: its text, its targets, what to look at, what it is about, how it is put."""

    text: str
    targets: Sequence[int]
    reasoning: Sequence[int]
    about: str
    form: str = ""


def pick(options: Sequence[str], rng: np.random.Generator) -> str:
    """One of the options."""
    return options[int(rng.integers(len(options)))]


def article(noun: str) -> str:
    """The noun with its indefinite article."""
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def shuffled(n: int, rng: np.random.Generator) -> list[int]:
    """0 … n-1 in random order."""
    return [int(i) for i in rng.permutation(n)]


def of_name(objects: Sequence[Seen], name: str) -> list[int]:
    """Indices of the objects of this name."""
    return [i for i, o in enumerate(objects) if o.thing.name == name]


def of_group(objects: Sequence[Seen], group: str) -> list[int]:
    """Indices of the objects of this group."""
    return [i for i, o in enumerate(objects) if o.thing.group == group]


def center(o: Seen) -> tuple[float, float]:
    """(x, y) of the middle of the box, pixels."""
    return ((o.box[0] + o.box[2]) / 2, (o.box[1] + o.box[3]) / 2)


def area(o: Seen) -> float:
    """Area of the box, square pixels."""
    return float((o.box[2] - o.box[0]) * (o.box[3] - o.box[1]))


def side(o: Seen) -> float:
    """Side of the square that is as large as the box, pixels."""
    return math.sqrt(area(o))


def distance(a: Seen, b: Seen) -> float:
    """Pixels from middle to middle."""
    (ax, ay), (bx, by) = center(a), center(b)
    return float(np.hypot(ax - bx, ay - by))


NAME_FORMS = (
    "the {}", "{}", "find the {}", "where is the {}?", "segment the {}", "show me the {}",
    "which pixels belong to the {}?",
)  # fmt: skip
KEYWORD_FORMS = (
    "something to do with {}", "the thing that goes with {}", "which one has to do with {}?",
    "find something for {}",
)  # fmt: skip
USE_FORMS = (
    "what would you {} with?", "something to {} with", "what would you use to {}?",
    "I want to {}",
)  # fmt: skip
USE_ALONE_FORMS = (
    "something to {}", "what would you {}?", "what can I {}?", "something that one can {}",
)  # fmt: skip
GROUP_FORMS = ("the {}", "which one is {a}?", "find the {}", "show me {a}", "is there {a}?")
ALL_FORMS = ("every {}", "all the {s}", "all {s}", "each {} in the picture", "find every {}")
HIDDEN_FORMS = ("the partly hidden {}", "the {} that is partly covered", "which {} is half hidden?")
BEHIND_FORMS = (
    "the {} behind the {}",
    "the {} that the {} covers",
    "the {} partly hidden by the {}",
)


def named(objects: Sequence[Seen], rng: np.random.Generator) -> Made | None:
    """A thing that is there once, by its name."""
    for i in shuffled(len(objects), rng):
        name = objects[i].thing.name
        if len(of_name(objects, name)) == 1:
            return Made(pick(NAME_FORMS, rng).format(name), [i], [i], name)
    return None


def keyword_tables() -> tuple[tuple[Sequence[str], dict[str, frozenset[int]], int], ...]:
    """(forms, phrase -> things, how many objects may fit) of each sort of keyword question."""
    return (
        (KEYWORD_FORMS, keywords(), 1),
        (USE_FORMS, uses(), 3),
        (USE_ALONE_FORMS, uses_alone(), 3),
    )


def keyword(objects: Sequence[Seen], rng: np.random.Generator) -> Made | None:
    """What goes with a keyword, where one object does, or what serves a use, up to three."""
    sorts: list[list[tuple[str, str, list[int]]]] = []
    for forms, table, most in keyword_tables():
        found = []
        for phrase, which in table.items():
            matching = [i for i, o in enumerate(objects) if o.thing.index in which]
            if 1 <= len(matching) <= most:
                order = sorted(matching, key=lambda i: center(objects[i])[0])
                found.append((pick(forms, rng), phrase, order))
        sorts += [found] if found else []
    if not sorts:
        return None
    chosen = sorts[int(rng.integers(len(sorts)))]
    form, phrase, order = chosen[int(rng.integers(len(chosen)))]
    return Made(form.format(phrase), order, order, phrase)


def group(objects: Sequence[Seen], rng: np.random.Generator) -> Made | None:
    """The only object of its group."""
    for i in shuffled(len(objects), rng):
        noun = objects[i].thing.group
        if len(of_group(objects, noun)) == 1:
            return Made(pick(GROUP_FORMS, rng).format(noun, a=article(noun)), [i], [i], noun)
    return None


def attribute(objects: Sequence[Seen], rng: np.random.Generator) -> Made | None:
    """The largest or smallest of the objects, of a name or of a group, by a clear margin."""
    word, sign = (("largest", -1), ("biggest", -1), ("smallest", 1))[int(rng.integers(3))]
    pools: list[tuple[str, list[int]]] = [("object", list(range(len(objects))))]
    for o in objects:
        pools.append((o.thing.name, of_name(objects, o.thing.name)))
        pools.append((o.thing.group, of_group(objects, o.thing.group)))
    for k in shuffled(len(pools), rng):
        noun, pool = pools[k]
        order = sorted(pool, key=lambda i: sign * area(objects[i]))
        if len(order) < 2:
            continue
        first, second = area(objects[order[0]]), area(objects[order[1]])
        if max(first, second) < MARGIN * min(first, second):
            continue
        form = pick(("the {} {}", "find the {} {}", "which is the {} {}?"), rng)
        return Made(form.format(word, noun), order[:1], order[:3], f"{word} {noun}")
    return None


SIDES: dict[str, Callable[[tuple[float, float], tuple[float, float]], float]] = {
    "left of": lambda a, b: b[0] - a[0],
    "right of": lambda a, b: a[0] - b[0],
    "above": lambda a, b: b[1] - a[1],
    "below": lambda a, b: a[1] - b[1],
}


def relation(objects: Sequence[Seen], rng: np.random.Generator) -> Made | None:
    """An object by its place beside others, of which the anchor is there once."""
    forms = [nearest, beside_of, between]
    for k in shuffled(len(forms), rng):
        for anchor in shuffled(len(objects), rng):
            if len(of_name(objects, objects[anchor].thing.name)) == 1:
                made = forms[k](objects, anchor, rng)
                if made is not None:
                    return made
    return None


def nearest(objects: Sequence[Seen], anchor: int, rng: np.random.Generator) -> Made | None:
    """The object, or the one of a name, that is clearly nearest to the anchor."""
    away = [distance(o, objects[anchor]) for o in objects]
    reference = objects[anchor].thing.name
    pools = [("object", [i for i in range(len(objects)) if i != anchor])]
    for o in objects:
        if o.thing.name != reference:
            pools.append((o.thing.name, of_name(objects, o.thing.name)))
    for k in shuffled(len(pools), rng):
        noun, pool = pools[k]
        if len(pool) < 2:
            continue
        order = sorted(pool, key=away.__getitem__)
        if away[order[1]] < MARGIN * away[order[0]]:
            continue
        form = pick(("the {} nearest to the {}", "which {} is closest to the {}?"), rng)
        return Made(
            form.format(noun, reference), order[:1], [anchor, *order[:2]], f"nearest {noun}"
        )
    return None


def beside_of(objects: Sequence[Seen], anchor: int, rng: np.random.Generator) -> Made | None:
    """The only one of a name that lies clearly to one side of the anchor."""
    word = pick(tuple(SIDES), rng)
    measure = SIDES[word]
    here = center(objects[anchor])
    gap = 0.4 * side(objects[anchor])
    for i in shuffled(len(objects), rng):
        noun = objects[i].thing.name
        pool = of_name(objects, noun)
        if i == anchor or noun == objects[anchor].thing.name:
            continue
        reach = {j: measure(center(objects[j]), here) for j in pool}
        clearly = [j for j in pool if reach[j] > gap]
        unclear = [j for j in pool if abs(reach[j]) <= gap]
        if len(clearly) == 1 and not unclear and (len(pool) > 1 or rng.random() < 0.4):
            order = sorted(pool, key=lambda j: -reach[j])[:3]
            text = f"the {noun} {word} the {objects[anchor].thing.name}"
            return Made(text, clearly, [anchor, *order], f"{word} {noun}")
    return None


def between(objects: Sequence[Seen], anchor: int, rng: np.random.Generator) -> Made | None:
    """The only object between the anchor and another one, with no second one near."""
    for other in shuffled(len(objects), rng):
        name = objects[other].thing.name
        if other == anchor or len(of_name(objects, name)) != 1:
            continue
        inside, near = on_the_way(objects, anchor, other)
        if len(inside) == 1 and not near:
            text = f"the object between the {objects[anchor].thing.name} and the {name}"
            return Made(text, inside, [anchor, other, inside[0]], "between")
    return None


def on_the_way(objects: Sequence[Seen], start: int, end: int) -> tuple[list[int], list[int]]:
    """The objects that lie clearly between two others, and those of which one could argue."""
    a = np.array(center(objects[start]))
    line = np.array(center(objects[end])) - a
    length = float(np.hypot(*line))
    inside: list[int] = []
    near: list[int] = []
    for i, o in enumerate(objects):
        if i in (start, end):
            continue
        offset = np.array(center(o)) - a
        along = float(offset @ line) / length**2
        across = abs(float(offset[0] * line[1] - offset[1] * line[0])) / length
        if 0.2 < along < 0.8 and across < 0.35 * side(o):
            inside.append(i)
        elif 0.05 < along < 0.95 and across < 0.9 * side(o):
            near.append(i)
    return inside, near


# Where counting starts -> the axis along which it goes, and its direction.
ENDS = (("left", 0, 1), ("right", 0, -1), ("top", 1, 1), ("bottom", 1, -1))


def ordinal(objects: Sequence[Seen], rng: np.random.Generator) -> Made | None:
    """The first … fourth of a name from an edge, where the order is plain to see."""
    for i in shuffled(len(objects), rng):
        name = objects[i].thing.name
        pool = of_name(objects, name)
        if not 2 <= len(pool) <= 4:
            continue
        for k in shuffled(4, rng):
            end, axis, sign = ENDS[k]
            spots = {j: sign * center(objects[j])[axis] for j in pool}
            order = sorted(pool, key=spots.__getitem__)
            gaps = [spots[b] - spots[a] for a, b in pairwise(order)]
            if min(gaps) < 0.25 * side(objects[i]):
                continue
            rank = int(rng.integers(len(order)))
            form = pick(("the {} {} from the {}", "find the {} {} from the {}"), rng)
            text = form.format(ORDINALS[rank], name, end)
            return Made(text, [order[rank]], order, f"{ORDINALS[rank]} {name}")
    return None


def every(objects: Sequence[Seen], rng: np.random.Generator) -> Made | None:
    """Two to four objects of one name or one group."""
    pools = [(o.thing.name, of_name(objects, o.thing.name)) for o in objects]
    pools += [(o.thing.group, of_group(objects, o.thing.group)) for o in objects]
    many = [p for p in pools if 2 <= len(p[1]) <= 4]
    if not many:
        return None
    noun, pool = many[int(rng.integers(len(many)))]
    order = sorted(pool, key=lambda i: center(objects[i])[0])
    return Made(pick(ALL_FORMS, rng).format(noun, s=plural(noun)), order, order, noun)


def hidden(objects: Sequence[Seen], rng: np.random.Generator) -> Made | None:
    """An object that another one covers in part, by that fact or by what covers it."""
    covers = {i: o.hidden_by for i, o in enumerate(objects) if o.hidden_by is not None}
    covered = [i for i in covers if objects[i].visible < 0.88]
    for k in shuffled(len(covered), rng):
        i = covered[k]
        by, name = covers[i], objects[i].thing.name
        same = [j for j in of_name(objects, name) if objects[j].visible < 0.97]
        if same == [i] and rng.random() < 0.5:
            return Made(pick(HIDDEN_FORMS, rng).format(name), [i], [by, i], f"hidden {name}")
        over = objects[by].thing.name
        behind = [j for j, cover in covers.items() if objects[cover].thing.name == over]
        if behind == [i] and over != name:
            noun = pick(("object", name), rng)
            text = pick(BEHIND_FORMS, rng).format(noun, over)
            return Made(text, [i], [by, i], f"behind {noun}")
        if same == [i]:
            return Made(pick(HIDDEN_FORMS, rng).format(name), [i], [by, i], f"hidden {name}")
    return None


def absent(objects: Sequence[Seen], rng: np.random.Generator) -> Made | None:
    """Something that isn't in the scene, asked for in one of the other kinds' words."""
    here = {o.thing.index for o in objects}
    world = things()
    groups = {o.thing.group for o in objects}
    style = int(rng.integers(6))
    if style == 0:
        noun = pick([g for g in GROUPS if g not in groups], rng)
        return Made(pick(GROUP_FORMS, rng).format(noun, a=article(noun)), [], [], noun, "group")
    if style == 1:
        forms, table, _ = keyword_tables()[int(rng.integers(3))]
        phrase = pick([p for p, which in table.items() if not which & here], rng)
        return Made(pick(forms, rng).format(phrase), [], [], phrase, "keyword")
    if style == 2 and len(groups) < len(objects):
        # Kin of something that is there: the near miss is what tells looking from guessing.
        kin = [t for t in world if t.group in groups and t.index not in here]
        thing = kin[int(rng.integers(len(kin)))]
    else:
        away = [t for t in world if t.index not in here]
        thing = away[int(rng.integers(len(away)))]
    if style == 3:
        text = pick(ALL_FORMS, rng).format(thing.name, s=plural(thing.name))
        return Made(text, [], [], thing.name, "all")
    if style == 4:
        end = pick(("left", "right", "top", "bottom"), rng)
        text = f"the {pick(ORDINALS, rng)} {thing.name} from the {end}"
        return Made(text, [], [], thing.name, "ordinal")
    return Made(pick(NAME_FORMS, rng).format(thing.name), [], [], thing.name, "name")


ASK: dict[str, Callable[[Sequence[Seen], np.random.Generator], Made | None]] = {
    "name": named,
    "keyword": keyword,
    "group": group,
    "attribute": attribute,
    "relation": relation,
    "ordinal": ordinal,
    "all": every,
    "hidden": hidden,
    "absent": absent,
}
