"""Stage 1 as a conversation: show and ask, read the reply, ask again where it cannot be read.

`converse` is a generator, so that the sync and the async pipeline share it: it yields what to ask
the MLLM, is sent the reply, and yields the `Thought` at last.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rsvp import hints as hinting
from rsvp import prompting
from rsvp.errors import BadInput, UnparsableReply
from rsvp.frames import Frame
from rsvp.hints import Hint
from rsvp.strategies import Strategy
from rsvp.types import Image, Message, Reasoning, Reply, RgbArray, Usage

MAX_QUOTE = 4000  # characters of an unreadable reply that are shown back to the model

# Models taught on conversations of one turn: they are asked anew, more simply, and only once more,
# for the same question would get the same reply.
_SINGLE_TURN = frozenset({"compact"})


@dataclass(frozen=True, slots=True)
class Question:
    """What the MLLM is asked next."""

    messages: tuple[Message, ...]
    schema: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Thought:
    """What came of a conversation.

    Attributes:
        reply: the one that was read.
        usage: of all replies.
        prompt_sha256: of the templates of all prompts sent, in order.
        shown: (h, w, 3) uint8, the visual prompt.
    """

    reasoning: Reasoning
    reply: Reply
    usage: Usage
    prompt_sha256: str
    shown: RgbArray | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Manner:
    """How a model is spoken to.

    Attributes:
        frame: how it writes coordinates.
        profile: the folder of `prompts/` that is worded for it.
        cot: ask for the chain of thought, or for the targets alone.
        max_reasks: how often to ask again after a reply that cannot be read.
    """

    frame: Frame
    profile: str
    cot: bool = True
    max_reasks: int = 2


def check_taught(mllm: str, strategy: str, manner: Manner) -> None:
    """Refuse a strategy that there are no prompts for, e.g. points for the embedded reasoner.

    Raises:
        BadInput: there are none; the message names the strategies that have some.
    """
    ending = ".cot" if manner.cot else ".direct"
    start = f"{manner.profile}/"
    named = [name for name in prompting.names() if name.startswith(start)]
    known = [n[len(start) : -len(ending)] for n in named if n.endswith(ending)]
    if strategy not in known:
        raise BadInput(
            f"{mllm} cannot be asked by the strategy {strategy}; it knows {', '.join(known)}"
        )


def converse(
    image: Image, query: str, strategy: Strategy, manner: Manner, hint: Hint | None = None
) -> Generator[Question | Thought, Reply, None]:
    """Ask for the query's targets until a reply can be read.

    Args:
        hint: what the user says beside the query; shown and told to models that know of hints.

    Raises:
        UnparsableReply: the last reply that was allowed could not be read either; it is `raw`.
    """
    profile = manner.profile
    view = strategy.view(image, query)
    variables: dict[str, str] = {
        **prompting.variables_for_frame(manner.frame.kind, view.size[1], view.size[0]),
        **view.variables,
        "query": query,
    }
    hints = hinting.prompts(hint, profile) if hint else ()
    rgb = hinting.drawn(hint, view.rgb, image) if hint and hints else view.rgb
    asked = f"{profile}/{strategy.name}.{'cot' if manner.cot else 'direct'}"
    again = f"{profile}/reask.{strategy.name}"
    messages = (
        *_system(profile),
        Message("user", (rgb, _rendered((*hints, asked), variables))),
    )
    schema = strategy.schema(manner.cot, manner.frame)
    usage = Usage()
    sent = [*([f"{profile}/system"] if len(messages) > 1 else []), *hints, asked]
    reasks, replies = manner.max_reasks, 0
    while True:
        reply = yield Question(messages, schema)
        replies += 1
        usage += reply.usage
        try:
            reasoning = strategy.read(reply.text, image, view, manner.frame)
        except UnparsableReply as error:
            if reasks <= 0:
                raise _gave_up(error, replies) from error
            problem = str(error)
        else:
            yield Thought(reasoning, reply, usage, _digest(sent), rgb)
            return
        text = _rendered((again,), {**variables, "problem": problem})
        sent.append(again)
        if profile in _SINGLE_TURN:
            messages, reasks = (*_system(profile), Message("user", (rgb, text))), 0
            schema = strategy.schema(False, manner.frame)
        else:
            messages = (*messages, _quoted(reply.text), Message("user", (text,)))
            reasks -= 1


def _system(profile: str) -> tuple[Message, ...]:
    name = f"{profile}/system"
    return (Message("system", (prompting.render(name),)),) if prompting.exists(name) else ()


def _rendered(names: Sequence[str], variables: Mapping[str, str]) -> str:
    """Prompts one below the other."""
    return "\n\n".join(prompting.render(name, **variables) for name in names)


def _quoted(reply: str) -> Message:
    """The model's own turn; never empty, for some chat templates and servers refuse that."""
    return Message("assistant", (reply.strip()[:MAX_QUOTE] or "...",))


def _digest(names: list[str]) -> str:
    return prompting.digest(prompting.load(name).text for name in dict.fromkeys(names))


def _gave_up(error: UnparsableReply, replies: int) -> UnparsableReply:
    one = replies == 1
    what = "the MLLM's reply cannot" if one else f"none of the MLLM's {replies} replies can"
    return UnparsableReply(f"{what} be read: {error}", error.raw)
