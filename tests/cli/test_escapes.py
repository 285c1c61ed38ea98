"""What a command prints and writes holds no key and nothing that steers a terminal."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from chat_server import KEY, Server, completion
from scripted_cli import ASK, BOX, cup

from rsvp import presets
from rsvp.cli import console, options
from rsvp.cli.main import main
from rsvp.errors import printable

Captured = pytest.CaptureFixture[str]
EVIL = "a\x1b[2J\x07\u202eb\r"


def steers(text: str) -> bool:
    return any(c in text for c in "\x1b\x07\x7f\u202e\r\x00")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31m\x00\x7f\x9b", r"\x1b[31m\x00\x7f\x9b"),
        ("a\u202eb\u2066c\u200bd\u2028", r"a\u202eb\u2066c\u200bd\u2028"),
        ("caf\udce9", r"caf\udce9"),
        ("a\nb\tc", "a\nb\tc"),
        ("می\u200cخواهم 👩\u200d🚀 　杯子\u00a0☕", "می\u200cخواهم 👩\u200d🚀 　杯子\u00a0☕"),
    ],
)
def test_only_what_steers_or_hides_becomes_an_escape(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(shown) == shown


@pytest.mark.parametrize(
    "words",
    [
        ["segment", "--image", EVIL, "--query", "x"],
        ["segment", "--image", "a.png", "--query", "x", "--preset", EVIL],
        ["segment", "--image", "a.png", "--query", "x", "--option", EVIL],
        [*BOX, "--query", "x", "--box", "1,1,9,9", "--out", EVIL],
        [*BOX, "--query", EVIL, "--box", EVIL, "--debug"],
        ["eval", "scenes", "--data", EVIL, "--out", "R"],
        ["export", EVIL, "--format", "coco", "--out", EVIL],
        ["score", EVIL, "--data", EVIL, "--predictions", EVIL],
        ["train", "--data", EVIL, "--out", "T"],
        ["models", "--options", EVIL],
        [EVIL],
        cup("noise", "--debug"),
        cup("cup", "--out", EVIL),
    ],
    ids=str,
)
def test_paths_and_replies_are_escaped(words: list[str], capsys: Captured) -> None:
    main(words)
    out, err = capsys.readouterr()
    assert out + err
    assert not steers(out + err)


def test_the_reply_is_shown_with_escapes(capsys: Captured) -> None:
    assert main(cup("noise", "--debug")) == 3
    assert "the reply was:\nhello \\x07 there" in capsys.readouterr().err
    assert main(cup("bug", "--debug")) == 1
    assert "ZeroDivisionError: of all\nthings" in capsys.readouterr().err


def test_json_holds_no_control_character(capsys: Captured) -> None:
    console.as_json({"a": "\x7f\x1b\u202e"})
    out = capsys.readouterr().out
    assert not steers(out)
    assert json.loads(out) == {"a": "\x7f\x1b\u202e"}


def test_warnings_are_escaped(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    options.begin()
    logging.getLogger("rsvp.test").warning("the server says %s", EVIL)
    assert r"the server says a\x1b[2J\x07\u202eb\r" in capsys.readouterr().err


@pytest.fixture
def echo(monkeypatch: pytest.MonkeyPatch) -> Server:
    """The server of the environment's URL and key."""
    server = Server()
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    return server


TARGET = {"label": f"cup {KEY}", "box": [100, 200, 500, 800]}
ANSWER = {"steps": [{"text": f"{KEY}?", "boxes": []}], "targets": [TARGET], "reason": f"as {KEY}"}


@pytest.mark.parametrize("text", [json.dumps(ANSWER), f"no JSON, {KEY}"])
def test_an_echoed_key_is_written_and_printed_nowhere(
    echo: Server, here: Path, text: str, capsys: Captured
) -> None:
    echo.answers = [completion(text)]
    code = main([*ASK, "--mllm", "openai:m", "--out", "R", "--debug", "--verbose"])
    shown = "".join(capsys.readouterr())
    files = [path.read_bytes() for path in here.rglob("*") if path.is_file()]
    assert code == (0 if "{" in text else 3)
    assert "***" in shown
    assert KEY not in shown
    assert not any(KEY.encode() in content for content in files)


@pytest.mark.parametrize("url", ["user:SECRET@host", "http://u:SECRET@[::1", "http://u:SECRET@h/v"])
@pytest.mark.parametrize("words", [[*ASK, "--mllm", "openai:m"], [*ASK, "--preset", "auto"]])
def test_the_urls_password_is_never_printed(
    words: list[str], url: str, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    monkeypatch.setenv(presets.API_MODEL, "m")
    main([*words, "--option", "max_retries=0", "--debug", "--verbose"])
    assert "SECRET" not in "".join(capsys.readouterr())
