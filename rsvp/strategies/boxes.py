"""`boxes`: the plain image, and coordinates in the model's own frame."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from rsvp.errors import BadInput
from rsvp.frames import Frame
from rsvp.parsing import RawStep, RawTarget
from rsvp.strategies import View
from rsvp.strategies.base import CoordinateMap, RegionSchemas, RegionStrategy, array, number_type
from rsvp.types import Box, Proposal


class BoxesStrategy(RegionStrategy[View]):
    """The MLLM writes one box for each target; a proposal's `raw` is the four numbers as written.

    Args:
        argument: none; ``boxes`` takes no argument in a spec.
        max_side: see `RegionStrategy`.
    """

    name = "boxes"
    expect = "box"

    def __init__(self, argument: str | None = None, *, max_side: int | None = None) -> None:
        super().__init__(max_side=max_side)
        if argument is not None:
            raise BadInput(f"the boxes strategy takes no argument, found {argument!r}")

    def region_schemas(self, frame: Frame | None) -> RegionSchemas:
        box = array(number_type(fractions=frame is not None and frame.kind == "0-1"))
        return {"boxes": array(box)}, {frame.box_key if frame is not None else "box": box}

    def step_boxes(self, raw: RawStep, place: CoordinateMap[View]) -> Iterator[Box]:
        for numbers in raw.boxes:
            with contextlib.suppress(BadInput):
                yield place.box(numbers)

    def proposal(self, raw: RawTarget, place: CoordinateMap[View]) -> Proposal:
        numbers = raw.box or ()
        return Proposal(raw.label, place.box(numbers), raw=numbers)
