"""What servers of chat completions do wrong, as the bytes that they send: `FAULTS`, by name.

Every one of them must be a failed try or a readable reply. A refused key is not among them: it ends
a run, as it would be refused again.
"""

from __future__ import annotations

import gzip
import itertools
import json
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from raw_server import response

KEY, PASSWORD = "sk-hostile-0123456789abcdef", "hostile-p4ssword"
ANSWER = '{"targets": [{"label": "thing", "box": [100, 100, 600, 600]}], "reason": "it is there"}'
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
DEEP = "[" * 50_000
SILENCE = 1.5  # seconds, longer than the run's `timeout`

Fault = Callable[[], Iterable[bytes]]


def body(content: Any = ANSWER, finish: Any = "stop", **more: Any) -> bytes:
    """A whole completion."""
    choice = {"message": {"role": "assistant", "content": content}, "finish_reason": finish}
    usage = {"prompt_tokens": 900, "completion_tokens": 40}
    return json.dumps({"choices": [choice], "usage": usage, **more}).encode()


def whole(content: Any = ANSWER, finish: Any = "stop", **more: Any) -> bytes:
    return response(body(content, finish, **more), "200 OK", "application/json")


def events(*pieces: Any, end: bytes = b"data: [DONE]\n\n") -> bytes:
    """A stream: strings are pieces of the text, all else is an event of its own."""
    lines = []
    for piece in pieces:
        delta = {"delta": {"content": piece}, "finish_reason": None}
        event = {"choices": [delta]} if isinstance(piece, str) else piece
        lines.append(f"data: {json.dumps(event)}\n\n".encode())
    return STREAM + b"".join(lines) + end


STOP = {"choices": [{"delta": {}, "finish_reason": "stop"}]}
STREAMED = events(ANSWER[:20], ANSWER[20:], STOP)


def refusal(status: str, words: Any = "busy", *headers: str) -> bytes:
    error = json.dumps({"error": {"message": words}}).encode()
    return response(error, status, "application/json", *headers)


def usage(text: str) -> bytes:
    counted = body(usage="HERE").replace(b'"HERE"', text.encode())
    return response(counted, "200 OK", "application/json")


def typed(kind: str, content: bytes, *headers: str) -> bytes:
    return response(content, "200 OK", kind, *headers)


def raw(*parts: bytes) -> Fault:
    return lambda: parts


def slowly(start: bytes, piece: bytes) -> Fault:
    """Never silent for long, and never done."""

    def pieces() -> Iterator[bytes]:
        yield start
        for _ in range(100):
            time.sleep(0.2)
            yield piece

    return pieces


def late(start: bytes, end: bytes) -> Fault:
    def pieces() -> Iterator[bytes]:
        yield start
        time.sleep(SILENCE)
        yield end

    return pieces


def endless(start: bytes, piece: bytes) -> Fault:
    return lambda: itertools.chain([start], itertools.repeat(piece))


def redirect(status: str, place: str) -> bytes:
    return response(b"", status, "text/plain", f"Location: {place}")


def faults(other: str) -> dict[str, Fault]:
    """The faults; `other` is the URL of another server."""
    bomb = gzip.compress(b" " * 50_000_000)
    sent: dict[str, bytes] = {
        **{f"status {n}": refusal(f"{n} No") for n in (400, 402, 404, 408, 409, 413, 422)},
        **{f"status {n}": refusal(f"{n} No") for n in (429, 451, 500, 501, 502, 503, 529, 599)},
        "204 without a body": b"HTTP/1.1 204 No Content\r\n\r\n",
        "304": b"HTTP/1.1 304 Not Modified\r\n\r\n",
        "a line of 999": refusal("999 Odd"),
        "Retry-After of a day": refusal("429 No", "slow down", "Retry-After: 86400"),
        "Retry-After of 400 digits": refusal("429 No", "slow", f"Retry-After: {'9' * 400}"),
        "Retry-After of the year 1": refusal(
            "503 No", "slow", "Retry-After: Mon, 01 Jan 0001 00:00:00 GMT"
        ),
        "Retry-After below zero": refusal("503 No", "slow", "Retry-After: -5"),
        "307 to another server": redirect("307 Go", f"{other}/chat/completions"),
        "302 to a login page": redirect("302 Go", f"{other}/login?key={KEY}"),
        "308 to a loop": redirect("308 Go", "/v1/chat/completions"),
        "308 to nowhere": redirect("308 Go", "http://[::1"),
        "an HTML page": typed("text/html", b"<html>log in</html>"),
        "an empty body": typed("application/json", b""),
        "half of the JSON": typed("application/json", body()[:60]),
        "a body cut short": whole()[:-20],
        "no HTTP": b"SSH-2.0-OpenSSH_9.6\r\n",
        "nothing": b"",
        "half of a head": b"HTTP/1.1 200 OK\r\nContent-Ty",
        "a broken chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nxx",
        "a head of 1 MB": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1_000_000 + b"\r\n\r\n",
        "null": typed("application/json", b"null"),
        "a list": typed("application/json", b"[1, 2]"),
        "null choices": typed("application/json", b'{"choices": null}'),
        "no choices": typed("application/json", b'{"choices": []}'),
        "null in choices": typed("application/json", b'{"choices": [null]}'),
        "an error under 200": typed("application/json", b'{"error": {"message": "overloaded"}}'),
        "an error of odd types": typed("application/json", b'{"error": {"code": 1e999}}'),
        "usage 1e999": usage('{"prompt_tokens": 1e999, "completion_tokens": 1}'),
        "usage NaN": usage('{"prompt_tokens": NaN, "completion_tokens": NaN}'),
        "usage below zero": usage('{"prompt_tokens": -7, "completion_tokens": -1}'),
        "usage of 5000 digits": usage(f'{{"prompt_tokens": {"1" * 5000}}}'),
        "usage of words": usage('{"prompt_tokens": "many", "completion_tokens": [1]}'),
        "deep nesting": typed("application/json", DEEP.encode()),
        "deep nesting in the text": whole(DEEP),
        "deep nesting in an error": response(DEEP.encode(), "500 No"),
        "UTF-16": typed("application/json; charset=utf-16", body().decode().encode("utf-16")),
        "an unknown charset": typed("application/json; charset=no-such", body()),
        "no charset": typed("application/json; charset=hex", bytes(range(256))),
        "an error's charset": response(b"\xff\xfe", "500 No", "text/plain; charset=undefined"),
        "no gzip": typed("application/json", b"plain", "Content-Encoding: gzip"),
        "an unknown compression": typed("application/json", b"\x00\x01", "Content-Encoding: xz"),
        "a bomb of gzip": typed("application/json", bomb, "Content-Encoding: gzip"),
        "a bomb in a bomb": typed(
            "application/json", gzip.compress(bomb), "Content-Encoding: gzip, gzip"
        ),
        "a stream cut short": events(ANSWER[:30], end=b""),
        "a stream of broken JSON": events(ANSWER, end=b"data: {not json\n\n"),
        "an error in a stream": events(ANSWER[:9], {"error": {"message": "overloaded"}}),
        "an event that is a list": events(ANSWER[:9], [1]),
        "an event with null": events(ANSWER[:9], {"choices": [None]}),
        "an event of no UTF-8": STREAM + b"data: \xff\xfe\n\n",
        "deep nesting in a stream": STREAM + f"data: {DEEP}\n\n".encode(),
        "an empty text": whole(""),
        "no text": whole(None),
        "a text that is a number": whole(7),
        "a refusal": whole(None, refusal="I cannot help with that."),
        "a filtered text": whole("", "content_filter"),
        "a finish of odd type": whole(finish={"why": 1}),
        "controls in the text": whole("\x1b[2J\x00\u202e here it is"),
        "half a surrogate pair": whole(ANSWER.replace("there", "\ud800")),
        "the key in the text": whole(ANSWER.replace("there", f"{KEY} {PASSWORD}")),
        "the key without JSON": whole(f"Your key is {KEY}, password {PASSWORD}"),
        "the key in an error": refusal("400 No", f"bad key {KEY} of {PASSWORD}"),
        "the key in a content type": typed(f"text/{KEY}", b"what?"),
        "the key in a stream": events(KEY[:9], f"{KEY[9:]}?", STOP),
    }
    return {
        **{name: raw(content) for name, content in sent.items()},
        "silence": late(b"", whole()),
        "silence in the head": late(whole()[:30], whole()[30:]),
        "silence in the body": late(whole()[:-9], whole()[-9:]),
        "silence in a stream": late(STREAMED[:-90], STREAMED[-90:]),
        "a head a byte at a time": slowly(b"HTTP/1.1 200 OK\r\nX: ", b"x"),
        "a body a byte at a time": slowly(STREAM.replace(b"event-stream", b"plain"), b"x"),
        "a stream of comments": slowly(STREAM, b": wait\n\n"),
        "100 Continue for ever": slowly(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        "an endless line": endless(STREAM + b"data: ", b"x" * 65536),
        "an endless body": endless(b"HTTP/1.1 200 OK\r\n\r\n", b" " * 65536),
    }
