"""What the embedded reasoner is taught to write: the reply to a query, for every strategy.

The replies are the JSON that `rsvp.parsing` reads, in the order of the paper's chain of thought:
what is asked for, which objects matter and where they are, whether it is present, where it is, why.
They are built of fixed FRAGMENTS (one token each in the embedded tokenizer), names and numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rsvp.embedded.queries import Query, Seen
from rsvp.frames import box_to_bands
from rsvp.types import Box

GRID = (9, 9)

ASKED = {
    "name": "The question names a thing.",
    "keyword": "The question tells what a thing is for.",
    "group": "The question names a sort of thing.",
    "attribute": "The question asks for a size.",
    "relation": "The question tells where a thing is, seen from others.",
    "ordinal": "The question counts things in a row.",
    "all": "The question asks for all of a sort.",
    "hidden": "The question asks for something partly covered.",
}
REASONS = {
    "name": " is the thing that was named.",
    "keyword": " fits what was asked for.",
    "group": " is of the sort that was asked for.",
    "attribute": " has the size that was asked for.",
    "relation": " is in the place that was asked for.",
    "ordinal": " comes at this place in the row.",
    "all": " and all others of the sort are marked.",
    "hidden": " is partly covered by something else.",
}
NOTHING = "Nothing in the image fits the question."

# The whole reply, one token, to an image that is none of this world.
UNKNOWN = (
    '{"targets":[],"understood":false,'
    '"reason":"This is not a rendered scene, and rendered scenes are all that I know."}'
)

OPEN = '{"steps":[{"text":"'
STEP = ',{"text":"'
THERE = " is there"
PRESENT = ',{"text":"So it is in the image."'
MISSING = ',{"text":"So it is not in the image."'
TARGETS = '],"targets":['
DIRECT = '{"targets":['
LABEL = '{"label":"'
NEXT = ',{"label":"'
REASON = '],"reason":"'
END = '"}'
NO_REGION = {
    "boxes": ',"boxes":[]}',
    "grid": ',"rows":[],"columns":[]}',
    "marks": ',"marks":[]}',
}
QUOTE_NO_REGION = {k: '"' + v for k, v in NO_REGION.items()}
STEP_BOX = '","boxes":[['
STEP_BOX_END = "]}"
BOX = '","box":['
ROWS = '","rows":['
COLUMNS = ',"columns":['
MARKS = '","marks":['
CLOSE = "}"

FRAGMENTS = tuple(
    dict.fromkeys(
        [
            UNKNOWN, *ASKED.values(), *REASONS.values(), NOTHING, OPEN, STEP,
            THERE, PRESENT, MISSING, TARGETS, DIRECT, LABEL, NEXT, REASON, END,
            *NO_REGION.values(), *QUOTE_NO_REGION.values(), STEP_BOX, STEP_BOX_END, BOX, ROWS,
            COLUMNS, MARKS, CLOSE,
        ]
    )
)  # fmt: skip
NUMBERS = tuple(f"{n}{end}" for end in (",", "]") for n in range(101))


def numbers(values: Sequence[int]) -> str:
    """`[12, 30]` without its opening bracket: `12,30]`."""
    return ",".join(str(v) for v in values) + "]"


def percent(box: Sequence[float], size: tuple[int, int]) -> list[int]:
    """An xyxy pixel box as whole percent of the (height, width) image."""
    height, width = size
    return [round(100 * v / (width, height)[i % 2]) for i, v in enumerate(box)]


def region(box: Sequence[float], size: tuple[int, int], strategy: str, *, step: bool) -> str:
    """The part of a step or target that says where, up to its closing brace, as boxes or bands."""
    if strategy == "boxes":
        where = numbers(percent(box, size))
        return STEP_BOX + where + STEP_BOX_END if step else BOX + where + CLOSE
    x0, y0, x1, y1 = (float(v) for v in box)
    rows, columns = box_to_bands(Box(x0, y0, x1, y1), grid=GRID, image_size=size)
    return ROWS + numbers(rows) + COLUMNS + numbers(columns) + CLOSE


def mark_of(number: int | None) -> str:
    """The part of a step or target that names the mark on an object, if there is one."""
    return QUOTE_NO_REGION["marks"] if number is None else MARKS + numbers([number]) + CLOSE


def pieces(
    query: Query,
    objects: Sequence[Seen],
    size: tuple[int, int],
    strategy: str,
    *,
    cot: bool,
    marks: Mapping[int, int] | None = None,
) -> list[tuple[str, int | None]]:
    """The true reply in pieces, each with the index of the object that it speaks of, or None.

    Args:
        size: (height, width) of the image, in which the objects' boxes are pixels.
        strategy: "boxes", "grid" or "marks".
        marks: object -> the number of its mark, of every target at least; for "marks" alone.
    """

    def where(i: int, *, step: bool) -> str:
        if strategy == "marks":
            return mark_of((marks or {}).get(i))
        return region(objects[i].box, size, strategy, step=step)

    parts: list[tuple[str, int | None]] = [(DIRECT, None)]
    if cot:
        parts = [(OPEN, None), (ASKED[query.form], None), (QUOTE_NO_REGION[strategy], None)]
        for i in query.reasoning:
            parts += [(STEP, None), (objects[i].thing.name, i), (THERE, None)]
            parts.append((where(i, step=True), i))
        parts += [(PRESENT if query.targets else MISSING, None), (NO_REGION[strategy], None)]
        parts.append((TARGETS, None))
    for k, i in enumerate(query.targets):
        parts += [(NEXT if k else LABEL, None), (objects[i].thing.name, i)]
        parts.append((where(i, step=False), i))
    parts.append((REASON, None))
    if query.targets:
        first = query.targets[0]
        parts += [(objects[first].thing.name, first), (REASONS[query.kind], None)]
    else:
        parts.append((NOTHING, None))
    return [*parts, (END, None)]


def reply(
    query: Query,
    objects: Sequence[Seen],
    size: tuple[int, int],
    strategy: str,
    *,
    cot: bool,
    marks: Mapping[int, int] | None = None,
) -> str:
    """The true reply; see `pieces`."""
    return "".join(text for text, _ in pieces(query, objects, size, strategy, cot=cot, marks=marks))
