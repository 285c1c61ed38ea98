"""The chat loop of every stage that talks to an MLLM: send, read the reply, ask again, keep count.

A stage brings what to ask, `read`, which takes a value from a reply or raises `UnparsableReply`,
and `reask`, which says what to ask after an unreadable reply.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from rsvp import prompting
from rsvp.errors import (
    BadInput,
    BudgetExceeded,
    MLLMFailed,
    RunBudgetExceeded,
    UnparsableReply,
)
from rsvp.mllm import MLLM, reply_longer, sample_replies
from rsvp.parsing.thinking import is_cut_thought
from rsvp.types import BoolMask, Message, Reply, RgbArray, Usage

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
        kept: see `Message`.
    """

    parts: tuple[str | RgbArray, ...]
    prompts: tuple[str, ...] = ()
    schema: Mapping[str, Any] | None = None
    kept: BoolMask | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one request, or a whole run, may cost; None is unlimited.

    Attributes:
        calls: replies of the MLLM.
        tokens: read and written, as the backend counts them.
        seconds: spent waiting for replies; of replies at the same time, the sum.
        usd: by the prices below, which only the user knows.
        price_in, price_out: US dollars for a million tokens read, and written.
    """

    calls: int | None = None
    tokens: int | None = None
    seconds: float | None = None
    usd: float | None = None
    price_in: float | None = None
    price_out: float | None = None

    @classmethod
    def parse(cls, text: str | None) -> Limits:
        """Read ``calls=3,tokens=8000,seconds=60,usd=0.05,price_in=0.25,price_out=2``.

        None is unlimited; other texts, and dollars without prices, are BadInput.
        """
        kinds = {name: int if name in ("calls", "tokens") else float for name in LIMITS}
        limits: dict[str, Any] = {}
        for part in () if text is None else text.split(","):
            name, _, value = part.strip().partition("=")
            try:
                number = kinds[name](value)
            except (KeyError, ValueError, OverflowError):
                number = -1
            # A price may be nothing; NaN is refused too.
            if not (number > 0 or (number == 0 and name.startswith("price"))):
                known = ",".join(f"{n}={'N' if kind is int else 'X'}" for n, kind in kinds.items())
                raise BadInput(f"a budget is {known}, found {part!r}")
            limits[name] = number
        if "usd" in limits and not {"price_in", "price_out"} <= limits.keys():
            raise BadInput(
                "a budget in usd needs price_in=X and price_out=X, the dollars for a million "
                "tokens read and written"
            )
        return cls(**limits)

    def cost(self, usage: Usage) -> float | None:
        """US dollars; None where the prices are unknown."""
        if self.price_in is None or self.price_out is None:
            return None
        read, written = usage.prompt_tokens, usage.completion_tokens
        return (read * self.price_in + written * self.price_out) / 1e6


LIMITS = tuple(one.name for one in fields(Limits))


class Budget:
    """Counts what the dialogues of one request cost, and ends them at the limits; thread-safe.

    Args:
        usage, seconds: spent before.
        run: the budget of the whole run, which counts and ends too.

    Attributes:
        calls: replies that were asked for, among them those that failed or are still under way.
    """

    def __init__(
        self,
        limits: Limits | None = None,
        usage: Usage | None = None,
        seconds: float = 0.0,
        run: Budget | None = None,
    ) -> None:
        self.limits, self.usage, self.seconds = limits or Limits(), usage or Usage(), seconds
        self.run = run
        self.calls = self.usage.calls
        self._lock = threading.Lock()

    def check(self) -> None:
        """Raise BudgetExceeded where nothing is left for another call."""
        self._check("", "raise --budget")
        if self.run is not None:
            self.run.check_run()

    def check_run(self) -> None:
        """`check` for the budget of a whole run."""
        try:
            self._check(" of the run", "raise --run-budget and use --resume")
        except BudgetExceeded as error:
            raise RunBudgetExceeded(str(error)) from None

    def _check(self, whose: str, how: str) -> None:
        limits, usage = self.limits, self.usage
        tokens = usage.prompt_tokens + usage.completion_tokens
        for name, spent, limit in (
            ("calls", self.calls, limits.calls),
            ("tokens", tokens, limits.tokens),
            ("seconds", self.seconds, limits.seconds),
            ("usd", limits.cost(usage), limits.usd),
        ):
            if limit is not None and spent is not None and spent >= limit:
                raise BudgetExceeded(
                    f"the budget{whose} ({name}={limit:g}) is spent without an answer; {how}"
                )

    def is_left(self) -> bool:
        """Whether there is budget for another call."""
        try:
            self.check()
        except BudgetExceeded:
            return False
        return True

    def reserve(self, calls: int = 1) -> int:
        """Count calls that are about to be made; how many of them the budget allows.

        Raises:
            BudgetExceeded: none.
        """
        with self._lock, self.run._lock if self.run else contextlib.nullcontext():
            self.check()
            budgets = (self, self.run) if self.run else (self,)
            left = [b.limits.calls - b.calls for b in budgets if b.limits.calls is not None]
            allowed = min((calls, *left))
            for budget in budgets:
                budget.calls += allowed
        return allowed

    def add(self, reply: Reply) -> None:
        """Count what a reply cost, after its call was reserved."""
        with self._lock:
            self.usage += reply.usage
            self.seconds += reply.seconds
        if self.run is not None:
            self.run.add(reply)


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

    def branch(self, profile: str, system: str = "system") -> Dialogue:
        """Another conversation with the same model and budget; its prompts count as this one's."""
        new = Dialogue(
            self.mllm, profile, system=system, single_turn=self.single_turn,
            max_reasks=self.max_reasks, budget=self.budget,
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

    def sample(
        self, request: ChatRequest, read: Callable[[Reply], T], count: int, temperature: float
    ) -> list[T]:
        """What `read` accepts of several replies to one question, which are not kept.

        Args:
            count: of the replies; fewer where the budget of calls allows no more.

        Raises:
            BudgetExceeded: it was spent before.
            MLLMFailed, ModelUnavailable: from the backend.
        """
        count, before = self.budget.reserve(count), self.messages
        self._add(request)
        asked, self.messages = self.messages, before
        found: list[T] = []
        for reply in sample_replies(self.mllm, asked, count, temperature, schema=request.schema):
            self.budget.add(reply)
            with contextlib.suppress(UnparsableReply):
                found.append(_read_whole(reply, read))
        return found

    def _add(self, request: ChatRequest) -> None:
        """Add the user's message."""
        before = self._system if self.single_turn else self.messages
        self.messages = (*before, Message("user", request.parts, request.kept))
        self.prompts += request.prompts

    def _send(self, request: ChatRequest) -> tuple[Reply, bool]:
        """The reply, and whether the token limit was raised for it."""
        self.budget.reserve()
        self._add(request)
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
            self.budget.reserve()
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
