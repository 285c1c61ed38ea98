"""The turn in which the MLLM names what a detector shall look for, before its candidates are drawn.

It is a conversation of its own, so that the question about the candidates shows one picture alone.
"""

from __future__ import annotations

from rsvp import prompting
from rsvp.dialogue import ChatRequest, Dialogue
from rsvp.errors import BadInput, UnparsableReply
from rsvp.hints import hint_prompts, hinted
from rsvp.images import shrink
from rsvp.parsing.answers import parse_phrases
from rsvp.request import Request
from rsvp.strategies import NO_EXAMPLES, Strategy, TakesPhrases

MAX_PHRASES = 8  # each costs a pass of the detector
NO_PHRASES = (
    "the MLLM named nothing that a detector could look for ({}): it looked for the query and for "
    "common things"
)
_SCHEMA = {
    "type": "object",
    "properties": {"phrases": {"type": "array", "items": {"type": "string"}}},
    "required": ["phrases"],
    "additionalProperties": False,
}


def tell_detector(
    request: Request,
    query: str,
    dialogue: Dialogue,
    strategy: Strategy,
    *,
    profile: str,
    max_side: int,
) -> tuple[Strategy, str]:
    """The strategy with what its detector shall look for, where it has one; and a warning.

    Args:
        query: as the model is asked it.
        dialogue: of stage 1; it gets no new messages, but its budget pays.
        max_side: of the picture that the model is shown, in pixels.

    Raises:
        BadInput: examples for a strategy without such a detector.
        BudgetExceeded, MLLMFailed, ModelUnavailable: see `Dialogue.ask`.
    """
    like, phrases, warning = request.hint.like, tuple[str, ...](), ""
    if not isinstance(strategy, TakesPhrases):
        if like:
            raise BadInput(NO_EXAMPLES.format(strategy.name))
        return strategy, ""
    told = strategy.looking_for((), like)  # refuses examples before the MLLM is asked
    if strategy.ask_phrases and prompting.exists(f"{profile}/phrases"):
        phrases, warning = _ask(request, query, dialogue, profile, max_side)
        told = strategy.looking_for(phrases, like)
    return told, warning


def _ask(
    request: Request, query: str, dialogue: Dialogue, profile: str, max_side: int
) -> tuple[tuple[str, ...], str]:
    """The MLLM's noun phrases, and a warning where there are none."""
    hints, again = hint_prompts(request.hint, profile), f"{profile}/reask.phrases"
    first = (*hints, f"{profile}/phrases")
    text = "\n\n".join(prompting.render(name, query=query) for name in first)

    def reask(problem: str) -> ChatRequest:
        once_more = prompting.render(again, query=query, problem=problem)
        return ChatRequest((once_more,), (again,), _SCHEMA)

    turn = dialogue.branch(profile)
    if not prompting.exists(again):
        turn.max_reasks = 0
    rgb = hinted(shrink(request.image.rgb, max_side), request, hints)
    asked = ChatRequest((rgb, text), first, _SCHEMA)
    try:
        found = turn.ask(asked, lambda reply: parse_phrases(reply.text), reask)
    except UnparsableReply as error:
        return (), NO_PHRASES.format(error)
    return found[:MAX_PHRASES], "" if found else NO_PHRASES.format("its list is empty")
