"""A pipeline's answer to one sample, and the record that it becomes."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from rsvp.datasets import BaseDataset, GroundTruthObject, Sample
from rsvp.errors import (
    AccessDenied,
    BadInput,
    MissingExtra,
    ModelUnavailable,
    RunBudgetExceeded,
    UnparsableReply,
)
from rsvp.evaluation import metrics
from rsvp.evaluation.metrics import ScoringProtocol
from rsvp.evaluation.records import Failure, OracleRecord, Record
from rsvp.images import load_image
from rsvp.masks import encode_rle
from rsvp.reasoning import ReasoningOutput
from rsvp.result import Result, Trace
from rsvp.types import Image, PackedMask, union_of
from rsvp.writers.vrt import marked_text

if TYPE_CHECKING:
    from rsvp.pipeline import Pipeline

log = logging.getLogger(__name__)


T = TypeVar("T")


@dataclass(slots=True)
class Outcome(Generic[T]):
    """What came of one call: a value, or the reason why there is none."""

    value: T | None = None
    failure: Failure | None = None
    raw: str = ""  # the MLLM's reply word for word, where it could not be read
    seconds: float = 0.0  # wall time


@dataclass(frozen=True, slots=True)
class SampleOutcome:
    answer: Outcome[Result]
    oracle: Outcome[Result] | None = None  # of the true boxes; None without any


def open_image(sample: Sample) -> Image:
    """The sample's image; BadInput where it is broken or of another size than the truth."""
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


@dataclass(frozen=True, slots=True)
class Work:
    """The samples that a run still has to answer; see `rsvp.evaluation.engines.local.RunWork`."""

    data: Path  # an engine of several processes opens it in each of them
    open_dataset: Callable[[Path], BaseDataset]
    dataset: BaseDataset  # the same, opened here
    indices: Sequence[int]  # which of its samples, in order
    protocol: ScoringProtocol
    oracle: bool = True  # besides the answer, the masks of the true boxes
    trace: bool = False  # a reasoning path with all of its objects

    def portable(self) -> Work:
        return replace(self, data=self.data.absolute(), dataset=None)  # type: ignore[arg-type]

    def opened(self) -> Work:
        return replace(self, dataset=self.open_dataset(self.data))

    def sample(self, index: int) -> Sample:
        sample: Sample = self.dataset[index]
        return sample

    def open_image(self, sample: Sample) -> Image:
        return open_image(sample)

    def reason(self, pipeline: Pipeline, sample: Sample, image: Image) -> Outcome[ReasoningOutput]:
        with catch(sample.id) as output:
            output.value = pipeline.reason(image, sample.query, trace=self.trace)
        return output

    def segment(
        self,
        pipeline: Pipeline,
        sample: Sample,
        image: Image,
        output: Outcome[ReasoningOutput],
    ) -> SampleOutcome:
        # A failed stage 1 stays failed.
        answer = Outcome[Result](None, output.failure, output.raw)
        if output.value is not None:
            with catch(sample.id) as answer:
                answer.value = pipeline.segment_proposals(image, output.value)
            answer.raw = answer.raw or output.value.reasoning.raw
        answer.seconds += output.seconds
        return self._with_oracle(answer, pipeline, sample, image)

    def _with_oracle(
        self, answer: Outcome[Result], pipeline: Pipeline, sample: Sample, image: Image
    ) -> SampleOutcome:
        """The answer, and the masks of the true boxes where the options ask for them."""
        boxes = list(dict.fromkeys((*sample.boxes, *(one.box for one in sample.path))))
        if not (boxes and self.oracle):
            return SampleOutcome(answer)
        with catch(sample.id) as oracle:
            oracle.value = pipeline.segment(image, sample.query, boxes=boxes)
        return SampleOutcome(answer, oracle)

    def load(self, record: Any) -> Record:
        return Record.model_validate(record)

    def record(self, sample: Sample, outcome: SampleOutcome) -> Record:
        answer, result = outcome.answer, outcome.answer.value
        text, shown = None, result.targets if result else ()
        targets = shown
        if isinstance(result, Trace):  # its answer alone is scored as a segmentation is
            text, shown = marked_text(result)
            targets = tuple(o.target for o in result.answer_objects if o.target)
        more = {} if outcome.oracle is None else {"oracle": outcome.oracle.seconds}
        return Record(
            id=sample.id,
            kind=sample.kind,
            tags=list(sample.tags),
            **_overlap_fields([t.packed for t in targets], sample, self.protocol),
            absent=sample.absent,
            no_target=result.no_target if result and result.understood else None,
            understood=result.understood if result else True,
            masks=[encode_rle(t.mask) for t in shown],
            scores=[_finite(round(float(t.score), 6)) for t in shown],
            boxes=[[round(v, 3) for v in t.box.xyxy] for t in shown],
            labels=[t.label for t in shown],
            raw_numbers=[[_finite(v) for v in t.raw] for t in shown],
            true_boxes=len(sample.boxes),
            matched_boxes=metrics.matched_boxes(sample.boxes, [t.box for t in targets]),
            oracle=_oracle(sample, outcome.oracle, self.protocol) if self.oracle else None,
            text=text,
            agreement=result.agreement if result else None,
            **told(answer, more),
        )


@contextlib.contextmanager
def catch(sample_id: str) -> Iterator[Outcome[Any]]:
    """An outcome that records what goes wrong inside `with`, which concerns this sample alone.

    Raises:
        ModelUnavailable, MissingExtra, AccessDenied, RunBudgetExceeded: every other sample would
            fail too.
    """
    outcome: Outcome[Any] = Outcome()
    started = time.perf_counter()
    try:
        yield outcome
    except (ModelUnavailable, MissingExtra, AccessDenied, RunBudgetExceeded):
        raise
    except Exception as error:  # out of memory, a bug: recorded with its cause, never dropped
        log.debug("sample %s failed", sample_id, exc_info=True)
        message = " ".join(str(error).split())
        outcome.failure = Failure(error=type(error).__name__, message=message)
        outcome.raw = error.raw if isinstance(error, UnparsableReply) else ""
    finally:
        outcome.seconds = time.perf_counter() - started


def _oracle(
    sample: Sample, outcome: Outcome[Result] | None, protocol: ScoringProtocol
) -> OracleRecord | None:
    """The oracle's part of a record; an absent sample has no boxes, and so an empty prediction."""
    if outcome is None and not sample.absent:
        return None
    targets = outcome.value.targets if outcome and outcome.value else ()
    by_box = {t.box.xyxy: t.packed for t in targets}
    empty = PackedMask.pack(np.zeros_like(sample.mask))

    def iou(one: GroundTruthObject) -> float:
        return metrics.iou(metrics.overlap(by_box.get(one.box.xyxy, empty).unpack(), one.mask))

    masks = [by_box.get(box.xyxy, empty) for box in sample.boxes]
    return OracleRecord(
        **_overlap_fields(masks, sample, protocol),
        objects=list(map(iou, sample.objects)),
        path=list(map(iou, sample.path)),
        failure=outcome.failure if outcome else None,
    )


def _overlap_fields(
    masks: Sequence[PackedMask], sample: Sample, protocol: ScoringProtocol
) -> dict[str, Any]:
    """``iou``, ``intersection`` and ``union`` for the union of some masks."""
    truth = metrics.truth(sample, protocol)
    union = union_of(masks, sample.mask.shape)
    shared = metrics.overlap(union, truth.mask, truth.ignore)
    value = None if metrics.skips(shared, protocol) else metrics.iou(shared, protocol)
    return {"iou": value, **asdict(shared)}


def told(outcome: Outcome[Any], seconds: Mapping[str, float] | None = None) -> dict[str, Any]:
    """What every record has of an outcome: why, at what cost, or why not; `seconds` are further."""
    result = outcome.value
    # `total` leaves out the time for which a sample waited for others.
    spent = {**(result.timings if result else {}), "total": outcome.seconds, **(seconds or {})}
    found: dict[str, Any] = {
        "steps": [step.text for step in result.reasoning.steps] if result else [],
        "reason": result.reason if result else "",
        "raw": outcome.raw or (result.reasoning.raw if result else ""),
        "warnings": list(result.warnings) if result else [],
        "usage": result.usage if result else None,
        "prompt_sha256": result.models.prompt_sha256 if result else None,
        "failure": outcome.failure,
        "seconds": {stage: round(value, 6) for stage, value in spent.items()},
    }
    if result is not None:
        for name in ("rounds", "verdicts", "round_costs"):
            found[name] = getattr(result, name)
    return found


def _finite(value: float) -> float | None:
    """JSON has no NaN."""
    return value if math.isfinite(value) else None
