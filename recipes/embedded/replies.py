"""The replies that the embedded reasoner learns to write, for every strategy.

They are the JSON that `rsvp.parsing` reads, in the order of the paper's chain of thought: what is
asked for, which objects matter and where they are, whether it is present, where it is, why. They
consist of fixed FRAGMENTS (one token each in the embedded tokenizer), names and NUMBERS.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from rsvp.embedded.queries import Query
from rsvp.embedded.rendering import SceneObject
from rsvp.frames import box_to_bands
from rsvp.types import BoolMask, Box

GRID = (9, 9)

QUESTIONS = {
    "name": "The question names a thing.",
    "keyword": "The question tells what a thing is for.",
    "group": "The question names a sort of thing.",
    "attribute": "The question asks for a size.",
    "relation": "The question tells where a thing is, seen from others.",
    "ordinal": "The question counts things in a row.",
    "all": "The question asks for all of a sort.",
    "hidden": "The question asks for something partly covered.",
    "described": "The question describes a thing.",
    "several": "The question names several things.",
    "except": "The question leaves something out.",
    "complement": "The question tells what a thing is not.",
    "everything": "The question asks for everything of a sort.",
    "comparative": "The question compares two sizes.",
    "colour": "The question asks for a colour.",
    "counted": "The question tells how many things there are.",
    "extreme": "The question asks for what is furthest to a side.",
    "position": "The question tells a place in the image.",
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
    "described": " is what was described.",
    "several": " and all others that were named are marked.",
    "except": " is left when the others are taken away.",
    "complement": " is not of the sort that was named.",
    "everything": " and everything else of the sort is marked.",
    "comparative": " has the size of the two that was asked for.",
    "colour": " has the colour that was asked for.",
    "counted": " and as many others as were asked for are marked.",
    "extreme": " is furthest to the side that was asked for.",
    "position": " is at the place that was asked for.",
}
NO_REASON = "Nothing in the image fits the question."

# The whole reply, one token, to an image that is no rendered scene.
NOT_UNDERSTOOD = (
    '{"targets":[],"understood":false,'
    '"reason":"This is not a rendered scene, and rendered scenes are all that I know."}'
)

FIRST_STEP = '{"steps":[{"text":"'
NEXT_STEP = ',{"text":"'
IS_THERE = " is there"
PRESENT = ',{"text":"So it is in the image."'
ABSENT = ',{"text":"So it is not in the image."'
TARGETS = '],"targets":['
TARGETS_ONLY = '{"targets":['
FIRST_LABEL = '{"label":"'
NEXT_LABEL = ',{"label":"'
REASON = '],"reason":"'
END = '"}'
# What says where, from the comma on; after a name or a text a quote closes that first.
NO_REGION = {
    "boxes": ',"boxes":[]}',
    "grid": ',"rows":[],"columns":[]}',
    "marks": ',"marks":[]}',
    "points": ',"points":[]}',
}
QUOTED_NO_REGION = {strategy: '"' + text for strategy, text in NO_REGION.items()}
STEP_BOX, STEP_BOX_END = '","boxes":[[', "]}"
BOX, ROWS, COLUMNS, MARKS = '","box":[', '","rows":[', ',"columns":[', '","marks":['
POINTS, POINTS_END = '","points":[[', "]}"
CLOSE = "}"

# The order decides on the token ids.
FRAGMENTS = tuple(
    dict.fromkeys(
        [
            NOT_UNDERSTOOD, *QUESTIONS.values(), *REASONS.values(), NO_REASON, FIRST_STEP,
            NEXT_STEP, IS_THERE, PRESENT, ABSENT, TARGETS, TARGETS_ONLY, FIRST_LABEL, NEXT_LABEL,
            REASON, END, *NO_REGION.values(), *QUOTED_NO_REGION.values(), STEP_BOX, STEP_BOX_END,
            BOX, ROWS, COLUMNS, MARKS, POINTS, CLOSE,
        ]
    )
)  # fmt: skip
NUMBERS = tuple(f"{n}{end}" for end in (",", "]") for n in range(101))

Piece = tuple[str, int | None]  # text, and the index of the object that it speaks of


def reply_pieces(
    query: Query,
    objects: Sequence[SceneObject],
    size: tuple[int, int],
    strategy: str,
    *,
    cot: bool,
    marks: Mapping[int, int] | None = None,
) -> list[Piece]:
    """The true reply in pieces.

    Args:
        size: (height, width) of the image, in which the objects' boxes are pixels.
        strategy: "boxes", "grid", "points" or "marks".
        cot: write the chain of thought, else the targets alone.
        marks: object -> the number of its mark, at least of every target; for "marks" alone.
    """

    def region(i: int, *, step: bool) -> Piece:
        if strategy == "marks":
            return mark_region((marks or {}).get(i)), i
        if strategy == "points":
            return point_region(objects[i], size), i
        return box_region(objects[i].box, size, strategy, step=step), i

    def name(i: int) -> Piece:
        return objects[i].category.name, i

    pieces: list[str | Piece] = [TARGETS_ONLY]
    if cot:
        pieces = [FIRST_STEP, QUESTIONS[query.form], QUOTED_NO_REGION[strategy]]
        for i in query.reasoning:
            pieces += [NEXT_STEP, name(i), IS_THERE, region(i, step=True)]
        pieces += [PRESENT if query.targets else ABSENT, NO_REGION[strategy], TARGETS]
    for k, i in enumerate(query.targets):
        pieces += [NEXT_LABEL if k else FIRST_LABEL, name(i), region(i, step=False)]
    pieces.append(REASON)
    pieces += [name(query.targets[0]), REASONS[query.kind]] if query.targets else [NO_REASON]
    return [(p, None) if isinstance(p, str) else p for p in [*pieces, END]]


def box_region(box: Box, size: tuple[int, int], strategy: str, *, step: bool) -> str:
    """The end of a step or target that says where: a box, or the bands that it covers."""
    if strategy == "boxes":
        numbers = number_list(box_percent(box, size))
        return STEP_BOX + numbers + STEP_BOX_END if step else BOX + numbers + CLOSE
    rows, columns = box_to_bands(box, grid=GRID, image_size=size)
    return ROWS + number_list(rows) + COLUMNS + number_list(columns) + CLOSE


def point_region(o: SceneObject, size: tuple[int, int]) -> str:
    """The end of a step or target that names a point on an object."""
    height, width = size
    x, y = inner_point(o.mask)
    return POINTS + number_list([round(100 * x / width), round(100 * y / height)]) + POINTS_END


def inner_point(mask: BoolMask) -> tuple[float, float]:
    """x, y in pixels: the point of an (H, W) mask, not empty, that is nearest to its centroid."""
    ys, xs = np.nonzero(mask)
    nearest = int(((ys - ys.mean()) ** 2 + (xs - xs.mean()) ** 2).argmin())
    return float(xs[nearest]) + 0.5, float(ys[nearest]) + 0.5


def mark_region(number: int | None) -> str:
    """The end of a step or target that names the mark of an object, if it has one."""
    return QUOTED_NO_REGION["marks"] if number is None else MARKS + number_list([number]) + CLOSE


def box_percent(box: Box, size: tuple[int, int]) -> list[int]:
    """The xyxy of a pixel box as whole percent of the (height, width) image."""
    height, width = size
    return [round(100 * v / (width, height)[i % 2]) for i, v in enumerate(box.xyxy)]


def number_list(values: Sequence[int]) -> str:
    """`[12, 30]` without its opening bracket: `12,30]`."""
    return ",".join(str(v) for v in values) + "]"
