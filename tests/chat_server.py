"""A chat-completions server on loopback whose answers a test chooses, and a backend for it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from rsvp.mllm.openai import OpenAIMLLM
from rsvp.types import Message

KEY = "sk-very-secret-1234567890"
ASK = [Message("system", ("Be brief.",)), Message("user", ("Where is the cat?",))]
SCHEMA = {"type": "object", "properties": {"reason": {"type": "string"}}}

Answer = tuple[int, Any, dict[str, str]]


def completion(content: Any = "here", finish: str = "stop", **message: Any) -> Answer:
    choice = {"message": {"role": "assistant", "content": content, **message}}
    body = {
        "choices": [{**choice, "finish_reason": finish}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3},
    }
    return 200, body, {}


def refusal(status: int, text: str, headers: dict[str, str] | None = None, **more: Any) -> Answer:
    return status, {"error": {"message": text, **more}}, headers or {}


class Server:
    """Answers with `answers` in order, then repeats the last; a callable sees the request first."""

    def __init__(self) -> None:
        self.answers: list[Answer | Callable[[dict[str, Any]], Answer]] = [completion()]
        self.requests: list[dict[str, Any]] = []
        self.authorization: list[str] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                size = int(self.headers["Content-Length"])
                server.requests.append(json.loads(self.rfile.read(size)))
                server.authorization.append(self.headers["Authorization"])
                at = min(len(server.requests), len(server.answers)) - 1
                answer = server.answers[at]
                status, body, headers = answer(server.requests[-1]) if callable(answer) else answer
                raw = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", **headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, *args: Any) -> None:
                """Keep the test's output clean."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()


def connect(server: Server, **options: Any) -> OpenAIMLLM:
    return OpenAIMLLM("m", base_url=server.url, **{"api_key": KEY, **options})
