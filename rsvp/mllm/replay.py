"""Record replies to a JSONL file, and play them back: a whole run repeats offline, byte for byte.

A reply is found by the SHA-256 of the model and of everything it was sent, pixels included. So a
changed prompt, image or model is noticed: its reply is not there.

    mllm = ReplayMLLM("run.jsonl", record=OpenAIMLLM("gpt-5.1"))   # asks and writes
    mllm = ReplayMLLM("run.jsonl")                                 # only reads
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rsvp.errors import BadInput, MLLMFailed
from rsvp.mllm import MLLM
from rsvp.types import Message, Reply, Usage


class ReplayMLLM:
    """Replies from a file; with `record`, another MLLM's replies into it.

    A question asked several times gets its replies in the order in which they were recorded, then
    the last one again and again. Recording appends, and each line is on disk before its reply is
    returned. One file holds one model; its name decides frame and prompts as when it was recorded.

    Args:
        file: JSONL; must exist unless `record` is given.
        record: whom to ask.

    Raises:
        BadInput: no such file, a line that is no recorded reply, or replies of another model.
    """

    remote = False  # a reply that is read from a file leaves no time to use

    def __init__(self, file: str | Path, *, record: MLLM | None = None) -> None:
        self.name = f"replay:{file}"
        self._file = Path(file)
        self._record = record
        self._lock = threading.Lock()
        self._replies: dict[str, list[Reply]] = defaultdict(list)
        self._played: dict[str, int] = defaultdict(int)
        recorded = self._read()
        if record is not None and recorded not in (None, record.model):
            raise BadInput(f"{file} holds replies of {recorded}: record {record.model} elsewhere")
        self.model: str = record.model if record is not None else recorded or ""

    def __repr__(self) -> str:
        return f"ReplayMLLM({str(self._file)!r}, record={self._record!r})"

    def reply(
        self, messages: Sequence[Message], *, schema: Mapping[str, Any] | None = None
    ) -> Reply:
        """The recorded reply; see `rsvp.mllm.MLLM.reply`. Its `seconds` are the recorded ones.

        Raises:
            MLLMFailed: nothing was recorded for this question, or the recorded model failed.
        """
        if self._record is None:
            return self._play(messages)
        return self._keep(messages, self._record.reply(messages, schema=schema))

    async def areply(
        self, messages: Sequence[Message], *, schema: Mapping[str, Any] | None = None
    ) -> Reply:
        """`reply`, awaitable."""
        if self._record is None:
            return self._play(messages)
        return self._keep(messages, await self._record.areply(messages, schema=schema))

    def _play(self, messages: Sequence[Message]) -> Reply:
        key = message_key(self.model, messages)
        with self._lock:
            replies = self._replies.get(key)
            if not replies:
                raise MLLMFailed(
                    f"{self._file} holds no reply to {_asked(messages)!r} ({key[:12]})"
                )
            at = min(self._played[key], len(replies) - 1)
            self._played[key] += 1
        return replies[at]

    def _keep(self, messages: Sequence[Message], reply: Reply) -> Reply:
        key = message_key(self.model, messages)
        line = {"key": key, "model": self.model, "asked": _asked(messages), **asdict(reply)}
        with self._lock, self._file.open("ab") as file:
            if file.tell() and not self._ends_in_newline():
                file.write(b"\n")
            file.write(json.dumps(line).encode() + b"\n")
        return reply

    def _ends_in_newline(self) -> bool:
        with self._file.open("rb") as file:
            file.seek(-1, 2)
            return file.read() == b"\n"

    def _read(self) -> str | None:
        """Fill `_replies`; return the model that wrote them, None where there are none."""
        if not self._file.is_file():
            if self._record is None:
                raise BadInput(f"there is no file {self._file} to replay")
            return None
        model = None
        for number, line in enumerate(self._file.read_bytes().splitlines(), start=1):
            if not line.strip():
                continue
            where = f"{self._file}:{number}"
            key, its_model, reply = _parse(line, where)
            if model not in (None, its_model):
                raise BadInput(f"{where} is a reply of {its_model}, the ones before are of {model}")
            model = its_model
            self._replies[key].append(reply)
        return model


def message_key(model: str, messages: Sequence[Message]) -> str:
    """SHA-256 hex of the model's name and the messages: roles, texts, image sizes and pixels."""
    digest = hashlib.sha256()

    def add(kind: str, content: bytes) -> None:
        # With lengths, or ("ab", "c") and ("a", "bc") would be one key.
        digest.update(f"{kind} {len(content)}\n".encode())
        digest.update(content)

    add("model", model.encode("utf-8", "surrogatepass"))
    for message in messages:
        add("role", message.role.encode())
        for part in message.parts:
            if isinstance(part, str):
                add("text", part.encode("utf-8", "surrogatepass"))
            else:
                add(f"image {part.shape[0]}x{part.shape[1]}", part.tobytes())
    return digest.hexdigest()


def _asked(messages: Sequence[Message]) -> str:
    """The start of the last message's text, for people who look into the file."""
    words = " ".join(part for part in messages[-1].parts if isinstance(part, str)).split()
    text = " ".join(words)
    return text if len(text) <= 80 else text[:77] + "..."


def _parse(line: bytes, where: str) -> tuple[str, str, Reply]:
    """Key, model and reply of a line; BadInput naming `where` when it is none."""
    try:
        found = json.loads(line)
        usage = Usage(**{name: int(count) for name, count in found["usage"].items()})
        confidence = found["confidence"]
        reply = Reply(
            text=found["text"],
            usage=usage,
            seconds=float(found["seconds"]),
            finish_reason=found["finish_reason"],
            confidence=None if confidence is None else float(confidence),
        )
        key, model = found["key"], found["model"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        what = f"{type(error).__name__}: {error}".splitlines()[0]
        raise BadInput(f"{where} is no recorded reply ({what})") from error
    if not all(isinstance(text, str) for text in (key, model, reply.text, reply.finish_reason)):
        raise BadInput(f"{where} is no recorded reply (key, model, text or reason is no text)")
    return key, model, reply
