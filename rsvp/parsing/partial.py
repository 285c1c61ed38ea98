"""The steps in a reply that is still being written, for people who watch."""

from __future__ import annotations

import json
import re

_MAX_THOUGHT = 4000  # characters of its end
_TAG = re.compile(r"</?(?:think|thinking|thought|reasoning)>|◁/?think▷|```\w*|<\|[^|]*\|>")
_ANSWER = re.compile(r"[{\[]\s*[\"{]|[{\[]\s*\Z")
_TEXT = re.compile(r'"(?:text|step|thought|reason)"\s*:\s*"((?:[^"\\]|\\.)*+)')


def steps_so_far(text: str) -> list[str]:
    """What a reply says before its JSON, and the texts of the steps in it; the last may go on.

    It looks for their keys and checks nothing: the whole reply is read by `rsvp.parsing`.
    """
    begin = _ANSWER.search(text)
    answer = text[begin.start() :] if begin else ""
    thought = _TAG.sub("", text[: begin.start()] if begin else text).strip()[-_MAX_THOUGHT:]
    steps = [_unescaped(found[1]) for found in _TEXT.finditer(answer)]
    return [step for step in (thought, *steps) if step]


def _unescaped(raw: str) -> str:
    """The characters of a JSON string; its end may be half an escape."""
    try:
        return str(json.loads(f'"{raw}"', strict=False))
    except ValueError:
        return raw
