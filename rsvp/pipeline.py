"""image + query -> strategy and MLLM -> proposals -> segmenter -> masks."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
import time
import warnings
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, overload

from rsvp import postprocess, presets
from rsvp.agreement import agree_on
from rsvp.answer import (
    DEFAULT_LOOKS,
    DEFAULT_ZOOM,
    AnswerRequest,
    Zoom,
    answer_question,
    check_answer_prompts,
    make_answer_request,
)
from rsvp.dialogue import Budget, Dialogue, Limits
from rsvp.errors import BadInput, RsvpError, RsvpWarning
from rsvp.frames import Frame
from rsvp.images import ImageSource
from rsvp.mllm import MLLM, check_sparse, is_remote, load
from rsvp.parts import make_parts
from rsvp.platform.timer import StageTimer
from rsvp.reasoning import (
    TEMPERATURE,
    PromptConfig,
    ReasoningOutput,
    check_prompts,
    make_prompt_config,
    propose,
)
from rsvp.request import Boxes, BoxLike, Points, Request, make_request
from rsvp.result import Answer, Result, Trace
from rsvp.segmenters import Segmenter
from rsvp.segmenters.embedding_cache import EmbeddingCache
from rsvp.strategies import NeedsSegmenter, Strategy
from rsvp.types import Image, ModelNames, Proposal, Reasoning, Target, Usage
from rsvp.verify import Verified, VerifyOptions, check_verify_prompts, verify_reasoning

# What `Pipeline.segment` takes: (image, query), (image, query, boxes, points), or by name.
Item = Sequence[Any] | Mapping[str, Any]
OnError = Literal["raise", "return"]
T = TypeVar("T")

FRAMELESS = ("grid", "marks")  # strategies whose replies hold no coordinates
UNSURE = "the reasoner was unsure of this image"  # how the warning about it begins
CACHED_IMAGES = 4  # whose embeddings are kept; some 16 MB each with SAM 2, and the image itself


class Pipeline:
    """Two-stage reasoning segmentation: an MLLM proposes regions, a segmenter makes masks.

    Safe to share between threads; the segmenter runs one call at a time, and an image that comes
    again within the next few is not encoded again. A pickle of it holds what it was made of: specs,
    or objects, which must be picklable themselves; the models are loaded again.

    Args:
        mllm: stage 1; None where every call brings its own boxes or points.
        strategy: how stage 1 shows the image and reads the reply; None only without an MLLM.
        segmenter: stage 2.
        cot: ask for the chain of thought, or for the targets alone.
        frame: how the MLLM writes coordinates, e.g. ``0-1000``; by default what
            `rsvp.registry.family` knows of the model.
        max_reasks: how often to ask again after a reply that cannot be read.
        limits: how much one request may cost.
        run_limits: how much all requests together may cost.
        verify: rounds in which the MLLM checks the masks, see `rsvp.verify.VerifyOptions`; where
            no MLLM is asked (boxes and points), nothing is verified.
        samples: replies of stage 1, see `PromptConfig`.
        temperature: of several samples.
        target_exists: every query's target is in its image; the MLLM is told so.
        language: of the queries, for the embedded reasoner: en, de, es or zh. Other MLLMs read any
            language and ignore it.
        strategy_name: what results call the strategy; by default its own name.

    Raises:
        BadInput: an MLLM without a strategy or with one that it has no prompts for, an unknown
            frame or language, a negative `max_reasks`, a segmenter that the strategy cannot use.
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
        limits: Limits | None = None,
        run_limits: Limits | None = None,
        verify: int | VerifyOptions = 0,
        samples: int = 1,
        temperature: float = TEMPERATURE,
        target_exists: bool = False,
        language: str = "en",
        strategy_name: str | None = None,
    ) -> None:
        self._remake = functools.partial(
            type(self),
            mllm,
            strategy,
            segmenter,
            cot=cot,
            frame=frame,
            max_reasks=max_reasks,
            limits=limits,
            run_limits=run_limits,
            verify=verify,
            samples=samples,
            temperature=temperature,
            target_exists=target_exists,
            language=language,
            strategy_name=strategy_name,
        )
        self.mllm, self.strategy, self.segmenter = mllm, strategy, segmenter
        self.prompt_config = make_prompt_config(
            mllm,
            strategy,
            frame=frame,
            cot=cot,
            max_reasks=max_reasks,
            target_exists=target_exists,
            language=language,
            samples=samples,
            temperature=temperature,
        )
        self._frame_assumed = not self.prompt_config.family.source and frame is None
        self.limits, self._run_budget = limits or Limits(), Budget(run_limits)
        self.verify = _check_verify(mllm, verify, self.prompt_config)
        if isinstance(strategy, NeedsSegmenter) and mllm is not None:
            strategy.check_segmenter(segmenter)
        self._cache = EmbeddingCache(segmenter, CACHED_IMAGES)
        self._strategy_name = strategy_name or (strategy.name if strategy is not None else None)
        self._load_seconds = 0.0

    @classmethod
    def from_preset(
        cls,
        name: str | presets.Preset = presets.DEFAULT,
        *,
        mllm: str | MLLM | None = None,
        strategy: str | Strategy | None = None,
        segmenter: str | Segmenter | None = None,
        cot: bool = True,
        frame: str | Frame | None = None,
        max_reasks: int = 2,
        limits: Limits | None = None,
        run_limits: Limits | None = None,
        verify: int | VerifyOptions = 0,
        samples: int = 1,
        temperature: float = TEMPERATURE,
        target_exists: bool = False,
        language: str = "en",
        options: Mapping[str, str] | None = None,
        record: str | Path | None = None,
        connect: bool = False,
    ) -> Pipeline:
        """The pipeline of a preset; see `rsvp models` for their names.

        Args:
            name: of the preset, or the preset itself; ``auto`` is the best one that can run here
                now, see `rsvp.presets.choose`.
            mllm, strategy, segmenter: a spec such as ``openai:gpt-5.1`` or an object, instead of
                the preset's own; the MLLM ``none`` is none at all, for boxes and points.
            cot, frame, max_reasks, limits, run_limits, verify, samples, temperature,
                target_exists, language: as for `Pipeline`.
            options: of the backends, as text: ``max_tokens`` is the MLLM's, ``segmenter.device``
                and ``strategy.max_side`` are the others'.
            record: a file to which the MLLM's replies are appended, for ``replay:FILE``.
            connect: try whether the MLLM's server can be reached, before the segmenter is loaded.

        Raises:
            BadInput: an unknown preset, backend, option or frame; nothing to record.
            MLLMFailed: the server cannot be reached.
            ModelUnavailable: weights, a key or a model's name are missing.
        """
        preset = presets.get(name) if isinstance(name, str) else name
        started = time.perf_counter()
        # What is cheap to refuse comes first.
        if isinstance(frame, str):
            Frame.parse(frame)
        parts = make_parts(
            preset,
            mllm=mllm,
            strategy=strategy,
            segmenter=segmenter,
            options=options or {},
            record=record,
            connect=connect,
        )
        config = make_prompt_config(
            parts.mllm,
            parts.strategy,
            frame=frame,
            cot=cot,
            max_reasks=max_reasks,
            target_exists=target_exists,
            language=language,
            samples=samples,
            temperature=temperature,
        )
        _check_verify(parts.mllm, verify, config)
        settings: dict[str, Any] = {
            "cot": cot, "frame": frame, "max_reasks": max_reasks, "limits": limits,
            "target_exists": target_exists, "language": language, "run_limits": run_limits,
            "verify": verify, "samples": samples, "temperature": temperature,
        }  # fmt: skip
        pipeline = cls(
            parts.mllm,
            parts.strategy,
            parts.make_segmenter(),
            strategy_name=parts.strategy_name,
            **settings,
        )
        pipeline._load_seconds = time.perf_counter() - started
        pipeline._remake = functools.partial(
            cls.from_preset,
            preset,
            mllm=mllm,
            strategy=strategy,
            segmenter=segmenter,
            options=options,
            record=record,
            **settings,
        )
        return pipeline

    def __reduce__(self) -> tuple[Callable[[], Pipeline], tuple[()]]:
        return self._remake, ()

    # ------------------------------------------------------------ one image

    def segment(
        self,
        image: ImageSource,
        query: str = "",
        boxes: Boxes | None = None,
        points: Points | None = None,
        *,
        labels: Sequence[str] | None = None,
        within: BoxLike | None = None,
        exclude: Points | None = None,
        like: Boxes | None = None,
    ) -> Result:
        """Find what the query asks for, and its exact pixels.

        Args:
            image: a path, bytes, a Pillow image, an (H, W, 3) array or tensor, or an `Image`; see
                `rsvp.images.load_image`.
            query: in any language; not needed with boxes or points.
            boxes: xyxy in pixels of the upright image, each a target; no MLLM is asked. A list, or
                an (n, 4) array or tensor.
            points: (x, y) in pixels, or (x, y, 0) for "not this"; all of them mean one target.
            labels: what the boxes show, one for each or one for all; by default the query.
            within: a hint for the MLLM, xyxy in pixels: only what lies in this box is a target.
            exclude: a hint for the MLLM, (x, y) in pixels: what these points lie on is no target.
            like: boxes around examples, xyxy in pixels: the MLLM and the strategy's detector, which
                must be one of concepts (``marks:sam3:ID``), look for more of them.

        Warnings of the result are Python warnings too, of the category `RsvpWarning`.

        Raises:
            BadInput: an image, query, box or point that cannot be used; hints beside boxes or
                points, for which no MLLM is asked.
            MLLMFailed: the MLLM cannot be reached; `UnparsableReply` where no reply can be read
                after every re-ask; `BudgetExceeded` where the limits end it before.
            ModelUnavailable: weights or a key are missing.
        """
        request = make_request(
            image, query, boxes, points,
            labels=labels, within=within, exclude=exclude, like=like,
        )  # fmt: skip
        return self.run(request)

    def run(self, request: Request) -> Result:
        """`segment` for a request that was made before, e.g. before the models were loaded."""
        timer = self._timer()
        if request.prompts:
            return self._segment(request, None, timer)
        dialogue = self._dialogue(self.prompt_config.profile)
        with self._encode_ahead(request.image):
            output = self._reason(request, timer, dialogue)
        return self._segment(request, output, timer, dialogue)

    def answer(
        self,
        image: ImageSource,
        question: str,
        choices: Sequence[str] | None = None,
        boxes: Boxes | None = None,
        points: Points | None = None,
        *,
        zoom: str = DEFAULT_ZOOM,
        looks: int = DEFAULT_LOOKS,
        within: BoxLike | None = None,
        exclude: Points | None = None,
    ) -> Answer:
        """Answer a question, after closer looks at what matters.

        Args:
            image, within, exclude: see `segment`; hints limit what is looked at.
            question: in any language.
            choices: what the answer is chosen from; without them it is free.
            boxes, points: what to look at, as in `segment`; the MLLM is not asked where to look.
            zoom: how a look is shown: ``none`` (no looks), ``box`` (the enlarged window), ``mask``
                (in it the masks alone; ``mask:white`` names the background), ``sparse`` (only the
                patches that the masks touch; local Qwen-VL and GLM-V alone).
            looks: how many the MLLM may ask for, at most.

        Raises:
            BadInput, MLLMFailed, ModelUnavailable: as `segment` does.
        """
        request = make_request(image, question, boxes, points, within=within, exclude=exclude)
        return self.run_answer(make_answer_request(request, choices, zoom=zoom, looks=looks))

    def check_answers(self, zoom: Zoom | None = None) -> None:
        """BadInput where the MLLM cannot answer questions or be shown such looks; or is none."""
        if self.mllm is None:
            raise BadInput("without an MLLM no question can be answered")
        check_answer_prompts(self.mllm.name, self.prompt_config)
        if zoom and zoom.mode == "sparse":
            check_sparse(self.mllm)

    def run_answer(self, asked: AnswerRequest) -> Answer:
        """`answer` for a question that was checked before."""
        timer, request, config = self._timer(), asked.request, self.prompt_config
        with timer.stage("load"):
            self.check_answers(asked.zoom)
        segmented: list[Result] = []
        own_words = replace(config, translator=None)  # queries are then the MLLM's

        def segment(part: Request, dialogue: Dialogue) -> Result:
            output = None
            if not part.prompts:
                output = self._reason(part, timer, dialogue, config=own_words)
            segmented.append(self._segment(part, output, timer, dialogue, config=own_words))
            return segmented[-1]

        ahead = (
            contextlib.nullcontext()
            if asked.zoom.mode == "none"
            else self._encode_ahead(request.image)
        )
        dialogue = self._dialogue(config.family.profile, "system.answer")
        with timer.stage("load"):
            load(dialogue.mllm)
        with ahead, timer.rest("answer"):
            found = answer_question(asked, dialogue, config, segment)
        masks = asked.zoom.mode == "mask"
        return Answer(
            image=request.image,
            query=request.query,
            reasoning=found.output.reasoning,
            targets=tuple(target for look in found.looks for target in look.targets),
            models=self._names(found.output),
            usage=found.output.usage,
            timings=timer.total(),
            rounds=sum(one.rounds for one in segmented),
            verdicts=tuple(verdict for one in segmented for verdict in one.verdicts),
            round_costs=tuple(cost for one in segmented for cost in one.round_costs),
            warnings=(*_reply_warnings(found.output, config), *found.warnings),
            shown=found.output.shown,
            answer=found.answer,
            choices=asked.choices,
            choice=found.choice,
            zoom=asked.zoom.mode,
            background=asked.zoom.background if masks else None,
            looks=found.looks,
        )

    def trace(
        self,
        image: ImageSource,
        question: str,
        *,
        within: BoxLike | None = None,
        exclude: Points | None = None,
    ) -> Trace:
        """Answer a question by a reasoning path in which every object that it names has a mask.

        All objects of the image are one decoder batch; one that returns is segmented once.

        Args:
            image, within, exclude: see `segment`; hints limit what is grounded.
            question: in any language.

        Raises:
            BadInput, MLLMFailed, ModelUnavailable: as `segment` does.
        """
        return self.run_trace(make_request(image, question, within=within, exclude=exclude))

    def check_traces(self) -> None:
        """BadInput where this pipeline's MLLM cannot trace, or there is none."""
        if self.mllm is None or self.strategy is None:
            raise BadInput("without an MLLM there is no reasoning to trace")
        check_prompts(self.mllm.name, self.strategy, self.prompt_config, trace=True)

    def run_trace(self, request: Request) -> Trace:
        """`trace` for a request that was made before, without boxes and points."""
        self.check_traces()
        timer = self._timer()
        dialogue = self._dialogue(self.prompt_config.profile, "system.trace")
        with self._encode_ahead(request.image):
            output = self._reason(request, timer, dialogue, trace=True)
        found = self._segment(request, output, timer, dialogue)
        assert isinstance(found, Trace)
        return found

    def reason(self, image: ImageSource, query: str, *, trace: bool = False) -> ReasoningOutput:
        """Stage 1 alone; `segment_proposals` makes the result of it, in any process or machine.

        Args:
            trace: stage 1 of `trace` instead of `segment`.

        Raises:
            BadInput, MLLMFailed, ModelUnavailable: as `segment` does.
        """
        if trace:
            self.check_traces()
        timer = self._timer()
        dialogue = self._dialogue(self.prompt_config.profile, "system.trace" if trace else "system")
        output = self._reason(make_request(image, query), timer, dialogue, trace=trace)
        return replace(output, shown=None, timings=timer.seconds)

    def segment_proposals(self, image: ImageSource, output: ReasoningOutput) -> Result:
        """Stage 2 alone, and the verification of its masks, with what is left of the budget.

        Args:
            image: the one that the output was reasoned from.
        """
        request, dialogue = make_request(image, output.query), None
        if self.mllm is not None:
            dialogue = self._dialogue(self.prompt_config.profile)
            seconds = output.timings.get("reason", 0.0)
            dialogue.budget = Budget(self.limits, output.usage, seconds, self._run_budget)
            dialogue.prompts = list(output.prompts)
        return self._segment(request, output, StageTimer(output.timings), dialogue)

    # ------------------------------------------------------------ many images, and awaitable calls

    def keep_images(self, count: int) -> None:
        """Keep the embeddings of at least so many images, for further queries on them."""
        self._cache.keep(count)

    @overload
    def segment_many(self, items: Iterable[Item]) -> Iterator[Result]: ...
    @overload
    def segment_many(
        self, items: Iterable[Item], *, on_error: OnError
    ) -> Iterator[Result | RsvpError]: ...
    def segment_many(
        self, items: Iterable[Item], *, on_error: OnError = "raise"
    ) -> Iterator[Result | RsvpError]:
        """The results of many calls of `segment`, each made when it is asked for.

        Args:
            items: the arguments of each call: (image, query), (image, query, boxes, points), or a
                mapping by their names.
            on_error: ``raise`` ends the iteration with the first error of rsvp; ``return`` gives
                the error in the place of the result, and goes on.
        """
        for item in items:
            yield _caught(functools.partial(self._segment_item, item), on_error)

    def _segment_item(self, item: Item) -> Result:
        """`segment` with the arguments of an item of `segment_many`."""
        return self.segment(**item) if isinstance(item, Mapping) else self.segment(*item)

    async def asegment(
        self,
        image: ImageSource,
        query: str = "",
        boxes: Boxes | None = None,
        points: Points | None = None,
        *,
        labels: Sequence[str] | None = None,
        within: BoxLike | None = None,
        exclude: Points | None = None,
        like: Boxes | None = None,
    ) -> Result:
        """`segment` in a thread, awaitable. Cancelling it gives up waiting, not the call itself."""
        return await _in_thread(
            functools.partial(
                self.segment,
                image,
                query,
                boxes,
                points,
                labels=labels,
                within=within,
                exclude=exclude,
                like=like,
            )
        )

    async def aanswer(
        self,
        image: ImageSource,
        question: str,
        choices: Sequence[str] | None = None,
        **options: Any,
    ) -> Answer:
        """`answer` in a thread, awaitable; the options are its own."""
        return await _in_thread(lambda: self.answer(image, question, choices, **options))

    async def atrace(self, image: ImageSource, question: str, **options: Any) -> Trace:
        """`trace` in a thread, awaitable; the options are its own."""
        return await _in_thread(lambda: self.trace(image, question, **options))

    async def areason(self, image: ImageSource, query: str) -> ReasoningOutput:
        """`reason` in a thread, awaitable."""
        return await _in_thread(lambda: self.reason(image, query))

    @overload
    def asegment_many(
        self, items: Iterable[Item], *, concurrency: int = 4
    ) -> AsyncIterator[Result]: ...
    @overload
    def asegment_many(
        self, items: Iterable[Item], *, concurrency: int = 4, on_error: OnError
    ) -> AsyncIterator[Result | RsvpError]: ...
    async def asegment_many(
        self, items: Iterable[Item], *, concurrency: int = 4, on_error: OnError = "raise"
    ) -> AsyncIterator[Result | RsvpError]:
        """`segment_many` with up to `concurrency` queries at once; results keep the order."""
        if concurrency < 1:
            raise BadInput(f"concurrency is at least 1, found {concurrency}")
        running: deque[asyncio.Task[Result | RsvpError]] = deque()
        try:
            for item in items:
                call = functools.partial(self._segment_item, item)
                running.append(
                    asyncio.create_task(_in_thread(functools.partial(_caught, call, on_error)))
                )
                if len(running) >= concurrency:
                    yield await running.popleft()
            while running:
                yield await running.popleft()
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    # ------------------------------------------------------------ the stages

    def _timer(self) -> StageTimer:
        """A new timer; that of the first result includes loading the models."""
        seconds, self._load_seconds = self._load_seconds, 0.0
        return StageTimer({"load": seconds})

    def _dialogue(self, profile: str, system: str = "system") -> Dialogue:
        """A new conversation with a budget of its own."""
        if self.mllm is None:
            raise BadInput("without an MLLM every image needs boxes or points")
        return Dialogue(
            self.mllm,
            profile,
            system=system,
            single_turn=self.prompt_config.family.single_turn,
            max_reasks=self.prompt_config.max_reasks,
            budget=Budget(self.limits, run=self._run_budget),
        )

    def _reason(
        self,
        request: Request,
        timer: StageTimer,
        dialogue: Dialogue,
        *,
        config: PromptConfig | None = None,
        trace: bool = False,
    ) -> ReasoningOutput:
        """Stage 1.

        Args:
            config: how the MLLM is asked, by default as the pipeline says.
        """
        strategy, config = self.strategy, config or self.prompt_config
        assert strategy is not None  # there is an MLLM
        with timer.stage("load"):
            load(dialogue.mllm)
        with timer.stage("reason"):
            return propose(request, dialogue, strategy, config, self._cache, trace=trace)

    @contextlib.contextmanager
    def _encode_ahead(self, image: Image) -> Iterator[None]:
        """Encode while a remote MLLM reasons; a local one needs the processor itself."""
        if not is_remote(self.mllm):
            yield
            return
        worker = ThreadPoolExecutor(1, thread_name_prefix="rsvp-encode")
        worker.submit(self._cache.encode, image)  # an error comes again in `_segment`
        worker.shutdown(wait=False)  # `_segment` waits for the cache's lock, Ctrl-C for nothing
        yield

    def _segment(
        self,
        request: Request,
        output: ReasoningOutput | None,
        timer: StageTimer,
        dialogue: Dialogue | None = None,
        *,
        config: PromptConfig | None = None,
    ) -> Result:
        """Stage 2: masks of the proposals, verified; and the result of both stages.

        Args:
            dialogue: of stage 1; without it nothing is verified.
            config: see `_reason`.
        """
        reasoning = output.reasoning if output else Reasoning((), request.prompts, "")
        agreement: float | None = None
        if output and output.samples:
            agreed = agree_on(output.samples, lambda p: self._targets(request, p, timer))
            reasoning, found, agreement = agreed.reasoning, agreed.targets, agreed.share
        else:
            found = self._targets(request, reasoning.proposals, timer)
        named = reasoning.proposals if output else ()
        against_hint = tuple(postprocess.hint_warning(named, tuple(found.values())))
        verified = Verified(found)
        if output and dialogue and self.verify.rounds and reasoning.understood:
            with timer.rest("verify"):
                verified = verify_reasoning(
                    request,
                    reasoning,
                    found,
                    dialogue=dialogue,
                    config=config or self.prompt_config,
                    segment=lambda proposals: self._targets(request, proposals, timer),
                    options=self.verify,
                )
            found = verified.targets
        targets, steps = tuple(found.values()), list[str]()
        is_path = reasoning.answer is not None
        if is_path:
            reasoning = reasoning.keep(tuple(found))
            steps = postprocess.first_steps(reasoning, len(targets))
        usage = output.usage if output else Usage()
        names = self._names(output)
        if output and dialogue:
            usage = dialogue.budget.usage
            names = replace(names, prompt_sha256=dialogue.prompt_sha256)
        result = (Trace if is_path else Result)(
            image=request.image,
            query=request.query,
            reasoning=reasoning,
            targets=targets,
            models=names,
            usage=usage,
            timings=timer.total(),
            rounds=verified.rounds,
            verdicts=verified.verdicts,
            round_costs=verified.costs,
            agreement=agreement,
            warnings=(
                *(self._frame_warning() if named else ()),
                *(_reply_warnings(output, self.prompt_config) if output else ()),
                *postprocess.target_warnings(
                    targets, named_by_mllm=output is not None, steps=steps
                ),
                *postprocess.point_warnings(reasoning.proposals, targets, steps),
                *against_hint,
                *verified.warnings,
            ),
            shown=output.shown if output else None,
        )
        for warning in result.warnings:
            warnings.warn(warning, RsvpWarning, stacklevel=4)  # where `segment` was called
        return result

    def _frame_warning(self) -> Iterator[str]:
        name = self.strategy.name if self.strategy is not None else ""
        if self._frame_assumed and self.mllm is not None and name not in FRAMELESS:
            yield (
                f"nothing is known of how {self.mllm.model} writes coordinates: they are read as "
                f"{self.prompt_config.frame.kind}; --frame names another"
            )

    def _targets(
        self, request: Request, proposals: Sequence[Proposal], timer: StageTimer
    ) -> dict[int, Target]:
        """The targets by the index of their proposal; those against the hint are left out."""
        hint, image = request.hint, request.image
        kept = {
            index: one
            for index, proposal in enumerate(proposals)
            for one in postprocess.restrict_proposals(hint, [proposal])
        }
        if not kept:
            return {}
        found = self._cache.masks(image, tuple(kept.values()))
        timer.add("encode", found.encode_seconds)
        timer.add("segment", found.decode_seconds)
        targets = postprocess.to_targets(image, tuple(kept.values()), found)
        return {
            index: one
            for index, target in zip(kept, targets, strict=True)
            for one in postprocess.apply_hint(hint, [target])
        }

    def _names(self, output: ReasoningOutput | None) -> ModelNames:
        """The parts that were used: without stage 1, the segmenter alone."""
        if output is None or self.mllm is None:
            return ModelNames(None, None, self.segmenter.name, None)
        return ModelNames(
            self.mllm.name, self._strategy_name, self.segmenter.name, output.prompt_sha256
        )


def _check_verify(
    mllm: MLLM | None, verify: int | VerifyOptions, config: PromptConfig
) -> VerifyOptions:
    """The options; BadInput where the MLLM cannot verify."""
    options = VerifyOptions(verify) if isinstance(verify, int) else verify
    if mllm is not None and options.rounds:
        check_verify_prompts(mllm.name, config)
    return options


def _caught(call: Callable[[], Result], on_error: OnError) -> Result | RsvpError:
    """The result of a call, or its error where `on_error` says so."""
    if on_error not in get_args(OnError):
        raise BadInput(f"on_error is raise or return, found {on_error!r}")
    try:
        return call()
    except RsvpError as error:
        if on_error == "raise":
            raise
        return error


async def _in_thread(call: Callable[[], T]) -> T:
    # Not an executor: Python waits at its end for the threads of one, and so for a silent server.
    future: Future[T] = Future()

    def run() -> None:
        if not future.set_running_or_notify_cancel():
            return  # cancelled before the thread began
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="rsvp", daemon=True).start()
    return await asyncio.wrap_future(future)


def _reply_warnings(output: ReasoningOutput, config: PromptConfig) -> Iterator[str]:
    if words := output.reasoning.unknown_words:
        yield f"the reasoner does not know {', '.join(map(repr, words))}, and was not asked"
    elif output.familiarity is not None and output.familiarity < 0:
        yield f"{UNSURE}: it is unlike those that the model was trained on"
    elif config.family.doubts(output.confidence):
        yield (
            f"{UNSURE} (mean token probability {output.confidence:.2f}, usually above "
            f"{config.family.min_confidence:.2f}): the embedded preset knows rendered scenes, not "
            "photographs"
        )
    elif not output.reasoning.understood:
        yield f"{UNSURE}: {output.reasoning.reason or 'it cannot read images of this sort'}"
    yield from output.reasoning.warnings
    if output.finish_reason == "length":
        yield "the reply was cut short at the token limit: targets may be missing"
