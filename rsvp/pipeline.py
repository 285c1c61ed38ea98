"""image + query -> prompter -> proposals -> segmenter -> masks."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from rsvp import given, hints, presets, registry
from rsvp.dialogue import Manner, Question, Thought, check_taught, converse
from rsvp.encodings import Encodings
from rsvp.errors import BadInput
from rsvp.frames import Frame
from rsvp.given import BoxLike, PointLike
from rsvp.hints import Hint
from rsvp.images import ImageSource, load_image
from rsvp.mllm import MLLM
from rsvp.outcome import doubts_about, targets_of
from rsvp.result import Result
from rsvp.segmenters import Segmenter
from rsvp.strategies import LooksAhead, Strategy
from rsvp.types import Image, ModelNames, Proposal, Reasoning, Reply, Target, Usage

Item = tuple[ImageSource, str]

# Profile -> mean token probability below which a reply is doubted. The embedded reasoner learned
# that a coordinate's neighbours are nearly right, so that it is never sure of one: on 180 scenes
# the first percentile is 0.72, the median 0.78.
LOW_CONFIDENCE: Mapping[str, float] = {"compact": 0.68}
UNSURE = "the reasoner was unsure of this image"  # how the warning about it begins
KEPT_ENCODINGS = 4  # of the images seen last; some 16 MB each with SAM 2, and the image itself


@dataclass(slots=True)
class _Job:
    """One query on its way through the stages."""

    image: Image
    query: str
    proposals: tuple[Proposal, ...]
    hint: Hint = field(default_factory=Hint)
    thought: Thought | None = None
    timings: dict[str, float] = field(default_factory=dict)
    started: float = field(default_factory=time.perf_counter)

    def concluded(self, thought: Thought) -> None:
        """Take over what stage 1 proposes."""
        self.thought = thought
        self.proposals = hints.inside(self.hint, thought.reasoning.proposals)

    @contextlib.contextmanager
    def clock(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.timings[stage] = self.timings.get(stage, 0.0) + time.perf_counter() - started


@dataclass(frozen=True, slots=True)
class ReasoningOutput:
    """What stage 1 leaves to stage 2: small, picklable, without the image.

    Attributes:
        timings: seconds spent so far, by stage.
    """

    query: str
    thought: Thought
    timings: Mapping[str, float]


class Pipeline:
    """Two-stage reasoning segmentation: an MLLM proposes, a segmenter cuts out.

    Safe to share between threads; the segmenter runs one call at a time, and an image that comes
    again within the next few is not encoded again.

    Args:
        mllm: stage 1; None where every call brings its own boxes or points.
        strategy: how stage 1 shows the image and reads the reply; None only without an MLLM.
        segmenter: stage 2.
        cot: ask for the chain of thought, or for the targets alone.
        frame: how the MLLM writes coordinates, e.g. ``0-1000``; by default what
            `rsvp.registry.family` knows of the model.
        max_reasks: how often to ask again after a reply that cannot be read.
        strategy_name: what results call the strategy; by default its own name.

    Raises:
        BadInput: an MLLM without a strategy or with one that it has no prompts for, an unknown
            frame, a negative `max_reasks`, a segmenter that the strategy cannot do with.
    """

    def __init__(
        self,
        mllm: MLLM | None,
        strategy: Strategy | None,
        segmenter: Segmenter,
        *,
        cot: bool = True,
        frame: str | Frame | None = None,
        max_reasks: int = 2,
        strategy_name: str | None = None,
    ) -> None:
        if mllm is not None and strategy is None:
            raise BadInput("an MLLM needs a strategy, e.g. rsvp.strategies.boxes.BoxesStrategy()")
        if max_reasks < 0:
            raise BadInput(f"max_reasks is 0 or more, found {max_reasks}")
        self.mllm = mllm
        self.segmenter = segmenter
        self._encodings = Encodings(segmenter, KEPT_ENCODINGS)
        if mllm is not None and isinstance(strategy, LooksAhead):
            strategy = strategy.with_segmenter(self._encodings)
        self.strategy = strategy
        family = registry.family(mllm.model if mllm is not None else "")
        frame = family.frame if frame is None else frame
        frame = Frame.parse(frame) if isinstance(frame, str) else frame
        self.manner = Manner(frame, family.profile, cot, max_reasks)
        if mllm is not None and strategy is not None:
            check_taught(mllm.name, strategy.name, self.manner)
        self._strategy_name = strategy_name or (strategy.name if strategy is not None else None)
        self._load_seconds = 0.0

    @classmethod
    def from_preset(
        cls,
        name: str = presets.DEFAULT,
        *,
        mllm: str | MLLM | None = None,
        strategy: str | Strategy | None = None,
        segmenter: str | Segmenter | None = None,
        cot: bool = True,
        frame: str | Frame | None = None,
        max_reasks: int = 2,
    ) -> Pipeline:
        """The pipeline of a preset; see `rsvp models` for their names.

        Args:
            mllm, strategy, segmenter: a spec such as ``openai:gpt-5.1`` or an object, instead of
                the preset's own; the MLLM ``none`` is none at all, for boxes and points.
            cot, frame, max_reasks: as for `Pipeline`.

        Raises:
            BadInput: an unknown preset, backend or frame.
            ModelUnavailable: weights, a key or a model's name are missing.
        """
        preset = presets.get(name)
        started = time.perf_counter()
        # What is cheap to refuse comes first; and the MLLM before the segmenter, for its module
        # prepares the threads before torch is loaded.
        frame = Frame.parse(frame) if isinstance(frame, str) else frame
        shown = strategy or preset.strategy
        cutter = segmenter or preset.segmenter
        _check_name("segmenter", cutter)
        how = _made("strategy", shown)
        asked = _made_mllm(mllm, preset)
        pipeline = cls(
            asked,
            how,
            _made("segmenter", cutter),
            cot=cot,
            frame=frame,
            max_reasks=max_reasks,
            strategy_name=shown if isinstance(shown, str) else None,
        )
        pipeline._load_seconds = time.perf_counter() - started
        return pipeline

    # ------------------------------------------------------------ one image

    def segment(
        self,
        image: ImageSource,
        query: str = "",
        boxes: Sequence[BoxLike] | None = None,
        points: Sequence[PointLike] | None = None,
        *,
        within: BoxLike | None = None,
        exclude: Sequence[PointLike] | None = None,
    ) -> Result:
        """Find what the query asks for, and its exact pixels.

        Args:
            image: a path, bytes, a Pillow image, an (H, W, 3) uint8 array, or an `Image`.
            query: in any language; not needed with boxes or points.
            boxes: xyxy in pixels of the upright image, each a target; no MLLM is asked.
            points: (x, y) in pixels, or (x, y, 0) for "not this"; all of them mean one target.
            within: a hint for the MLLM, xyxy in pixels: only what lies in this box is a target.
            exclude: a hint for the MLLM, (x, y) in pixels: what these points lie on is no target.

        Raises:
            BadInput: an image, query, box or point that cannot be used; hints beside boxes or
                points, for which no MLLM is asked.
            MLLMFailed: the MLLM cannot be reached; `UnparsableReply` where it answers nothing
                readable after every re-ask.
            ModelUnavailable: weights or a key are missing.
        """
        job = self._job(image, query, boxes, points, (within, exclude))
        if not job.proposals:
            with self._ahead(job.image):
                self._reason(job)
        return self._segment_proposals(job)

    async def asegment(
        self,
        image: ImageSource,
        query: str = "",
        boxes: Sequence[BoxLike] | None = None,
        points: Sequence[PointLike] | None = None,
        *,
        within: BoxLike | None = None,
        exclude: Sequence[PointLike] | None = None,
    ) -> Result:
        """`segment`, awaitable: the event loop stays free."""
        hinted = (within, exclude)
        job = await asyncio.to_thread(self._job, image, query, boxes, points, hinted)
        if not job.proposals:
            await self._areason(job)
        return await asyncio.to_thread(self._segment_proposals, job)

    # ------------------------------------------------------------ one stage at a time

    def reason(self, image: ImageSource, query: str) -> ReasoningOutput:
        """Stage 1 alone; `segment_proposals` makes the result of it.

        Raises:
            BadInput, MLLMFailed, ModelUnavailable: as `segment` does.
        """
        job = self._job(image, query, None, None)
        self._reason(job)
        if job.thought is None:
            raise BadInput("without an MLLM every image needs boxes or points")
        return ReasoningOutput(job.query, replace(job.thought, shown=None), job.timings)

    async def areason(self, image: ImageSource, query: str) -> ReasoningOutput:
        """`reason`, awaitable."""
        job = await asyncio.to_thread(self._job, image, query, None, None)
        thought = replace(await self._areason(job), shown=None)
        return ReasoningOutput(job.query, thought, job.timings)

    def segment_proposals(self, image: ImageSource, conclusion: ReasoningOutput) -> Result:
        """Stage 2 alone: the result of a conclusion, in any thread, process or machine.

        Args:
            image: the one that the conclusion was drawn from.
        """
        thought = conclusion.thought
        job = _Job(
            load_image(image), conclusion.query, thought.reasoning.proposals, thought=thought
        )
        job.timings |= conclusion.timings
        job.started -= sum(conclusion.timings.values())
        return self._segment_proposals(job)

    # ------------------------------------------------------------ many images

    def segment_many(self, items: Iterable[Item]) -> Iterator[Result]:
        """The results of (image, query) pairs, each made when it is asked for; an error ends it."""
        for image, query in items:
            yield self.segment(image, query)

    async def asegment_many(
        self, items: Iterable[Item], *, concurrency: int = 4
    ) -> AsyncIterator[Result]:
        """`segment_many` with up to `concurrency` queries on their way; results keep the order."""
        if concurrency < 1:
            raise BadInput(f"concurrency is at least 1, found {concurrency}")
        underway: deque[asyncio.Task[Result]] = deque()
        try:
            for image, query in items:
                underway.append(asyncio.create_task(self.asegment(image, query)))
                if len(underway) >= concurrency:
                    yield await underway.popleft()
            while underway:
                yield await underway.popleft()
        finally:
            for task in underway:
                task.cancel()
            await asyncio.gather(*underway, return_exceptions=True)

    # ------------------------------------------------------------ the stages

    def _job(
        self,
        source: ImageSource,
        query: str,
        boxes: Sequence[BoxLike] | None,
        points: Sequence[PointLike] | None,
        hinted: tuple[BoxLike | None, Sequence[PointLike] | None] = (None, None),
    ) -> _Job:
        """Refuse at once what cannot be asked."""
        if not isinstance(query, str):
            raise BadInput(f"a query is text, found {type(query).__name__}")
        image = load_image(source)
        proposals = given.proposals(image, query, boxes, points)
        if not proposals and self.mllm is None:
            raise BadInput("without an MLLM every image needs boxes or points")
        if not proposals and not query.strip():
            raise BadInput("the query is empty: say what to look for, or give a box")
        hint = hints.hint(image, *hinted)
        hints.check_alone(hint, proposals)
        job = _Job(image, query, proposals, hint)
        # The first result accounts for loading.
        job.timings["load"], self._load_seconds = self._load_seconds, 0.0
        job.started -= job.timings["load"]
        return job

    def _reason(self, job: _Job) -> None:
        """Stage 1: ask until the reply can be read."""
        mllm, talk = self._conversation(job)
        with job.clock("load"):
            _load(mllm)
        with job.clock("reason"):
            step = next(talk)
            while isinstance(step, Question):
                step = talk.send(mllm.reply(step.messages, schema=step.schema))
        job.concluded(step)

    async def _areason(self, job: _Job) -> Thought:
        mllm, talk = self._conversation(job)
        with job.clock("load"):
            await asyncio.to_thread(_load, mllm)
        with job.clock("reason"):
            step = await asyncio.to_thread(next, talk)  # drawing and shrinking take a while
            while isinstance(step, Question):
                step = talk.send(await mllm.areply(step.messages, schema=step.schema))
        job.concluded(step)
        return step

    def _conversation(self, job: _Job) -> tuple[MLLM, Generator[Question | Thought, Reply, None]]:
        if self.mllm is None or self.strategy is None:
            raise BadInput("without an MLLM every image needs boxes or points")
        return self.mllm, converse(job.image, job.query, self.strategy, self.manner, job.hint)

    @contextlib.contextmanager
    def _ahead(self, image: Image) -> Iterator[None]:
        """Encode while a remote MLLM reasons; a local one needs the processor itself."""
        if not getattr(self.mllm, "remote", False):
            yield
            return
        with ThreadPoolExecutor(1, thread_name_prefix="rsvp-encode") as worker:
            # What fails here fails again, and is told, in `_segment_proposals`.
            worker.submit(self._encodings.encode, image)
            yield

    def _segment_proposals(self, job: _Job) -> Result:
        """Stage 2: masks of the proposals, and everything put together."""
        targets: tuple[Target, ...] = ()
        if job.proposals:
            found, encode, segment = self._encodings.masks(job.image, job.proposals)
            job.timings |= {"encode": encode, "segment": segment}
            targets = hints.obeyed(job.hint, targets_of(job.image, job.proposals, found))
        if job.timings["load"] < 0.001:  # nothing had to be loaded
            del job.timings["load"]
        job.timings["total"] = time.perf_counter() - job.started
        thought = job.thought
        return Result(
            image=job.image,
            query=job.query,
            reasoning=thought.reasoning if thought else Reasoning((), job.proposals, ""),
            targets=targets,
            models=self._names(thought),
            usage=thought.usage if thought else Usage(),
            timings=job.timings,
            warnings=(
                *self._doubts(thought),
                *doubts_about(targets, named=thought is not None),
                *hints.ruled_out(thought.reasoning.proposals if thought else (), targets),
            ),
            shown=thought.shown if thought else None,
        )

    def _names(self, thought: Thought | None) -> ModelNames:
        """The parts that were used: without a thought, the segmenter alone."""
        if thought is None or self.mllm is None:
            return ModelNames(None, None, self.segmenter.name, None)
        return ModelNames(
            self.mllm.name, self._strategy_name, self.segmenter.name, thought.prompt_sha256
        )

    def _doubts(self, thought: Thought | None) -> Iterator[str]:
        if thought is None:
            return
        confidence, enough = thought.reply.confidence, LOW_CONFIDENCE.get(self.manner.profile)
        if not thought.reasoning.understood:
            yield f"{UNSURE}: it says that it cannot read images of this sort"
        elif confidence is not None and enough is not None and confidence < enough:
            yield (
                f"{UNSURE} (mean token probability {confidence:.2f}, usually above {enough:.2f}): "
                "the embedded preset knows rendered scenes, not photographs"
            )
        if thought.reply.finish_reason == "length":
            yield "the reply was cut short at the token limit: targets may be missing"


def _load(mllm: MLLM) -> None:
    """Let a backend that loads at its first reply load now, so that the timings tell them apart."""
    load = getattr(mllm, "load", None)
    if callable(load):
        load()


def _made_mllm(mllm: str | MLLM | None, preset: presets.Preset) -> MLLM | None:
    if mllm is not None and not isinstance(mllm, str):
        return mllm
    spec = mllm if mllm is not None else preset.mllm_spec()
    made: MLLM | None = None if spec == presets.NO_MLLM else registry.make("mllm", spec)
    return made


def _made(kind: Literal["strategy", "segmenter"], spec: object) -> Any:
    return registry.make(kind, spec) if isinstance(spec, str) else spec


def _check_name(kind: Literal["segmenter"], spec: object) -> None:
    """Refuse a name that nobody has, without importing what the others stand for."""
    if isinstance(spec, str):
        name = registry.parse_spec(spec).name
        if name not in registry.names(kind):
            registry.load(kind, name)  # tells which names there are
