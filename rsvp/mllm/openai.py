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
import base64
import email.utils
import functools
import io
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
from PIL import Image as PilImage

from rsvp.errors import BadInput, MLLMFailed, ModelUnavailable
from rsvp.types import Message, Reply, RgbArray, Usage

OPENAI_URL = "https://api.openai.com/v1"

_BASE_DELAY = 0.5  # seconds; doubles with every failure
_MAX_DELAY = 60.0  # seconds; also the longest Retry-After that is honoured
_CONNECT_TIMEOUT = 10.0  # seconds; a host that is up answers sooner, and a retry follows anyway
_PNG_PIXELS = 1_000_000
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

    def without(self, refusal: str, *, schema: bool) -> _Dialect | None:
        """The dialect to try after a refusal (lower case); None when it refuses nothing of ours."""
        refused = _REFUSAL.search(refusal) is not None
        if refused and self.temperature and "temperature" in refusal:
            return replace(self, temperature=False)
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
        sleep, asleep, rand: for tests; `rand` is uniform in [0, 1).

    Raises:
        BadInput: a base URL that is none, or a key that no HTTP header can carry.
        ModelUnavailable: OpenAI's own server and no key.
    """

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
        wire = [_wire_message(message) for message in messages]
        dialect, failures = self._dialect, 0
        while True:
            outcome: _Answer | _Failure = yield self._request(wire, schema, dialect)
            if isinstance(outcome, dict):
                # Remembered only now: a refusal may have been about something else.
                self._dialect = dialect
                return _reply(outcome, time.perf_counter() - started)
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
        self, wire: list[dict[str, Any]], schema: Mapping[str, Any] | None, dialect: _Dialect
    ) -> _Request:
        request: _Request = {"model": self.model, "messages": wire}
        if dialect.temperature:
            request["temperature"] = self._temperature
        if dialect.token_limits:
            request[dialect.token_limits[0]] = self._max_tokens
        if schema is not None and dialect.formats:
            request["response_format"] = _response_format(dialect.formats[0], schema)
        return request

    def _delay(self, failures: int, retry_after: float | None) -> float:
        """Seconds to wait: full jitter, or what the server asked for and a little jitter on top."""
        if retry_after is not None:
            return min(max(retry_after, 0.0), _MAX_DELAY) + self._rand() * _BASE_DELAY
        return float(self._rand() * min(_BASE_DELAY * 2**failures, _MAX_DELAY))

    def _attempt(self, request: _Request) -> _Answer | _Failure:
        try:
            raw = self._client.chat.completions.with_raw_response.create(**request)
        except openai.OpenAIError as error:
            return self._failure(error)
        return self._answer(raw.http_response.text, raw.headers.get("content-type", "no type"))

    async def _aattempt(self, request: _Request) -> _Answer | _Failure:
        try:
            client = self._aclient()
            raw = await client.chat.completions.with_raw_response.create(**request)
        except openai.OpenAIError as error:
            return self._failure(error)
        return self._answer(raw.http_response.text, raw.headers.get("content-type", "no type"))

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
        if _choice(found) is not None:
            return found
        if found.get("error"):  # some gateways report a failure under status 200
            code = found["error"].get("code") if isinstance(found["error"], dict) else None
            status = code if isinstance(code, int) else 500
            return _Failure(self._scrub(_error_text(found)), status, _is_retried(status))
        return _Failure("the answer holds no choice with a message", retried=False)

    def _failure(self, error: openai.OpenAIError) -> _Failure:
        if isinstance(error, openai.APITimeoutError):
            return _Failure(f"no answer within {self._timeout:g} s")
        if isinstance(error, openai.APIConnectionError):
            cause = error.__cause__ or error
            return _Failure(self._scrub(f"cannot connect ({cause})"))
        if isinstance(error, openai.APIStatusError):
            status = error.status_code
            text = self._scrub(_error_text(error.body) or str(error))
            after = _retry_after(error.response.headers)
            return _Failure(text, status, _is_retried(status), after)
        return _Failure(self._scrub(f"{type(error).__name__}: {error}"), retried=False)

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


def _wire_message(message: Message) -> dict[str, Any]:
    """A plain string where there is no image: not every server reads parts of a system message."""
    texts = [part for part in message.parts if isinstance(part, str)]
    if len(texts) == len(message.parts):
        return {"role": message.role, "content": _sendable("\n".join(texts))}
    return {"role": message.role, "content": [_wire_part(part) for part in message.parts]}


def _wire_part(part: str | RgbArray) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": _sendable(part)}
    return {"type": "image_url", "image_url": {"url": _data_url(part)}}


def _sendable(text: str) -> str:
    """Without lone surrogates, which a broken command line can hold and UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _data_url(rgb: RgbArray) -> str:
    """(h, w, 3) uint8 as a data URL: PNG up to 1 Mpx, above that JPEG at quality 95.

    PNG is exact, which thin grid lines and small numbers deserve. A large photograph as PNG is
    four times the upload and beyond some servers' limits, and its drawn lines are wide enough to
    survive JPEG without chroma subsampling.
    """
    buffer = io.BytesIO()
    picture = PilImage.fromarray(rgb)
    if rgb.shape[0] * rgb.shape[1] <= _PNG_PIXELS:
        kind = "png"
        picture.save(buffer, "PNG", compress_level=3)
    else:
        kind = "jpeg"
        picture.save(buffer, "JPEG", quality=95, subsampling=0)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _response_format(kind: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    if kind == "json_object":
        return {"type": "json_object"}
    named = {"name": "reply", "strict": True, "schema": dict(schema)}
    return {"type": "json_schema", "json_schema": named}


def _is_retried(status: int) -> bool:
    return status in _RETRIED or (status >= 500 and status != 501)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds, from `retry-after-ms` or `retry-after` (seconds or an HTTP date), or None."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name, "").strip()
        if re.fullmatch(r"\d+(\.\d+)?", value):
            return float(value) * unit
    try:
        date = email.utils.parsedate_to_datetime(headers.get("retry-after", ""))
        return date.timestamp() - time.time()
    except (ValueError, TypeError):
        return None


def _error_text(body: Any) -> str:
    """What a server's error object says, however it wraps it; "" when it says nothing."""
    inner = body.get("error", body) if isinstance(body, dict) else body
    if not isinstance(inner, dict):
        return str(inner or "")
    said = [inner.get(key) for key in ("message", "detail", "param", "code")]
    text = " ".join(str(value) for value in said[:2] if value)
    extra = [str(v) for v in said[2:] if v and str(v) not in text]
    return f"{text} ({', '.join(extra)})" if text and extra else text or ", ".join(extra)


def _choice(body: _Answer) -> dict[str, Any] | None:
    """The first choice, when there is one and it holds a message."""
    choices = body.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    sound = isinstance(first, dict) and isinstance(first.get("message"), dict)
    return first if sound else None


def _reply(body: _Answer, seconds: float) -> Reply:
    choice = _choice(body) or {"message": {}}
    message = choice["message"]
    text, finish = _text(message.get("content")), str(choice.get("finish_reason") or "stop")
    if not text and message.get("refusal"):
        text, finish = str(message["refusal"]), "refusal"
    return Reply(text, _usage(body.get("usage")), seconds, finish)


def _text(content: Any) -> str:
    """A message's text, whether it came as a string, as parts, or not at all."""
    if isinstance(content, list):
        parts = [p.get("text") if isinstance(p, dict) else p for p in content]
        return "".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else ""


def _usage(usage: Any) -> Usage:
    usage = usage if isinstance(usage, dict) else {}
    counts = (usage.get("prompt_tokens"), usage.get("completion_tokens"))
    prompt, completion = (int(c) if isinstance(c, int | float) else 0 for c in counts)
    return Usage(prompt, completion, calls=1)
