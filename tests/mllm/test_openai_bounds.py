"""The openai backend with servers that redirect, never end, or answer what no server should."""

from __future__ import annotations

import functools
import gzip
import itertools
import json
import logging
import time
from collections.abc import Iterator
from typing import Any

import pytest
from chat_server import ASK, KEY, Answer, Server, completion, connect, refusal
from raw_server import raw_server, response

from rsvp.errors import MLLMFailed
from rsvp.mllm.openai import OpenAIMLLM
from rsvp.types import Usage

pytestmark = pytest.mark.usefixtures("pauses")

SSE = {"Content-Type": "text/event-stream"}
DEEP = "[" * 100_000 + "]" * 100_000
NESTED: list = functools.reduce(lambda inner, _: [inner], range(949), [])  # not by a parser's stack


def with_usage(usage: str) -> Answer:
    _, body, headers = completion()
    text = json.dumps({**body, "usage": 0}).replace('"usage": 0', f'"usage": {usage}')
    return 200, text.encode(), headers


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_takes_the_question_to_another_server(server: Server, status: int) -> None:
    other = Server()
    place = f"{other.url}/chat/completions?echo={KEY}"
    server.answers = [(status, b"", {"Location": place})]
    with pytest.raises(MLLMFailed, match=f"it redirects to {other.url}/chat/completions, where"):
        connect(server).reply(ASK)
    assert (len(server.requests), other.requests) == (1, [])


def test_a_redirect_within_the_server_keeps_the_question(server: Server) -> None:
    there = {"Location": f"{server.url}/elsewhere/chat/completions"}
    server.answers = [(307, b"", there), completion()]
    assert connect(server).reply(ASK).text == "here"
    assert server.requests[1] == server.requests[0]


def test_a_redirect_that_drops_the_question_is_refused(server: Server) -> None:
    server.answers = [(302, b"", {"Location": f"{server.url}/login"})]
    with pytest.raises(MLLMFailed, match=r"it redirects to http.*/login, where nothing is sent"):
        connect(server).reply(ASK)


def drip(start: bytes, piece: bytes) -> Iterator[bytes]:
    yield start
    for _ in range(600):
        time.sleep(0.05)
        yield piece


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (b"HTTP/1.1 200 OK\r\nX: ", b"x"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n", b" "),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n", b": wait\n\n"),
        (b"HTTP/1.1 500 No\r\nContent-Type: text/plain\r\n\r\n", b"x"),
        (b"HTTP/1.1 307 No\r\nLocation: /v1/chat/completions\r\n\r\n", b"x"),
    ],
)
def test_a_reply_that_never_ends_ends_at_the_deadline(start: bytes, piece: bytes) -> None:
    with raw_server(lambda _: drip(start, piece)) as server:
        started = time.monotonic()
        with pytest.raises(MLLMFailed, match=r"not complete after 0\.5 s; raise .*deadline"):
            OpenAIMLLM("m", base_url=server.url, deadline=0.5).reply(ASK)
        assert time.monotonic() - started < 5
        assert len(server.heads) == 1


def test_a_slow_but_living_server_is_waited_for() -> None:
    event = {"choices": [{"delta": {"content": "x"}, "finish_reason": None}]}
    last = {"choices": [{"delta": {}, "finish_reason": "stop"}]}

    def tokens(_: bytes) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
        for one in [*[event] * 8, last]:
            time.sleep(0.1)
            yield f"data: {json.dumps(one)}\n\n".encode()

    with raw_server(tokens) as server:
        mllm = OpenAIMLLM("m", base_url=server.url, timeout=0.5, max_retries=0)
        assert mllm.reply(ASK).text == "xxxxxxxx"


@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize("kind", ["application/json", "text/event-stream", "text/html"])
def test_a_body_beyond_the_bound_is_refused(kind: str, status: int) -> None:
    """A bomb of gzip, 1000 times smaller than what it holds."""
    line = {"application/json": b" ", "text/html": b"x", "text/event-stream": b": wait\n\n"}[kind]
    bomb = gzip.compress(line * (20_000_000 // len(line)))
    sent = response(bomb, f"{status} OK", kind, "Content-Encoding: gzip")
    with raw_server(lambda _: [sent]) as server:
        with pytest.raises(MLLMFailed, match="the answer is longer than 4 MB"):
            OpenAIMLLM("m", base_url=server.url, max_tokens=256).reply(ASK)
        assert len(server.heads) == 1


def test_a_stream_without_an_end_is_refused() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: "
    endless = itertools.chain([head], itertools.repeat(b"x" * 2**16))
    longer = pytest.raises(MLLMFailed, match="the answer is longer than 4 MB")
    with raw_server(lambda _: endless) as server, longer:
        OpenAIMLLM("m", base_url=server.url, max_tokens=256).reply(ASK)


def test_an_answer_compressed_more_than_once_is_refused() -> None:
    bomb = gzip.compress(gzip.compress(bytes(1000)))
    sent = response(bomb, "200 OK", "application/json", "Content-Encoding: gzip, gzip")
    with raw_server(lambda _: [sent]) as server, pytest.raises(MLLMFailed, match="more than once"):
        OpenAIMLLM("m", base_url=server.url).reply(ASK)


@pytest.mark.parametrize("count", ["1e999", "NaN", "-Infinity", "-5", "1e30", '"7"', "[7]"])
def test_odd_numbers_of_tokens_cost_no_answer(
    server: Server, count: str, caplog: pytest.LogCaptureFixture
) -> None:
    server.answers = [with_usage(f'{{"prompt_tokens": {count}, "completion_tokens": 3}}')]
    mllm = connect(server)
    for _ in range(2):
        assert mllm.reply(ASK).usage == Usage(0, 3, 1)
    assert caplog.text.count("make no sense and are not counted") == 1


BAD_STREAM = (
    *("null", "[1]", "7", '"x"', DEEP, '"\xff"', '{"choices": [null]}', '{"choices": [[]]}'),
    *('{"choices": [{"delta": 5}]}', '{"error": "busy"}', '{"error": {"code": 1e999}}'),
)
STREAMED = b'data: {"choices": [{"delta": {"content": "x"}, "finish_reason": "stop"}]}\n\n'
FAULTS: dict[str, Answer] = {
    "null choices": (200, {"choices": None}, {}),
    "no message": (200, {"choices": [{"message": None}]}, {}),
    "nesting": (200, DEEP.encode(), {}),
    "nesting in the answer": (200, b'{"choices": ' + DEEP.encode() + b"}", {}),
    "nesting in an error": (500, {"error": {"message": NESTED}}, {}),
    "5000 digits": with_usage("1" * 5000),
    "UTF-16": (200, json.dumps(completion()[1]).encode("utf-16"), {}),
    "no text": (200, bytes(range(256)), {"Content-Type": "application/json; charset=hex"}),
    "an error's charset": (500, b"\xff\xfe", {"Content-Type": "text/plain; charset=undefined"}),
    "an error's codec": (502, b"no", {"Content-Type": "text/plain; charset=rot13"}),
    "no gzip": (200, b"plain", {"Content-Encoding": "gzip"}),
    "an error that is no gzip": (500, b"plain", {"Content-Encoding": "gzip"}),
    "an error in a list": (500, [[["x"]]], {}),
    "an empty error": (500, b"", {}),
    "an odd code": (200, {"error": {"message": "busy", "code": 10**300}}, {}),
    "no date": (429, {}, {"Retry-After": "Mon, 01 Jan 0001 00:00:00 -2359"}),
}
STREAM_FAULTS = {
    f"an event {e[:30]}": (200, f"data: {e}\n\n".encode("latin-1") + STREAMED, SSE)
    for e in BAD_STREAM
}
TRIED = [
    *(pytest.param(a, stream, id=f"{n}-{stream}") for n, a in FAULTS.items() for stream in (0, 1)),
    *(pytest.param(answer, 1, id=name) for name, answer in STREAM_FAULTS.items()),
]


@pytest.mark.parametrize(("answer", "stream"), TRIED)
def test_what_cannot_be_read_is_asked_for_again(
    server: Server, pauses: list[float], answer: Answer, stream: int
) -> None:
    server.answers = [answer, completion()]
    assert connect(server, stream=bool(stream)).reply(ASK).text == "here"
    assert len(pauses) == 1
    server.answers = [answer]
    with pytest.raises(MLLMFailed, match="after 2 attempts") as error:
        connect(server, stream=bool(stream), max_retries=1).reply(ASK)
    assert len(str(error.value).splitlines()) == 1
    assert len(str(error.value)) < 500


@pytest.mark.parametrize("charset", ["no-such", "undefined", "utf-16", "latin-1"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_json_is_utf_8_whatever_its_charset_says(
    server: Server, charset: str, encoding: str
) -> None:
    _, body, _ = completion("größer")
    kind = {"Content-Type": f"application/json; charset={charset}"}
    server.answers = [(200, json.dumps(body, ensure_ascii=False).encode(encoding), kind)]
    assert connect(server).reply(ASK).text == "größer"


@pytest.mark.parametrize("value", ["86400", "9" * 400, "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_a_long_retry_after_is_bounded_and_said(
    server: Server, pauses: list[float], value: str, caplog: pytest.LogCaptureFixture
) -> None:
    server.answers = [*[refusal(429, "slow down", {"Retry-After": value})] * 2, completion()]
    assert connect(server).reply(ASK).text == "here"
    assert pauses == [60.25, 60.25]
    assert caplog.text.count("s, rsvp waits 60 s at most") == 1


@pytest.mark.parametrize("extra", [{}, {"extra_body": {"response_format": {"type": "text"}}}])
def test_a_server_that_asks_for_ever_smaller_changes_is_given_up(
    server: Server, extra: dict[str, Any]
) -> None:
    def smaller(request: dict[str, Any]) -> Answer:
        words = f"max_tokens: at most {request['max_tokens'] - 1} tokens"
        return refusal(400, "response_format is unknown" if extra else words)

    server.answers = [smaller]
    with pytest.raises(MLLMFailed, match="HTTP 400"):
        connect(server, **extra).reply(ASK)
    assert len(server.requests) <= 20


def test_a_longer_error_than_anyone_reads(server: Server, caplog: Any) -> None:
    caplog.set_level(logging.DEBUG)
    words = "max_tokens must not exceed " + "9" * 5000 + "x" * 1_000_000
    server.answers = [refusal(400, words)]
    with pytest.raises(MLLMFailed) as error:
        connect(server).reply(ASK)
    assert len(str(error.value)) < 500


def test_a_fault_of_our_own_is_raised_at_once(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OpenAIMLLM, "_failure", lambda *_: 1 / 0)
    server.answers = [refusal(500, "no")]
    with pytest.raises(ZeroDivisionError):
        connect(server).reply(ASK)
