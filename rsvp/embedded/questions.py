"""Questions with choices about large scenes of small things with details.

The details (a character on a tag, the colour of a dot, the way of an arrow, a number of spots) are
too small for the embedded reasoner's view of the whole scene; relations, counts and presence are
not. `scenes.json` of ``--task qa`` holds for each question its choices, the index of the right one,
the objects that it is about, and whether it needs a closer look.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rsvp.embedded import backgrounds
from rsvp.embedded.details import (
    DIGITS,
    VALUES,
    WHOLE,
    Layout,
    alternatives,
    place,
    readable,
    sample_layout,
    sample_value,
)
from rsvp.embedded.drafts import MARGIN, Rng, alike, choice, shuffled, square_side
from rsvp.embedded.queries import SIDES
from rsvp.embedded.rendering import SceneObject, paint, visible_objects
from rsvp.embedded.scenes import ATTEMPTS, object_entry
from rsvp.embedded.traces import WORDINGS, Describe, plain_name
from rsvp.embedded.vocabulary import DEFAULT_STYLE, categories, groups, plural
from rsvp.errors import RsvpError
from rsvp.types import RgbArray

VIEW = 240  # side of the view that decides which details are covered, pixels
SMALLEST_SCENE, LARGEST_SCENE = 1200, 2400  # side, pixels
LEAST_VISIBLE = 0.6  # share of a thing
THERE_IS_NONE = "there is none"
MOST_CHOICES = 6
DISTRACTED = 0.25  # share of the detail questions with THERE_IS_NONE as a wrong choice

# What a detail question says: {} is the thing, {c} is digit or letter.
DETAIL_PHRASES: Mapping[str, Sequence[str]] = {
    "tag": (
        "which {c} is on the tag of the {}?", "what does the tag on the {} say?",
        "which {c} does the tag of the {} show?", "what is written on the {}'s tag?",
        "read the tag on the {}", "look at the {}: which {c} is on its tag?",
    ),
    "dot": (
        "what colour is the dot on the {}?", "which colour does the dot on the {} have?",
        "look at the {}: what colour is its dot?", "what is the color of the {}'s dot?",
        "name the colour of the dot on the {}",
    ),
    "arrow": (
        "which way does the arrow on the {} point?", "where does the arrow on the {} point to?",
        "in which direction does the {}'s arrow point?",
        "look at the {}: which way does its arrow point?",
        "name the direction of the arrow on the {}",
    ),
    "spots": (
        "how many spots are on the plate of the {}?", "how many spots does the {}'s plate show?",
        "count the spots on the plate of the {}",
        "look at the {}: how many spots are on its plate?",
        "what is the number of spots on the {}'s plate?",
    ),
}  # fmt: skip
SAME_PHRASES: Mapping[str, Sequence[str]] = {
    "tag": (
        "do the {} and the {} have the same tag?", "do the tags of the {} and the {} say the same?",
    ),
    "dot": (
        "do the {} and the {} have dots of the same colour?",
        "is the dot on the {} of the same colour as the one on the {}?",
    ),
    "arrow": (
        "do the arrows on the {} and the {} point the same way?",
        "does the {}'s arrow point the same way as the one on the {}?",
    ),
    "spots": (
        "do the plates of the {} and the {} show the same number of spots?",
        "are there as many spots on the plate of the {} as on that of the {}?",
    ),
}  # fmt: skip
WHICH_PHRASES: Mapping[str, Sequence[str]] = {
    "tag": (
        "which one has the tag {}, the {} or the {}?", "whose tag says {}, the {}'s or the {}'s?",
    ),
    "dot": ("which one has the {} dot, the {} or the {}?",),
    "arrow": ("whose arrow points {}, the {}'s or the {}'s?",),
    "spots": ("which plate shows {} spots, that of the {} or that of the {}?",),
}  # fmt: skip
RELATION_PHRASES = ("is the {} {} the {}?", "does the {} lie {} the {}?")
SIZE_PHRASES: Mapping[str, Sequence[str]] = {
    "bigger": (
        "which of the two is bigger, the {} or the {}?", "what is larger: the {} or the {}?",
    ),
    "smaller": (
        "which of the two is smaller, the {} or the {}?", "what is tinier: the {} or the {}?",
    ),
}  # fmt: skip
COUNT_PHRASES = (
    "how many {} are there?", "how many {} can you see?", "count the {}",
    "what is the number of {} in the picture?",
)  # fmt: skip
PRESENCE_PHRASES = (
    "is there {} in the picture?", "is there {}?", "can you see {}?", "does the picture show {}?",
)  # fmt: skip

# The kinds of the first questions of 16 scenes, in turn.
TURNS = (
    "tag", "cluttered", "dot", "count", "arrow", "cluttered", "both", "presence",
    "spots", "cluttered", "relation", "absent", "tag", "cluttered", "size", "dot",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ChoiceQuestion:
    """A question with choices about a scene; objects are given by their indices.

    Attributes:
        answer: index of the right choice.
        targets: the objects that it is about.
        needs_look: it asks for a detail that the view of the whole scene does not show.
    """

    kind: str
    text: str
    choices: tuple[str, ...]
    answer: int
    targets: tuple[int, ...]
    needs_look: bool

    @property
    def answer_text(self) -> str:
        return self.choices[self.answer]


@dataclass(frozen=True, slots=True)
class QaScene:
    """A large scene: (H, W, 3) uint8, its layout, objects (in the same order) and questions."""

    rgb: RgbArray = field(repr=False)
    layout: Layout
    objects: tuple[SceneObject, ...]
    questions: tuple[ChoiceQuestion, ...]

    def to_dict(self, name: str) -> dict[str, Any]:
        """The scene's entry in `scenes.json`; `name` is its image file."""
        height, width = self.rgb.shape[:2]
        carried = [{d.kind: d.value for d in thing.details} for thing in self.layout]
        return {
            "image": name,
            "height": height,
            "width": width,
            "objects": [
                {
                    **object_entry(o),
                    **{kind: details.get(kind) for kind in ("tag", "dot", "arrow")},
                    "spots": int(details.get("spots", 0)),
                }
                for o, details in zip(self.objects, carried, strict=True)
            ],
            "questions": [
                {
                    "id": f"{Path(name).stem}/{k}",
                    "kind": q.kind,
                    "text": q.text,
                    "choices": list(q.choices),
                    "answer": q.answer,
                    "targets": list(q.targets),
                    "needs_look": q.needs_look,
                }
                for k, q in enumerate(self.questions)
            ],
        }


class Seen(NamedTuple):
    """What questions are made of: the objects of a scene, and what can be read on each."""

    layout: Layout
    objects: tuple[SceneObject, ...]
    details: Sequence[Mapping[str, str]]

    def alone(self, i: int) -> bool:
        """Whether no other object has its name."""
        return len(alike(self.objects, self.objects[i])[1]) == 1

    def carriers(self, kind: str) -> list[int]:
        """The objects with a readable detail of a kind that are alone of their name."""
        return [i for i, found in enumerate(self.details) if kind in found and self.alone(i)]


def qa_scenes(
    n: int,
    seed: int,
    *,
    size: int | None = None,
    kinds: Sequence[str] = TURNS,
    count: int = 1,
    photos: Sequence[RgbArray] = (),
    describe: Describe = plain_name,
    styles: Sequence[str] = (DEFAULT_STYLE,),
) -> Iterator[QaScene]:
    """Scenes 0 … n-1 of a seed, the kinds of their first questions in turn; see `render_qa`."""
    for i in range(n):
        rng = np.random.default_rng([seed, i])
        kind = kinds[i % len(kinds)]
        yield render_qa(
            rng, kind=kind, size=size, count=count, photos=photos, describe=describe, styles=styles
        )


def render_qa(
    rng: Rng,
    *,
    kind: str | None = None,
    size: int | None = None,
    count: int = 1,
    photos: Sequence[RgbArray] = (),
    describe: Describe = plain_name,
    styles: Sequence[str] = (DEFAULT_STYLE,),
) -> QaScene:
    """One scene with up to `count` questions, the first of this kind or of a random one.

    Args:
        size: side of the square image, pixels; None for 1,200 to 2,400 at random. Questions and
            layout do not depend on it.
        describe: how things are called in the questions.

    Raises:
        RsvpError: no scene allowed such a question in `ATTEMPTS` attempts.
    """
    kind = kind or choice(TURNS, rng)
    seen, questions = compose(kind, count, rng, describe, styles)
    side = int(rng.integers(SMALLEST_SCENE, LARGEST_SCENE + 1)) if size is None else size
    canvas = backgrounds.draw(side, rng, photos)
    placed = place(seen.layout, WHOLE, side)
    objects = visible_objects(paint(canvas, placed), placed)
    if objects is None:
        raise RsvpError(f"a thing of the scene is not visible at {side} pixels")
    return QaScene(canvas, seen.layout, objects, questions)


def compose(
    kind: str,
    count: int,
    rng: Rng,
    describe: Describe = plain_name,
    styles: Sequence[str] = (DEFAULT_STYLE,),
) -> tuple[Seen, tuple[ChoiceQuestion, ...]]:
    """A layout that allows a question of this kind, with up to `count` questions."""
    for _ in range(ATTEMPTS):
        theme = kind if kind in VALUES else choice(tuple(VALUES), rng)
        layout = sample_layout(
            rng,
            theme=theme,
            copies=int(rng.choice((1, 2, 2, 3, 3, 4, 5))) if kind == "count" else 1,
            near=int(kind == "both"),
            inside=kind == "cluttered",
            styles=styles,
        )
        seen = None if layout is None else see(layout)
        if seen and (first := make_question(kind, seen, rng, describe)):
            break
    else:
        raise RsvpError(f"no scene allowed a question of kind {kind!r} in {ATTEMPTS} attempts")
    questions = [first]
    for other in shuffled(TURNS, rng)[: 2 * (count - 1)]:
        question = make_question(other, seen, rng, describe)
        if question and len(questions) < count and question.text not in {q.text for q in questions}:
            questions.append(question)
    return seen, tuple(questions)


def see(layout: Layout) -> Seen | None:
    """The objects of a layout and the details that can be read; None where too much is hidden."""
    placed = place(layout, WHOLE, VIEW)
    canvas = np.zeros((VIEW, VIEW, 3), np.uint8)
    objects = visible_objects(paint(canvas, placed), placed)
    if objects is None or min(o.visible for o in objects) < LEAST_VISIBLE:
        return None
    return Seen(layout, objects, readable(layout, objects))


def make_question(
    kind: str, seen: Seen, rng: Rng, describe: Describe = plain_name
) -> ChoiceQuestion | None:
    """A question of this kind, or None where the scene allows none."""
    return MAKERS[kind](seen, rng, describe)


def detail_question(
    seen: Seen, rng: Rng, describe: Describe, detail: str, among: Sequence[int] | None = None
) -> ChoiceQuestion | None:
    """What a detail of a thing shows; `among`: the things that may be asked about."""
    carriers = [i for i in seen.carriers(detail) if among is None or i in among]
    if not carriers:
        return None
    i = choice(carriers, rng)
    others = [found[detail] for k, found in enumerate(seen.details) if k != i and detail in found]
    return _detail_choice(detail, seen, i, others, rng, describe=describe)


def cluttered_question(seen: Seen, rng: Rng, describe: Describe) -> ChoiceQuestion | None:
    """A detail of a thing in whose box another thing shows another one, off its mask.

    What the other one shows is among the choices.
    """
    for detail in shuffled(tuple(VALUES), rng):
        pairs = [
            (i, found[detail])
            for i in seen.carriers(detail)
            for k, found in enumerate(seen.details)
            if found.get(detail) in alternatives(detail, seen.details[i][detail])
            and (other := seen.layout[k].detail(detail))
            and _holds(seen.objects[i], *seen.layout[k].place(other).center)
        ]
        if pairs:
            i, intruder = choice(pairs, rng)
            return _detail_choice(
                detail, seen, i, [intruder], rng, describe=describe, kind="cluttered"
            )
    return None


def both_question(
    seen: Seen, rng: Rng, describe: Describe, detail: str = "", among: Sequence[int] | None = None
) -> ChoiceQuestion | None:
    """A comparison of the details of two things that stand close together."""
    detail = detail or choice(tuple(VALUES), rng)
    carriers = [i for i in seen.carriers(detail) if among is None or i in among]
    near = [
        (i, k)
        for i in carriers
        for k in carriers
        if i != k and _distance(seen.layout, i, k) < seen.layout[i].side + seen.layout[k].side
    ]
    if not near:
        return None
    i, k = choice(near, rng)
    shown = seen.details[i][detail], seen.details[k][detail]
    if rng.random() < 0.5 and shown[0] != shown[1]:
        names = tuple(seen.objects[j].category.name for j in (i, k))
        value = choice(shown, rng)
        text = choice(WHICH_PHRASES[detail], rng).format(value, *names)
        order = names if rng.random() < 0.5 else names[::-1]
        answer = order.index(names[shown.index(value)])
        return ChoiceQuestion("both", text, order, answer, (i, k), True)
    words = (describe(seen.objects[j].category, rng) for j in (i, k))
    text = choice(SAME_PHRASES[detail], rng).format(*words)
    return _yes_no("both", text, shown[0] == shown[1], (i, k), rng, look=True)


def relation_question(
    seen: Seen, rng: Rng, describe: Describe, among: Sequence[int] | None = None
) -> ChoiceQuestion | None:
    """Whether one thing is left of, right of, above or below another one, by a clear margin."""
    side, (axis, sign) = choice(tuple(SIDES.items()), rng)
    objects = seen.objects
    yes = bool(rng.random() < 0.5)
    alone = [i for i in range(len(objects)) if seen.alone(i) and (among is None or i in among)]
    for i in shuffled(alone, rng):
        for k in shuffled(alone, rng):
            gap = 0.5 * (square_side(objects[i]) + square_side(objects[k])) / 2
            offset = sign * (objects[i].box.center[axis] - objects[k].box.center[axis])
            if i != k and abs(offset) > gap and (offset > 0) == yes:
                words = [describe(objects[j].category, rng) for j in (i, k)]
                phrase = choice(RELATION_PHRASES, rng)
                text = phrase.format(words[0], choice(WORDINGS[side], rng), words[1])
                return _yes_no("relation", text, yes, (i, k), rng)
    return None


def size_question(seen: Seen, rng: Rng, describe: Describe) -> ChoiceQuestion | None:  # noqa: ARG001
    """Which of two things is bigger or smaller, by a clear margin."""
    word = choice(tuple(SIZE_PHRASES), rng)
    alone = [i for i in range(len(seen.objects)) if seen.alone(i)]
    for i in shuffled(alone, rng):
        for k in shuffled(alone, rng):
            first, second = (seen.objects[j].box.area for j in (i, k))
            if i != k and max(first, second) >= MARGIN * min(first, second):
                names = tuple(seen.objects[j].category.name for j in (i, k))
                text = choice(SIZE_PHRASES[word], rng).format(*names)
                order = names if rng.random() < 0.5 else names[::-1]
                best = names[int((second > first) == (word == "bigger"))]
                return ChoiceQuestion("size", text, order, order.index(best), (i, k), False)
    return None


def count_question(seen: Seen, rng: Rng, describe: Describe) -> ChoiceQuestion | None:  # noqa: ARG001
    """How many things of a name or of a group there are."""
    form = "name" if rng.random() < 0.7 else "group"
    pools = [alike(seen.objects, o, form) for o in seen.objects]
    pools = [(noun, pool) for noun, pool in pools if " of " not in noun]
    several = [pool for pool in pools if len(pool[1]) > 1]
    if not pools or (not several and rng.random() < 0.7):
        return None
    noun, pool = choice(several if several and rng.random() < 0.8 else pools, rng)
    text = choice(COUNT_PHRASES, rng).format(plural(noun))
    low = max(1, len(pool) - int(rng.integers(4)))
    numbers = range(low, max(len(pool), low + int(rng.integers(1, 5))) + 1)
    choices = tuple(str(n) for n in numbers)
    return ChoiceQuestion("count", text, choices, choices.index(str(len(pool))), tuple(pool), False)


def presence_question(seen: Seen, rng: Rng, describe: Describe) -> ChoiceQuestion | None:
    """Whether something is there."""
    yes = bool(rng.random() < 0.5)
    present = {o.category.index for o in seen.objects}
    targets: tuple[int, ...] = ()
    if rng.random() < 0.3:
        shown = {o.category.group for o in seen.objects}
        noun = choice([g for g in groups() if (g in shown) == yes], rng)
        targets = tuple(i for i, o in enumerate(seen.objects) if o.category.group == noun)
    else:
        category = choice([c for c in categories() if (c.index in present) == yes], rng)
        targets = tuple(i for i, o in enumerate(seen.objects) if o.category is category)
        noun = describe(category, rng)
    article = "an" if noun[0].lower() in "aeiou" else "a"
    text = choice(PRESENCE_PHRASES, rng).format(f"{article} {noun}")
    return _yes_no("presence", text, yes, targets, rng)


def absent_question(seen: Seen, rng: Rng, describe: Describe) -> ChoiceQuestion:
    """A detail of a thing that is not there."""
    present = {o.category.index for o in seen.objects}
    missing = choice([c for c in categories() if c.index not in present], rng)
    detail = choice(tuple(VALUES), rng)
    example = sample_value(detail, rng)
    others = [found[detail] for found in seen.details if detail in found]
    choices = _choices(detail, example, others, rng, none=True)
    text = _detail_text(detail, example, describe(missing, rng), rng)
    return ChoiceQuestion("absent", text, choices, choices.index(THERE_IS_NONE), (), False)


MAKERS: dict[str, Callable[[Seen, Rng, Describe], ChoiceQuestion | None]] = {
    **{kind: partial(detail_question, detail=kind) for kind in VALUES},
    "cluttered": cluttered_question,
    "both": both_question,
    "relation": relation_question,
    "size": size_question,
    "count": count_question,
    "presence": presence_question,
    "absent": absent_question,
}


def _detail_choice(
    detail: str,
    seen: Seen,
    i: int,
    others: Sequence[str],
    rng: Rng,
    *,
    describe: Describe,
    kind: str = "",
) -> ChoiceQuestion:
    """The question what the detail of thing i shows; `others`: wrong choices that come first."""
    right = seen.details[i][detail]
    choices = _choices(detail, right, others, rng, none=bool(rng.random() < DISTRACTED))
    text = _detail_text(detail, right, describe(seen.objects[i].category, rng), rng)
    return ChoiceQuestion(kind or detail, text, choices, choices.index(right), (i,), True)


def _detail_text(detail: str, value: str, thing: str, rng: Rng) -> str:
    kind = "digit" if value in DIGITS else "letter"
    return choice(DETAIL_PHRASES[detail], rng).format(thing, c=kind)


def _choices(
    detail: str, right: str, others: Sequence[str], rng: Rng, *, none: bool
) -> tuple[str, ...]:
    """2 to 6 choices for a detail, among them up to two of what other things show.

    Args:
        none: whether THERE_IS_NONE is the last of them.
    """
    pool = alternatives(detail, right)
    shown = [v for v in dict.fromkeys(others) if v in pool][:2]
    wrong = shown + [v for v in shuffled(pool, rng) if v not in shown]
    found = shuffled([right, *wrong[: int(rng.integers(1, MOST_CHOICES - none))]], rng)
    if detail == "spots":
        found.sort()  # as people write numbers
    return (*found, THERE_IS_NONE) if none else tuple(found)


def _yes_no(
    kind: str, text: str, yes: bool, targets: tuple[int, ...], rng: Rng, *, look: bool = False
) -> ChoiceQuestion:
    order = ("yes", "no") if rng.random() < 0.5 else ("no", "yes")
    return ChoiceQuestion(kind, text, order, order.index("yes" if yes else "no"), targets, look)


def _holds(o: SceneObject, x: float, y: float) -> bool:
    """Whether a point, in fractions of the side, lies in an object's box, but off its mask."""
    size = len(o.mask)
    x, y, (x0, y0, x1, y1) = x * size, y * size, o.box.xyxy
    return x0 <= x < x1 and y0 <= y < y1 and not o.mask[int(y), int(x)]


def _distance(layout: Layout, i: int, k: int) -> float:
    return float(np.hypot(layout[i].x - layout[k].x, layout[i].y - layout[k].y))
