"""`rsvp serve` as a process: a real server on loopback, signals, and what it refuses to start."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator

import pytest
from served import IMAGE, PNG

from rsvp.cli import settings
from rsvp.cli.main import main
from rsvp.pipeline import Pipeline
from rsvp.platform import extras
from rsvp.segmenters.box import BoxSegmenter

BOXES = {"image": IMAGE, "query": "cup", "boxes": [[10, 10, 50, 60]]}
OFFLINE = ["--mllm", "none", "--segmenter", "box"]


@contextlib.contextmanager
def serving(*options: str, command: str = "serve") -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The server and its URL."""
    words = [sys.executable, "-m", "rsvp", command, "--port", "0", *OFFLINE, *options]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        found = re.search(r"http://\S+", line := process.stderr.readline())
        assert found, line
        yield process, found[0]
    finally:
        process.kill()
        process.communicate()


def post(url: str, body: dict) -> dict:
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/v1/segment", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.loads(response.read())


def test_a_real_server_answers_and_ends_with_sigterm() -> None:
    with serving() as (process, url):
        found = post(url, BOXES)
        expected = Pipeline(None, None, BoxSegmenter()).segment(PNG, "cup", [[10, 10, 50, 60]])
        assert found["targets"] == expected.to_dict()["targets"]
        half_closed = socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])))
        head = "POST /v1/segment HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n"
        half_closed.sendall(f"{head}Content-Type: application/json\r\n\r\n{{".encode())
        half_closed.shutdown(socket.SHUT_WR)
        assert half_closed.recv(1) == b""
        assert post(url, BOXES)["targets"] == found["targets"]
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=30)
    assert process.returncode == 0
    assert [json.loads(line)["status"] for line in log.splitlines()] == [200, 408, 200]


def test_the_demo_is_a_page_for_boxes_where_there_is_no_mllm() -> None:
    with serving(command="demo") as (_, url):
        with urllib.request.urlopen(url, timeout=30) as response:
            assert b'<script type="module" src="page.js">' in response.read()
        with urllib.request.urlopen(f"{url}/v1/pipeline", timeout=30) as response:
            served = json.loads(response.read())
        assert (served["tasks"], served["strategies"], served["examples"]) == (["segment"], [], [])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--host", "0.0.0.0"], "--token-file"),
        (["--host", "::"], "--token-file"),
        (["--token-file", os.devnull], "holds no token"),
        (["--token-file", "missing.txt"], "no such file"),
        (["--label-studio", "ftp://x"], "--label-studio"),
    ],
)
def test_what_cannot_be_served_is_one_line(capsys, options, words) -> None:
    assert main(["serve", "--port", "0", *OFFLINE, *options]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "running"),
    [
        (OFFLINE, 8),
        ([*OFFLINE, "--concurrency", "3"], 3),
        (["--mllm", "transformers:embedded", "--segmenter", "box"], 1),
    ],
)
def test_requests_run_at_once_unless_the_mllm_is_local(monkeypatch, options, running) -> None:
    limits = []
    monkeypatch.setattr("rsvp.serving.app.make_app", lambda _, some, **__: limits.append(some))
    monkeypatch.setattr("rsvp.cli.serve._run", lambda *_: None)
    main(["serve", "--port", "0", *options])
    assert limits[0].running == running


def test_a_port_in_use_is_one_line(capsys) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        assert main(["serve", "--port", port, *OFFLINE]) == 2
    assert f"cannot listen at 127.0.0.1:{port}" in capsys.readouterr().err


def test_a_missing_extra_is_named(monkeypatch, capsys) -> None:
    def missing(name: str):
        raise ImportError(name)

    monkeypatch.setattr(extras.importlib, "import_module", missing)
    assert main(["serve", *OFFLINE]) == 4
    assert "pip install 'rsvp-segmentation[serve]'" in capsys.readouterr().err


def test_doctor_shows_no_token() -> None:
    assert [*settings.in_force({"RSVP_TOKEN": "s3cret"})] == [("RSVP_TOKEN", "(set)", "")]
