"""What a batch does with each item: segment, trace, or answer a question."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rsvp.answer import DEFAULT_LOOKS, DEFAULT_ZOOM, Zoom, make_answer_request
from rsvp.batch.items import BatchItem
from rsvp.errors import BadInput
from rsvp.evaluation.config import answer_prompts, describe_pipeline
from rsvp.pipeline import Pipeline
from rsvp.reasoning import ReasoningOutput
from rsvp.result import Result
from rsvp.types import Image


@dataclass(frozen=True, slots=True)
class SegmentTask:
    """`rsvp.pipeline.Pipeline.segment`, or `trace`: the query is then the question.

    Attributes:
        one_stage: stage 1 needs the segmenter too, and its output is the result.
    """

    trace: bool = False
    one_stage: bool = False

    @property
    def name(self) -> str:
        return "trace" if self.trace else "segment"

    def check(self, pipeline: Pipeline) -> None:
        if self.trace:
            pipeline.check_traces()

    def described(self, pipeline: Pipeline) -> dict[str, Any]:
        return describe_pipeline(pipeline, trace=self.trace)

    def reason(
        self, pipeline: Pipeline, item: BatchItem, image: Image
    ) -> ReasoningOutput | Result | None:
        """Both stages where there are hints, and none where there are boxes or points."""
        request = item.request(image)
        if request.prompts and self.trace:
            raise BadInput("a reasoning path takes no boxes and points")
        if request.hint:
            return pipeline.run_trace(request) if self.trace else pipeline.run(request)
        if request.prompts:
            return None
        return pipeline.reason(image, request.query, trace=self.trace)


@dataclass(frozen=True, slots=True)
class AnswerTask:
    """`rsvp.pipeline.Pipeline.answer`; the query is the question.

    Attributes:
        zoom, looks: see there.
    """

    zoom: str = DEFAULT_ZOOM
    looks: int = DEFAULT_LOOKS
    name: str = "answer"
    one_stage: bool = True

    def check(self, pipeline: Pipeline) -> None:
        pipeline.check_answers(Zoom.parse(self.zoom))

    def described(self, pipeline: Pipeline) -> dict[str, Any]:
        """The pipeline, all prompts, and how closer looks are shown."""
        found = describe_pipeline(pipeline)
        prompts = {**found["prompts"], **answer_prompts(pipeline)}
        return {**found, "prompts": prompts, "zoom": self.zoom, "looks": self.looks}

    def reason(self, pipeline: Pipeline, item: BatchItem, image: Image) -> Result:
        asked = make_answer_request(
            item.request(image), item.choices, zoom=self.zoom, looks=self.looks
        )
        return pipeline.run_answer(asked)


Task = SegmentTask | AnswerTask
"""`check` refuses a pipeline that cannot do it, `described` is what decides the records, `reason`
is stage 1: None where there is nothing to reason, a result where stage 2 is done too."""
