"""Stage 1: show the image, ask for the query's targets, read the reply into proposals."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from rsvp import prompting
from rsvp.dialogue import ChatRequest, Dialogue
from rsvp.drawing.hint import draw_hint
from rsvp.errors import BadInput
from rsvp.frames import Frame
from rsvp.lexicon import Lexicon, ReadQuery
from rsvp.registry import ModelFamily
from rsvp.request import Hint, Request
from rsvp.segmenters.embedding_cache import EmbeddingCache
from rsvp.strategies import Strategy
from rsvp.translation import Translator
from rsvp.types import Reasoning, Reply, RgbArray, Usage


@dataclass(frozen=True, slots=True)
class PromptConfig:
    """How a model is asked.

    Attributes:
        frame: how it writes coordinates.
        family: what is known of models of its kind.
        cot: ask for the chain of thought, or for the targets alone.
        max_reasks: how often to ask again after a reply that cannot be read.
        lexicon: all words that the model knows, where these are few.
        translator: of the queries, where the embedded reasoner is asked in another language.
        language: of the queries.
    """

    frame: Frame
    family: ModelFamily
    cot: bool = True
    max_reasks: int = 2
    lexicon: Lexicon | None = None
    translator: Translator | None = None
    language: str = "en"


@dataclass(frozen=True, slots=True)
class ReasoningOutput:
    """What stage 1 gives to stage 2: picklable, without the image.

    Attributes:
        usage: of all replies.
        prompt_sha256: of the templates of all prompts sent, in order.
        confidence, familiarity, finish_reason: of the reply that was read, see `Reply`.
        timings: seconds spent so far, by stage.
        shown: (h, w, 3) uint8, the visual prompt; None where the output left its process.
    """

    query: str
    reasoning: Reasoning
    usage: Usage
    prompt_sha256: str
    confidence: float | None = None
    familiarity: float | None = None
    finish_reason: str = "stop"
    timings: Mapping[str, float] = field(default_factory=dict)
    shown: RgbArray | None = field(default=None, repr=False)


def check_prompts(mllm: str, strategy: str, config: PromptConfig) -> None:
    """Refuse a strategy that has no prompts, e.g. points for the embedded reasoner.

    Raises:
        BadInput: the message names the strategies that have prompts.
    """
    start, end = f"{config.family.profile}/", f".{_form(config)}"
    named = [n for n in prompting.names() if n.startswith(start) and n.endswith(end)]
    known = [name.removeprefix(start).removesuffix(end) for name in named]
    if strategy not in known:
        raise BadInput(
            f"{mllm} cannot be asked by the strategy {strategy}; it knows {', '.join(known)}"
        )


def propose(
    request: Request,
    dialogue: Dialogue,
    strategy: Strategy,
    config: PromptConfig,
    cache: EmbeddingCache | None = None,
) -> ReasoningOutput:
    """Ask for the query's targets until a reply can be read.

    Args:
        cache: the segmenter, for strategies that look for candidates with it.

    Raises:
        UnparsableReply, BudgetExceeded: see `Dialogue.ask`.
    """
    image, family, profile = request.image, config.family, config.family.profile
    query, unknown = _read_query(request.query, config.lexicon, config.translator)
    if unknown or not query:
        return _not_asked(request.query, unknown, dialogue)
    view = strategy.view(image, request.query, max_side=family.max_side, cache=cache)
    variables: dict[str, str] = {
        **prompting.variables_for_frame(config.frame.kind, view.size[1], view.size[0]),
        **view.variables,
        "query": query,
    }
    hints = hint_prompts(request.hint, profile)
    rgb = view.rgb
    if hints:
        size = (image.height, image.width)
        rgb = draw_hint(rgb, request.hint.within, request.hint.exclude, size)
    names = (*hints, f"{profile}/{strategy.name}.{_form(config)}")
    again = f"{profile}/reask.{strategy.name}"

    def reask(problem: str) -> ChatRequest:
        text = prompting.render(again, **variables, problem=problem)
        if family.single_turn:  # it sees the image again, and gets the simpler question
            return ChatRequest((rgb, text), (again,), strategy.schema(False, config.frame))
        return ChatRequest((text,), (again,), strategy.schema(config.cot, config.frame))

    def read(reply: Reply) -> tuple[Reasoning, Reply]:
        return strategy.read(reply.text, image, view, config.frame), reply

    text = "\n\n".join(prompting.render(name, **variables) for name in names)
    first = ChatRequest((rgb, text), names, strategy.schema(config.cot, config.frame))
    reasoning, reply = dialogue.ask(first, read, reask)
    return ReasoningOutput(
        query=request.query,
        reasoning=reasoning,
        usage=dialogue.budget.usage,
        prompt_sha256=dialogue.prompt_sha256,
        confidence=reply.confidence,
        familiarity=reply.familiarity,
        finish_reason=reply.finish_reason,
        shown=rgb,
    )


def _read_query(query: str, lexicon: Lexicon | None, translator: Translator | None) -> ReadQuery:
    """The query as the model is asked it, and the words that have no translation or no meaning."""
    unknown: tuple[str, ...] = ()
    if translator is not None:
        query, unknown = translator.read(query)
    if lexicon is not None:
        query, strange = lexicon.read(query)
        unknown += strange
    return ReadQuery(query, unknown)


def _not_asked(query: str, unknown: tuple[str, ...], dialogue: Dialogue) -> ReasoningOutput:
    """The output for a query with words that the model cannot know: it is not asked."""
    words = " and ".join(repr(word) for word in unknown)
    reason = f"It does not know {words}." if unknown else "The query names nothing that it knows."
    text = json.dumps({"targets": [], "understood": False, "reason": reason})
    reasoning = Reasoning((), (), reason, text, understood=False, unknown_words=unknown)
    return ReasoningOutput(query, reasoning, dialogue.budget.usage, dialogue.prompt_sha256)


def hint_prompts(hint: Hint, profile: str) -> tuple[str, ...]:
    """The names of the prompts that explain the hint, in this profile.

    A profile without such prompts is of a model that was not trained on them: it is shown nothing,
    and the hint is only applied to what it answers.
    """
    given = {"within": hint.within is not None, "exclude": bool(hint.exclude)}
    names = [f"{profile}/hint.{name}" for name, is_given in given.items() if is_given]
    return tuple(name for name in names if prompting.exists(name))


def _form(config: PromptConfig) -> str:
    return "cot" if config.cot else "direct"
