"""Parameters that a server refuses, and streamed replies."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from chat_server import ASK, SCHEMA, Answer, Server, completion, connect, refusal

from rsvp.errors import MLLMFailed
from rsvp.mllm import listening
from rsvp.types import Message, Usage

pytestmark = pytest.mark.usefixtures("pauses")


class Picky:
    """A server that refuses some parameters with error texts of real ones."""

    def __init__(self, **refusals: str) -> None:
        self.refusals = refusals

    def __call__(self, request: dict[str, Any]) -> Answer:
        kind = request.get("response_format", {}).get("type", "none")
        for name, words in self.refusals.items():
            if name in request or name == kind:
                return refusal(400, words)
        return completion()


OPENAI_TOKENS = (
    "Unsupported parameter: 'max_tokens' is not supported with this model. "
    "Use 'max_completion_tokens' instead."
)
OPENAI_TEMPERATURE = (
    "Unsupported value: 'temperature' does not support 0.0 with this model. "
    "Only the default (1) value is supported."
)


@pytest.mark.parametrize(
    ("picky", "present", "absent"),
    [
        (Picky(json_schema="response_format is unsupported"), {"json_object"}, set()),
        (Picky(json_schema="Invalid schema: prefixItems", json_object="unsupported"), set(), {"f"}),
        (Picky(max_tokens=OPENAI_TOKENS), {"max_completion_tokens"}, {"max_tokens"}),
        (Picky(temperature=OPENAI_TEMPERATURE), {"json_schema"}, {"temperature"}),
        (
            Picky(max_tokens=OPENAI_TOKENS, temperature=OPENAI_TEMPERATURE, json_schema="schema?"),
            {"max_completion_tokens", "json_object"},
            {"max_tokens", "temperature"},
        ),
    ],
)
def test_a_refused_parameter_is_left_out_from_then_on(
    server: Server, pauses: list[float], picky: Picky, present: set[str], absent: set[str]
) -> None:
    server.answers = [picky]
    mllm = connect(server)
    assert mllm.reply(ASK, schema=SCHEMA).text == "here"
    count = len(server.requests)
    assert mllm.reply(ASK, schema=SCHEMA).text == "here"
    assert len(server.requests) == count + 1
    last = server.requests[-1]
    words = set(last) | {last.get("response_format", {}).get("type")}
    assert present <= words
    assert not absent & words
    assert ("f" in absent) == ("response_format" not in last)
    assert pauses == []


def test_a_refusal_of_something_else_drops_nothing_for_later(server: Server) -> None:
    server.answers = [refusal(400, "this content is unsupported")]
    mllm = connect(server)
    with pytest.raises(MLLMFailed, match="this content is unsupported"):
        mllm.reply(ASK, schema=SCHEMA)
    assert len(server.requests) == 3  # json_schema, json_object, none
    server.answers = [completion()]
    mllm.reply(ASK, schema=SCHEMA)
    assert server.requests[-1]["response_format"]["type"] == "json_schema"


def test_an_error_about_a_long_prompt_does_not_drop_the_token_limit(server: Server) -> None:
    words = "maximum context length is 4096 tokens, you asked for 4100 in the prompt"
    server.answers = [refusal(400, words)]
    with pytest.raises(MLLMFailed, match="maximum context"):
        connect(server).reply(ASK)
    assert len(server.requests) == 1


def test_threads_share_one_backend(server: Server) -> None:
    """Each thread retries on its own, and what one learns of the server serves the others."""
    lock, failed = threading.Lock(), set()
    picky = Picky(temperature=OPENAI_TEMPERATURE)

    def answer(request: dict[str, Any]) -> Answer:
        question = request["messages"][0]["content"]
        with lock:
            first, _ = question not in failed, failed.add(question)
        if first:
            return refusal(503, "busy")
        answered = picky(request)
        return completion(question) if answered[0] == 200 else answered

    server.answers = [answer]
    mllm = connect(server)
    questions = [f"question {number}" for number in range(16)]
    with ThreadPoolExecutor(8) as threads:
        replies = list(threads.map(lambda q: mllm.reply([Message("user", (q,))]).text, questions))
    assert replies == questions
    count = len(server.requests)
    mllm.reply([Message("user", (questions[0],))])
    assert len(server.requests) == count + 1


def stream(*events: Any, end: str = "data: [DONE]\n\n") -> Answer:
    lines = [e if isinstance(e, str) else f"data: {json.dumps(e)}\n\n" for e in events]
    return 200, ("".join(lines) + end).encode(), {"Content-Type": "text/event-stream"}


def piece(finish: str | None = None, **delta: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


WHOLE = (
    piece(role="assistant", content=""),
    piece(content="he"),
    piece(content="re 猫"),
    piece("stop"),
    {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3}},
)


def test_a_streamed_reply_equals_a_whole_one(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answers = [stream(*WHOLE)]
    monkeypatch.setattr("rsvp.mllm._PAUSE", 0.0)
    heard: list[str] = []
    with listening(heard.append):
        reply = connect(server, stream=True).reply(ASK)
    assert (reply.text, reply.finish_reason) == ("here 猫", "stop")
    assert heard == ["", "he", "here 猫", "here 猫", "here 猫"]
    connect(server, stream=True).reply(ASK)
    assert len(heard) == 5  # nobody listens
    assert reply.usage == Usage(7, 3, 1)
    assert server.requests[0]["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize(
    "broken",
    [
        stream(*WHOLE[:3]),
        stream(*WHOLE[:3], "data: {not json\n\n"),
        stream(*WHOLE[:3], {"error": {"message": "overloaded"}}),
        (200, b"<html>login</html>", {"Content-Type": "text/html"}),
    ],
)
def test_a_broken_stream_is_retried(server: Server, pauses: list[float], broken: Answer) -> None:
    server.answers = [broken, stream(*WHOLE)]
    assert connect(server, stream=True).reply(ASK).text == "here 猫"
    assert pauses == [0.25]
    server.answers = [broken]
    with pytest.raises(MLLMFailed, match="after 2 attempts") as error:
        connect(server, stream=True, max_retries=1).reply(ASK)
    assert "\n" not in str(error.value)


def test_a_server_without_stream_options(server: Server) -> None:
    picky = Picky(stream_options="Unrecognized request argument: stream_options")
    server.answers = [lambda r: picky(r) if "stream_options" in r else stream(*WHOLE[:4])]
    reply = connect(server, stream=True).reply(ASK)
    assert (reply.text, reply.usage) == ("here 猫", Usage(0, 0, 1))
