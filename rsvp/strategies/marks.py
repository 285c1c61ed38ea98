"""`marks`: candidates drawn as numbered marks, of which the MLLM names the numbers.

After Set-of-Mark prompting (arXiv:2310.11441). `marks` alone takes the segmenter's own automatic
masks as candidates, `marks:DETECTOR` those of a detector, e.g.
``marks:grounding-dino:IDEA-Research/grounding-dino-tiny``. Either way the boxes of what is named go
on to the segmenter; with `marks:masks` its automatic masks are the result as they are, and so are
those of a detector that segments: `marks:sam3:facebook/sam3`. A target may unite marks of several
phrases.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rsvp import registry
from rsvp.detectors import Candidates, Detector
from rsvp.drawing import draw_marks
from rsvp.drawing.checks import resized_mask
from rsvp.errors import BadInput
from rsvp.frames import Frame
from rsvp.parsing import ParsedReply, RawStep, RawTarget
from rsvp.platform.lru import LRUCache
from rsvp.segmenters import Segmenter
from rsvp.segmenters.embedding_cache import EmbeddingCache
from rsvp.strategies import NO_EXAMPLES, View
from rsvp.strategies.base import (
    INTEGERS,
    CoordinateMap,
    RegionSchemas,
    RegionStrategy,
    size_variables,
)
from rsvp.strategies.candidates import (
    COMMON_PHRASES,
    automatic_detector,
    detector_phrases,
    segmenter_candidates,
    select_candidates,
)
from rsvp.types import Box, Image, PackedMask, Proposal, RgbArray, union_of

AUTO, MASKS = "auto", "masks"
MAX_MARKS = 40  # more can be drawn, but hardly distinguished
PIXELS_PER_MARK = 80  # one mark at most in each square of this side
CACHED_IMAGES = 4  # whose candidates are kept


@dataclass(frozen=True, slots=True)
class MarkedView(View):
    """A view with marks, and what they stand for.

    Attributes:
        candidates: the first of them is mark 1; boxes and masks in pixels of the image.
    """

    candidates: Candidates = field(default_factory=Candidates.none)


class MarksStrategy(RegionStrategy[MarkedView]):
    """The MLLM names the numbers of marks; a proposal's `raw` is the numbers as written.

    A target of several marks gets the box around them, and all of their pixels. A target that is
    named twice counts once. Steps get the boxes of the marks that they name.

    Args:
        argument: a detector's spec, ``auto`` (also by default) for what the segmenter finds by
            itself, or ``masks`` for the same with its automatic masks as the result.
        detector: a detector instead of a spec.
        max_marks: so many candidates at most are marked, those with the best scores; fewer on an
            image too small for so many.
        phrases: what the detector is asked for beside the query.
        ask_phrases: the MLLM is asked what the detector shall look for, in a turn before; by
            default with a detector of concepts (SAM 3).
        max_side: see `RegionStrategy`.

    Raises:
        BadInput: an unknown detector, a number below 1, or phrases for no detector.
        ModelUnavailable: the detector's weights are missing.
    """

    name = "marks"
    expect = "marks"

    def __init__(
        self,
        argument: str | None = None,
        *,
        detector: Detector | None = None,
        max_marks: int = MAX_MARKS,
        phrases: Sequence[str] = COMMON_PHRASES,
        ask_phrases: bool | None = None,
        max_side: int | None = None,
    ) -> None:
        super().__init__(max_side=max_side)
        if max_marks < 1:
            raise BadInput(f"max_marks is at least 1, found {max_marks}")
        if detector is None and argument not in (None, AUTO, MASKS):
            detector = registry.make("detector", str(argument))
        self.own_masks = argument == MASKS
        self.max_marks = max_marks
        if ask_phrases and detector is None:
            raise BadInput("phrases are for a detector, e.g. marks:sam3:facebook/sam3")
        self.phrases = tuple(phrases)
        concepts = bool(getattr(detector, "concepts", False))
        self.ask_phrases = concepts if ask_phrases is None else ask_phrases
        self._named, self._like = tuple[str, ...](), tuple[Box, ...]()
        self._detector = detector
        self._lock = threading.Lock()
        self._candidates: LRUCache[Candidates] = LRUCache(CACHED_IMAGES)

    def check_segmenter(self, segmenter: Segmenter) -> None:
        """See `NeedsSegmenter`; any segmenter will do where a detector finds the candidates."""
        if self._detector is None:
            automatic_detector(segmenter)

    def looking_for(self, phrases: Sequence[str], like: Sequence[Box]) -> MarksStrategy:
        """See `TakesPhrases`; the candidates of the last few images are shared."""
        if like and not getattr(self._detector, "concepts", False):
            raise BadInput(NO_EXAMPLES.format(self.name))
        made = copy.copy(self)
        made._named, made._like = tuple(phrases), tuple(like)
        return made

    def region_schemas(self, frame: Frame | None) -> RegionSchemas:
        return {"marks": INTEGERS}, {"marks": INTEGERS}

    def draw(
        self, rgb: RgbArray, image: Image, query: str, cache: EmbeddingCache | None
    ) -> MarkedView:
        """The image with its candidates marked; those of the last few images are kept."""
        fitting = rgb.shape[0] * rgb.shape[1] // PIXELS_PER_MARK**2
        found = self._find(image, query, min(self.max_marks, max(1, fitting)), cache)
        scale = np.array([rgb.shape[1] / image.width, rgb.shape[0] / image.height] * 2)
        boxes = [Box(*corners) for corners in (found.boxes.astype(float) * scale).tolist()]
        size = (rgb.shape[0], rgb.shape[1])
        masks = None
        if found.masks is not None:
            small = [resized_mask(mask.unpack(), size) for mask in found.masks]
            masks = np.array(small, dtype=np.bool_).reshape(-1, *size)
        drawn, _ = draw_marks(rgb, boxes, masks)
        variables = {**size_variables(rgb), "marks_range": marks_range(len(found))}
        return MarkedView(drawn, variables, found)

    def checked_view(self, view: View) -> MarkedView:
        if not isinstance(view, MarkedView):
            raise BadInput("marks are read with the view that they were drawn on")
        return view

    def targets(self, reply: ParsedReply) -> Iterator[RawTarget]:
        unique: dict[object, RawTarget] = {}
        for raw in reply.targets:
            unique.setdefault((raw.label, frozenset(raw.marks)), raw)
        yield from unique.values()

    def step_boxes(self, raw: RawStep, place: CoordinateMap[MarkedView]) -> Iterator[Box]:
        for number in raw.marks:
            if 1 <= number <= len(place.view.candidates):
                yield _box_around(place.view.candidates, [number - 1], place.image_size)

    def proposal(self, raw: RawTarget, place: CoordinateMap[MarkedView]) -> Proposal:
        found = place.view.candidates
        unknown = [number for number in raw.marks if not 1 <= number <= len(found)]
        if unknown:
            marks = marks_range(len(found))
            raise BadInput(f"no mark has the number {unknown[0]}; marks on the image: {marks}")
        rows = sorted({number - 1 for number in raw.marks})
        masks = found.masks if self.own_masks or self._detector is not None else None
        return Proposal(
            raw.label,
            _box_around(found, rows, place.image_size),
            raw=raw.marks,
            mask=None if masks is None else _union([masks[row] for row in rows]),
            score=None if masks is None else float(found.scores[rows].min()),
        )

    def _find(
        self, image: Image, query: str, limit: int, cache: EmbeddingCache | None
    ) -> Candidates:
        detector = self._detector
        if detector is None and cache is None:
            raise BadInput(
                "marks need candidates: a detector, or a pipeline whose segmenter finds them"
            )
        phrases, like = self._named, self._like
        if detector is not None:
            phrases = phrases or detector_phrases(query, self.phrases)

        def find() -> Candidates:
            if detector is not None:
                more: dict[str, Any] = {"like": like} if like else {}
                return select_candidates(detector.candidates(image, phrases, **more), image, limit)
            assert cache is not None
            return select_candidates(segmenter_candidates(cache, image), image, limit)

        source = cache if detector is None else None
        key = (source, image.sha256, image.rgb.shape, limit, phrases, like)
        with self._lock:  # several queries on one image wait for the first one's candidates
            return self._candidates.get(key, find)


def marks_range(count: int) -> str:
    """Which numbers are drawn: `1 to 12`, `1 alone`, or `there are none in this image`."""
    return {0: "there are none in this image", 1: "1 alone"}.get(count, f"1 to {count}")


def _box_around(candidates: Candidates, rows: Sequence[int], size: tuple[int, int]) -> Box:
    """The box around the candidates of these rows, inside an image of (height, width)."""
    x0, y0 = candidates.boxes[rows, :2].min(axis=0).tolist()
    x1, y1 = candidates.boxes[rows, 2:].max(axis=0).tolist()
    return Box(x0, y0, min(x1, float(size[1])), min(y1, float(size[0])))


def _union(masks: Sequence[PackedMask]) -> PackedMask:
    return PackedMask.pack(union_of(masks, masks[0].size))
