"""Both stages with the parts of a pipeline, and the result that they make."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Self, Unpack

from rsvp import postprocess
from rsvp.agreement import agree_on
from rsvp.answer import AnswerRequest, Zoom, answer_question
from rsvp.dialogue import Budget, Dialogue, Limits
from rsvp.errors import BadInput, RsvpWarning
from rsvp.images import ImageSource
from rsvp.mllm import MLLM, check_sparse, is_remote, load
from rsvp.platform.timer import StageTimer
from rsvp.prompt_config import PromptConfig, PromptSettings, check_prompts, make_prompt_config
from rsvp.reasoning import ReasoningOutput, propose
from rsvp.request import Request, make_request
from rsvp.result import Answer, Result, Trace
from rsvp.segmenters import Segmenter
from rsvp.segmenters.embedding_cache import EmbeddingCache
from rsvp.strategies import NeedsSegmenter, Strategy
from rsvp.types import Image, ModelNames, Proposal, Reasoning, Target, Usage
from rsvp.verify import Verified, VerifyOptions, verify_reasoning

FRAMELESS = ("grid", "marks")  # strategies whose replies hold no coordinates
CACHED_IMAGES = 4  # whose embeddings are kept; some 16 MB each with SAM 2, and the image itself


class Stages:
    """What `rsvp.Pipeline` does with a request, once it is checked; see there for the arguments."""

    def __init__(
        self,
        mllm: MLLM | None,
        strategy: Strategy | None,
        segmenter: Segmenter,
        *,
        limits: Limits | None = None,
        run_limits: Limits | None = None,
        verify: int | VerifyOptions = 0,
        strategy_name: str | None = None,
        **prompting: Unpack[PromptSettings],
    ) -> None:
        self._remake: Callable[[], Stages] = functools.partial(
            type(self),
            mllm=mllm,
            strategy=strategy,
            segmenter=segmenter,
            limits=limits,
            run_limits=run_limits,
            verify=verify,
            strategy_name=strategy_name,
            **prompting,
        )
        self.mllm, self.strategy, self.segmenter = mllm, strategy, segmenter
        self.prompt_config = make_prompt_config(mllm, strategy, **prompting)
        self._frame_assumed = (
            not self.prompt_config.family.source and prompting.get("frame") is None
        )
        self.limits, self._run_budget = limits or Limits(), Budget(run_limits)
        self.verify = VerifyOptions.of(verify)
        if isinstance(strategy, NeedsSegmenter) and mllm is not None:
            strategy.check_segmenter(segmenter)
        self._cache = EmbeddingCache(segmenter, CACHED_IMAGES)
        self._strategy_name = strategy_name or (strategy.name if strategy is not None else None)
        self._load_seconds = 0.0

    def __reduce__(self) -> tuple[Callable[[], Stages], tuple[()]]:
        return self._remake, ()

    def keep_images(self, count: int) -> None:
        """Keep the embeddings of at least so many images, for further queries on them."""
        self._cache.keep(count)

    def with_verify(self, verify: int | VerifyOptions) -> Self:
        """This pipeline, models and embeddings shared, with other rounds of verification."""
        return self._changed({"verify": verify}, verify=VerifyOptions.of(verify))

    def with_strategy(self, strategy: Strategy) -> Self:
        """This pipeline, models and embeddings shared, with another strategy.

        Raises:
            BadInput: there is no MLLM, or it or the segmenter cannot be used so.
        """
        if self.mllm is None:
            raise BadInput("without an MLLM there is nothing that a strategy could show")
        check_prompts(self.mllm.name, strategy, self.prompt_config)
        if isinstance(strategy, NeedsSegmenter):
            strategy.check_segmenter(self.segmenter)
        made = {"strategy": strategy}
        return self._changed(made, strategy=strategy, _strategy_name=strategy.name)

    def _changed(self, made: Mapping[str, Any], **attributes: Any) -> Self:
        """A copy with other attributes; `made` are the arguments that make it again."""
        remake: Callable[..., Stages] = self._remake
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__ | attributes)
        other._remake = functools.partial(remake, **made)
        return other

    def run(self, request: Request) -> Result:
        """`segment` for a request that was made before, e.g. before the models were loaded."""
        return self._run(request)

    def check_answers(self, zoom: Zoom | None = None) -> None:
        """BadInput where the MLLM cannot answer questions or be shown such looks; or is none."""
        if self.mllm is None:
            raise BadInput("without an MLLM no question can be answered")
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
            if part.prompts:
                segmented.append(self._segment(part, None, timer))
            else:
                output = self._reason(part, timer, dialogue, config=own_words)
                segmented.append(self._segment(part, output, timer, dialogue, config=own_words))
            return segmented[-1]

        zoom, dialogue = asked.zoom, self._dialogue(config.family.profile, "system.answer")
        blind = zoom.mode == "none"
        with timer.stage("load"):
            load(dialogue.mllm)
        with (
            contextlib.nullcontext() if blind else self.encode_ahead(request.image),
            timer.rest("answer"),
        ):
            found = answer_question(asked, dialogue, config, segment)
        return Answer(
            image=request.image,
            query=request.query,
            reasoning=found.output.reasoning,
            targets=tuple(target for look in found.looks for target in look.targets),
            models=self._names(found.output, None),
            usage=found.output.usage,
            timings=timer.total(),
            rounds=sum(one.rounds for one in segmented),
            verdicts=tuple(verdict for one in segmented for verdict in one.verdicts),
            round_costs=tuple(cost for one in segmented for cost in one.round_costs),
            warnings=(*postprocess.reply_warnings(found.output, config.family), *found.warnings),
            shown=found.output.shown,
            answer=found.answer,
            choices=asked.choices,
            choice=found.choice,
            zoom=zoom.mode,
            background=zoom.background if zoom.mode == "mask" else None,
            looks=found.looks,
        )

    def check_traces(self) -> None:
        """BadInput where this pipeline's MLLM cannot trace, or there is none."""
        if self.mllm is None or self.strategy is None:
            raise BadInput("without an MLLM there is no reasoning to trace")
        check_prompts(self.mllm.name, self.strategy, self.prompt_config, trace=True)

    def run_trace(self, request: Request) -> Trace:
        """`trace` for a request that was made before, without boxes and points."""
        self.check_traces()
        found = self._run(request, trace=True)
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
        dialogue = self._dialogue(system="system.trace" if trace else "system")
        output = self._reason(make_request(image, query), timer, dialogue, trace=trace)
        return replace(output, shown=None, timings=timer.seconds)

    def segment_proposals(self, image: ImageSource, output: ReasoningOutput) -> Result:
        """Stage 2 alone, and the verification of its masks, with what is left of the budget.

        Args:
            image: the one that the output was reasoned from.
        """
        request, dialogue = make_request(image, output.query), None
        if self.mllm is not None:
            seconds = output.timings.get("reason", 0.0)
            budget = Budget(self.limits, output.usage, seconds, self._run_budget)
            dialogue = self._dialogue(budget=budget)
            dialogue.prompts = list(output.prompts)
        return self._segment(request, output, StageTimer(output.timings), dialogue)

    # ------------------------------------------------------------ the stages

    def _timer(self) -> StageTimer:
        """A new timer; that of the first result includes loading the models."""
        seconds, self._load_seconds = self._load_seconds, 0.0
        return StageTimer({"load": seconds})

    def _dialogue(
        self, profile: str | None = None, system: str = "system", budget: Budget | None = None
    ) -> Dialogue:
        """A new conversation with a budget of its own."""
        if self.mllm is None:
            raise BadInput("without an MLLM every image needs boxes or points")
        return Dialogue(
            self.mllm,
            profile or self.prompt_config.profile,
            system=system,
            single_turn=self.prompt_config.family.single_turn,
            max_reasks=self.prompt_config.max_reasks,
            budget=budget or Budget(self.limits, run=self._run_budget),
        )

    def _run(self, request: Request, *, trace: bool = False) -> Result:
        """Both stages; of boxes and points the second alone."""
        timer = self._timer()
        if request.prompts:
            return self._segment(request, None, timer)
        dialogue = self._dialogue(system="system.trace" if trace else "system")
        with self.encode_ahead(request.image):
            output = self._reason(request, timer, dialogue, trace=trace)
        return self._segment(request, output, timer, dialogue)

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
    def encode_ahead(self, image: Image) -> Iterator[None]:
        """Encode while a remote MLLM reasons; a local one needs the processor itself."""
        if is_remote(self.mllm):
            worker = ThreadPoolExecutor(1, thread_name_prefix="rsvp-encode")
            worker.submit(self._cache.encode, image)  # an error comes again in `_segment`
            # `_segment` waits for the cache's lock, Ctrl-C for nothing.
            worker.shutdown(wait=False)
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

        Of boxes and points there is no output. Without stage 1's dialogue nothing is verified.
        """
        segment = functools.partial(self._targets, request, timer)
        reasoning = output.reasoning if output else Reasoning((), request.prompts, "")
        agreement: float | None = None
        if output and output.samples:
            reasoning, found, agreement = agree_on(output.samples, segment)
        else:
            found = segment(reasoning.proposals)
        named, allowed = reasoning.proposals if output else (), tuple(found.values())
        verified = Verified(found)
        if dialogue and self.verify.rounds and reasoning.understood:
            with timer.rest("verify"):
                verified = verify_reasoning(
                    request,
                    reasoning,
                    found,
                    dialogue=dialogue,
                    config=config or self.prompt_config,
                    segment=segment,
                    options=self.verify,
                )
        is_path = reasoning.answer is not None
        if is_path:
            reasoning = reasoning.keep(tuple(verified.targets))
        targets = tuple(verified.targets.values())
        result = (Trace if is_path else Result)(
            image=request.image,
            query=request.query,
            reasoning=reasoning,
            targets=targets,
            models=self._names(output, dialogue),
            usage=dialogue.budget.usage if dialogue else output.usage if output else Usage(),
            timings=timer.total(),
            rounds=verified.rounds,
            verdicts=verified.verdicts,
            round_costs=verified.costs,
            agreement=agreement,
            warnings=(
                *self._warnings(output, reasoning, targets, named),
                *postprocess.hint_warning(named, allowed),
                *verified.warnings,
            ),
            shown=output.shown if output else None,
        )
        for warning in result.warnings:
            warnings.warn(warning, RsvpWarning, stacklevel=5)  # where `segment` was called
        return result

    def _warnings(
        self,
        output: ReasoningOutput | None,
        reasoning: Reasoning,
        targets: Sequence[Target],
        named: Sequence[Proposal],
    ) -> Iterator[str]:
        """Warnings about the frame, the reply and the targets.

        Args:
            named: the proposals of the MLLM.
        """
        name = self.strategy.name if self.strategy is not None else ""
        if named and self._frame_assumed and self.mllm is not None and name not in FRAMELESS:
            yield (
                f"nothing is known of how {self.mllm.model} writes coordinates: they are read as "
                f"{self.prompt_config.frame.kind}; --frame names another"
            )
        if output is not None:
            yield from postprocess.reply_warnings(output, self.prompt_config.family)
        yield from postprocess.target_warnings(reasoning, targets, named_by_mllm=output is not None)

    def _targets(
        self, request: Request, timer: StageTimer, proposals: Sequence[Proposal]
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

    def _names(self, output: ReasoningOutput | None, dialogue: Dialogue | None) -> ModelNames:
        """The parts that were used: without stage 1, the segmenter alone."""
        if output is None or self.mllm is None:
            return ModelNames(None, None, self.segmenter.name, None)
        prompts = dialogue.prompt_sha256 if dialogue else output.prompt_sha256
        return ModelNames(self.mllm.name, self._strategy_name, self.segmenter.name, prompts)
