"""Record replies to a JSONL file and replay them, so that a whole run repeats offline, exactly.

The key of a reply is the SHA-256 of the model and of everything it was sent, pixels included: a
changed prompt, image or model finds no reply.

    mllm = ReplayMLLM("run.jsonl", record=OpenAIMLLM("gpt-5.1"))   # calls the model and records
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

from pydantic import BaseModel

from rsvp.errors import BadInput, MLLMFailed
from rsvp.mllm import (
    MLLM,
    check_sparse,
    image_familiarity,
    is_remote,
    load,
    reply_longer,
    sample_replies,
)
from rsvp.platform.files import parse_json, read_bytes, validate, writable
from rsvp.types import Message, Reply, RgbArray, Usage


class RecordedUsage(BaseModel, extra="forbid"):
    """`rsvp.types.Usage` as it is recorded."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    calls: int = 0


class RecordedReply(BaseModel):
    """One line of the file, without `asked`, which is for people to read."""

    key: str
    model: str
    text: str
    usage: RecordedUsage
    seconds: float
    finish_reason: str
    confidence: float | None
    familiarity: float | None = None
    resized: tuple[int, int] | None = None
    remote: bool = False

    def reply(self) -> Reply:
        usage = Usage(**self.usage.model_dump())
        return Reply(
            self.text,
            usage,
            self.seconds,
            self.finish_reason,
            self.confidence,
            self.familiarity,
            self.resized,
        )


class ReplayMLLM:
    """Replies from a file; with `record`, another MLLM's replies into it.

    Messages sent several times get their replies in the order in which they were recorded, then
    the last one again and again. Recording appends, and each line is on disk before its reply is
    returned. One file holds one model; its name decides frame and prompts as when it was recorded.

    Args:
        file: JSONL; must exist unless `record` is given.
        record: the backend that answers.

    Raises:
        BadInput: no such file, a line that is no recorded reply, or replies of another model.
    """

    def __init__(self, file: str | Path, record: MLLM | None = None) -> None:
        self.name = f"replay:{file}" if record is None else record.name
        self._file = Path(file)
        self._record = record
        self._lock = threading.Lock()
        self._replies: dict[str, list[Reply]] = defaultdict(list)
        self._replayed: dict[str, int] = defaultdict(int)
        self.remote = is_remote(record)  # servers are sent another size of picture
        recorded = self._read()
        if record is not None and recorded not in (None, record.model):
            raise BadInput(f"{file} holds replies of {recorded}: record {record.model} elsewhere")
        self.model: str = record.model if record is not None else recorded or ""

    def reply(
        self, messages: Sequence[Message], *, schema: Mapping[str, Any] | None = None
    ) -> Reply:
        """The recorded reply; see `rsvp.mllm.MLLM.reply`. Its `seconds` are the recorded ones.

        Raises:
            MLLMFailed: nothing was recorded for these messages, or the recorded model failed.
        """
        if self._record is None:
            return self._replay(message_key(self.model, messages), messages)
        return self._recorded(messages, self._record.reply(messages, schema=schema))

    def reply_longer(
        self, messages: Sequence[Message], cut: Reply, *, schema: Mapping[str, Any] | None = None
    ) -> Reply | None:
        """The reply with a raised token limit, which was recorded after the cut one, if any."""
        if self._record is not None:
            longer = reply_longer(self._record, messages, cut, schema=schema)
            return self._recorded(messages, longer) if longer is not None else None
        key = message_key(self.model, messages)
        if self._replayed[key] >= len(self._replies.get(key, ())):
            return None
        return self._replay(key, messages)

    def replies(
        self,
        messages: Sequence[Message],
        count: int,
        temperature: float,
        *,
        schema: Mapping[str, Any] | None = None,
    ) -> list[Reply]:
        """The recorded replies, in order; see `rsvp.mllm.sample_replies`."""
        if self._record is None:
            return [self.reply(messages) for _ in range(count)]
        found = sample_replies(self._record, messages, count, temperature, schema=schema)
        return [self._recorded(messages, reply) for reply in found]

    def check_sparse(self) -> None:
        """The recorded backend's; what was recorded is replayed."""
        if self._record is not None:
            check_sparse(self._record)

    def load(self) -> None:
        """Load the recorded backend's weights."""
        if self._record is not None:
            load(self._record)

    def familiarity(self, rgb: RgbArray) -> float | None:
        """The recorded backend's, see `rsvp.mllm.MLLM`; it is recorded as a reply to the image."""
        asked = [Message("user", (rgb,))]
        if self._record is None:
            replies = self._replies.get(message_key(self.model, asked))
            return replies[0].familiarity if replies else None
        found = image_familiarity(self._record, rgb)
        if found is not None:
            self._recorded(asked, Reply("", familiarity=found))
        return found

    def _recorded(self, messages: Sequence[Message], reply: Reply) -> Reply:
        """Append a reply to the file, and return it."""
        key = message_key(self.model, messages)
        about = {"key": key, "model": self.model, "remote": self.remote}
        record = {**about, "asked": _last_text(messages), **asdict(reply)}
        with self._lock, writable(self._file), self._file.open("ab+") as file:
            if file.tell():
                file.seek(-1, 2)
                if file.read() != b"\n":  # as an editor or a killed run may leave it
                    file.write(b"\n")
            file.write(json.dumps(record).encode() + b"\n")
        return reply

    def _replay(self, key: str, messages: Sequence[Message]) -> Reply:
        with self._lock:
            replies = self._replies.get(key)
            if not replies:
                asked = _last_text(messages)
                raise MLLMFailed(f"{self._file} holds no reply to {asked!r} ({key[:12]})")
            index = min(self._replayed[key], len(replies) - 1)
            self._replayed[key] += 1
        return replies[index]

    def _read(self) -> str | None:
        """Fill `_replies`; return the model that wrote them, None where there are none."""
        if not self._file.is_file():
            if self._record is None:
                raise BadInput(f"there is no file {self._file} to replay")
            return None
        model = None
        for number, line in enumerate(read_bytes(self._file).splitlines(), start=1):
            if not line.strip():
                continue
            where = f"{self._file}:{number} is no recorded reply"
            recorded = validate(RecordedReply.model_validate, parse_json(line, where), where)
            if model not in (None, recorded.model):
                others = f"the ones before are of {model}"
                raise BadInput(f"{self._file}:{number} is a reply of {recorded.model}, {others}")
            model = recorded.model
            self.remote |= recorded.remote and self._record is None
            self._replies[recorded.key].append(recorded.reply())
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
        if message.kept is not None:
            add("kept", message.kept.tobytes())
    return digest.hexdigest()


def _last_text(messages: Sequence[Message]) -> str:
    """The start of the last message's text."""
    parts = [part for part in messages[-1].parts if isinstance(part, str)]
    text = " ".join(" ".join(parts).split())
    return text if len(text) <= 80 else text[:77] + "..."
