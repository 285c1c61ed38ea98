"""The JSON of chat completions: messages and schemas to send, replies and errors to read.

Pure functions. A server may answer with any JSON, so every field is checked before it is used.
"""

from __future__ import annotations

import base64
import contextlib
import email.utils
import io
import json
import re
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from PIL import Image as PilImage

from rsvp.errors import BadInput
from rsvp.types import Message, Reply, RgbArray, Usage

_PNG_PIXELS = 1_000_000
_BYTES_PER_TOKEN = 8  # more than any tokenizer packs into one token of a prompt, on average
_MAX_TOKENS = 10**9  # more than any model reads or writes
_MAX_TEXT = 4000  # characters of an error; Python reads no number with more digits
_CUT = {"max_tokens", "max_output_tokens", "model_length"}  # other words for "length"
_THOUGHTS = ("reasoning_content", "reasoning")
_WAIT = re.compile(
    r"(?:retry|try again) (?:in|after) (\d+(?:\.\d+)?) ?(ms|s(?:econds?)?)\b", re.IGNORECASE
)


def wire_message(message: Message) -> dict[str, Any]:
    """A message as JSON; without images a plain string, as some servers read no parts there."""
    texts = [part for part in message.parts if isinstance(part, str)]
    if len(texts) == len(message.parts):
        return {"role": message.role, "content": _utf8("\n".join(texts))}
    return {"role": message.role, "content": [_wire_part(part) for part in message.parts]}


def _wire_part(part: str | RgbArray) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": _utf8(part)}
    media_type, data = encode_image(part)
    return {"type": "image_url", "image_url": {"url": f"data:{media_type};base64,{data}"}}


def _utf8(text: str) -> str:
    """Replace lone surrogates, which a command line can hold and UTF-8 cannot, by ``?``."""
    return text.encode("utf-8", "replace").decode("utf-8")


def encode_image(rgb: RgbArray) -> tuple[str, str]:
    """(h, w, 3) uint8 as media type and base64: PNG up to 1 Mpx, above that JPEG at quality 95.

    PNG is lossless, which thin grid lines and small numbers need. A large photograph is four times
    the size as PNG, beyond some servers' limits, and its drawn lines are wide enough to survive
    JPEG without chroma subsampling.
    """
    small = rgb.shape[0] * rgb.shape[1] <= _PNG_PIXELS
    kind = "png" if small else "jpeg"
    options = {"compress_level": 3} if small else {"quality": 95, "subsampling": 0}
    buffer = io.BytesIO()
    PilImage.fromarray(rgb).save(buffer, kind, **options)
    return f"image/{kind}", base64.b64encode(buffer.getvalue()).decode()


def response_format(kind: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    if kind == "json_object":
        return {"type": "json_object"}
    strict = {"name": "reply", "strict": True, "schema": dict(schema)}
    return {"type": "json_schema", "json_schema": strict}


def extra_fields(body: str | Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The option `extra_body` as fields of the request; BadInput where it is no JSON object."""
    try:
        fields = json.loads(body) if isinstance(body, str) else body or {}
    except (ValueError, RecursionError) as error:
        raise BadInput(f"extra_body is a JSON object, found {body!r} ({error})") from None
    if not isinstance(fields, Mapping):
        raise BadInput(f"extra_body is a JSON object, found {body!r}")
    if kept := {"model", "messages", "stream"} & set(fields):
        raise BadInput(f"extra_body cannot hold {', '.join(sorted(kept))}")
    return fields


def error_object(body: Any) -> Any:
    """The error in a body: Gemini wraps it in a list, most in an object, vLLM and others not."""
    if isinstance(body, list) and len(body) == 1:
        body = body[0]
    return body.get("error", body) if isinstance(body, dict) else body


def error_text(body: Any) -> str:
    """The text of a server's error object, wrapped or not; "" where it has none."""
    inner = error_object(body)
    if not isinstance(inner, dict):
        return as_text(inner or "")
    text = " ".join(as_text(inner[key]) for key in ("message", "detail") if inner.get(key))
    metadata = inner.get("metadata")
    if isinstance(metadata, dict) and metadata.get("raw"):  # what OpenRouter's provider said
        text = f"{text}: {as_text(metadata['raw'])}"
    details = [as_text(inner[key]) for key in ("param", "code") if inner.get(key)]
    extra = [detail for detail in details if detail not in text]
    return f"{text} ({', '.join(extra)})" if text and extra else text or ", ".join(extra)


def as_text(value: Any) -> str:
    """The beginning of a JSON value as text; "" where it is nested too deeply for Python."""
    try:
        return str(value)[:_MAX_TEXT]
    except RecursionError:
        return ""


def first_choice(body: Mapping[str, Any]) -> dict[str, Any] | None:
    """The first choice; None where there is none or it holds no message."""
    choices = body.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    if isinstance(first, dict) and isinstance(first.get("message"), dict):
        return first
    return None


def joined(
    chunks: Iterable[Any], tell: Callable[[Callable[[], str]], None] | None = None
) -> dict[str, Any] | None:
    """A streamed completion in the form of a whole one; None where the stream ended early.

    Args:
        tell: called after each chunk with what gives the text so far, thoughts first.

    Raises:
        ValueError: a chunk is no chunk of a completion.
    """
    parts: dict[str, list[str]] = {name: [] for name in ("content", "refusal", *_THOUGHTS)}
    finish, usage = None, None
    for chunk in chunks:
        choices = _object(chunk).get("choices")
        usage = chunk.get("usage") or usage
        choice = _object(choices[0]) if isinstance(choices, list) and choices else {}
        finish = choice.get("finish_reason") or finish
        delta = _object(choice.get("delta") or {})
        for name, texts in parts.items():
            texts.append(_text(delta.get(name)))
        if tell is not None:
            tell(lambda: _written(parts))
    if finish is None:
        return None
    message = {name: "".join(texts) for name, texts in parts.items()}
    return {"choices": [{"message": message, "finish_reason": finish}], "usage": usage}


def _written(parts: Mapping[str, list[str]]) -> str:
    """The text so far; some servers write the thoughts under both names."""
    thoughts = next((parts[name] for name in _THOUGHTS if any(parts[name])), [])
    return "".join([*thoughts, *parts["content"]])


def _object(value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    raise ValueError(f"a chunk holds {as_text(value)[:40]!r} where an object belongs")


def read_reply(body: Mapping[str, Any], seconds: float) -> Reply:
    """The reply in a completion that has a `first_choice`; `seconds` is what it took.

    Thinking that the server keeps apart is no part of it. Some parsers of thinking put the whole
    answer there when the model did not think (vLLM issue 17609): a finished reply without content
    is its thought where that is JSON.
    """
    choice = first_choice(body) or {"message": {}}
    message = choice["message"]
    text, finish = _text(message.get("content")), as_text(choice.get("finish_reason") or "stop")
    finish = "length" if finish.lower() in _CUT else finish.lower()[:40]
    if not text and message.get("refusal"):
        text, finish = str(message["refusal"]), "refusal"
    if not text and finish == "stop":
        thought = next((t for name in _THOUGHTS if (t := _text(message.get(name)))), "").strip()
        text = thought if thought.startswith(("{", "[", "```")) else ""
    return Reply(text, _usage(body.get("usage")), seconds, finish)


def _text(content: Any) -> str:
    """A message's text, whether it came as a string, as parts, or not at all."""
    if isinstance(content, list):
        parts = [p.get("text") if isinstance(p, dict) else p for p in content]
        return "".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else ""


def _usage(usage: Any) -> Usage:
    prompt, completion, total = map(_count, _numbers(usage))
    return Usage(prompt, max(completion, total - prompt), calls=1)  # Gemini's thoughts: only total


def has_odd_usage(body: Mapping[str, Any]) -> bool:
    """Whether a completion counts tokens in numbers that make no sense, e.g. 1e999 or -1."""
    return any(number and not _count(number) for number in _numbers(body.get("usage")))


def _numbers(usage: Any) -> list[Any]:
    usage = usage if isinstance(usage, dict) else {}
    return [usage.get(name) for name in ("prompt_tokens", "completion_tokens", "total_tokens")]


def _count(number: Any) -> int:
    """A number of tokens; 0 where it is none."""
    usable = isinstance(number, int | float) and 0 <= number <= _MAX_TOKENS  # NaN is not
    return int(number) if usable else 0


def is_prompt_cut(messages: Iterable[Message], prompt_tokens: int) -> bool:
    """Whether the server read fewer tokens than the text alone must have; images count nothing.

    Ollama and LM Studio cut a prompt beyond their context length without an error.
    """
    parts = (part for message in messages for part in message.parts)
    text_bytes = sum(len(_utf8(part).encode()) for part in parts if isinstance(part, str))
    return 0 < prompt_tokens < text_bytes // _BYTES_PER_TOKEN


def retry_after(headers: Mapping[str, str], text: str = "") -> float | None:
    """Seconds to wait, or None.

    From `retry-after-ms` or `retry-after` (seconds or an HTTP date), else from the error's text, as
    Gemini and OpenAI write it.
    """
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name, "").strip()
        if re.fullmatch(r"\d+(\.\d+)?", value):
            return float(value) * unit
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        date = email.utils.parsedate_to_datetime(headers.get("retry-after", ""))
        return date.timestamp() - time.time()
    found = _WAIT.search(text)
    return float(found[1]) * (0.001 if found[2] == "ms" else 1.0) if found else None
