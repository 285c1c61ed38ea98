"""What a batch does with each item, in two stages: segment it, or answer a question about it.

A task says what it is called, which pipelines it cannot use (`check`), what decides its records
besides the pipeline (`settings`), and runs its stages. An output of stage 1 can be pickled; one
that is a result already goes through stage 2 as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from rsvp.answer import DEFAULT_LOOKS, DEFAULT_ZOOM, Zoom, make_answer_request
from rsvp.batch.items import BatchItem
from rsvp.evaluation.config import answer_prompts
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

    def settings(self, pipeline: Pipeline) -> dict[str, Any]:
        """What else decides the records."""

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
    """`rsvp.pipeline.Pipeline.segment`."""

    name: str = "segment"
    one_stage: bool = False

    def check(self, pipeline: Pipeline) -> None:
        """Every pipeline segments."""

    def settings(self, pipeline: Pipeline) -> dict[str, Any]:  # noqa: ARG002
        """None."""
        return {}

    def reason(
        self, pipeline: Pipeline, item: BatchItem, image: Image
    ) -> ReasoningOutput | Result | None:
        """Both stages where there are hints, and none where there are boxes or points."""
        request = _request(item, image)
        if request.hint:
            return pipeline.run(request)
        return None if request.prompts else pipeline.reason(image, request.query)

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
        Zoom.parse(self.zoom)
        pipeline.check_answers()

    def settings(self, pipeline: Pipeline) -> dict[str, Any]:
        """How closer looks are shown, and the prompts."""
        return {"zoom": self.zoom, "looks": self.looks, "prompts": answer_prompts(pipeline)}

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
