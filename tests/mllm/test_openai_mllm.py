"""The openai backend: replies, errors, retries and keys, against a server on loopback."""

from __future__ import annotations

import base64
import email.utils
import io
import logging
import threading
import time
import traceback
from typing import Any

import numpy as np
import pytest
from chat_server import ASK, KEY, SCHEMA, Answer, Server, completion, connect, refusal
from PIL import Image as PilImage

from rsvp.errors import BadInput, MLLMFailed, ModelUnavailable
from rsvp.mllm import MLLM
from rsvp.mllm.openai import OpenAIMLLM
from rsvp.pipeline import Pipeline
from rsvp.segmenters.box import BoxSegmenter
from rsvp.strategies.boxes import BoxesStrategy
from rsvp.types import Message, Usage

pytestmark = pytest.mark.usefixtures("pauses")


def test_a_reply_with_usage(server: Server) -> None:
    mllm = connect(server)
    assert isinstance(mllm, MLLM)
    reply = mllm.reply(ASK)
    assert (reply.text, reply.finish_reason, reply.usage) == ("here", "stop", Usage(7, 3, 1))
    assert reply.confidence is None
    assert reply.seconds > 0
    assert server.authorization == [f"Bearer {KEY}"]
    sent = server.requests[0]
    assert sent["messages"][1] == {"role": "user", "content": "Where is the cat?"}
    assert (sent["model"], sent["max_tokens"], sent["temperature"]) == ("m", 8192, 0.0)
    assert "response_format" not in sent


def test_the_pipeline_encodes_while_the_server_reasons(server: Server) -> None:
    encoded = threading.Event()

    class Segmenter(BoxSegmenter):
        def encode(self, images: Any) -> Any:
            encoded.set()
            return super().encode(images)

    def answer(_: dict[str, Any]) -> Answer:
        waited = encoded.wait(20)
        return completion('{"targets": [], "reason": "none"}' if waited else "it did not")

    server.answers = [answer]
    pipeline = Pipeline(connect(server), BoxesStrategy(), Segmenter(), max_reasks=0)
    assert pipeline.segment(np.zeros((9, 9, 3), np.uint8), "the cat").no_target


def test_a_schema_is_sent_strict(server: Server) -> None:
    connect(server).reply(ASK, schema=SCHEMA)
    assert server.requests[0]["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "reply", "strict": True, "schema": SCHEMA},
    }


@pytest.mark.parametrize(("side", "kind"), [(1000, "png"), (1001, "jpeg")])
def test_images_are_sent_as_png_when_small_and_jpeg_when_large(
    server: Server, side: int, kind: str
) -> None:
    rgb = np.zeros((side, 1000, 3), np.uint8)
    rgb[:, 500:] = (200, 30, 90)
    connect(server).reply([Message("user", ("look: ", rgb, "well?"))])
    parts = server.requests[0]["messages"][0]["content"]
    assert [part["type"] for part in parts] == ["text", "image_url", "text"]
    head, _, data = parts[1]["image_url"]["url"].partition(",")
    assert head == f"data:image/{kind};base64"
    seen = np.asarray(PilImage.open(io.BytesIO(base64.b64decode(data))))
    assert np.abs(seen.astype(int) - rgb).max() <= (0 if kind == "png" else 8)


@pytest.mark.parametrize(
    ("header", "value", "pause"),
    [
        ("Retry-After", "3", 3.25),
        ("retry-after-ms", "1500", 1.75),
        ("Retry-After", "86400", 60.25),  # capped
        ("Retry-After", "soon", 0.25),  # unreadable: plain backoff
    ],
)
def test_429_waits_as_long_as_the_server_asks(
    server: Server, pauses: list[float], header: str, value: str, pause: float
) -> None:
    server.answers = [refusal(429, "slow down", {header: value}), completion()]
    assert connect(server).reply(ASK).text == "here"
    assert pauses == [pause]


def test_retry_after_may_be_a_date(server: Server, pauses: list[float]) -> None:
    date = email.utils.formatdate(time.time() + 20, usegmt=True)
    server.answers = [refusal(429, "slow down", {"Retry-After": date}), completion()]
    connect(server).reply(ASK)
    assert 15 < pauses[0] < 21


def test_500s_back_off_with_full_jitter_until_exhausted(
    server: Server, pauses: list[float]
) -> None:
    server.answers = [refusal(500, "boom\nat line 3")]
    with pytest.raises(MLLMFailed) as error:
        connect(server, max_retries=3).reply(ASK)
    assert pauses == [0.25, 0.5, 1.0]
    assert len(server.requests) == 4
    assert "HTTP 500: boom at line 3" in str(error.value)
    assert "after 4 attempts" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_permanent_errors_are_not_retried(server: Server, status: int) -> None:
    server.answers = [refusal(status, "no")]
    with pytest.raises(MLLMFailed, match=f"HTTP {status}: no"):
        connect(server).reply(ASK)
    assert len(server.requests) == 1


def test_a_page_that_is_not_json_is_retried_then_reported(server: Server) -> None:
    page = (200, b"<html>login</html>", {"Content-Type": "text/html"})
    server.answers = [page, completion()]
    assert connect(server).reply(ASK).text == "here"
    server.answers = [page]
    with pytest.raises(MLLMFailed, match=r"not JSON .*<html>login"):
        connect(server, max_retries=1).reply(ASK)


@pytest.mark.parametrize(
    "body",
    [
        {"choices": []},
        {"choices": None},
        {"choices": [None]},
        {"choices": [{"message": None}]},
        {"choices": {"0": 1}},
        {},
    ],
)
def test_no_choice_is_a_failure(server: Server, body: dict[str, Any]) -> None:
    server.answers = [(200, body, {})]
    with pytest.raises(MLLMFailed, match="no choice"):
        connect(server).reply(ASK)


@pytest.mark.parametrize("body", [[], "ok", 3, None])
def test_json_that_is_no_object_is_a_failure(server: Server, body: Any) -> None:
    server.answers = [(200, body, {})]
    with pytest.raises(MLLMFailed, match="no chat completion"):
        connect(server, max_retries=0).reply(ASK)


def test_an_error_under_status_200_counts_as_its_code(server: Server) -> None:
    server.answers = [(200, {"error": {"code": 429, "message": "busy"}}, {}), completion()]
    assert connect(server).reply(ASK).text == "here"
    server.answers = [(200, {"error": {"code": 402, "message": "pay first"}}, {})]
    with pytest.raises(MLLMFailed, match="HTTP 402: pay first"):
        connect(server).reply(ASK)


def test_a_silent_server_times_out(server: Server) -> None:
    def slow(_: dict[str, Any]) -> Answer:
        time.sleep(0.5)
        return completion()

    server.answers = [slow]
    with pytest.raises(
        MLLMFailed, match=r"within 0\.1 s; raise --option timeout.* .after 2 attempts"
    ):
        connect(server, timeout=0.1, max_retries=1).reply(ASK)


def test_a_closed_port(server: Server, pauses: list[float]) -> None:
    server.http.server_close()
    mllm = connect(server, max_retries=2)
    server.http.shutdown()
    with pytest.raises(MLLMFailed, match=r"cannot connect .*after 3 attempts"):
        mllm.reply(ASK)
    assert pauses == [0.25, 0.5]


def test_a_truncated_reply_is_kept(server: Server) -> None:
    server.answers = [completion('{"steps": [', finish="length")]
    reply = connect(server).reply(ASK, schema=SCHEMA)
    assert (reply.text, reply.finish_reason) == ('{"steps": [', "length")


@pytest.mark.parametrize(
    ("answer", "text", "finish"),
    [
        (completion(None, refusal="I can't help."), "I can't help.", "refusal"),
        (completion(None, "content_filter"), "", "content_filter"),
        (completion([{"type": "text", "text": "a"}, {"type": "x"}, "b"]), "ab", "stop"),
        (completion(5), "", "stop"),
    ],
)
def test_contents_of_every_shape(server: Server, answer: Answer, text: str, finish: str) -> None:
    server.answers = [answer]
    reply = connect(server).reply(ASK)
    assert (reply.text, reply.finish_reason) == (text, finish)


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": None}, "none", []])
def test_missing_usage_is_zero(server: Server, usage: Any) -> None:
    status, body, headers = completion()
    server.answers = [(status, {**body, "usage": usage}, headers)]
    assert connect(server).reply(ASK).usage == Usage(0, 0, 1)


@pytest.mark.parametrize("status", [400, 401, 500, 200])
def test_a_key_that_the_server_echoes_is_hidden(
    server: Server, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    body = f"bad key {KEY}".encode() if status == 200 else {"error": {"message": f"bad key {KEY}"}}
    server.answers = [(status, body, {})]
    mllm = connect(server, max_retries=1)
    with pytest.raises(MLLMFailed) as error:
        mllm.reply(ASK)
    whole = "".join(traceback.TracebackException.from_exception(error.value).format())
    assert "bad key ***" in whole
    assert error.value.__context__ is None
    for text in (whole, repr(mllm), caplog.text, repr(error.value.args)):
        assert KEY not in text


def test_a_password_in_the_url_is_not_shown(server: Server) -> None:
    url = server.url.replace("http://", "http://me:hunter22@") + "?token=hidden"
    server.answers = [refusal(404, "nothing at hunter22")]
    mllm = OpenAIMLLM("m", base_url=url)
    with pytest.raises(MLLMFailed) as error:
        mllm.reply(ASK)
    for text in (str(error.value), repr(mllm)):
        assert "hunter22" not in text
        assert "hidden" not in text


def test_openai_itself_needs_a_key_and_other_servers_do_not(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ModelUnavailable, match="OPENAI_API_KEY"):
        OpenAIMLLM("gpt-5.1")
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    assert OpenAIMLLM("m").reply(ASK).text == "here"
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    OpenAIMLLM("m").reply(ASK)
    OpenAIMLLM("m", api_key="other-key").reply(ASK)
    assert server.authorization == ["Bearer no-key", f"Bearer {KEY}", "Bearer other-key"]


def test_openai_itself_gets_max_completion_tokens() -> None:
    request = OpenAIMLLM("gpt-5.1", api_key=KEY)._request([], SCHEMA, 8192, frozenset())
    assert "max_completion_tokens" in request
    assert "max_tokens" not in request


@pytest.mark.parametrize("url", ["localhost:8000/v1", "ftp://host/v1", "http://", "no url"])
def test_a_url_that_is_none_is_bad_input(url: str) -> None:
    with pytest.raises(BadInput, match="a base URL is like"):
        OpenAIMLLM("m", base_url=url)


@pytest.mark.parametrize("key", ["sk-…", "two words", "a\nb", "a\x01b", "a\x7fb"])
def test_a_key_that_no_header_can_carry_is_refused_and_hidden(key: str) -> None:
    with pytest.raises(BadInput) as error:
        OpenAIMLLM("m", api_key=key)
    assert key not in str(error.value)


def test_lone_surrogates_are_replaced(server: Server) -> None:
    connect(server).reply([Message("user", ("caf\udce9?",))])
    assert server.requests[0]["messages"][0]["content"] == "caf??"
