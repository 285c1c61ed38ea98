"""A chat-completions server, and no pauses between retries."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from chat_server import Server


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.http.shutdown()
    running.http.server_close()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The backend's pauses in seconds, recorded instead of made; jitter is always a half."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    recorded: list[float] = []
    monkeypatch.setattr("rsvp.mllm.openai.sleep", recorded.append)
    monkeypatch.setattr("rsvp.mllm.openai.random", lambda: 0.5)
    return recorded
