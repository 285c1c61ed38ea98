"""Stage 1: show the image, ask for the query's targets, read the reply into proposals."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from rsvp import prompting
from rsvp.dialogue import ChatRequest, Dialogue
from rsvp.errors import UnparsableReply
from rsvp.hints import hint_prompts, hinted
from rsvp.mllm import image_familiarity
from rsvp.phrases import tell_detector
from rsvp.prompt_config import PromptConfig
from rsvp.registry import ModelFamily
from rsvp.request import Request
from rsvp.segmenters.embedding_cache import EmbeddingCache
from rsvp.strategies import NeedsSegmenter, Strategy, View
from rsvp.types import Reasoning, Reply, RgbArray, Usage
from rsvp.views import frame_variables, sent_view

ECHO = "the numbers {} are those of the worked example: give those of the image you were shown"
NOT_ABSENT = '"{}" is empty, but what the query asks for is in the image: name what fits best'


@dataclass(frozen=True, slots=True)
class ReasoningOutput:
    """What stage 1 gives to stage 2: picklable, without the image.

    Attributes:
        usage: of all replies.
        prompt_sha256: of the templates of all prompts sent, in order; `prompts` are their names.
        confidence, finish_reason: of the reply that was read, see `Reply`.
        familiarity: of the image that was shown; where it has marks, of the image without them.
        timings: seconds spent so far, by stage.
        samples: what several sampled replies say; none where one was asked for.
        shown: (h, w, 3) uint8, the visual prompt; None where the output left its process.
    """

    query: str
    reasoning: Reasoning
    usage: Usage
    prompt_sha256: str
    confidence: float | None = None
    familiarity: float | None = None
    finish_reason: str = "stop"
    timings: Mapping[str, float] = field(default_factory=dict, compare=False)
    prompts: tuple[str, ...] = ()
    samples: tuple[Reasoning, ...] = ()
    shown: RgbArray | None = field(default=None, repr=False, compare=False)


def propose(
    request: Request,
    dialogue: Dialogue,
    strategy: Strategy,
    config: PromptConfig,
    cache: EmbeddingCache | None = None,
    *,
    trace: bool = False,
) -> ReasoningOutput:
    """Ask for the query's targets until a reply can be read.

    Args:
        cache: the segmenter, for strategies that look for candidates with it.
        trace: ask for a reasoning path with all of its objects instead.

    Raises:
        UnparsableReply, BudgetExceeded: see `Dialogue.ask`.
    """
    query, unknown = config.read_query(request.query)
    if unknown or not query:
        return not_asked(request.query, unknown, dialogue, trace=trace)
    image = request.image
    most = config.family.view_side(image.height, image.width)
    strategy, warning = tell_detector(
        request, query, dialogue, strategy, profile=config.profile, max_side=most
    )
    view = sent_view(image, request.query, strategy, config, dialogue.mllm, cache=cache)
    asked = _Query(
        request, dialogue, strategy, config, view, query=query, trace=trace, warning=warning
    )
    sampled = [] if trace or config.samples == 1 else _sample(asked, dialogue, config)
    reasoning, reply = sampled[0] if sampled else dialogue.ask(asked.first, asked.read, asked.again)
    familiar, family = reply.familiarity, config.family
    if familiar is not None and isinstance(strategy, NeedsSegmenter):
        # Many marks hide what is unfamiliar; beside looking for them, a second pass costs little.
        familiar = image_familiarity(dialogue.mllm, image.rgb)
    return ReasoningOutput(
        query=request.query,
        reasoning=_doubted(reasoning, reply, familiar, family),
        usage=dialogue.budget.usage,
        prompt_sha256=dialogue.prompt_sha256,
        confidence=reply.confidence,
        familiarity=familiar,
        finish_reason=reply.finish_reason,
        prompts=tuple(dialogue.prompts),
        samples=tuple(_doubted(one, its, familiar, family) for one, its in sampled),
        shown=asked.rgb,
    )


class _Query:
    """How a query is asked, and how its replies are read.

    Args:
        query: as the model is asked it.
        trace: ask for a reasoning path.
        warning: for every reading of a reply, "" for none.
    """

    def __init__(
        self,
        request: Request,
        dialogue: Dialogue,
        strategy: Strategy,
        config: PromptConfig,
        view: View,
        *,
        query: str,
        trace: bool,
        warning: str,
    ) -> None:
        self.image, self.view = request.image, view
        self.dialogue, self.strategy, self.config = dialogue, strategy, config
        self.trace, self._warnings = trace, (warning,) if warning else ()
        self.variables = {**frame_variables(view, config.frame), "query": query}
        hints = hint_prompts(request.hint, config.profile)
        self.rgb = hinted(view.rgb, request, hints)
        names = (*hints, config.prompt_name(strategy.name, trace=trace))
        text = "\n\n".join(prompting.render(name, **self.variables) for name in names)
        self.first = ChatRequest((self.rgb, text), names, self._schema(config.cot))
        self._examples = prompting.example_numbers(names[-1], self.variables)
        self._doubts = config.tells_existence and dialogue.max_reasks > 0

    def _schema(self, cot: bool) -> Mapping[str, Any]:
        frame = self.config.frame
        return self.strategy.path_schema(frame) if self.trace else self.strategy.schema(cot, frame)

    def again(self, problem: str) -> ChatRequest:
        """What is asked after a reply that cannot be read."""
        name = f"{self.config.profile}/reask.{'trace' if self.trace else self.strategy.name}"
        single_turn = self.config.family.single_turn
        if self.trace and (single_turn or not prompting.exists(name)):
            return self.first  # there is no simpler question
        text = prompting.render(name, **self.variables, problem=problem)
        if single_turn:  # it sees the image again, and gets the simpler question
            return ChatRequest((self.rgb, text), (name,), self._schema(False))
        return ChatRequest((text,), (name,), self._schema(self.config.cot))

    def read(self, reply: Reply) -> tuple[Reasoning, Reply]:
        """The reply's reasoning.

        Raises:
            UnparsableReply: it cannot be read, repeats an example, or finds nothing for the first
                time though the target exists.
        """
        seen = replace(self.config.frame, resized=reply.resized)
        read_form = self.strategy.read_path if self.trace else self.strategy.read
        reasoning = read_form(reply.text, self.image, self.view, seen)
        reasoning = replace(reasoning, warnings=(*self._warnings, *reasoning.warnings))
        for proposal in reasoning.proposals:
            if any(proposal.raw[: len(numbers)] == numbers for numbers in self._examples):
                raise UnparsableReply(ECHO.format(list(proposal.raw)), reasoning.raw)
        absent = reasoning.no_target and reasoning.understood
        if absent and self._doubts and self.dialogue.budget.is_left():
            self._doubts = False
            empty = "answer_objects" if self.trace else "targets"
            raise UnparsableReply(NOT_ABSENT.format(empty), reply.text)
        return reasoning, reply


def _sample(
    asked: _Query, dialogue: Dialogue, config: PromptConfig
) -> list[tuple[Reasoning, Reply]]:
    """The readable ones of several replies; each one's reasoning says how many there are."""
    found = dialogue.sample(asked.first, asked.read, config.samples, config.temperature)
    if len(found) == config.samples:
        return found
    warning = (
        f"{len(found)} of {config.samples} sampled replies count: the others could not be read or "
        "were beyond the budget"
    )
    return [(replace(r, warnings=(*r.warnings, warning)), reply) for r, reply in found]


def _doubted(
    reasoning: Reasoning, reply: Reply, familiarity: float | None, family: ModelFamily
) -> Reasoning:
    """Nothing found in an unfamiliar image, or by a reply that is unsure, means nothing."""
    unfamiliar = familiarity is not None and familiarity < 0
    if reasoning.no_target and (unfamiliar or family.doubts(reply.confidence)):
        return replace(reasoning, understood=False)
    return reasoning


def not_asked(
    query: str, unknown: tuple[str, ...], dialogue: Dialogue, *, trace: bool = False
) -> ReasoningOutput:
    """The output for a query with words that the model cannot know: it is not asked."""
    words = " and ".join(repr(word) for word in unknown)
    reason = f"It does not know {words}." if unknown else "The query names nothing that it knows."
    text = json.dumps({"targets": [], "understood": False, "reason": reason})
    reasoning = Reasoning(
        (), (), reason, text, False, unknown_words=unknown, answer="" if trace else None
    )
    return ReasoningOutput(query, reasoning, dialogue.budget.usage, dialogue.prompt_sha256)
