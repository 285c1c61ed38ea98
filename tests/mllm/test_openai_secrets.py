"""Keys and passwords: what the openai backend sends, and that nothing it says holds them."""

from __future__ import annotations

import base64
import json
import logging
import traceback
from typing import Any
from urllib.parse import quote

import pytest
from chat_server import ASK, KEY, Answer, Server, completion, connect

from rsvp.errors import BadInput
from rsvp.mllm import listening
from rsvp.mllm.endpoint import shown_url
from rsvp.mllm.openai import OpenAIMLLM

pytestmark = pytest.mark.usefixtures("pauses")

PASSWORD = "S+E/C=R&E%T"
BASIC = base64.b64encode(f"me:{PASSWORD}".encode()).decode()


def guarded(server: Server, **options: Any) -> OpenAIMLLM:
    """A backend whose URL holds a user, a password and a token."""
    url = server.url.replace("http://", f"http://me:{quote(PASSWORD, safe='')}@")
    return OpenAIMLLM("m", base_url=f"{url}?token=very-hidden-1", api_key=KEY, **options)


def test_the_urls_password_opens_the_server(server: Server) -> None:
    assert guarded(server).reply(ASK).text == "here"
    assert server.authorization == [f"Basic {BASIC}"]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    "secret", [KEY, PASSWORD, quote(PASSWORD, safe=""), BASIC, "very-hidden-1"]
)
def test_a_secret_in_a_reply_is_hidden(server: Server, secret: str, stream: bool) -> None:
    event = {"choices": [{"delta": {"content": f"a {secret} b"}, "finish_reason": "stop"}]}
    pieces: Answer = 200, f"data: {json.dumps(event)}\n\n".encode(), {"Content-Type": "text/event"}
    server.answers = [pieces if stream else completion(f"a {secret} b", finish=secret)]
    reply = guarded(server, stream=stream).reply(ASK)
    assert reply.text == "a *** b"
    assert secret not in reply.finish_reason


def test_a_secret_in_two_pieces_of_a_stream_is_hidden(server: Server) -> None:
    pieces = [(KEY[:9], None), (KEY[9:], "stop")]
    events = [{"choices": [{"delta": {"content": c}, "finish_reason": f}]} for c, f in pieces]
    body = "".join(f"data: {json.dumps(event)}\n\n" for event in events).encode()
    server.answers = [(200, body, {"Content-Type": "text/event-stream"})]
    heard: list[str] = []
    with listening(heard.append):
        assert connect(server).reply(ASK).text == "***"
    assert heard == [""]  # of the first piece


@pytest.mark.parametrize("key", ["none", "EMPTY", "ollama"])
def test_a_key_that_is_a_word_changes_no_reply(server: Server, key: str) -> None:
    server.answers = [completion(f"it is {key} of them")]
    assert connect(server, api_key=key).reply(ASK).text == f"it is {key} of them"


@pytest.mark.parametrize(
    "answer",
    [
        (404, {"error": {"message": f"{KEY} {PASSWORD} {BASIC} very-hidden-1"}}, {}),
        (200, b"<p>", {"Content-Type": f"text/{KEY}+html"}),
        (307, b"", {"Location": f"http://me:{quote(PASSWORD, safe='')}@127.0.0.9/{KEY}"}),
        (200, b"data: 7\n\n", {"Content-Type": f"text/event; {KEY}"}),
        completion("here"),
    ],
)
def test_no_secret_is_logged_or_in_an_error(
    server: Server, answer: Answer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server.answers = [answer]
    mllm = guarded(server, max_retries=0)
    said = [repr(mllm), mllm.base_url]
    try:
        mllm.reply(ASK)
    except Exception as error:
        said += traceback.format_exception(error)
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("rsvp")]
    theirs = [record.getMessage() for record in caplog.records]
    for secret in (KEY, PASSWORD, quote(PASSWORD, safe=""), BASIC, "very-hidden-1"):
        assert secret not in "\n".join(said + ours)
    for secret in (PASSWORD, quote(PASSWORD, safe="")):
        assert secret not in "\n".join(theirs) or answer[0] == 307  # the server's own Location


@pytest.mark.parametrize(
    "url",
    [
        "user:SECRET@host",
        "user:SECRET@host/v1",
        "http://user:SECRET@",
        "http://user:SECRET@[::1/v1",
        "http://user:SECRET@ho\u2100st/v1",
        "http://user:SEC/SECRET@host/v1",
        "http://user:1/SECRET@host/v1",
        "http://user:SEC?SECRET@host/v1",
        "http://user:1#SECRET@host/v1",
        "http://user:SECRET@host:port/v1",
        "ftp://user:SECRET@host/v1",
        "http//user:SECRET@host",
        "http://user:SECRET@host/v1?key=SECRET x",
        "SECRET://user:SECRET@host",
        "user:SECRET@http://host",
    ],
)
def test_a_broken_url_is_refused_without_its_password(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    with pytest.raises(BadInput, match="a base URL is like") as error:
        OpenAIMLLM("m", api_key=KEY)
    shown = "".join(traceback.format_exception(error.value))
    assert "SECRET" not in shown.replace("SECRET://", "")
    assert "SECRET" not in shown_url(url).replace("SECRET://", "")
