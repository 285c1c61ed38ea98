"""One sample, answered and scored: the line of `records.jsonl` that says all about it.

`records.jsonl` is also a predictions file: `id`, `masks` and `scores` are what `rsvp score` reads.

    id, kind, tags          of the sample
    iou, intersection, union  of the union of the predicted masks with the truth, by the protocol;
                            iou is null where it leaves the sample out
    absent                  truly nothing there
    no_target               answered so; null where there was no answer
    masks, scores, boxes, labels   of the predicted targets: COCO RLE, 0 to 1, xyxy pixels
    true_boxes, matched_boxes      how many objects were asked for, and found at box IoU >= 0.5
    oracle                  the segmenter on the true boxes: iou, intersection, union, objects (the
                            IoU of each), failure; null where it was not asked
    text                    of benchmarks that score the path to the answer: the steps and the
                            answer, with a [SEG] for each mask
    steps, reason, raw      the reasoner's thoughts, its reason, and its reply word for word
    warnings, usage, prompt_sha256   as in `result.json`
    failure                 null, or {error, message}: then the prediction counts as empty
    seconds                 per stage
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import numpy as np

from rsvp.datasets import Sample
from rsvp.errors import BadInput, MissingExtra, ModelUnavailable, UnparsableReply
from rsvp.evaluation import tracing
from rsvp.evaluation.metrics import Overlap, iou, matched_boxes, overlap, skips, truth
from rsvp.evaluation.metrics import Protocol as Rules
from rsvp.images import load_image
from rsvp.masks import encode_rle
from rsvp.reasoning import ReasoningOutput
from rsvp.result import Result
from rsvp.types import BoolMask, Box, Image

Record = dict[str, Any]

BOX_THRESHOLD = 0.5
STAGE_ORACLE, STAGE_TOTAL = "oracle", "total"

log = logging.getLogger(__name__)


class Segmenting(Protocol):
    """What an evaluation needs of a pipeline."""

    def segment(self, image: Image, query: str, boxes: Sequence[Box] | None = None) -> Result:
        """`rsvp.pipeline.Pipeline.segment`."""
        ...


@runtime_checkable
class Staged(Segmenting, Protocol):
    """A pipeline whose stages can be run apart, so that they may overlap."""

    async def areason(self, image: Image, query: str) -> ReasoningOutput:
        """`rsvp.pipeline.Pipeline.areason`."""
        ...

    def segment_proposals(self, image: Image, conclusion: ReasoningOutput) -> Result:
        """`rsvp.pipeline.Pipeline.segment_proposals`."""
        ...


T = TypeVar("T")


@dataclass(slots=True)
class Attempt(Generic[T]):
    """What came of one call: a value, or the reason why there is none.

    Attributes:
        raw: the reasoner's reply word for word, where it could not be read.
        seconds: wall time.
    """

    value: T | None = None
    failure: Mapping[str, str] | None = None
    raw: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Asked:
    """What the segmenter is asked besides.

    Attributes:
        oracle: the masks of the true boxes.
        path: the masks of the boxes that the reasoner's steps name, where these are scored too.
    """

    oracle: bool = True
    path: bool = False


@dataclass(frozen=True, slots=True)
class Answers:
    """What a pipeline made of one sample.

    Attributes:
        own: its own answer.
        oracle, path: what else was asked; None where the run does not ask, or there are no boxes.
    """

    own: Attempt[Result]
    oracle: Attempt[Result] | None = None
    path: Attempt[Result] | None = None


def answer(pipeline: Segmenting, sample: Sample, image: Image, asked: Asked) -> Answers:
    """Both stages, one after the other."""
    with _kept(sample.id) as own:
        own.value = pipeline.segment(image, sample.query)
    return _with_boxes(own, pipeline, sample, image, asked)


async def conclude(pipeline: Staged, sample: Sample, image: Image) -> Attempt[ReasoningOutput]:
    """Stage 1 alone."""
    with _kept(sample.id) as thought:
        thought.value = await pipeline.areason(image, sample.query)
    return thought


def segment_proposals(
    pipeline: Staged, sample: Sample, image: Image, thought: Attempt[ReasoningOutput], asked: Asked
) -> Answers:
    """Stage 2 alone, in whatever thread or process it is called; a failed stage 1 stays failed."""
    own = Attempt[Result](None, thought.failure, thought.raw)
    if thought.value is not None:
        with _kept(sample.id) as own:
            own.value = pipeline.segment_proposals(image, thought.value)
        own.raw = own.raw or thought.value.reasoning.raw
    own.seconds += thought.seconds
    return _with_boxes(own, pipeline, sample, image, asked)


def open_image(sample: Sample) -> Image:
    """The sample's image.

    Raises:
        BadInput: it is broken, or of another size than the truth; one line with file and id.
    """
    try:
        image = load_image(sample.image)
    except BadInput as error:
        raise BadInput(f"sample {sample.id}: {error}") from error
    if (image.height, image.width) != sample.mask.shape:
        height, width = sample.mask.shape
        raise BadInput(
            f"sample {sample.id}: {image.path or 'its image'} is {image.width}x{image.height}, "
            f"its truth {width}x{height}"
        )
    return image


def score(sample: Sample, answers: Answers, rules: Rules, asked: Asked) -> Record:
    """The record of an answered sample."""
    own, result = answers.own, answers.own.value
    targets = result.targets if result else ()
    held = truth(sample, rules)
    shared = overlap(_union([t.mask for t in targets], held.mask.shape), held.mask, held.ignore)
    path = tracing.path_targets(answers.path.value, result) if answers.path else ()
    shown = (*path, *targets)
    return {
        "id": sample.id,
        "kind": sample.kind,
        "tags": list(sample.tags),
        **_scores(shared, rules),
        "absent": sample.absent,
        "no_target": result.no_target if result else None,
        "masks": [encode_rle(t.mask) for t in shown],
        "scores": [_finite(t.score) for t in shown],
        "boxes": [[round(v, 3) for v in t.box.xyxy] for t in shown],
        "labels": [t.label for t in shown],
        "true_boxes": len(sample.boxes),
        "matched_boxes": matched_boxes(sample.boxes, [t.box for t in targets], BOX_THRESHOLD),
        "oracle": _oracle(sample, answers.oracle, rules) if asked.oracle else None,
        **({"text": tracing.as_text(result, path)} if asked.path and result else {}),
        "steps": [step.text for step in result.reasoning.steps] if result else [],
        "reason": result.reasoning.reason if result else "",
        "raw": own.raw or (result.reasoning.raw if result else ""),
        "warnings": list(result.warnings) if result else [],
        "usage": asdict(result.usage) if result else None,
        "prompt_sha256": result.models.prompt_sha256 if result else None,
        "failure": own.failure,
        "seconds": _seconds(answers),
    }


def _with_boxes(
    own: Attempt[Result], pipeline: Segmenting, sample: Sample, image: Image, asked: Asked
) -> Answers:
    """The answer, and what else is asked."""

    def cut(boxes: Sequence[Box]) -> Attempt[Result] | None:
        if not boxes:
            return None
        with _kept(sample.id) as given:
            given.value = pipeline.segment(image, sample.query, boxes=list(boxes))
        return given

    steps = tracing.step_boxes(own.value) if asked.path and own.value else ()
    return Answers(own, cut(sample.boxes) if asked.oracle else None, cut(steps))


@contextlib.contextmanager
def _kept(sample_id: str) -> Iterator[Attempt[Any]]:
    """An attempt that keeps whatever goes wrong inside `with`, for it is this one sample's.

    Raises:
        ModelUnavailable, MissingExtra: nothing would go right with any other sample either.
    """
    attempt: Attempt[Any] = Attempt()
    started = time.perf_counter()
    try:
        yield attempt
    except (ModelUnavailable, MissingExtra):
        raise
    except Exception as error:  # out of memory, a bug: kept with its cause, never dropped
        log.debug("sample %s failed", sample_id, exc_info=True)
        message = " ".join(str(error).split())
        attempt.failure = {"error": type(error).__name__, "message": message}
        attempt.raw = error.raw if isinstance(error, UnparsableReply) else ""
    finally:
        attempt.seconds = time.perf_counter() - started


def _oracle(sample: Sample, attempt: Attempt[Result] | None, rules: Rules) -> Record | None:
    """The oracle's part of a record; an absent sample has no boxes, and so an empty prediction."""
    if attempt is None and not sample.absent:
        return None
    result, held = attempt.value if attempt else None, truth(sample, rules)
    masks = _masks_of_boxes(result, sample) if result else []
    shared = overlap(_union(masks, held.mask.shape), held.mask, held.ignore)
    masks = masks or [np.zeros_like(sample.mask)] * len(sample.objects)
    pairs = zip(masks, sample.objects, strict=True)
    return {
        **_scores(shared, rules),
        "objects": [iou(overlap(mask, one.mask)) for mask, one in pairs],
        "failure": attempt.failure if attempt else None,
    }


def _masks_of_boxes(result: Result, sample: Sample) -> list[BoolMask]:
    """The mask of each true box, in the objects' order; empty for a box without a target."""
    by_box = {t.box.xyxy: t.mask for t in result.targets}
    nothing = np.zeros_like(sample.mask)
    return [by_box.get(box.xyxy, nothing) for box in sample.boxes]


def _scores(shared: Overlap, rules: Rules) -> Record:
    return {"iou": None if skips(shared, rules) else iou(shared, rules), **asdict(shared)}


def _union(masks: Sequence[BoolMask], shape: tuple[int, ...]) -> BoolMask:
    union = np.zeros(shape, dtype=np.bool_)
    for mask in masks:
        union |= mask
    return union


def _seconds(answers: Answers) -> dict[str, float]:
    """Per stage; `total` leaves out what a sample waited for another's turn."""
    own = answers.own
    stages = dict(own.value.timings) if own.value else {}
    stages[STAGE_TOTAL] = own.seconds
    if answers.oracle is not None:
        stages[STAGE_ORACLE] = answers.oracle.seconds
    return {stage: round(seconds, 6) for stage, seconds in stages.items()}


def _finite(value: float) -> float | None:
    """JSON has no NaN."""
    return round(float(value), 6) if math.isfinite(value) else None
