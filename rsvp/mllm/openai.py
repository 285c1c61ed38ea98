"""Chat completions from any compatible server.

OpenAI, Azure, Gemini, Anthropic, OpenRouter, DashScope, Moonshot, vLLM, SGLang, Ollama, LM Studio,
llama.cpp, `transformers serve` and LiteLLM speak this protocol, each in its own way; what is known
of them stands in `rsvp.mllm.dialects` and in tests/families/server_dialects.py.

The `openai` package sends the requests. Timeouts, retries and refused parameters are
handled here, and replies are read as plain JSON: the package's own parsing raises pydantic errors
on a proxy's HTML page and rejects truncated replies, which `rsvp.parsing` can often still read.
"""

from __future__ import annotations

import contextvars
import copy
import functools
import json
import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from random import random
from time import perf_counter, sleep
from typing import Annotated, Any

import openai
from pydantic import Field

from rsvp.errors import AccessDenied, MLLMFailed, printable
from rsvp.mllm import dialects, refusals, tell_written, wire
from rsvp.mllm.connection import connection_error
from rsvp.mllm.endpoint import Endpoint, Refused
from rsvp.types import Message, Reply

MAX_TOKENS = 8192  # thinking included; some thirty targets with a short chain of thought need 2000
TIMEOUT = 600.0  # seconds: a CPU reads a picture for minutes before it writes the first token
DEADLINE = 7200.0  # seconds: MAX_TOKENS at little more than one token a second

_log = logging.getLogger(__name__)

_BASE_DELAY = 0.5  # seconds; doubles with every failure
_MAX_DELAY = 60.0  # seconds; also the longest Retry-After that is honoured
_MAX_CHANGED = 20  # requests; a server could ask for another change for ever
_TOKEN_BYTES = 2048  # of a stream, more than twice as many as any server needs for one token
_MIN_BYTES = 4_000_000  # of a reply, where it may have but a few tokens
_MAX_READ = 10_000  # characters of an error, of which 300 are shown
_NEARLY = 0.9  # of the token limit; a reply cut below it met another bound

_FORMATS = ("json_schema", "json_object")
# What is sent without being asked for, and changes no reply where it is left out.
_QUIET = {*_FORMATS, "max_tokens", "stream", "stream_options"}
_HINTS = {
    401: "; check OPENAI_API_KEY",
    403: "; this key may not use the model",
    404: "; check the model's name and that the URL ends in /v1",
}
_NO_IMAGES = "; the model reads no images: name one that does, for llama.cpp with its --mmproj file"
_RAISE_CONTEXT = (
    "raise the server's context length: OLLAMA_CONTEXT_LENGTH, llama.cpp -c, LM Studio's "
    "Context Length, vLLM --max-model-len"
)


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why one attempt gave no completion.

    `text` is all that the server said, the key included where it echoes it: never to be shown.
    """

    message: str
    status: int | None = None
    retried: bool = True
    retry_after: float | None = None
    text: str = ""
    param: str | None = None


class OpenAIMLLM:
    """A model behind a chat-completions server; threads may share one instance.

    Args:
        model: the server's name for it, e.g. ``gpt-5.1``.
        base_url: up to and including ``/v1``; else ``OPENAI_BASE_URL``, else OpenAI's own.
        api_key: else ``OPENAI_API_KEY``. Servers other than OpenAI's may need none.
        timeout: seconds an attempt may stay silent.
        deadline: seconds an attempt may take; none follows after it.
        max_retries: further attempts after the first, for failures that may pass.
        max_tokens: the longest reply, in tokens; thinking models count their thinking too. A server
            that allows less is asked for what it allows.
        temperature: 0 is greedy; not sent to models that refuse it.
        stream: take the reply token by token, so that `timeout` is the silence between two.
        reasoning_effort: how long a thinking model thinks, in the server's words, e.g. ``low``.
        enable_thinking: switch thinking on or off, in the field that the server reads; None leaves
            it as it is.
        extra_body: a JSON object of further fields of the request.

    Raises:
        BadInput: a base URL that is none, a key that no HTTP header can carry, or an `extra_body`
            that is no JSON object.
        ModelUnavailable: OpenAI's own server and no key.
    """

    remote = True

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        timeout: Annotated[float, Field(gt=0)] = TIMEOUT,
        deadline: Annotated[float, Field(gt=0)] = DEADLINE,
        max_retries: Annotated[int, Field(ge=0)] = 4,
        max_tokens: Annotated[int, Field(ge=1)] = MAX_TOKENS,
        temperature: Annotated[float, Field(ge=0)] = 0.0,
        stream: bool = True,
        reasoning_effort: str | None = None,
        enable_thinking: bool | None = None,
        extra_body: str | Mapping[str, Any] | None = None,
    ) -> None:
        self.name, self.model = f"openai:{model}", model
        url = base_url or os.environ.get("OPENAI_BASE_URL") or dialects.OPENAI_URL
        self._endpoint = Endpoint(url, api_key or os.environ.get("OPENAI_API_KEY"))
        self.base_url = self._endpoint.url
        self._timeout, self._deadline, self._max_retries = timeout, deadline, max_retries
        self._temperature, self._stream = temperature, stream
        self._extra: dict[str, Any] = {}
        if enable_thinking is not None:
            self._extra |= dialects.thinking_fields(self.base_url, enable_thinking)
        if reasoning_effort is not None:
            self._extra["reasoning_effort"] = reasoning_effort
        self._extra |= wire.extra_fields(extra_body)
        # What this server refuses, and the longest reply that it allows. Replaced as a whole, never
        # changed in place: a thread that overwrites another's finding only costs one more refusal.
        self._refused: frozenset[str] = frozenset()
        self._max_tokens, self._bounded = max_tokens, False
        self._noted: set[str] = set()

    def __repr__(self) -> str:
        return f"OpenAIMLLM({self.model!r}, base_url={self.base_url!r})"

    def connect(self) -> None:
        """Raise MLLMFailed where nothing listens at the server's address; nothing is sent."""
        error = connection_error(self.base_url)
        if error is not None:
            hint = "; is it running? OPENAI_BASE_URL names it"
            raise MLLMFailed(f"{self.name} at {self.base_url}: cannot connect ({error}){hint}")

    def reply(
        self, messages: Sequence[Message], *, schema: Mapping[str, Any] | None = None
    ) -> Reply:
        """Answer a conversation; see `rsvp.mllm.MLLM.reply`.

        `finish_reason` is "refusal" where the model declined and the text is its refusal.

        Raises:
            MLLMFailed: refused, or failed after every retry; one line, without the key.
                `AccessDenied` where the key may not be used at all.
        """
        reply = self._ask(messages, schema, self._max_tokens)
        read, written = reply.usage.prompt_tokens, reply.usage.completion_tokens
        if wire.is_prompt_cut(messages, read):
            why = f"it read {read} tokens, fewer than the prompt's text has, so the prompt was cut"
            self._note("prompt", f"{why}; {_RAISE_CONTEXT}")
        if self._met_context(reply):
            why = f"its context is full after {read} + {written} tokens, and the reply was cut"
            self._note("context", f"{why}; {_RAISE_CONTEXT}")
        return reply

    def reply_longer(
        self, messages: Sequence[Message], cut: Reply, *, schema: Mapping[str, Any] | None = None
    ) -> Reply | None:
        """Answer with twice the token limit, or as much as the server allows.

        Returns:
            None where the reply `cut` did not end at the token limit, but at the model's context,
            or the server allows no more.

        Raises:
            MLLMFailed: as `reply`.
        """
        limit = self._max_tokens
        if self._met_context(cut) or self._bounded:
            return None
        return self._ask(messages, schema, 2 * limit, above=limit)

    def replies(
        self,
        messages: Sequence[Message],
        count: int,
        temperature: float,
        *,
        schema: Mapping[str, Any] | None = None,
    ) -> list[Reply]:
        """Ask for several sampled replies at once, in threads; see `rsvp.mllm.sample_replies`."""
        sampled = copy.copy(self)
        sampled._temperature = temperature
        # Not as a context manager: Ctrl-C would wait for the server.
        threads = ThreadPoolExecutor(count, thread_name_prefix="rsvp-sample")
        try:
            calls = [threads.submit(sampled.reply, messages, schema=schema) for _ in range(count)]
            failed = [call.exception() for call in calls]
        finally:
            threads.shutdown(wait=False, cancel_futures=True)
        if all(failed):
            calls[0].result()
        return [call.result() for call, error in zip(calls, failed, strict=True) if error is None]

    def _met_context(self, reply: Reply) -> bool:
        written = reply.usage.completion_tokens
        return reply.finish_reason == "length" and 0 < written < _NEARLY * self._max_tokens

    def _ask(
        self,
        messages: Sequence[Message],
        schema: Mapping[str, Any] | None,
        limit: int,
        above: int = 0,
    ) -> Reply:
        """Send the conversation until a completion comes or nothing is left to try.

        Args:
            limit: tokens of the reply; the server may lower it, but only to more than `above`.
        """
        started = perf_counter()
        wire_messages = [wire.wire_message(message) for message in messages]
        refused, failures, asked, words = self._refused, 0, 0, ""
        while True:
            request = self._request(wire_messages, schema, limit, refused)
            outcome = self._send(request)
            if isinstance(outcome, dict):
                # Remembered only now: the refusal may have been about something else.
                self._learn(refused, limit, words)
                return self._reply(outcome, perf_counter() - started)
            asked, lower, parameter = asked + 1, None, None
            if asked < _MAX_CHANGED:
                about = outcome.status, outcome.text, outcome.param
                lower, parameter = refusals.asked_for(*about, request, limit)
            if lower is not None and lower > above:
                limit = lower
            elif parameter is not None:
                refused, words = refused | {parameter}, outcome.message
            elif outcome.retried and failures < self._max_retries:
                sleep(self._delay(failures, outcome.retry_after))
                failures += 1
            else:
                line = self._error_line(outcome, attempts=failures + 1)
                raise (AccessDenied if _is_denied(outcome) else MLLMFailed)(line)

    def _reply(self, body: Mapping[str, Any], seconds: float) -> Reply:
        """The reply in a completion, without the key."""
        reply = wire.read_reply(body, seconds)
        if wire.has_odd_usage(body):
            self._note("usage", "its numbers of tokens make no sense and are not counted")
        hidden = self._endpoint.hide_in_reply(reply.text)
        if hidden != reply.text:
            self._note("echo", "its reply holds the key or the password, which is replaced by ***")
        return replace(reply, text=hidden, finish_reason=self._endpoint.hide(reply.finish_reason))

    def _delay(self, failures: int, retry_after: float | None) -> float:
        """Seconds to wait: full jitter, or what the server asked for and a little jitter on top."""
        if retry_after is None:
            return random() * min(float(_BASE_DELAY * 2**failures), _MAX_DELAY)
        if retry_after > _MAX_DELAY:
            asked = f"it asks to wait {retry_after:.0f} s, rsvp waits {_MAX_DELAY:g} s at most"
            self._note("wait", asked)
        return min(max(retry_after, 0.0), _MAX_DELAY) + random() * _BASE_DELAY

    def _learn(self, refused: frozenset[str], limit: int, words: str) -> None:
        """Keep what the server's refusals said, and say what is no longer sent."""
        for name in sorted(refused - self._refused - _QUIET):
            self._note(name, f"it refuses {name}, which is no longer sent ({words})")
        self._refused |= refused
        if limit < self._max_tokens:
            self._max_tokens, self._bounded = limit, True

    def _note(self, topic: str, text: str) -> None:
        """Warn once about a topic."""
        if topic not in self._noted:
            self._noted.add(topic)
            _log.warning("%s: %s", self.name, text)

    def _request(
        self,
        wire_messages: list[dict[str, Any]],
        schema: Mapping[str, Any] | None,
        limit: int,
        refused: frozenset[str],
    ) -> dict[str, Any]:
        """The request's body, without the parameters that the server refuses."""
        # OpenAI's thinking models refuse `max_tokens`; older servers ignore the new name silently.
        limits = ["max_tokens", "max_completion_tokens"]
        if dialects.is_openai(self.base_url):
            limits.reverse()
        limits = [name for name in limits if name not in refused]
        formats = [name for name in _FORMATS if name not in refused]
        request: dict[str, Any] = {"temperature": self._temperature}
        if limits:
            request[limits[0]] = limit
        if self._stream and "stream" not in refused:
            request |= {"stream": True, "stream_options": {"include_usage": True}}
        if schema is not None and formats:
            request["response_format"] = wire.response_format(formats[0], schema)
        request |= self._extra
        kept = {name: value for name, value in request.items() if name not in refused}
        return {"model": self.model, "messages": wire_messages, **kept}

    def _send(self, request: dict[str, Any]) -> dict[str, Any] | _Failure:
        """One attempt: a chat completion, or why there is none at the deadline.

        In a thread of its own: the HTTP library bounds the silence between two bytes, and a server
        may write its headers a byte a minute.
        """
        attempt: Future[dict[str, Any] | _Failure] = Future()

        def run() -> None:
            try:
                attempt.set_result(self._attempt(request))
            except BaseException as error:  # the caller's thread raises it
                attempt.set_exception(error)

        # In this thread's context: who listens to replies (`rsvp.mllm.listening`) stands there.
        here = contextvars.copy_context()
        threading.Thread(target=here.run, args=(run,), daemon=True).start()
        try:
            return attempt.result(timeout=self._deadline)
        except TimeoutError:
            why = f"the answer is not complete after {self._deadline:g} s"
            return _Failure(f"{why}; raise --option deadline=SECONDS", retried=False)

    def _attempt(self, request: dict[str, Any]) -> dict[str, Any] | _Failure:
        """One attempt without the deadline; whatever goes wrong becomes a failure."""
        fields = dict(request)
        named = {name: fields.pop(name) for name in ("model", "messages")}
        if fields.get("stream"):
            named["stream"] = fields.pop("stream")
        try:
            raw = self._client.chat.completions.with_raw_response.create(**named, extra_body=fields)
            content_type = raw.headers.get("content-type", "no type")
            if "stream" in named and not ("json" in content_type or "html" in content_type):
                with raw.parse(to=openai.Stream[object]) as events:
                    whole = wire.joined(events, self._tell)
                return whole or _Failure("the stream ended before the reply did")
            return self._completion(raw.http_response.read(), content_type)
        except Exception as error:
            return self._failure(error)

    def _tell(self, text: Callable[[], str]) -> None:
        """`tell_written` without the key."""
        tell_written(lambda: self._endpoint.hide_in_part(text()))

    @functools.cached_property
    def _client(self) -> openai.OpenAI:
        return self._endpoint.client(
            timeout=self._timeout,
            deadline=self._deadline,
            max_bytes=max(_MIN_BYTES, _TOKEN_BYTES * self._max_tokens),
        )

    def _completion(self, body: bytes, content_type: str) -> dict[str, Any] | _Failure:
        """The chat completion in a body, or why it holds none."""
        text = body.decode("utf-8-sig", "replace")
        try:
            found = json.loads(text)
        except ValueError:
            start = self._scrub(text)[:60]
            shown = self._scrub(f"the answer is not JSON ({content_type}: {start!r})")
            return _Failure(f"{shown}; check the URL")
        if not isinstance(found, dict):
            return _Failure("the answer is JSON, but no chat completion; check the URL")
        if wire.first_choice(found) is not None:
            return found
        if found.get("error"):  # some gateways report a failure under status 200
            return self._refusal(found, None)
        return _Failure("the answer holds no choice with a message")

    def _failure(self, error: Exception) -> _Failure:
        """An attempt's exception as a failure."""
        inner = error.__cause__ or error
        cause = str(inner) or type(inner).__name__
        if isinstance(inner, Refused):
            return _Failure(self._scrub(cause), retried=False)
        if "Timeout" in type(error).__name__:  # the package's, or its HTTP library's
            return _Failure(f"no answer within {self._timeout:g} s; raise --option timeout=SECONDS")
        if isinstance(error, openai.APIConnectionError):
            return _Failure(self._scrub(f"cannot connect ({cause})"))
        if isinstance(error, openai.APIStatusError):
            body, headers = error.body or str(error), error.response.headers
            return self._refusal(body, error.status_code, headers)
        if isinstance(error, openai.APIError) and error.body:  # in the middle of a stream
            return self._refusal(error.body, None)
        return _Failure(self._scrub(f"the answer cannot be read ({cause})"))

    def _refusal(
        self, body: Any, status: int | None, headers: Mapping[str, str] | None = None
    ) -> _Failure:
        """A server's error object as a failure; without a status its own words count."""
        text, inner = wire.error_text(body), wire.error_object(body)
        param, code = map(inner.get, ("param", "code")) if isinstance(inner, dict) else (None,) * 2
        if status is None and isinstance(code, int) and 400 <= code < 600:
            status = code
        elif status is None:
            status = 400 if "invalid" in wire.as_text(inner) else 500
        final = refusals.refuses_images(text) or "insufficient_quota" in text
        return _Failure(
            self._scrub(text),
            status,
            refusals.is_retried(status) and not final,
            wire.retry_after(headers or {}, text),
            text,
            param if isinstance(param, str) else None,
        )

    def _error_line(self, failure: _Failure, *, attempts: int) -> str:
        """The one line that the user sees."""
        status = f"HTTP {failure.status}: " if failure.status else ""
        tries = f" (after {attempts} attempts)" if attempts > 1 else ""
        hint = _HINTS.get(failure.status or 0, "")
        if refusals.refuses_images(failure.text):
            hint = _NO_IMAGES
        return f"{self.name} at {self.base_url}: {status}{failure.message}{hint}{tries}"

    def _scrub(self, text: str) -> str:
        """One line of at most 300 characters, without the key, however a server echoes it."""
        line = printable(" ".join(self._endpoint.hide(text[:_MAX_READ]).split()))
        return line if len(line) <= 300 else line[:297] + "..."


def _is_denied(failure: _Failure) -> bool:
    """Whether the key is refused. OpenRouter's 403 is about the content of one request."""
    return failure.status in (401, 403) and not refusals.refuses_content(failure.text)
