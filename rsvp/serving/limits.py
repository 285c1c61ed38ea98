"""What the server refuses before it does any work: who may ask, how much, and for how long."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import ipaddress
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rsvp import errors
from rsvp.errors import BadInput, RsvpError
from rsvp.serving.metrics import Metrics

PAGE = {"/": "index.html", "/page.css": "page.css", "/page.js": "page.js"}
OPEN_PATHS = ("/health", *PAGE)  # need no token: the page asks for it
_HELD = 8  # bodies of the largest size that are held in memory at once
_MAX_LOGGED = 200  # characters of a path

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ServeLimits:
    """How much a request may take.

    Attributes:
        bytes: of a request's body.
        pixels: of its image.
        seconds: from the whole body to the result, waiting included.
        body_seconds: until the whole body has arrived.
        waiting: requests that wait while others run; one more is refused (503).
        running: requests that run at once.
    """

    bytes: int = 32 << 20
    pixels: int = 50_000_000
    seconds: float = 120.0
    body_seconds: float = 60.0
    waiting: int = 32
    running: int = 1


class RequestRefused(RsvpError):
    """The request is refused before a model is asked.

    Attributes:
        status: of the HTTP response.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


# The first row whose class an error has says its HTTP status.
_STATUS: tuple[tuple[type[RsvpError], int], ...] = (
    (BadInput, 422),
    (errors.BudgetExceeded, 429),
    (errors.MLLMFailed, 502),
    (RsvpError, 503),
)


def status_of(error: RsvpError) -> int:
    """The HTTP status that stands for an error."""
    if isinstance(error, RequestRefused):
        return error.status
    return next(status for kind, status in _STATUS if isinstance(error, kind))


def error_response(error: RsvpError) -> JSONResponse:
    """``{"error": {"type", "message"}}`` with its status."""
    status = status_of(error)
    headers = {"Retry-After": "2"} if status == 503 else {}
    if status == 401:
        headers["WWW-Authenticate"] = 'Basic realm="rsvp", charset="UTF-8"'
    fault = {"type": type(error).__name__, "message": errors.one_line(error)}
    return JSONResponse({"error": fault}, status, headers)


def unexpected(error: Exception) -> JSONResponse:
    """The response to a fault of ours; its cause stands in the log alone."""
    fault = {"type": type(error).__name__, "message": "unexpected error, see the server's log"}
    return JSONResponse({"error": fault}, 500)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Guard:
    """ASGI middleware: token, origin, size and time of the body; counts and logs every request.

    Args:
        token: what every request must bring, but for `OPEN_PATHS`; empty for none. Without one
            only this machine's names are taken as `Host`, so that a page of another site cannot
            reach a server on loopback under a name of its own (DNS rebinding).
        is_full: whether no more work is taken.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        limits: ServeLimits,
        token: str,
        metrics: Metrics,
        is_full: Callable[[], bool],
    ) -> None:
        self.app, self.limits, self.metrics = app, limits, metrics
        self._token, self._is_full = token.encode(), is_full
        self._held = 0  # bytes of the bodies of all requests under way

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, body = time.perf_counter(), _Body(self, receive)
        status = 500

        async def observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            self._check(scope)
            await self.app(scope, body.receive, observed)
        except RequestRefused as refused:
            await error_response(refused)(scope, receive, observed)
        finally:
            self._held -= body.bytes
            seconds = time.perf_counter() - started
            self.metrics.add(scope["path"], status, seconds)
            log_event(
                method=scope["method"],
                path=scope["path"][:_MAX_LOGGED],
                status=status,
                seconds=round(seconds, 4),
                bytes=body.bytes,
            )

    def _check(self, scope: Scope) -> None:
        headers, path = Headers(scope=scope), scope["path"]
        host = headers.get("host", "")
        if not self._token and not is_loopback(_name(host)):
            raise RequestRefused(403, "without a token the server answers to localhost alone")
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            raise RequestRefused(403, "pages of other sites may not use this server")
        if self._token and path not in OPEN_PATHS and not self._is_known(headers):
            raise RequestRefused(401, "the token is missing or wrong: Authorization: Bearer TOKEN")
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self.limits.bytes:
            raise RequestRefused(413, f"a request has at most {self.limits.bytes:,} bytes")
        if scope["method"] == "POST" and path != "/webhook" and self._is_full():
            raise RequestRefused(503, "too many requests wait: try again later")

    def _is_known(self, headers: Headers) -> bool:
        """Whether a request brings the token, as one of three headers."""
        given = headers.getlist("authorization") + headers.getlist("token")
        if len(given) != 1:
            return False
        scheme, _, value = given[0].rpartition(" ")
        if scheme.lower() == "basic":  # Label Studio's; the password is the token
            try:
                value = base64.b64decode(value, validate=True).decode().partition(":")[2]
            except (binascii.Error, UnicodeDecodeError):
                return False
        return hmac.compare_digest(value.encode(), self._token)

    def hold(self, count: int) -> None:
        """Count bytes of a body; RequestRefused where all bodies together are too large."""
        self._held += count
        if self._held > _HELD * self.limits.bytes:
            raise RequestRefused(503, "too many large requests at once: try again later")


class _Body:
    """The body of one request, received within its bounds."""

    def __init__(self, guard: Guard, receive: Receive) -> None:
        self._guard, self._receive = guard, receive
        self._end = time.monotonic() + guard.limits.body_seconds
        self._is_whole = False
        self.bytes = 0

    async def receive(self) -> Message:
        """The next message; after the last one of the body, without a bound on time."""
        if self._is_whole:
            return await self._receive()
        limits = self._guard.limits
        try:
            left = max(self._end - time.monotonic(), 0.001)
            message = await asyncio.wait_for(self._receive(), left)
        except TimeoutError:
            raise RequestRefused(408, f"no whole request in {limits.body_seconds:g} s") from None
        if message["type"] == "http.disconnect":
            raise RequestRefused(408, "the client has gone before its request was whole")
        count = len(message.get("body", b""))
        self.bytes += count
        self._is_whole = not message.get("more_body", False)
        self._guard.hold(count)
        if self.bytes > limits.bytes:
            raise RequestRefused(413, f"a request has at most {limits.bytes:,} bytes")
        return message


def _name(host: str) -> str:
    """The host of a `Host` header, without its port and the brackets of IPv6."""
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdecimal() else host).strip("[]")


def log_event(**event: Any) -> None:
    """One line of JSON in the log; never an image or a key."""
    _log.info("%s", json.dumps({"time": round(time.time(), 3), **event}))
