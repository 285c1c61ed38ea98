"""What a batch does with each item, in two stages: segment, trace, or answer a question.

A task says what it is called, which pipelines it cannot use (`check`), what decides its records
(`described`), and runs its stages. An output of stage 1 can be pickled; one
that is a result already goes through stage 2 as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from rsvp.answer import DEFAULT_LOOKS, DEFAULT_ZOOM, Zoom, make_answer_request
from rsvp.batch.items import BatchItem
from rsvp.errors import BadInput
from rsvp.evaluation.config import answer_prompts, describe_pipeline
from rsvp.pipeline import Pipeline
from rsvp.reasoning import ReasoningOutput
from rsvp.request import Request, make_request
from rsvp.result import Answer, Result
from rsvp.types import Image


class Task(Protocol):
    """See the module.

    Attributes:
        name: as ``--task`` has it.
        one_stage: stage 1 needs the segmenter too, and leaves nothing to stage 2.
    """

    @property
    def name(self) -> str: ...
    @property
    def one_stage(self) -> bool: ...

    def check(self, pipeline: Pipeline) -> None:
        """BadInput where the pipeline cannot do it."""

    def described(self, pipeline: Pipeline) -> dict[str, Any]:
        """What decides the records."""

    def reason(
        self, pipeline: Pipeline, item: BatchItem, image: Image
    ) -> ReasoningOutput | Result | None:
        """Stage 1."""

    def segment(
        self, pipeline: Pipeline, item: BatchItem, image: Image, output: ReasoningOutput | None
    ) -> Result:
        """Stage 2."""


@dataclass(frozen=True, slots=True)
class SegmentTask:
    """`rsvp.pipeline.Pipeline.segment`, or `trace`: the query is then the question."""

    trace: bool = False
    one_stage: bool = False

    @property
    def name(self) -> str:
        """The name."""
        return "trace" if self.trace else "segment"

    def check(self, pipeline: Pipeline) -> None:
        """BadInput where a path is asked of an MLLM that cannot give one."""
        if self.trace:
            pipeline.check_traces()

    def described(self, pipeline: Pipeline) -> dict[str, Any]:
        """The pipeline alone."""
        return describe_pipeline(pipeline, trace=self.trace)

    def reason(
        self, pipeline: Pipeline, item: BatchItem, image: Image
    ) -> ReasoningOutput | Result | None:
        """Both stages where there are hints, and none where there are boxes or points."""
        request = _request(item, image)
        if request.prompts and self.trace:
            raise BadInput("a reasoning path takes no boxes and points")
        if request.hint:
            return pipeline.run_trace(request) if self.trace else pipeline.run(request)
        if request.prompts:
            return None
        return pipeline.reason(image, request.query, trace=self.trace)

    def segment(
        self, pipeline: Pipeline, item: BatchItem, image: Image, output: ReasoningOutput | None
    ) -> Result:
        """Stage 2."""
        if output is None:
            return pipeline.run(_request(item, image))
        return pipeline.segment_proposals(image, output)


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
        """BadInput where there is no MLLM, or it cannot answer."""
        pipeline.check_answers(Zoom.parse(self.zoom))

    def described(self, pipeline: Pipeline) -> dict[str, Any]:
        """The pipeline, all prompts, and how closer looks are shown."""
        found = describe_pipeline(pipeline)
        prompts = {**found["prompts"], **answer_prompts(pipeline)}
        return {**found, "prompts": prompts, "zoom": self.zoom, "looks": self.looks}

    def reason(self, pipeline: Pipeline, item: BatchItem, image: Image) -> Answer:
        """The whole dialogue."""
        request, choices = _request(item, image), item.choices
        return pipeline.run_answer(
            make_answer_request(request, choices, zoom=self.zoom, looks=self.looks)
        )

    def segment(
        self, pipeline: Pipeline, item: BatchItem, image: Image, output: ReasoningOutput | None
    ) -> Result:
        """Never needed."""
        raise NotImplementedError


def _request(item: BatchItem, image: Image) -> Request:
    asked = item.asked
    asked.pop("choices", None)
    return make_request(image, **asked)
