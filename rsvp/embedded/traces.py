"""Questions of one to three hops about a rendered scene, with every object on the way.

"the animal left of the thing one can cut the bread with" has the path kitchen knife, dog and the
answer dog. Each object of a path is unambiguous, by the margins of `rsvp.embedded.queries`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from rsvp.embedded.drafts import (
    EDGES,
    ORDINALS,
    SIDES,
    Objects,
    Rng,
    alike,
    alone,
    beside,
    by_distance,
    by_size,
    choice,
    different,
    fitting,
    further,
    in_row,
    keyword_tables,
    shuffled,
    square_side,
)
from rsvp.embedded.queries import objects_between
from rsvp.embedded.rendering import (
    ATTEMPTS,
    DEFAULT_SIZE,
    DEFAULT_STYLES,
    BaseScene,
    draw_objects,
    object_entry,
    question_scenes,
    sample_categories,
)
from rsvp.embedded.vocabulary import Category, categories
from rsvp.embedded.wording import TABLES
from rsvp.errors import RsvpError
from rsvp.types import RgbArray

NONE = "none"  # the answer where no object fits

# What a step says around the name of its object.
IS_THERE = " is there"
STEPS = {
    "left of": "Left of it is the ",
    "right of": "Right of it is the ",
    "above": "Above it is the ",
    "below": "Below it is the ",
    "nearest to": "Nearest to it is the ",
    "between": "Between them is the ",
}
PLACES, USES, COMPARED = (TABLES[name] for name in ("place", "goes_with", "compared"))
DIRECT = ("{}", "find {}", "show me {}", "which one is {}?", "where is {}?")
BARE = (*DIRECT, "what is {}?")
TRIES = 8  # draws of a question on one scene
# The kinds of twelve scenes; one in twelve is absent.
TURNS = (
    "direct", "relation", "chain", "compare", "relation", "between",
    "direct", "relation", "chain", "compare", "chain", "absent",
)  # fmt: skip

Describe = Callable[[Category, Rng], str]


@dataclass(frozen=True, slots=True)
class Hop:
    """A step of a path: `before` and `after` stand around the name of its object."""

    object: int
    before: str = ""
    after: str = ""

    def text(self, objects: Objects) -> str:
        return f"{self.before}{objects[self.object].category.name}{self.after}"


@dataclass(frozen=True, slots=True)
class TraceQuestion:
    """A question, the objects on the way in reasoning order, and its answer.

    Attributes:
        hops: how many objects have to be found, with an absent one.
        answer: the name of the answer object, or `NONE`.
    """

    kind: str
    text: str
    path: tuple[Hop, ...]
    hops: int
    answer: str
    answer_objects: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TraceScene(BaseScene):
    questions: tuple[TraceQuestion, ...]

    def to_dict(self, name: str) -> dict[str, Any]:
        questions = (
            {
                "kind": q.kind,
                "hops": q.hops,
                "text": q.text,
                "path": [{"text": s.text(self.objects), "objects": [s.object]} for s in q.path],
                "answer": q.answer,
                "answer_objects": list(q.answer_objects),
            }
            for q in self.questions
        )
        return self.entry(name, map(object_entry, self.objects), questions=questions)


class Reference(NamedTuple):
    """A noun phrase with its article, and the path to the only object that it means."""

    phrase: str
    path: tuple[Hop, ...]

    @property
    def target(self) -> int:
        return self.path[-1].object


def plain_name(category: Category, rng: Rng) -> str:  # noqa: ARG001 - see `Describe`
    """The default description: the name. Others return a noun phrase without an article."""
    return category.name


def render_trace(
    rng: Rng,
    *,
    kind: str | None = None,
    size: int = DEFAULT_SIZE,
    count: int = 1,
    photos: Sequence[RgbArray] = (),
    describe: Describe = plain_name,
    styles: Sequence[str] = DEFAULT_STYLES,
) -> TraceScene:
    """One scene, its first question of this kind or of a random one; see `SceneOptions`.

    Args:
        describe: how things are called in the questions.

    Raises:
        RsvpError: no scene allowed such a question in `ATTEMPTS` attempts.
    """
    kind = kind or choice(TURNS, rng)
    for _ in range(ATTEMPTS):
        chosen = sample_categories(choice(("name", "name", "relation", "attribute"), rng), rng)
        canvas, objects = draw_objects(
            chosen, "relation", rng, size=size, photos=photos, styles=styles
        )
        if objects and (first := make_trace(kind, objects, rng, describe)):
            break
    else:
        raise RsvpError(f"no scene allowed a question of kind {kind!r} in {ATTEMPTS} attempts")
    others = (make_trace(other, objects, rng, describe) for other in further(TURNS, count, rng))
    return TraceScene(canvas, objects, different(first, others, count))


trace_scenes = partial(question_scenes, render_trace, TURNS)


def make_trace(
    kind: str, objects: Objects, rng: Rng, describe: Describe = plain_name
) -> TraceQuestion | None:
    """A question of this kind, or None where the scene allows none."""
    for _ in range(TRIES):
        if question := MAKERS[kind](objects, rng, describe):
            return question
    return None


def direct_question(objects: Objects, rng: Rng, describe: Describe) -> TraceQuestion | None:
    """One hop: an object by its name, group, use, size or place in a row."""
    found = _reference(objects, rng, describe)
    return found and _question("direct", choice(DIRECT, rng).format(found.phrase), found, objects)


def relation_question(
    objects: Objects, rng: Rng, describe: Describe, kind: str = "relation"
) -> TraceQuestion | None:
    """Two hops: an object by its place relative to another one, which a chain finds likewise."""
    anchor = _reference(objects, rng, describe)
    if anchor and kind == "chain":
        anchor = _next(anchor, objects, rng, describe)
    found = anchor and _next(anchor, objects, rng, describe)
    if not anchor or not found:
        return None
    text = choice(BARE, rng).format(found.phrase)
    noun, rest = found.phrase.removesuffix(anchor.phrase).removeprefix("the ").split(" ", 1)
    if noun in ("thing", "object") and rng.random() < 0.6:
        text = choice((f"what is {rest}", f"which {noun} is {rest}"), rng) + f"{anchor.phrase}?"
    return _question(kind, text, found, objects)


def between_question(objects: Objects, rng: Rng, describe: Describe) -> TraceQuestion | None:
    """Three hops: the object between two others."""
    pair = _two_references(objects, rng, describe)
    if pair is None:
        return None
    first, second = pair
    inside, unclear = objects_between(objects, first.target, second.target)
    if len(inside) != 1 or unclear:
        return None
    step = Hop(inside[0], STEPS["between"])
    noun = choice(("thing", "object"), rng)
    phrase = f"the {noun} between {first.phrase} and {second.phrase}"
    found = Reference(phrase, (*first.path, *second.path, step))
    asked = (*BARE, "what is between {1} and {2}?", "which {3} is between {1} and {2}?")
    text = choice(asked, rng).format(phrase, first.phrase, second.phrase, noun)
    return _question("between", text, found, objects)


def compare_question(objects: Objects, rng: Rng, describe: Describe) -> TraceQuestion | None:
    """Two or three hops: the bigger or smaller one of two objects."""
    pair = _two_references(objects, rng, describe)
    if pair is None:
        return None
    first, second = pair
    if rng.random() < 0.4:
        second = _next(second, objects, rng, describe) or second
    used = [step.object for step in (*first.path, *second.path)]
    order = by_size(objects, [first.target, second.target], -1)
    if len(set(used)) < len(used) or not order:
        return None
    word = choice(tuple(COMPARED), rng)
    best = order[0 if word == "bigger" else 1]
    pair = (first, second) if rng.random() < 0.5 else (second, first)
    text = choice(COMPARED[word], rng).format(*(r.phrase for r in pair))
    path = tuple(step for r in pair for step in r.path)
    name = objects[best].category.name
    return TraceQuestion("compare", text, path, len(path), name, (best,))


def absent_question(objects: Objects, rng: Rng, describe: Describe) -> TraceQuestion | None:
    """The last object is not there: nothing at that side, or nothing of that name."""
    present = {o.category.index for o in objects}
    missing = choice([c for c in categories() if c.index not in present], rng)
    if rng.random() < 0.25:
        text = choice(BARE, rng).format(f"the {describe(missing, rng)}")
        return TraceQuestion("absent", text, (), 1, NONE, ())
    anchor = _reference(objects, rng, describe)
    if anchor and rng.random() < 0.3:
        anchor = _next(anchor, objects, rng, describe) or anchor
    if anchor is None:
        return None
    side = choice(tuple(SIDES), rng)
    where = f"{choice(PLACES[side], rng)} {anchor.phrase}"
    text = choice(BARE, rng).format(f"the {describe(missing, rng)} {where}")
    others = [i for i in range(len(objects)) if i != anchor.target]
    if not any(beside(objects, others, anchor.target, side)):
        text = choice((f"what is {where}?", f"the thing {where}"), rng)
    elif rng.random() < 0.5:  # something of that name, but elsewhere
        for o in shuffled(objects, rng):
            noun, pool = alike(objects, o)
            if anchor.target not in pool and not any(beside(objects, pool, anchor.target, side)):
                text = choice(BARE, rng).format(f"the {noun} {where}")
                break
    return TraceQuestion("absent", text, anchor.path, len(anchor.path) + 1, NONE, ())


MAKERS: dict[str, Callable[[Objects, Rng, Describe], TraceQuestion | None]] = {
    "direct": direct_question,
    "relation": relation_question,
    "chain": partial(relation_question, kind="chain"),
    "between": between_question,
    "compare": compare_question,
    "absent": absent_question,
}


def _question(kind: str, text: str, found: Reference, objects: Objects) -> TraceQuestion:
    name = objects[found.target].category.name
    return TraceQuestion(kind, text, found.path, len(found.path), name, (found.target,))


def _two_references(
    objects: Objects, rng: Rng, describe: Describe
) -> tuple[Reference, Reference] | None:
    """Two different objects, each described by itself."""
    first, second = _reference(objects, rng, describe), _reference(objects, rng, describe)
    if first is None or second is None or first.target == second.target:
        return None
    return first, second


def _reference(objects: Objects, rng: Rng, describe: Describe) -> Reference | None:
    """An object described by itself: half of the time by its name, else in another way."""
    ways = [_by_name] if rng.random() < 0.5 else shuffled(_WAYS, rng)
    for way in ways:
        for i in shuffled(range(len(objects)), rng):
            if phrase := way(objects, i, rng, describe):
                return Reference(phrase, (Hop(i, after=IS_THERE),))
    return None


def _by_name(objects: Objects, i: int, rng: Rng, describe: Describe) -> str | None:
    return f"the {describe(objects[i].category, rng)}" if alone(objects, i) else None


def _by_group(objects: Objects, i: int, rng: Rng, describe: Describe) -> str | None:  # noqa: ARG001
    noun, pool = alike(objects, objects[i], "group")
    return f"the {noun}" if len(pool) == 1 else None


def _by_use(objects: Objects, i: int, rng: Rng, describe: Describe) -> str | None:  # noqa: ARG001
    """What it is used for or goes with, where no other object fits."""
    found = [
        phrase.format(topic)
        for form, table, _ in keyword_tables()
        for topic, indices in table.items()
        if objects[i].category.index in indices and len(fitting(objects, indices)) == 1
        for phrase in USES[form]
    ]
    return choice(found, rng) if found else None


def _by_size(objects: Objects, i: int, rng: Rng, describe: Describe) -> str | None:  # noqa: ARG001
    """The biggest or smallest of its name, of its group or of all, by a clear margin."""
    word, sign = choice((("biggest", -1), ("largest", -1), ("smallest", 1)), rng)
    pools = [("thing", list(range(len(objects))))]
    pools += [alike(objects, objects[i], form) for form in ("name", "group")]
    for noun, pool in shuffled(pools, rng):
        if by_size(objects, pool, sign)[:1] == [i]:
            return f"the {word} {noun}"
    return None


def _by_row(objects: Objects, i: int, rng: Rng, describe: Describe) -> str | None:  # noqa: ARG001
    """Its place among those of its name from an edge, where the order is clear."""
    name, pool = alike(objects, objects[i])
    edge, axis, sign = choice(EDGES, rng)
    order = in_row(objects, pool, axis, sign, square_side(objects[i]))
    return f"the {ORDINALS[order.index(i)]} {name} from the {edge}" if order else None


_WAYS = (_by_use, _by_use, _by_group, _by_size, _by_row)


def _next(anchor: Reference, objects: Objects, rng: Rng, describe: Describe) -> Reference | None:
    """A hop from the anchor: the only object at one of its sides, or the nearest one."""
    on_path = {step.object for step in anchor.path}
    others = [i for i in range(len(objects)) if i != anchor.target]
    for relation in shuffled((*SIDES, "nearest to", "nearest to"), rng):
        for noun, pool, category in shuffled(_nouns(objects, others, rng), rng):
            if relation == "nearest to":
                found = next(iter(by_distance(objects, pool, anchor.target)), None)
            else:
                clear, unclear = beside(objects, pool, anchor.target, relation)
                found = clear[0] if len(clear) == 1 and not unclear else None
                if len(pool) == 1 and rng.random() < 0.75:
                    continue  # the noun alone would be enough
            if found is None or found in on_path:
                continue
            word = noun if category is None else describe(category, rng)
            phrase = f"the {word} {choice(PLACES[relation], rng)} {anchor.phrase}"
            return Reference(phrase, (*anchor.path, Hop(found, STEPS[relation])))
    return None


def _nouns(
    objects: Objects, others: Sequence[int], rng: Rng
) -> list[tuple[str, list[int], Category | None]]:
    """Nouns for a hop: which of the other objects each may mean, and the category of a name."""
    found: list[tuple[str, list[int], Category | None]] = [
        (choice(("thing", "object"), rng), list(others), None)
    ]
    for form in ("group", "name"):
        for i in others:
            noun, same = alike(objects, objects[i], form)
            named = objects[i].category if form == "name" else None
            found.append((noun, [j for j in same if j in others], named))
    return found
