"""`points`: the plain image, and points on each target, in the model's own frame.

They go straight to the segmenter: those on the target, those on what it is not, and, with
`points:box`, the target's box.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from rsvp.errors import BadInput, UnparsableReply
from rsvp.frames import Frame, to_box, to_point
from rsvp.images import shrink
from rsvp.parsing import RawTarget, parse_reply
from rsvp.strategies import MAX_SIDE, View, _schema
from rsvp.types import Image, Point, Proposal, Reasoning, Step


class PointsStrategy:
    """The MLLM points at each target, and at what beside it is none of it.

    Args:
        argument: ``box`` asks for each target's box as well; none for points alone.
        max_side: the view's longer side is shrunk to this many pixels.

    Attributes:
        name: ``points``, or ``points-box`` with boxes.
    """

    def __init__(self, argument: str | None = None, *, max_side: int = MAX_SIDE) -> None:
        if argument not in (None, "box"):
            raise BadInput(f"the points strategy is points or points:box, found {argument!r}")
        if max_side < 1:
            raise BadInput(f"max_side is at least 1 pixel, found {max_side}")
        self.with_box = argument == "box"
        self.name = "points-box" if self.with_box else "points"
        self.max_side = max_side

    def schema(self, cot: bool, frame: Frame | None = None) -> Mapping[str, Any]:
        kind = frame.kind if frame is not None else ""
        point = _schema.array({"type": "number" if kind in ("0-1", "percent") else "integer"})
        side = _schema.array({"type": "number" if kind == "0-1" else "integer"})
        points = _schema.array(point)
        target = {"points": points, "not": points, **({"box": side} if self.with_box else {})}
        return _schema.reply({"points": points}, target, cot=cot)

    def view(self, image: Image, query: str = "") -> View:  # noqa: ARG002
        rgb = shrink(image.rgb, self.max_side)
        return View(rgb, {"width": str(rgb.shape[1]), "height": str(rgb.shape[0])})

    def read(self, text: str, image: Image, view: View, frame: Frame) -> Reasoning:
        """One proposal a target, its `raw` the points, those of "not", then the box, as written.

        Boxes are taken where the model gives them, asked for or not. Points of "not" that lie
        outside the image say nothing and are left out; steps name no region.

        Raises:
            UnparsableReply: no answer in the text, a target without a point on it, or with a point
                or a box outside the image.
        """
        reply = parse_reply(text, expect="points", y_first=frame.y_first)
        sizes = {"view_size": view.size, "image_size": (image.height, image.width)}

        def off(pair: tuple[float, float]) -> Point | None:
            try:
                return replace(to_point(pair, frame, **sizes), positive=False)
            except BadInput:
                return None

        def proposal(raw: RawTarget) -> Proposal:
            numbers = tuple(n for pair in (*raw.points, *raw.negative) for n in pair)
            try:
                on = [to_point(pair, frame, **sizes) for pair in raw.points]
                box = to_box(raw.box, frame, **sizes) if raw.box else None
            except BadInput as error:
                raise UnparsableReply(str(error), text) from error
            others = [point for pair in raw.negative if (point := off(pair)) is not None]
            return Proposal(raw.label, box, (*on, *others), raw=(*numbers, *(raw.box or ())))

        steps = tuple(Step(raw.text) for raw in reply.steps)
        proposals = tuple(proposal(raw) for raw in reply.targets)
        return Reasoning(steps, proposals, reply.reason, text, understood=reply.understood)
