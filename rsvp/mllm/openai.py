"""Chat completions from any compatible server.

OpenAI, vLLM, SGLang, Ollama, LM Studio, llama.cpp, `transformers serve` and LiteLLM speak this
protocol. The `openai` package sends the requests. Timeouts, retries and refused parameters are
handled here, and replies are read as plain JSON: the package's own parsing raises pydantic errors
on a proxy's HTML page and rejects truncated replies, which `rsvp.parsing` can often still read.
"""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import random
from time import perf_counter, sleep
from typing import Annotated, Any
from urllib.parse import urlsplit

import openai
from pydantic import Field

from rsvp.errors import BadInput, MLLMFailed, ModelUnavailable
from rsvp.mllm import wire
from rsvp.types import Message, Reply

OPENAI_URL = "https://api.openai.com/v1"

_BASE_DELAY = 0.5  # seconds; doubles with every failure
_MAX_DELAY = 60.0  # seconds; also the longest Retry-After that is honoured
_CONNECT_TIMEOUT = 10.0  # seconds; a host that is up answers sooner, and a retry follows anyway
_NO_KEY = "no-key"  # local servers ignore it, but the client requires one

_RETRIED = {408, 409, 429}  # and everything from 500 on, except 501
_PARAMETER_REFUSED = {400, 422, 501}  # how servers say that they do not know a parameter
_REFUSAL = re.compile(
    r"unsupported|not support|n't support|unrecogni[sz]ed|unknown|unexpected|not permitted"
    r"|not allowed|extra.(inputs|fields)|additional propert|deprecated|only the default"
)
_FORMAT_REFUSAL = re.compile(r"response.?format|schema|structured|guided|grammar|unsupported|json")
_OPTIONAL = ("temperature", "stream_options", "max_tokens", "max_completion_tokens")
_FORMATS = ("json_schema", "json_object")
_HINTS = {
    401: "; check OPENAI_API_KEY",
    403: "; this key may not use the model",
    404: "; check the model's name and that the URL ends in /v1",
}


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why one attempt gave no completion."""

    message: str
    status: int | None = None
    retried: bool = True
    retry_after: float | None = None


class OpenAIMLLM:
    """A model behind a chat-completions server; threads may share one instance.

    Args:
        model: the server's name for it, e.g. ``gpt-5.1``.
        base_url: up to and including ``/v1``; else ``OPENAI_BASE_URL``, else OpenAI's own.
        api_key: else ``OPENAI_API_KEY``. Servers other than OpenAI's may need none.
        timeout: seconds an attempt may stay silent.
        max_retries: further attempts after the first, for failures that may pass.
        max_tokens: the longest reply, in tokens; thinking models count their thinking too.
        temperature: 0 is greedy; not sent to models that refuse it.
        stream: take the reply token by token, so that `timeout` is the silence between two.
            `transformers serve` returns whole replies of encoder-decoder models only this way.

    Raises:
        BadInput: a base URL that is none, or a key that no HTTP header can carry.
        ModelUnavailable: OpenAI's own server and no key.
    """

    remote = True

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        timeout: Annotated[float, Field(gt=0)] = 120.0,
        max_retries: Annotated[int, Field(ge=0)] = 4,
        max_tokens: Annotated[int, Field(ge=1)] = 2048,
        temperature: Annotated[float, Field(ge=0)] = 0.0,
        stream: bool = False,
    ) -> None:
        self.name, self.model = f"openai:{model}", model
        self.base_url = _checked_url(base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI_URL)
        self._key = _checked_key(api_key or os.environ.get("OPENAI_API_KEY"), self.base_url)
        self._timeout, self._max_retries = timeout, max_retries
        self._max_tokens, self._temperature, self._stream = max_tokens, temperature, stream
        # Parameters and formats that this server refuses. Replaced as a whole, never changed in
        # place: a thread that overwrites another's finding only costs one more refused request.
        self._refused: frozenset[str] = frozenset()

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
        started = perf_counter()
        wire_messages = [wire.wire_message(message) for message in messages]
        refused, failures = self._refused, 0
        while True:
            request = self._request(wire_messages, schema, refused)
            outcome = self._send(request)
            if isinstance(outcome, dict):
                # Remembered only now: the refusal may have been about something else.
                self._refused |= refused
                return wire.read_reply(outcome, perf_counter() - started)
            parameter = _refused_parameter(outcome, request)
            if parameter is not None:
                refused |= {parameter}
            elif outcome.retried and failures < self._max_retries:
                sleep(_delay(failures, outcome.retry_after))
                failures += 1
            else:
                raise MLLMFailed(self._error_line(outcome, attempts=failures + 1))

    def _request(
        self,
        wire_messages: list[dict[str, Any]],
        schema: Mapping[str, Any] | None,
        refused: frozenset[str],
    ) -> dict[str, Any]:
        """The request's body, without the parameters that the server refuses."""
        # OpenAI's thinking models refuse `max_tokens`; older servers ignore the new name silently.
        limits = ["max_tokens", "max_completion_tokens"]
        if _is_openai(self.base_url):
            limits.reverse()
        limits = [name for name in limits if name not in refused]
        formats = [name for name in _FORMATS if name not in refused]
        request: dict[str, Any] = {"model": self.model, "messages": wire_messages}
        if "temperature" not in refused:
            request["temperature"] = self._temperature
        if limits:
            request[limits[0]] = self._max_tokens
        if self._stream:
            request["stream"] = True
            if "stream_options" not in refused:
                request["stream_options"] = {"include_usage": True}
        if schema is not None and formats:
            request["response_format"] = wire.response_format(formats[0], schema)
        return request

    def _send(self, request: dict[str, Any]) -> dict[str, Any] | _Failure:
        """One attempt: a chat completion, or why there is none."""
        completions = self._client.chat.completions
        try:
            if self._stream:
                stream: Any = completions.create(**request)
                with stream as chunks:
                    whole = wire.joined(chunk.model_dump() for chunk in chunks)
                return whole or _Failure("the stream ended before the reply did")
            raw = completions.with_raw_response.create(**request)
        except Exception as error:
            return self._failure(error)
        return self._completion(raw.http_response.text, raw.headers.get("content-type", "no type"))

    @functools.cached_property
    def _client(self) -> openai.OpenAI:
        return openai.OpenAI(
            api_key=self._key,
            base_url=self.base_url,
            timeout=openai.Timeout(self._timeout, connect=min(self._timeout, _CONNECT_TIMEOUT)),
            max_retries=0,
        )

    def _completion(self, body: str, content_type: str) -> dict[str, Any] | _Failure:
        """The chat completion in a body, or why it holds none."""
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
        """An attempt's exception as a failure; raised again where no request can cause it."""
        cause = str(error) or type(error).__name__
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
        # Once a stream has begun, the errors of the package's HTTP and JSON libraries come through.
        if self._stream:
            return _Failure(self._scrub(f"the stream broke off ({cause})"))
        raise error

    def _error_line(self, failure: _Failure, *, attempts: int) -> str:
        """The one line that the user sees."""
        status = f"HTTP {failure.status}: " if failure.status else ""
        tries = f" (after {attempts} attempts)" if attempts > 1 else ""
        hint = _HINTS.get(failure.status or 0, "")
        return f"{self.name} at {_shown_url(self.base_url)}: {status}{failure.message}{hint}{tries}"

    def _scrub(self, text: str) -> str:
        """One line of at most 300 characters, without the key, however a server echoes it."""
        for secret in (self._key, urlsplit(self.base_url).password):
            if secret and secret != _NO_KEY:
                text = text.replace(secret, "***")
        line = " ".join(text.split())
        return line if len(line) <= 300 else line[:297] + "..."


def _refused_parameter(failure: _Failure, request: Mapping[str, Any]) -> str | None:
    """The optional parameter of the request, or its reply format, that the server refuses."""
    if failure.status not in _PARAMETER_REFUSED:
        return None
    text = failure.message.lower()
    if _REFUSAL.search(text):
        for name in _OPTIONAL:
            if name in request and name in text:
                return name
    if "response_format" in request and _FORMAT_REFUSAL.search(text):
        return str(request["response_format"]["type"])
    return None


def _delay(failures: int, retry_after: float | None) -> float:
    """Seconds to wait: full jitter, or what the server asked for and a little jitter on top."""
    if retry_after is not None:
        return min(max(retry_after, 0.0), _MAX_DELAY) + random() * _BASE_DELAY
    return random() * min(float(_BASE_DELAY * 2**failures), _MAX_DELAY)


def _is_retried(status: int) -> bool:
    return status in _RETRIED or (status >= 500 and status != 501)


def _checked_url(url: str) -> str:
    parts = urlsplit(url.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BadInput(f"a base URL is like http://localhost:8000/v1, found {_shown_url(url)!r}")
    return url.strip().rstrip("/")


def _checked_key(key: str | None, base_url: str) -> str:
    key = (key or "").strip()
    if not key.isascii() or not key.isprintable() or " " in key:
        raise BadInput("the API key holds characters that no HTTP header can carry")
    if not key and _is_openai(base_url):
        hint = "set OPENAI_API_KEY, or OPENAI_BASE_URL for another server"
        raise ModelUnavailable(f"OpenAI needs a key: {hint}")
    return key or _NO_KEY


def _is_openai(base_url: str) -> bool:
    return urlsplit(base_url).hostname == urlsplit(OPENAI_URL).hostname


def _shown_url(url: str) -> str:
    """The URL without user, password and query, which may hold secrets."""
    parts = urlsplit(url.strip())
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}" if host else parts.path
