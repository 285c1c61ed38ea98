"""A server on loopback that sends whatever bytes a test chooses, whole or in pieces."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Callable, Iterable, Iterator


def read_request(connection: socket.socket) -> tuple[str, bytes]:
    """The head and the body of a request; empty ones where the connection was closed."""
    received = b""
    while b"\r\n\r\n" not in received:
        chunk = connection.recv(65536)
        if not chunk:
            return "", b""
        received += chunk
    head, _, body = received.partition(b"\r\n\r\n")
    found = re.search(rb"content-length: (\d+)", head.lower())
    while len(body) < int(found[1] if found else 0):
        body += connection.recv(65536)
    return head.decode("latin-1"), body


class RawServer:
    """Sends the bytes that `answer` makes of a request's body, then closes the connection.

    Attributes:
        url: its base URL.
        heads: of the requests so far.
    """

    def __init__(self, answer: Callable[[bytes], Iterable[bytes]]) -> None:
        self.answer, self.heads = answer, list[str]()
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/v1"
        threading.Thread(target=self._run, daemon=True).start()

    def close(self) -> None:
        self._socket.close()

    def _run(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                connection, _ = self._socket.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):  # the client has gone
            head, body = read_request(connection)
            self.heads.append(head)
            for chunk in self.answer(body):
                connection.sendall(chunk)
            connection.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def raw_server(answer: Callable[[bytes], Iterable[bytes]]) -> Iterator[RawServer]:
    """A `RawServer` inside `with`."""
    server = RawServer(answer)
    try:
        yield server
    finally:
        server.close()


def response(
    body: bytes, status: str = "200 OK", kind: str = "application/json", *headers: str
) -> bytes:
    """The bytes of an HTTP response."""
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, *headers, "", ""]).encode("latin-1") + body
