"""Questions with choices about large scenes of small things with details.

The details (a character on a tag, the colour of a dot, the way of an arrow, a number of spots) are
too small for the embedded reasoner's view of the whole scene; relations, counts and presence are
not. `scenes.json` of ``--task qa`` holds for each question its choices, the index of the right one,
the objects that it is about, and whether it needs a closer look.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from rsvp.embedded import backgrounds
from rsvp.embedded.details import (
    DIGITS,
    VALUES,
    WHOLE,
    Layout,
    alternatives,
    place,
    sample_value,
)
from rsvp.embedded.drafts import (
    SIDES,
    Rng,
    alike,
    by_size,
    choice,
    different,
    fitting,
    further,
    shuffled,
    square_side,
)
from rsvp.embedded.layouts import Seen, sample_layout, see
from rsvp.embedded.rendering import (
    ATTEMPTS,
    DEFAULT_STYLES,
    BaseScene,
    SceneObject,
    object_entry,
    paint,
    question_scenes,
    visible_objects,
)
from rsvp.embedded.traces import PLACES, Describe, plain_name
from rsvp.embedded.vocabulary import categories, groups, plural
from rsvp.embedded.wording import TABLES
from rsvp.errors import RsvpError
from rsvp.types import RgbArray

SMALLEST_SCENE, LARGEST_SCENE = 1200, 2400  # side, pixels
THERE_IS_NONE = "there is none"
YES_NO = ("yes", "no")
MOST_CHOICES = 6
DISTRACTED = 0.25  # share of the detail questions with THERE_IS_NONE as a wrong choice

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
class QaScene(BaseScene):
    """A large scene with questions; the things of its layout are its objects, in the same order."""

    layout: Layout
    questions: tuple[ChoiceQuestion, ...]

    def to_dict(self, name: str) -> dict[str, Any]:
        objects = []
        for o, thing in zip(self.objects, self.layout, strict=True):
            shown: dict[str, Any] = dict.fromkeys(("tag", "dot", "arrow")) | {"spots": 0}
            shown |= {d.kind: int(d.value) if d.kind == "spots" else d.value for d in thing.details}
            objects.append(object_entry(o) | shown)
        return self.entry(name, objects, questions=map(asdict, self.questions))


def render_qa(
    rng: Rng,
    *,
    kind: str | None = None,
    size: int | None = None,
    count: int = 1,
    photos: Sequence[RgbArray] = (),
    describe: Describe = plain_name,
    styles: Sequence[str] = DEFAULT_STYLES,
) -> QaScene:
    """One scene, its first question of this kind or of a random one; see `render_trace`.

    Args:
        size: None for 1,200 to 2,400 at random. Questions and layout do not depend on it.

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
    return QaScene(canvas, objects, seen.layout, questions)


qa_scenes = partial(question_scenes, render_qa, TURNS)


def compose(
    kind: str, count: int, rng: Rng, describe: Describe, styles: Sequence[str]
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
        if seen and (first := MAKERS[kind](seen, rng, describe)):
            break
    else:
        raise RsvpError(f"no scene allowed a question of kind {kind!r} in {ATTEMPTS} attempts")
    others = (MAKERS[other](seen, rng, describe) for other in further(TURNS, count, rng))
    return seen, different(first, others, count)


def detail_question(
    seen: Seen, rng: Rng, describe: Describe, detail: str, among: Sequence[int] | None = None
) -> ChoiceQuestion | None:
    """What a detail of a thing shows; `among`: the things that may be asked about."""
    carriers = seen.carriers(detail, among)
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
    carriers = seen.carriers(detail, among)
    near = [(i, k) for i in carriers for k in carriers if i != k and seen.near(i, k)]
    if not near:
        return None
    i, k = choice(near, rng)
    shown = seen.details[i][detail], seen.details[k][detail]
    if rng.random() < 0.5 and shown[0] != shown[1]:
        names = [seen.objects[j].category.name for j in (i, k)]
        value = choice(shown, rng)
        text = choice(TABLES["which"][detail], rng).format(value, *names)
        right = names[shown.index(value)]
        return _either("both", text, names, right, targets=(i, k), rng=rng, look=True)
    words = (describe(seen.objects[j].category, rng) for j in (i, k))
    text = choice(TABLES["same"][detail], rng).format(*words)
    right = YES_NO[shown[0] != shown[1]]
    return _either("both", text, YES_NO, right, targets=(i, k), rng=rng, look=True)


def relation_question(
    seen: Seen, rng: Rng, describe: Describe, among: Sequence[int] | None = None
) -> ChoiceQuestion | None:
    """Whether one thing is left of, right of, above or below another one, by a clear margin."""
    side, (axis, sign) = choice(tuple(SIDES.items()), rng)
    objects = seen.objects
    yes = bool(rng.random() < 0.5)
    single = seen.alone(among)
    for i in shuffled(single, rng):
        for k in shuffled(single, rng):
            gap = 0.5 * (square_side(objects[i]) + square_side(objects[k])) / 2
            offset = sign * (objects[i].box.center[axis] - objects[k].box.center[axis])
            if i != k and abs(offset) > gap and (offset > 0) == yes:
                words = [describe(objects[j].category, rng) for j in (i, k)]
                phrase = choice(TABLES["ask"]["relation"], rng)
                text = phrase.format(words[0], choice(PLACES[side], rng), words[1])
                right = YES_NO[not yes]
                return _either("relation", text, YES_NO, right, targets=(i, k), rng=rng)
    return None


def size_question(seen: Seen, rng: Rng, describe: Describe) -> ChoiceQuestion | None:  # noqa: ARG001
    """Which of two things is bigger or smaller, by a clear margin."""
    word = choice(tuple(TABLES["size"]), rng)
    single = seen.alone()
    for i in shuffled(single, rng):
        for k in shuffled(single, rng):
            if i != k and (order := by_size(seen.objects, (i, k), -1)):
                names = [seen.objects[j].category.name for j in (i, k)]
                text = choice(TABLES["size"][word], rng).format(*names)
                best = seen.objects[order[0 if word == "bigger" else 1]].category.name
                return _either("size", text, names, best, targets=(i, k), rng=rng)
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
    text = choice(TABLES["ask"]["count"], rng).format(plural(noun))
    low = max(1, len(pool) - int(rng.integers(4)))
    numbers = range(low, max(len(pool), low + int(rng.integers(1, 5))) + 1)
    choices = tuple(str(n) for n in numbers)
    return ChoiceQuestion("count", text, choices, choices.index(str(len(pool))), tuple(pool), False)


def presence_question(seen: Seen, rng: Rng, describe: Describe) -> ChoiceQuestion | None:
    yes = bool(rng.random() < 0.5)
    present = {o.category.index for o in seen.objects}
    if rng.random() < 0.3:
        shown = {o.category.group for o in seen.objects}
        noun = choice([g for g in groups() if (g in shown) == yes], rng)
        targets = [i for i, o in enumerate(seen.objects) if o.category.group == noun]
    else:
        category = choice([c for c in categories() if (c.index in present) == yes], rng)
        targets = fitting(seen.objects, frozenset([category.index]))
        noun = describe(category, rng)
    article = "an" if noun[0].lower() in "aeiou" else "a"
    text = choice(TABLES["ask"]["presence"], rng).format(f"{article} {noun}")
    return _either("presence", text, YES_NO, YES_NO[not yes], targets=targets, rng=rng)


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
    return choice(TABLES["detail"][detail], rng).format(thing, c=kind)


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


def _either(
    kind: str,
    text: str,
    choices: Sequence[str],
    right: str,
    *,
    targets: Sequence[int],
    rng: Rng,
    look: bool = False,
) -> ChoiceQuestion:
    """A question with two choices in random order."""
    order = tuple(choices) if rng.random() < 0.5 else tuple(choices[::-1])
    return ChoiceQuestion(kind, text, order, order.index(right), tuple(targets), look)


def _holds(o: SceneObject, x: float, y: float) -> bool:
    """Whether a point, in fractions of the side, lies in an object's box, but off its mask."""
    size = len(o.mask)
    x, y, (x0, y0, x1, y1) = x * size, y * size, o.box.xyxy
    return x0 <= x < x1 and y0 <= y < y1 and not o.mask[int(y), int(x)]
