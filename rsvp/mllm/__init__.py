"""Stage 1's engine: messages in, reply text out. A backend holds no prompt and parses nothing."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from rsvp.errors import BadInput
from rsvp.types import Message, Reply, RgbArray

NO_SPARSE = (
    "zoom sparse needs the image tokens of a local Qwen-VL or GLM-V (--mllm transformers:ID): "
    "{}; take zoom mask, which shows the same pixels"
)
_PAUSE = 0.1  # seconds between two looks at a reply that is being written


@runtime_checkable
class MLLM(Protocol):
    """A multimodal LLM. `reply` may be called from several threads at once.

    Attributes:
        name: the spec that made it, e.g. ``openai:gpt-5.1``; written into every result.
        model: the model's own name or folder, from which `registry.family` finds the coordinate
            frame and the prompt profile.

    A backend may also have these six; the functions below give the defaults:

        remote: bool, True where another machine runs the model.
        connect(): raise MLLMFailed where that machine cannot be reached.
        load(): load the weights that the first reply would load; later calls do nothing.
        reply_longer(messages, cut, *, schema=None): the reply with twice the token limit, after
            the reply `cut` that ended there; None where the limit cannot be raised.
        replies(messages, count, temperature, *, schema=None): several sampled replies at once.
        check_sparse(): raise BadInput where it cannot show a mask's patches alone, see `Message`.
        familiarity(rgb): the `familiarity` of a reply about this image, without a reply.

    One that writes a reply token by token calls `tell_written` meanwhile.
    """

    name: str
    model: str

    def reply(
        self, messages: Sequence[Message], *, schema: Mapping[str, Any] | None = None
    ) -> Reply:
        """Answer a conversation.

        Args:
            schema: JSON schema of the reply, for backends that can enforce one or a part of it.

        Raises:
            MLLMFailed: unreachable, or an error after every retry.
            ModelUnavailable: weights or key are missing.
        """


def is_remote(mllm: MLLM | None) -> bool:
    """Whether another machine runs the model, so that this one can encode the image meanwhile."""
    return bool(getattr(mllm, "remote", False))


def connect_to(mllm: MLLM | None) -> None:
    """Raise MLLMFailed where the backend's server cannot be reached."""
    connect = getattr(mllm, "connect", None)
    if callable(connect):
        connect()


def load(mllm: MLLM) -> None:
    """Load the backend's weights, so that loading is timed apart from the first reply."""
    load_weights = getattr(mllm, "load", None)
    if callable(load_weights):
        load_weights()


def reply_longer(
    mllm: MLLM, messages: Sequence[Message], cut: Reply, *, schema: Mapping[str, Any] | None = None
) -> Reply | None:
    """Ask once more with twice the token limit; None where the backend cannot raise it.

    Raises:
        MLLMFailed, ModelUnavailable: see `MLLM.reply`.
    """
    longer = getattr(mllm, "reply_longer", None)
    reply: Reply | None = longer(messages, cut, schema=schema) if callable(longer) else None
    return reply


def sample_replies(
    mllm: MLLM,
    messages: Sequence[Message],
    count: int,
    temperature: float,
    *,
    schema: Mapping[str, Any] | None = None,
) -> list[Reply]:
    """Several replies to one conversation, sampled at a temperature.

    Servers are asked for all at once, and a local model writes them together. Of a backend that
    cannot, they come one by one, at its own temperature.

    Raises:
        MLLMFailed, ModelUnavailable: see `MLLM.reply`; where some replies fail, the others stay.
    """
    several = getattr(mllm, "replies", None)
    if callable(several):
        found: list[Reply] = several(messages, count, temperature, schema=schema)
        return found
    return [mllm.reply(messages, schema=schema) for _ in range(count)]


def check_sparse(mllm: MLLM) -> None:
    """BadInput where the backend cannot show the patches of a mask alone, see `Message.kept`."""
    check = getattr(mllm, "check_sparse", None)
    if not callable(check):
        raise BadInput(NO_SPARSE.format(f"{mllm.name} gives no access to them"))
    check()


def image_familiarity(mllm: MLLM, rgb: RgbArray) -> float | None:
    """How familiar an (H, W, 3) uint8 image is, see `Reply`; None where the backend cannot tell."""
    judge = getattr(mllm, "familiarity", None)
    found: float | None = judge(rgb) if callable(judge) else None
    return found


@dataclass(slots=True)
class _Listener:
    """What takes the text of replies, and when it is next due in `time.monotonic()`."""

    take: Callable[[str], None]
    due: float = 0.0


_listener: ContextVar[_Listener | None] = ContextVar("rsvp_listener", default=None)


@contextlib.contextmanager
def listening(take: Callable[[str], None]) -> Iterator[None]:
    """Within it, `take` gets the text of each reply so far, thoughts included, several times.

    Of the calls in this thread; it is called from other threads, too. Backends that cannot stream
    a reply, and replies that are sampled together, tell nothing.
    """
    token = _listener.set(_Listener(take))
    try:
        yield
    finally:
        _listener.reset(token)


def tell_written(text: Callable[[], str]) -> None:
    """Of a backend, after each token: give who is listening the reply so far, which `text` makes.

    Does nothing where nobody listens, or less than 0.1 s after the last time.
    """
    listener = _listener.get()
    if listener is not None and time.monotonic() >= listener.due:
        listener.take(text())
        listener.due = time.monotonic() + _PAUSE
