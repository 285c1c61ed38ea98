"""Stage 1's engine: messages in, reply text out. A backend holds no prompt and parses nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from rsvp.types import Message, Reply


@runtime_checkable
class MLLM(Protocol):
    """A multimodal LLM.

    Attributes:
        name: the spec that made it, e.g. ``openai:gpt-5.1``; written into every result.
        model: the model's own name or folder, from which `registry.family` finds the coordinate
            frame and the prompt profile.

    Two more are optional, and looked up by name:

        remote: True where somebody else's processor does the work; the pipeline then encodes the
            image while it waits for the reply. Absent means False.
        load(): load what the first reply would load, and return; later calls do nothing. The
            pipeline calls it before the first question, so that loading is timed apart. It raises
            what `reply` would.
    """

    name: str
    model: str

    def reply(
        self, messages: Sequence[Message], *, schema: Mapping[str, Any] | None = None
    ) -> Reply:
        """Answer a conversation.

        Args:
            schema: JSON schema of the reply, for servers that can enforce one; others ignore it.

        Raises:
            MLLMFailed: unreachable, or an error after every retry.
            ModelUnavailable: weights or key are missing.
        """
        ...

    async def areply(
        self, messages: Sequence[Message], *, schema: Mapping[str, Any] | None = None
    ) -> Reply:
        """`reply`, awaitable."""
        ...
