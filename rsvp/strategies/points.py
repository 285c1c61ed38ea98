"""`points`: the plain image, and points on each target, in the model's own frame.

They go straight to the segmenter: those on the target, those on what it is not, and, with
`points:box`, the target's box.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace

from rsvp.errors import BadInput
from rsvp.frames import Frame
from rsvp.parsing import RawTarget
from rsvp.strategies import View
from rsvp.strategies.base import CoordinateMap, RegionSchemas, RegionStrategy, array, number_type
from rsvp.types import Point, Proposal


class PointsStrategy(RegionStrategy[View]):
    """The MLLM points at each target, and at what beside it is not part of it.

    A proposal's `raw` is the points, those of "not", then the box, as written. Boxes are taken
    where the model gives them, asked for or not; points of "not" outside the image are left out.

    Args:
        argument: ``box`` asks for each target's box as well; none for points alone.
        max_side: see `RegionStrategy`.

    Attributes:
        name: ``points``, or ``points-box`` with boxes.
    """

    expect = "points"

    def __init__(self, argument: str | None = None, *, max_side: int | None = None) -> None:
        super().__init__(max_side=max_side)
        if argument not in (None, "box"):
            raise BadInput(f"the points strategy is points or points:box, found {argument!r}")
        self.with_box = argument == "box"
        self.name = "points-box" if self.with_box else "points"

    def region_schemas(self, frame: Frame | None) -> RegionSchemas:
        kind = frame.kind if frame is not None else ""
        points = array(array(number_type(fractions=kind in ("0-1", "percent"))))
        key = frame.box_key if frame is not None else "box"
        box = {key: array(number_type(fractions=kind == "0-1"))} if self.with_box else {}
        return {"points": points}, {"points": points, "not": points, **box}

    def proposal(self, raw: RawTarget, place: CoordinateMap[View]) -> Proposal:
        positive = [place.point(pair) for pair in raw.points]
        box = place.box(raw.box) if raw.box else None
        negative: list[Point] = []
        for pair in raw.negative:
            with contextlib.suppress(BadInput):
                negative.append(replace(place.point(pair), positive=False))
        numbers = tuple(n for pair in (*raw.points, *raw.negative) for n in pair)
        return Proposal(raw.label, box, (*positive, *negative), raw=(*numbers, *(raw.box or ())))
