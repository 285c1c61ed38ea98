"""The turn in which the MLLM names what a detector shall look for, before its candidates are drawn.

It is a conversation of its own, so that the question about the candidates shows one picture alone.
"""

from __future__ import annotations

from rsvp import prompting
from rsvp.dialogue import ChatRequest, Dialogue
from rsvp.errors import UnparsableReply
from rsvp.parsing.answers import parse_phrases
from rsvp.types import RgbArray

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


def ask_phrases(
    query: str, rgb: RgbArray, hints: tuple[str, ...], dialogue: Dialogue, profile: str
) -> tuple[tuple[str, ...], str]:
    """The MLLM's noun phrases, and a warning where there are none.

    Args:
        query: as the model is asked it.
        rgb: (h, w, 3) uint8, the image as the model is shown it, with the hints drawn.
        hints: names of the prompts that explain them.
        dialogue: of stage 1; it gets no new messages, but its budget pays.

    Raises:
        BudgetExceeded, MLLMFailed, ModelUnavailable: see `Dialogue.ask`.
    """
    first, again = (*hints, f"{profile}/phrases"), f"{profile}/reask.phrases"
    text = "\n\n".join(prompting.render(name, query=query) for name in first)

    def reask(problem: str) -> ChatRequest:
        once_more = prompting.render(again, query=query, problem=problem)
        return ChatRequest((once_more,), (again,), _SCHEMA)

    turn = dialogue.branch(profile)
    if not prompting.exists(again):
        turn.max_reasks = 0
    request = ChatRequest((rgb, text), first, _SCHEMA)
    try:
        found = turn.ask(request, lambda reply: parse_phrases(reply.text), reask)
    except UnparsableReply as error:
        return (), NO_PHRASES.format(error)
    return found[:MAX_PHRASES], "" if found else NO_PHRASES.format("its list is empty")
