"""`rsvp eval` where the server refuses every request, or the disk is full."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from chat_server import Server, completion, refusal
from rectangles import write_scenes

from rsvp.cli.main import main

REPLY = '{"targets": [], "reason": "nothing fits"}'
FLAGGED = "Your chosen model requires moderation and your input was flagged"  # OpenRouter's 403


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    running = Server()
    monkeypatch.setenv("OPENAI_BASE_URL", running.url)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    yield running
    running.http.shutdown()
    running.http.server_close()


def command(tmp_path: Path, *more: str) -> list[str]:
    data, out = tmp_path / "data", tmp_path / "out"
    write_scenes(data, 15)
    models = ["--mllm", "openai:m", "--segmenter", "box", "--option", "max_retries=0"]
    return ["eval", "scenes", "--data", str(data), "--out", str(out), *models, *more]


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_ends_the_run_at_once(tmp_path, server: Server, status, capsys) -> None:
    server.answers = [*[completion(REPLY)] * 5, refusal(status, "no access")]
    words = command(tmp_path, "--concurrency", "1")
    assert main(words) == 3
    assert len(server.requests) <= 5 + 3
    assert capsys.readouterr().err.count("\n") == 1
    assert (tmp_path / "out" / "records.jsonl").read_bytes().count(b"\n") == 5
    server.answers = [completion(REPLY)]
    assert main([*words, "--resume"]) == 0


def test_a_refused_content_concerns_one_sample(tmp_path, server: Server, capsys) -> None:
    server.answers = [refusal(403, FLAGGED), completion(REPLY)]
    assert main(command(tmp_path, "--concurrency", "1")) == 0
    assert len(server.requests) == 15
    assert "1 failed" in capsys.readouterr().out


def test_every_sample_failed(tmp_path, server: Server, capsys) -> None:
    server.answers = [refusal(500, "the GPU fell off")]
    assert main(command(tmp_path, "--json")) == 3
    said = capsys.readouterr()
    assert said.out == ""
    assert "all 15 samples failed: openai:m at " in said.err
    assert "HTTP 500: the GPU fell off" in said.err
    assert "--retry-failed" in said.err


def limit_files(size: int) -> None:
    """A file of more bytes cannot be written, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.parametrize("size", [0, 6_000, 15_000])
def test_a_full_disk(tmp_path, server: Server, size) -> None:
    """No place for the configuration, for a record, for the report."""
    server.answers = [completion(REPLY)]
    words = [sys.executable, "-m", "rsvp", *command(tmp_path)]
    done = subprocess.run(
        words, preexec_fn=lambda: limit_files(size), capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    *_, line = done.stderr.splitlines()
    assert line.startswith("error: cannot write ")
    assert line.endswith(": File too large")
    assert main([*words[3:], "--resume"]) == 0
