"""Stage 1: show the image, ask for the query's targets, read the reply into proposals."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from rsvp import prompting, registry
from rsvp.dialogue import ChatRequest, Dialogue
from rsvp.errors import BadInput, UnparsableReply
from rsvp.frames import Frame, smart_resize
from rsvp.hints import hint_prompts, hinted
from rsvp.images import resize
from rsvp.lexicon import Lexicon, ReadQuery
from rsvp.mllm import MLLM, image_familiarity, is_remote
from rsvp.phrases import tell_detector
from rsvp.registry import ModelFamily
from rsvp.request import Request
from rsvp.segmenters.embedding_cache import EmbeddingCache
from rsvp.strategies import ChecksPrompt, NeedsSegmenter, Strategy, TakesPhrases, View
from rsvp.translation import Translator
from rsvp.types import Image, Reasoning, Reply, RgbArray, Usage

# Pixels up to which no server resizes a picture: the default of transformers' Qwen2-VL image
# processor, which vLLM, SGLang and DashScope take too where a model's folder says nothing.
SERVED_PIXELS = 28 * 28 * 1280
TEMPERATURE = 0.7  # of several sampled replies
_PIXEL_FRAMES = ("pixels", "resized-pixels")

ECHO = "the numbers {} are those of the worked example: give those of the image you were shown"
NOT_ABSENT = '"{}" is empty, but what the query asks for is in the image: name what fits best'


@dataclass(frozen=True, slots=True)
class PromptConfig:
    """How a model is asked.

    Attributes:
        frame: how it writes coordinates.
        family: what is known of models of its kind.
        cot: ask for the chain of thought, or for the targets alone.
        max_reasks: how often to ask again after a reply that cannot be read.
        lexicon: all words that the model knows, where these are few.
        target_exists: the query's target is known to be in the image: the model is told so, and
            asked once more where it finds none.
        translator: of the queries, where the embedded reasoner is asked in another language.
        language: of the queries.
        samples: replies that are asked for at once; several are sampled, and the targets are those
            that most of them agree on.
        temperature: of several.
    """

    frame: Frame
    family: ModelFamily
    cot: bool = True
    max_reasks: int = 2
    lexicon: Lexicon | None = None
    target_exists: bool = False
    translator: Translator | None = None
    language: str = "en"
    samples: int = 1
    temperature: float = TEMPERATURE

    @property
    def profile(self) -> str:
        """The profile of `prompts/` to ask with."""
        profile = self.family.profile
        return profile + prompting.EXISTS if self.tells_existence else profile

    @property
    def tells_existence(self) -> bool:
        """Whether the prompts say that the target exists: the embedded reasoner's cannot."""
        exists = f"{self.family.profile}{prompting.EXISTS}/system"
        return self.target_exists and prompting.exists(exists)


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


def make_prompt_config(
    mllm: MLLM | None,
    strategy: Strategy | None,
    *,
    frame: str | Frame | None,
    cot: bool,
    max_reasks: int,
    target_exists: bool,
    language: str = "en",
    samples: int = 1,
    temperature: float = TEMPERATURE,
) -> PromptConfig:
    """How the MLLM is asked; BadInput where it cannot be asked so, see `rsvp.Pipeline`."""
    if mllm is not None and strategy is None:
        raise BadInput("an MLLM needs a strategy, e.g. rsvp.strategies.boxes.BoxesStrategy()")
    if max_reasks < 0:
        raise BadInput(f"max_reasks is 0 or more, found {max_reasks}")
    if samples < 1 or not 0 < temperature < math.inf:
        raise BadInput(
            f"samples is 1 or more, their temperature above 0, found {samples}, {temperature}"
        )
    family = registry.family(mllm.model if mllm is not None else "")
    frame = family.frame if frame is None else frame
    if isinstance(frame, str):
        frame = replace(Frame.parse(frame), box_key=family.box_key)
    lexicon = _lexicon(mllm.model) if mllm is not None and family.lexicon else None
    translator = _translator(language) if mllm is not None and family.lexicon else None
    config = PromptConfig(
        frame, family, cot, max_reasks, lexicon, target_exists, translator, language,
        samples, temperature,
    )  # fmt: skip
    if mllm is not None and strategy is not None:
        check_prompts(mllm.name, strategy, config)
    return config


def _lexicon(model: str) -> Lexicon | None:
    """The words that a local model with few of them knows."""
    folder = registry.embedded_folder("reasoner") if model == "embedded" else Path(model)
    return Lexicon.load(folder)


def _translator(language: str) -> Translator | None:
    """The translator of the queries that the embedded reasoner is asked; None for English."""
    if language == "en":
        return None
    from rsvp.embedded import languages

    if language not in languages.LANGUAGES:
        known = ", ".join(languages.LANGUAGES)
        raise BadInput(f"the embedded reasoner reads {known}, found the language {language!r}")
    return languages.translator(language)


def check_prompts(
    mllm: str, strategy: Strategy, config: PromptConfig, *, trace: bool = False
) -> None:
    """Refuse what the prompts cannot ask for: points or another grid of the embedded reasoner.

    Args:
        trace: for reasoning paths.

    Raises:
        BadInput: the strategy has no prompts (the message names those that have some), or they
            cannot say what it shows.
    """
    few_words = config.family.lexicon and config.lexicon is None  # it learned masks alone
    if trace and few_words:
        raise BadInput(
            f"{mllm} cannot trace: these weights were trained on segmentation alone; take another "
            "MLLM, e.g. --preset local, or --mllm openai:NAME"
        )
    start, end = _prompt_name(config, "*", trace=trace).split("*")
    named = [n for n in prompting.names() if n.startswith(start) and n.endswith(end)]
    known = [name.removeprefix(start).removesuffix(end) for name in named]
    if few_words:
        known = [name for name in known if name != "points"]
    if strategy.name not in known:
        raise BadInput(
            f"{mllm} cannot be asked by the strategy {strategy.name}; it knows {', '.join(known)}"
        )
    if isinstance(strategy, ChecksPrompt):
        strategy.check_prompt(mllm, prompting.load(f"{start}{strategy.name}{end}").text)


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
    image, family, profile, frame = request.image, config.family, config.profile, config.frame
    query, unknown = read_query(request.query, config.lexicon, config.translator)
    if unknown or not query:
        return not_asked(request.query, unknown, dialogue, trace=trace)
    most = family.view_side(image.height, image.width)
    strategy, warning = tell_detector(
        request, query, dialogue, strategy, profile=profile, max_side=most
    )
    hints = hint_prompts(request.hint, profile)
    view = sent_view(image, request.query, strategy, config, dialogue.mllm, cache=cache)
    variables = {**frame_variables(view, frame), "query": query}
    rgb = hinted(view.rgb, request, hints)
    names = (*hints, _prompt_name(config, strategy.name, trace=trace))
    again = f"{profile}/reask.{'trace' if trace else strategy.name}"

    def schema(cot: bool) -> Mapping[str, Any]:
        return strategy.path_schema(frame) if trace else strategy.schema(cot, frame)

    def reask(problem: str) -> ChatRequest:
        if trace and (family.single_turn or not prompting.exists(again)):
            return first  # there is no simpler question
        text = prompting.render(again, **variables, problem=problem)
        if family.single_turn:  # it sees the image again, and gets the simpler question
            return ChatRequest((rgb, text), (again,), schema(False))
        return ChatRequest((text,), (again,), schema(config.cot))

    examples = prompting.example_numbers(names[-1], variables)
    doubts = config.tells_existence and dialogue.max_reasks > 0

    def read(reply: Reply) -> tuple[Reasoning, Reply]:
        nonlocal doubts
        seen = replace(frame, resized=reply.resized)
        read_form = strategy.read_path if trace else strategy.read
        reasoning = read_form(reply.text, image, view, seen)
        if warning:
            reasoning = replace(reasoning, warnings=(warning, *reasoning.warnings))
        _refuse_echo(reasoning, examples)
        if reasoning.no_target and reasoning.understood and doubts and dialogue.budget.is_left():
            doubts = False
            empty = "answer_objects" if trace else "targets"
            raise UnparsableReply(NOT_ABSENT.format(empty), reply.text)
        return reasoning, reply

    text = "\n\n".join(prompting.render(name, **variables) for name in names)
    first = ChatRequest((rgb, text), names, schema(config.cot))
    sampled = [] if trace or config.samples == 1 else _sample(first, read, dialogue, config)
    reasoning, reply = sampled[0] if sampled else dialogue.ask(first, read, reask)
    familiar = reply.familiarity
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
        shown=rgb,
    )


def _sample(
    request: ChatRequest,
    read: Callable[[Reply], tuple[Reasoning, Reply]],
    dialogue: Dialogue,
    config: PromptConfig,
) -> list[tuple[Reasoning, Reply]]:
    """The readable ones of several replies; each one's reasoning says how many there are."""
    found = dialogue.sample(request, read, config.samples, config.temperature)
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


def _refuse_echo(reasoning: Reasoning, examples: Collection[tuple[float, ...]]) -> None:
    """UnparsableReply where a target's first numbers are a box or point of a worked example."""
    for proposal in reasoning.proposals:
        if any(proposal.raw[: len(numbers)] == numbers for numbers in examples):
            raise UnparsableReply(ECHO.format(list(proposal.raw)), reasoning.raw)


class ViewSource(Protocol):
    """What makes a view; see `Strategy.view`."""

    def view(
        self, image: Image, query: str = "", *, max_side: int, cache: EmbeddingCache | None = None
    ) -> View: ...


def sent_view(
    image: Image,
    query: str,
    source: ViewSource,
    config: PromptConfig,
    mllm: MLLM,
    *,
    cache: EmbeddingCache | None = None,
) -> View:
    """The view of at most the size that the model family is shown."""
    if is_remote(mllm) and config.frame.kind in _PIXEL_FRAMES:
        return _served_view(image, query, source, config, cache)
    max_side = config.family.view_side(image.height, image.width)
    return source.view(image, query, max_side=max_side, cache=cache)


def frame_variables(view: View, frame: Frame) -> dict[str, str]:
    """The prompt's variables about a view and how coordinates in it are written."""
    height, width = view.size
    named = prompting.variables_for_frame(frame.kind, width, height, frame.box_key)
    return {**named, **view.variables}


def _served_view(
    image: Image,
    query: str,
    source: ViewSource,
    config: PromptConfig,
    cache: EmbeddingCache | None,
) -> View:
    """The view that no server resizes, so that a model's pixels are the view's own.

    Its sides are multiples of the model's patch, and it has at most `SERVED_PIXELS`. A server does
    not say to which size it brought a picture; all other frames are relative to it.
    """
    frame = config.frame

    def served(height: int, width: int) -> tuple[int, int]:
        resized = frame.kind == "resized-pixels"
        patch = max(config.family.multiple, frame.patch if resized else 1)
        least = frame.min_pixels if patch > 1 else 1
        most = min(frame.max_pixels, config.family.max_pixels or SERVED_PIXELS)
        return smart_resize(height, width, patch=patch, min_pixels=least, max_pixels=most)

    most = config.family.view_side(image.height, image.width)
    shrunk = min(1.0, most / max(image.height, image.width))
    size = served(round(image.height * shrunk) or 1, round(image.width * shrunk) or 1)
    view = source.view(image, query, max_side=max(size), cache=cache)
    size = served(*view.size)
    variables = {**view.variables, "width": str(size[1]), "height": str(size[0])}
    return replace(view, rgb=resize(view.rgb, size), variables=variables)


def read_query(query: str, lexicon: Lexicon | None, translator: Translator | None) -> ReadQuery:
    """The query as the model is asked it, and the words that have no translation or no meaning."""
    unknown: tuple[str, ...] = ()
    if translator is not None:
        query, unknown = translator.read(query)
    if lexicon is not None:
        query, strange = lexicon.read(query)
        unknown += strange
    return ReadQuery(query, unknown)


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


def _prompt_name(config: PromptConfig, strategy: str, *, trace: bool) -> str:
    """The name of the prompt that asks by a strategy."""
    if trace:
        return f"{config.profile}/trace.{strategy}"
    return f"{config.profile}/{strategy}.{'cot' if config.cot else 'direct'}"


def prompt_names(
    config: PromptConfig, strategy: Strategy, *, trace: bool = False
) -> tuple[str, ...]:
    """The names of all prompts that a query may be asked with, but for hints."""
    again = "trace" if trace else strategy.name
    system = "system.trace" if trace else "system"
    names = [
        system,
        _prompt_name(config, strategy.name, trace=trace).partition("/")[2],
        f"reask.{again}",
    ]
    if isinstance(strategy, TakesPhrases) and strategy.ask_phrases:
        names += ["phrases", "reask.phrases"]
    return tuple(filter(prompting.exists, (f"{config.profile}/{name}" for name in names)))
