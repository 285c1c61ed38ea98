"""`marks`: candidates drawn as numbered marks, of which the MLLM names the numbers.

After Set-of-Mark prompting (arXiv:2310.11441). `marks` alone takes the segmenter's own automatic
masks as candidates, `marks:DETECTOR` those of a detector, e.g.
``marks:grounding-dino:IDEA-Research/grounding-dino-tiny``. Either way the boxes of what is named go
on to the segmenter; with `marks:masks` its automatic masks are the result as they are.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image as Pil

from rsvp import registry
from rsvp.detectors import Candidates, Detector
from rsvp.drawing import mark_prompt
from rsvp.errors import BadInput, UnparsableReply
from rsvp.frames import Frame
from rsvp.images import shrink
from rsvp.parsing import RawStep, RawTarget, parse_reply
from rsvp.strategies import MAX_SIDE, SharedSegmenter, View, _schema
from rsvp.strategies._candidates import (
    COMMON_PHRASES,
    FromDetector,
    FromSegmenter,
    Kept,
    Source,
    best,
)
from rsvp.types import BoolMask, Box, Image, Proposal, Reasoning, Step

AUTO, READY = "auto", "masks"
MOST_MARKS = 40  # more can be drawn, but hardly told apart
ROOM = 80  # pixels: an image has room for one mark in each square of this side
KEPT = 4  # images whose candidates are kept


@dataclass(frozen=True, slots=True)
class MarkedView(View):
    """A view with marks, and what they stand for.

    Attributes:
        candidates: the first of them is mark 1; boxes and masks in pixels of the image.
    """

    candidates: Candidates = field(default_factory=Candidates.none)

    @property
    def numbers(self) -> str:
        """Which numbers are drawn, in words."""
        return numbers_in_words(len(self.candidates))


def numbers_in_words(n: int) -> str:
    """`1 to 12`, `1 alone`, or `there are none in this image`."""
    return "there are none in this image" if n == 0 else "1 alone" if n == 1 else f"1 to {n}"


class MarksStrategy:
    """The MLLM names the numbers of marks.

    Args:
        argument: a detector's spec, ``auto`` (also by default) for what the segmenter finds by
            itself, or ``masks`` for the same with its masks ready.
        detector: a detector instead of a spec.
        most: so many candidates at most are marked, those with the best scores; fewer on an image
            that has no room for so many.
        phrases: what the detector is asked for beside the query.
        max_side: the view's longer side is shrunk to this many pixels.

    Raises:
        BadInput: an unknown detector, or a number below 1.
        ModelUnavailable: the detector's weights are missing.
    """

    name = "marks"

    def __init__(
        self,
        argument: str | None = None,
        *,
        detector: Detector | None = None,
        most: int = MOST_MARKS,
        phrases: Sequence[str] = COMMON_PHRASES,
        max_side: int = MAX_SIDE,
    ) -> None:
        if most < 1 or max_side < 1:
            raise BadInput(f"most and max_side are at least 1, found {most} and {max_side}")
        self.ready = argument == READY
        if detector is None and argument not in (None, AUTO, READY):
            detector = registry.make("detector", str(argument))
        self.most, self.max_side = most, max_side
        self._source: Source | None = FromDetector(detector, phrases) if detector else None
        self._found, self._finding = Kept(KEPT), threading.Lock()

    def with_segmenter(self, shared: SharedSegmenter) -> MarksStrategy:
        """This strategy, with the segmenter's automatic masks as candidates if it has no other."""
        if self._source is not None:
            return self
        strategy = MarksStrategy(
            READY if self.ready else None, most=self.most, max_side=self.max_side
        )
        strategy._source = FromSegmenter(shared)
        return strategy

    def schema(self, cot: bool, frame: Frame | None = None) -> Mapping[str, Any]:  # noqa: ARG002
        marks = {"marks": _schema.array({"type": "integer"})}
        return _schema.reply(marks, marks, cot=cot)

    def view(self, image: Image, query: str = "") -> MarkedView:
        """The image with its candidates marked; of an image seen lately they are found already."""
        candidates = self._candidates(image, query)
        rgb = shrink(image.rgb, self.max_side)
        across, down = rgb.shape[1] / image.width, rgb.shape[0] / image.height
        boxes = [
            Box(x0 * across, y0 * down, x1 * across, y1 * down)
            for x0, y0, x1, y1 in candidates.boxes.astype(float).tolist()
        ]
        drawn = mark_prompt(rgb, boxes, _resized(candidates.masks, rgb.shape[:2]))
        variables = {
            "width": str(rgb.shape[1]),
            "height": str(rgb.shape[0]),
            "marks_range": numbers_in_words(len(candidates)),
        }
        return MarkedView(drawn, variables, candidates)

    def read(self, text: str, image: Image, view: View, frame: Frame) -> Reasoning:  # noqa: ARG002
        """One proposal a target, its `raw` the numbers as written; a target said twice counts once.

        A target of several marks gets the box around them, and all of their pixels. Steps get the
        boxes of the marks that they name, as far as there are such.

        Raises:
            UnparsableReply: no answer in the text, or a target with a number that no mark has.
        """
        if not isinstance(view, MarkedView):
            raise BadInput("marks are read with the view that they were drawn on")
        reply = parse_reply(text, expect="marks")
        found = view.candidates
        size = (image.height, image.width)

        def step(raw: RawStep) -> Step:
            rows = (number - 1 for number in raw.marks if 1 <= number <= len(found))
            return Step(raw.text, tuple(_box(found, [row], size) for row in rows))

        def proposal(raw: RawTarget) -> Proposal:
            unknown = [number for number in raw.marks if not 1 <= number <= len(found)]
            if unknown:
                raise UnparsableReply(
                    f"no mark has the number {unknown[0]}; marks on the image: {view.numbers}", text
                )
            rows = sorted({number - 1 for number in raw.marks})
            masks = found.masks if self.ready else None
            return Proposal(
                raw.label,
                _box(found, rows, size),
                raw=raw.marks,
                mask=None if masks is None else np.logical_or.reduce(masks[rows]),
                score=None if masks is None else float(found.scores[rows].min()),
            )

        steps = tuple(step(raw) for raw in reply.steps)
        named: dict[object, RawTarget] = {}
        for raw in reply.targets:
            named.setdefault((raw.label, frozenset(raw.marks)), raw)
        proposals = tuple(proposal(raw) for raw in named.values())
        return Reasoning(steps, proposals, reply.reason, text, understood=reply.understood)

    def _candidates(self, image: Image, query: str) -> Candidates:
        source = self._source
        if source is None:
            raise BadInput(
                "marks need candidates: a detector, or a pipeline whose segmenter finds them"
            )
        asked = source.asked(query)
        across, down = min(1.0, self.max_side / max(image.width, image.height)) * np.array(
            [image.width, image.height]
        )
        most = min(self.most, max(1, int(across * down / ROOM**2)))
        with self._finding:  # several queries on one image wait for the first one's candidates
            return self._found.get(
                (image.sha256, image.rgb.shape, asked),
                lambda: best(source.find(image, asked), image, most),
            )


def _box(candidates: Candidates, rows: Sequence[int], size: tuple[int, int]) -> Box:
    """The box around the candidates of these rows, inside an image of (height, width)."""
    x0, y0 = candidates.boxes[rows, :2].min(axis=0).tolist()
    x1, y1 = candidates.boxes[rows, 2:].max(axis=0).tolist()
    return Box(x0, y0, min(x1, float(size[1])), min(y1, float(size[0])))


def _resized(masks: BoolMask | None, size: tuple[int, ...]) -> BoolMask | None:
    """(n, h, w) masks at the view's size."""
    if masks is None or masks.shape[1:] == size:
        return masks
    small = [
        np.asarray(Pil.fromarray(mask).resize((size[1], size[0]), Pil.Resampling.NEAREST))
        for mask in masks
    ]
    return np.array(small, dtype=np.bool_).reshape(-1, *size)
