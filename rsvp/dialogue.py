"""The chat loop of every stage that talks to an MLLM: send, read the reply, ask again, keep count.

A stage brings what to ask, `read`, which takes a value from a reply or raises `UnparsableReply`,
and `reask`, which says what to ask after an unreadable reply.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from rsvp import prompting
from rsvp.errors import BadInput, BudgetExceeded, MLLMFailed, UnparsableReply
from rsvp.mllm import MLLM, reply_longer
from rsvp.parsing.thinking import is_cut_thought
from rsvp.types import Message, Reply, RgbArray, Usage

T = TypeVar("T")

MAX_QUOTE = 4000  # characters of an unreadable reply that are shown back to the model
MAX_SHOWN = 200  # of the last one, in the error
CUT = "the reply was cut at the token limit"
RAISE = (
    "raise it with --option max_tokens=N, or bound the thinking with --option reasoning_effort=low "
    "or --option enable_thinking=false"
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What the MLLM is asked next.

    Attributes:
        parts: of the user's message: texts and (h, w, 3) uint8 images, in order.
        prompts: names of the prompt files that the texts were rendered from.
        schema: JSON schema of the reply, for servers that can enforce one.
    """

    parts: tuple[str | RgbArray, ...]
    prompts: tuple[str, ...] = ()
    schema: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one request may cost; None is unlimited.

    Attributes:
        calls: replies of the MLLM.
        tokens: read and written, as the backend counts them.
        seconds: spent waiting for replies.
    """

    calls: int | None = None
    tokens: int | None = None
    seconds: float | None = None

    @classmethod
    def parse(cls, text: str | None) -> Limits:
        """Read ``calls=3,tokens=8000,seconds=60``; None is unlimited, other texts are BadInput."""
        limits: dict[str, Any] = {}
        for part in () if text is None else text.split(","):
            name, _, value = part.strip().partition("=")
            try:
                limits[name] = {"calls": int, "tokens": int, "seconds": float}[name](value)
            except (KeyError, ValueError):
                limits[name] = -1
            if not limits[name] > 0:
                raise BadInput(f"a budget is calls=N,tokens=N,seconds=X, found {part!r}")
        return cls(**limits)


@dataclass(slots=True)
class Budget:
    """Counts what the dialogues of one request cost, and ends them at the limits."""

    limits: Limits = field(default_factory=Limits)
    usage: Usage = field(default_factory=Usage)
    seconds: float = 0.0

    def check(self) -> None:
        """Raise BudgetExceeded where nothing is left for another call."""
        limits, usage = self.limits, self.usage
        tokens = usage.prompt_tokens + usage.completion_tokens
        for name, spent, limit in (
            ("calls", usage.calls, limits.calls),
            ("tokens", tokens, limits.tokens),
            ("seconds", self.seconds, limits.seconds),
        ):
            if limit is not None and spent >= limit:
                raise BudgetExceeded(
                    f"the budget ({name}={limit:g}) is spent without an answer; raise --budget"
                )

    def is_left(self) -> bool:
        """Whether there is budget for another call."""
        try:
            self.check()
        except BudgetExceeded:
            return False
        return True

    def add(self, reply: Reply) -> None:
        """Count a reply."""
        self.usage += reply.usage
        self.seconds += reply.seconds


class Dialogue:
    """One conversation with an MLLM.

    Args:
        profile: the folder of `prompts/` whose `system` prompt begins the conversation, if any.
        system: the name of that prompt.
        single_turn: the model was trained on one question and one reply: every question begins a
            new conversation, and is asked again once at most.
        max_reasks: how often to ask again after a reply that cannot be read.
        budget: shared by all dialogues of one request.

    Attributes:
        messages: sent and received so far.
        prompts: names of the prompt files sent so far, in order.
    """

    def __init__(
        self,
        mllm: MLLM,
        profile: str,
        *,
        system: str = "system",
        single_turn: bool = False,
        max_reasks: int = 2,
        budget: Budget | None = None,
    ) -> None:
        self.mllm = mllm
        self.single_turn = single_turn
        self.max_reasks = min(max_reasks, 1) if single_turn else max_reasks
        self.budget = budget or Budget()
        self.prompts: list[str] = []
        self._prompt_tokens = 0  # of the last reply
        self._system: tuple[Message, ...] = ()
        system = f"{profile}/{system}"
        if prompting.exists(system):
            self._system = (Message("system", (prompting.render(system),)),)
            self.prompts.append(system)
        self.messages: tuple[Message, ...] = self._system

    def branch(self, profile: str) -> Dialogue:
        """Another conversation with the same model and budget; its prompts count as this one's."""
        new = Dialogue(
            self.mllm, profile, single_turn=self.single_turn, max_reasks=self.max_reasks,
            budget=self.budget,
        )  # fmt: skip
        self.prompts += new.prompts
        new.prompts = self.prompts
        return new

    @property
    def prompt_sha256(self) -> str:
        """Digest of the templates of all prompts sent, each once, in order."""
        return prompting.digest(prompting.load(n).text for n in dict.fromkeys(self.prompts))

    def ask(
        self,
        request: ChatRequest,
        read: Callable[[Reply], T],
        reask: Callable[[str], ChatRequest],
    ) -> T:
        """Ask until `read` accepts a reply.

        A reply that the token limit cut is asked for once more with a higher limit. If that one is
        cut too and cannot be read, asking again would only cut a third: it is an error.

        Args:
            reask: what to ask after an unreadable reply, given the problem in one line.

        Raises:
            UnparsableReply: the last reply that was allowed could not be read; it is `raw`.
            BudgetExceeded: the budget was spent before.
            MLLMFailed, ModelUnavailable: from the backend.
        """
        for replies in range(1, self.max_reasks + 2):
            reply, raised = self._send(request)
            try:
                return _read_whole(reply, read)
            except UnparsableReply as error:
                if raised and reply.finish_reason == "length":
                    raise UnparsableReply(f"{CUT}; {RAISE}", error.raw) from error
                if replies > self.max_reasks:
                    raise _unreadable(error, replies) from error
                self.budget.check()  # here, so that the error's context is the unreadable reply
                request = reask(str(error))
        raise AssertionError("the loop returns or raises")

    def _send(self, request: ChatRequest) -> tuple[Reply, bool]:
        """The reply, and whether the token limit was raised for it."""
        self.budget.check()
        before = self._system if self.single_turn else self.messages
        self.messages = (*before, Message("user", request.parts))
        self.prompts += request.prompts
        reply = self.mllm.reply(self.messages, schema=request.schema)
        self.budget.add(reply)
        longer = self._longer(reply, request) if reply.finish_reason == "length" else None
        reply, raised = longer or reply, longer is not None
        self._check_prompt_tokens(reply)
        # Never empty: some chat templates and servers refuse that.
        quote = reply.text.strip()[:MAX_QUOTE] or "..."
        self.messages = (*self.messages, Message("assistant", (quote,)))
        return reply, raised

    def _longer(self, cut: Reply, request: ChatRequest) -> Reply | None:
        """The reply with a higher token limit; None where neither model nor budget allow it."""
        with contextlib.suppress(MLLMFailed):  # among them a spent budget: the cut reply stays
            self.budget.check()
            longer = reply_longer(self.mllm, self.messages, cut, schema=request.schema)
            if longer is not None:
                self.budget.add(longer)
            return longer
        return None

    def _check_prompt_tokens(self, reply: Reply) -> None:
        """Warn where a longer conversation counts fewer tokens: its beginning was dropped."""
        read, self._prompt_tokens = self._prompt_tokens, reply.usage.prompt_tokens
        if not self.single_turn and 0 < self._prompt_tokens < read:
            _log.warning(
                "%s read %d tokens of a conversation that had %d before: its context length is too "
                "small and the image may be lost; raise it at the server (docs/servers.md)",
                self.mllm.name, self._prompt_tokens, read,
            )  # fmt: skip


def _read_whole(reply: Reply, read: Callable[[Reply], T]) -> T:
    """Read a reply, unless it is a thought that was cut: a draft in it is no answer."""
    if reply.finish_reason == "length" and is_cut_thought(reply.text):
        raise UnparsableReply(f"{CUT} before the answer began", reply.text)
    return read(reply)


def _unreadable(error: UnparsableReply, replies: int) -> UnparsableReply:
    one = replies == 1
    what = "the MLLM's reply cannot" if one else f"none of the MLLM's {replies} replies can"
    words = " ".join(error.raw.split())
    said = f'; it wrote: "{shorten(words)}"' if words else ""
    return UnparsableReply(f"{what} be read: {error}{said}", error.raw)


def shorten(text: str) -> str:
    """The beginning of a text that is longer than an error line may quote."""
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 3]}..."
