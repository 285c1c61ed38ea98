"""`grid`: the paper's own visual prompt (RSVP, ACL 2025): numbered bands that the MLLM names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from rsvp.drawing import grid_prompt
from rsvp.errors import BadInput, UnparsableReply
from rsvp.frames import Frame, bands_to_box
from rsvp.images import shrink
from rsvp.parsing import RawStep, RawTarget, parse_reply
from rsvp.strategies import MAX_SIDE, View, _schema
from rsvp.types import Image, Proposal, Reasoning, Step

DEFAULT_GRID = "9x9"
MAX_BANDS = 50  # a side; more could not be numbered legibly


class GridStrategy:
    """The MLLM names the rows and columns that each target spans.

    Args:
        argument: ``MxN``, how many rows and columns.
        padding: each named region grows by this fraction of its size on every side, because bands
            are coarse and the segmenter needs the whole target.
        max_side: the view's longer side is shrunk to this many pixels.
    """

    name = "grid"

    def __init__(
        self, argument: str | None = None, *, padding: float = 0.2, max_side: int = MAX_SIDE
    ) -> None:
        self.grid = _parse_grid(DEFAULT_GRID if argument is None else argument)
        if not 0 <= padding <= 10:
            raise BadInput(f"padding is a fraction of the region's size, 0 to 10, found {padding}")
        if max_side < 1:
            raise BadInput(f"max_side is at least 1 pixel, found {max_side}")
        self.padding = padding
        self.max_side = max_side

    def schema(self, cot: bool, frame: Frame | None = None) -> Mapping[str, Any]:  # noqa: ARG002
        numbers = _schema.array({"type": "integer"})
        bands = {"rows": numbers, "columns": numbers}
        return _schema.reply(bands, bands, cot=cot)

    def view(self, image: Image, query: str = "") -> View:  # noqa: ARG002
        rgb = grid_prompt(shrink(image.rgb, self.max_side), self.grid)
        variables = {
            "width": str(rgb.shape[1]),
            "height": str(rgb.shape[0]),
            "rows": str(self.grid[0]),
            "columns": str(self.grid[1]),
        }
        return View(rgb, variables)

    def read(self, text: str, image: Image, view: View, frame: Frame) -> Reasoning:  # noqa: ARG002
        """One proposal a target, its `raw` the rows and then the columns as written.

        Steps get the unpadded region that they name, or none where they name no real bands.

        Raises:
            UnparsableReply: no answer in the text, or a target without bands of the grid.
        """
        reply = parse_reply(text, expect="bands")
        size = (image.height, image.width)

        def step(raw: RawStep) -> Step:
            try:
                box = bands_to_box(raw.rows, raw.columns, grid=self.grid, image_size=size)
            except BadInput:
                return Step(raw.text)
            return Step(raw.text, (box,))

        def proposal(raw: RawTarget) -> Proposal:
            try:
                box = bands_to_box(
                    raw.rows, raw.columns, grid=self.grid, image_size=size, padding=self.padding
                )
            except BadInput as error:
                raise UnparsableReply(str(error), text) from error
            return Proposal(raw.label, box, raw=(*raw.rows, *raw.columns))

        steps = tuple(step(raw) for raw in reply.steps)
        proposals = tuple(proposal(raw) for raw in reply.targets)
        return Reasoning(steps, proposals, reply.reason, text, understood=reply.understood)


def _parse_grid(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"\s*([0-9]{1,3})\s*[xX×]\s*([0-9]{1,3})\s*", text)
    sides = tuple(int(side) for side in found.groups()) if found else ()
    if not sides or not all(1 <= side <= MAX_BANDS for side in sides):
        raise BadInput(f"a grid is MxN with 1 to {MAX_BANDS} rows and columns, found {text!r}")
    return sides[0], sides[1]
