"""How a model is asked: its family, frame, prompts and words, and what the caller decides."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict

from rsvp import prompting, registry
from rsvp.errors import BadInput
from rsvp.frames import Frame
from rsvp.lexicon import Lexicon, ReadQuery
from rsvp.mllm import MLLM
from rsvp.registry import ModelFamily
from rsvp.strategies import ChecksPrompt, Strategy, TakesPhrases
from rsvp.translation import Translator

TEMPERATURE = 0.7  # of several sampled replies


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

    def prompt_name(self, strategy: str, *, trace: bool = False) -> str:
        """The name of the prompt that asks by a strategy, for a reasoning path or the targets."""
        if trace:
            return f"{self.profile}/trace.{strategy}"
        return f"{self.profile}/{strategy}.{'cot' if self.cot else 'direct'}"

    def read_query(self, query: str) -> ReadQuery:
        """The query as the model is asked it, and its words without translation or meaning."""
        unknown: tuple[str, ...] = ()
        if self.translator is not None:
            query, unknown = self.translator.read(query)
        if self.lexicon is not None:
            query, strange = self.lexicon.read(query)
            unknown += strange
        return ReadQuery(query, unknown)


class PromptSettings(TypedDict, total=False):
    """What the caller decides of a `PromptConfig`; see `rsvp.Pipeline`."""

    cot: bool
    frame: str | Frame | None
    max_reasks: int
    target_exists: bool
    language: str
    samples: int
    temperature: float


def make_prompt_config(
    mllm: MLLM | None,
    strategy: Strategy | None,
    *,
    frame: str | Frame | None = None,
    cot: bool = True,
    max_reasks: int = 2,
    target_exists: bool = False,
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
    """Refuse what the prompts cannot ask for: another grid of the embedded reasoner, say.

    Args:
        trace: for reasoning paths.

    Raises:
        BadInput: the strategy has no prompts (the message names those that have some), or they
            cannot say what it shows.
    """
    start, end = config.prompt_name("*", trace=trace).split("*")
    named = [n for n in prompting.names() if n.startswith(start) and n.endswith(end)]
    known = [name.removeprefix(start).removesuffix(end) for name in named]
    if strategy.name not in known:
        raise BadInput(
            f"{mllm} cannot be asked by the strategy {strategy.name}; it knows {', '.join(known)}"
        )
    if isinstance(strategy, ChecksPrompt):
        strategy.check_prompt(mllm, prompting.load(f"{start}{strategy.name}{end}").text)


def prompt_names(
    config: PromptConfig, strategy: Strategy, *, trace: bool = False
) -> tuple[str, ...]:
    """The names of all prompts that a query may be asked with, but for hints."""
    again = "trace" if trace else strategy.name
    system = "system.trace" if trace else "system"
    names = [system, config.prompt_name(strategy.name, trace=trace).partition("/")[2]]
    names.append(f"reask.{again}")
    if isinstance(strategy, TakesPhrases) and strategy.ask_phrases:
        names += ["phrases", "reask.phrases"]
    return prompting.existing(config.profile, *names)
