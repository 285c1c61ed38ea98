"""Every dialect of tests/families/server_dialects.py: replies, refusals, limits, thinking."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chat_server import KEY, Server, completion
from scripted import answer, picture
from server_dialects import DIALECTS, PROMPT, SSE, WRITTEN, Dialect, Refusal

from rsvp import registry
from rsvp.errors import BadInput, MLLMFailed
from rsvp.mllm.openai import OpenAIMLLM
from rsvp.mllm.refusals import lower_limit
from rsvp.pipeline import Pipeline
from rsvp.segmenters.box import BoxSegmenter
from rsvp.strategies.boxes import BoxesStrategy
from rsvp.types import Message, Usage

Connect = Callable[..., OpenAIMLLM]

SCHEMA = {"type": "object", "properties": {}, "additionalProperties": False}
ASK = [Message("user", (np.zeros((9, 9, 3), np.uint8), "Where is the cup?"))]
ANSWER = answer((100, 100, 600, 600), reason="一个杯子 — it is the cup")
dialects = pytest.mark.parametrize("dialect", DIALECTS, ids=lambda d: d.name)
refusals = pytest.mark.parametrize(
    ("dialect", "refusal"),
    [pytest.param(d, r, id=f"{d.name}-{r.drops or r.limit}") for d in DIALECTS for r in d.refusals],
)


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.http.shutdown()
    running.http.server_close()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    recorded: list[float] = []
    monkeypatch.setattr("rsvp.mllm.openai.sleep", recorded.append)
    monkeypatch.setattr("rsvp.mllm.openai.random", lambda: 0.5)
    return recorded


@pytest.fixture
def connect(server: Server, monkeypatch: pytest.MonkeyPatch, pauses: list[float]) -> Connect:
    """A backend for a dialect's own URL, whose host is resolved to the test's server."""
    assert pauses == []
    port = server.http.server_address[1]
    resolve = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda _, port, *more, **named: resolve("127.0.0.1", port, *more)
    )

    def made(dialect: Dialect, **options: Any) -> OpenAIMLLM:
        url = f"http://{dialect.host}:{port}{dialect.path}"
        return OpenAIMLLM("m", base_url=url, api_key=KEY, **options)

    return made


def segment(mllm: OpenAIMLLM) -> Any:
    pipeline = Pipeline(mllm, BoxesStrategy(), BoxSegmenter(), frame="0-1000")
    return pipeline.segment(picture(), "the cup")


@dialects
@pytest.mark.parametrize("stream", [True, False])
def test_a_reply(connect: Connect, server: Server, dialect: Dialect, stream: bool) -> None:
    server.answers = [dialect.stream(ANSWER) if stream else dialect.whole(ANSWER)]
    reply = connect(dialect, stream=stream).reply(ASK)
    assert (reply.text, reply.finish_reason) == (ANSWER, "stop")
    assert reply.usage == Usage(PROMPT, WRITTEN, 1)
    assert server.requests[0].get("stream", False) is stream


@dialects
def test_a_whole_reply_to_a_request_for_a_stream(
    connect: Connect, server: Server, dialect: Dialect
) -> None:
    server.answers = [dialect.whole(ANSWER)]
    assert connect(dialect).reply(ASK).text == ANSWER
    assert len(server.requests) == 1


@dialects
@pytest.mark.parametrize("stream", [True, False])
def test_a_thought_that_eats_all_tokens(
    connect: Connect, server: Server, dialect: Dialect, stream: bool
) -> None:
    send = dialect.stream if stream else dialect.whole
    server.answers = [send(None, "length", f"Maybe {answer((1, 2, 3, 4))}, but"), send(ANSWER)]
    result = segment(connect(dialect, stream=stream, max_tokens=WRITTEN))
    limits = [r.get("max_tokens") or r["max_completion_tokens"] for r in server.requests]
    assert limits == [WRITTEN, 2 * WRITTEN]
    assert server.requests[0]["messages"] == server.requests[1]["messages"]
    assert [t.box.xyxy for t in result.targets] == [(20.0, 10.0, 120.0, 60.0)]


@refusals
def test_a_refusal(
    connect: Connect,
    server: Server,
    caplog: pytest.LogCaptureFixture,
    dialect: Dialect,
    refusal: Refusal,
) -> None:
    server.answers = [(refusal.status, refusal.body, {}), dialect.whole(ANSWER)]
    mllm = connect(dialect, **refusal.sent)
    if refusal.drops == "max_tokens":  # Azure's host does not say which model is behind it
        assert "max_tokens" in mllm._request([], None, 8192, frozenset())
    with caplog.at_level(logging.WARNING):
        assert mllm.reply(ASK, schema=SCHEMA).text == ANSWER
        mllm.reply(ASK, schema=SCHEMA)
    first, second, third = server.requests
    assert {k: v for k, v in second.items() if k != "messages"} == {
        k: v for k, v in third.items() if k != "messages"
    }
    if refusal.limit is not None:
        assert (second.get("max_tokens") or second["max_completion_tokens"]) == refusal.limit
        return
    name = refusal.drops or ""
    asked = {**first, first["response_format"]["type"]: True}
    asked_again = {**second, second.get("response_format", {}).get("type", ""): True}
    assert name in asked
    assert name not in asked_again
    quiet = name in ("json_schema", "stream", "stream_options", "max_tokens")
    assert (f"refuses {name}" in caplog.text) is not quiet


@dialects
def test_a_model_without_eyes(
    connect: Connect, server: Server, pauses: list[float], dialect: Dialect
) -> None:
    status, body = dialect.no_images
    server.answers = [(status, body, {})]
    hint = r"model reads no images" if dialect.name != "openai" else "image_url is only supported"
    with pytest.raises(MLLMFailed, match=hint):
        connect(dialect).reply(ASK)
    assert len(server.requests) == 1
    assert pauses == []


@dialects
def test_a_busy_server(
    connect: Connect, server: Server, pauses: list[float], dialect: Dialect
) -> None:
    status, body, headers, seconds = dialect.busy
    server.answers = [(status, body, headers), dialect.stream(ANSWER)]
    assert connect(dialect).reply(ASK).text == ANSWER
    assert pauses == [0.25 + (seconds or 0.0)]


@dialects
def test_thinking_is_switched_off_and_bounded(
    connect: Connect, server: Server, dialect: Dialect
) -> None:
    server.answers = [dialect.stream(ANSWER)]
    connect(dialect, enable_thinking=False).reply(ASK)
    assert dialect.thinking_off.items() <= server.requests[-1].items()
    connect(dialect, reasoning_effort="low", extra_body='{"top_k": 1}').reply(ASK)
    assert {"reasoning_effort": "low", "top_k": 1}.items() <= server.requests[-1].items()
    connect(dialect).reply(ASK)
    plain = {"model", "messages", "temperature", "stream", "stream_options"}
    assert set(server.requests[-1]) - plain in ({"max_tokens"}, {"max_completion_tokens"})


@dialects
def test_an_error_in_the_middle_of_a_stream(
    connect: Connect, server: Server, pauses: list[float], dialect: Dialect
) -> None:
    _, body, _ = dialect.stream(ANSWER)
    start = body[: body.index(b"\n\n") + 2]
    broken = start + b'event: error\ndata: {"error": {"message": "overloaded", "code": 503}}\n\n'
    server.answers = [(200, broken, SSE), dialect.stream(ANSWER)]
    assert connect(dialect).reply(ASK).text == ANSWER
    refused = start + b'data: {"error": {"message": "invalid temperature", "code": "invalid"}}\n\n'
    server.requests.clear()
    server.answers = [(200, refused, SSE), dialect.stream(ANSWER)]
    assert connect(dialect).reply(ASK).text == ANSWER
    assert "temperature" not in server.requests[1]
    assert len(pauses) == 1


@dialects
def test_the_documentation_says_how_thinking_is_switched_off(dialect: Dialect) -> None:
    page = (Path(__file__).parents[2] / "docs" / "servers.md").read_text()
    assert json.dumps(dialect.thinking_off) in page


def test_azure_reads_the_key_from_its_own_header_and_the_version_from_the_url(
    connect: Connect, server: Server
) -> None:
    azure = next(d for d in DIALECTS if d.name == "azure")
    seen: list[tuple[str, str | None]] = []
    handler = server.http.RequestHandlerClass
    post = handler.do_POST  # type: ignore[attr-defined]
    handler.do_POST = lambda self: (seen.append((self.path, self.headers["api-key"])), post(self))  # type: ignore[attr-defined]
    server.answers = [azure.stream(ANSWER)]
    connect(azure).reply(ASK)
    path = "/openai/deployments/gpt/chat/completions?api-version=2025-01-01"
    assert seen == [(path, KEY)]


def test_a_spent_account_is_not_asked_again(connect: Connect, server: Server) -> None:
    body = {"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}}
    server.answers = [(429, body, {})]
    with pytest.raises(MLLMFailed, match="insufficient_quota"):
        connect(DIALECTS[0]).reply(ASK)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("finish", "thought", "text"),
    [
        ("stop", ANSWER, ANSWER),  # vllm-project/vllm#17609
        ("stop", f"Hm, {ANSWER}", ""),
        ("length", ANSWER, ""),
    ],
)
def test_an_answer_in_the_field_of_the_thought(
    connect: Connect, server: Server, finish: str, thought: str, text: str
) -> None:
    vllm = next(d for d in DIALECTS if d.name == "vllm")
    server.answers = [vllm.whole(None, finish, thought), vllm.stream(None, finish, thought)]
    for _ in range(2):
        assert connect(vllm).reply(ASK).text == text


def test_a_prompt_that_the_server_cut_is_named(
    connect: Connect, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    server.answers = [DIALECTS[6].stream(ANSWER)]
    mllm = connect(DIALECTS[6])
    with caplog.at_level(logging.WARNING):
        mllm.reply([Message("user", ("where is the cup? " * 350,))])  # some 1,750 tokens
        assert caplog.text == ""
        for _ in range(2):
            mllm.reply([Message("user", ("where is the cup? " * 2000,))])
    assert caplog.text.count("the prompt was cut") == 1
    assert "OLLAMA_CONTEXT_LENGTH" in caplog.text


def test_a_raised_limit_is_bounded_by_the_server(connect: Connect, server: Server) -> None:
    def qwen(request: dict[str, Any]) -> Any:
        limit = request["max_tokens"]
        if limit > 1500:
            message = "<400> InternalError.Algo.InvalidParameter: Range of max_tokens should be "
            return 400, {"error": {"message": f"{message}[1, 1500]"}}, {}
        status, body, headers = completion('{"targets": [', "length")
        return status, {**body, "usage": {"completion_tokens": limit}}, headers

    server.answers = [qwen]
    dialect = next(d for d in DIALECTS if d.name == "dashscope")
    for _ in range(2):
        with pytest.raises(MLLMFailed, match="cut at the token limit"):
            segment(connect(dialect, max_tokens=1000))
        assert [r["max_tokens"] for r in server.requests] == [1000, 2000, 1500]
        server.requests.clear()


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("expected a value <= 4096, but got 8192 instead for max_tokens", 4096),
        ("max_tokens must not exceed 4,096", 4096),
        ("max_tokens is too large: 8192", 4096),  # no number that can be used: half
        ("request (9000 tokens) exceeds the available context size (4096 tokens)", None),
        (
            "maximum context length is 8192 tokens, 8100 in the messages, 8192 in the completion",
            None,
        ),
        ("invalid temperature", None),
    ],
)
def test_token_limits_that_refusals_name(text: str, limit: int | None) -> None:
    assert lower_limit(text, 8192) == limit


@pytest.mark.parametrize("body", ["[1]", "no json", '{"messages": []}', '{"stream": false}'])
def test_an_extra_body_that_cannot_be_sent(body: str) -> None:
    with pytest.raises(BadInput, match="extra_body"):
        OpenAIMLLM("m", base_url="http://h/v1", extra_body=body)


def test_the_options_are_read_from_text() -> None:
    texts = {
        "timeout": "30", "temperature": "0.2", "stream": "false", "max_tokens": "100",
        "reasoning_effort": "low", "enable_thinking": "false", "extra_body": '{"top_k": 1}',
    }  # fmt: skip
    options = registry.parse_options("mllm", "openai", texts)
    assert options["extra_body"] == '{"top_k": 1}'
    assert (options["enable_thinking"], options["timeout"]) == (False, 30.0)
    OpenAIMLLM("m", base_url="http://h/v1", **options)
    fields = registry.options_model("mllm", "openai").model_fields
    assert (fields["timeout"].default, fields["stream"].default) == (600, True)
