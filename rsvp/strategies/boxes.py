"""`boxes`: the plain image, and coordinates in the model's own frame."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rsvp.errors import BadInput, UnparsableReply
from rsvp.frames import Frame, to_box
from rsvp.images import shrink
from rsvp.parsing import RawStep, RawTarget, parse_reply
from rsvp.strategies import MAX_SIDE, View, _schema
from rsvp.types import Box, Image, Proposal, Reasoning, Step


class BoxesStrategy:
    """The MLLM writes one box for each target.

    Args:
        argument: none; ``boxes`` takes no argument in a spec.
        max_side: the view's longer side is shrunk to this many pixels.
    """

    name = "boxes"

    def __init__(self, argument: str | None = None, *, max_side: int = MAX_SIDE) -> None:
        if argument is not None:
            raise BadInput(f"the boxes strategy takes no argument, found {argument!r}")
        if max_side < 1:
            raise BadInput(f"max_side is at least 1 pixel, found {max_side}")
        self.max_side = max_side

    def schema(self, cot: bool, frame: Frame | None = None) -> Mapping[str, Any]:
        fractions = frame is not None and frame.kind == "0-1"
        box = _schema.array({"type": "number" if fractions else "integer"})
        return _schema.reply({"boxes": _schema.array(box)}, {"box": box}, cot=cot)

    def view(self, image: Image, query: str = "") -> View:  # noqa: ARG002
        rgb = shrink(image.rgb, self.max_side)
        return View(rgb, {"width": str(rgb.shape[1]), "height": str(rgb.shape[0])})

    def read(self, text: str, image: Image, view: View, frame: Frame) -> Reasoning:
        """One proposal a target, its `raw` the four numbers as written.

        Boxes of steps only illustrate, so those without area in the image are left out.

        Raises:
            UnparsableReply: no answer in the text, or a target without a usable box.
        """
        reply = parse_reply(text, expect="box", y_first=frame.y_first)

        def place(numbers: tuple[float, ...]) -> Box:
            size = (image.height, image.width)
            return to_box(numbers, frame, view_size=view.size, image_size=size)

        def step(raw: RawStep) -> Step:
            boxes = []
            for numbers in raw.boxes:
                try:
                    boxes.append(place(numbers))
                except BadInput:
                    continue
            return Step(raw.text, tuple(boxes))

        def proposal(raw: RawTarget) -> Proposal:
            numbers = raw.box or ()
            try:
                return Proposal(raw.label, place(numbers), raw=numbers)
            except BadInput as error:
                raise UnparsableReply(str(error), text) from error

        steps = tuple(step(raw) for raw in reply.steps)
        proposals = tuple(proposal(raw) for raw in reply.targets)
        return Reasoning(steps, proposals, reply.reason, text, understood=reply.understood)
