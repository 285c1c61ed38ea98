"""Chat completions from any compatible server.

OpenAI, vLLM, SGLang, Ollama, LM Studio, llama.cpp, `transformers serve`, LiteLLM and more speak it.
The `openai` package carries the requests; timeouts, retries and what to do when a server refuses a
parameter are decided here, once for the sync and the async call: `_talk` says what to do next, and
the two callers only do it.

The replies are read as plain JSON. The package's own parsing raises pydantic errors on a proxy's
HTML page and refuses truncated replies, which this project's parser can often still use.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import random
import re
import time
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

import openai

from rsvp.errors import BadInput, MLLMFailed, ModelUnavailable
from rsvp.mllm import wire
from rsvp.types import Message, Reply

OPENAI_URL = "https://api.openai.com/v1"

_BASE_DELAY = 0.5  # seconds; doubles with every failure
_MAX_DELAY = 60.0  # seconds; also the longest Retry-After that is honoured
_CONNECT_TIMEOUT = 10.0  # seconds; a host that is up answers sooner, and a retry follows anyway
_NO_KEY = "no-key"  # local servers ignore it, but the client insists on one

_RETRIED = {408, 409, 429}  # and everything from 500 on
_REFUSING = {400, 422, 501}  # how servers say that they don't know a parameter
_REFUSAL = re.compile(
    r"unsupported|not support|n't support|unrecogni[sz]ed|unknown|unexpected|not permitted"
    r"|not allowed|extra.(inputs|fields)|additional propert|deprecated|only the default"
)
_FORMAT_REFUSAL = re.compile(r"response.?format|schema|structured|guided|grammar|unsupported|json")


@dataclass(frozen=True, slots=True)
class _Dialect:
    """What this server understands, as far as we know: the first of each tuple is used."""

    token_limits: tuple[str, ...]
    formats: tuple[str, ...] = ("json_schema", "json_object")
    temperature: bool = True
    stream_options: bool = True

    def without(self, refusal: str, *, schema: bool) -> _Dialect | None:
        """The dialect to try after a refusal (lower case); None when it refuses nothing of ours."""
        refused = _REFUSAL.search(refusal) is not None
        if refused and self.temperature and "temperature" in refusal:
            return replace(self, temperature=False)
        if refused and self.stream_options and "stream_options" in refusal:
            return replace(self, stream_options=False)
        if refused and self.token_limits and self.token_limits[0] in refusal:
            return replace(self, token_limits=self.token_limits[1:])
        if schema and self.formats and _FORMAT_REFUSAL.search(refusal):
            return replace(self, formats=self.formats[1:])
        return None


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why one attempt gave no answer."""

    message: str
    status: int | None = None
    retried: bool = True
    retry_after: float | None = None


_Request = dict[str, Any]
_Answer = dict[str, Any]
_Pause = float
_Talk = Generator[_Request | _Pause, Any, Reply]


class OpenAIMLLM:
    """A model behind a chat-completions server.

    Args:
        model: the server's name for it, e.g. ``gpt-5.1``.
        base_url: up to and including ``/v1``; else ``OPENAI_BASE_URL``, else OpenAI's own.
        api_key: else ``OPENAI_API_KEY``. Servers other than OpenAI's may do without.
        timeout: seconds an attempt may stay silent.
        max_retries: further attempts after the first, for failures that may pass.
        max_tokens: the longest reply, in tokens; thinking models count their thoughts.
        temperature: 0 is greedy; not sent to models that refuse it.
        stream: take the reply token by token, so that `timeout` is the silence between two.
            `transformers serve` tells encoder-decoder models' replies in full only this way.
        sleep, asleep, rand: for tests; `rand` is uniform in [0, 1).

    Raises:
        BadInput: a base URL that is none, or a key that no HTTP header can carry.
        ModelUnavailable: OpenAI's own server and no key.
    """

    remote = True  # the image may be encoded while the server reasons

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        timeout: float = 120.0,
        max_retries: int = 4,
        max_tokens: int = 2048,
        temperature: float = 0.0,
        stream: bool = False,
        sleep: Callable[[float], None] = time.sleep,
        asleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        rand: Callable[[], float] = random.random,
    ) -> None:
        self.name = f"openai:{model}"
        self.model = model
        self.base_url = _checked_url(base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI_URL)
        self._key = _checked_key(api_key or os.environ.get("OPENAI_API_KEY"), self.base_url)
        self._timeout = timeout
        self._max_retries = max_retries
        self._max_tokens = max_tokens
        self._temperature = temperature
        self._stream = stream
        self._sleep, self._asleep, self._rand = sleep, asleep, rand
        self._dialect = _Dialect(_token_limits(self.base_url))
        self._aclients: WeakKeyDictionary[Any, openai.AsyncOpenAI] = WeakKeyDictionary()

    def __repr__(self) -> str:
        return f"OpenAIMLLM({self.model!r}, base_url={_shown_url(self.base_url)!r})"

    def reply(
        self, messages: Sequence[Message], *, schema: Mapping[str, Any] | None = None
    ) -> Reply:
        """Answer a conversation; see `rsvp.mllm.MLLM.reply`.

        `finish_reason` is "refusal" where the model declined and the text is its refusal.

        Raises:
            MLLMFailed: refused, or failed after every retry; one line, without the key.
        """
        talk = self._talk(messages, schema)
        step = next(talk)
        try:
            while True:
                if isinstance(step, float):
                    self._sleep(step)
                    step = next(talk)
                else:
                    step = talk.send(self._attempt(step))
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]

    async def areply(
        self, messages: Sequence[Message], *, schema: Mapping[str, Any] | None = None
    ) -> Reply:
        """`reply`, awaitable."""
        talk = self._talk(messages, schema)
        step = next(talk)
        try:
            while True:
                if isinstance(step, float):
                    await self._asleep(step)
                    step = next(talk)
                else:
                    step = talk.send(await self._aattempt(step))
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]

    def _talk(self, messages: Sequence[Message], schema: Mapping[str, Any] | None) -> _Talk:
        """Yield a request to make or the seconds to sleep; return the reply."""
        started = time.perf_counter()
        sent = [wire.wire_message(message) for message in messages]
        dialect, failures = self._dialect, 0
        while True:
            outcome: _Answer | _Failure = yield self._request(sent, schema, dialect)
            if isinstance(outcome, dict):
                # Remembered only now: a refusal may have been about something else.
                self._dialect = dialect
                return wire.read_reply(outcome, time.perf_counter() - started)
            if outcome.status in _REFUSING:
                other = dialect.without(outcome.message.lower(), schema=schema is not None)
                if other is not None:
                    dialect = other
                    continue
            if not outcome.retried or failures >= self._max_retries:
                raise MLLMFailed(self._said(outcome, attempts=failures + 1))
            yield self._delay(failures, outcome.retry_after)
            failures += 1

    def _request(
        self, sent: list[dict[str, Any]], schema: Mapping[str, Any] | None, dialect: _Dialect
    ) -> _Request:
        request: _Request = {"model": self.model, "messages": sent}
        if dialect.temperature:
            request["temperature"] = self._temperature
        if dialect.token_limits:
            request[dialect.token_limits[0]] = self._max_tokens
        if self._stream:
            request["stream"] = True
        if self._stream and dialect.stream_options:
            request["stream_options"] = {"include_usage": True}
        if schema is not None and dialect.formats:
            request["response_format"] = wire.response_format(dialect.formats[0], schema)
        return request

    def _delay(self, failures: int, retry_after: float | None) -> float:
        """Seconds to wait: full jitter, or what the server asked for and a little jitter on top."""
        if retry_after is not None:
            return min(max(retry_after, 0.0), _MAX_DELAY) + self._rand() * _BASE_DELAY
        return float(self._rand() * min(_BASE_DELAY * 2**failures, _MAX_DELAY))

    def _attempt(self, request: _Request) -> _Answer | _Failure:
        completions = self._client.chat.completions
        try:
            if self._stream:
                stream: Any = completions.create(**request)
                with stream as chunks:
                    return self._streamed([chunk.model_dump() for chunk in chunks])
            raw = completions.with_raw_response.create(**request)
        except Exception as error:
            return self._failure(error)
        return self._answer(raw.http_response.text, raw.headers.get("content-type", "no type"))

    async def _aattempt(self, request: _Request) -> _Answer | _Failure:
        completions = self._aclient().chat.completions
        try:
            if self._stream:
                stream: Any = await completions.create(**request)
                async with stream as chunks:
                    return self._streamed([chunk.model_dump() async for chunk in chunks])
            raw = await completions.with_raw_response.create(**request)
        except Exception as error:
            return self._failure(error)
        return self._answer(raw.http_response.text, raw.headers.get("content-type", "no type"))

    def _streamed(self, chunks: list[dict[str, Any]]) -> _Answer | _Failure:
        return wire.joined(chunks) or _Failure("the stream ended before the reply did")

    @functools.cached_property
    def _client(self) -> openai.OpenAI:
        return openai.OpenAI(**self._client_options())

    def _aclient(self) -> openai.AsyncOpenAI:
        """One client an event loop: its connections die with the loop that opened them."""
        loop = asyncio.get_running_loop()
        if loop not in self._aclients:
            self._aclients[loop] = openai.AsyncOpenAI(**self._client_options())
        return self._aclients[loop]

    def _client_options(self) -> dict[str, Any]:
        return {
            "api_key": self._key,
            "base_url": self.base_url,
            "timeout": openai.Timeout(self._timeout, connect=min(self._timeout, _CONNECT_TIMEOUT)),
            "max_retries": 0,
        }

    def _answer(self, body: str, content_type: str) -> _Answer | _Failure:
        """A chat completion, or why this body is none."""
        try:
            found = json.loads(body)
        except ValueError:
            start = self._scrub(body)[:60]
            return _Failure(f"the answer is not JSON ({content_type}: {start!r}); check the URL")
        if not isinstance(found, dict):
            return _Failure("the answer is JSON, but no chat completion; check the URL")
        if wire.first_choice(found) is not None:
            return found
        if found.get("error"):  # some gateways report a failure under status 200
            code = found["error"].get("code") if isinstance(found["error"], dict) else None
            status = code if isinstance(code, int) else 500
            return _Failure(self._scrub(wire.error_text(found)), status, _is_retried(status))
        return _Failure("the answer holds no choice with a message", retried=False)

    def _failure(self, error: Exception) -> _Failure:
        """What an attempt's exception means; one that is none of the transport's goes on up."""
        cause = type(error).__name__ if not str(error) else str(error)
        if isinstance(error, openai.APITimeoutError):
            return _Failure(f"no answer within {self._timeout:g} s")
        if isinstance(error, openai.APIConnectionError):
            return _Failure(self._scrub(f"cannot connect ({error.__cause__ or error})"))
        if isinstance(error, openai.APIStatusError):
            status = error.status_code
            text = self._scrub(wire.error_text(error.body) or cause)
            after = wire.retry_after(error.response.headers)
            return _Failure(text, status, _is_retried(status), after)
        if isinstance(error, openai.OpenAIError):
            return _Failure(self._scrub(cause))
        # Once a stream has begun, the package lets its HTTP and JSON libraries' own errors through.
        if self._stream:
            return _Failure(self._scrub(f"the stream broke off ({cause})"))
        raise error

    def _said(self, failure: _Failure, *, attempts: int) -> str:
        """The one line that the user sees."""
        status = f"HTTP {failure.status}: " if failure.status else ""
        tries = f" (after {attempts} attempts)" if attempts > 1 else ""
        hint = {
            401: "; check OPENAI_API_KEY",
            403: "; this key may not use the model",
            404: "; check the model's name and that the URL ends in /v1",
        }.get(failure.status or 0, "")
        return f"{self.name} at {_shown_url(self.base_url)}: {status}{failure.message}{hint}{tries}"

    def _scrub(self, text: str) -> str:
        """One line of at most 300 characters, without the key, however a server echoes it."""
        secrets = [self._key] if self._key != _NO_KEY else []
        secrets += [s for s in (urlsplit(self.base_url).password,) if s]
        for secret in secrets:
            text = text.replace(secret, "***")
        line = " ".join(text.split())
        return line if len(line) <= 300 else line[:297] + "..."


def _checked_url(url: str) -> str:
    parts = urlsplit(url.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BadInput(f"a base URL is like http://localhost:8000/v1, found {_shown_url(url)!r}")
    return url.strip().rstrip("/")


def _checked_key(key: str | None, base_url: str) -> str:
    key = (key or "").strip()
    if not key.isascii() or any(c.isspace() for c in key):
        raise BadInput("the API key holds characters that no HTTP header can carry")
    if not key and _is_openai(base_url):
        raise ModelUnavailable(
            "OpenAI needs a key: set OPENAI_API_KEY, or OPENAI_BASE_URL for another"
        )
    return key or _NO_KEY


def _is_openai(base_url: str) -> bool:
    return urlsplit(base_url).hostname == urlsplit(OPENAI_URL).hostname


def _token_limits(base_url: str) -> tuple[str, ...]:
    """OpenAI's thinking models refuse `max_tokens`; older servers ignore the new name silently."""
    order = ("max_completion_tokens", "max_tokens")
    return order if _is_openai(base_url) else order[::-1]


def _shown_url(url: str) -> str:
    """The URL without user, password and query, where secrets hide."""
    parts = urlsplit(url.strip())
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}" if host else parts.path


def _is_retried(status: int) -> bool:
    return status in _RETRIED or (status >= 500 and status != 501)
