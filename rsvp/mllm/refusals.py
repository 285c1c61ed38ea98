"""What a server's refusal asks for: a parameter to leave out, a lower token limit, no images.

Pure functions on the text of an error. The texts of real servers stand in
tests/families/server_dialects.py, each with its source.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

MIN_TOKENS = 256  # a reply with less than this is not worth asking for

_RETRIED = {408, 409, 429}  # and everything from 500 on, except 501
_PARAMETER_REFUSED = {400, 422, 501}  # how servers say that they do not know a parameter
_REQUIRED = ("model", "messages")
_LIMITS = ("max_tokens", "max_completion_tokens")
_FORMAT = re.compile(r"response.?format|json.?(?:mode|schema|object)|structured|guided|grammar")
# Only looked for where nothing is named: servers refuse a schema in all sorts of words.
_VAGUE = re.compile(r"schema|unsupported|json")
_THINKING = re.compile(r"think|reasoning")
_THINKING_FIELDS = (
    *("reasoning_effort", "reasoning", "thinking", "think", "enable_thinking"),
    *("thinking_budget", "chat_template_kwargs"),
)
_CONTEXT = re.compile(r"context (?:length|size|window)\D{0,20}(\d+)")
_INPUT = re.compile(
    r"(\d+) (?:tokens )?(?:input tokens|in the messages|from the input|of text input|in the prompt)"
    r"|(?:input|prompt) tokens\D{0,5}(\d+)"
)
_CAP = re.compile(
    r"at most (\d+) (?:completion|output)? ?tokens|\[\d+, ?(\d+)\]"
    r"|> ?(\d+),? which is the maximum"
    r"|(?:less than or equal to|<=|(?:must|can)? ?not exceed) ?(\d+)"
)
_NO_IMAGES = re.compile(
    r"image[^.]{0,40}(?:not support|unsupported)"
    r"|(?:not support|unsupported|no endpoints)[^.]{0,40}image"
    r"|not a multimodal|unknown variant .image_url|at most 0 image"
)


def is_retried(status: int) -> bool:
    """Whether the same request may succeed later."""
    return status in _RETRIED or (status >= 500 and status != 501)


def asked_for(
    status: int | None, text: str, param: str | None, request: Mapping[str, Any], limit: int
) -> tuple[int | None, str | None]:
    """The token limit below `limit`, or else the parameter to leave out, that a refusal asks for.

    Args:
        status: of the HTTP response; the others are those of `refused_parameter`.
    """
    if status not in _PARAMETER_REFUSED or refuses_images(text):
        return None, None
    lower = lower_limit(text, limit) if any(name in request for name in _LIMITS) else None
    return lower, None if lower is not None else refused_parameter(text, param, request)


def refused_parameter(text: str, param: str | None, request: Mapping[str, Any]) -> str | None:
    """The optional parameter, or the reply format, that the server refuses, if any.

    Args:
        text: of the error.
        param: what the error's own field of this name says.
        request: the body that was sent.

    Returns:
        A key of `request`, or the type of its ``response_format``.
    """
    words = text.lower()
    if _CONTEXT.search(words):
        return None  # the prompt is too long, whatever else the text names
    field = re.split(r"[.\[]", param or "")[0]
    if field in request and field not in _REQUIRED:
        return _name(field, request)
    named = {name: _position(name, words) for name in request if name not in _REQUIRED}
    found = {name: at for name, at in named.items() if at is not None}
    if found:
        return _name(min(found, key=lambda name: found[name]), request)
    if "response_format" in request and _VAGUE.search(words):
        return _name("response_format", request)
    return None


def _name(field: str, request: Mapping[str, Any]) -> str:
    return str(request[field]["type"]) if field == "response_format" else field


def _position(name: str, words: str) -> int | None:
    """Where the text names a parameter, in the server's words or in its own."""
    pattern = rf"(?<![\w-]){re.escape(name.lower())}(?![\w-])"
    if name == "response_format":
        pattern = _FORMAT.pattern
    elif name == "stream":
        pattern = r"(?<![\w-])stream(?:ing)?(?!\w)"
    elif name in _THINKING_FIELDS:
        pattern = rf"{pattern}|{_THINKING.pattern}"
    found = re.search(pattern, words)
    return found.start() if found else None


def lower_limit(text: str, limit: int) -> int | None:
    """The tokens of a reply that the server allows; None where it does not refuse `limit`.

    Without a number that can be used it is half of `limit`.
    """
    words = re.sub(r"(?<=\d),(?=\d{3})", "", text.lower())
    if not (_CONTEXT.search(words) or any(name in words for name in (*_LIMITS, "output tokens"))):
        return None
    cap = _number(_CAP, words)
    if cap is None and str(limit) not in re.findall(r"\d+", words):
        return None
    context, read = _number(_CONTEXT, words), _number(_INPUT, words)
    lower = limit // 2
    if context is not None and read is not None:
        # "at least" is a server that stopped counting: its number only follows from `limit`.
        lower = min(context - read, lower) if "at least" in words else context - read
    elif cap is not None:
        lower = cap
    return lower if MIN_TOKENS <= lower < limit else None


def refuses_images(text: str) -> bool:
    """Whether the server says that the model reads no images."""
    return _NO_IMAGES.search(text.lower()) is not None


def refuses_content(text: str) -> bool:
    """Whether a content filter refuses this request, see https://openrouter.ai/docs/errors."""
    return re.search(r"moderat|flagged|content.?(?:policy|filter)", text.lower()) is not None


def _number(pattern: re.Pattern[str], words: str) -> int | None:
    found = pattern.search(words)
    return int(next(group for group in found.groups() if group)) if found else None
