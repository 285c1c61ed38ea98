"""The replies of the tasks beside segmentation: look, answer, trace and verify.

Like those of `recipes.embedded.replies` they are JSON of FRAGMENTS, names and numbers; the answers
to questions are WORDS.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from recipes.embedded.replies import (
    BOX,
    CLOSE,
    END,
    FIRST_LABEL,
    IS_THERE,
    NEXT_LABEL,
    NEXT_STEP,
    Piece,
    box_percent,
    box_region,
    inner_point,
    mark_region,
    number_list,
)
from rsvp.embedded.details import ARROWS, COLOURS, DIGITS, LETTERS
from rsvp.embedded.questions import THERE_IS_NONE, ChoiceQuestion
from rsvp.embedded.rendering import SceneObject
from rsvp.embedded.traces import STEPS, TraceQuestion
from rsvp.types import Box
from rsvp.verify import MAX_TARGETS

# -- look and answer

LOOK, LOOK_NEXT = '{"reason":"It is too small to read.","look":["', '","'
LOOK_END = '"],"answer":null}'
NO_LOOK = {
    "seen": '{"reason":"It can be seen at once.","look":[],"answer":"',
    "absent": '{"reason":"It is not in the picture.","look":[],"answer":"',
}
ANSWER = {
    "seen": '{"reason":"It can be seen at once.","answer":"',
    "absent": '{"reason":"It is not in the picture.","answer":"',
    "read": '{"reason":"It can be read here.","answer":"',
    "guess": '{"reason":"It is too small to read, so this is a guess.","answer":"',
}

# -- trace

NO_PATH = '{"path":[],"answer":"none","answer_objects":[]}'
PATH = '{"path":[{"text":"'
OBJECTS, STEP_END = '","objects":[{"label":"', "]}"
PATH_ANSWER, ANSWER_OBJECTS = '],"answer":"', '","answer_objects":[{"label":"'
PATH_NONE = '],"answer":"none","answer_objects":[]}'
POINT = '","point":['

# -- verify

VERDICTS, NO_VERDICTS = '{"verdicts":[', '{"verdicts":[],"missing":['
TARGET = tuple(f'{"," if n > 1 else VERDICTS}{{"target":{n},' for n in range(1, MAX_TARGETS + 1))
VERDICT = {
    "accept": '"verdict":"accept"}',
    "reject": '"verdict":"reject"}',
    "correct": '"verdict":"correct","box":[',
}
MISSING = '],"missing":['

# What a question may be answered with, beside names; with its end one token, which prompts do not
# hold: there the same words are those of the questions.
WORDS = (
    *DIGITS, "10", "11", "12", *LETTERS, *COLOURS, *ARROWS, "yes", "no", THERE_IS_NONE,
)  # fmt: skip

# The order decides on the token ids.
TASK_FRAGMENTS = (
    LOOK, LOOK_NEXT, LOOK_END, *NO_LOOK.values(), *ANSWER.values(), NO_PATH, PATH, OBJECTS,
    STEP_END, *STEPS.values(), PATH_ANSWER, ANSWER_OBJECTS, PATH_NONE, POINT, NO_VERDICTS,
    *TARGET, *VERDICT.values(), MISSING, *(word + END for word in WORDS),
)  # fmt: skip


def look_pieces(question: ChoiceQuestion, objects: Sequence[SceneObject]) -> list[Piece]:
    """The true reply to a question, before any look: what to look at, or the answer."""
    if not question.needs_look:
        return _answer(NO_LOOK[_reason(question)], question, objects)
    pieces: list[Piece] = [(LOOK, None)]
    for k, i in enumerate(question.targets):
        pieces += [(LOOK_NEXT, None)] if k else []
        pieces.append((objects[i].category.name, i))
    return [*pieces, (LOOK_END, None)]


def answer_pieces(
    question: ChoiceQuestion, objects: Sequence[SceneObject], *, close: bool
) -> list[Piece]:
    """The true answer to a question.

    Args:
        close: the picture is a close look, else the view of the whole scene.
    """
    reason = _reason(question)
    if question.needs_look:
        reason = "read" if close else "guess"
    return _answer(ANSWER[reason], question, objects)


def _reason(question: ChoiceQuestion) -> str:
    absent = question.kind in ("absent", "presence") and not question.targets
    return "absent" if absent else "seen"


def _answer(start: str, question: ChoiceQuestion, objects: Sequence[SceneObject]) -> list[Piece]:
    """The answer speaks of the object that it names, else of the first one asked about."""
    text = question.answer_text
    named = [i for i in question.targets if objects[i].category.name == text]
    about = next(iter((*named, *question.targets)), None)
    if text in WORDS:
        return [(start, about), (text + END, about)]
    return [(start, about), (text, about), (END, None)]


def trace_pieces(
    question: TraceQuestion,
    objects: Sequence[SceneObject],
    strategy: str,
    marks: Mapping[int, int] | None = None,
) -> list[Piece]:
    """The true reasoning path and answer of a question.

    Args:
        strategy: "boxes", "grid", "points" or "marks".
        marks: object -> the number of its mark, for "marks" alone.
    """

    def labelled(i: int) -> list[Piece]:
        return [(objects[i].category.name, i), (_region(objects[i], strategy, marks, i), i)]

    if not question.path:
        return [(NO_PATH, None)]
    pieces: list[Piece] = []
    for k, step in enumerate(question.path):
        i = step.object
        pieces.append((NEXT_STEP if k else PATH, None))
        pieces += [(step.before, i)] if step.before else []
        pieces.append((objects[i].category.name, i))
        pieces += [(IS_THERE, i)] if step.after else []
        pieces += [(OBJECTS, None), *labelled(i), (STEP_END, None)]
    if not question.answer_objects:
        return [*pieces, (PATH_NONE, None)]
    (answer,) = question.answer_objects
    pieces += [(PATH_ANSWER, None), (objects[answer].category.name, answer)]
    return [*pieces, (ANSWER_OBJECTS, None), *labelled(answer), (STEP_END, None)]


def _region(o: SceneObject, strategy: str, marks: Mapping[int, int] | None, i: int) -> str:
    size = (o.mask.shape[0], o.mask.shape[1])
    if strategy == "marks":
        return mark_region((marks or {}).get(i))
    if strategy == "points":
        x, y = inner_point(o.mask)
        percent = [round(100 * x / size[1]), round(100 * y / size[0])]
        return POINT + number_list(percent) + CLOSE
    return box_region(o.box, size, strategy, step=False)


class MaskVerdict(NamedTuple):
    """What is to be said about a target.

    Attributes:
        verdict: "accept", "reject" or "correct".
        object: that its mask shows mostly, if any.
        box: the right one, in pixels, for "correct" alone.
    """

    verdict: str
    object: int | None
    box: Box | None = None


def verify_pieces(
    verdicts: Sequence[MaskVerdict],
    missing: Sequence[int],
    objects: Sequence[SceneObject],
    size: int,
) -> list[Piece]:
    """The true verdicts on targets 1 … n and the objects that are missing.

    Args:
        size: side of the square image, pixels.
    """

    def box(b: Box) -> str:
        return number_list(box_percent(b, (size, size))) + CLOSE

    pieces: list[Piece] = [] if verdicts else [(NO_VERDICTS, None)]
    for k, (verdict, i, right) in enumerate(verdicts):
        pieces += [(TARGET[k], i), (VERDICT[verdict] + (box(right) if right else ""), i)]
    pieces += [(MISSING, None)] if verdicts else []
    for k, i in enumerate(missing):
        pieces += [
            (NEXT_LABEL if k else FIRST_LABEL, None),
            (objects[i].category.name, i),
            (BOX + box(objects[i].box), i),
        ]
    return [*pieces, (STEP_END, None)]
